"""Crontabs: what is read, what is refused, and when they fire (cronsim is the oracle)."""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from cq.definition.crontab import Crontab, zone
from cq.errors import InvalidCrontab, InvalidOption

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
APIA = ZoneInfo("Pacific/Apia")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def walls(text: str, start: datetime, where: ZoneInfo, n: int = 5) -> list[str]:
    firings = Crontab.parse(text).preview(start, where, n)
    return [firing.astimezone(where).strftime("%d %H:%M%z") for firing in firings]


@pytest.mark.parametrize(
    ("text", "attribute", "values"),
    [
        ("*/15 * * * *", "minutes", (0, 15, 30, 45)),
        ("1,2-4,50/5 * * * *", "minutes", (1, 2, 3, 4, 50, 55)),
        ("05 9-17/4 * * *", "hours", (9, 13, 17)),
        ("0 0 * jan,DeC *", "months", (1, 12)),
        ("0 0 * * mon-FRI", "weekdays", (1, 2, 3, 4, 5)),
        ("0 0 * * 7", "weekdays", (0,)),
        ("0 0 * * 5-7", "weekdays", (0, 5, 6)),
        ("0 0 * * 0-7", "weekdays", (0, 1, 2, 3, 4, 5, 6)),
        ("0\t0   1 * *", "days", (1,)),
    ],
)
def test_the_five_fields_are_read(text: str, attribute: str, values: tuple[int, ...]) -> None:
    assert getattr(Crontab.parse(text), attribute) == values


@pytest.mark.parametrize(
    ("text", "field", "span"),
    [
        ("*/0 * * * *", "minute", "1 to 59"),
        ("*/60 * * * *", "minute", "1 to 59"),
        ("60 * * * *", "minute", "0 to 59"),
        ("99 * * * *", "minute", "0 to 59"),
        ("-1 * * * *", "minute", "0 to 59"),
        ("1- * * * *", "minute", "0 to 59"),
        (", * * * *", "minute", "0 to 59"),
        ("1,,2 * * * *", "minute", "0 to 59"),
        ("** * * * *", "minute", "0 to 59"),
        ("*-5 * * * *", "minute", "0 to 59"),
        ("*/5/2 * * * *", "minute", "1 to 59"),
        ("1-2-3 * * * *", "minute", "0 to 59"),
        ("001 * * * *", "minute", "0 to 59"),
        ("R * * * *", "minute", "0 to 59"),
        ("? * * * *", "minute", "0 to 59"),
        ("٣ * * * *", "minute", "0 to 59"),
        ("² * * * *", "minute", "0 to 59"),
        ("0 24 * * *", "hour", "0 to 23"),
        ("0 5-1 * * *", "hour", "runs backwards"),
        ("0 0 0 * *", "day of month", "1 to 31"),
        ("0 0 L * *", "day of month", "1 to 31"),
        ("0 0 15W * *", "day of month", "1 to 31"),
        ("0 0 * 13 *", "month", "1 to 12, or JAN to DEC"),
        ("0 0 * JANUARY *", "month", "1 to 12, or JAN to DEC"),
        ("0 0 * * 8", "weekday", "0 to 7, or SUN to SAT"),
        ("0 0 * * MON#2", "weekday", "0 to 7, or SUN to SAT"),
        ("0 0 * * SAT-SUN", "weekday", "runs backwards"),
        ("0 0 * * *\n", "weekday", "0 to 7"),
        ("0 0 * *\n*", None, "exactly five"),
        ("* * * *", None, "4 field(s)"),
        ("* * * * * *", None, "6 field(s)"),
        ("* * * * * * *", None, "7 field(s)"),
        ("", None, "0 field(s)"),
        ("@reboot", None, "exactly five"),
        ("@daily", None, "Write '0 0 * * *'"),
        ("*/5 " * 2500, None, "10000 characters"),
        ("1" * 9000, None, "9000 characters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_field_and_range(
    text: str, field: str | None, span: str
) -> None:
    with pytest.raises(InvalidCrontab) as caught:
        Crontab.parse(text)
    message = str(caught.value)
    assert span in message
    assert len(message) < 400
    if field:
        assert caught.value.facts["field"] == field
        assert field in message


@pytest.mark.parametrize("text", [None, 5, ["*"] * 5])
def test_what_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(InvalidCrontab, match="five fields"):
        Crontab.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30-31 2 */2", "0 0 31 jun-JUN *"]
)
def test_what_never_fires_is_refused(text: str) -> None:
    with pytest.raises(InvalidCrontab, match=r"never fires.*1-\d\d"):
        Crontab.parse(text)


@pytest.mark.parametrize(
    "text", ["*/5 * * * *", "x" * 10_000, "1-" * 49, ",".join(["*"] * 40) + " * * * *"]
)
def test_reading_takes_less_than_a_millisecond(text: str) -> None:
    def once() -> float:
        began = time.perf_counter()
        with contextlib.suppress(InvalidCrontab):
            Crontab.parse(text)
        return time.perf_counter() - began

    assert min(once() for _ in range(20)) < 0.001


def test_a_crontab_is_a_value() -> None:
    first, second = Crontab.parse("0  0 * * *"), Crontab.parse("0 0 * * *")
    assert first == second
    assert len({first, second}) == 1
    assert first.text == "0 0 * * *"


def test_a_day_field_with_a_star_narrows_and_two_plain_ones_widen() -> None:
    friday_13 = Crontab.parse("0 0 13 * FRI").preview(utc(2026, 2, 1), UTC_ZONE, 3)
    assert [moment.day for moment in friday_13] == [6, 13, 20]
    odd_monday = Crontab.parse("0 0 */2 * MON").preview(utc(2026, 2, 1), UTC_ZONE, 3)
    assert [moment.date().isoformat() for moment in odd_monday] == [
        "2026-02-09",
        "2026-02-23",
        "2026-03-09",
    ]
    everyday = Crontab.parse("0 0 1-31 * MON").preview(utc(2026, 2, 1), UTC_ZONE, 3)
    assert [moment.day for moment in everyday] == [2, 3, 4]


def test_leap_days_are_reached() -> None:
    assert Crontab.parse("0 0 29 2 *").next_after(utc(2096, 3, 1), UTC_ZONE) == utc(2104, 2, 29)
    # The longest wait the calendar knows: the 29th of February on one weekday.
    assert Crontab.parse("0 0 29 2 */7").next_after(utc(2088, 3, 1), UTC_ZONE) == utc(2128, 2, 29)


def test_the_next_firing_is_strictly_later() -> None:
    every_minute = Crontab.parse("* * * * *")
    assert every_minute.next_after(utc(2026, 1, 1), UTC_ZONE) == utc(2026, 1, 1, 0, 1)
    last = datetime(2025, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert every_minute.next_after(last, UTC_ZONE) == utc(2026, 1, 1)
    assert Crontab.parse("0 0 1 1 *").next_after(last, UTC_ZONE) == utc(2026, 1, 1)
    assert Crontab.parse("0 0 1 1 *").next_after(utc(2026, 1, 1), UTC_ZONE) == utc(2027, 1, 1)


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(InvalidOption, match="naive"):
        Crontab.parse("* * * * *").next_after(datetime(2026, 1, 1), UTC_ZONE)


# --- summer time ---------------------------------------------------------------------------

GAP_EVE = utc(2026, 3, 28, 20)
OVERLAP_EVE = utc(2026, 10, 24, 20)


def test_a_time_in_the_gap_runs_once_right_after_it() -> None:
    assert walls("30 2 * * *", GAP_EVE, BERLIN, 2) == ["29 03:00+0200", "30 02:30+0200"]
    assert walls("0,30 2,3 * * *", GAP_EVE, BERLIN, 3) == [
        "29 03:00+0200",
        "29 03:30+0200",
        "30 02:00+0200",
    ]
    nightly = Crontab.parse("30 2 * * *")
    note = nightly.note(nightly.next_after(GAP_EVE, BERLIN), BERLIN)
    assert "03:00" in note
    assert nightly.note(nightly.next_after(utc(2026, 1, 1), BERLIN), BERLIN) == ""


def test_a_repeated_time_runs_once() -> None:
    assert walls("30 2 * * *", OVERLAP_EVE, BERLIN, 2) == ["25 02:30+0200", "26 02:30+0100"]
    # Saved during the second pass, it does not fire again either.
    second_pass = utc(2026, 10, 25, 1, 10)
    assert walls("30 2 * * *", second_pass, BERLIN, 1) == ["26 02:30+0100"]


def test_minutely_and_hourly_crontabs_follow_real_hours() -> None:
    assert walls("0 * * * *", utc(2026, 3, 29, 0), BERLIN, 2) == ["29 03:00+0200", "29 04:00+0200"]
    assert walls("30 * * * *", utc(2026, 10, 25, 0), BERLIN, 3) == [
        "25 02:30+0200",
        "25 02:30+0100",
        "25 03:30+0100",
    ]
    start = utc(2026, 10, 24, 22)
    minutes = Crontab.parse("* * * * *").preview(start, BERLIN, 360)
    assert minutes == [start + timedelta(minutes=n + 1) for n in range(360)]
    # `*` in the minute: the repeated hour counts twice, the skipped one not at all.
    assert walls("*/30 2 * * *", OVERLAP_EVE, BERLIN, 4) == [
        "25 02:00+0200",
        "25 02:30+0200",
        "25 02:00+0100",
        "25 02:30+0100",
    ]
    assert walls("*/30 2 * * *", GAP_EVE, BERLIN, 1) == ["30 02:00+0200"]


def test_gaps_of_half_an_hour_and_of_a_day() -> None:
    assert walls("15 2 * * *", utc(2026, 10, 3, 0), LORD_HOWE, 2) == [
        "04 02:30+1100",
        "05 02:15+1100",
    ]
    assert walls("45 1 * * *", utc(2026, 4, 4, 0), LORD_HOWE, 2) == [
        "05 01:45+1100",
        "06 01:45+1030",
    ]
    # Samoa had no 30th of December in 2011.
    assert walls("0 12 * * *", utc(2011, 12, 29, 23), APIA, 2) == ["31 00:00+1400", "31 12:00+1400"]


CRONTABS = [
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 * * * *",
    "15,45 * * * *",
    "0 */2 * * *",
    "30 */3 * * *",
    "*/20 1-3 * * *",
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "0,30 2 * * *",
    "59 1 * * *",
    "0 1,2,3 * * *",
    "30 2 * * SUN",
    "30 2 * 3,10 *",
    "30 2 25-31 * 0",
    "0 0 * * *",
]


@pytest.mark.parametrize("text", CRONTABS)
def test_berlin_agrees_with_cronsim_at_every_transition_of_15_years(text: str) -> None:
    crontab = Crontab.parse(text)
    for year in range(2020, 2036):
        for month in (3, 10):
            last_sunday = max(d for d in range(25, 32) if datetime(year, month, d).weekday() == 6)
            start = utc(year, month, last_sunday) - timedelta(hours=1)
            end = start + timedelta(hours=5)
            oracle, moment = CronSim(text, start.astimezone(BERLIN)), start
            while moment < end:
                moment = crontab.next_after(moment, BERLIN)
                assert moment == next(oracle).astimezone(UTC), (text, year, month)


def column(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # Not "3-3": with a step the oracle takes that for "3 to the end".
    span = st.integers(low, high - 1).flatmap(
        lambda first: st.integers(first + 1, high).map(lambda last: f"{first}-{last}")
    )
    step = st.integers(1, high)
    term = st.one_of(
        st.just("*"),
        number.map(str),
        span,
        st.builds("{}/{}".format, st.one_of(st.just("*"), span, number.map(str)), step),
    )
    return st.lists(term, min_size=1, max_size=3).map(",".join)


TEXTS = st.tuples(column(0, 59), column(0, 23), column(1, 28), column(1, 12), column(0, 7))


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)))
def test_ordinary_times_agree_with_cronsim(fields: tuple[str, ...], start: datetime) -> None:
    text = " ".join(fields)
    start = start.replace(tzinfo=UTC)
    oracle = CronSim(text, start)
    assert Crontab.parse(text).preview(start, UTC_ZONE, 3) == [next(oracle) for _ in range(3)]


@settings(max_examples=60, deadline=None)
@given(
    TEXTS,
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from(
        ["Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Casablanca"]
    ),
)
def test_firings_strictly_increase_in_every_zone(
    fields: tuple[str, ...], start: datetime, name: str
) -> None:
    moment = start.replace(tzinfo=UTC)
    for firing in Crontab.parse(" ".join(fields)).preview(moment, ZoneInfo(name), 4):
        assert firing > moment
        moment = firing


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="*/,-0123456789 LWR#?@\n\tASUNMO", max_size=40))
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    message = None
    try:
        crontab = Crontab.parse(text)
    except InvalidCrontab as error:
        message = str(error)
    assert crontab.minutes if message is None else message.endswith(".")


# --- zones and words -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Mars/X", "../../etc/passwd", "/etc/passwd", "", "europe/berlin", 5]
)
def test_a_zone_must_be_on_the_list(name: str) -> None:
    with pytest.raises(InvalidOption, match="unknown"):
        zone(name)


def test_a_known_zone_is_returned_and_a_near_one_named() -> None:
    assert zone("Europe/Berlin") is BERLIN
    with pytest.raises(InvalidOption, match="Europe/Berlin"):
        zone("Europe/Berlim")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("* * * * *", "Every minute"),
        ("*/5 * * * *", "Every 5 minutes"),
        ("0 * * * *", "Every hour"),
        ("*/25 * * * *", "At minute 0, 25 and 50 of every hour"),
        ("20 * * * *", "At minute 20 of every hour"),
        ("0 */2 * * *", "On the hour, every 2 hours"),
        ("30 2 * * 1-5", "At 02:30, Monday to Friday"),
        ("0 8,20 * * *", "At 08:00 and 20:00"),
        ("0 0 1 1,7 *", "At 00:00, on day 1 of the month, in January and July"),
        ("0 0 13 * 5", "At 00:00, on day 13 of the month or Friday"),
        ("*/10 9-17 * * *", "Every 10 minutes, hour 9 to 17"),
    ],
)
def test_words(text: str, words: str) -> None:
    assert Crontab.parse(text).words() == words
