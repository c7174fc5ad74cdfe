"""How long to wait, and what a Retry-After header asks for."""

import calendar
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadshed._policy.backoff import (
    JITTERS,
    SPREAD,
    at_least,
    decorrelated,
    exponential,
    jittered,
    parse_date,
    parse_retry_after,
)

DRAWS = st.floats(0, 1, exclude_max=True)
WAITS = st.floats(0, 1e6)

NOW = datetime(1994, 11, 6, 8, 0, tzinfo=UTC).timestamp()
"""Before the date that RFC 9110 has for an example."""

FORMS = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
]
SECONDS = 49 * 60 + 37


def always(draw: float) -> Callable[[], float]:
    return lambda: draw


def never() -> float:
    raise AssertionError("nothing is drawn")


# The wait.


@pytest.mark.parametrize(
    ("factor", "base", "waits"),
    [
        (1, 2, [1, 2, 4, 8, 16]),
        (0.1, 4, [0.1, 0.4, 1.6, 6.4, 25.6]),
        (3, 1, [3, 3, 3, 3, 3]),
        (0, 2, [0, 0, 0, 0, 0]),
    ],
)
def test_the_wait_grows_by_the_base(factor: float, base: float, waits: list[float]) -> None:
    found = [exponential(n, factor=factor, base=base, most=100) for n in range(1, 6)]
    assert found == waits


@pytest.mark.parametrize("n", [1024, 1025, 10**6, 10**18, 10**300])
@pytest.mark.parametrize(("factor", "base"), [(1, 2), (1.0, 2.0), (1, 1.5), (1e-300, 10**9)])
def test_however_many_retries_the_wait_is_not_more_than_the_most(
    n: int, factor: float, base: float
) -> None:
    assert exponential(n, factor=factor, base=base, most=120) == 120
    assert exponential(n, factor=factor, base=base, most=math.inf) > 1e150
    assert exponential(n, factor=0, base=base, most=120) == 0


@given(st.integers(1, 10**9), st.floats(0, 1e300), st.floats(1, 1e300), st.floats(0, 1e300))
def test_the_wait_is_a_number_and_never_shrinks(
    n: int, factor: float, base: float, most: float
) -> None:
    wait = exponential(n, factor=factor, base=base, most=most)
    assert 0 <= wait <= most
    assert wait <= exponential(n + 1, factor=factor, base=base, most=most)


def test_full_jitter_is_anything_up_to_the_wait() -> None:
    assert [jittered(8, "full", always(draw)) for draw in (0, 0.25, 0.5)] == [0, 2, 4]


def test_equal_jitter_is_in_the_upper_half() -> None:
    assert [jittered(8, "equal", always(draw)) for draw in (0, 0.25, 0.5)] == [4, 5, 6]


def test_without_jitter_nothing_is_drawn() -> None:
    assert jittered(8, "none", never) == 8


@given(st.one_of(WAITS, st.just(math.inf)), st.sampled_from(JITTERS), DRAWS)
@example(math.inf, "full", 0.0)
@example(math.inf, "equal", 0.0)
def test_jitter_never_lengthens_a_wait(wait: float, kind: str, draw: float) -> None:
    assert 0 <= jittered(wait, kind, always(draw)) <= wait


def test_decorrelated_jitter_is_between_the_factor_and_three_times_the_wait_before() -> None:
    waits = [decorrelated(4, always(draw), factor=2, most=100) for draw in (0, 0.5)]
    assert waits == [2, 7]
    assert decorrelated(4, always(0.5), factor=2, most=5) == 5
    assert decorrelated(0, always(0.5), factor=2, most=5) == 2


@given(WAITS, WAITS, WAITS, DRAWS)
def test_decorrelated_jitter_keeps_its_bounds(
    previous: float, factor: float, most: float, draw: float
) -> None:
    wait = decorrelated(previous, always(draw), factor=factor, most=most)
    assert min(factor, most) <= wait <= most
    assert wait <= max(factor, 3 * previous) * (1 + 1e-9)


@given(WAITS, st.one_of(WAITS, st.just(math.inf)), DRAWS)
def test_what_is_asked_for_is_a_floor_and_a_tenth_is_added_at_most(
    wait: float, floor: float, draw: float
) -> None:
    assert at_least(wait, floor, None) == max(wait, floor)
    longer = at_least(wait, floor, always(draw))
    assert max(wait, floor) <= longer <= max(wait, floor) * (1 + SPREAD)


# Retry-After.


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The process's own, each with another offset."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1),
        ("120", 120),
        ("007", 7),
        (" 5 ", 5),
        ("\t5\t", 5),
        ("86400", 86400),
        ("9" * 18, 1e18),
        ("9" * 19, 1e19),
        ("0" * 30 + "5", 5),
        ("9" * 400, math.inf),
        ("9" * 10_000, math.inf),
    ],
)
def test_whole_seconds_are_understood_however_many(value: str, seconds: float) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_date_is_understood_in_any_time_zone(form: str, time_zone: str) -> None:
    assert time.tzname[0] == "UTC" or time_zone != "UTC"
    assert parse_retry_after(form, NOW) == SECONDS
    assert parse_date(form, NOW) == NOW + SECONDS
    assert parse_retry_after(f" {form}\t", NOW) == SECONDS


@pytest.mark.parametrize("form", FORMS)
def test_in_the_hour_that_a_clock_is_set_back_a_date_is_what_it_says(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5EDT,J310/08:00,J309")  # the night of that date, hours before
        time.tzset()
        assert parse_date(form, NOW) == NOW + SECONDS
    time.tzset()


@pytest.mark.parametrize("form", FORMS)
def test_upper_and_lower_case_are_the_same(form: str) -> None:
    assert parse_date(form.lower(), NOW) == parse_date(form.upper(), NOW) == NOW + SECONDS


@pytest.mark.parametrize("form", [*FORMS, "0", "00", "0" * 30])
@pytest.mark.parametrize("later", [SECONDS, SECONDS + 0.1, 1e9])
def test_zero_and_the_past_ask_for_nothing(form: str, later: float) -> None:
    assert parse_retry_after(form, NOW + later) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "-0",
        "+1",
        "1.5",
        "1.0",
        "1,5",
        "1e3",
        "1_0",
        "0x10",
        "inf",
        "nan",
        "1 2",
        "1, 2",
        "5s",
        "5\n",
        "\n5",
        "5\x00",
        "\xa05",
        "\u0665",  # a digit of another script
        "\uff15",
        "\u00b2",
        "soon",
    ],
)
def test_what_are_no_whole_seconds_asks_for_nothing(value: str) -> None:
    assert parse_retry_after(value, NOW) is None


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  6 Nov 1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Now 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Wed, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 1995 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:99 GMT",
        "Sun, 0\u0666 Nov 1994 08:49:37 GMT",
        "\u017fun, 06 Nov 1994 08:49:37 GMT",  # a long s, whose upper case is an S
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sunday, 29-Feb-95 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun Nov  6 08:49:37 94",
        "Sun Nov  0 08:49:37 1994",
        "1994-11-06T08:49:37Z",
    ],
)
def test_what_is_no_http_date_asks_for_nothing(value: str) -> None:
    assert parse_date(value, NOW) is None
    assert parse_retry_after(value, NOW) is None


def test_a_single_digit_of_a_day_stands_behind_a_space() -> None:
    assert parse_date("Sun Nov 16 08:49:37 1994", NOW) == NOW + SECONDS + 10 * 24 * 60 * 60


def test_a_leap_second_is_the_first_of_the_next_minute() -> None:
    before = parse_date("Sat, 31 Dec 2016 23:59:59 GMT", NOW)
    leap = parse_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW)
    after = parse_date("Sun, 01 Jan 2017 00:00:00 GMT", NOW)
    assert before is not None
    assert leap == after == before + 1


@pytest.mark.parametrize(
    ("this_year", "digits", "year"),
    [
        (2026, "26", 2026),
        (2026, "94", 1994),
        (2026, "00", 2000),
        (2026, "76", 2076),
        (2026, "77", 1977),
        (1994, "94", 1994),
        (1994, "45", 1945),
        (2049, "99", 2099),
        (2050, "00", 2000),
    ],
)
def test_two_digits_of_a_year_are_never_more_than_fifty_years_ahead(
    this_year: int, digits: str, year: int
) -> None:
    now = datetime(this_year, 6, 1, tzinfo=UTC).timestamp()
    expected = datetime(year, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()
    assert parse_date(f"Sunday, 06-Nov-{digits} 08:49:37 GMT", now) == expected


def test_a_date_is_compared_with_the_time_to_the_fraction_of_a_second() -> None:
    assert parse_retry_after(FORMS[0], NOW + SECONDS - 0.25) == 0.25


@given(st.datetimes(datetime(1, 1, 1), timezones=st.just(UTC)))
def test_it_reads_what_python_writes(date: datetime) -> None:
    date = date.replace(microsecond=0)
    assert parse_date(format_datetime(date, usegmt=True), NOW) == date.timestamp()


@given(st.datetimes(datetime(1970, 1, 1), datetime(2076, 12, 31), timezones=st.just(UTC)))
def test_the_obsolete_forms_say_the_same(date: datetime) -> None:
    date = date.replace(microsecond=0)
    day, month = calendar.day_name[date.weekday()], calendar.month_abbr[date.month]
    clock = f"{date:%H:%M:%S}"
    asctime = f"{day[:3]} {month} {date.day:2d} {clock} {date.year}"
    assert parse_date(asctime, NOW) == date.timestamp()
    now = datetime(date.year, 1, 1, tzinfo=UTC).timestamp()
    rfc850 = f"{day}, {date.day:02d}-{month}-{date.year % 100:02d} {clock} GMT"
    assert parse_date(rfc850, now) == date.timestamp()


NEARLY = st.builds(
    "{}{} {}{}{}{}{} {}:{}:{}{}".format,
    st.sampled_from(["Sun,", "Sunday,", "Sun", "", "\u017fun,"]),
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from(["06", " 6", "6", "00", "31", "99", "-1", "Nov"]),
    st.sampled_from([" ", "-", "  "]),
    st.sampled_from(["Nov", "NOV", "Feb", "Now", "6", "06"]),
    st.sampled_from([" ", "-", ""]),
    st.sampled_from(["1994", "94", "0000", "9999", "10000", "", "\u0661994"]),
    st.sampled_from(["08", "24", "99", "8"]),
    st.sampled_from(["49", "60", ""]),
    st.sampled_from(["37", "60", "61", ""]),
    st.sampled_from([" GMT", "", " 1994", " 9999", " UTC", "\n"]),
)


@given(
    st.one_of(st.text(), NEARLY, st.text("0123456789+-., \te", max_size=25)),
    st.floats(-6e10, 2.5e11),
)
@example("Friday, 31-Dec-99 23:59:60 GMT", 0.0)
@example("Friday, 31-Dec-99 23:59:60 GMT", 2.5e11)
@example("Fri Dec 31 23:59:60 9999", 0.0)
def test_whatever_the_text_it_is_a_positive_number_of_seconds_or_none(
    value: str, now: float
) -> None:
    seconds = parse_retry_after(value, now)
    assert seconds is None or seconds > 0
    date = parse_date(value, now)
    assert date is None or math.isfinite(date)
