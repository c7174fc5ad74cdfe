"""Goals: what the code says and what the file says, made one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed import ConfigError
from loadshed._pool.environment import HERE
from loadshed.serve._described import Described, DescribedDeployment
from loadshed.serve._goal import Code, Goal, digest, merged
from loadshed.serve._settings import Settings
from loadshed.serve._source import Source

CODE = Code(source=Source(import_path="a:b"), environment=HERE, version="1")


def says(name: str, *, reconfigurable: bool = False, **given: Any) -> DescribedDeployment:
    return DescribedDeployment(name=name, given=given, reconfigurable=reconfigurable)


def described(*deployments: DescribedDeployment) -> Described:
    return Described(deployments=deployments)


def test_the_file_counts_where_both_say_something() -> None:
    code = described(says("a", num_replicas=2, max_wait=1.0), says("b", num_replicas=3))
    found = merged(code, {"a": {"num_replicas": 5, "max_ongoing_requests": 1}}, {})
    assert found == {
        "a": Settings(num_replicas=5, max_wait=1.0, max_ongoing_requests=1),
        "b": Settings(num_replicas=3),
    }
    assert list(found) == ["a", "b"]


def test_the_defaults_are_for_the_one_that_gets_the_requests_and_count_least() -> None:
    defaults = {"request_timeout_s": 7}
    found = merged(described(says("a"), says("b")), {}, defaults)
    assert [found[name].request_timeout_s for name in "ab"] == [None, 7]
    for code, file, expected in (
        ({"request_timeout_s": 5}, {}, 5),
        ({}, {"request_timeout_s": 6}, 6),
        ({"request_timeout_s": 5}, {"request_timeout_s": None}, None),
        ({"request_timeout_s": None}, {}, None),
    ):
        found = merged(described(says("b", **code)), {"b": file}, defaults)
        assert found["b"].request_timeout_s == expected


def test_a_deployment_that_the_code_has_not_is_refused_with_the_one_that_was_meant() -> None:
    code = described(says("Model"), says("Ingress"))
    with pytest.raises(ConfigError) as caught:
        merged(code, {"Model": {}, "Modl": {}}, {})
    assert caught.value.setting == "deployments[1].name"
    assert caught.value.value == "Modl"
    assert caught.value.expected == (
        "the name of a deployment in the code, 'Model' or 'Ingress' (did you mean 'Model'?)"
    )


def test_a_user_config_needs_somebody_who_takes_it() -> None:
    code = described(says("a", reconfigurable=True), says("b"))
    assert merged(code, {"a": {"user_config": 0}}, {})["a"].user_config == 0
    file: dict[str, Any] = {"a": {}, "b": {"user_config": 0}}
    expected = "left out: b has no method `reconfigure`"
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (file, {}, "deployments[1].user_config"),
        ({}, {"user_config": 0}, "user_config"),
    ]
    for overrides, by_code, setting in cases:
        with pytest.raises(ConfigError) as caught:
            merged(described(says("a"), says("b", **by_code)), overrides, {})
        assert (caught.value.setting, caught.value.value) == (setting, 0)
        assert caught.value.expected == expected


def test_a_user_config_of_the_code_that_the_file_takes_back_needs_nobody() -> None:
    found = merged(described(says("b", user_config=1)), {"b": {"user_config": None}}, {})
    assert found["b"].user_config is None


def test_a_wrong_setting_of_the_code_is_told() -> None:
    with pytest.raises(ConfigError, match="num_replicas"):
        merged(described(says("a", num_replicas=0)), {}, {})


def test_what_only_ray_knows_makes_no_difference() -> None:
    code = described(says("a", ray_actor_options={"num_gpus": 1}))
    assert merged(code, {"a": {"autoscaling_config": {}}}, {}) == {"a": Settings()}


def test_the_last_deployment_gets_the_requests() -> None:
    deployments = {"a": Settings(), "b": Settings()}
    goal = Goal(name="x", route_prefix="/", code=CODE, deployments=deployments)
    assert goal.ingress == "b"
    assert goal == Goal(name="x", route_prefix="/", code=CODE, deployments=dict(deployments))
    assert goal != Goal(name="x", route_prefix="/", code=CODE, deployments={"b": Settings()})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(PLAIN, PLAIN)
def test_a_digest_differs_where_what_it_is_of_differs(one: Any, other: Any) -> None:
    is_same = repr(one) == repr(other) or (one == other and type(one) is type(other) is dict)
    if is_same:
        assert digest(one) == digest(other)
    elif one != other:
        assert digest(one) != digest(other)
    assert digest(one, other) == digest(one, other)
    assert len(digest(one)) == 16


def test_a_digest_does_not_mind_the_order_of_a_mapping_and_minds_that_of_a_list() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest("a", "b") != digest("ab") != digest("a,b")
    assert digest(("a",)) == digest(["a"])  # as JSON brings it back
