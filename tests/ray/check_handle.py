# mypy: disable-error-code="attr-defined"
"""Handles to deployments on Ray, and the code that is sent there, without a cluster."""

import asyncio
import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from ray import cloudpickle
from ray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError
from ray.serve import exceptions as rays
from starlette.datastructures import State

from loadshed import (
    ConfigError,
    QueueFullError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from loadshed.ray_serve._code import Imported, Sent, _Reference
from loadshed.ray_serve._handle import CancelledThereError, RayHandle, RayResponse, translated
from loadshed.serve import deployment, ingress
from loadshed.serve._graph import nodes
from loadshed.serve._ingress import application_of
from loadshed.serve._source import Source
from tests.ray import apps


class Fake:
    """Ray's handle and its response: what was called, and what that comes to."""

    def __init__(self, result: Any = None) -> None:
        self.result_ = result
        self.given: Any = None
        self.set: Any = None
        self.cancelled = False

    def options(self, **options: Any) -> "Fake":
        self.set = options
        return self

    def remote(self, *args: Any, **kwargs: Any) -> "Fake":
        self.given = (args, kwargs)
        return self

    def result(self, timeout_s: float | None = None) -> Any:
        if isinstance(self.result_, BaseException):
            raise self.result_
        return self.result_, timeout_s

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        if self.result_ is None:
            await asyncio.sleep(60)
        return self.result()[0]

    def cancel(self) -> None:
        self.cancelled = True

    def __aiter__(self) -> "Fake":
        return self

    async def __anext__(self) -> Any:
        return await self

    def __iter__(self) -> "Fake":
        return self

    def __next__(self) -> Any:
        return self.result()[0]


def wait_for(response: Any) -> Any:
    async def main() -> Any:
        return await response

    return asyncio.run(main())


def test_a_call_says_what_to_call() -> None:
    fake = Fake(7)
    handle = RayHandle("Model", fake)
    assert handle.deployment_name == "Model"
    assert wait_for(handle.remote(1, x=2)) == 7
    assert fake.set == {"method_name": "loadshed_call", "stream": False}
    assert fake.given == ((None, 1), {"x": 2})
    handle.predict.options(stream=True).remote(3)
    assert (fake.set["stream"], fake.given) == (True, (("predict", 3), {}))
    handle.options(stream=True).options(method_name="other").remote()
    assert (fake.set["stream"], fake.given) == (True, (("other",), {}))


def test_the_answer_to_a_call_may_be_an_argument() -> None:
    first, fake = Fake(1), Fake(2)
    answer = RayHandle("First", first).remote()
    RayHandle("Model", fake).remote(answer, x=answer)
    assert fake.given == ((None, first), {"x": first})


def test_it_can_be_pickled() -> None:
    handle = RayHandle("Model", "target").predict.options(stream=True)
    again = pickle.loads(pickle.dumps(handle))  # noqa: S301
    assert vars(again) == vars(handle)


def test_in_a_thread_the_result_is_waited_for() -> None:
    assert RayHandle("Model", Fake(7)).remote().result(timeout_s=3) == (7, 3)
    with pytest.raises(QueueFullError):
        RayHandle("Model", Fake(rays.BackPressureError(1, 1))).remote().result()


def test_who_no_longer_waits_cancels_the_call() -> None:
    fake = Fake()

    async def leave(get: Callable[[Any], Any]) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(get(fake), 0.05)
        assert fake.cancelled

    asyncio.run(leave(RayResponse))
    fake.cancelled = False
    items = RayHandle("Model", fake).options(stream=True).remote()
    asyncio.run(leave(lambda _: anext(items)))


def test_items_that_are_left_are_cancelled() -> None:
    fake = Fake()

    async def leave() -> None:
        async with RayHandle("Model", fake).options(stream=True).remote():
            pass

    asyncio.run(leave())
    assert fake.cancelled


def test_a_call_that_was_cancelled_is_so_for_who_has_done_it() -> None:
    response = RayResponse(Fake(rays.RequestCancelledError("7")))
    with pytest.raises(CancelledThereError):
        wait_for(response)
    response.cancel()
    with pytest.raises(asyncio.CancelledError):
        wait_for(response)


def test_items_come_in_a_task_or_in_a_thread() -> None:
    fake = Fake(7)
    items = RayHandle("Model", fake).options(stream=True).remote()

    async def some() -> None:
        async for each in items:
            assert each == 7
            break
        with pytest.raises(RuntimeError, match="hold up the event loop"):
            iter(items)
        await items.aclose()

    asyncio.run(some())
    assert fake.cancelled
    fake.cancelled = False
    iterator = iter(items)
    assert next(iterator) == 7
    iterator.close()
    assert fake.cancelled
    fake.result_ = rays.BackPressureError(1, 1)
    with pytest.raises(QueueFullError):
        next(iter(items))
    with pytest.raises(QueueFullError):
        wait_for(anext(items))


def task_error(cause: Exception) -> Exception:
    error: Exception = RayTaskError("f", "the remote traceback", cause)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ActorDiedError(), ReplicaDiedError),
        (rays.DeploymentUnavailableError("D"), ReplicaUnavailableError),
        (rays.ReplicaUnavailableError("r"), ReplicaUnavailableError),
        (TaskCancelledError(), CancelledThereError),
        (task_error(rays.BackPressureError(1, 2)), QueueFullError),
        (task_error(ActorDiedError()), ReplicaDiedError),
        (task_error(TaskCancelledError()), CancelledThereError),
        (task_error(RequestTimeoutError(3)), RequestTimeoutError),
        (task_error(ValueError("its own")), ValueError),
        (task_error("nothing"), ReplicaError),  # type: ignore[arg-type]
        (TimeoutError("ours"), TimeoutError),
    ],
)
def test_rays_errors_are_said_in_our_words(error: Exception, expected: type[Exception]) -> None:
    assert type(translated(error)) is expected


def test_what_was_raised_there_keeps_its_traceback_in_a_note() -> None:
    cause = ValueError("x", 1)
    error = translated(RayTaskError("f", "the remote traceback", cause).as_instanceof_cause())
    assert type(error) is ValueError
    assert error.args == ("x", 1)
    assert "the remote traceback" in error.__notes__[0]


def test_back_pressure_keeps_its_numbers() -> None:
    error = translated(rays.BackPressureError(1, -1, 429, 2.5))
    assert isinstance(error, QueueFullError)
    assert error.max_queued_requests == math.inf
    assert (error.num_queued_requests, error.reason, error.retry_after) == (1, "queue_full", 3)
    assert str(translated(rays.BackPressureError(1, 2))) == str(rays.BackPressureError(1, 2))


def sent(application: Any) -> Any:
    """What a replica makes of code that was sent there."""
    named = nodes(application)
    handles = {name: RayHandle(name, name) for name in named}
    code = Sent(application, named, handles)
    return pickle.loads(cloudpickle.dumps(code)).make()  # noqa: S301


def test_code_that_can_be_imported_is_not_sent() -> None:
    made = sent(apps.outer)
    assert type(made) is apps.Outer.func_or_class
    assert (made.inner.deployment_name, made.other.deployment_name) == ("Inner", "Inner_1")
    assert sent(deployment(apps.plain_builder).bind()) is apps.plain_builder


def test_a_replica_may_import_all_of_it() -> None:
    handles = {name: RayHandle(name, name) for name in ("Inner", "Inner_1")}
    code = Imported(Source(import_path="tests.ray.apps:outer"), "Outer", handles)
    made = pickle.loads(pickle.dumps(code)).make()  # noqa: S301
    assert type(made) is apps.Outer.func_or_class
    assert (made.inner.deployment_name, made.other.deployment_name) == ("Inner", "Inner_1")
    source = Source(import_path="tests.ray.apps:plain")
    assert Imported(source, "plain", {}).make() is apps.plain


def test_other_code_is_sent_as_it_is() -> None:
    app = FastAPI()
    app.state.lock = threading.Lock()
    app.state.word = "here"

    @ingress(app)
    class Local:
        @app.get("/me")
        async def me(self) -> str:
            return type(self).__name__

    Local.__module__ = "__main__"
    made = sent(deployment(Local).bind())
    assert type(made).__name__ == "Local"
    state = application_of(made).state
    assert isinstance(state, State)
    assert state.word == "here"
    assert not state.lock.locked()
    from starlette.testclient import TestClient  # noqa: PLC0415

    assert TestClient(application_of(made)).get("/me").json() == "Local"


@pytest.mark.parametrize("name", ["Missing", "Model.Missing", "free_port"])
def test_code_that_is_another_one_where_it_says_is_sent(name: str) -> None:
    def function() -> str:
        return "sent"

    function.__module__, function.__qualname__ = "tests.ray.conftest", name
    copied = pickle.loads(cloudpickle.dumps(_Reference(function)))  # noqa: S301
    assert copied.code() == "sent"


@pytest.mark.parametrize("given", [{"priority": "sheddable"}, {"tenant": "a"}, {"cost": 2}])
def test_what_ray_has_no_queue_for_is_refused(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ConfigError, match=f"{name} must be left out: in Ray Serve's queue all"):
        RayHandle("Model", Fake()).options(**given)
