"""Who waits for a deployment, and who of them goes first: what code and config files say of it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from loadshed.serve import deployment, running
from loadshed.serve._command import look, run
from loadshed.serve._running_deployment import LONGEST_TENANT, TenantOf
from tests.serve import served
from tests.serve.conftest import LONG, Loadshed, until

pytestmark = pytest.mark.long

CLASS = "x-request-criticality"
ONE: dict[str, Any] = {"max_ongoing_requests": 1, "max_queued_requests": 1}


class Asked:
    """A request that is under way, in a thread."""

    def __init__(self, url: str, headers: dict[str, str], seconds: float) -> None:
        self.response: httpx.Response | None = None
        self._thread = threading.Thread(target=self._ask, args=(url, headers, seconds))
        self._thread.start()

    def _ask(self, url: str, headers: dict[str, str], seconds: float) -> None:
        self.response = httpx.get(f"{url}/?sleep={seconds}", headers=headers, timeout=LONG)

    def answer(self) -> httpx.Response:
        self._thread.join(LONG)
        assert self.response is not None
        return self.response


class Site:
    """A server of `loadshed run`, and what it says of its only deployment."""

    def __init__(self, loadshed: Loadshed) -> None:
        self.loadshed = loadshed

    def ask(self, header: str = "", value: str = "", *, seconds: float = 0) -> Asked:
        return Asked(self.loadshed.url, {header: value} if header else {}, seconds)

    def queue(self, header: str, value: str) -> Asked:
        """One that takes its place in the line."""
        before = self.model()["queued_requests"]
        asked = self.ask(header, value)
        until(lambda: self.model()["queued_requests"] == before + 1)
        return asked

    def occupy(self, seconds: float = 2.5) -> Asked:
        asked = self.ask(seconds=seconds)
        until(lambda: self.model()["ongoing_requests"] == 1)
        return asked

    def model(self) -> dict[str, Any]:
        deployments = self.loadshed.status()["applications"]["default"]["deployments"]
        return dict(deployments["Model"])

    def pids(self) -> list[int]:
        return [each["pid"] for each in self.model()["replicas"]]


def test_what_matters_more_takes_the_place_of_what_matters_less(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config(**ONE, trust_criticality=True))
    site = Site(loadshed)
    before = site.pids()
    running = site.occupy()
    sheddable = site.queue(CLASS, "sheddable")
    critical = site.ask(CLASS, "CRITICAL")
    shed = sheddable.answer()
    assert (shed.status_code, running.response) == (503, None)
    assert int(shed.headers["retry-after"]) >= 1
    assert (running.answer().status_code, critical.answer().status_code) == (200, 200)
    assert site.model()["shed"] == {"displaced": 1}

    # From now on nobody is believed, and no process was started for it.
    loadshed.deploy(loadshed.config(**ONE))
    running = site.occupy()
    waiting = site.queue(CLASS, "sheddable")
    assert site.ask(CLASS, "critical_plus").answer().status_code == 503
    assert (running.answer().status_code, waiting.answer().status_code) == (200, 200)
    assert site.pids() == before


def test_tenants_take_turns_from_when_a_file_says_how_to_tell_them(loadshed: Loadshed) -> None:
    numbers: dict[str, Any] = {"max_ongoing_requests": 1, "max_queued_requests": 4}
    loadshed.start(loadshed.config(**numbers))
    site = Site(loadshed)
    before = site.pids()
    running = site.occupy(3)
    early = site.queue("x-api-key", "a")
    loadshed.deploy(loadshed.config(**numbers, tenant_header="X-API-Key", tenant_share=0.5))
    assert site.model()["queued_requests"] == 1  # who waited has its place
    greedy = [site.queue("x-api-key", "a") for _ in range(2)]
    assert site.ask("x-api-key", "a").answer().status_code == 503
    modest = site.queue("x-api-key", "b")
    answers = [each.answer().status_code for each in (running, early, *greedy, modest)]
    assert answers == [200] * 5
    assert site.pids() == before
    assert site.model()["shed"] == {"queue_full": 1}


def test_each_replica_finds_how_many_it_can_work_on(loadshed: Loadshed) -> None:
    """40 ms, whatever their number: the more at once, the more get through."""
    numbers: dict[str, Any] = {"max_ongoing_requests": "auto", "max_queued_requests": None}
    loadshed.start(loadshed.config(**numbers))
    site = Site(loadshed)
    (replica,) = site.model()["replicas"]
    assert (replica["max_ongoing_requests"], replica["limit_reason"]) == (10, "")
    assert "Model, replica 1: auto, at most 10 at once\n" in loadshed.command("status").stdout
    asyncio.run(load(loadshed.url, lambda: bool(site.model()["replicas"][0]["limit_reason"])))
    moved = site.model()
    (replica,) = moved["replicas"]
    assert moved["max_ongoing_requests"] == "auto"
    assert replica["limit_reason"]
    shown = " ".join(loadshed.command("status").stdout.split())
    limit, reason = replica["max_ongoing_requests"], replica["limit_reason"]
    assert f"Model, replica 1: auto, at most {limit} at once ({reason})" in shown

    # A file that changes something else leaves what was found.
    loadshed.deploy(loadshed.config(**numbers, max_wait=9))
    (after,) = site.model()["replicas"]
    assert (after["pid"], after["max_ongoing_requests"]) == (replica["pid"], limit)
    (application,) = yaml.safe_load(loadshed.command("config").stdout)["applications"]
    assert application["deployments"][0]["max_ongoing_requests"] == "auto"

    # So does one that says a number, and its line is as long as that again.
    loadshed.deploy(loadshed.config(max_ongoing_requests=2, max_queued_requests=None))
    fixed = site.model()
    assert (fixed["max_ongoing_requests"], fixed["replicas"][0]["pid"]) == (2, replica["pid"])
    assert fixed["replicas"][0]["max_ongoing_requests"] == 2
    assert "replica 1:" not in loadshed.command("status").stdout


async def load(url: str, is_enough: Callable[[], bool]) -> None:
    """As many requests as a deployment takes, until that is enough."""
    over = asyncio.Event()

    async def ask(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            await client.get(f"{url}/?sleep=0.04")

    async with httpx.AsyncClient(timeout=LONG) as client, asyncio.TaskGroup() as tasks:
        for _ in range(16):
            tasks.create_task(ask(client))
        while not await asyncio.to_thread(is_enough):
            await asyncio.sleep(0.1)
        over.set()


def test_the_command_line_knows_auto(loadshed: Loadshed) -> None:
    loadshed.config()
    options = ("--app-dir", "code", "--port", "0", "--max-ongoing-requests", "auto")
    loadshed.start("model:app", *options)
    assert Site(loadshed).model()["max_ongoing_requests"] == "auto"
    assert loadshed.get().status_code == 200


@pytest.mark.parametrize("wrong", ["some", "1.5"])
def test_the_command_line_refuses_what_is_no_number(wrong: str) -> None:
    done = CliRunner().invoke(run.run, ["m:app", "--max-ongoing-requests", wrong])
    assert done.exit_code == 2
    assert f"'{wrong}' is not a valid integer" in done.output


def test_what_is_unbounded_is_shown_in_a_word() -> None:
    async def look_at() -> dict[str, Any]:
        app = deployment(max_ongoing_requests=float("inf"))(served.pick).bind()
        async with running(app, port=0) as server:
            return dict(server.status()["default"]["deployments"]["pick"])

    status = asyncio.run(look_at())
    assert (status["max_ongoing_requests"], status["replicas"][0]["max_ongoing_requests"]) == (
        ".inf",
        ".inf",
    )
    assert [*look._limits("pick", status)] == []


def test_a_tenant_is_what_a_header_says_and_who_has_none_is_one() -> None:
    tenant_of = TenantOf("X-API-Key")

    def tenant(*values: bytes) -> bytes:
        return tenant_of({"headers": [(b"host", b"x"), *((b"x-api-key", each) for each in values)]})

    assert tenant(b"a") == b"a"
    assert tenant() == tenant(b"") == b""
    assert tenant(b"a", b"b") == b"a,b"
    long, longer = (tenant(b"x" * (LONGEST_TENANT + more)) for more in (1, 2))
    assert long != longer
    assert len(long) == 32 < LONGEST_TENANT
