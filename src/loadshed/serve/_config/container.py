"""What a container needs to serve a config: files for Docker and Kubernetes."""

import json
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadshed._errors import ConfigError
from loadshed.serve._config import for_ray
from loadshed.serve._config.schema import ApplicationConfig, DeploymentConfig, ServeConfig
from loadshed.serve._config.write import Engine, for_ray_builder, to_plain, to_yaml_of_plain
from loadshed.serve._settings import settings

RAY = "2.60.0"
"""The version of Ray whose image is used."""

SPARE = 10
"""Seconds that Kubernetes waits longer than the slowest replica may take to end."""

LONGEST_END = 3600
"""Seconds that Kubernetes waits where a replica may take for ever: it has no such thing."""

_CODE = {"loadshed": "/app", "ray": "/home/ray/app"}

_DOCKERFILE = """\
# Build it:  docker build -t {image} .
FROM python:{python}-slim

ENV PYTHONUNBUFFERED=1 XDG_STATE_HOME=/tmp/state
WORKDIR /app

# What seldom changes comes first.
RUN pip install --no-cache-dir 'loadshed[serve]'
{requirements}
COPY . .
RUN useradd --uid 10001 --no-create-home app
USER 10001

EXPOSE {port}
STOPSIGNAL SIGTERM
CMD ["loadshed", "run", {config_file}, "--host", "0.0.0.0"]
"""

_RAY_DOCKERFILE = """\
# Build it:  docker build -t {image} .
FROM rayproject/ray:{ray}-py{python}

ENV PYTHONPATH=/home/ray/app
WORKDIR /home/ray/app

# What seldom changes comes first.
RUN pip install --no-cache-dir 'loadshed[ray]'
{requirements}
COPY --chown=ray:users . .
"""

_REQUIREMENTS = """\
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
"""

_IGNORED = """\
# What is not part of the image.
.git
.env
.venv
venv
**/__pycache__
**/*.pyc
.dockerignore
Dockerfile
kubernetes.yaml
rayservice.yaml
"""

_KUBERNETES = """\
# Use it:  kubectl apply -f kubernetes.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels:
    app: {name}
spec:
  replicas: 1
  selector:
    matchLabels:
      app: {name}
  template:
    metadata:
      labels:
        app: {name}
    spec:
      # The largest graceful_shutdown_timeout_s, and {spare} s more.
      terminationGracePeriodSeconds: {grace}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        seccompProfile:
          type: RuntimeDefault
      containers:
      - name: {name}
        image: {image}  # change this to where you push it
        ports:
        - name: http
          containerPort: {port}
        securityContext:
          allowPrivilegeEscalation: false
          capabilities:
            drop: [ALL]
        # A replica is a process: one CPU for each is a good start.
        resources:
          requests:
            cpu: "{cpus}"
            memory: 512Mi
          limits:
            memory: 2Gi
        # Up to 10 minutes to load the models.
        startupProbe:
          httpGet:
            path: /-/healthz
            port: http
          periodSeconds: 5
          failureThreshold: 120
        readinessProbe:
          httpGet:
            path: /-/healthz
            port: http
          periodSeconds: 5
        livenessProbe:
          httpGet:
            path: /-/healthz
            port: http
          periodSeconds: 10
          timeoutSeconds: 5
          failureThreshold: 6
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  labels:
    app: {name}
spec:
  selector:
    app: {name}
  ports:
  - name: http
    port: 80
    targetPort: http
"""

_RAY_SERVICE = """\
# Use it with KubeRay:  kubectl apply -f rayservice.yaml
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: {name}
spec:
  serveConfigV2: |
{config}
  rayClusterConfig:
    rayVersion: "{ray}"
    headGroupSpec:
      rayStartParams:
        num-cpus: "0"
      template:
        spec:
          containers:
          - name: ray-head
            image: {image}  # change this to where you push it
            ports:
            - name: gcs-server
              containerPort: 6379
            - name: dashboard
              containerPort: 8265
            - name: client
              containerPort: 10001
            - name: serve
              containerPort: {port}
            resources:
              requests:
                cpu: "1"
                memory: 2Gi
              limits:
                memory: 4Gi
    workerGroupSpecs:
    - groupName: workers
      replicas: 1
      minReplicas: 1
      maxReplicas: 4
      rayStartParams: {{}}
      template:
        spec:
          # The largest graceful_shutdown_timeout_s, and {spare} s more.
          terminationGracePeriodSeconds: {grace}
          containers:
          - name: ray-worker
            image: {image}
            # One CPU for each replica, if its ray_actor_options do not say otherwise.
            resources:
              requests:
                cpu: "{cpus}"
                memory: 2Gi
              limits:
                memory: 4Gi
"""


def container(
    directory: str | Path,
    config: ServeConfig,
    *,
    name: str = "app",
    python: str = "3.12",
    engine: Engine = "loadshed",
    config_file: str = "config.yaml",
) -> dict[str, str]:
    """The files, by name, that make an image of a directory and run it; none is written.

    Args:
        directory: What becomes the image; the code of the applications is in it.
        config: What the config file in it says, as it was read from there.
        name: What image, deployment and service are called.
        python: The version of Python.
        engine: What serves: loadshed itself, or Ray Serve by KubeRay.
        config_file: The name of the config file in the directory.

    Raises:
        ConfigError: Something of it can't be in a container.
    """
    directory = Path(directory).absolute()
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise ConfigError("name", name, "lower case letters, digits and '-', at most 63")
    if not re.fullmatch(r"3\.(1[1-9]|[2-9]\d)", python):
        raise ConfigError("python", python, "a version like '3.12', from 3.11 on")
    values = {
        "name": name,
        "image": f"{name}:latest",
        "python": python.replace(".", "") if engine == "ray" else python,
        "ray": RAY,
        "port": _port(config),
        "grace": _grace(config),
        "spare": SPARE,
        "cpus": _replicas(config),
        "requirements": _REQUIREMENTS if (directory / "requirements.txt").is_file() else "",
        "config_file": json.dumps(config_file),
    }
    plain = _in_image(directory, config, engine)
    if engine == "ray":
        values["config"] = textwrap.indent(to_yaml_of_plain(config_for_ray(config, plain)), "    ")
        return _files(values, Dockerfile=_RAY_DOCKERFILE, rayservice=_RAY_SERVICE)
    return _files(values, Dockerfile=_DOCKERFILE, kubernetes=_KUBERNETES)


def write(directory: str | Path, files: Mapping[str, str]) -> None:
    """Write the files, and none of them where one is there already.

    Raises:
        ConfigError: There are such files; it names them.
    """
    paths = {Path(directory, name): text for name, text in files.items()}
    there = [path.name for path in paths if path.exists() or path.is_symlink()]
    if there:
        raise ConfigError("directory", str(directory), f"one without {', '.join(there)}")
    for path, text in paths.items():
        with path.open("x", encoding="utf-8") as file:  # and none that came up meanwhile
            file.write(text)


def _files(values: Mapping[str, Any], **templates: str) -> dict[str, str]:
    files = {
        name if name == "Dockerfile" else f"{name}.yaml": template.format_map(values)
        for name, template in templates.items()
    }
    return {**files, ".dockerignore": _IGNORED}


def _port(config: ServeConfig) -> int:
    port = config.http_options.port
    if port == 0:
        raise ConfigError("http_options.port", port, "a port that is known in advance")
    return port


def _deployments(config: ServeConfig) -> list[DeploymentConfig]:
    return [each for application in config.applications for each in application.deployments]


def _replicas(config: ServeConfig) -> int:
    """How many the config tells of; the code may tell of more."""
    numbers = [each.num_replicas or 1 for each in _deployments(config)]
    return max(1, sum(numbers))


def _grace(config: ServeConfig) -> int:
    """The code may give more: then it has to be in the config, too."""
    setting = "graceful_shutdown_timeout_s"
    default: float | None = getattr(settings(), setting)
    times = [each.given().get(setting, default) for each in _deployments(config)]
    bounds: list[float] = [LONGEST_END if time is None else time for time in (default, *times)]
    return math.ceil(max(bounds)) + SPARE


# The paths of a config that was read are absolute, and those of this machine.


def _in_image(directory: Path, config: ServeConfig, engine: Engine) -> dict[str, Any]:
    """The config as plain data, its paths as they are in the image."""
    plain = to_plain(config)
    for application in plain["applications"]:
        env = application.get("runtime_env", {})
        if env.get("working_dir") is not None:
            env["working_dir"] = _path(directory, env["working_dir"], engine)
        if env.get("py_modules"):
            env["py_modules"] = [_path(directory, each, engine) for each in env["py_modules"]]
    return plain


def _path(directory: Path, path: str, engine: Engine) -> str:
    whole = directory / path
    if not whole.is_relative_to(directory) or ".." in whole.parts:
        raise ConfigError("runtime_env", path, f"about paths in {directory}: they are in the image")
    return str(Path(_CODE[engine], whole.relative_to(directory)))


def config_for_ray(
    config: ServeConfig,
    plain: dict[str, Any],
    *,
    host: str = "0.0.0.0",  # noqa: S104 - of a container
) -> dict[str, Any]:
    """A config as Ray can serve it.

    Args:
        config: The config.
        plain: The same as plain data, with paths as they are where Ray runs.
        host: The address to listen at.

    Raises:
        ConfigError: Ray has nothing that means the same.
    """
    given = [each.given() for each in _deployments(config)]
    http = config.http_options
    if "request_timeout_s" in http.model_fields_set:
        given.append({"request_timeout_s": http.request_timeout_s})
    options = {**plain.get("http_options", {}), "host": host, "port": http.port}
    options["request_timeout_s"] = for_ray.request_timeout(given)
    if "keep_alive_timeout_s" in options:
        options["keep_alive_timeout_s"] = math.ceil(options["keep_alive_timeout_s"])
    pairs = zip(config.applications, plain["applications"], strict=True)
    return {
        **plain,
        "http_options": options,
        "applications": [_application_for_ray(*pair) for pair in pairs],
    }


def _application_for_ray(config: ApplicationConfig, plain: dict[str, Any]) -> dict[str, Any]:
    deployments = [
        {"name": each.name} | {name: made.value for name, made in _settings(each).items()}
        for each in config.deployments
    ]
    env = _env_for_ray(plain.get("runtime_env", {}))
    more = {"runtime_env": env, "deployments": deployments}
    settings = {each.name: given for each in config.deployments if (given := _for_builder(each))}
    built = for_ray_builder(config.import_path, plain.get("args", {}), settings)
    return {**plain, **built, **{name: value for name, value in more.items() if value}}


def _for_builder(config: DeploymentConfig) -> dict[str, Any]:
    """The settings that Ray does not know, and what its queue is as long as by default."""
    names = {"request_timeout_s"}
    if "max_queued_requests" not in config.model_fields_set:
        names |= {"num_replicas", "max_ongoing_requests"}
    return {name: value for name, value in config.given().items() if name in names}


def _settings(config: DeploymentConfig) -> dict[str, for_ray.Setting]:
    made = for_ray.deployment(config.name, config.given())
    if "max_queued_requests" not in config.model_fields_set:
        del made["max_queued_requests"]  # then the code may say it
    return made


def _env_for_ray(env: dict[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in env.items() if value not in (None, [], {})}
    if env.get("working_dir") is not None:
        made["working_dir"] = f"local://{env['working_dir']}"
    if env.get("py_modules"):
        made["py_modules"] = [f"local://{each}" for each in env["py_modules"]]
    return made
