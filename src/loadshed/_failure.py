"""Exceptions on their way from a replica to the caller."""

import pickle
import traceback
from io import BytesIO
from typing import Any

from loadshed._errors import NotPicklableError, ReplicaError

LONGEST = 64 * 1024
"""Characters of a traceback that are sent."""

Failure = tuple[bytes | None, str, str]
"""The exception, pickled, where that can be done; what it says in one line; its traceback."""


def pack(error: BaseException) -> Failure:
    """What to send of an exception. It can always be pickled."""
    try:
        trace = _shortened("".join(traceback.format_exception(error)))
        said = _shortened("".join(traceback.format_exception_only(error)).strip())
    except BaseException:  # noqa: BLE001 - whatever its own code raises
        trace = said = f"{type(error).__name__}, which can't be shown"
    if not _may_travel(error):
        return None, said, trace
    try:
        return pickle.dumps(error, 5), said, trace
    except BaseException:  # noqa: BLE001 - the same
        return None, said, trace


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _may_travel(error: BaseException) -> bool:
    """Whether it means to the caller what it meant in the replica.

    SystemExit would end the caller's process, StopIteration be taken for the end of a generator
    and CancelledError for a cancellation that nobody has asked for.
    """
    return isinstance(error, Exception) and not isinstance(
        error, StopIteration | StopAsyncIteration
    )


def unpack(failure: Failure, replica: str, *, foreign: bool = False) -> Exception:
    """The exception for the caller: the target's own, with the remote traceback as a note.

    Args:
        failure: What was sent.
        replica: Who has sent it.
        foreign: Whether its code is none of this process's: then nothing is imported for it, and
            it is a `ReplicaError`, unless it is one of Python or of this library.
    """
    pickled, said, trace = failure
    error = None if pickled is None else _unpickled(pickled, foreign=foreign)
    if error is not None and not trace:  # of the pool itself
        return error
    note = f"Traceback in replica {replica}:\n{trace.rstrip()}"
    if error is None:
        return ReplicaError(f"The target raised {said}\n{note}")
    try:
        error.add_note(note)
    except Exception:  # noqa: BLE001 - it lets nobody set an attribute
        return ReplicaError(f"The target raised {said}\n{note}")
    return error


class _Careful(pickle.Unpickler):
    """Imports nothing that is not Python's own or this library's."""

    def find_class(self, module: str, name: str) -> Any:
        if module != "builtins" and module.partition(".")[0] != "loadshed":
            raise pickle.UnpicklingError(f"{module}.{name} is not imported here")
        return super().find_class(module, name)


def _unpickled(pickled: bytes, *, foreign: bool) -> Exception | None:
    try:
        error = _Careful(BytesIO(pickled)).load() if foreign else pickle.loads(pickled)  # noqa: S301 - from our own child
    except Exception:  # noqa: BLE001 - its class isn't known here, or takes other arguments
        return None
    return error if isinstance(error, Exception) else None


def not_picklable(what: str, error: Exception) -> NotPicklableError:
    """The error of a caller whose value can't be sent, or can't be made again."""
    reason = str(error) or type(error).__name__
    return NotPicklableError(f"{what} can't be sent between processes: {reason}")
