import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from loadshed.demo.client import fetch
from loadshed.demo.load import Ending, Visit, offer, poisson

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(raw: bytes) -> Handler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    return answer


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311, not a secret


def visits(handler: Handler, *times: float, deadline: float = 5.0) -> list[Visit]:
    async def run() -> list[Visit]:
        async with listening(handler) as port:
            return await offer(port, times, deadline=deadline)

    return asyncio.run(run())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
SHED = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"


def test_clients_come_as_often_as_they_should_on_average() -> None:
    times = poisson(chance(1), rate=100, seconds=100)
    assert len(times) == pytest.approx(10_000, rel=0.05)


def test_clients_come_in_order_and_in_time() -> None:
    times = poisson(chance(1), rate=100, seconds=2)
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 2


def test_the_same_seed_brings_the_same_clients() -> None:
    first, second, other = (poisson(chance(seed), rate=100, seconds=1) for seed in (1, 1, 2))
    assert first == second != other


def test_a_rate_so_low_that_nobody_comes_is_no_error() -> None:
    assert poisson(chance(1), rate=1e-9, seconds=1) == []


def test_a_client_that_gets_200_is_served() -> None:
    (visit,) = visits(answering(OK), 0)
    assert visit.ending is Ending.SERVED
    assert 0 <= visit.late <= visit.seconds


def test_a_client_that_gets_503_is_shed() -> None:
    (visit,) = visits(answering(SHED), 0)
    assert visit.ending is Ending.SHED


def test_any_other_status_is_a_failure_that_says_so() -> None:
    (visit,) = visits(answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), 0)
    assert (visit.ending, visit.reason) == (Ending.FAILED, "status 404")


@pytest.mark.parametrize("raw", [b"", OK[:-1], b"nonsense\r\n\r\n"])
def test_half_an_answer_is_a_failure_that_says_so(raw: bytes) -> None:
    (visit,) = visits(answering(raw), 0)
    assert visit.ending is Ending.FAILED
    assert "RemoteProtocolError" in visit.reason


def test_a_refused_connection_is_a_failure_that_says_so() -> None:
    async def run() -> list[Visit]:
        async with listening(answering(OK)) as port:
            pass
        return await offer(port, [0], deadline=5)

    (visit,) = asyncio.run(run())
    assert visit.ending is Ending.FAILED
    assert "ConnectionRefusedError" in visit.reason


def test_a_client_past_its_deadline_gives_up_and_hangs_up() -> None:
    async def run() -> Visit:
        hung_up = asyncio.Event()

        async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.read() == b""
            hung_up.set()

        async with listening(never) as port:
            (visit,) = await offer(port, [0], deadline=0.1)
            await asyncio.wait_for(hung_up.wait(), 10)
        return visit

    visit = asyncio.run(run())
    assert visit.ending is Ending.GAVE_UP
    assert visit.seconds >= 0.1


def test_a_client_that_could_not_even_send_was_late_by_all_of_its_time() -> None:
    (visit,) = visits(answering(OK), 0, deadline=0)
    assert visit.ending is Ending.GAVE_UP
    assert visit.late == visit.seconds


def test_clients_come_whatever_became_of_those_before() -> None:
    arrived = asyncio.Barrier(3)

    async def together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await arrived.wait()
        await answering(OK)(reader, writer)

    endings = [visit.ending for visit in visits(together, 0, 0.001, 0.002)]
    assert endings == [Ending.SERVED] * 3


def test_a_generator_that_falls_behind_says_by_how_much() -> None:
    async def run() -> list[Visit]:
        async with listening(answering(OK)) as port:
            asyncio.get_running_loop().call_soon(time.sleep, 0.05)
            return await offer(port, [0.01, 0.01], deadline=5)

    for visit in asyncio.run(run()):
        assert visit.late >= 0.03
        assert visit.seconds >= visit.late


def test_no_garbage_is_collected_while_the_load_lasts() -> None:
    enabled = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        enabled.append(gc.isenabled())
        await answering(OK)(reader, writer)

    visits(look, 0)
    assert enabled == [False]
    assert gc.isenabled()


@pytest.mark.parametrize(("raw", "retry_after"), [(OK, None), (SHED, 7)])
def test_an_answer_carries_what_the_server_said(raw: bytes, retry_after: int | None) -> None:
    async def run() -> None:
        async with listening(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + raw)) as port:
            answer = await fetch(port)
        assert answer.status == int(raw.split()[1])
        assert answer.body == raw.partition(b"\r\n\r\n")[2]
        assert answer.retry_after == retry_after
        assert answer.seconds > 0

    asyncio.run(run())
