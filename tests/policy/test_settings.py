"""Bad input gets an error that names the setting, the value and what it may be."""

import math

import pytest

from loadshed import ConfigError, LoadShedError
from loadshed._policy.settings import seconds, whole_number, yes_or_no


class Index:
    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("value", "result"), [(1, 1), (10**9, 10**9), (math.inf, math.inf), (Index(), 7)]
)
def test_a_whole_number_or_infinity_will_do(value: object, result: float) -> None:
    assert whole_number("n", value, at_least=1) == result


@pytest.mark.parametrize(
    "value", [0, -1, True, False, 2.5, 2.0, "2", None, math.nan, -math.inf, [], 2j]
)
def test_nothing_else_is_a_whole_number(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        whole_number("max_ongoing_requests", value, at_least=1)
    assert str(caught.value) == (
        f"max_ongoing_requests must be a whole number >= 1, or math.inf, not {value!r}."
    )
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LoadShedError)
    assert (caught.value.setting, caught.value.value) == ("max_ongoing_requests", value)


@pytest.mark.parametrize(("value", "result"), [(0, 0), (0.5, 0.5), (None, None), (math.inf, None)])
def test_seconds_are_a_number_or_none(value: object, result: float | None) -> None:
    assert seconds("max_wait", value) == result


@pytest.mark.parametrize("value", [-1, -0.1, True, "1", math.nan, -math.inf, [], 10**400])
def test_nothing_else_is_a_number_of_seconds(value: object) -> None:
    with pytest.raises(ConfigError, match=r"max_wait must be a number of seconds >= 0, or None"):
        seconds("max_wait", value)


@pytest.mark.parametrize("value", [True, False])
def test_yes_or_no_is_a_bool(value: bool) -> None:
    assert yes_or_no("trust_deadline", value) is value


@pytest.mark.parametrize("value", [0, 1, None, "yes", "", 1.0, [], math.nan])
def test_nothing_else_is_yes_or_no(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        yes_or_no("trust_deadline", value)
    assert str(caught.value) == f"trust_deadline must be True or False, not {value!r}."
