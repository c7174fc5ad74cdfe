"""What a call is to the limiter of another pool, and how that is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.criticality import Criticality
from loadshed._policy.standing import USUAL, Standing, address, read_address

pools = st.text(st.characters(codec="utf-8", exclude_characters="#"), min_size=1)
standings = st.builds(
    Standing, st.sampled_from(Criticality), st.none() | st.text(), st.integers(1, 10**6)
)


@given(pools, standings)
def test_what_was_said_is_understood(pool: str, standing: Standing) -> None:
    assert read_address(address(pool, standing)) == (pool, standing)


def test_of_what_is_usual_nothing_is_said() -> None:
    assert address("Model", Standing()) == "Model"
    assert read_address("Model")[1] is USUAL


@pytest.mark.parametrize(
    "said", ["m#", "m#1", "m#x#1", "m#9#1", "m#1#", "m#1#x", "m#1#0", "m#1#-1", "m#1#1.5"]
)
def test_nonsense_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_address(said)
