"""The graph of an application: its deployments by name, and handles in place of applications."""

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed.serve import Application, deployment
from loadshed.serve._graph import nodes, with_handles


class Code:
    """Anything."""


def app(name: str, *args: Any, **kwargs: Any) -> Application:
    return deployment(name=name)(Code).bind(*args, **kwargs)


def test_each_comes_after_those_that_it_calls_and_the_ingress_last() -> None:
    a = app("a")
    b = app("b", a)
    c = app("c", b, other=a)
    assert list(nodes(c).items()) == [("a", a), ("b", b), ("c", c)]
    assert list(nodes(a)) == ["a"]


def test_one_that_is_handed_on_twice_is_there_once() -> None:
    shared = app("shared")
    found = nodes(app("top", app("left", shared), app("right", x=shared), shared))
    assert list(found) == ["shared", "left", "right", "top"]
    assert found["shared"] is shared


def test_one_that_is_bound_twice_is_there_twice_under_two_names() -> None:
    first, second, third = app("m", 1), app("m", 2), app("m", 3)
    found = nodes(app("top", first, second, third))
    assert found == {"m": first, "m_1": second, "m_2": third, "top": found["top"]}


def test_a_name_that_somebody_has_already_is_not_given_twice() -> None:
    taken = app("m_1")
    first, second = app("m"), app("m")
    found = nodes(app("m", taken, first, second))
    assert list(found) == ["m_1", "m", "m_2", "m_3"]
    assert found["m_2"] is second


def test_they_are_found_in_lists_tuples_and_dicts_however_deep() -> None:
    a, b, c, d = (app(name) for name in "abcd")
    top = app("top", [a, (1, [b])], {"k": {"l": (c,)}}, more=[{"x": d}], n=None)
    assert list(nodes(top)) == ["a", "b", "c", "d", "top"]


def test_they_become_handles_and_all_else_stays_what_it_is() -> None:
    a, b = app("a"), app("b")
    thing = object()
    given = [a, (1, [b]), thing]
    top = app("top", given, {"k": (b, "s")}, a, more={"x": [a]}, n=thing)
    args, kwargs = with_handles(top, nodes(top), "handle of {}".format)
    assert args == (
        ["handle of a", (1, ["handle of b"]), thing],
        {"k": ("handle of b", "s")},
        "handle of a",
    )
    assert kwargs == {"more": {"x": ["handle of a"]}, "n": thing}
    assert given == [a, (1, [b]), thing]


def test_a_handle_has_the_name_that_the_graph_gave() -> None:
    first, second = app("m", 1), app("m", 2)
    top = app("top", second, first)
    args, _ = with_handles(top, nodes(top), str)
    assert args == ("m", "m_1")


def test_what_is_more_than_a_list_tuple_or_dict_is_not_looked_into() -> None:
    pair = namedtuple("pair", "x y")  # noqa: PYI024
    a = app("a")
    values = [pair(a, 1), OrderedDict(k=a), {a}, type("MyList", (list,), {})([a])]
    top = app("top", *values)
    assert list(nodes(top)) == ["top"]
    args, _ = with_handles(top, nodes(top), str)
    assert [type(each) for each in args] == [type(each) for each in values]
    assert all(one is other for one, other in zip(args, values, strict=True))


@given(
    st.lists(
        st.tuples(st.sampled_from(["m", "m_1", "n"]), st.lists(st.integers(0, 30), max_size=3)),
        min_size=1,
        max_size=12,
    )
)
def test_each_that_can_be_reached_is_there_once_and_after_those_that_it_calls(
    drawn: list[tuple[str, list[int]]],
) -> None:
    made: list[Application] = []
    for name, calls in drawn:
        inner = [made[index % len(made)] for index in calls] if made else []
        made.append(app(name, *inner))
    found = nodes(made[-1])
    reached = {id(made[-1])}
    for one in reversed(made):
        if id(one) in reached:
            reached |= {id(each) for each in one.args}
    assert [id(each) for each in found.values()].count(id(made[-1])) == 1
    assert {id(each) for each in found.values()} == reached
    assert len(found) == len(reached)
    order = {id(each): index for index, each in enumerate(found.values())}
    for each in found.values():
        assert all(order[id(inner)] < order[id(each)] for inner in each.args)
    for name, each in found.items():
        assert name == each.deployment.name or name.startswith(f"{each.deployment.name}_")


def test_a_list_that_contains_itself_is_no_reason_to_hang() -> None:
    around: list[Any] = []
    around.append(around)
    with pytest.raises(RecursionError):
        nodes(app("top", around))
