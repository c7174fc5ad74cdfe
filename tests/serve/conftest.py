"""A `loadshed` of one's own: a server with its files in a directory of the test."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadshed.serve._control import Control

LONG = 60
"""Seconds that nothing here takes."""

APP = """
import asyncio
import os

from loadshed.serve import deployment

VERSION = {version!r}


@deployment(max_ongoing_requests=10, max_queued_requests=100)
class Model:
    def __init__(self):
        self.config = None

    def reconfigure(self, config):
        self.config = config

    async def __call__(self, request):
        await asyncio.sleep(float(request.query_params.get("sleep", 0)))
        return {{"version": VERSION, "config": self.config, "pid": os.getpid()}}


app = Model.bind()
"""


class Loadshed:
    """A server, and the commands that talk to it.

    Attributes:
        directory: Where its files are, and where commands are run.
        errors: What the server has said when it has ended.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.errors = ""
        self._environment = os.environ | {
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_STATE_HOME": str(directory / "state"),
        }
        self._server: subprocess.Popen[str] | None = None
        self._url = ""

    def write(self, name: str, text: str) -> Path:
        """A file, in the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def config(self, *, name: str = "config.yaml", version: str = "1", **settings: Any) -> str:
        """A config file for `APP`; its port is free."""
        self.write("code/model.py", APP.format(version=version))
        return self.config_of({"deployments": [{"name": "Model"} | settings]}, name=name)

    def config_of(self, *applications: dict[str, Any], name: str = "config.yaml") -> str:
        """A config file for applications that are like that of `config`, but for this."""
        usual = {"import_path": "model:app", "runtime_env": {"working_dir": "code"}}
        config = {
            "http_options": {"port": 0},
            "applications": [usual | each for each in applications],
        }
        self.write(name, json.dumps(config))
        return name

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", "loadshed", *arguments],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )

    def background(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "loadshed", *arguments],
            cwd=self.directory,
            env=self._environment | {"FORCE_COLOR": "1"},  # as if it were a terminal
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str, until: str = ": RUNNING") -> None:
        """Start the server, and wait until it says so."""
        self.errors = ""
        self._server = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "loadshed", "run", *arguments],
            cwd=self.directory,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self._server.stderr is not None
        for line in self._server.stderr:
            self.errors += line
            if " at http://" in line:
                self._url = "/".join(line.rpartition(" at ")[2].strip().split("/")[:3])
            if until in line:
                return
        raise AssertionError(self.errors)

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._server is not None
        return self._server.pid

    @property
    def url(self) -> str:
        """Where it can be reached."""
        return self._url or str(self.status()["url"])

    def status(self) -> dict[str, Any]:
        """What the server says of itself."""
        with closing(Control(str(self.directory / "loadshed" / "control.sock"))) as control:
            return control.status()

    def get(self, path: str = "/") -> httpx.Response:
        """A request."""
        return httpx.get(self.url + path, timeout=LONG)

    def deploy(self, *arguments: str, code: int = 0) -> str:
        """`loadshed deploy`: what it says; it ends with this exit code."""
        done = self.command("deploy", *arguments)
        assert done.returncode == code, done.stderr
        return done.stderr

    def end(self, how: int = signal.SIGTERM) -> int:
        """End the server: its exit code."""
        assert self._server is not None
        os.kill(self._server.pid, how)
        return self.ended()

    def ended(self) -> int:
        """Wait until the server has ended: its exit code."""
        assert self._server is not None
        _, errors = self._server.communicate(timeout=LONG)
        self.errors += errors
        code, self._server = self._server.returncode, None
        return code

    def close(self) -> None:
        """Leave nothing behind."""
        if self._server is not None:
            if self._server.poll() is None:
                self._server.terminate()
            self._server.communicate(timeout=LONG)


@pytest.fixture
def loadshed(tmp_path: Path) -> Iterator[Loadshed]:
    # The path of a Unix socket is short.
    own = Loadshed(tmp_path)
    try:
        yield own
    finally:
        own.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, which nobody tells of."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it never did"
        time.sleep(0.02)
