"""ReplicaPool, when its program is interrupted by Ctrl-C."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tests.pool.helpers import LONG, REPOSITORY, is_alive, state_of, until

pytestmark = pytest.mark.anyio


ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


SCRIPT = """
import signal
import sys
import anyio
from loadshed import ReplicaPool

async def tell(call):
    try:
        print("answer", await call, flush=True)
    except Exception as error:
        print("answer", type(error).__name__, flush=True)

async def main(wait):
    async with ReplicaPool(
        "tests.pool.targets:until", num_replicas=2, graceful_shutdown_timeout_s=None
    ) as pool:
        print(*(each.pid for each in pool.statistics().replicas), flush=True)
        try:
            await wait(pool)
        except BaseException:
            print("interrupted", flush=True)
            raise

async def another_task_calls(path):
    async with anyio.create_task_group() as tasks:
        async def wait(pool):
            tasks.start_soon(tell, pool.call(path))
            await anyio.sleep_forever()

        await main(wait)

async def it_calls(path):
    await main(lambda pool: pool.call(path))

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has none
    backend, who, path = sys.argv[1:]
    try:
        anyio.run(globals()[who], path, backend=backend)
    except KeyboardInterrupt:
        print("KeyboardInterrupt", flush=True)
    except BaseExceptionGroup as group:  # of the task group of this script, with trio
        assert [*map(type, group.exceptions)] == [KeyboardInterrupt]
        assert who == "another_task_calls"
        print("KeyboardInterrupt", flush=True)
"""


@contextlib.contextmanager
def script(backend: str, who: str, path: Path) -> Iterator["Popen[str]"]:
    """A script with a pool of two replicas and a call that stays until `go` is there."""
    process = Popen(  # noqa: S603
        [sys.executable, "-c", SCRIPT, backend, who, str(path)],
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        cwd=REPOSITORY,
        process_group=0,  # as a shell starts it
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


async def interrupt(process: "Popen[str]", path: Path) -> list[int]:
    """Press Ctrl-C while it waits for the call; its replicas."""
    assert process.stdout is not None
    replicas = [int(pid) for pid in process.stdout.readline().split()]
    assert len(replicas) == 2
    await until(lambda: any(path.glob("here-*")))
    assert all(map(is_alive, replicas))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    assert process.stdout.readline() == "interrupted\n"
    # One that is raised in the middle of what asyncio or anyio do can come to anything.
    await until(lambda: state_of(process.pid) == "S")
    return replicas


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


WHO = pytest.mark.parametrize("who", ["it_calls", "another_task_calls"])


@ASYNCIO
@BACKENDS
@WHO
async def test_ctrl_c_lets_a_call_be_finished(tmp_path: Path, backend: str, who: str) -> None:
    with script(backend, who, tmp_path) as process:
        replicas = await interrupt(process, tmp_path)
        (tmp_path / "go").touch()
        output, errors = process.communicate(timeout=LONG)
    *answers, end = output.splitlines()
    assert (end, errors, process.returncode) == ("KeyboardInterrupt", "", 0)
    assert len(answers) == (who == "another_task_calls")
    assert {*answers} <= {f"answer {pid}" for pid in replicas}
    assert not any(map(is_alive, replicas))


@ASYNCIO
@BACKENDS
@WHO
async def test_a_second_ctrl_c_kills(tmp_path: Path, backend: str, who: str) -> None:
    with script(backend, who, tmp_path) as process:
        replicas = await interrupt(process, tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=LONG)
    *answers, end = output.splitlines()
    assert (end, errors, process.returncode) == ("KeyboardInterrupt", "", 0)
    assert {*answers} <= {"answer ReplicaDiedError"}  # asyncio cancels that task as well
    await until(lambda: not any(map(is_alive, replicas)))
