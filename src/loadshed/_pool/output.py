"""What a replica prints and logs, on this side."""

import contextlib
import logging
import os
import sys
from typing import Any

import anyio

CHUNK = 16 * 1024
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
        while self.show():
            await anyio.wait_readable(self._descriptor)

    def show(self) -> bool:
        """Show what is there; whether more can come."""
        while True:
            try:
                data = os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                self._write(self._rest)
                self._rest = b""
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._write(line + b"\n")
            if len(self._rest) > LONGEST:
                self._write(self._rest)
                self._rest = b""

    def _write(self, line: bytes) -> None:
        if not line:
            return
        text = line.decode(errors="backslashreplace")
        end = "" if text.endswith("\n") else "\n"
        # It may be closed, or a pipe that nobody reads any more; that must not end the pool.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            getattr(sys, self._stream).write(f"{self._prefix}{text}{end}")


def log(values: dict[str, Any], name: str) -> None:
    """Hand a replica's log record to the loggers of this process, with the replica's name."""
    record = logging.makeLogRecord(values)
    record.msg = f"[{name}] {record.msg}"
    record.processName = name
    record.replica = name
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
