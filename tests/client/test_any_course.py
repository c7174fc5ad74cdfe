"""Whatever the server, the network and the caller do, a few things are so.

- The server never gets a whole body that is another one than what it got before.
- Every response is closed in the end, and the pool has all of its places.
- There are no more attempts than there may be, and the history tells of those that were.
- Each attempt is over by its limit, and all by the deadline.
"""

import asyncio
import io
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import anyio
import httpx
import pytest
import trio
from anyio.lowlevel import checkpoint
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from loadshed import RetryError
from loadshed.client import (
    AsyncClient,
    AsyncRetryTransport,
    CircuitBreaker,
    Client,
    Hedge,
    History,
    Retry,
    RetryBudget,
    RetryTransport,
    deadline,
)
from loadshed.client._family import family_of
from tests.client.network import (
    Answer,
    Connect,
    Request,
    Server,
    VirtualTime,
    async_transport,
    bodies_are_one,
    serves,
    serves_threads,
    sync_transport,
)
from tests.helpers import CancelAt

# httpx and httpcore leave generators of theirs to the event loop, where they are broken off.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

URL = "http://server/"
SMALL = b"0123456789" * 3
LARGE = bytes(100_000)
EPSILON = 0.01

family_of(httpx.Request("GET", URL))  # or else the first request of all would go the long way


# Bodies. Those that change do so between two readings, at the beginning, in the middle, or at the
# end; what they come to is still what counts as the body where nothing was sent before.


def changed(body: bytes, times: int, how: str) -> bytes:
    if times == 0 or how == "kept":
        return body
    return {
        "first": b"X" + body[1:],
        "middle": body[:14] + b"X" + body[15:],
        "shorter": body[:-3],
        "longer": body + b"X" * times,
        "gone": b"",
    }[how]


CHANGES = ("kept", "kept", "first", "middle", "shorter", "longer", "gone")


class Again:
    """A body that can be read any number of times, in pieces of any size."""

    def __init__(self, how: str, sizes: list[int]) -> None:
        self.how = how
        self.sizes = sizes
        self.readings = 0

    def pieces(self) -> Iterator[bytes]:
        body = changed(SMALL, self.readings, self.how)
        size = self.sizes[self.readings % len(self.sizes)]
        self.readings += 1
        for start in range(0, len(body), size):
            yield body[start : start + size]


class AsyncAgain(Again):
    def __aiter__(self) -> AsyncIterator[bytes]:
        return AsyncOnce(self.pieces())


class SyncAgain(Again):
    def __iter__(self) -> Iterator[bytes]:
        return self.pieces()


class AsyncOnce(AsyncIterator[bytes]):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces

    async def __anext__(self) -> bytes:
        await checkpoint()
        for piece in self.pieces:
            return piece
        raise StopAsyncIteration


def file_at(position: int) -> io.BytesIO:
    file = io.BytesIO(bytes(position) + SMALL)
    file.seek(position)
    return file


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=3)
any_body = [
    st.just(dict),
    st.just(lambda: {"content": SMALL}),
    st.just(lambda: {"files": {"file": io.BytesIO(SMALL)}}),
]
async_bodies = st.one_of(
    *any_body,
    st.builds(
        lambda how, sizes: lambda: {"content": AsyncAgain(how, sizes)},
        st.sampled_from(CHANGES),
        sizes,
    ),
    sizes.map(lambda sizes: lambda: {"content": AsyncOnce(Again("kept", sizes).pieces())}),
)
sync_bodies = st.one_of(
    *any_body,
    st.builds(
        lambda how, sizes: lambda: {"content": SyncAgain(how, sizes)},
        st.sampled_from(CHANGES),
        sizes,
    ),
    sizes.map(lambda sizes: lambda: {"content": Again("kept", sizes).pieces()}),
    st.integers(0, 50).map(
        # httpx says how long the whole file is.
        lambda at: lambda: {"content": file_at(at), "headers": {"Content-Length": str(len(SMALL))}}
    ),
)

tenths = st.integers(0, 20).map(lambda number: number / 10)
seconds = st.one_of(st.just(0.0), tenths, tenths, st.sampled_from([20.0, math.inf]))
connects = st.lists(
    st.one_of(
        st.just(Connect()),
        st.just(Connect()),
        st.builds(Connect, seconds=seconds),
        st.builds(Connect, seconds=tenths, refused=st.just(True)),
    ),
    max_size=4,
)
answers = st.lists(
    st.builds(
        Answer,
        status=st.sampled_from([503, 503, 500, 429, 200, 404, None]),
        after=st.sampled_from([None, None, None, None, 0, 1, 12, 29]),
        wait=seconds,
        retry_after=st.sampled_from([None, None, None, "0", "1", "2", "7", "100", "soon"]),
        body=st.sampled_from([b"done", b"done", b"", LARGE]),
        framing=st.sampled_from(["length", "chunked", "close"]),
        truncated=st.sampled_from([False, False, True]),
        pause=seconds,
        keep=st.sampled_from([True, True, False]),
        drips=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@dataclass(frozen=True)
class Sent:
    """A request, and who sends it."""

    policy: Retry
    method: str
    headers: dict[str, str]
    body: Callable[[], dict[str, Any]]
    ready: bool  # the client is loadshed's own, or httpx's
    stream: bool
    within: float  # the deadline that the caller wrote
    timeout: float
    budget: Callable[[], RetryBudget | None]
    breaker: Callable[[], CircuitBreaker | None]
    raise_on_exhausted: bool
    hedge: Hedge | None

    def build(self, client: Any) -> httpx.Request:
        body = self.body()
        headers = self.headers | body.pop("headers", {})
        request: httpx.Request = client.build_request(
            self.method, URL, headers=headers, timeout=self.timeout, **body
        )
        return request

    @property
    def options(self) -> dict[str, Any]:
        return {
            "retry": self.policy,
            "budget": self.budget(),
            "breaker": self.breaker(),
            "raise_on_exhausted": self.raise_on_exhausted,
        }

    @property
    def most_attempts(self) -> float:
        hedges = 0 if self.hedge is None else self.hedge.max_hedged_attempts
        return (self.policy.total + 1) * (1 + hedges)

    @property
    def seconds(self) -> float:
        """Within which it has to be over, the body aside where that is the caller's."""
        return min(math.inf if self.policy.deadline is None else self.policy.deadline, self.within)


policies = st.builds(
    Retry,
    total=st.sampled_from([3, 2, 1, 0]),
    backoff_factor=st.sampled_from([0, 0.1, 1.0]),
    first_delay=st.sampled_from([None, 0]),
    jitter=st.sampled_from(["none", "full", "equal", "decorrelated"]),
    attempt_timeout=st.sampled_from([None, 1.0, 10.0]),
    deadline=st.sampled_from([None, 30.0, 5.0, 2.5]),
    retry_after_max=st.sampled_from([5.0, 60.0]),
)


def requests(bodies: Any, hedges: Any) -> Any:
    return st.builds(
        Sent,
        policy=policies,
        method=st.sampled_from(["GET", "PUT", "PUT", "DELETE", "POST"]),
        headers=st.sampled_from([{}, {}, {"Idempotency-Key": "1"}]),
        body=bodies,
        ready=st.booleans(),
        stream=st.booleans(),
        within=st.sampled_from([math.inf, math.inf, math.inf, 4.0]),
        timeout=st.sampled_from([3.0, 50.0]),
        budget=st.sampled_from(
            [
                RetryBudget,
                RetryBudget,
                lambda: None,
                lambda: RetryBudget(min_retries_per_sec=0.1, percent_can_retry=0),
            ]
        ),
        breaker=st.sampled_from(
            [
                lambda: None,
                lambda: None,
                lambda: None,
                lambda: CircuitBreaker(failure_ratio=0.5, minimum_throughput=2, break_duration=1),
            ]
        ),
        raise_on_exhausted=st.sampled_from([False, False, True]),
        hedge=hedges,
    )


async_requests = requests(
    async_bodies,
    st.sampled_from([None, None, None, Hedge(delay=0), Hedge(delay=0.5, max_hedged_attempts=2)]),
)
sync_requests = requests(sync_bodies, st.none())


def look_at_what_the_server_saw(sent: Sent, seen: list[Request], history: History | None) -> None:
    assert len(seen) <= sent.most_attempts
    assert bodies_are_one(seen)
    body = sent.body()
    for request in seen:
        assert not request.whole or len(request.body) > 0 or not body.get("content")
        if isinstance(body.get("content"), bytes) and request.whole:
            assert request.body == SMALL
    if history is None:
        return

    assert len(seen) <= len(history.attempts) <= sent.most_attempts
    if sent.hedge is not None:
        return
    # A retry has its number.
    numbers = [int(request.headers.get("x-retry-attempt", 0)) for request in seen]
    assert numbers == sorted(set(numbers))
    assert all(number < len(history.attempts) for number in numbers)
    # An answer is in the history, unless it came to an error when its body was read.
    came = [request.status for request in seen if request.status is not None]
    told = [attempt.status for attempt in history.attempts if attempt.status is not None]
    is_read = sent.ready and not sent.stream
    failed = sent.policy.status_forcelist
    if is_read:
        assert [status for status in told if status in failed] == [
            status for status in came if status in failed
        ]
        assert len(told) <= len(came)
    else:
        assert told == came


class Watch:
    """What became of a request, and when."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.began = now()
        self.answered_at = math.inf
        self.ended_at = math.inf
        self.request: httpx.Request | None = None

    def keeps_the_time(self, sent: Sent) -> None:
        until = self.ended_at if self.answered_at == math.inf else self.answered_at
        assert until - self.began <= sent.seconds + EPSILON
        assert self.ended_at - self.began <= sent.within + EPSILON

    def each_attempt_keeps_the_time(self, sent: Sent) -> None:
        assert self.history is not None
        limit = sent.policy.attempt_timeout or math.inf
        assert all(attempt.elapsed <= limit + EPSILON for attempt in self.history.attempts)

    @property
    def history(self) -> History | None:
        return None if self.request is None else self.request.extensions.get("loadshed")


async def send(sent: Sent, inner: httpx.AsyncBaseTransport, watch: Watch) -> None:
    client: httpx.AsyncClient
    if sent.ready:
        client = AsyncClient(transport=inner, hedge=sent.hedge, **sent.options)
    else:
        transport = AsyncRetryTransport(inner, hedge=sent.hedge, **sent.options)
        client = httpx.AsyncClient(transport=transport)
    watch.request = request = sent.build(client)
    with deadline(sent.within):
        try:
            # Where httpx's own client reads the body, that is not bounded.
            response = await client.send(request, stream=sent.stream or not sent.ready)
            watch.answered_at = watch.now()
            try:
                await response.aread()
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            assert error.request is request  # noqa: PT017
        finally:
            watch.ended_at = watch.now()


async def course(sent: Sent, server: Server, cancel_at: int | None) -> None:
    inner = async_transport(server)
    watch = Watch(anyio.current_time)
    with anyio.CancelScope() as scope:
        await CancelAt(send(sent, inner, watch), cancel_at or 0, scope.cancel)

    await look_at_the_end(sent, server, inner, watch, cancelled=scope.cancel_called)
    if not scope.cancel_called:
        watch.each_attempt_keeps_the_time(sent)


async def look_at_the_end(
    sent: Sent, server: Server, inner: Any, watch: Watch, *, cancelled: bool
) -> None:
    pool = inner._pool
    assert pool._requests == []
    idle = [one for one in pool.connections if one.is_idle()]
    assert idle == pool.connections
    assert server.open == len(idle)
    look_at_what_the_server_saw(sent, server.requests, None if cancelled else watch.history)
    if not cancelled:
        assert watch.history is not None
        watch.keeps_the_time(sent)
    server.answers.clear()
    server.connects.clear()
    await serves(inner)


# What only a limit on all of an attempt ends: on the short way of a request, and on the long one.
SIMPLE = Sent(
    policy=Retry(deadline=2.5),
    method="GET",
    headers={},
    body=dict,
    ready=True,
    stream=False,
    within=math.inf,
    timeout=50.0,
    budget=RetryBudget,
    breaker=lambda: None,
    raise_on_exhausted=False,
    hedge=None,
)
DRIPPING = [Answer(pause=2.0, drips=True)]

many = settings(max_examples=3 * settings().max_examples)


@many
@given(
    sent=async_requests,
    connects=connects,
    answers=answers,
    cancel_at=st.one_of(st.none(), st.none(), st.integers(1, 60)),
)
@example(sent=SIMPLE, connects=[], answers=DRIPPING, cancel_at=None)
@example(sent=replace(SIMPLE, within=4.0), connects=[], answers=DRIPPING, cancel_at=None)
def test_any_course_of_an_async_request(
    sent: Sent, connects: list[Connect], answers: list[Answer], cancel_at: int | None
) -> None:
    server = Server(connects=list(connects), answers=list(answers))
    clock = MockClock(autojump_threshold=0)
    trio.run(course, sent, server, cancel_at, clock=clock)


def quicker(seconds: float) -> float:
    """For a clock that is not virtual."""
    return seconds / 500


@given(
    sent=async_requests,
    connects=connects,
    answers=answers,
    cancel_at=st.one_of(st.none(), st.integers(1, 30)),
)
def test_any_course_of_a_request_that_asyncio_cancels(
    sent: Sent, connects: list[Connect], answers: list[Answer], cancel_at: int | None
) -> None:
    policy = Retry(
        total=sent.policy.total,
        backoff_factor=quicker(sent.policy.backoff_factor),
        jitter=sent.policy.jitter,
        attempt_timeout=quicker(sent.policy.attempt_timeout or 5),
        deadline=quicker(sent.policy.deadline or 30),
        retry_after_max=0,
    )
    sent = Sent(**(vars(sent) | {"policy": policy, "within": quicker(sent.within)}))
    # What httpx reads and closes by itself, it may leave open where asyncio cancels it.
    sent = Sent(**(vars(sent) | {"ready": True, "stream": False}))
    server = Server(
        connects=[Connect(quicker(one.seconds), one.refused) for one in connects],
        answers=[
            Answer(
                **(vars(one) | {"wait": quicker(one.wait), "pause": quicker(one.pause)}),
            )
            for one in answers
        ],
    )

    async def main() -> None:
        inner = async_transport(server)
        watch = Watch(lambda: 0.0)  # no claim as to a clock that everybody shares
        task: asyncio.Task[None]

        async def run() -> None:
            await CancelAt(send(sent, inner, watch), cancel_at or 0, lambda: task.cancel())  # noqa: PLW0108

        task = asyncio.ensure_future(run())
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

        await look_at_the_end(sent, server, inner, watch, cancelled=task.cancelled())

    anyio.run(main, backend="asyncio")


def send_in_a_thread(sent: Sent, inner: httpx.BaseTransport, watch: Watch) -> None:
    client: httpx.Client
    if sent.ready:
        client = Client(transport=inner, **sent.options)
    else:
        client = httpx.Client(transport=RetryTransport(inner, **sent.options))
    watch.request = request = sent.build(client)
    with deadline(sent.within):
        try:
            response = client.send(request, stream=sent.stream or not sent.ready)
            watch.answered_at = watch.now()
            try:
                response.read()
            finally:
                response.close()
        except httpx.HTTPError as error:
            assert error.request is request  # noqa: PT017
        finally:
            watch.ended_at = watch.now()


@many
@given(sent=sync_requests, connects=connects, answers=answers)
def test_any_course_of_a_request_of_a_thread(
    sent: Sent, connects: list[Connect], answers: list[Answer]
) -> None:
    server = Server(connects=list(connects), answers=list(answers))
    inner = sync_transport(server)
    time = VirtualTime()
    with pytest.MonkeyPatch.context() as monkeypatch:
        time.install(monkeypatch)
        watch = Watch(time.time)
        send_in_a_thread(sent, inner, watch)

        pool = inner._pool
        assert pool._requests == []
        idle = [one for one in pool.connections if one.is_idle()]
        assert idle == pool.connections
        assert server.open == len(idle)
        assert watch.history is not None
        look_at_what_the_server_saw(sent, server.requests, watch.history)
        if not any(one.pause for one in answers):  # a thread can't end what comes in pieces
            watch.keeps_the_time(sent)
            watch.each_attempt_keeps_the_time(sent)
        server.answers.clear()
        server.connects.clear()
        serves_threads(inner)


SLOW = Answer(503, wait=1.3, pause=0.5)
STRICT = Retry(deadline=2.5, attempt_timeout=None, jitter="none")


def test_to_drain_a_response_takes_nothing_from_the_time_of_others() -> None:
    async def main() -> None:
        began = anyio.current_time()
        async with AsyncClient(transport=async_transport(Server(answers=[SLOW] * 9))) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(URL, extensions={"retry": STRICT})
        assert anyio.current_time() - began <= 2.5 + EPSILON

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_to_drain_a_response_takes_nothing_from_the_time_of_others_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = VirtualTime()
    time.install(monkeypatch)
    began = time.now
    client = Client(transport=sync_transport(Server(answers=[SLOW] * 9)), retry=STRICT)
    with client, pytest.raises(httpx.ReadTimeout):
        client.get(URL)
    assert time.now - began <= 2.5 + EPSILON


ONCE = Retry(total=0)


@pytest.mark.parametrize("ready", [True, False])
def test_the_response_in_a_retry_error_can_be_read(ready: bool) -> None:
    inner = sync_transport(Server(answers=[Answer(503, body=b"busy")]))
    client = (
        Client(transport=inner, retry=ONCE, raise_on_exhausted=True)
        if ready
        else httpx.Client(transport=RetryTransport(inner, retry=ONCE, raise_on_exhausted=True))
    )

    with pytest.raises(RetryError) as caught:
        client.get(URL)

    assert caught.value.last.read() == b"busy"
    assert caught.value.last.is_closed


def test_the_response_in_a_retry_error_of_an_async_client_can_be_read() -> None:
    async def main() -> None:
        inner = async_transport(Server(answers=[Answer(503, body=b"busy")]))
        client = AsyncClient(transport=inner, retry=ONCE, raise_on_exhausted=True)

        with pytest.raises(RetryError) as caught:
            await client.get(URL)

        assert await caught.value.last.aread() == b"busy"
        assert caught.value.last.is_closed

    trio.run(main)


def test_a_response_that_can_not_be_decoded_is_in_a_retry_error_all_the_same() -> None:
    headers = {"Content-Encoding": "gzip"}
    inner = httpx.MockTransport(
        lambda _: httpx.Response(503, headers=headers, stream=httpx.ByteStream(b"no gzip"))
    )

    with pytest.raises(RetryError) as caught:
        Client(transport=inner, retry=ONCE, raise_on_exhausted=True).get(URL)

    assert caught.value.last.status_code == 503
