"""A body that is sent again is the same, or it is broken off before its end."""

import io
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed.client import AsyncClient, Client, Event, Retry
from loadshed.client._sent import AlteredBodyError, SentBody, rewinding
from tests.client.network import (
    Answer,
    Connect,
    Server,
    VirtualTime,
    async_transport,
    connections_in_use,
    sync_transport,
)

URL = "http://server/"


class Body:
    """A body whose pieces are others each time."""

    def __init__(self, *readings: list[bytes]) -> None:
        self.readings = list(readings)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readings.pop(0))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.readings.pop(0):
            yield piece


def repeated(*readings: list[bytes]) -> SentBody:
    return SentBody(Body(*readings), lambda: None)


def read(body: SentBody, most: float = float("inf")) -> tuple[bytes, bool]:
    """What the transport sends of it, if it takes so many pieces; and whether that was the end."""
    sent = b""
    pieces = iter(body)
    while most > 0:
        most -= 1
        try:
            sent += next(pieces)
        except StopIteration:
            return sent, True
    return sent, False


def read_async(body: SentBody, most: float = float("inf")) -> tuple[bytes, bool]:
    """The same, for bodies that never wait for anything."""
    result: list[tuple[bytes, bool]] = []

    async def read_it() -> None:
        sent = b""
        pieces = aiter(body)
        left = most
        while left > 0:
            left -= 1
            try:
                sent += await anext(pieces)
            except StopAsyncIteration:
                result.append((sent, True))
                return
        await body.aclose()
        result.append((sent, False))

    with pytest.raises(StopIteration):
        read_it().send(None)
    return result[0]


both = pytest.mark.parametrize("read", [read, read_async])
Read = Callable[..., tuple[bytes, bool]]


@both
def test_the_same_bytes_in_other_pieces_are_the_same_body(read: Read) -> None:
    body = repeated([b"one", b"two", b"three"], [b"onetwothree"], [b"o", b"", b"netwothre", b"e"])

    for _ in range(3):
        assert read(body) == (b"onetwothree", True)


@both
@pytest.mark.parametrize(
    "second",
    [
        [],
        [b"onetw"],
        [b"one", b"tw", b""],
        [b"onetwo", b"three"],
        [b"one", b"twothree"],
        [b"onetwo!"],
        [b"oneTwo"],
        [b"One", b"two"],
        [b"One", b"two", b"three"],
        [b"Onetwothree"],
        [b"one", b"tw", b"O"],
    ],
)
def test_another_body_never_comes_to_its_end(read: Read, second: list[bytes]) -> None:
    body = repeated([b"one", b"two"], second, [b"on", b"etwo"])
    read(body)
    sent: list[bytes] = []

    with pytest.raises(AlteredBodyError):
        sent.append(read(body)[0])

    assert sent == []
    assert read(body) == (b"onetwo", True)  # and the first one is still the one that counts


@both
def test_what_comes_after_the_point_that_was_reached_may_be_anything(read: Read) -> None:
    body = repeated([b"one", b"two", b"three"], [b"onetwo", b"four"], [b"onetwo", b"three"])

    assert read(body, 2) == (b"onetwo", False)
    assert read(body) == (b"onetwofour", True)
    with pytest.raises(AlteredBodyError):
        read(body)


@both
def test_what_comes_before_the_point_that_was_reached_may_not(read: Read) -> None:
    body = repeated([b"one", b"two", b"three"], [b"OneTwothree"])

    assert read(body, 2) == (b"onetwo", False)
    with pytest.raises(AlteredBodyError):
        read(body)


@both
def test_an_empty_body_stays_empty(read: Read) -> None:
    body = repeated([], [b""], [b"", b"more"])

    assert read(body) == (b"", True)
    assert read(body) == (b"", True)
    with pytest.raises(AlteredBodyError):
        read(body)


contents = st.binary(max_size=12)


def in_pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    ends = [*sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


readings = st.lists(
    st.tuples(
        st.one_of(st.none(), contents),  # another content, or the first one
        st.lists(st.integers(0, 20), max_size=4),  # where it is cut into pieces
        st.one_of(st.just(99), st.integers(1, 5)),  # how many pieces are taken
    ),
    min_size=1,
    max_size=5,
)


@given(first=contents, readings=readings, asynchronous=st.booleans())
def test_of_all_that_is_sent_the_whole_ones_are_one_and_the_same(
    first: bytes, readings: list[tuple[bytes | None, list[int], int]], asynchronous: bool
) -> None:
    plan = [(first if other is None else other, cuts, most) for other, cuts, most in readings]
    body = repeated(*[in_pieces(content, cuts) for content, cuts, _ in plan])
    seen, whole = b"", False  # the longest that was sent so far, and whether it was all

    for content, cuts, most in plan:
        same = content == seen if whole else content.startswith(seen)
        try:
            sent, ended = (read_async if asynchronous else read)(body, most)
        except AlteredBodyError:
            assert not same
            continue
        if ended:
            assert same
            assert sent == content
            seen, whole = sent, True
        else:
            assert len(in_pieces(content, cuts)) >= most
            if len(sent) > len(seen):
                assert not whole
                assert sent.startswith(seen)
                seen = sent


def test_a_body_that_nobody_has_read_can_be_sent() -> None:
    body = SentBody(Body([b"one"]), None)

    assert body.repeatable
    read(body)
    assert not body.repeatable


# What can be rewound


def stream_of(**options: Any) -> Any:
    return httpx.Request("PUT", URL, **options).stream


class OneWay(io.RawIOBase):
    """A file that can't seek."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        content, self.content = self.content, b""
        return content


class Unusual:
    """What can be read, and no more is known of it."""

    def read(self, size: int = -1) -> bytes:
        return b""

    def __iter__(self) -> Iterator[bytes]:
        yield b""


def closed() -> io.BytesIO:
    file = io.BytesIO(b"content")
    file.close()
    return file


class Readable(httpx.AsyncByteStream):
    async def aread(self) -> bytes:
        return b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""


@pytest.mark.parametrize(
    "stream",
    [
        stream_of(content=[b"one", b"two"]),
        stream_of(content={b"one": 1}.keys()),
        stream_of(content=Body()),
        stream_of(content=io.BytesIO(b"content")),
        stream_of(files={"file": io.BytesIO(b"content")}),
        stream_of(files={"file": b"content"}, data={"field": "value"}),
        stream_of(files={"file": ("name", "text")}),
    ],
)
def test_these_can_be_sent_again(stream: Any) -> None:
    assert rewinding(stream) is not None


@pytest.mark.parametrize(
    "stream",
    [
        stream_of(content=iter([b"one", b"two"])),
        stream_of(content=(piece for piece in [b"one"])),
        stream_of(content=Body().__aiter__()),
        stream_of(content=Unusual(), headers={"content-length": "0"}),
        stream_of(content=OneWay(b"content"), headers={"content-length": "7"}),
        stream_of(files={"file": OneWay(b"content")}),
        stream_of(files={"file": b"content", "other": OneWay(b"content")}),
        httpx.SyncByteStream(),
        Readable(),
    ],
)
def test_these_can_not(stream: Any) -> None:
    assert rewinding(stream) is None


def test_a_file_that_is_closed_can_not_be_sent_again() -> None:
    stream = stream_of(content=io.BytesIO(b"content"))
    stream._stream = closed()

    assert rewinding(stream) is None


@pytest.mark.parametrize("position", [0, 3])
def test_a_file_is_sent_from_where_it_was(
    position: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    VirtualTime().install(monkeypatch)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    server = Server(answers=[Answer(503), Answer(503)])
    headers = {"Content-Length": str(7 - position)}

    with Client(transport=sync_transport(server)) as client, path.open("rb") as file:
        file.seek(position)
        response = client.put(URL, content=file, headers=headers)

    assert response.status_code == 200
    bodies = [request.body for request in server.requests]
    assert bodies == [b"content"[position:]] * 3


def test_a_form_with_a_file_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    VirtualTime().install(monkeypatch)
    server = Server(answers=[Answer(503)])

    with Client(transport=sync_transport(server)) as client:
        client.put(URL, files={"file": io.BytesIO(b"content")})

    first, second = server.requests
    assert first.whole
    assert first.body == second.body
    assert b"content" in first.body


def test_a_file_that_is_closed_during_the_wait_ends_it_with_the_response_that_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    VirtualTime().install(monkeypatch)
    server = Server(answers=[Answer(503, body=b"busy")])
    transport = sync_transport(server)
    file = io.BytesIO(b"content")

    def close(event: Event) -> None:
        if event.kind == "retry":
            file.close()

    with Client(transport=transport, on_event=close) as client:
        response = client.put(URL, content=file)

        assert response.status_code == 503
        assert response.content == b"busy"
        assert response.extensions["loadshed"].stopped == "body"
        assert not connections_in_use(transport)
    assert not any(request.whole for request in server.requests[1:])


@pytest.mark.parametrize("second", [[b"o", b"ne!"], [b"on"], [b"One"], [b"one", b"more"], []])
def test_a_body_that_changes_ends_it_with_the_response_that_there_is(
    second: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    VirtualTime().install(monkeypatch)
    server = Server(answers=[Answer(503, body=b"busy")])
    transport = sync_transport(server)

    with Client(transport=transport, raise_on_exhausted=False) as client:
        response = client.put(URL, content=Body([b"one"], second))

        assert response.status_code == 503
        assert response.content == b"busy"
        assert response.extensions["loadshed"].stopped == "body"
        assert len(response.extensions["loadshed"].attempts) == 2
        assert not connections_in_use(transport)
    assert [request.whole for request in server.requests] == [True, False]


def test_a_body_that_changes_ends_it_with_the_error_that_there_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    VirtualTime().install(monkeypatch)
    server = Server(answers=[Answer(None)])

    client = Client(transport=sync_transport(server))
    with client, pytest.raises(httpx.RemoteProtocolError) as caught:
        client.put(URL, content=Body([b"one"], [b"two"]))

    assert caught.value.request.extensions["loadshed"].stopped == "body"


def test_a_body_that_changes_ends_it_with_what_is_left_of_a_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    VirtualTime().install(monkeypatch)
    server = Server(answers=[Answer(503, body=bytes(100_000))])  # too much to keep

    with Client(transport=sync_transport(server)) as client:
        response = client.put(URL, content=Body([b"one"], [b"two"]))

    assert response.status_code == 503
    assert response.extensions["loadshed"].stopped == "body"


@pytest.mark.anyio
async def test_a_generator_is_sent_once(anyio_backend: Any) -> None:
    server = Server(answers=[Answer(503)])

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with AsyncClient(transport=async_transport(server)) as client:
        response = await client.put(URL, content=pieces())

    assert response.status_code == 503
    assert response.extensions["loadshed"].stopped == "body"
    assert [request.body for request in server.requests] == [b"onetwo"]


@pytest.mark.anyio
async def test_a_generator_of_which_nothing_was_read_is_sent_again(anyio_backend: Any) -> None:
    server = Server(connects=[Connect(refused=True)])
    policy = Retry(first_delay=0)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"

    async with AsyncClient(transport=async_transport(server), retry=policy) as client:
        response = await client.post(URL, content=pieces())

    assert response.status_code == 200
    assert [request.body for request in server.requests] == [b"one"]
