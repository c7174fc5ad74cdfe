"""How a request says how much it matters."""

import pytest

from loadshed._policy.criticality import HEADER, Criticality, parse_criticality, read_criticality

OTHER = (b"host", b"example.org")


@pytest.mark.parametrize("criticality", Criticality)
def test_a_class_is_read_from_its_name_in_whatever_case(criticality: Criticality) -> None:
    name = criticality.name.encode()
    for value in [name, name.lower(), name.title()]:
        assert parse_criticality(value) is criticality
        assert read_criticality([OTHER, (HEADER, value), OTHER]) == (criticality, False)


def test_without_the_header_there_is_no_class_and_none_is_ignored() -> None:
    assert read_criticality([]) == (None, False)
    assert read_criticality([OTHER]) == (None, False)


@pytest.mark.parametrize(
    "value", [b"", b"0", b"important", b"CRITICAL ", b"critical-plus", b"\xff"]
)
def test_what_names_no_class_is_ignored(value: bytes) -> None:
    assert parse_criticality(value) is None
    assert read_criticality([(HEADER, value)]) == (None, True)


def test_a_header_that_comes_more_than_once_is_ignored_even_where_it_says_the_same() -> None:
    assert read_criticality([(HEADER, b"SHEDDABLE"), (HEADER, b"SHEDDABLE")]) == (None, True)


def test_a_higher_class_comes_first() -> None:
    names = [each.name for each in sorted(Criticality)]
    assert names == ["CRITICAL_PLUS", "CRITICAL", "SHEDDABLE_PLUS", "SHEDDABLE"]
