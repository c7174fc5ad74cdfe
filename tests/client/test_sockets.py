"""A pool on real sockets: who queues for it, who races in it, and who leaves it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from loadshed.client import AsyncClient, AsyncRetryTransport, Event, Hedge, Retry
from tests.helpers import settle

from .calling import FAMILIES, TLS
from .network import connections_in_use
from .scripted import Answer, ScriptedServer, silence

pytestmark = pytest.mark.anyio

PATIENT = Retry(attempt_timeout=60, deadline=None)
"""No test takes as long as that, but one that fails."""


class Sending:
    """An async client of some kind, and the transport inside of it, which has the pool.

    Args:
        library: httpx or httpx2, whose client has a transport with a policy; None is a ready one.
        most: How many connections there may be.
        settings: Those of the retry.
    """

    def __init__(self, library: Any, most: int = 10, **settings: Any) -> None:
        of: Any = library or FAMILIES[0]
        self.inner = of.AsyncHTTPTransport(verify=TLS, limits=of.Limits(max_connections=most))
        self.unsent = of.PoolTimeout
        options: dict[str, Any] = {"timeout": None, "trust_env": False}
        if library is None:
            self.client: Any = AsyncClient(transport=self.inner, **settings, **options)
        else:
            transport = AsyncRetryTransport(self.inner, **settings)
            self.client = of.AsyncClient(transport=transport, **options)

    @property
    def connections(self) -> list[Any]:
        """Those in the pool, of which none is in use."""
        assert self.inner._pool._requests == []
        assert connections_in_use(self.inner) == []
        return list(self.inner._pool.connections)


Send = Callable[..., Sending]


@pytest.fixture(params=[None, *FAMILIES], ids=["ready", *(one.__name__ for one in FAMILIES)])
def sending(request: pytest.FixtureRequest) -> Send:
    return lambda **options: Sending(request.param, **options)


async def test_of_a_hedged_request_the_winners_connection_alone_stays_open(sending: Send) -> None:
    with ScriptedServer(silence(), Answer(body=b"second")) as server:
        it = sending(hedge=Hedge(delay=0.05), retry=PATIENT)
        async with it.client as client:
            with anyio.fail_after(30):
                response = await client.get(server.url)
            assert response.content == b"second"
            assert len(server.requests) == 2
            assert len(it.connections) == 1
            await run_sync(server.wait_until, lambda: server.open_connections == 1)


async def test_a_post_that_queues_for_a_connection_is_tried_again(sending: Send) -> None:
    events: list[Event] = []
    with ScriptedServer(Answer(held=True)) as server:

        def on_event(event: Event) -> None:
            events.append(event)
            server.release()

        policy = replace(PATIENT, total=1000, backoff_factor=0)
        it = sending(most=1, retry=policy, budget=None, on_event=on_event)
        async with it.client as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, server.url)
            await run_sync(server.wait_for_requests, 1)
            timeout = {"pool": 0.05}
            response = await client.post(
                server.url, content=b"order", extensions={"timeout": timeout}
            )
        assert server.bodies == [b"", b"order"]
    *unsent, answered = response.extensions["loadshed"].attempts
    assert {type(attempt.error) for attempt in unsent} == {it.unsent}
    assert answered.status == 200
    assert [event.kind for event in events] == ["retry"] * len(unsent) + ["stop"]


async def test_a_cancellation_in_the_wait_before_a_retry_leaves_nothing_in_use(
    sending: Send,
) -> None:
    waits = anyio.Event()
    policy = replace(PATIENT, first_delay=40, jitter="none")
    with ScriptedServer(Answer(503, body=b"busy"), Answer(body=b"next")) as server:
        it = sending(retry=policy, on_event=lambda _: waits.set())
        async with it.client as client:
            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, server.url)
                    await waits.wait()
                    await settle()
                    tasks.cancel_scope.cancel()
            assert len(it.connections) <= 1
            assert (await client.get(server.url)).content == b"next"
            assert len(server.requests) == 2


async def test_a_cancellation_while_the_server_is_silent_leaves_nothing_open(sending: Send) -> None:
    with ScriptedServer(silence(), Answer(body=b"next")) as server:
        it = sending(retry=PATIENT)
        async with it.client as client:
            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, server.url)
                    await run_sync(server.wait_for_requests, 1)
                    tasks.cancel_scope.cancel()
            assert it.connections == []
            await run_sync(server.wait_until_left)
            assert (await client.get(server.url)).content == b"next"
            assert len(server.requests) == 2
