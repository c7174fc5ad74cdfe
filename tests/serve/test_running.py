"""`running` and `run`: an application served from Python, over real HTTP."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from loadshed import ConfigError, ReplicaUnavailableError
from loadshed.serve import Server, deployment, running
from tests.serve import served

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


async def get(server: Server, path: str = "/", **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(server.url + path, **more)


async def test_two_stages_have_a_queue_each_and_what_the_second_sheds_is_503() -> None:
    async with running(served.two_stages, port=0) as server:
        assert (await get(server, "/?x=2")).json() == {"y": 18}
        assert (await get(server, "/?count=3")).json() == [0, 1, 2]
        assert (await get(server, "/?missing")).status_code == 500
        assert (await get(server, "/?fail")).text == "Internal Server Error"
        asked = [get(server, "/?slow") for _ in range(6)]
        answers = await asyncio.gather(*asked)
        assert Counter(answer.status_code for answer in answers) == {200: 2, 503: 4}
        shed = [answer for answer in answers if answer.status_code == 503]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)
        status = server.status()["default"]["deployments"]
        assert status["Model"]["shed"] == {"queue_full": 4}
        assert status["Front"]["shed"] == {}
    assert repr(server) == f"<Server {server.url}>"


@pytest.mark.parametrize("how", ["", "&stream"])
async def test_a_call_that_matters_less_goes_for_one_that_matters_more(how: str) -> None:
    async with running(served.two_stages, port=0) as server:
        assert (await get(server, f"/?displace{how}")).json() == ["done", "displaced", 3]


async def test_a_stream_that_is_left_by_break_frees_its_slot() -> None:
    async with running(served.two_stages, port=0) as server:
        for _ in range(4):  # the model works on one request at a time
            assert (await get(server, "/?leave")).json() == 0
        await until_idle(server)


async def test_who_leaves_cancels_what_is_called_for_him() -> None:
    async with running(served.two_stages, port=0) as server:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"{server.url}/?forever", timeout=0.3)

        await until_idle(server)
        header = {"x-request-timeout-seconds": "0.2"}
        assert (await get(server, "/?forever", headers=header)).status_code == 504
        await until_idle(server)


async def until_idle(server: Server) -> None:
    """Wait until nothing runs, though nobody tells of it."""

    def is_idle() -> bool:
        deployments = server.status()["default"]["deployments"].values()
        return not any(each["ongoing_requests"] for each in deployments)

    with anyio.fail_after(30):
        while not is_idle():
            await anyio.sleep(0.01)


async def test_a_response_may_be_larger_than_a_socket_takes_at_once() -> None:
    async with running(served.sizeable, port=0) as server:
        for size in (3_000_000, 30_000_000):
            assert len((await get(server, f"/?size={size}")).content) == size


async def test_what_runs_in_the_background_goes_on_when_the_client_has_its_answer(
    tmp_path: Path,
) -> None:
    async with running(served.sizeable, port=0) as server:
        assert (await get(server, f"/?size=1&background={tmp_path / 'done'}")).text == "x"
        await until_idle(server)
        assert (tmp_path / "done").exists()


async def test_who_is_called_is_there_before_those_who_call() -> None:
    async with running(served.early, port=0) as server:
        assert (await get(server)).text == "6"


async def test_answers_are_as_their_deployment_says() -> None:
    async with running(served.picky, port=0, route_prefix="/api", name="mine") as server:
        answers = await asyncio.gather(*(get(server, "/api") for _ in range(3)))
        (shed,) = [answer for answer in answers if answer.is_error]
        assert (shed.status_code, shed.headers["retry-after"]) == (429, "3")
        assert (await get(server)).status_code == 404
        assert (await get(server, "/api/x?slow=5")).status_code == 504


async def test_a_get_whose_replica_dies_is_tried_once_more_and_a_post_is_not(
    tmp_path: Path,
) -> None:
    async with running(served.mortal, port=0) as server:
        answer = await get(server, f"/?once={tmp_path / 'get'}")
        assert (answer.status_code, answer.text) == (200, "alive")
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"{server.url}/?once={tmp_path / 'post'}")
            assert answer.status_code == 502
            answer = await client.put(f"{server.url}/?once={tmp_path / 'put'}", content=b"body")
            assert (answer.status_code, answer.text) == (200, "alive")
        assert (await get(server, "/?always")).status_code == 502


async def test_what_can_not_start_is_raised_as_it_is_and_leaves_nothing() -> None:
    with pytest.raises(ReplicaUnavailableError, match="no weights"):
        async with running(served.broken, port=0):
            pytest.fail("It came to serve.")


async def test_what_is_raised_in_the_block_leaves_it_as_it_is() -> None:
    for error in (LookupError("mine"), SystemExit(3), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            async with running(served.picky, port=0):
                raise error
        assert caught.value is error
    with anyio.move_on_after(0.1) as scope:
        async with running(served.picky, port=0):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"app": served.Plain}, "app must be a bound deployment"),
        ({"app": deployment(lambda: None).bind()}, "code at the top level of modules"),
        ({"route_prefix": "api"}, "route_prefix must be '/', or a path"),
        ({"route_prefix": "/api/"}, "route_prefix must be '/', or a path"),
        ({"route_prefix": "/a?b"}, "route_prefix must be '/', or a path"),
        ({"route_prefix": None}, "route_prefix must be '/', or a path"),
        ({"name": ""}, "name must be a string of printable characters"),
        ({"name": 3}, "name must be a string of printable characters"),
        ({"port": -1}, "port must be a whole number from 0 to 65535, not -1."),
    ],
)
async def test_a_setting_that_is_wrong_is_refused(settings: dict[str, Any], said: str) -> None:
    arguments: dict[str, Any] = {"app": served.picky, "port": 0} | settings
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        async with running(**arguments):
            pytest.fail("It came to serve.")


def test_there_is_no_server_for_trio() -> None:
    async def serve() -> None:
        async with running(served.picky, port=0):
            pytest.fail("It came to serve.")

    with pytest.raises(RuntimeError, match="`running` needs asyncio"):
        anyio.run(serve, backend="trio")


PROGRAM = """
from loadshed.serve import deployment, run

@deployment
def hello(request):
    return "hello"

if __name__ == "__main__":
    run(hello.bind(), port=0)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_until_a_signal_comes(tmp_path: Path, how: int) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen(  # noqa: S603
        [sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        url = line.removeprefix("Serving at ").partition(". ")[0]
        assert httpx.get(url, timeout=30).text == "hello"
        program.send_signal(how)
        assert program.wait(30) == 0
