"""The body of a request that is sent more than once: never altered."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

from loadshed.client._received import close_iterator


class AlteredBodyError(Exception):
    """A body that is sent again is not what it was: it was broken off before its end."""


class SentBody:
    """The body of a request that is not plain bytes, on its way to the transport.

    It notices whether it was read, and, where it is read again, whether it is the same: a chunk
    that would make it longer than it was is held back, and an end that comes too early or with
    other bytes before it raises, so that the server never sees a whole body that is another one.

    Args:
        stream: The request's.
        rewind: Puts it back to its beginning; None where nothing can.

    Attributes:
        read: Whether a byte of it was asked for.
    """

    def __init__(self, stream: Any, rewind: Callable[[], None] | None) -> None:
        self._stream = stream
        self._rewind = rewind
        self._seen = _Print()  # of what was read, as far as that went
        self._whole = False  # and whether that was all
        self._reading: AsyncGenerator[bytes, None] | None = None
        self.read = False

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent once more, as it was."""
        return not self.read or self._rewind is not None

    def __iter__(self) -> Iterator[bytes]:
        now = self._begin()
        for chunk in self._stream:
            self._compare(now, chunk)
            yield chunk
        self._end(now)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._reading = self._aread()
        return self._reading

    async def aclose(self) -> None:
        """End a reading that was left before its end, so that the event loop needn't."""
        if self._reading is not None:
            with suppress(Exception):  # it may be of the user's making
                await self._reading.aclose()

    async def _aread(self) -> AsyncGenerator[bytes, None]:
        now = self._begin()
        iterator = aiter(self._stream)
        try:
            async for chunk in iterator:
                self._compare(now, chunk)
                yield chunk
        finally:
            await close_iterator(iterator)  # it may be broken off here, and be a generator
        self._end(now)

    def _begin(self) -> "_Print":
        if self.read and self._rewind is not None:
            try:
                self._rewind()
            except (OSError, ValueError) as error:  # a file that was closed in the meantime
                raise AlteredBodyError from error
        self.read = True
        return _Print()

    def _compare(self, now: "_Print", chunk: bytes) -> None:
        seen = self._seen
        if now.length < seen.length <= now.length + len(chunk):
            known = seen.length - now.length
            now.add(chunk[:known])
            if now.crc != seen.crc:
                raise AlteredBodyError
            chunk = chunk[known:]
        if chunk and self._whole and now.length >= seen.length:
            raise AlteredBodyError
        now.add(chunk)
        if now.length > seen.length:
            self._seen = now

    def _end(self, now: "_Print") -> None:
        if now.length < self._seen.length:
            raise AlteredBodyError
        self._whole = True


class _Print:
    """What a body was like so far: its length and its checksum."""

    __slots__ = ("crc", "length")

    def __init__(self) -> None:
        self.crc = 0
        self.length = 0

    def add(self, chunk: bytes) -> None:
        self.crc = zlib.crc32(chunk, self.crc)
        self.length += len(chunk)


def rewinding(stream: Any) -> Callable[[], None] | None:
    """What puts the body of a request back to its beginning; None where nothing can.

    httpx says in public only whether it is plain bytes. For the rest this looks at what its streams
    wrap, and where it finds nothing that it knows, the body counts as one that can be read once.
    """
    fields = getattr(stream, "fields", None)
    if isinstance(fields, list):  # a form with files
        files = [field.file for field in fields if hasattr(field, "file")]
        return _rewinding_form([file for file in files if not isinstance(file, str | bytes)])
    source = getattr(stream, "_stream", None)  # what was given as `content=`
    if hasattr(source, "read"):
        return _rewinding_file(source)
    once = (
        source is None or isinstance(source, Iterator | AsyncIterator) or hasattr(source, "aread")
    )
    return None if once else _nothing


def _rewinding_file(file: Any) -> Callable[[], None] | None:
    if not _seeks(file):
        return None
    start = file.tell()
    return lambda: file.seek(start)


def _rewinding_form(files: list[Any]) -> Callable[[], None] | None:
    if not all(_seeks(file) for file in files):
        return None

    def rewind() -> None:
        for file in files:  # httpx does so too, and would raise if it can't
            file.seek(0)

    return rewind


def _seeks(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except (AttributeError, ValueError):  # not a file, or one that is closed
        return False


def _nothing() -> None: ...
