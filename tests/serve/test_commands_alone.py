"""Commands without a server: what they make of what one would say."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loadshed import ReplicaUnavailableError
from loadshed.serve._command import build, deploy, look, run
from loadshed.serve._command.common import mistakes
from loadshed.serve._config.file import ConfigFileError, Mistake, parse


class Scripted:
    """A server that says one thing after the other.

    Attributes:
        told: What it was told.
    """

    def __init__(self, *said: dict[str, str], generation: int = 1) -> None:
        self._said = list(said)
        self._generation = generation
        self.told: list[str] = []

    def status(self) -> dict[str, Any]:
        states = self._said.pop(0)
        applications: dict[str, Any] = {
            name: {"status": state, "message": "", "route_prefix": None, "deployments": {}}
            for name, state in states.items()
        }
        return {"generation": self._generation, "url": "", "applications": applications}

    def shutdown(self) -> None:
        self.told.append("shutdown")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "LOOK_EVERY", 0)
    monkeypatch.setattr(deploy, "PATIENCE", 0)


@pytest.mark.parametrize(
    ("said", "is_reached"),
    [
        ([{"a": "DEPLOYING"}, {"a": "RUNNING"}], True),
        ([{}], True),
        ([{"a": "RUNNING", "b": "DELETING"}, {"a": "RUNNING"}], True),
        ([{"a": "UNHEALTHY"}, {"a": "RUNNING"}], True),
        ([{"a": "DEPLOY_FAILED", "b": "DEPLOYING"}, {"a": "DEPLOY_FAILED", "b": "RUNNING"}], False),
    ],
)
def test_a_deploy_waits_until_all_is_done(said: list[dict[str, str]], is_reached: bool) -> None:
    assert deploy._wait(Scripted(*said), 1) is is_reached  # type: ignore[arg-type]


def test_a_deploy_has_little_patience_with_what_does_not_get_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deploy, "PATIENCE", -1)
    assert not deploy._wait(Scripted({"a": "UNHEALTHY"}), 1)  # type: ignore[arg-type]


def test_a_deploy_says_that_another_one_took_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        deploy._wait(Scripted({}, generation=2), 1)  # type: ignore[arg-type]
    assert ended.value.code == 1
    assert "Another file has been deployed meanwhile." in capsys.readouterr().err


def test_what_failed_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, mistakes():
        raise ReplicaUnavailableError("no weights")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "loadshed: no weights\n"


def test_shutdown_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted()
    monkeypatch.setattr(look, "Control", lambda _: scripted)
    done = CliRunner().invoke(look.shutdown, ["--no-wait"])
    assert (done.exit_code, scripted.told) == (0, ["shutdown"])


@pytest.mark.parametrize(
    ("taken", "shown"), [(0.123456, "0.123 ms"), (999.4, "999 ms"), (2012, "2.01 s")]
)
def test_a_duration_is_shown_in_its_unit(taken: float, shown: str) -> None:
    assert look._duration(taken) == shown


def test_the_picture_says_why_something_is_wrong() -> None:
    application: dict[str, Any] = {
        "status": "DEPLOY_FAILED",
        "message": "no weights",
        "route_prefix": None,
        "deployments": {},
    }
    title, message, _ = [str(part) for part in look._parts({"a": application})][1:]
    assert (title, message) == ("a: DEPLOY_FAILED", "no weights")


def test_ray_is_given_the_config_and_has_no_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(run, "_log", lambda: None)
    monkeypatch.setattr(run, "serve_on_ray", lambda config, **more: given.append((config, more)))
    arguments = ["m:app", "--engine", "ray", "--num-replicas", "2", "--port", "1234"]
    done = CliRunner().invoke(run.run, arguments)
    assert done.exit_code == 0, done.output
    ((config, more),) = given
    assert (config.http_options.port, more) == (
        1234,
        {"app_dir": ".", "tune": {"num_replicas": 2}},
    )
    done = CliRunner().invoke(run.run, [*arguments, "--reload"])
    assert done.exit_code == 2
    assert "With --engine ray there can't be '--reload'." in done.output


def test_what_can_not_be_written_is_told(tmp_path: Path) -> None:
    arguments = ["tests.serve.parts:Bound", "-o", f"{tmp_path}/no/such.yaml"]
    done = CliRunner().invoke(build.build, arguments)
    assert done.exit_code == 2
    assert "output must be a file that can be written (No such file or directory)" in done.output


def test_a_mistake_that_only_the_code_can_tell_has_its_line() -> None:
    found = parse("applications:\n- import_path: a:b\n", source="x.yaml")
    with pytest.raises(ConfigFileError, match=r"^x\.yaml:2:16: "), run._located(found):
        raise ConfigFileError([Mistake("is wrong.", "applications[0].import_path")])
    with pytest.raises(ConfigFileError, match=r"^applications"), run._located(None):
        raise ConfigFileError([Mistake("is wrong.", "applications[0].import_path")])
