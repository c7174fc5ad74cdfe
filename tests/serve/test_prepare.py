"""From a config to goals: all that is wrong is found before anything changes."""

import os
from pathlib import Path
from typing import Any

import pytest

from loadshed import ConfigError
from loadshed.serve._config.file import ConfigFileError, from_plain
from loadshed.serve._config.schema import ServeConfig
from loadshed.serve._goal import Goal
from loadshed.serve._prepare import Preparation
from loadshed.serve._settings import Settings
from loadshed.serve._store import CodeStore

pytestmark = [pytest.mark.anyio, pytest.mark.long]


APP = """
import os
from loadshed.serve import deployment

with open(os.environ["LOADSHED_TEST_IMPORTS"], "a") as file:
    file.write("x")

@deployment(num_replicas=2, max_wait=3)
class Model:
    def reconfigure(self, config): ...

@deployment
class Ingress:
    def __init__(self, model): ...
    async def __call__(self, request): ...

app = Ingress.bind(Model.bind())

def build(args):
    return Model.options(name=args["name"]).bind()
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "code"
    path.mkdir()
    (path / "prepared.py").write_text(APP)
    (path / "broken.py").write_text("raise LookupError('no model')")
    monkeypatch.setenv("LOADSHED_TEST_IMPORTS", str(tmp_path / "imports"))
    return path


@pytest.fixture
def preparation(tmp_path: Path, code: Path) -> Preparation:
    return Preparation(CodeStore(tmp_path / "store"), str(code))


def imports(code: Path) -> int:
    """How often the code was imported."""
    path = code.parent / "imports"
    return len(path.read_text()) if path.exists() else 0


def config(*applications: dict[str, Any], **http_options: Any) -> ServeConfig:
    read = from_plain({"applications": [*applications], "http_options": http_options})
    return read.config


def app(import_path: str = "prepared:app", **more: Any) -> dict[str, Any]:
    return {"import_path": import_path, **more}


def by_name(goals: list[Goal]) -> dict[str, Goal]:
    return {goal.name: goal for goal in goals}


async def test_a_goal_has_what_the_code_and_the_file_say(
    preparation: Preparation, code: Path
) -> None:
    wanted = config(
        app(name="a", route_prefix="/a", deployments=[{"name": "Model", "num_replicas": 5}]),
        request_timeout_s=7,
    )
    (goal,) = await preparation.goals(wanted, {})
    assert (goal.name, goal.route_prefix, goal.ingress) == ("a", "/a", "Ingress")
    assert goal.deployments == {
        "Model": Settings(num_replicas=5, max_wait=3),
        "Ingress": Settings(request_timeout_s=7),
    }
    assert goal.code.source.import_path == "prepared:app"
    assert goal.code.environment.paths == (str(code),)
    assert goal.code.environment.is_foreign
    assert goal.code.environment.directory is None


async def test_code_that_has_not_changed_is_imported_once(
    preparation: Preparation, code: Path
) -> None:
    first = await preparation.goals(config(app()), {})
    again = await preparation.goals(config(app()), by_name(first))
    assert again == first
    other = config(app(deployments=[{"name": "Model", "max_ongoing_requests": 1}]))
    (changed,) = await preparation.goals(other, by_name(first))
    assert changed.code == first[0].code
    assert imports(code) == 1


async def test_a_restart_makes_a_version_of_its_own_and_imports_anew(
    preparation: Preparation, code: Path
) -> None:
    goals = await preparation.goals(config(app()), {})
    versions = [goals[0].code.version]
    for _ in range(2):
        goals = await preparation.goals(config(app()), by_name(goals), restart=True)
        versions.append(goals[0].code.version)
    assert len({*versions}) == 3
    assert imports(code) == 3
    after = await preparation.goals(config(app()), by_name(goals))
    assert after[0].code.version == versions[-1]  # it is not taken back by what comes next


async def test_what_is_no_longer_needed_is_forgotten(preparation: Preparation, code: Path) -> None:
    goals = await preparation.goals(config(app()), {})
    for _ in range(3):
        goals = await preparation.goals(config(app()), by_name(goals), restart=True)
    assert len(preparation._described) <= 2
    await preparation.goals(config(), by_name(goals))
    await preparation.goals(config(), {})
    assert preparation._described == {}


async def test_other_arguments_and_other_variables_are_other_code(
    preparation: Preparation,
) -> None:
    (one,) = await preparation.goals(config(app("prepared:build", args={"name": "one"})), {})
    (other,) = await preparation.goals(config(app("prepared:build", args={"name": "other"})), {})
    env = {"env_vars": {"A": "1"}}
    third = app("prepared:build", args={"name": "one"}, runtime_env=env)
    (third_goal,) = await preparation.goals(config(third), {})
    assert [*one.deployments, *other.deployments] == ["one", "other"]
    versions = {goal.code.version for goal in (one, other, third_goal)}
    assert len(versions) == 3
    assert third_goal.code.environment.variables == {"A": "1"}


async def test_directories_are_copied_and_found_in_their_order(
    preparation: Preparation, code: Path, tmp_path: Path
) -> None:
    module = tmp_path / "extra"
    module.mkdir()
    (module / "__init__.py").write_text("")
    env = {"working_dir": str(code), "py_modules": [str(module)]}
    (goal,) = await preparation.goals(config(app(runtime_env=env)), {})
    working, app_dir, modules = goal.code.environment.paths
    assert Path(working, "prepared.py").read_text() == APP
    assert app_dir == str(code)
    assert Path(modules, "extra", "__init__.py").exists()
    assert goal.code.environment.directory == working
    (code / "prepared.py").write_text(APP + "# changed\n")
    (changed,) = await preparation.goals(config(app(runtime_env=env)), by_name([goal]))
    assert changed.code.version != goal.code.version
    assert Path(working, "prepared.py").read_text() == APP


async def test_code_that_is_settled_is_taken_as_long_as_it_is_there(
    preparation: Preparation, code: Path
) -> None:
    wanted = config(app(runtime_env={"working_dir": str(code)}))
    (goal,) = await preparation.goals(wanted, {})
    (code / "prepared.py").write_text(APP + "# changed\n")
    (same,) = await preparation.goals(wanted, {}, codes={"default": goal.code})
    assert same.code == goal.code
    preparation._store.keep([])
    (anew,) = await preparation.goals(wanted, {}, codes={"default": goal.code})
    assert anew.code != goal.code


async def test_all_that_is_wrong_is_told_at_once(preparation: Preparation) -> None:
    wanted = config(
        app("broken:app", name="a", route_prefix="/a"),
        app("prepared:nothing", name="b", route_prefix="/b"),
        app(name="c", route_prefix="/c", deployments=[{"name": "Modl"}]),
        app(name="d", route_prefix="/d", deployments=[{"name": "Ingress", "user_config": 1}]),
        app(name="e", route_prefix="/e", runtime_env={"working_dir": "/not/there"}),
        app(name="f", route_prefix="/f"),
    )
    with pytest.raises(ConfigFileError) as caught:
        await preparation.goals(wanted, {})
    told = {each.where: each.message for each in caught.value.mistakes}
    assert [*told] == [
        "applications[0].import_path",
        "applications[1].import_path",
        "applications[2].deployments[0].name",
        "applications[3].deployments[0].user_config",
        "applications[4].runtime_env.working_dir",
    ]
    first = told["applications[0].import_path"]
    assert first.startswith("must be what can be imported: LookupError: no model, not 'broken:app'")
    assert "Traceback (most recent call last):" in first
    assert "AttributeError" in told["applications[1].import_path"]
    assert (
        "in the code, 'Model' or 'Ingress' (did you mean 'Model'?)"
        in told["applications[2].deployments[0].name"]
    )


async def test_code_that_ends_its_process_is_told_of(preparation: Preparation, code: Path) -> None:
    (code / "broken.py").write_text("import os\nos._exit(3)")
    with pytest.raises(
        ConfigFileError, match=r"applications\[0\].* \(default\) can't be deployed: "
    ):
        await preparation.goals(config(app("broken:app")), {})


async def test_the_code_sees_its_variables_and_its_directory(
    preparation: Preparation, code: Path
) -> None:
    text = "import os\nassert os.environ['A'] == '1'\nassert os.path.exists('here.txt')\n" + APP
    (code / "prepared.py").write_text(text)
    (code / "here.txt").touch()
    env = {"working_dir": str(code), "env_vars": {"A": "1"}}
    await preparation.goals(config(app(runtime_env=env)), {})
    assert not os.path.exists("here.txt")
    assert "A" not in os.environ


async def test_settings_of_the_command_line_are_for_what_gets_the_requests(
    preparation: Preparation, code: Path
) -> None:
    wanted = config(app())
    assert await preparation.tuned(wanted, {}) is wanted
    assert imports(code) == 0
    tuned = await preparation.tuned(wanted, {"num_replicas": 4})
    (goal,) = await preparation.goals(tuned, {})
    assert goal.deployments["Ingress"].num_replicas == 4
    assert goal.deployments["Model"].num_replicas == 2
    assert imports(code) == 1
    with pytest.raises(
        ConfigFileError, match=r"applications\[0\]\.import_path must be what can be"
    ):
        await preparation.tuned(config(app("broken:app")), {"num_replicas": 4})


async def test_code_at_a_path_is_described(preparation: Preparation) -> None:
    found = await preparation.describe_path("prepared:app")
    model, ingress = found.deployments
    assert (model.name, model.given, model.reconfigurable) == (
        "Model",
        {"num_replicas": 2, "max_wait": 3},
        True,
    )
    assert (ingress.name, ingress.given, ingress.reconfigurable) == ("Ingress", {}, False)
    with pytest.raises(ConfigError, match="import_path must be what can be imported") as caught:
        await preparation.describe_path("broken:app")
    assert "no model" in caught.value.__notes__[0]
