"""From an application of ours to one of Ray Serve's."""

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import ray.serve

from loadshed._errors import ConfigError
from loadshed._replica.target import is_application
from loadshed.ray_serve._code import Code, Imported, Sent
from loadshed.ray_serve._handle import RayHandle
from loadshed.ray_serve._replica import CallReplica, IngressReplica
from loadshed.serve._config import for_ray
from loadshed.serve._deployment import APPLICATION, Application
from loadshed.serve._graph import nodes
from loadshed.serve._settings import checked, did_you_mean
from loadshed.serve._source import Source, load

_logger = logging.getLogger("loadshed")

Handles = Mapping[str, RayHandle]
Given = dict[str, Any]


def to_ray(application: Application) -> Any:
    """The same application for Ray Serve: what `ray.serve.run` takes.

    Code of the program's main script is sent to the replicas; other code they import.

    Args:
        application: A bound deployment.

    Raises:
        ConfigError: It is none, or has a setting that Ray can't have; it says which.
    """
    if not isinstance(application, Application):
        raise ConfigError("application", application, "a bound deployment: `Model.bind()`")
    named = nodes(application)

    def code(name: str, handles: Handles) -> Code:
        return Sent(named[name], named, handles)

    return _bound(named, code, {})


def build(args: dict[str, Any]) -> Any:
    """The same for an application that is imported: what a config file of Ray names.

    ```yaml
    import_path: loadshed.ray_serve:build
    args:
      import_path: module:app
    ```

    `loadshed build --engine ray` writes it.

    Args:
        args: What the file gives. `import_path`: where the application is; `args`: what it is built
            with, where it is a function; `settings`: of its deployments, by their names, which
            count instead of those in the code. That is for `request_timeout_s`, which Ray does not
            know; Ray's own `deployments` count more.

    Raises:
        ConfigError: They are not what they may be, or as for `to_ray`.
    """
    known = ("import_path", "args", "settings")
    for name in args:
        if name not in known:
            raise ConfigError("args", name, f"one of {', '.join(known)}{did_you_mean(name, known)}")
    path = args.get("import_path")
    if not isinstance(path, str) or ":" not in path:
        raise ConfigError("args.import_path", path, 'a path like "module:app"')
    source = Source(import_path=path, args=args.get("args") or {})
    named = nodes(load(source))

    def code(name: str, handles: Handles) -> Code:
        return Imported(source, name, handles)

    return _bound(named, code, _settings(args.get("settings") or {}, named))


def _settings(given: Mapping[str, Given], named: Mapping[str, Application]) -> dict[str, Given]:
    for name in given:
        if name not in named:
            expected = f"the name of a deployment in the code{did_you_mean(name, named)}"
            raise ConfigError("args.settings", name, expected)
    return {name: checked(each) for name, each in given.items()}


def _bound(
    named: Mapping[str, Application],
    code: Callable[[str, Handles], Code],
    settings: Mapping[str, Given],
) -> Any:
    """Ray's application, whose deployments are bound to those that they call."""
    bound: Any = None
    handles: dict[str, RayHandle] = {}
    for name, node in named.items():
        given = node.deployment.given | settings.get(name, {})
        deployment = _deployment(name, node.deployment.func_or_class, given)
        called = _called(node, named, handles)
        bound = deployment.bind(code(name, called), given.get("request_timeout_s"))
        handles[name] = RayHandle(name, bound)
    return bound


def _deployment(name: str, code: Any, given: Given) -> Any:
    options = _options(name, code, given)
    try:
        return ray.serve.deployment(_replica_of(code), name=name, **options)
    except (TypeError, ValueError) as error:
        expected = f"what this version of Ray Serve takes ({error})"
        raise ConfigError(f"what is set for {name}", options, expected) from error


def _called(node: Application, named: Mapping[str, Application], handles: Handles) -> Handles:
    """The handles to those that it calls: Ray deploys what it finds here."""
    inner = {id(each) for each in nodes(node).values()}
    return {name: handle for name, handle in handles.items() if id(named[name]) in inner}


def _replica_of(code: Any) -> Any:
    if not isinstance(code, type):
        return IngressReplica if is_application(code) else CallReplica
    call = getattr(code, "__call__", None)  # noqa: B004 - not whether, but what
    parameters = list(inspect.signature(call).parameters)[1:] if inspect.isfunction(call) else []
    is_ingress = hasattr(code, APPLICATION) or parameters == ["scope", "receive", "send"]
    return IngressReplica if is_ingress else CallReplica


def _options(name: str, code: Any, given: Given) -> dict[str, Any]:
    """The settings, as Ray takes them in code.

    Raises:
        ConfigError: Ray has nothing that means the same.
    """
    config = given.get("user_config")  # a file of Ray's takes only mappings, but its code does any
    if config is not None and not callable(getattr(code, "reconfigure", None)):
        expected = f"left out: {name} has no method `reconfigure`"
        raise ConfigError("user_config", config, expected)
    options = {setting: given[setting] for setting in for_ray.NOT_IN_FILES & given.keys()}
    others = {setting: value for setting, value in given.items() if setting != "user_config"}
    for setting, (value, note) in for_ray.deployment(name, others).items():
        options[setting] = value
        if note and setting in given and setting != "max_queued_requests":
            _logger.warning("%s of %s is %r on Ray. %s", setting, name, value, note)
    return options if config is None else options | {"user_config": config}
