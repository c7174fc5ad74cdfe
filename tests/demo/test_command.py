import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loadshed.demo import command, experiment
from loadshed.demo.command import demo
from loadshed.demo.servers import DemoError

QUICK = ("--load", "3", "--load", "3", "--seconds", "0.1", "--warm-up", "0")

# The demo in a process of its own, which also says what its servers are.
DEMO = """
import signal, sys
from loadshed import _command
from loadshed.demo import experiment, servers

async def start(*arguments, start=servers._start):
    process = await start(*arguments)
    print("server", process.pid, flush=True)
    return process

servers._start = start
experiment.SERVICE_TIME = 0.5
sys.argv[0] = "loadshed"
# A shell that runs the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
_command.main()
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(demo, arguments)


def test_the_demo_tells_its_story_and_leaves_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "SERVICE_TIME", 0.5)
    picture = tmp_path / "picture.svg"
    result = invoke(*QUICK, "--output", str(picture))
    assert result.exit_code == 0, result.output
    assert "Exactly 5 were turned away" in result.output
    assert "3x without loadshed: goodput" in result.output
    assert "3x with loadshed: goodput" in result.output
    assert f"The picture: {picture}\n" in result.output
    assert picture.read_text().startswith("<svg")
    # This is no terminal.
    assert not set(result.output) & {"\x1b", "\r", "\b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seconds", "0"), "0.0 is not in the range"),
        (("--seconds", "nan"), "'nan' is not a number"),
        (("--seconds", "many"), "'many' is not a valid float"),
        (("--load", "0"), "0.0 is not in the range"),
        (("--load", "inf"), "inf is not in the range"),
        (("--warm-up", "-1"), "-1.0 is not in the range"),
        (("--seed", "x"), "'x' is not a valid integer"),
        (("--output", "/nowhere/at/all.svg"), "directory '/nowhere/at'"),
        (("--output", "/"), "is a directory"),
        (("--nonsense",), "No such option"),
    ],
)
def test_a_bad_option_is_named_before_anything_starts(
    arguments: tuple[str, ...], message: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def stand_in(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    async def run(*_: object) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(command, "_run", run)


def test_a_demo_that_cannot_go_on_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, DemoError("A server of the demo ended."))
    result = invoke()
    assert (result.exit_code, result.output) == (1, "Error: A server of the demo ended.\n")


def test_a_picture_that_cannot_be_written_is_an_error_with_its_name(
    monkeypatch: pytest.MonkeyPatch, runs: list[Any]
) -> None:
    stand_in(monkeypatch, runs)
    result = invoke("--output", "/dev/full")
    assert result.exit_code == 1
    assert "Could not open file '/dev/full': No space left on device" in result.output


@pytest.mark.parametrize("moment", ["both wait in the queue", "of warm-up"])
def test_ctrl_c_ends_everything_without_a_traceback(
    moment: str, tmp_path: Path, is_running: Callable[[int], bool]
) -> None:
    with subprocess.Popen(  # noqa: S603, it is ours
        [sys.executable, "-u", "-c", DEMO, "demo", "--output", str(tmp_path / "picture.svg")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        servers: list[int] = []
        reached = False
        while not (reached and servers and is_running(servers[-1])):
            line = process.stdout.readline()
            assert line, "it ended by itself"
            reached = reached or moment in line
            servers += [int(line.split()[1])] if line.startswith("server ") else []
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.strip()) == (1, "Aborted!")
    assert not any(is_running(server) for server in servers)
    assert not list(tmp_path.iterdir())
