"""What is believed of what a caller says of its patience."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadshed._policy.deadline import (
    ATTEMPT,
    LONGEST,
    MOST,
    TIMEOUT,
    Deadline,
    Said,
    parse_attempt,
    parse_timeout,
    read,
)

NO_NUMBERS = [
    b"",
    b" ",
    b"x",
    b"+1",
    b"-1",
    b"-0",
    b" 1",
    b"1 ",
    b"1\n",
    b"1\x00",
    b"1_0",
    b"1,2",
    b"1, 1",
    b"0x10",
    b"nan",
    b"NaN",
    b"inf",
    b"Infinity",
    b"1e3",
    b"1E3",
    "\u0661".encode(),  # a digit of another script
    "\u00b2".encode("latin-1"),
    b"\xff",
    b"1s",
    b"9" * 10_000,
]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"0.0", 0),
        (b"10", 10),
        (b"9.87", 9.87),
        (b"007.5", 7.5),
        (b"0.30000000000000004", 0.30000000000000004),
        (b"0.00012345678901234567", 0.00012345678901234567),
        (b"86400", LONGEST),
        (b"86400.000", LONGEST),
    ],
)
def test_a_plain_decimal_number_is_a_timeout(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *NO_NUMBERS,
        b".5",
        b"5.",
        b"1.2.3",
        b"1.-2",
        b"-1.5",
        b"1.5e3",
        b"86400.001",
        b"86401",
        b"99999",
        b"100000",
        b"000001",
        b"1." + b"0" * 21,
    ],
)
def test_nothing_else_is_a_timeout(value: bytes) -> None:
    assert parse_timeout(value) is None


@pytest.mark.parametrize(
    ("value", "attempt"), [(b"1", 1), (b"2", 2), (b"07", 7), (b"999", 999), (b"1000", MOST)]
)
def test_a_whole_number_from_one_up_is_an_attempt(value: bytes, attempt: int) -> None:
    assert parse_attempt(value) == attempt


@pytest.mark.parametrize("value", [*NO_NUMBERS, b"0", b"0000", b"1.0", b"1001", b"9999", b"00001"])
def test_nothing_else_is_an_attempt(value: bytes) -> None:
    assert parse_attempt(value) is None


NUMBERLIKE = st.text("0123456789.+-eE_ \t\nainf\u0661", max_size=30).map(str.encode)


@given(st.one_of(st.binary(), NUMBERLIKE))
@example(b"1\n")
def test_whatever_the_bytes_exactly_the_plain_numbers_are_believed(value: bytes) -> None:
    text = value.decode("latin-1")
    whole, point, rest = text.partition(".")
    is_plain = bool(re.fullmatch("[0-9]+", whole)) and (not point or rest != "")
    is_plain = is_plain and all(digit in "0123456789" for digit in rest)
    is_short = len(whole) <= 5 and len(rest) <= 20
    is_timeout = is_plain and is_short and float(text) <= LONGEST
    assert parse_timeout(value) == (float(text) if is_timeout else None)
    is_attempt = is_plain and not point and len(text) <= 4 and 1 <= int(text) <= MOST
    assert parse_attempt(value) == (int(text) if is_attempt else None)


@given(st.floats(0, LONGEST, allow_subnormal=False), st.integers(0, 20))
def test_whatever_a_client_writes_with_a_fixed_number_of_digits_is_believed(
    seconds: float, digits: int
) -> None:
    value = f"{seconds:.{digits}f}"
    assert parse_timeout(value.encode()) == float(value)


def test_both_headers_are_read_among_others() -> None:
    headers = [
        (b"host", b"localhost"),
        (TIMEOUT, b"9.5"),
        (b"x-request-timeout-seconds-too", b"1"),
        [ATTEMPT, b"2"],
        (b"accept", b"*/*"),
    ]
    assert read(headers) == Said(9.5, is_retry=True, ignored=0)


@pytest.mark.parametrize("headers", [[], [(b"host", b"localhost")]])
def test_whoever_says_nothing_is_as_patient_as_ever(headers: list[tuple[bytes, bytes]]) -> None:
    assert read(headers) == Said(None, is_retry=False, ignored=0)


@pytest.mark.parametrize(
    ("timeouts", "attempts", "said"),
    [
        ([b"5"], [], Said(5, is_retry=False, ignored=0)),
        ([b"0"], [], Said(0, is_retry=False, ignored=0)),
        ([], [b"1"], Said(None, is_retry=True, ignored=0)),
        ([b"x"], [b"1"], Said(None, is_retry=True, ignored=1)),
        ([b"5"], [b"x"], Said(5, is_retry=False, ignored=1)),
        ([b"x"], [b"x"], Said(None, is_retry=False, ignored=2)),
        ([b"5", b"5"], [], Said(None, is_retry=False, ignored=2)),
        ([b"5", b"6", b"x"], [b"1"], Said(None, is_retry=True, ignored=3)),
        ([b"5"], [b"1", b"2"], Said(5, is_retry=False, ignored=2)),
    ],
)
def test_what_is_not_believed_is_counted(
    timeouts: list[bytes], attempts: list[bytes], said: Said
) -> None:
    headers = [(ATTEMPT, value) for value in attempts] + [(TIMEOUT, value) for value in timeouts]
    assert read(headers) == said


@given(
    st.lists(
        st.tuples(st.sampled_from([TIMEOUT, ATTEMPT, b"host", b""]), st.binary(max_size=5)),
        max_size=6,
    )
)
def test_any_headers_can_be_read(headers: list[tuple[bytes, bytes]]) -> None:
    said = read(headers)
    names = [name for name, _ in headers]
    believed = (said.seconds is not None) + said.is_retry
    assert said.ignored + believed == names.count(TIMEOUT) + names.count(ATTEMPT)


def test_a_deadline_counts_from_the_arrival() -> None:
    assert Deadline(100, 2.5).at == 102.5
