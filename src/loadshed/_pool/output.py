"""What a replica prints and logs, on this side."""

import contextlib
import logging
import os
import sys
import traceback

import anyio

from loadshed._policy.wire import Frame

CHUNK = 16 * 1024
AT_THE_END = 8
"""Chunks that are shown when the process has ended: twice as many as a pipe holds."""

LONGEST = 64 * 1024
"""Bytes after which a line is shown though it has no end yet."""


class Relay:
    """Shows what comes through a pipe, line by line, each with the replica's name in front.

    Args:
        descriptor: The end for reading of the pipe.
        stream: "stdout" or "stderr", looked up in `sys` for each line, so that whatever a test or a
            notebook has put there is used.
        name: The replica's.
    """

    def __init__(self, descriptor: int, stream: str, name: str) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._stream = stream
        self._prefix = f"[{name}] "
        self._rest = b""

    async def run(self) -> None:
        """Show what comes, until the pipe is closed at its other end."""
        while self._show():
            await anyio.wait_readable(self._descriptor)

    def finish(self) -> None:
        """Show what is left, and no more, though a process may go on that has the pipe as well."""
        for _ in range(AT_THE_END):
            if not self._show():
                return
        self._flush()

    def _show(self) -> bool:
        """Show a chunk of what is there, so that others have their turn; whether more can come."""
        try:
            data = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._write(line + b"\n")
        if not data or len(self._rest) > LONGEST:
            self._flush()
        return bool(data)

    def _flush(self) -> None:
        self._write(self._rest)
        self._rest = b""

    def _write(self, line: bytes) -> None:
        if not line:
            return
        text = line.decode(errors="backslashreplace")
        end = "" if text.endswith("\n") else "\n"
        # It may be closed, a pipe that nobody reads any more, or the user's own; that must not end
        # the pool.
        with contextlib.suppress(Exception):
            stream = getattr(sys, self._stream)
            encoding = getattr(stream, "encoding", None) or "utf-8"
            text = text.encode(encoding, "backslashreplace").decode(encoding)
            stream.write(f"{self._prefix}{text}{end}")


def log(frame: Frame, name: str) -> None:
    """Hand a replica's log record to the loggers of this process, with the replica's name."""
    try:
        record = logging.makeLogRecord(frame.value())
        record.msg = f"[{name}] {record.msg}"
        record.processName = name
        record.replica = name
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except Exception:  # noqa: BLE001 - of a field's own code, or of a filter's or handler's
        # As `logging.Handler.handleError` does it: a record is no reason to end a replica.
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc()
