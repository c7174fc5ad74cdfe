"""The wire against what was sent, and against what never should be."""

import pickle
import random
import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.wire import (
    CHUNK,
    LARGEST,
    MOST_PARTS,
    OUT,
    OUT_OF_BAND,
    Buffer,
    Decoder,
    Frame,
    Kind,
    Pickled,
    WireError,
    encode,
    encode_parts,
    encode_value,
    pickled_parts,
)

HEAD = struct.Struct("<QQBH")


def raw(*parts: bytes, kind: int = Kind.RESULT, call: int = 7) -> bytes:
    """A frame, made by hand."""
    sizes = struct.pack(f"<{len(parts)}Q", *map(len, parts))
    body = sizes + b"".join(parts)
    return HEAD.pack(len(body), call, kind, len(parts)) + body


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311


def joined(parts: Sequence[Buffer]) -> bytes:
    return b"".join(parts)


def feed(decoder: Decoder, data: Buffer) -> list[Frame]:
    """All of it, as fast as there is space."""
    frames = []
    rest = memoryview(data)
    while rest:
        space = decoder.space()
        assert len(space) > 0
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        frames += decoder.received(count)
        rest = rest[count:]
    return frames


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    at = 0
    for size in cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def trip(value: object) -> Frame:
    (frame,) = feed(Decoder(), joined(encode_value(Kind.CALL, 1, value)))
    return frame


def content(frame: Frame) -> tuple[int, int, list[bytes]]:
    return frame.kind, frame.call, [bytes(part) for part in frame.parts]


@contextmanager
def peak() -> Iterator[SimpleNamespace]:
    """The most bytes that were taken at any time inside, besides those before."""
    taken = SimpleNamespace(bytes=0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield taken
        taken.bytes = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# What is sent arrives.

SIZES = st.one_of(
    st.integers(0, 300),
    st.integers(OUT_OF_BAND - 2, OUT_OF_BAND + 2),
    st.integers(CHUNK - 200, CHUNK + 200),
    st.integers(0, 3 * CHUNK),
)
BYTES = SIZES.map(noise)
BUFFERS = st.builds(
    lambda data, kind: pickle.PickleBuffer(kind(data)), BYTES, st.sampled_from([bytes, bytearray])
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(["u1", "<i2", ">f4", "f8", "c16", "?", "M8[s]"])))
    length = draw(SIZES) // dtype.itemsize
    array: Any = np.frombuffer(bytearray(noise(length * dtype.itemsize)), np.uint8).view(dtype)
    if dtype.kind == "b":
        array = array.view("u1") > 99
    if length % 2 == 0:
        array = array.reshape((2, -1), order=draw(st.sampled_from(["C", "F"])))
    array = array[..., :: draw(st.sampled_from([1, 1, 2]))]
    array.flags.writeable = draw(st.booleans())
    return array


LEAVES = st.one_of(st.none(), st.integers(), st.text(max_size=50), BYTES, BUFFERS, arrays())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=6,
)
KINDS = st.sampled_from(sorted(Kind.ALL))
CALLS = st.one_of(st.integers(0, 2**64 - 1), st.just(2**64 - 1))
NOTHING = object()
FRAMES = st.tuples(KINDS, CALLS, st.one_of(st.just(NOTHING), VALUES))
PIECES = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 2 * CHUNK)), min_size=1).map(
    lambda sizes: [*sizes, 9999]  # not all of a long stream in single bytes
)


def plain(value: Any) -> Any:
    """What is the same before the trip and after: the type of a buffer is not."""
    match value:
        case bytes() | bytearray() | memoryview() | pickle.PickleBuffer():
            return bytes(memoryview(value))
        case np.ndarray():
            dtype = value.dtype.newbyteorder("=")  # NumPy sends some in this order, others as is
            return dtype.str, value.shape, value.astype(dtype).tobytes()
        case list() | tuple():
            return type(value), [plain(one) for one in value]
        case dict():
            return {key: plain(one) for key, one in value.items()}
    return value


def written(kind: int, call: int, value: object) -> bytes:
    if value is NOTHING:
        return encode(kind, call)
    return joined(encode_value(kind, call, value))


@given(st.lists(FRAMES, max_size=5), PIECES)
def test_what_is_sent_arrives_in_order_however_it_is_cut(
    frames: list[tuple[int, int, object]], sizes: list[int]
) -> None:
    data = b"".join(written(*frame) for frame in frames)
    decoder = Decoder()
    came = [frame for piece in pieces(data, sizes) for frame in feed(decoder, piece)]
    assert [(frame.kind, frame.call) for frame in came] == [frame[:2] for frame in frames]
    for frame, (_, _, value) in zip(came, frames, strict=True):
        if value is NOTHING:
            assert list(frame.parts) == []
        else:
            assert plain(frame.value()) == plain(value)
            assert plain(frame.value()) == plain(value), "the value can be had again"


@pytest.mark.parametrize("size", range(CHUNK - 30, CHUNK + 2))
@pytest.mark.parametrize("parts", [1, 2])
def test_frames_about_as_large_as_a_chunk_arrive(size: int, parts: int) -> None:
    data = noise(size)
    frame = raw(data) if parts == 1 else raw(data[:9], data[9:])
    decoder = Decoder()
    expected = [(Kind.RESULT, 7, [data] if parts == 1 else [data[:9], data[9:]])]
    for cut in (1, HEAD.size, HEAD.size + 8 * parts, len(frame) - 1):
        assert feed(decoder, frame[:cut]) == []
        assert [content(one) for one in feed(decoder, frame[cut:])] == expected
        assert len(decoder.space()) == CHUNK


def test_a_frame_looks_as_it_is_documented() -> None:
    assert encode(Kind.STOP, 2**64 - 1) == struct.pack("<QQBH", 0, 2**64 - 1, 10, 0)
    pickled = pickle.dumps("hello", 5)
    small = struct.pack("<QQBHQ", 8 + len(pickled), 3, 1, 1, len(pickled)) + pickled
    assert encode_value(Kind.CALL, 3, "hello") == [small]
    block = bytearray(OUT_OF_BAND)
    head, value, buffer = encode_value(Kind.ITEM, 4, pickle.PickleBuffer(block))
    sizes = len(value), OUT_OF_BAND
    assert head == struct.pack("<QQBHQQ", 16 + sum(sizes), 4, 34, 2, *sizes)
    assert buffer == block


def test_every_kind_is_known_and_no_two_are_the_same() -> None:
    kinds = [value for name, value in vars(Kind).items() if name[0] != "_" and name != "ALL"]
    assert sorted(kinds) == sorted(Kind.ALL)
    for kind in kinds:
        assert [frame.kind for frame in feed(Decoder(), encode(kind, 0))] == [kind]


def test_a_frame_tells_its_size_and_what_it_is() -> None:
    frame = Frame(Kind.ITEM, 12, [b"abc", bytearray(40)])
    assert frame.size == 43
    assert repr(frame) == "<Frame kind=34 call=12 size=43>"


# Large buffers stay where they are.


def test_a_large_buffer_is_sent_from_where_it_lies() -> None:
    array = np.arange(100_000.0)
    matrix = np.asfortranarray(array.reshape(10, -1))
    head, pickled, first, second = encode_value(Kind.CALL, 1, (array, {"matrix": matrix}))
    assert len(head) + len(pickled) < 1000
    assert len(first) == array.nbytes
    assert np.shares_memory(array, np.frombuffer(first, np.uint8))
    assert np.shares_memory(matrix, np.frombuffer(second, np.uint8))


def test_a_buffer_is_sent_by_itself_from_a_size_on() -> None:
    smaller, large = bytearray(OUT_OF_BAND - 1), bytearray(OUT_OF_BAND)
    assert len(encode_value(Kind.CALL, 1, pickle.PickleBuffer(smaller))) == 2  # head and pickle
    assert len(encode_value(Kind.CALL, 1, pickle.PickleBuffer(large))) == 3
    words = np.zeros(OUT_OF_BAND // 8)  # bytes count, not items
    assert len(encode_value(Kind.CALL, 1, words)) == 3
    assert len(encode_value(Kind.CALL, 1, words[1:])) == 2


def test_a_small_frame_is_a_single_piece_and_a_large_pickle_is_not_copied() -> None:
    overhead = len(pickle.dumps(bytes(OUT_OF_BAND), 5)) - OUT_OF_BAND
    assert len(encode_value(Kind.CALL, 1, bytes(OUT_OF_BAND - overhead - 1))) == 1
    head, pickled = encode_value(Kind.CALL, 1, bytes(OUT_OF_BAND - overhead))
    assert len(head) == HEAD.size + 8
    assert len(pickled) == OUT_OF_BAND


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "c16", "g", "G"])
@pytest.mark.parametrize("size", [OUT_OF_BAND, CHUNK // 2 + 64, 4 * CHUNK])
@pytest.mark.parametrize("is_writable", [True, False])
def test_an_array_arrives_in_the_buffer_of_its_frame(
    dtype: str, size: int, is_writable: bool
) -> None:
    array = np.ones(size // np.dtype(dtype).itemsize, dtype)
    array.flags.writeable = is_writable
    decoder = Decoder()
    for shift in range(3):  # frames that don't begin where a number may
        *_, frame = feed(decoder, raw(bytes(shift)) + joined(encode_value(Kind.CALL, 1, array)))
        came = frame.value()
        assert np.array_equal(came, array)
        assert np.shares_memory(came, np.frombuffer(frame.parts[1], np.uint8))
        assert came.flags.aligned
        assert came.flags.writeable is is_writable
        assert came.ctypes.data % 16 == 0


def test_a_large_buffer_arrives_as_what_it_was() -> None:
    block = bytearray(noise(CHUNK))
    frame = trip(pickle.PickleBuffer(block))
    assert frame.value() is frame.parts[1]
    assert frame.value() == block
    view = trip(pickle.PickleBuffer(bytes(block))).value()
    assert view.readonly
    assert view == block


def test_a_large_frame_is_received_where_it_stays() -> None:
    decoder = Decoder()
    block = noise(3 * CHUNK)
    frame = raw(b"pickle", b"", block)
    assert feed(decoder, frame[:100]) == []
    missing = len(frame) - 100
    space = decoder.space()
    assert len(space) == missing  # all of it, and nothing of the next one
    space[:10] = frame[100:110]
    assert decoder.received(10) == []
    assert len(decoder.space()) == missing - 10
    space[10:] = frame[110:]
    (large,) = decoder.received(missing - 10)
    assert content(large) == (Kind.RESULT, 7, [b"pickle", b"", block])
    assert np.shares_memory(np.frombuffer(space, np.uint8), np.frombuffer(large.parts[2], np.uint8))
    assert len(decoder.space()) == CHUNK


def test_a_frame_that_fits_into_a_chunk_is_received_with_those_that_follow() -> None:
    decoder = Decoder()
    frame = raw(bytes(CHUNK - HEAD.size - 8))
    assert len(frame) == CHUNK
    assert feed(decoder, encode(Kind.STOP, 1) + frame[:30])[0].kind == Kind.STOP
    assert len(decoder.space()) == CHUNK - 30


def test_a_frame_is_not_changed_by_those_that_follow() -> None:
    decoder = Decoder()
    (first, second) = feed(decoder, raw(b"one") + raw(b"two", b"three"))
    feed(decoder, raw(b"999") + raw(b"999", b"99999"))
    assert content(first)[2] == [b"one"]
    assert content(second)[2] == [b"two", b"three"]


def test_buffers_beyond_the_most_parts_are_sent_with_the_rest() -> None:
    block = noise(OUT_OF_BAND + 1100)
    value = [pickle.PickleBuffer(block[at : at + OUT_OF_BAND]) for at in range(1100)]
    sent = encode_value(Kind.CALL, 1, value)
    assert len(sent) == MOST_PARTS  # with the head: more can't be passed to a socket at once
    (frame,) = feed(Decoder(), joined(sent))
    assert [bytes(one) for one in frame.value()] == [bytes(memoryview(one)) for one in value]


# What can't be sent, or made again.


def test_a_value_may_be_as_large_as_a_frame_and_no_larger() -> None:
    def value(size: int) -> object:  # zeros take no memory as long as nobody looks at them
        return pickle.PickleBuffer(np.zeros(size, np.uint8).data)

    _, pickled, _ = encode_value(Kind.CALL, 1, value(CHUNK))
    room = LARGEST - 16 - len(pickled)
    head, _, buffer = encode_value(Kind.CALL, 1, value(room))
    assert len(buffer) == room
    assert feed(Decoder(), head[: HEAD.size]) == []
    with pytest.raises(WireError, match=r"1,073,741,825 bytes, and at most 1,073,741,824 can"):
        encode_value(Kind.CALL, 1, value(room + 1))
    with pytest.raises(WireError):
        feed(Decoder(), HEAD.pack(LARGEST + 1, 1, Kind.CALL, 2))


def test_what_can_not_be_pickled_raises_what_pickle_raises() -> None:
    with pytest.raises(TypeError, match="generator"):
        encode_value(Kind.CALL, 1, (number for number in range(3)))
    with pytest.raises(pickle.PicklingError, match="non-contiguous"):
        encode_value(Kind.CALL, 1, pickle.PickleBuffer(np.arange(CHUNK)[::2].data))


class Explosive:
    def __reduce__(self) -> Any:
        return divmod, (1, 0)


@pytest.mark.parametrize("size", [0, OUT_OF_BAND, 2 * CHUNK])
def test_what_unpickling_raises_comes_out_of_value(size: int) -> None:
    frame = trip((pickle.PickleBuffer(bytearray(size)), Explosive()))
    with pytest.raises(ZeroDivisionError):
        frame.value()


def test_a_value_without_its_buffers_is_none() -> None:
    frame = trip(np.zeros(OUT_OF_BAND))
    frame.parts = frame.parts[:1]
    with pytest.raises(pickle.UnpicklingError, match="out-of-band"):
        frame.value()


def test_a_frame_without_a_value_says_so() -> None:
    (frame,) = feed(Decoder(), encode(Kind.RESULT, 5))
    assert frame.size == 0
    with pytest.raises(WireError, match="no value in <Frame kind=32 call=5 size=0>"):
        frame.value()


# What never should be sent.

SMALL = 2 * CHUNK
"""The `largest` of the decoders below."""

PARTS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([0, 8, OUT_OF_BAND, CHUNK - HEAD.size - 8, CHUNK, SMALL - 16]).map(noise),
    ),
    max_size=4,
)
NUMBERS = st.one_of(
    st.integers(0, 70),
    st.integers(0, 2**64 - 1),
    st.sampled_from([CHUNK, SMALL - 8, SMALL, SMALL + 1, 100 * CHUNK, 2**40, 2**63]),
)
HEADS = st.builds(
    HEAD.pack,
    NUMBERS,
    st.integers(0, 2**64 - 1),
    st.one_of(KINDS, st.integers(0, 255)),
    st.one_of(
        st.integers(0, 4), st.sampled_from([MOST_PARTS, MOST_PARTS + 1]), st.integers(0, 2**16 - 1)
    ),
)
TABLES = st.lists(NUMBERS, max_size=4).map(lambda sizes: struct.pack(f"<{len(sizes)}Q", *sizes))
SCRAPS = st.one_of(
    st.binary(max_size=200),
    HEADS,
    TABLES,
    st.builds(bytes, st.sampled_from([8 * MOST_PARTS, CHUNK, SMALL])),
)
GOOD = st.builds(lambda parts, kind: raw(*parts, kind=kind), PARTS, KINDS)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid stream with bytes changed, inserted or removed, mostly where they matter."""
    frames = draw(st.lists(GOOD, min_size=1, max_size=4))
    data = bytearray(b"".join(frames))
    starts = [sum(map(len, frames[:i])) for i in range(len(frames))]
    places = st.one_of(
        st.builds(lambda start, at: start + at, st.sampled_from(starts), st.integers(0, 40)),
        st.integers(0, len(data)),
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(places)
        data[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
    return bytes(data)


STREAMS = st.one_of(damaged(), st.lists(st.one_of(GOOD, SCRAPS), max_size=6).map(b"".join))


def naive(data: bytes) -> tuple[list[tuple[int, int, list[bytes]]], bool, bool]:
    """The frames of a stream; whether what follows is none, and whether that can be known yet."""
    frames: list[tuple[int, int, list[bytes]]] = []
    while len(data) >= HEAD.size:
        total, call, kind, count = HEAD.unpack(data[: HEAD.size])
        if kind not in Kind.ALL or not 8 * count <= total <= SMALL or count > MOST_PARTS:
            return frames, True, True
        table, data = data[HEAD.size :][: 8 * count], data[HEAD.size :]
        if len(table) < 8 * count:
            break
        sizes = struct.unpack(f"<{count}Q", table)
        if sum(sizes) != total - len(table):
            return frames, True, len(data) >= total
        if len(data) < total:
            break
        body, data = data[len(table) : total], data[total:]
        parts = []
        for size in sizes:
            parts.append(body[:size])
            body = body[size:]
        frames.append((kind, call, parts))
    return frames, False, False


@given(STREAMS, PIECES)
def test_whatever_comes_makes_the_frames_that_it_has_or_a_wire_error(
    data: bytes, sizes: list[int]
) -> None:
    expected, may_raise, must_raise = naive(data)
    decoder = Decoder(SMALL)
    came = []
    try:
        for piece in pieces(data, sizes):
            came += [content(frame) for frame in feed(decoder, piece)]
    except WireError:
        assert may_raise
        assert came == expected[: len(came)]
    else:
        assert not must_raise
        assert came == expected
        assert len(decoder.space()) > 0


@given(STREAMS, PIECES)
def test_whatever_comes_takes_no_more_memory_than_it_may(data: bytes, sizes: list[int]) -> None:
    # The tiny frames of one chunk take several times as much.
    with peak() as taken:
        decoder = Decoder(SMALL)
        try:
            for piece in pieces(data, sizes):
                feed(decoder, piece)
        except WireError:
            pass
    assert taken.bytes < SMALL + 12 * CHUNK + len(data)


@pytest.mark.parametrize("parts", [1, 2, MOST_PARTS])
@pytest.mark.parametrize("come", [0, 1, CHUNK // 2])
def test_a_large_frame_takes_its_size_and_three_chunks_at_most(parts: int, come: int) -> None:
    largest = 8 * CHUNK
    size = (largest - 8 * parts) // parts
    frame = raw(*[bytes(size)] * parts)
    begin = HEAD.size + 8 * parts + come
    view = memoryview(frame)
    with peak() as taken:
        decoder = Decoder(largest)
        assert feed(decoder, view[:begin]) == []
    assert taken.bytes < largest + 3 * CHUNK
    with peak() as taken:
        assert len(feed(decoder, view[begin:])) == 1
    assert taken.bytes < CHUNK


@pytest.mark.parametrize(
    "begin",
    [
        HEAD.pack(SMALL, 1, Kind.CALL, 1),
        HEAD.pack(SMALL, 1, Kind.CALL, MOST_PARTS),
        HEAD.pack(SMALL, 1, Kind.CALL, 3) + bytes(23),
    ],
)
def test_a_head_that_promises_much_takes_nothing_yet(begin: bytes) -> None:
    with peak() as taken:
        decoder = Decoder(SMALL)
        assert feed(decoder, begin) == []
    assert taken.bytes < 1.25 * CHUNK


@pytest.mark.parametrize(
    "data",
    [
        HEAD.pack(SMALL + 1, 1, Kind.CALL, 1),
        HEAD.pack(0, 1, 0, 0),
        HEAD.pack(0, 1, 255, 0),
        HEAD.pack(7, 1, Kind.CALL, 1),
        HEAD.pack(SMALL, 1, Kind.CALL, MOST_PARTS + 1),
        HEAD.pack(SMALL, 1, Kind.CALL, 0),
        HEAD.pack(8, 1, Kind.CALL, 0) + bytes(8),
        HEAD.pack(9, 1, Kind.CALL, 1) + struct.pack("<Q", 2) + bytes(1),
        HEAD.pack(16, 1, Kind.CALL, 2) + struct.pack("<QQ", 1, 2**64 - 1),
        HEAD.pack(SMALL, 1, Kind.CALL, 1) + struct.pack("<Q", 2**63),
        HEAD.pack(SMALL, 1, Kind.CALL, 2) + struct.pack("<QQ", SMALL - 16, 1),
    ],
)
def test_what_is_no_frame_raises_and_whatever_follows_does_too(data: bytes) -> None:
    with peak() as taken:
        decoder = Decoder(SMALL)
        with pytest.raises(WireError, match=r"Not a frame: total=\d+, ") as error:
            feed(decoder, data)
    assert taken.bytes < 2 * CHUNK
    assert len(str(error.value)) < 200
    for _ in range(3):
        with pytest.raises(WireError):
            feed(decoder, encode(Kind.CALL, 1))


def test_a_frame_may_be_as_large_as_it_may_and_have_as_many_parts_as_it_may() -> None:
    many = [b"x"] * (MOST_PARTS - 1) + [bytes(SMALL - 8 * MOST_PARTS - (MOST_PARTS - 1))]
    for parts in ([bytes(SMALL - 8)], many):
        (frame,) = feed(Decoder(SMALL), raw(*parts))
        assert content(frame)[2] == parts
    (frame,) = feed(Decoder(SMALL), raw(*[b""] * MOST_PARTS))
    assert frame.size == 0


# What is passed on by one who does not look into it.

TO_A_REPLICA = (Kind.IN_RESULT, Kind.IN_ERROR, Kind.IN_ITEM)


@given(st.lists(BYTES | BUFFERS | arrays(), max_size=4), st.sampled_from([*OUT, *TO_A_REPLICA]))
def test_what_is_passed_on_arrives_as_it_was_sent(values: list[Any], kind: int) -> None:
    """From one process through a second one to a third one, and nobody unpickles it on the way."""
    (first,) = feed(Decoder(), joined(encode_parts(Kind.OUT_CALL, 1, pickled_parts(values))))
    (second,) = feed(Decoder(), joined(encode_value(kind, 2**63, Pickled(first.parts))))
    assert content(second) == (kind, 2**63, content(first)[2])
    assert content(second)[2] == [bytes(memoryview(part)) for part in pickled_parts(values)]


class MadeNowhere:
    def __reduce__(self) -> Any:
        return pickle.loads, (b"nonsense",)


def test_what_is_passed_on_is_not_unpickled() -> None:
    frame = Frame(Kind.ITEM, 1, pickled_parts(MadeNowhere()))
    (passed,) = feed(Decoder(), joined(encode_parts(Kind.IN_ITEM, 7, frame.parts)))
    assert content(passed) == (Kind.IN_ITEM, 7, content(frame)[2])
    with pytest.raises(pickle.UnpicklingError):
        passed.value()


@given(st.lists(SIZES.map(noise), max_size=5))
def test_parts_make_the_frame_that_is_documented(parts: list[bytes]) -> None:
    frame = raw(*filter(None, parts), kind=Kind.OUT_STREAM)  # an empty one is left out
    assert joined(encode_parts(Kind.OUT_STREAM, 7, parts)) == frame


def test_a_small_frame_of_parts_is_a_single_piece_and_a_large_one_is_not_copied() -> None:
    limit = OUT_OF_BAND - 2 * 8 - 1
    assert len(encode_parts(Kind.OUT_CALL, 1, [b"a", bytes(limit - 1)])) == 1
    large = [b"a", bytes(limit)]
    _, *sent = encode_parts(Kind.OUT_CALL, 1, large)
    assert [id(part) for part in sent] == [id(part) for part in large]


def test_a_value_is_encoded_as_its_parts_are() -> None:
    for value in (None, "x" * 99, bytes(OUT_OF_BAND), [noise(OUT_OF_BAND), 1]):
        assert joined(encode_value(Kind.CALL, 1, value)) == joined(
            encode_parts(Kind.CALL, 1, pickled_parts(value))
        )


def test_no_parts_at_all_are_a_frame_without_a_value() -> None:
    assert encode_parts(Kind.OUT_CANCEL, 3, []) == [encode(Kind.OUT_CANCEL, 3)]


def test_parts_may_be_as_large_as_a_frame_and_no_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadshed._policy.wire.LARGEST", 1000)
    assert encode_parts(Kind.IN_ITEM, 1, [bytes(900), bytes(84)])
    for value in ([bytes(900), bytes(85)], [bytes(993)]):
        with pytest.raises(WireError, match=r"It takes 1,001 bytes, and at most 1,000 can"):
            encode_parts(Kind.IN_ITEM, 1, value)
        with pytest.raises(WireError, match="1,001"):
            encode_value(Kind.IN_ITEM, 1, Pickled(value))


def test_there_is_room_for_the_name_of_a_pool_behind_as_many_buffers_as_there_may_be() -> None:
    values = [bytearray(OUT_OF_BAND)] * (MOST_PARTS + 9)
    parts = pickled_parts([pickle.PickleBuffer(each) for each in values])
    assert len(parts) == MOST_PARTS - 1
    (frame,) = feed(Decoder(), joined(encode_parts(Kind.OUT_CALL, 1, [*parts, b"Model"])))
    assert len(frame.parts) == MOST_PARTS
    assert Frame(Kind.CALL, 1, frame.parts[:-1]).value() == values


def test_the_calls_that_a_replica_makes_and_their_answers_are_kinds_of_their_own() -> None:
    assert {Kind.OUT_CALL, Kind.OUT_STREAM, Kind.OUT_CANCEL, Kind.OUT_ACK} == OUT
    assert OUT < Kind.ALL
    assert {*TO_A_REPLICA} < Kind.ALL
    assert not OUT & {*TO_A_REPLICA}
    for kind in (Kind.OUT_CALL - 1, Kind.OUT_ACK + 1, Kind.IN_RESULT - 1, Kind.IN_ITEM + 1):
        assert kind not in Kind.ALL
        with pytest.raises(WireError):
            feed(Decoder(), raw(b"x", kind=kind))
