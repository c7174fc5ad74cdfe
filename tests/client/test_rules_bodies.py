"""Bodies: what is sent again is never altered, and what is thrown away costs no connection."""

import io
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadshed.client import Retry

from .calling import FEW, KINDS, Caller
from .scripted import Answer, ScriptedServer, dripping, reset, truncated

SYNC = [kind for kind in KINDS if kind.backend == "sync"]


@pytest.fixture(params=KINDS, ids=str)
def call(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(params=FEW, ids=str)
def few(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(params=SYNC, ids=str)
def call_sync(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


class Pipe(io.RawIOBase):
    """A file that doesn't seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)


# What is sent again.


@pytest.mark.parametrize(
    "body", [{"content": b"bytes"}, {"data": {"a": "1"}}, {"json": {"a": 1}}], ids=str
)
def test_bodies_in_memory_are_sent_again(call: Caller, body: dict[str, Any]) -> None:
    with ScriptedServer(Answer(503), reset(), Answer()) as server:
        outcome = call("PUT", server.url, **body)
        assert outcome.statuses == [503, None, 200]
        assert len(server.bodies) == 3
        assert set(server.bodies) == {outcome.request.content}


def test_what_can_be_iterated_anew_is_sent_again(call: Caller) -> None:
    with ScriptedServer(Answer(503), reset(), Answer()) as server:
        outcome = call("PUT", server.url, content=call.iterable([b"one", b"", b"two"]))
        assert outcome.statuses == [503, None, 200]
        assert server.bodies == [b"onetwo"] * 3


def test_a_list_is_sent_again(call_sync: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        assert call_sync("PUT", server.url, content=[b"one", b"two"]).status == 200
        assert server.bodies == [b"onetwo"] * 2


def test_a_file_is_sent_again_from_where_it_stood(call_sync: Caller, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a line\n" + b"x" * 200_000)
    with ScriptedServer(Answer(503), reset(), Answer()) as server, path.open("rb") as file:
        file.seek(7)
        headers = {"content-length": "200000"}  # httpx would count what lies before, too
        outcome = call_sync("PUT", server.url, content=file, headers=headers)
        assert outcome.statuses == [503, None, 200]
        assert [len(body) for body in server.bodies] == [200_000] * 3


@pytest.mark.parametrize("form", [False, True], ids=["content", "form"])
def test_a_file_that_was_closed_in_the_meantime_gives_the_response_before(
    call_sync: Caller, form: bool
) -> None:
    file = io.BytesIO(b"content")
    body: dict[str, Any] = {"files": {"file": file}} if form else {"content": file}
    with ScriptedServer(Answer(503, body=b"busy"), Answer()) as server:
        outcome = call_sync("PUT", server.url, on_event=lambda _: file.close(), **body)
        assert (outcome.status, outcome.response.content) == (503, b"busy")
        assert outcome.stopped == "body"
        assert len(server.bodies) == 1


def test_a_form_with_files_is_sent_again_if_they_seek(call: Caller) -> None:
    with ScriptedServer(Answer(503), reset(), Answer()) as server:
        files = {"file": ("a.txt", io.BytesIO(b"content"), "text/plain")}
        outcome = call("PUT", server.url, files=files, data={"field": "value"})
        assert outcome.statuses == [503, None, 200]
        first, *others = server.bodies
        assert others == [first] * 2
        assert b"content" in first
        assert b"value" in first


# What is not.


def test_a_body_that_can_be_read_once_is_sent_once(call: Caller) -> None:
    for misdeed in (Answer(503, body=b"busy"), reset(), reset("half the head")):
        with ScriptedServer(misdeed, Answer()) as server:
            outcome = call("PUT", server.url, content=call.body([b"one", b"two"]))
            assert server.bodies == [b"onetwo"]
            assert (outcome.stopped, len(outcome.statuses)) == ("body", 1)
        if misdeed.status == 503:
            assert (outcome.status, outcome.response.content) == (503, b"busy")
        else:
            broken = (call.library.ReadError, call.library.RemoteProtocolError)
            assert isinstance(outcome.error, broken)


def test_a_generator_is_sent_once(call: Caller) -> None:
    def generator() -> Iterator[bytes]:
        yield from (b"one", b"two")

    async def agenerator() -> AsyncIterator[bytes]:
        for chunk in generator():
            yield chunk

    with ScriptedServer(Answer(503, body=b"busy"), Answer()) as server:
        content: Any = agenerator() if call.is_async else generator()
        outcome = call("PUT", server.url, content=content)
        assert server.bodies == [b"onetwo"]
        assert (outcome.stopped, outcome.response.content) == ("body", b"busy")


def test_a_body_that_was_not_read_is_sent_in_the_end(call: Caller) -> None:
    with ScriptedServer(listening=False) as server:
        outcome = call(
            "POST",
            server.url,
            content=call.body([b"one", b"two"]),
            on_event=lambda _: server.listen(),
        )
        assert (outcome.statuses, outcome.stopped) == ([None, 200], "success")
        assert server.bodies == [b"onetwo"]


def test_a_form_with_files_is_sent_once_if_one_does_not_seek(few: Caller) -> None:
    with ScriptedServer(Answer(503, body=b"busy"), Answer()) as server:
        files = {"one": io.BytesIO(b"one"), "two": Pipe(b"two")}
        outcome = few("PUT", server.url, files=files)
        assert (outcome.response.content, outcome.stopped) == (b"busy", "body")
        assert len(server.bodies) == 1
        assert b"two" in server.bodies[0]


def test_a_pipe_is_sent_once(call_sync: Caller) -> None:
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(b"content")
    with ScriptedServer(Answer(503, body=b"busy"), Answer()) as server, open(reading, "rb") as file:
        headers = {"content-length": "7"}  # httpx takes the size of a pipe for 0
        outcome = call_sync("PUT", server.url, content=file, headers=headers)
        assert (outcome.response.content, outcome.stopped) == (b"busy", "body")
        assert server.bodies == [b"content"]


class Source:
    """Something to read from, and no more than that."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        data, self._data = self._data, b""
        return data

    def __iter__(self) -> Iterator[bytes]:
        yield self.read()


def test_what_is_not_known_to_seek_is_sent_once(call_sync: Caller) -> None:
    with ScriptedServer(Answer(503, body=b"busy"), Answer()) as server:
        outcome = call_sync("PUT", server.url, content=Source(b"content"))
        assert (outcome.response.content, outcome.stopped) == (b"busy", "body")
        assert server.bodies == [b"content"]


@pytest.mark.parametrize(
    "second",
    [
        [],
        [b"on"],
        [b"one", b"tw"],
        [b"one", b"twx"],
        [b"xne", b"two"],
        [b"xnetwo"],
        [b"one", b"two", b"three"],
        [b"onetwothree"],
        [b"xnetwothree"],
        [b"one", b"tw", b"xthree"],
    ],
    ids=repr,
)
@pytest.mark.parametrize("length", [None, "6"], ids=["chunked", "content-length"])
def test_a_body_that_is_another_when_it_is_read_again_never_arrives(
    few: Caller, second: list[bytes], length: str | None
) -> None:
    with ScriptedServer(Answer(503, body=b"busy"), Answer()) as server:
        outcome = few(
            "PUT",
            server.url,
            content=few.iterable([b"one", b"two"], second),
            headers={} if length is None else {"content-length": length},
        )
        assert (outcome.status, outcome.response.content) == (503, b"busy")
        assert (outcome.stopped, outcome.statuses) == ("body", [503, None])
        assert set(server.bodies) == {b"onetwo"}


def test_a_response_that_was_too_long_to_keep_is_given_without_its_body(few: Caller) -> None:
    with ScriptedServer(Answer(503, body=b"x" * 100_000), Answer()) as server:
        outcome = few("PUT", server.url, content=few.iterable([b"one"], [b"two"]))
        assert (outcome.status, outcome.stopped) == (503, "body")
        assert outcome.response.content == b""
        assert server.bodies == [b"one"]


def test_an_altered_body_after_an_exception_raises_that(few: Caller) -> None:
    with ScriptedServer(reset(), Answer()) as server:
        outcome = few("PUT", server.url, content=few.iterable([b"one"], [b"two"]))
        assert outcome.error is outcome.history.attempts[0].error
        assert outcome.stopped == "body"
        assert server.bodies == [b"one"]


def test_chunks_may_fall_differently_when_a_body_is_read_again(few: Caller) -> None:
    with ScriptedServer(Answer(503), Answer(503), Answer()) as server:
        content = few.iterable([b"one", b"two"], [b"on", b"", b"etwo", b""], [b"onetwo"])
        assert few("PUT", server.url, content=content).status == 200
        assert server.bodies == [b"onetwo"] * 3


# The server answers before it has read the body.


def test_an_early_answer_is_taken_and_the_body_sent_again(call: Caller) -> None:
    early = Answer(503, body=b"busy", early=True)
    with ScriptedServer(early, early, Answer()) as server:
        chunks = [b"x" * 10_000] * 10
        outcome = call("PUT", server.url, content=call.iterable(chunks))
        assert outcome.statuses == [503, 503, 200]
        assert server.bodies[-1] == b"".join(chunks)
        assert set(server.bodies) == {b"".join(chunks)}


def test_a_connection_that_breaks_while_the_body_is_sent_is_tried_again(call: Caller) -> None:
    broken = reset("nothing", early=True)
    with ScriptedServer(broken, broken, Answer()) as server:
        chunks = [b"%d" % n * 100_000 for n in range(50)]
        outcome = call("PUT", server.url, content=call.iterable(chunks))
        assert outcome.statuses == [None, None, 200]
        assert server.bodies == [b"".join(chunks)]


def test_a_body_that_broke_off_and_can_be_read_once_is_sent_once(call: Caller) -> None:
    with ScriptedServer(reset("nothing", early=True), Answer()) as server:
        outcome = call("PUT", server.url, content=call.body([b"x" * 100_000] * 50))
        broken = (call.library.NetworkError, call.library.RemoteProtocolError)
        assert isinstance(outcome.error, broken)
        assert outcome.stopped == "body"
        assert server.bodies == []


# What is thrown away.


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_attempts_with_short_error_bodies_use_one_connection(call: Caller, chunked: bool) -> None:
    busy = Answer(503, body=b"x" * 5000, chunked=chunked)
    with ScriptedServer(busy, busy, Answer(body=b"here")) as server:
        assert call("GET", server.url).response.content == b"here"
        assert (len(server.requests), server.connections) == (3, 1)


# On trio httpcore's generators mind that: they are several in each other.
@pytest.mark.filterwarnings("ignore:Async generator 'httpcore:ResourceWarning")
@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_a_long_error_body_is_not_read_to_its_end(call: Caller, chunked: bool) -> None:
    busy = Answer(503, body=b"x" * 2_000_000, chunked=chunked)
    with ScriptedServer(busy, busy, Answer(body=b"here")) as server:
        assert call("GET", server.url).response.content == b"here"
        assert (len(server.requests), server.connections) == (3, 3)


def test_just_as_much_as_is_read_keeps_the_connection(few: Caller) -> None:
    for length, connections in ((64 * 1024, 1), (64 * 1024 + 1, 2)):
        with ScriptedServer(Answer(503, body=b"x" * length), Answer()) as server:
            few("GET", server.url)
            assert server.connections == connections


def test_the_last_body_is_given_in_full_however_long_it_is(call: Caller) -> None:
    with ScriptedServer(Answer(503, body=b"x" * 300_000)) as server:
        outcome = call("GET", server.url, retry=Retry(total=1, backoff_factor=0))
        assert (outcome.stopped, len(outcome.response.content)) == ("total", 300_000)
        assert server.connections == 2


def test_an_error_body_that_drips_is_not_waited_for(few: Caller) -> None:
    with ScriptedServer(dripping("body", 503), Answer()) as server:
        policy = Retry(attempt_timeout=0.5, backoff_factor=0)
        assert few("GET", server.url, retry=policy).statuses == [503, 200]
        assert server.connections == 2


def test_an_error_body_that_breaks_off_does_not_matter(call: Caller) -> None:
    with ScriptedServer(truncated(503), truncated(503, chunked=True), Answer()) as server:
        assert call("GET", server.url).statuses == [503, 503, 200]


def test_a_last_error_body_that_breaks_off_is_an_error(few: Caller) -> None:
    with ScriptedServer(truncated(503)) as server:
        outcome = few("GET", server.url, retry=Retry(total=1, backoff_factor=0))
        assert isinstance(outcome.error, few.library.RemoteProtocolError)
        assert (outcome.statuses, outcome.stopped) == ([503, 503], "total")


def test_the_body_of_a_retry_error_is_read_if_it_is_short(few: Caller) -> None:
    for length, open_connections in ((5000, 1), (100_000, 0)):
        with ScriptedServer(Answer(503, body=b"x" * length)) as server:
            policy = Retry(total=0)
            outcomes = few.times(2, "GET", server.url, retry=policy, raise_on_exhausted=True)
            last: Any = outcomes[-1].error
            assert last.last.is_closed
            assert server.connections == 2 - open_connections


def test_a_body_that_is_cut_short_is_not_asked_for_again_where_that_is_not_safe(
    call: Caller,
) -> None:
    with ScriptedServer(truncated(), Answer()) as server:
        outcome = call("POST", server.url)
        assert isinstance(outcome.error, call.library.RemoteProtocolError)
        assert outcome.stopped == ("method" if call.ready else "success")
        assert len(server.requests) == 1


def test_a_streamed_body_is_the_callers(call: Caller) -> None:
    with ScriptedServer(truncated(), Answer()) as server:
        outcome = call("GET", server.url, stream=True)
        assert isinstance(outcome.error, call.library.RemoteProtocolError)
        assert (outcome.statuses, outcome.stopped) == ([200], "success")
        assert len(server.requests) == 1
