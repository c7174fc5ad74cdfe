"""Handles: how the code of one deployment calls another one."""

import pickle
from typing import Any

import httpx
import pytest

from loadshed import ConfigError, Criticality
from loadshed._policy.standing import USUAL, Standing
from loadshed.serve import DeploymentHandle, running
from tests.serve import served


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio"


def test_a_handle_knows_what_it_calls() -> None:
    handle = DeploymentHandle("Model")
    assert handle.deployment_name == "Model"
    assert repr(handle) == "<DeploymentHandle Model>"
    method = pickle.loads(pickle.dumps(handle.options(stream=True).predict))  # noqa: S301
    assert repr(method) == "<DeploymentHandle Model.predict>"
    assert method._stream
    assert not handle.options(method_name="predict")._stream
    with pytest.raises(AttributeError, match="a handle calls no method '_x'"):
        _ = handle._x


def test_a_handle_knows_what_its_calls_are() -> None:
    handle = DeploymentHandle("Model")
    assert handle._standing == USUAL
    mine = handle.options(priority="Sheddable", tenant="a").options(cost=2).predict
    assert mine._standing == Standing(Criticality.SHEDDABLE, "a", 2)
    assert pickle.loads(pickle.dumps(mine))._standing == mine._standing  # noqa: S301
    assert mine.options(priority=Criticality.CRITICAL).options(stream=True)._standing == Standing(
        Criticality.CRITICAL, "a", 2
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"priority": "urgent"}, "priority must be a Criticality, or the name of one"),
        ({"tenant": 1}, "tenant must be a string"),
        ({"cost": 0}, "cost must be a whole number >= 1"),
    ],
)
def test_what_a_call_can_not_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DeploymentHandle("Model").options(**wrong)


def test_who_is_no_replica_can_not_call() -> None:
    with pytest.raises(RuntimeError, match="'Model' can be called from replicas that serve"):
        DeploymentHandle("Model").remote(1)


@pytest.mark.anyio
async def test_threads_have_their_own_ways_to_wait() -> None:
    async with running(served.in_threads, port=0) as server, httpx.AsyncClient() as client:
        answer = (await client.get(server.url, timeout=30)).json()
        assert "not while they are made" in answer.pop("too early")
        assert answer == {
            "twice": 18,
            "by name": 9,
            "items": [0, 1, 2],
            "first": 0,
            "many": 4498500,
        }


@pytest.mark.anyio
async def test_the_event_loop_is_not_held_up() -> None:
    async with running(served.asking, port=0) as server, httpx.AsyncClient() as client:
        answer = (await client.get(server.url, timeout=30)).json()
        assert answer == [
            "`result` would hold up the event loop: `await` the response.",
            "`for` would hold up the event loop: use `async for`.",
            "a handle calls no method '_private'",
            "0",
            "[]",
        ]
