"""How the documents are tested: every Python block of README.md and docs/ runs, in order.

The blocks of one document share a namespace. A `text` block shows what the block before it
printed, and is compared with that. What a reader doesn't need to see stands in a comment,
`<!-- invisible-code-block: python`.
"""

import contextlib
import io
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

Served = Callable[[Any], AbstractContextManager[str]]

_evaluate = PythonEvaluator()


def _run(example: Example) -> None:
    _skip_what_follows_a_failure(example)
    example.namespace["failed"] = True
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        _evaluate(example)
    # Starlette makes its middleware when it starts, so a wrong setting would not be noticed.
    for value in example.namespace.values():
        if isinstance(value, Starlette):
            value.build_middleware_stack()
    example.namespace.update(failed=False, printed=printed.getvalue())


def _compare(example: Example) -> str | None:
    _skip_what_follows_a_failure(example)
    printed, promised = example.namespace["printed"], example.parsed
    if printed == promised:
        return None
    return f"The document says that this is printed:\n{promised}\nWhat is printed:\n{printed}"


def _skip_what_follows_a_failure(example: Example) -> None:
    # It may wait for ever for a permit that the failed block has kept.
    if example.namespace.get("failed"):
        pytest.skip("a block before this one has failed")


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", _run), CodeBlockParser("text", _compare)],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    fixtures=["served"],
).pytest()


@contextlib.contextmanager
def _served(app: Any) -> Iterator[str]:
    # The socket listens before the server runs, so nobody has to wait until it does.
    with socket.create_server(("127.0.0.1", 0)) as listener, warnings.catch_warnings():
        # Old versions of uvicorn use what was deprecated in websockets.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="uvicorn|websockets")
        # Old versions make uvloop the whole process's event loop where it is installed, for the
        # tests that follow too.
        config = uvicorn.Config(app, loop="asyncio", log_config=None, log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def served() -> Served:
    """A real uvicorn server on a free port of the loopback; a context manager gives its URL."""
    return _served
