"""What the documents say that no code block of theirs can prove."""

import ast
import asyncio
import inspect
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import loadshed
import loadshed.asgi
import loadshed.client
import loadshed.serve
from loadshed import ConcurrencyLimiter, Criticality
from loadshed.asgi import LoadShedMiddleware

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md",
    *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))),
]
MODULES = (loadshed, loadshed.asgi, loadshed.client, loadshed.serve)
PUBLIC = {name: getattr(module, name) for module in MODULES for name in module.__all__}

# `python` runs, `text` is compared with what the block before it printed, `pyi` with the
# signatures, below. `py` is code for other libraries, and compiled. The others are not checked, so
# they are for what can't be.
LANGUAGES = {"python", "text", "pyi", "py", "http", "json", "console", "mermaid"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(name), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_says_what_it_is(name: str) -> None:
    fences = re.findall(r"^ *(?:`{3,}|~{3,})(.*)$", read(name), re.MULTILINE)
    assert set(fences[0::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_code_for_other_libraries_compiles(name: str) -> None:
    for block in blocks(name, "py"):
        compile(block, name, "exec")


@pytest.mark.parametrize("number", range(len(blocks("README.md", "python"))))
def test_each_example_of_the_readme_is_whole(number: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(blocks("README.md", "python")[number])
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_from_outside_the_docs_lead_somewhere(name: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", read(name), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)", prose):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{loadshed.__version__}]" in read("CHANGELOG.md")


def test_the_contributing_guide_knows_every_make_target() -> None:
    targets = re.findall(r"^([a-z]+):.*##", read("Makefile"), re.MULTILINE)
    guide = read("CONTRIBUTING.md")
    assert [target for target in targets if f"`make {target}`" not in guide] == []


def test_the_answer_in_the_readme_is_the_answer() -> None:
    answer = asyncio.run(ask_a_full_service())
    (promised,) = blocks("README.md", "http")
    status, *headers, _, body = promised.splitlines()
    assert status == f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"
    assert body == answer.text
    for header in headers:
        name, value = header.split(": ")
        assert answer.headers[name] == value


async def ask_a_full_service() -> httpx.Response:
    async def application(*_: Any) -> None:
        pytest.fail("a request that is shed never reaches the application")

    limiter = ConcurrencyLimiter()
    transport = httpx.ASGITransport(LoadShedMiddleware(application, limiter=limiter))
    async with anyio.create_task_group() as tasks:
        for _ in range(int(limiter.max_ongoing_requests + limiter.max_queued_requests)):
            tasks.start_soon(limiter.acquire)
        await anyio.wait_all_tasks_blocked()
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/")
        tasks.cancel_scope.cancel()
    return answer


Function = ast.FunctionDef | ast.AsyncFunctionDef
REFERENCES = ("docs/reference.md", "docs/client-reference.md", "docs/serve-reference.md")
STUBS = [
    stub for name in REFERENCES for block in blocks(name, "pyi") for stub in ast.parse(block).body
]
CLASSES = {stub.name: stub for stub in STUBS if isinstance(stub, ast.ClassDef)}
FUNCTIONS = {stub.name: stub for stub in STUBS if isinstance(stub, Function)}
CONSTANTS = {ast.unparse(stub.targets[0]): stub for stub in STUBS if isinstance(stub, ast.Assign)}


def test_the_references_have_every_public_name_and_no_other() -> None:
    assert {*CLASSES, *FUNCTIONS, *CONSTANTS} == PUBLIC.keys() - {"__version__"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_what_the_reference_says(name: str) -> None:
    assert parameters(FUNCTIONS[name]) == parameters_of(PUBLIC[name])


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_is_what_the_reference_says(name: str) -> None:
    assert ast.literal_eval(CONSTANTS[name].value) == PUBLIC[name]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_what_the_reference_says(name: str) -> None:
    stub, public = CLASSES[name], PUBLIC[name]
    bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in stub.bases}
    assert bases - {"NamedTuple"} <= {base.__name__ for base in public.__mro__}
    members = {member_name(member): member for member in stub.body}
    own = {*vars(public), *getattr(public, "__slots__", ())}
    assert {key for key in own if not key.startswith("_")} <= members.keys()
    for key, member in members.items():
        if isinstance(member, Function) and not member.decorator_list:
            assert parameters(member) == parameters_of(getattr(public, key)), key
        elif isinstance(member, ast.AnnAssign) and member.value is not None:
            default = inspect.signature(public).parameters[key].default
            assert ast.literal_eval(member.value) == default, key


def member_name(member: ast.stmt) -> str:
    if isinstance(member, Function):
        return member.name
    return ast.unparse(member.target) if isinstance(member, ast.AnnAssign) else ""


def parameters(function: Function) -> list[tuple[str, str]]:
    """Names and defaults, in order."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + [*given.defaults]
    variable = [] if given.vararg is None else [given.vararg]
    rest = [] if given.kwarg is None else [given.kwarg]
    names = [*positional, *variable, *given.kwonlyargs, *rest]
    pairs = zip(
        names,
        [*defaults, *(None for _ in variable), *given.kw_defaults, *(None for _ in rest)],
        strict=True,
    )
    return [(name.arg, "" if default is None else ast.unparse(default)) for name, default in pairs]


def parameters_of(function: Any) -> list[tuple[str, str]]:
    constants = {id(PUBLIC[name]): name for name in CONSTANTS}
    constants |= {
        id(...): "...",
        id(random.random): "random.random",
        id(httpx.USE_CLIENT_DEFAULT): "USE_CLIENT_DEFAULT",
        id(Criticality.CRITICAL): "Criticality.CRITICAL",
    }
    return [
        (
            given.name,
            ""
            if given.default is given.empty
            else "..."  # the table below it says what the function does
            if inspect.isfunction(given.default)
            else constants.get(id(given.default), repr(given.default)),
        )
        for given in inspect.signature(function).parameters.values()
    ]
