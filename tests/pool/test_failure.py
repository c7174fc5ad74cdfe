"""Exceptions on their way: what is known here arrives, and nothing else is imported for it."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from loadshed import (
    BackPressureError,
    ConfigError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from loadshed._failure import LONGEST, Failure, not_picklable, pack, unpack

OURS = [
    QueueFullError(3, 4, "queue_full", 5),
    QueueTimeoutError(3, 4, "deadline", 5, 0.25),
    BackPressureError(1, 2),
    RequestTimeoutError(1.5),
    ReplicaDiedError("Replica a#1 (pid 7) was killed."),
    ReplicaUnavailableError("There is none."),
    ConfigError("port", -1, "positive"),
    not_picklable("The result", ValueError("it is a socket")),
]
PYTHONS = [
    ValueError("x", 1),
    KeyError("k"),
    OSError(2, "gone", "file"),
    TimeoutError(),
    Exception(),
]


class Theirs(Exception):
    """One of a module that is none of this library's."""


class TheirValue(ValueError):
    """The same, and a `ValueError` too."""


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize("error", [*OURS, *PYTHONS], ids=repr)
@pytest.mark.parametrize("foreign", [False, True])
def test_errors_of_python_and_of_this_library_arrive_as_they_are(
    error: Exception, foreign: bool
) -> None:
    found = unpack(pack(raised(error)), "a#1", foreign=foreign)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.args == error.args
    (note,) = found.__notes__
    assert note.startswith("Traceback in replica a#1:\nTraceback (most recent call last):")
    assert note.endswith(note.rstrip())


@pytest.mark.parametrize("error", [Theirs("hello"), TheirValue("hello")], ids=repr)
def test_an_error_of_other_code_arrives_as_what_it_said_where_that_is_foreign(
    error: Exception,
) -> None:
    found = unpack(pack(raised(error)), "a#1", foreign=True)
    assert type(found) is ReplicaError
    assert str(found).startswith(
        f"The target raised tests.pool.test_failure.{type(error).__name__}: hello\n"
    )
    assert "Traceback in replica a#1:\nTraceback (most" in str(found)
    assert type(unpack(pack(raised(error)), "a#1")) is type(error)


def test_nothing_is_imported_for_an_error_of_foreign_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_seen.py").write_text("class Odd(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    pickled = b"cnever_seen\nOdd\n)R."
    failure: Failure = (pickled, "never_seen.Odd", "trace\n")
    try:
        assert type(unpack(failure, "a#1", foreign=True)) is ReplicaError
        assert "never_seen" not in sys.modules
        assert type(unpack(failure, "a#1")).__name__ == "Odd"
    finally:
        sys.modules.pop("never_seen", None)


def test_what_such_an_error_carries_is_not_imported_either() -> None:
    error = ValueError(Theirs("inside"))
    assert type(unpack(pack(error), "a#1", foreign=True)) is ReplicaError
    assert type(unpack(pack(error), "a#1")) is ValueError


def test_a_module_whose_name_begins_like_ours_is_not_ours() -> None:
    for pickled in (b"cloadshedding\nError\n)R.", b"cbuiltins.x\nError\n)R."):
        found = unpack((pickled, "Error", "trace"), "a#1", foreign=True)
        assert type(found) is ReplicaError


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"nonsense", id="nonsense"),
        pytest.param(pickle.dumps("no error"), id="no error"),
        pytest.param(pickle.dumps(ValueError), id="a class"),
        pytest.param(pickle.dumps(SystemExit(3)), id="SystemExit"),
        pytest.param(b"cbuiltins\nUnicodeDecodeError\n)R.", id="other arguments"),
        pytest.param(b"cloadshed\nThereIsNone\n)R.", id="a newer version's"),
        pytest.param(None, id="it could not be pickled"),
    ],
)
def test_what_makes_no_exception_is_a_replica_error_that_says_what_it_was(
    pickled: bytes | None, foreign: bool
) -> None:
    found = unpack((pickled, "Odd: hello", "trace\n\n"), "a#1", foreign=foreign)
    assert type(found) is ReplicaError
    assert str(found) == "The target raised Odd: hello\nTraceback in replica a#1:\ntrace"


class Closed(ValueError):
    """It lets nobody set an attribute."""

    def __setattr__(self, *_: object) -> None:
        raise TypeError

    def add_note(self, _note: str) -> None:
        raise TypeError


def test_an_error_that_takes_no_note_is_told_of_with_its_traceback() -> None:
    found = unpack(pack(raised(Closed("x"))), "a#1")
    assert type(found) is ReplicaError
    assert "Traceback in replica a#1:\nTraceback (most" in str(found)


@pytest.mark.parametrize("foreign", [False, True])
def test_an_error_of_the_pool_itself_has_no_traceback_and_gets_no_note(foreign: bool) -> None:
    pickled, said, _ = pack(raised(QueueFullError(1, 1)))
    found = unpack((pickled, said, ""), "a#1", foreign=foreign)
    assert type(found) is QueueFullError
    assert not hasattr(found, "__notes__")


def test_one_of_the_pool_that_can_not_be_made_again_still_says_what_it_was() -> None:
    found = unpack((None, "Odd: hello", ""), "a#1")
    assert type(found) is ReplicaError
    assert str(found).startswith("The target raised Odd: hello")


def test_an_error_that_was_passed_on_twice_has_a_note_of_each_replica() -> None:
    first = unpack(pack(raised(ValueError("x"))), "inner#1")
    second = unpack(pack(raised(first)), "outer#1")
    assert [note.partition(":")[0] for note in second.__notes__] == [
        "Traceback in replica inner#1",
        "Traceback in replica outer#1",
    ]


@pytest.mark.parametrize(
    "error",
    [SystemExit(1), KeyboardInterrupt(), StopIteration(1), StopAsyncIteration(), GeneratorExit()],
)
def test_what_means_something_else_here_does_not_travel(error: BaseException) -> None:
    pickled, said, trace = pack(raised(error))
    assert pickled is None
    assert said.startswith(type(error).__name__)
    assert "Traceback" in trace
    assert type(unpack((pickled, said, trace), "a#1")) is ReplicaError


def test_what_is_sent_is_bounded_and_keeps_its_beginning_and_its_end() -> None:
    pickled, said, trace = pack(raised(ValueError("begin" + "x" * 3 * LONGEST + "end")))
    assert pickled is not None
    for text in (said, trace):
        assert len(text) <= LONGEST + len(" ... ")
        assert text.rstrip().endswith("end")
    assert said.startswith("ValueError: begin")


def test_an_error_that_can_not_be_shown_is_told_of_by_its_name() -> None:
    class Shy(Exception):
        def __reduce__(self) -> Any:
            raise SystemExit

        @property
        def __notes__(self) -> Any:  # type: ignore[override]
            raise SystemExit

    assert pack(Shy()) == (None, "Shy, which can't be shown", "Shy, which can't be shown")


def test_an_error_of_the_standard_library_that_is_not_built_in_says_what_it_was() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    found = unpack(pack(caught.value), "a#1", foreign=True)
    assert "json.decoder.JSONDecodeError: Expecting" in str(found)


def test_what_can_not_be_sent_says_why_if_only_by_its_type() -> None:
    assert str(not_picklable("An item", ValueError("a lock"))) == (
        "An item can't be sent between processes: a lock"
    )
    assert str(not_picklable("An item", MemoryError())).endswith("processes: MemoryError")
