"""Process: the operating system's side of a replica."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio

import loadshed
from loadshed._pool.environment import Environment

SOURCE = str(Path(loadshed.__file__).parent.parent)
CODE = """import sys
connection, lifeline, source = sys.argv[1:]
sys.path.insert(0, source)
from loadshed._replica.main import main
main(int(connection), int(lifeline))"""

POLL = 0.02
"""Seconds between two looks at a process, where the system has no file for its end."""


class Process:
    """A child that has one end of a socket pair. It is spawned, never forked.

    It has a process group of its own, so Ctrl-C in a terminal goes to the parent alone.

    Args:
        connection: The child's end of the pair.
        lifeline: The end for reading of a pipe that breaks when this process ends.
        environment: What it finds.

    Attributes:
        pid: Its process id.
        output: A pipe with what it prints.
        errors: A pipe with what it prints to standard error.
    """

    def __init__(self, connection: socket.socket, lifeline: int, environment: Environment) -> None:
        # -P: it imports what the pool's process would, and not what lies in the working directory.
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        child, life = connection.fileno(), lifeline
        self._popen = subprocess.Popen(  # noqa: S603 - it is this interpreter and our own code
            [sys.executable, *flags, "-P", "-c", CODE, str(child), str(life), SOURCE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(child, life),
            env=os.environ | environment.variables,
            cwd=environment.directory,
            process_group=0,
        )
        self.pid = self._popen.pid
        assert self._popen.stdout is not None  # noqa: S101 - both are pipes, as asked for
        assert self._popen.stderr is not None  # noqa: S101
        self._pipes = (self._popen.stdout, self._popen.stderr)
        self.output, self.errors = (pipe.fileno() for pipe in self._pipes)

    async def wait(self) -> None:
        """Wait until it has ended."""
        if (descriptor := self._end()) is None:
            while self._popen.poll() is None:  # noqa: ASYNC110 - nothing says it
                await anyio.sleep(POLL)
            return
        try:
            while self._popen.poll() is None:
                await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    def _end(self) -> int | None:
        """A file that can be read when it has ended; None where the system has none."""
        try:
            return os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            return None

    @property
    def fate(self) -> str:
        """How it ended, in words."""
        code = self._popen.poll()
        if code is None:  # it closed its socket, and goes on
            return "was killed: it closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._popen.terminate()

    def kill(self) -> None:
        """End it (SIGKILL)."""
        self._popen.kill()

    def close(self) -> None:
        """Close the pipes."""
        for pipe in self._pipes:
            pipe.close()
