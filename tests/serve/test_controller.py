"""Applications on their way to their goals, with real replicas and without HTTP."""

import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from loadshed.serve import deployment
from loadshed.serve._config.file import ConfigFileError, Mistake
from loadshed.serve._controller import Controller
from loadshed.serve._goal import Goal
from loadshed.serve._main import LOOK_EVERY, tell_progress, watch_files
from loadshed.serve._running import _goal
from loadshed.serve._running_application import RunningApplication
from loadshed.serve._running_deployment import RunningDeployment
from tests.serve import served

pytestmark = [pytest.mark.anyio, pytest.mark.long]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def controlling() -> AsyncIterator[Controller]:
    async with anyio.create_task_group() as tasks:
        controller = Controller(tasks)
        yield controller
        with anyio.fail_after(30):
            await controller.close()
        tasks.cancel_scope.cancel()


def goal(app: Any = served.picky, *, name: str = "a", **settings: Any) -> Goal:
    made = _goal(app, name, "/")
    deployments = {
        each: dataclasses.replace(found, **settings) for each, found in made.deployments.items()
    }
    return dataclasses.replace(made, deployments=deployments)


async def until(controller: Controller, condition: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not condition():
            with anyio.move_on_after(0.02):
                await controller.next_change()


def pids(controller: Controller, name: str = "pick") -> set[int]:
    found = controller.status()["a"]["deployments"].get(name, {"replicas": []})
    return {each["pid"] for each in found["replicas"]}


async def test_a_deploy_takes_the_place_of_one_that_hangs() -> None:
    async with controlling() as controller:
        controller.aim([goal(served.hanging)])
        await until(controller, lambda: bool(pids(controller, "Hanging")))
        assert not controller.is_well
        controller.aim([goal()])
        await controller.settled()
        assert controller.status()["a"]["status"] == "RUNNING"
        assert set(controller.status()["a"]["deployments"]) == {"pick"}
        before = pids(controller)
        controller.aim([goal(served.hanging)])
        await until(controller, lambda: bool(pids(controller, "Hanging")))
        controller.aim([goal(num_replicas=2)])
        await controller.settled()
        assert controller.status()["a"]["status"] == "RUNNING"
        assert before < pids(controller)


async def test_what_is_to_go_and_then_not_is_there() -> None:
    async with controlling() as controller:
        controller.aim([goal()])
        await controller.settled()
        before = pids(controller)
        controller.aim([])
        controller.aim([goal()])
        await controller.settled()
        assert controller.status()["a"]["status"] == "RUNNING"
        assert len(pids(controller)) == 1
        assert controller.paths == set()
        controller.aim([])
        await until(controller, lambda: not controller.status())
        controller.aim([goal()])
        await controller.settled()
        assert not pids(controller) & before


async def test_what_takes_the_place_of_another_one_serves_before_that_goes() -> None:
    async with controlling() as controller:
        controller.aim([goal(name="old")])
        await controller.settled()
        assert routed(controller) == {"/": "old"}
        controller.aim([goal(served.hanging, name="new")])
        await until(controller, lambda: bool(controller.status()["new"]["deployments"]))
        assert routed(controller) == {"/": "old"}
        assert controller.is_well
        controller.aim([goal(served.broken, name="new")])
        await until(controller, lambda: controller.status()["new"]["status"] == "DEPLOY_FAILED")
        assert routed(controller) == {"/": "old"}
        controller.aim([goal(name="new")])
        await until(controller, lambda: routed(controller) == {"/": "new"})
        await until(controller, lambda: set(controller.status()) == {"new"})


async def test_two_that_change_places_do_so_together() -> None:
    async with controlling() as controller:
        one = dataclasses.replace(goal(name="one"), route_prefix="/one")
        two = dataclasses.replace(goal(name="two"), route_prefix="/two")
        controller.aim([one, two])
        await controller.settled()
        slow = dataclasses.replace(
            two, route_prefix="/one", code=dataclasses.replace(two.code, version="other")
        )
        controller.aim([dataclasses.replace(one, route_prefix="/two"), slow])
        await until(controller, lambda: controller.status()["one"]["status"] == "RUNNING")
        assert controller.status()["two"]["status"] == "DEPLOYING"
        assert routed(controller) == {"/one": "one", "/two": "two"}
        await controller.settled()
        assert routed(controller) == {"/one": "two", "/two": "one"}


def routed(controller: Controller) -> dict[str, str]:
    return {prefix: name for prefix, name, app in controller.front._routes if app is not None}


async def test_what_drains_is_not_mistaken_for_what_came_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = RunningDeployment.stop
    gates = [anyio.Event(), anyio.Event()]
    waiting = iter(gates)

    async def stop_when_it_may(self: RunningDeployment) -> None:
        gate = next(waiting)
        await gate.wait()
        await stop(self)

    async with controlling() as controller:
        controller.aim([goal()])
        await controller.settled()
        monkeypatch.setattr(RunningDeployment, "stop", stop_when_it_may)
        controller.aim([])
        await until(controller, lambda: bool(controller._applications["a"]._draining))
        controller.aim([goal()])
        await controller.settled()
        controller.aim([])
        await until(controller, lambda: not controller._applications["a"]._deployments)
        gates[1].set()
        await until(controller, lambda: controller._applications["a"]._leaving == 1)
        assert controller.status()["a"]["status"] == "DELETING"
        gates[0].set()
        await until(controller, lambda: not controller.status())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_goal_that_comes_in_the_last_moment_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async with controlling() as controller:
        reach = RunningApplication._reach

        async def reach_and_be_given_another(self: RunningApplication, _: Goal) -> None:
            monkeypatch.setattr(RunningApplication, "_reach", reach)
            self.aim(goal())
            if fails:
                raise LookupError("too late")

        monkeypatch.setattr(RunningApplication, "_reach", reach_and_be_given_another)
        controller.aim([goal(served.hanging)])
        await until(controller, lambda: controller.status()["a"]["status"] == "RUNNING")
        assert set(controller.status()["a"]["deployments"]) == {"pick"}


async def test_progress_is_told_when_there_is_some() -> None:
    said: list[str] = []
    async with controlling() as controller:
        service: Any = SimpleNamespace(controller=controller, url="http://here")
        controller.aim([goal(served.hanging)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell_progress, service, said.append)
            await anyio.sleep(3 * LOOK_EVERY)  # it looks, and nothing is new
            controller.aim([goal()])
    assert said[0] == "a: DEPLOYING"
    assert said[-1] == "a: RUNNING (pick 1/1) at http://here/"
    assert len(said) == len(set(said))


async def test_what_comes_when_all_ends_comes_too_late() -> None:
    async with controlling() as controller:
        controller.aim([goal()])
        await controller.settled()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(controller.close)
            await until(controller, lambda: controller.status()["a"]["status"] == "DELETING")
            controller.aim([goal(), goal(name="late")])
            assert set(controller.status()) == {"a"}
        assert controller.status() == {}


async def test_one_whose_replica_is_not_there_is_unhealthy_until_it_is() -> None:
    async with controlling() as controller:
        controller.aim([goal()])
        await controller.settled()
        (pid,) = pids(controller)
        os.kill(pid, signal.SIGKILL)
        await until(controller, lambda: controller.status()["a"]["status"] == "UNHEALTHY")
        await until(controller, lambda: controller.status()["a"]["status"] == "RUNNING")


async def test_what_fails_in_one_deployment_puts_the_others_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with controlling() as controller:
        both = deployment(served.Asking).bind(served.in_threads)
        controller.aim([goal(both)])
        await controller.settled()
        before = pids(controller, "Wide"), pids(controller, "Asking")
        changing = RunningDeployment.change

        async def change(self: RunningDeployment, *args: Any) -> None:
            if self.name == "Asking":
                raise LookupError
            await changing(self, *args)

        monkeypatch.setattr(RunningDeployment, "change", change)
        controller.aim([goal(both, max_wait=3)])
        await until(controller, lambda: "message" in failed(controller))
        assert "LookupError()" in failed(controller)["message"]
        assert "could not be restored" in failed(controller)["message"]
        assert failed(controller)["deployments"]["Asking"]["status"] == "DEPLOY_FAILED"
        monkeypatch.undo()
        controller.aim([goal(both)])
        await controller.settled()
        assert controller.status()["a"]["status"] == "RUNNING"
        assert before == (pids(controller, "Wide"), pids(controller, "Asking"))


def failed(controller: Controller) -> dict[str, Any]:
    report = controller.status()["a"]
    return report if report["status"] == "DEPLOY_FAILED" else {}


async def test_what_starts_beside_what_fails_does_not_stay() -> None:
    async with controlling() as controller:
        controller.aim([goal(served.beside_broken)])
        await controller.settled()
        assert "no weights" in failed(controller)["message"]
        assert failed(controller)["deployments"] == {}
        assert not controller.serves


async def test_time_limits_and_health_checks_change_without_a_new_replica() -> None:
    no_limit: float | None = None
    async with controlling() as controller:
        controller.aim([goal(graceful_shutdown_timeout_s=None)])
        await controller.settled()
        assert controller.grace == no_limit
        before = pids(controller)
        controller.aim([goal(graceful_shutdown_timeout_s=1, health_check_period_s=0.05)])
        await controller.settled()
        assert controller.grace == 1
        assert pids(controller) == before


async def test_files_that_change_are_deployed_anew_and_a_mistake_in_them_is_told() -> None:
    said: list[str] = []
    times = [1.0, 1.0, 2.0, 3.0]

    class Changing:
        url = ""

        def __init__(self, controller: Controller) -> None:
            self.controller = controller
            self.deployed = 0

        def newest(self) -> float:
            return times.pop(0) if times else 3.0

        async def redeploy(self) -> None:
            self.deployed += 1
            if self.deployed == 1:
                raise ConfigFileError([Mistake("is wrong.", "applications[0]")])
            self.controller.aim([goal()])

    async with controlling() as controller:
        service: Any = Changing(controller)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch_files, service, said.append)
            await until(controller, lambda: any("RUNNING" in each for each in said))
            tasks.cancel_scope.cancel()
    assert said[0] == "applications[0] is wrong.\nWhat was there before goes on."
    assert service.deployed == 2
