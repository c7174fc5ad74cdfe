"""Writing a config: as it was given, as JSON, and as a new file that names every setting."""

import copy
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import yaml
from pydantic import BaseModel

from loadshed._errors import ConfigError
from loadshed.serve._config import for_ray
from loadshed.serve._config.file import from_plain
from loadshed.serve._config.rules import INFINITE
from loadshed.serve._config.schema import (
    ApplicationConfig,
    DeploymentConfig,
    HTTPOptions,
    RuntimeEnv,
    ServeConfig,
)
from loadshed.serve._config.tree import of_plain
from loadshed.serve._described import Described, DescribedDeployment
from loadshed.serve._settings import ONLY_RAY, BackpressureConfig, Settings, checked

Engine = Literal["loadshed", "ray"]
"""What a file is for."""

RAY_BUILDER = "loadshed.ray_serve:build"
"""What a file for Ray names in place of the application, which is none of Ray's own."""

_HEAD = {
    "loadshed": "# Written by `loadshed build`: every setting, and its value.\n"
    "# Change what you like, then: loadshed run FILE, or loadshed deploy FILE.\n\n",
    "ray": "# Written by `loadshed build` for Ray Serve. Change what you like, then:\n"
    "# serve deploy FILE.\n\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application that a file is written for.

    Attributes:
        name: What it is called.
        route_prefix: The path under which HTTP requests reach it; None is by handle only.
        import_path: Where the code has it: "package.module:name".
        described: What its code says.
    """

    name: str
    route_prefix: str | None
    import_path: str
    described: Described


def to_yaml(config: ServeConfig) -> str:
    """What the config was given, as a file that says the same."""
    return to_yaml_of_plain(_given(config))


def to_plain(config: ServeConfig) -> dict[str, Any]:
    """What the config was given, as JSON has it; infinity is the string ".inf"."""
    return _finite(copy.deepcopy(_given(config)))  # type: ignore[no-any-return]


def build(applications: Sequence[Application], *, engine: Engine = "loadshed") -> str:
    """A file with every setting at its value: what the code gives, else the default.

    Raises:
        ConfigError: An application can't be in a file, or not in one for this engine.
    """
    given = {id(each): _checked(each) for app in applications for each in app.described.deployments}
    _check(applications)
    entries = _for_ray(applications, given) if engine == "ray" else _for_us(applications, given)
    return _HEAD[engine] + "\n".join(_lines(entries)) + "\n"


def for_ray_builder(
    import_path: str, args: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Where Ray finds an application, and what it is built with, as its file has them.

    Args:
        import_path: Where the code has it; or `RAY_BUILDER`, where `args` says that already.
        args: What it is built with.
        settings: By deployment, those which Ray does not know.
    """
    is_builder = import_path == RAY_BUILDER
    made: dict[str, Any] = dict(args) if is_builder else {"import_path": import_path}
    if args and not is_builder:
        made["args"] = dict(args)
    if settings:
        before = made.get("settings", {})
        more = {name: {**before.get(name, {}), **each} for name, each in settings.items()}
        made["settings"] = {**before, **more}
    return {"import_path": RAY_BUILDER, "args": made}


def _given(value: Any) -> Any:
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if name in value.model_fields_set]
        return {name: _given(getattr(value, name)) for name in names}
    return [_given(each) for each in value] if isinstance(value, tuple) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return INFINITE if value == math.inf else value


class _Dumper(yaml.SafeDumper):
    """One that writes everything out."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    if re.search("[\r\x85\u2028\u2029]", value):  # YAML takes them for ends of lines
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_yaml_of_plain(value: object) -> str:
    """Plain data as a file, each part written out where it stands."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text


# A new file: entries with comments.


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the file; its value may be entries again, or a list of such."""

    name: str
    value: Any
    comment: str


_Entries = list[_Entry]


class _Left:
    """In place of a value: only a comment is written."""


def _lines(entries: _Entries) -> Iterator[str]:
    for entry in entries:
        yield from textwrap.wrap(entry.comment, 90, initial_indent="# ", subsequent_indent="# ")
        yield from _value(entry)


def _value(entry: _Entry) -> Iterator[str]:
    match entry.value:
        case _Left():
            pass
        case [_Entry(), *_]:
            yield f"{entry.name}:"
            yield from (f"  {line}" for line in _lines(entry.value))
        case [[_Entry(), *_], *_]:
            yield f"{entry.name}:"
            for item in entry.value:
                yield from _item(item)
        case _:
            yield from to_yaml_of_plain({entry.name: entry.value}).rstrip("\n").split("\n")


def _item(entries: _Entries) -> Iterator[str]:
    """An item of a list: the comment of its first entry comes before the dash."""
    first, *others = _lines(entries[:1])
    yield first
    yield from (f"- {line}" for line in others)
    yield from (f"  {line}" for line in _lines(entries[1:]))


def _described(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].description or ""


def _entry(model: type[BaseModel], name: str, value: Any, note: str = "") -> _Entry:
    return _Entry(name, value, f"{_described(model, name)} {note}".strip())


def _defaults(model: Any, **instead: Any) -> _Entries:
    made = model(**instead)
    return [_entry(model, name, _plainly(getattr(made, name)), "Default.") for name in model.rules]


def _plainly(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check(applications: Sequence[Application]) -> None:
    plain = [
        {
            "name": app.name,
            "route_prefix": app.route_prefix,
            "import_path": app.import_path,
            "deployments": [{"name": each.name} for each in app.described.deployments],
        }
        for app in applications
    ]
    from_plain({"applications": plain}, source="build")


def _checked(deployment: DescribedDeployment) -> dict[str, Any]:
    """What the code gives, as data that a file can hold."""
    given = checked({name: _data(value) for name, value in deployment.given.items()})
    for name, value in given.items():
        inner = value if name == "user_config" or name in ONLY_RAY else None
        if of_plain(inner, finite=True).wrong:
            raise ConfigError(f"{name} of {deployment.name}", value, "data that a file can hold")
    return given


def _data(value: Any) -> Any:
    """Ray's own classes for settings are models."""
    is_model = isinstance(value, BaseModel)
    return value.model_dump(mode="json", exclude_unset=True) if is_model else value


_Given = Mapping[int, dict[str, Any]]


def _for_us(applications: Sequence[Application], given: _Given) -> _Entries:
    apps = [
        [
            *_start(app),
            _entry(ApplicationConfig, "runtime_env", _defaults(RuntimeEnv)),
            _entry(
                ApplicationConfig,
                "deployments",
                [_ours(each, given[id(each)]) for each in app.described.deployments],
            ),
        ]
        for app in applications
    ]
    return [
        _entry(ServeConfig, "http_options", _defaults(HTTPOptions)),
        _entry(ServeConfig, "applications", apps),
    ]


def _start(app: Application) -> _Entries:
    values = {"name": app.name, "route_prefix": app.route_prefix, "import_path": app.import_path}
    entries = [_entry(ApplicationConfig, name, value) for name, value in values.items()]
    return [*entries, _entry(ApplicationConfig, "args", {}, "Default.")]


def _ours(deployment: DescribedDeployment, given: dict[str, Any]) -> _Entries:
    settings = Settings(**{name: each for name, each in given.items() if name not in ONLY_RAY})
    entries = [_entry(DeploymentConfig, "name", deployment.name)]
    for each in fields(Settings):
        value = getattr(settings, each.name)
        entries.append(_our_setting(deployment, each.name, value, given))
    left = [name for name in given if name in ONLY_RAY]
    text = "in the code, but for Ray alone."
    return entries + [_Entry(name, _Left(), f"{name}: {text}") for name in left]


def _our_setting(
    deployment: DescribedDeployment, name: str, value: Any, given: Mapping[str, Any]
) -> _Entry:
    if name == "user_config" and name not in given and not deployment.reconfigurable:
        return _no_user_config(deployment)
    if isinstance(value, BackpressureConfig):
        value = for_ray.backpressure(value)
    return _entry(DeploymentConfig, name, value, "" if name in given else "Default.")


def _no_user_config(deployment: DescribedDeployment) -> _Entry:
    return _Entry(
        "user_config", _Left(), f"user_config: none, {deployment.name} has no `reconfigure`."
    )


def _ray_start(app: Application, given: _Given) -> _Entries:
    setting = "request_timeout_s"
    settings = {
        each.name: {setting: given[id(each)][setting]}
        for each in app.described.deployments
        if setting in given[id(each)]
    }
    name, route_prefix, *_ = _start(app)
    made = for_ray_builder(app.import_path, {}, settings)
    what = "Where the application is, and of its deployments what Ray has no setting for."
    return [
        name,
        route_prefix,
        _Entry("import_path", made["import_path"], "What makes it an application of Ray's."),
        _Entry("args", made["args"], what),
    ]


def _for_ray(applications: Sequence[Application], given: _Given) -> _Entries:
    apps = [
        [
            *_ray_start(app, given),
            _entry(ApplicationConfig, "runtime_env", {}, "Default."),
            _entry(
                ApplicationConfig,
                "deployments",
                [_rays(each, given[id(each)]) for each in app.described.deployments],
            ),
        ]
        for app in applications
    ]
    return [
        _Entry("proxy_location", "EveryNode", "The nodes that take HTTP requests. Default."),
        _entry(ServeConfig, "http_options", _ray_http(given)),
        _entry(ServeConfig, "applications", apps),
    ]


def _ray_http(given: _Given) -> _Entries:
    timeout = for_ray.request_timeout(given.values())
    entries = _defaults(HTTPOptions, host="0.0.0.0", request_timeout_s=timeout)  # noqa: S104
    note = "The largest that a deployment has; Ray has one for all."
    return [
        _entry(HTTPOptions, each.name, timeout, note)
        if each.name == "request_timeout_s" and timeout is not None
        else each
        for each in entries
    ]


def _rays(deployment: DescribedDeployment, given: dict[str, Any]) -> _Entries:
    ours = {each.name: getattr(Settings(), each.name) for each in fields(Settings)}
    no_config = not deployment.reconfigurable and "user_config" not in given
    if no_config:
        del ours["user_config"]
    entries = [_entry(DeploymentConfig, "name", deployment.name)]
    for name, (value, note) in for_ray.deployment(deployment.name, {**ours, **given}).items():
        default = "" if name in given or note else "Default."
        comment = _described(DeploymentConfig, name).replace("no effect on one machine: ", "")
        entries.append(_Entry(name, value, f"{comment} {note or default}".strip()))
    return [*entries, _no_user_config(deployment)] if no_config else entries
