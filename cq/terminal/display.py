"""
Two ways to show a watched tree: plain lines, and a picture that is drawn over.

Enters: heads, log lines, trees and notes, in the order in which they come. Plain lines go
to pipes, files and dumb terminals, one for each change. On a terminal where rich is
installed the tree stays at the foot with its bars, and the log scrolls above it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from cq.progress.publisher import Line
from cq.terminal.branches import Branch, short
from cq.terminal.text import clock, duration, printable

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text
except ImportError:  # the extra `cli` is not installed: plain lines
    Live = None  # type: ignore[assignment,misc]

PLAIN_SECONDS = 2.0
"""A plain line that only counts up is repeated no sooner."""

_MARKS = {
    "success": ("✔", "green"),
    "running": ("◐", "cyan"),
    "waiting": ("◐", "cyan"),
    "retry": ("↻", "yellow"),
    "queued": ("○", "dim"),
    "pending": ("○", "dim"),
    "failure": ("✘", "red"),
    "incomplete": ("✘", "red"),
    "lost": ("✘", "red"),
    "revoked": ("⊘", "magenta"),
}
_LEVELS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "bold red"}
_BAR_WIDTH = 24
_LEAST_PART = 0.02


class Display(Protocol):
    """What shows a watch."""

    def say(self, text: str) -> None:
        """Show a sentence of the command itself."""

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Show log lines."""

    def show_tree(self, tree: Sequence[Branch]) -> None:
        """Show the tree as it stands now."""

    def close(self) -> None:
        """Leave the last picture standing."""


def display_on(out: Any, *, plain: bool = False) -> Display:
    """Return the display that fits an output: a text file, or Django's wrapper of one."""
    out = getattr(out, "_out", out)
    if plain or Live is None or not out.isatty():
        return PlainDisplay(out)
    return Screen(Console(file=out, highlight=False))


class PlainDisplay:
    """One line for each event, in plain text."""

    def __init__(self, out: Any, now: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._now = now
        self._said: dict[str, tuple[str, float]] = {}
        self._held: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Write a sentence."""
        self._write(text)

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Write log lines."""
        for line in lines:
            self._write(f"{heading(line)} {indented(printable(line['message']))}")

    def show_tree(self, tree: Sequence[Branch]) -> None:
        """Write the branches that changed; one that goes on counting waits its turn."""
        for branch in tree:
            text = plain_branch(branch)
            said, at = self._said.get(branch.key, ("", 0.0))
            if text == said:
                self._held.pop(branch.key, None)
            elif branch.is_over or not said or self._now() - at >= PLAIN_SECONDS:
                self._tell(branch.key, text)
            else:
                self._held[branch.key] = text

    def close(self) -> None:
        """Write what waited."""
        for key, text in list(self._held.items()):
            self._tell(key, text)

    def _tell(self, key: str, text: str) -> None:
        self._held.pop(key, None)
        self._said[key] = (text, self._now())
        self._write(text)

    def _write(self, text: str) -> None:
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        self._out.flush()


class Screen:
    """A tree with bars at the foot of a terminal, drawn by rich, with the log above it."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=False)
        self._live.start()

    def say(self, text: str) -> None:
        """Print a sentence above the tree."""
        self._console.print(Text(text), soft_wrap=True)

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Print log lines above the tree, with the colours that they bring."""
        for line in lines:
            style = _LEVELS.get(line["level"], "dim")
            message = Text.from_ansi(indented(printable(line["message"], colours=True)))
            self._console.print(Text.assemble((heading(line), style), " ", message), soft_wrap=True)

    def show_tree(self, tree: Sequence[Branch]) -> None:
        """Draw the tree anew."""
        self._live.update(Group(drawn(tree, datetime.now(UTC))), refresh=True)

    def close(self) -> None:
        """Leave the last tree standing."""
        self._live.stop()


def heading(line: Line) -> str:
    """Return what stands before a log line: when, how grave, who."""
    level = logging.getLevelName(line["level"])
    when = clock(datetime.fromisoformat(line["at"]))
    return f"{when} {level:<7} {short(line['name'])}[{line['task'][-4:]}]"


def indented(text: str) -> str:
    """Return a text whose further lines cannot be taken for lines of their own."""
    return text.replace("\n", "\n    ")


def plain_branch(branch: Branch) -> str:
    """Return a branch as one plain line."""
    took = ""
    if branch.started and branch.finished:
        took = f" in {duration((branch.finished - branch.started).total_seconds())}"
    figures = f" {branch.figures}" if branch.figures and not branch.is_over else ""
    return f"{branch.stem}{branch.title}: {branch.words}{figures}{took}"


def drawn(tree: Sequence[Branch], now: datetime) -> "Table":
    """Return the tree as a table: name, state, bar, figures, time."""
    table = Table.grid(padding=(0, 1))
    table.add_column(overflow="ellipsis", no_wrap=True, ratio=None)
    table.add_column(overflow="ellipsis", no_wrap=True)
    table.add_column(width=_BAR_WIDTH)
    table.add_column(overflow="ellipsis", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for branch in tree:
        mark, style = _MARKS[branch.state]
        part = None if branch.is_over and branch.count == 1 else branch.part
        table.add_row(
            Text.assemble((branch.stem, "dim"), branch.title),
            Text(f"{mark} {branch.words}", style=style),
            _bar(part, style),
            Text("" if branch.is_over else branch.figures, style="dim"),
            Text(_time_of(branch, now), style="dim"),
        )
    return table


def _bar(part: float | None, style: str) -> "ProgressBar | Text":
    if part is None:
        return Text("")
    return ProgressBar(
        total=1.0, completed=part, width=_BAR_WIDTH, complete_style=style, finished_style=style
    )


def _time_of(branch: Branch, now: datetime) -> str:
    """How long it has taken, and how much longer if it goes on like this."""
    if branch.started is None:
        return ""
    seconds = ((branch.finished or now) - branch.started).total_seconds()
    part = branch.part
    if branch.finished or part is None or not _LEAST_PART <= part < 1:
        return duration(seconds)
    return f"{duration(seconds)}, {duration(seconds * (1 - part) / part)} left"
