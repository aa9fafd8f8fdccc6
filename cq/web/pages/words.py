"""
The words of pages: lengths of time, moments and numbers.
"""

from datetime import datetime, timedelta

from django.utils import timezone

from cq.models.figures import CAP


def span(seconds: float | timedelta | None) -> str:
    """A length of time in one or two units: `4 ms`, `1.2 s`, `3 m 20 s`, `2 d 4 h`."""
    if seconds is None:
        return "–"
    value = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
    value = max(value, 0.0)
    if value == 0:
        return "0 s"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 10:
        return f"{value:.1f} s"
    whole = int(value)
    for size, unit, next_size, next_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def relative(value: datetime, kind: str) -> str:
    """The words of a moment, as the script of the page writes them too."""
    seconds = (timezone.now() - value).total_seconds()
    if kind == "in":
        return f"in {span(int(-seconds))}" if seconds < -1 else "now"
    text = span(int(max(seconds, 0))) if seconds >= 1 else "0 s"
    return f"{text} ago" if kind == "ago" else text


def number(value: float | None) -> str:
    """A number with thin spaces between thousands; whole ones above ten."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if value == int(value) or value >= 10 else f"{value:.1f}"
    return text.replace(",", " ")


def capped(value: int) -> str:
    """A count that went no further than CAP."""
    return f"{number(CAP)}+" if value > CAP else number(value)
