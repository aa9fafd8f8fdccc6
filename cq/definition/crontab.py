"""
Crontabs: when a repeating task fires.

In goes a text of five fields and a moment; out comes the next moment, in UTC. Reading is
strict and by hand, because croniter also takes backward ranges, seconds and newlines;
croniter only walks the calendar over the fields read here, on the wall clock.

Summer time is our own rule. A time that the clocks skip runs once, right after the gap; a
time that they repeat runs once, the first time. A crontab whose minute or hour begins with
`*` counts real hours instead: nothing is made up in the gap, and the repeated hour counts.
"""

import zoneinfo
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import NoReturn, Self
from zoneinfo import ZoneInfo

from croniter import croniter

from cq.errors import InvalidCrontab, InvalidOption

MAX_LENGTH = 100
DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Column:
    """One of the five fields: what it is called, its bounds and its names."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def every(self) -> frozenset[int]:
        return frozenset(range(self.low, self.high + 1))


COLUMNS = (
    Column("minute", 0, 59),
    Column("hour", 0, 23),
    Column("day of month", 1, 31),
    Column("month", 1, 12, tuple(name[:3].upper() for name in MONTHS)),
    Column("weekday", 0, 7, tuple(name[:3].upper() for name in WEEKDAYS)),
)


@dataclass(frozen=True, slots=True)
class Crontab:
    """A schedule that has been read and is known to fire; made by `Crontab.parse`."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool
    real_hours: bool
    pattern: str = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read five fields, or raise InvalidCrontab that names the field and its range.

        Takes lists, ranges, steps, JAN-DEC and SUN-SAT in any case, and 7 for Sunday.
        Refuses what would never fire. Takes at most a millisecond, whatever comes in.
        """
        fields = _split(text)
        sets = [
            _Reader(column, part, text).values()
            for column, part in zip(COLUMNS, fields, strict=True)
        ]
        sets[4] = frozenset(day % 7 for day in sets[4])
        # As in Vixie cron: a day field that begins with a star narrows the other one,
        # two plain ones widen each other ("the 13th or a Friday").
        either = not (fields[2].startswith("*") or fields[4].startswith("*"))
        if not either:
            _refuse_impossible(text, days=sets[2], months=sets[3])
        minutes, hours, days, months, weekdays = (tuple(sorted(values)) for values in sets)
        if either and (len(days) == 31 or len(weekdays) == 7):
            days, weekdays, either = tuple(range(1, 32)), tuple(range(7)), False
        return cls(
            text=" ".join(fields),
            minutes=minutes,
            hours=hours,
            days=days,
            months=months,
            weekdays=weekdays,
            either_day=either,
            real_hours=fields[0].startswith("*") or fields[1].startswith("*"),
            pattern=" ".join(
                "*" if len(values) == size else ",".join(map(str, values))
                for values, size in zip(
                    (minutes, hours, days, months, weekdays), (60, 24, 31, 12, 7), strict=True
                )
            ),
        )

    def next_after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Return the first firing later than the aware `moment`, in UTC."""
        if moment.tzinfo is None:
            raise InvalidOption(
                f"next_after() got the naive datetime {moment.isoformat()}. It needs an aware "
                "one; use django.utils.timezone.now().",
                moment=moment,
            )
        if self.real_hours:
            return self._next_real(moment, zone)
        walls = self._walls(moment.astimezone(zone).replace(tzinfo=None))
        instants = (_first_instant(wall, zone) for wall in walls)
        return next(instant for instant in instants if instant > moment)

    def preview(self, after: datetime, zone: ZoneInfo, n: int = 5) -> list[datetime]:
        """Return the next `n` firings, in UTC."""
        firings = []
        for _ in range(n):
            after = self.next_after(after, zone)
            firings.append(after)
        return firings

    def note(self, firing: datetime, zone: ZoneInfo) -> str:
        """Say why a firing is not at a time the fields name: the clocks skip it that day."""
        wall = firing.astimezone(zone)
        if wall.hour in self.hours and wall.minute in self.minutes:
            return ""
        return f"the clocks go forward to {wall:%H:%M} that day"

    def words(self) -> str:
        """Say the schedule in English: `At 02:30, Monday to Friday`."""
        return ", ".join(filter(None, (self._time_words(), self._day_words(), self._month_words())))

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """Walk the matching wall-clock times later than `start`, knowing of no zone."""
        walk = croniter(
            self.pattern,
            start.replace(tzinfo=UTC, microsecond=0),
            ret_type=datetime,
            day_or=self.either_day,
        )
        while True:
            yield walk.get_next(datetime).replace(tzinfo=None)

    def _next_real(self, moment: datetime, zone: ZoneInfo) -> datetime:
        start = moment.astimezone(zone)
        floor = moment
        wall = start.replace(tzinfo=None)
        # Only when clocks go back can a wall time earlier than `wall` still come; an overlap
        # is shorter than a day, so one that matters begins within the next day.
        offset = _offset(start)
        if _offset((moment.astimezone(UTC) + DAY).astimezone(zone)) < offset:
            change = _change(moment, moment + DAY, zone)
            instant = (next(self._walls(wall)) - offset).replace(tzinfo=UTC)
            if instant < change:
                return instant
            floor = change - timedelta(seconds=1)
            wall = change.astimezone(zone).replace(tzinfo=None) - timedelta(seconds=1)
        return next(
            instant
            for candidate in self._walls(wall)
            for instant in _instants(candidate, zone)
            if instant > floor
        )

    def _time_words(self) -> str:
        if len(self.minutes) * len(self.hours) <= 4:
            return "At " + _join(f"{h:02}:{m:02}" for h in self.hours for m in self.minutes)
        pace = _pace(self.minutes, 60)
        if pace and self.minutes != (0,):
            words = "Every minute" if pace == 1 else f"Every {pace} minutes"
        else:
            words = "On the hour" if self.minutes == (0,) else f"At minute {_ranges(self.minutes)}"
        if len(self.hours) == 24:
            if self.minutes == (0,):
                return "Every hour"
            return words if pace else f"{words} of every hour"
        if _pace(self.hours, 24) and len(self.hours) > 1:
            return f"{words}, every {24 // len(self.hours)} hours"
        return f"{words}, hour {_ranges(self.hours)}"

    def _day_words(self) -> str:
        days = f"on day {_ranges(self.days)} of the month" if len(self.days) < 31 else ""
        weekdays = _ranges(self.weekdays, WEEKDAYS) if len(self.weekdays) < 7 else ""
        if days and weekdays:
            return f"{days} {'or' if self.either_day else 'if it is'} {weekdays}"
        return days or weekdays

    def _month_words(self) -> str:
        return f"in {_ranges(self.months, ('', *MONTHS))}" if len(self.months) < 12 else ""


@dataclass(frozen=True, slots=True)
class _Reader:
    """One field being read; everything wrong with it ends in `refuse`."""

    column: Column
    part: str
    text: str

    def values(self) -> frozenset[int]:
        return frozenset().union(*(self.term(term) for term in self.part.split(",")))

    def term(self, term: str) -> frozenset[int]:
        span, slash, step = term.partition("/")
        if span == "*":
            low, high = self.column.low, self.column.high
        else:
            first, dash, last = span.partition("-")
            low = self.number(first)
            high = self.number(last) if dash else self.column.high if slash else low
        if high < low:
            self.refuse(f"the range {span!r} runs backwards")
        return frozenset(range(low, high + 1, self.step(step) if slash else 1))

    def number(self, word: str) -> int:
        if word.upper() in self.column.names:
            return self.column.names.index(word.upper()) + self.column.low
        value = self.digits(word)
        if value is None or not self.column.low <= value <= self.column.high:
            self.refuse(f"{_short(word)} does not fit" if word else "a number is missing")
        return value

    def step(self, word: str) -> int:
        value = self.digits(word)
        if not value or value > self.column.high:
            self.refuse(f"the step {_short(word)} is not from 1 to {self.column.high}")
        return value

    def digits(self, word: str) -> int | None:
        # isdigit() alone takes Arabic digits and superscripts.
        return int(word) if len(word) <= 2 and word.isascii() and word.isdigit() else None

    def refuse(self, problem: str) -> NoReturn:
        low, high = self.column.low, self.column.high
        names = self.column.names
        span = f"{low} to {high}" + (f", or {names[0]} to {names[-1]}" if names else "")
        raise InvalidCrontab(
            f"Crontab {_short(self.text)}, {self.column.name} {_short(self.part)}: {problem}. "
            f"The {self.column.name} goes from {span}. "
            "Write *, a number, a range a-b, a list a,b or a step */n.",
            crontab=self.text,
            field=self.column.name,
            value=self.part,
        )


def _split(text: str) -> list[str]:
    if not isinstance(text, str):
        raise InvalidCrontab(
            f"Crontab {text!r:.80} is no text. It must be a text of five fields, for example "
            "'30 2 * * *'.",
            crontab=text,
        )
    # Not split(): a newline or a no-break space stays in its field and is refused there.
    fields = [part for part in text.replace("\t", " ").split(" ") if part]
    if len(text) > MAX_LENGTH or len(fields) != 5:
        shorthand = SHORTHANDS.get(text.strip().lower()) if len(text) <= MAX_LENGTH else None
        what = f"{len(text)} characters" if len(text) > MAX_LENGTH else f"{len(fields)} field(s)"
        advice = f"Write {shorthand!r}." if shorthand else "For example '30 2 * * 1-5'."
        raise InvalidCrontab(
            f"Crontab {_short(text)} has {what}. It must have exactly five fields, minute, hour, "
            f"day of month, month and weekday, in at most {MAX_LENGTH} characters. {advice}",
            crontab=text,
        )
    return fields


def _refuse_impossible(text: str, *, days: frozenset[int], months: frozenset[int]) -> None:
    """
    Refuse a day that none of its months has.

    Any other day comes on every weekday within the calendar's cycle of 400 years, the 29th
    of February within 40 of them, so this is all that can keep a crontab from firing.
    """
    longest = max(DAYS_OF_MONTH[month - 1] for month in months)
    if min(days) > longest:
        raise InvalidCrontab(
            f"Crontab {_short(text)} never fires: no month in its month field has a day "
            f"{min(days)}. The day of month may be 1-{longest} there. Choose an earlier day or "
            "another month.",
            crontab=text,
            field="day of month",
        )


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _instants(wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the instants at which clocks show `wall`: none in a gap, two in an overlap."""
    seen = None
    for fold in (0, 1):
        instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant != seen and instant.astimezone(zone).replace(tzinfo=None) == wall:
            yield instant
        seen = instant


def _first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant at which clocks show `wall`, or the end of the gap it is in."""
    for instant in _instants(wall, zone):
        return instant
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
    return _change(early, late, zone)


def _change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the second in (low, high] at which the zone's offset stops being that of `low`."""
    low = low.astimezone(UTC).replace(microsecond=0)
    high = high.astimezone(UTC).replace(microsecond=0)
    before = _offset(low.astimezone(zone))
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if _offset(middle.astimezone(zone)) == before:
            low = middle
        else:
            high = middle
    return high


def _pace(values: tuple[int, ...], size: int) -> int:
    """Return the step of values that divide a whole of that size evenly from 0 on, else 0."""
    step = size // len(values)
    return step if values == tuple(range(0, size, step)) and size % step == 0 else 0


def _join(words: Iterable[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def _ranges(values: tuple[int, ...], names: tuple[str, ...] = ()) -> str:
    """Say sorted numbers, runs of three or more as `a to b`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    said = []
    for run in runs:
        words = [names[value] if names else str(value) for value in run]
        said += [f"{words[0]} to {words[-1]}"] if len(run) > 2 else words
    return _join(said)


def _short(text: str) -> str:
    shown = repr(text[:40])
    return shown if len(text) <= 40 else f"{shown}…"


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def zone(name: str) -> ZoneInfo:
    """Return a zone of the system's own list; nothing else ever reaches the file system."""
    if isinstance(name, str) and name in _zone_names():
        return ZoneInfo(name)
    close = get_close_matches(str(name)[:64], _zone_names(), n=1)
    advice = f"Did you mean {close[0]!r}?" if close else "Write a name such as 'Europe/Berlin'."
    if not _zone_names():
        advice = "This system has no time zones; run: pip install tzdata"
    raise InvalidOption(
        f"Time zone {_short(str(name))} is unknown. It must be a name of the IANA database. "
        f"{advice}",
        zone=name,
    )
