"""Files for Docker and Kubernetes: they can be read, and they agree with the config."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadshed import ConfigError
from loadshed.serve._config.container import LONGEST_END, SPARE, container, write
from loadshed.serve._config.file import parse
from loadshed.serve._config.schema import ServeConfig
from loadshed.serve._config.write import Engine

HERE = Path("/home/me/project")


def config(deployments: str = "", more: str = "", http: str = "{}") -> ServeConfig:
    text = f"http_options: {http}\napplications: [{{import_path: 'a:b', {more}"
    return parse(f"{text} deployments: [{deployments}]}}]", base=HERE).config


def kubernetes(made: ServeConfig, **more: Any) -> tuple[Any, Any, Any]:
    """The deployment, its container, and the service."""
    deployment, service = yaml.safe_load_all(container(HERE, made, **more)["kubernetes.yaml"])
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return deployment, only, service


def ray(made: ServeConfig, **more: Any) -> tuple[Any, Any]:
    """The specification of the RayService, and the config in it."""
    text = container(HERE, made, engine="ray", **more)["rayservice.yaml"]
    service = yaml.safe_load(text)
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    return service["spec"], yaml.safe_load(service["spec"]["serveConfigV2"])


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        ("loadshed", {"Dockerfile", "kubernetes.yaml", ".dockerignore"}),
        ("ray", {"Dockerfile", "rayservice.yaml", ".dockerignore"}),
    ],
)
def test_the_files_are_those_of_the_engine(engine: Engine, names: set[str]) -> None:
    files = container(HERE, config(), engine=engine)
    assert set(files) == names
    ignored = files[".dockerignore"].splitlines()
    assert {".git", ".env", ".venv", *names} <= {*ignored, ".dockerignore"}


def test_the_image_runs_the_config_as_nobody_in_particular() -> None:
    text = container(HERE, config(http="{port: 9000}"), name="my-app", python="3.13")["Dockerfile"]
    lines = text.splitlines()
    assert "FROM python:3.13-slim" in lines
    assert "docker build -t my-app:latest ." in lines[0]
    assert lines[-3:] == [
        "EXPOSE 9000",
        "STOPSIGNAL SIGTERM",
        'CMD ["loadshed", "run", "config.yaml", "--host", "0.0.0.0"]',
    ]
    assert lines.index("USER 10001") > lines.index("COPY . .")


def test_the_image_runs_a_config_of_another_name() -> None:
    text = container(HERE, config(), config_file='a "b".yaml')["Dockerfile"]
    command = json.loads(text.splitlines()[-1].removeprefix("CMD "))
    assert command == ["loadshed", "run", 'a "b".yaml', "--host", "0.0.0.0"]  # noqa: S104


@pytest.mark.parametrize("engine", ["loadshed", "ray"])
def test_the_image_has_the_requirements_where_there_are_some(
    tmp_path: Path, engine: Engine
) -> None:
    without = container(tmp_path, config(), engine=engine)["Dockerfile"]
    assert "requirements.txt" not in without
    (tmp_path / "requirements.txt").write_text("numpy")
    lines = container(tmp_path, config(), engine=engine)["Dockerfile"].splitlines()
    copied = lines.index("COPY requirements.txt ./")
    assert lines[copied + 1] == "RUN pip install --no-cache-dir -r requirements.txt"
    assert [line for line in without.splitlines() if line] == [
        line for line in lines if line and "requirements" not in line
    ]


def test_kubernetes_asks_the_port_that_is_served() -> None:
    _, only, service = kubernetes(config(http="{port: 9000}"), name="my-app")
    (port,) = only["ports"]
    assert port["containerPort"] == 9000
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert only[probe]["httpGet"] == {"path": "/-/healthz", "port": port["name"]}
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert only["image"] == "my-app:latest"


def test_kubernetes_finds_the_deployment_by_its_name() -> None:
    deployment, _, service = kubernetes(config(), name="my-app")
    labels = {"app": "my-app"}
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert deployment["metadata"]["name"] == service["metadata"]["name"] == "my-app"
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert deployment["spec"]["template"]["metadata"]["labels"] == labels
    assert service["spec"]["selector"] == labels


def test_kubernetes_lets_nothing_run_as_root() -> None:
    deployment, only, _ = kubernetes(config())
    security = deployment["spec"]["template"]["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert only["securityContext"]["allowPrivilegeEscalation"] is False
    user = f"USER {security['runAsUser']}"
    assert user in container(HERE, config())["Dockerfile"].splitlines()


@pytest.mark.parametrize(
    ("deployments", "seconds"),
    [
        ("", 20),
        ("{name: A, graceful_shutdown_timeout_s: 5}", 20),
        ("{name: A, graceful_shutdown_timeout_s: 60.5}, {name: B}", 61),
        ("{name: A, graceful_shutdown_timeout_s: 30}, {name: B}", 30),
        ("{name: A, graceful_shutdown_timeout_s: null}, {name: B}", LONGEST_END),
    ],
)
def test_kubernetes_waits_longer_than_the_slowest_replica(deployments: str, seconds: int) -> None:
    deployment, *_ = kubernetes(config(deployments))
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace == seconds + SPARE
    spec, _ = ray(config(deployments))
    (workers,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] == seconds + SPARE


@pytest.mark.parametrize(
    ("deployments", "cpus"),
    [("", "1"), ("{name: A}", "1"), ("{name: A, num_replicas: 3}, {name: B}", "4")],
)
def test_each_replica_gets_a_cpu(deployments: str, cpus: str) -> None:
    _, only, _ = kubernetes(config(deployments))
    assert only["resources"]["requests"]["cpu"] == cpus
    assert only["resources"]["limits"]


def test_ray_runs_the_image_that_is_built() -> None:
    files = container(HERE, config(), engine="ray", name="my-app", python="3.12")
    assert "FROM rayproject/ray:2.60.0-py312" in files["Dockerfile"].splitlines()
    cluster = ray(config(), name="my-app")[0]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = [each["template"]["spec"]["containers"][0]["image"] for each in groups]
    assert images == ["my-app:latest", "my-app:latest"]
    assert cluster["rayVersion"] == "2.60.0"


def test_ray_gets_the_config_as_it_can_serve_it() -> None:
    made = config(
        "{name: A, max_queued_requests: .inf, request_timeout_s: 5, health_check_period_s: null,"
        ' user_config: {prompt: "a\\n\\nb\\n"}}, {name: B}',
        "args: {a: 1}, route_prefix: null,"
        " runtime_env: {working_dir: src, py_modules: [.], env_vars: {A: b}, pip: [c]},",
        "{port: 9000, keep_alive_timeout_s: 1.5, ssl_keyfile: k}",
    )
    spec, served = ray(made)
    assert served == {
        "http_options": {
            "host": "0.0.0.0",  # noqa: S104
            "port": 9000,
            "keep_alive_timeout_s": 2,
            "request_timeout_s": 5,
            "ssl_keyfile": "k",
        },
        "applications": [
            {
                "import_path": "loadshed.ray_serve:build",
                "route_prefix": None,
                "args": {
                    "import_path": "a:b",
                    "args": {"a": 1},
                    "settings": {"A": {"request_timeout_s": 5}},
                },
                "runtime_env": {
                    "working_dir": "local:///home/ray/app/src",
                    "py_modules": ["local:///home/ray/app"],
                    "env_vars": {"A": "b"},
                    "pip": ["c"],
                },
                "deployments": [
                    {
                        "name": "A",
                        "max_queued_requests": -1,
                        "user_config": {"prompt": "a\n\nb\n"},
                        "health_check_period_s": 10,
                    },
                    {"name": "B"},
                ],
            }
        ],
    }
    ports = spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    assert {"name": "serve", "containerPort": 9000} in ports


def test_ray_gets_no_more_than_there_is() -> None:
    made = parse("applications: [{import_path: 'a:b'}]").config
    assert ray(made)[1] == {
        "http_options": {"host": "0.0.0.0", "port": 8000, "request_timeout_s": None},  # noqa: S104
        "applications": [
            {"import_path": "loadshed.ray_serve:build", "args": {"import_path": "a:b"}}
        ],
    }


@pytest.mark.parametrize(
    ("queue", "settings"),
    [("", {"num_replicas": 2, "max_ongoing_requests": 3}), (", max_queued_requests: 4", None)],
)
def test_ray_gets_the_queue_that_goes_with_the_numbers(queue: str, settings: object) -> None:
    made = config(f"{{name: A, num_replicas: 2, max_ongoing_requests: 3{queue}}}")
    args = ray(made)[1]["applications"][0]["args"]
    assert args.get("settings", {}).get("A") == settings


def test_what_is_built_for_ray_already_stays_so() -> None:
    before = "{A: {request_timeout_s: 1}, B: {num_replicas: 2}}"
    args = f"{{import_path: 'a:b', args: {{c: 1}}, settings: {before}}}"
    made = parse(
        f"applications: [{{import_path: 'loadshed.ray_serve:build', args: {args},"
        " deployments: [{name: A, request_timeout_s: 3}, {name: C, request_timeout_s: null}]}]"
    ).config
    (served,) = ray(made)[1]["applications"]
    assert served["import_path"] == "loadshed.ray_serve:build"
    assert served["args"] == {
        "import_path": "a:b",
        "args": {"c": 1},
        "settings": {
            "A": {"request_timeout_s": 3},
            "B": {"num_replicas": 2},
            "C": {"request_timeout_s": None},
        },
    }


@pytest.mark.parametrize(
    ("http", "deployment", "expected"),
    [("3", "5", 5), ("7", "5", 7), ("null", "5", None), (".inf", "5", None)],
)
def test_ray_gets_the_largest_bound_of_all(http: str, deployment: str, expected: object) -> None:
    made = config(
        f"{{name: A, request_timeout_s: {deployment}}}", http=f"{{request_timeout_s: {http}}}"
    )
    assert ray(made)[1]["http_options"]["request_timeout_s"] == expected


def test_what_ray_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_wait of A must be left out"):
        container(HERE, config("{name: A, max_wait: 1}"), engine="ray")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "My App"}, "name must be lower case letters"),
        ({"name": "a" * 64}, "name must be lower case letters"),
        ({"name": "a-"}, "name must be lower case letters"),
        ({"python": "3"}, "python must be a version like '3.12'"),
        ({"python": "3.10"}, "python must be a version like '3.12'"),
        ({"python": "3.12\nUSER root"}, "python must be a version like '3.12'"),
    ],
)
def test_what_no_file_can_say_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        container(HERE, config(), **more)


def test_a_port_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"http_options.port must be a port that is known"):
        container(HERE, config(http="{port: 0}"))


@pytest.mark.parametrize("engine", ["loadshed", "ray"])
@pytest.mark.parametrize("env", ["{working_dir: ../code}", "{py_modules: [., /srv/lib]}"])
def test_a_path_that_is_not_in_the_image_is_refused(engine: Engine, env: str) -> None:
    with pytest.raises(ConfigError, match="runtime_env must be about paths in /home/me/project"):
        container(HERE, config(more=f"runtime_env: {env},"), engine=engine)


def test_a_path_that_leads_out_of_the_image_again_is_refused() -> None:
    text = "applications: [{import_path: 'a:b', runtime_env: {working_dir: a/../../b}}]"
    with pytest.raises(ConfigError, match="about paths in"):
        container(HERE, parse(text).config)


def test_a_path_in_the_image_is_fine() -> None:
    made = config(more="runtime_env: {working_dir: src, py_modules: [lib]},")
    assert container(HERE, made) == container(HERE, config())


def test_files_are_written(tmp_path: Path) -> None:
    files = container(tmp_path, config())
    write(tmp_path, files)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_no_file_is_overwritten_and_then_none_is_written(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("mine")
    (tmp_path / "kubernetes.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"one without Dockerfile, kubernetes\.yaml, not"):
        write(str(tmp_path), container(tmp_path, config()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dockerfile", "kubernetes.yaml"]
    assert (tmp_path / "Dockerfile").read_text() == "mine"
