import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from loadshed import __version__, _command

ROOT = Path(__file__).parent.parent


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["loadshed", *arguments])
    with pytest.raises(SystemExit) as exit_:
        _command.main()
    return exit_.value.code


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="loadshed")
    assert command.load() is _command.main


def test_it_tells_its_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"loadshed, version {__version__}\n"


def test_it_lists_its_subcommands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "-h") == 0
    assert "demo" in capsys.readouterr().out


def test_a_command_that_there_is_not_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "nonsense") == 2


@pytest.mark.parametrize("module", _command.EXTRA)
def test_without_its_extra_it_says_how_to_get_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert run(monkeypatch, "demo") == (
        f"loadshed: the command is an extra, and {_command.EXTRA[module]} is not installed: "
        "pip install 'loadshed[serve]'"
    )


def test_without_its_extra_it_ends_with_1_and_a_line_on_stderr() -> None:
    code = (
        "import sys; sys.modules.update(click=None, rich=None);"
        "import loadshed._command; loadshed._command.main()"
    )
    result = subprocess.run(  # noqa: S603, it is ours
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "loadshed: the command is an extra, and click, rich are not installed: "
        "pip install 'loadshed[serve]'\n"
    )


def test_an_import_error_with_another_cause_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "loadshed.demo.command", raising=False)
    monkeypatch.setitem(sys.modules, "loadshed.demo.picture", None)
    with pytest.raises(ImportError, match=r"loadshed\.demo\.picture"):
        run(monkeypatch, "demo")


def test_the_modules_that_are_looked_for_are_those_of_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["serve"]
    names = [requirement.split(">=")[0] for requirement in extra]
    only_quicker = {"httptools", "uvloop"}  # uvicorn takes them where they are
    assert [name for name in names if name not in only_quicker] == list(_command.EXTRA.values())
