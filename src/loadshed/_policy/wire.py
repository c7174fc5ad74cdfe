"""Wire: bytes to frames and back, between a pool and its replicas.

A frame is a head, a table of sizes, and so many parts:

```
| bytes of the table and all parts | call | kind | parts |   size of each part   |   parts   |
|              8                   |  8   |  1   |   2   |         8 each        |           |
```

The first part is a pickle (protocol 5), the others are the large buffers that belong to it, as
they lie in memory. Who sends passes them to the socket from there; who receives reads each into a
buffer of its own, where it stays. So an array of 100 MB is copied by the socket alone.
"""

import pickle
from collections import deque
from collections.abc import Sequence
from struct import Struct
from typing import Any

Buffer = bytes | bytearray | memoryview

LARGEST = 1 << 30
"""Bytes that a frame may have: 1 GiB."""

MOST_PARTS = 1024
"""Parts that a frame may have. Linux passes no more to a socket at once (IOV_MAX)."""

OUT_OF_BAND = 32 * 1024
"""Bytes from which on a buffer is sent by itself. To copy a smaller one is cheaper than to keep it
apart."""

CHUNK = 64 * 1024
"""Bytes that are read at once. A larger frame is read into buffers of its own."""

_HEAD = Struct("<QQBH")
_SIZE = Struct("<Q")
_HEAD_OF_ONE = Struct("<QQBHQ")  # the head and the size of a single part: most frames have one


class Kind:
    """What a frame is. Plain integers: they are compared for each frame."""

    # To the replica.
    CALL = 1
    """Call a function: (method or None, args, kwargs)."""
    STREAM = 2
    """The same, of a generator."""
    ASGI = 3
    """Call an ASGI application: the scope."""
    MESSAGE = 4
    """What the ASGI application has asked to receive."""
    CANCEL = 5
    """Nobody waits for this call any more."""
    ACK = 6
    """So many items of a stream have been consumed."""
    START = 7
    """The first frame: what to make and serve."""
    CHECK = 8
    """Are you well?"""
    RECONFIGURE = 9
    """A new user_config."""
    STOP = 10
    """Every call has been answered: end."""

    # From the replica. Every one of the above but MESSAGE, CANCEL and ACK is answered with exactly
    # one RESULT or ERROR, the last frame of its call.
    RESULT = 32
    """What the call has returned, or the last messages that the ASGI application sent."""
    ERROR = 33
    """What the call has raised."""
    ITEM = 34
    """What the generator has yielded, or the ASGI application sent."""
    WANT = 35
    """The ASGI application wants to receive a message."""
    LOG = 36
    """A log record."""

    # Calls that the replica makes, of other pools; it numbers them. The first part of the frame
    # that begins one is as that of CALL and STREAM; one more, at the end, is the name of the pool.
    OUT_CALL = 48
    """Call a function."""
    OUT_STREAM = 49
    """The same, of a generator."""
    OUT_CANCEL = 50
    """Nobody waits for this call any more."""
    OUT_ACK = 51
    """So many items of a stream have been consumed."""

    # To the replica, in answer to those.
    IN_RESULT = 64
    """What the call has returned."""
    IN_ERROR = 65
    """What the call has raised."""
    IN_ITEM = 66
    """What the generator has yielded."""

    ALL = frozenset(
        {
            *range(CALL, STOP + 1),
            *range(RESULT, LOG + 1),
            *range(OUT_CALL, OUT_ACK + 1),
            *range(IN_RESULT, IN_ITEM + 1),
        }
    )


OUT = frozenset({Kind.OUT_CALL, Kind.OUT_STREAM, Kind.OUT_CANCEL, Kind.OUT_ACK})
"""The kinds of frame that belong to the calls that a replica makes."""


class WireError(Exception):
    """What was received is no frame, or what was to be sent makes none."""


class Frame:
    """One message.

    Attributes:
        kind: A constant of `Kind`.
        call: The number of the call that it belongs to.
        parts: A pickle, and the buffers that belong to it; nothing where there is no value.
    """

    __slots__ = ("call", "kind", "parts")

    def __init__(self, kind: int, call: int, parts: Sequence[Buffer]) -> None:
        self.kind = kind
        self.call = call
        self.parts = parts

    @property
    def size(self) -> int:
        """Bytes of its parts."""
        return sum(map(len, self.parts))

    def value(self) -> Any:
        """What was sent.

        Raises:
            WireError: Nothing was.
            Exception: Whatever the value's own code raises, if it can't be made.
        """
        if not self.parts:
            raise WireError(f"There is no value in {self!r}.")
        if len(self.parts) == 1:
            return pickle.loads(self.parts[0])  # noqa: S301 - from our own child, or parent
        data, *buffers = self.parts
        return pickle.loads(data, buffers=buffers)  # noqa: S301 - from our own child, or parent

    def __repr__(self) -> str:
        return f"<{type(self).__name__} kind={self.kind} call={self.call} size={self.size}>"


class Pickled:
    """A value that comes from another process and goes to another one: nobody unpickles it here.

    Attributes:
        parts: As in a frame.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self.parts = parts


def encode(kind: int, call: int) -> bytes:
    """A frame without a value."""
    return _HEAD.pack(0, call, kind, 0)


def encode_value(kind: int, call: int, value: object) -> list[Buffer]:
    """A frame: what to send, one after the other. The large ones lie where they lay.

    Raises:
        WireError: It is larger than a frame may be.
        Exception: Whatever pickling raises.
    """
    if type(value) is Pickled:
        return encode_parts(kind, call, value.parts)
    parts = pickled_parts(value)
    if len(parts) == 1 and (size := len(parts[0])) < OUT_OF_BAND:
        return [_HEAD_OF_ONE.pack(size + 8, call, kind, 1, size) + parts[0]]
    return encode_parts(kind, call, parts)


def pickled_parts(value: object) -> list[Buffer]:
    """The parts of a frame that has this value.

    Raises:
        Exception: Whatever pickling raises.
    """
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Whether it goes into the pickle."""
        view = buffer.raw()
        if len(view) < OUT_OF_BAND or len(buffers) >= MOST_PARTS - 2:
            return True
        buffers.append(view)
        return False

    data = pickle.dumps(value, 5, buffer_callback=keep)
    return [data, *buffers]


def encode_parts(kind: int, call: int, parts: Sequence[Buffer]) -> list[Buffer]:
    """A frame of parts that are there already: what to send, one after the other.

    Raises:
        WireError: It is larger than a frame may be.
    """
    parts = [part for part in parts if len(part)]  # who sends an empty one would do so for ever
    sizes = [len(part) for part in parts]
    total = 8 * len(sizes) + sum(sizes)
    if total > LARGEST:
        raise WireError(f"It takes {total:,} bytes, and at most {LARGEST:,} can be sent at once.")
    head = _HEAD.pack(total, call, kind, len(sizes)) + b"".join(map(_SIZE.pack, sizes))
    if total < OUT_OF_BAND:
        return [b"".join([head, *parts])]
    return [head, *parts]


class Decoder:
    """Makes frames of the bytes that come in, in whatever pieces they come.

    Whoever reads puts bytes into `space()`, and says how many in `received()`. It never takes more
    memory than `largest` and three chunks, whatever comes in; the frames that a chunk has made are
    the reader's, and if they are tiny take ten times as much as their bytes.

    Args:
        largest: Bytes that a frame may have.
    """

    __slots__ = ("_begin", "_buffer", "_end", "_frame", "_largest", "_missing", "_view")

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0  # what of the buffer is not decoded yet
        self._frame: Frame | None = None  # a large one, that is being read into its own buffers
        # Those of them that are not full, as what is free of the first and then all of each: a view
        # takes more memory than the smallest buffers do, and there may be many.
        self._missing: deque[bytearray | memoryview] = deque()

    def space(self) -> memoryview:
        """Where to put what is received; never empty, unless that was no frame."""
        return memoryview(self._missing[0]) if self._missing else self._view[self._end :]

    def received(self, count: int) -> list[Frame]:
        """So many bytes were put into `space()`: the frames that are complete now.

        Raises:
            WireError: It is no frame. Nothing can be received any more, and what came with it is
                lost.
        """
        if (large := self._frame) is not None:
            self._fill(count)
            if self._missing:
                return []
            self._frame = None
            return [large]
        frames: list[Frame] = []
        self._end += count
        while self._next(frames):
            pass
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin:  # the beginning of a frame: it goes to the front, to have room
            rest = self._end - self._begin
            self._view[:rest] = self._view[self._begin : self._end]
            self._begin, self._end = 0, rest
        return frames

    def _next(self, frames: list[Frame]) -> bool:
        """Decode the next frame of the buffer, if all of it is there, or begin a large one."""
        begin, end = self._begin, self._end
        if end - begin < _HEAD.size:
            return False
        total, call, kind, parts = _HEAD.unpack_from(self._buffer, begin)
        if kind not in Kind.ALL or total > self._largest or parts > MOST_PARTS or total < 8 * parts:
            raise WireError(f"Not a frame: {total=}, {kind=}, {parts=}.")
        begin += _HEAD.size
        after = begin + total
        if after <= end:
            frames.append(Frame(kind, call, self._parts(begin, total, parts)))
            self._begin = after
            return True
        if _HEAD.size + total > CHUNK and end - begin >= 8 * parts:
            self._begin_large(Frame(kind, call, ()), begin, total, parts)
        return False

    def _parts(self, begin: int, total: int, parts: int) -> list[Buffer]:
        """The parts of a frame that is all in the buffer, copied out of it."""
        if parts == 1 and _SIZE.unpack_from(self._buffer, begin)[0] == total - 8:
            return [bytes(self._view[begin + 8 : begin + total])]
        copies: list[Buffer] = []
        at = begin + 8 * parts
        for size in self._sizes(begin, total, parts):
            copies.append(bytearray(self._view[at : at + size]))
            at += size
        return copies

    def _sizes(self, begin: int, total: int, parts: int) -> list[int]:
        sizes = [_SIZE.unpack_from(self._buffer, begin + 8 * i)[0] for i in range(parts)]
        if 8 * parts + (size := sum(sizes)) != total:
            raise WireError(f"Not a frame: {total=}, {parts=}, and they have {size} bytes.")
        return sizes

    def _begin_large(self, frame: Frame, begin: int, total: int, parts: int) -> None:
        """Read the rest of a frame into buffers of its own, and copy there what has come."""
        frame.parts = buffers = [bytearray(size) for size in self._sizes(begin, total, parts)]
        self._frame = frame
        self._missing.extend(filter(None, buffers))
        come = self._view[begin + 8 * parts : self._end]
        while come:
            count = min(len(come), len(self._missing[0]))
            self.space()[:count] = come[:count]
            self._fill(count)
            come = come[count:]
        self._begin = self._end

    def _fill(self, count: int) -> None:
        """So many bytes have been put into the first of what is missing."""
        first = self._missing[0]
        if count < len(first):
            self._missing[0] = memoryview(first)[count:]
        else:
            self._missing.popleft()
