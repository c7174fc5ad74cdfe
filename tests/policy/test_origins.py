"""One state for each origin, and no more of them than there may be."""

from functools import partial
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.origins import MOST, Origins


def test_an_origin_keeps_its_state() -> None:
    origins: Origins[list[int]] = Origins(list)
    origins["a"].append(1)
    origins["b"].append(2)
    origins["a"].append(3)
    assert (origins["a"], origins["b"]) == ([1, 3], [2])


def test_the_one_that_was_used_the_longest_ago_is_forgotten() -> None:
    origins: Origins[list[int]] = Origins(list, most=2)
    for origin in "aba":
        origins[origin].append(1)
    origins["c"].append(1)
    assert list(origins) == [[1, 1], [1]]
    assert origins["b"] == []


def test_a_thousand_are_remembered() -> None:
    origins: Origins[list[int]] = Origins(list)
    for origin in range(5000):
        origins[origin].append(origin)
        assert len(origins) <= MOST == 1000
    assert [state[0] for state in origins] == list(range(4000, 5000))


@given(st.integers(1, 4), st.lists(st.integers(0, 6)))
def test_it_agrees_with_a_list(most: int, uses: list[int]) -> None:
    origins: Origins[int] = Origins(partial(next, count(1)), most=most)
    naive: list[tuple[int, int]] = []
    made = 0
    for origin in uses:
        known = dict(naive)
        if origin not in known:
            made += 1
        naive = [pair for pair in naive if pair[0] != origin]
        naive.append((origin, known.get(origin, made)))
        naive = naive[-most:]
        assert origins[origin] == naive[-1][1]
        assert list(origins) == [state for _, state in naive]
        assert len(origins) == len(naive)
