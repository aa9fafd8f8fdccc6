"""
Text that is safe to print: what tasks said, without what would steer the terminal.

Log lines, names and errors are written by tasks, and a task may repeat what a stranger
sent. Colours survive where they are wanted; the cursor, the title, the clipboard and the
direction of writing stay as they were.
"""

import re
from datetime import datetime

from django.utils import timezone

# CSI with its parameters, OSC and its like up to their end (or to the end of the line), the rest.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m\Z")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STRAY = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, *, colours: bool = False) -> str:
    """Return the text without control sequences; with `colours` those that colour stay."""

    def keep(found: re.Match[str]) -> str:
        return found[0] if colours and _COLOUR.match(found[0]) else ""

    return _CONTROL.sub(_STRAY, _SEQUENCE.sub(keep, text.replace("\r\n", "\n")))


def one_line(text: str, limit: int = 200) -> str:
    """Return the text printable and on one line, cut to a length."""
    flat = " ".join(printable(text[: 4 * limit]).split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def clock(moment: datetime) -> str:
    """Return the time of day in the project's zone, to the millisecond."""
    local = timezone.localtime(moment)
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"


def duration(seconds: float) -> str:
    """Return a length of time as people write it: 0.4 s, 1:05, 2:03:04."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
