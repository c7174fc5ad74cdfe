"""Reading a config file: all that is wrong in it at once, each with its line."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from loadshed._errors import ConfigError
from loadshed.serve._config import tree
from loadshed.serve._config.rules import SeveralError, path
from loadshed.serve._config.schema import (
    PARTS,
    ApplicationConfig,
    RuntimeEnv,
    ServeConfig,
    repeated,
)
from loadshed.serve._config.tree import Mark, Place, Tree, Wrong, shown
from loadshed.serve._settings import did_you_mean

LARGEST = 10_000_000
"""Bytes that a file may have."""

_INSTALLS = frozenset({"conda", "container", "image_uri", "pip", "py_executable", "uv"})
_NO_EFFECT = "has no effect here: it is for Ray Serve."
_NOT_INSTALLED = "is not installed here: install it into the environment of loadshed."
_SPELLINGS = {"math.inf": ".inf", "None": "null", "True or False": "true or false"}
"""What is called otherwise in YAML."""
_UNBOUNDED = "is -1, Ray's spelling of no bound: .inf says it plainly."


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a config file, or worth a warning.

    Attributes:
        message: What it must be, without its place.
        where: Its place: `applications[0].deployments[1].num_replicas`.
        line: Its line, from 1; None where the data had none.
        column: Its column, from 1.
        source: The file.
    """

    message: str
    where: str = ""
    line: int | None = None
    column: int | None = None
    source: str = ""

    def __str__(self) -> str:
        at = [str(each) for each in (self.source, self.line, self.column) if each not in (None, "")]
        said = f"{self.where or 'the config'} {self.message}"
        return f"{':'.join(at)}: {said}" if at else said


class ConfigFileError(ConfigError):
    """A config file is wrong.

    Attributes:
        mistakes: All that is wrong in it, in the order of the file.
    """

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        first = self.mistakes[0]
        super().__init__(first.where, None, first.message)
        self.args = (self.mistakes,)  # what it is made of again when it is unpickled

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config file that has been read.

    Attributes:
        config: What it says.
        warnings: What in it has no effect here, or means something else than one might think.
    """

    config: ServeConfig
    warnings: tuple[Mistake, ...] = ()
    _source: str = field(default="", compare=False, repr=False)
    _marks: Mapping[str, Mark] = field(default_factory=dict, compare=False, repr=False)

    @property
    def path(self) -> str:
        """The file, as the server knows it too."""
        return os.path.realpath(self._source)

    def located(self, mistakes: Iterable[Mistake]) -> Iterator[Mistake]:
        """Mistakes that were found later, and know their place, with their line as well."""
        for mistake in mistakes:
            where = mistake.where
            while where and where not in self._marks:
                where = re.sub(r"(\.[^.\[]*|\[[^.\[]*|[^.\[]*)$", "", where)
            mark = self._marks[where]
            yield replace(mistake, line=mark.line, column=mark.column, source=self._source)


def read(path: str | Path) -> ConfigFile:
    """Read a config file. Relative paths in it are relative to its folder.

    Raises:
        ConfigFileError: It can't be read, or something in it is wrong.
    """
    path = Path(path)
    return parse(_text(path), source=str(path), base=path.parent)


def parse(text: str, *, source: str = "<config>", base: Path | None = None) -> ConfigFile:
    """Read the text of a config file.

    Args:
        text: YAML.
        source: What mistakes call it.
        base: The folder that relative paths start at; without one they stay as they are.

    Raises:
        ConfigFileError: Something in it is wrong.
    """
    return _checked(tree.of_yaml(text), source, base)


def from_plain(value: object, *, source: str = "<config>") -> ConfigFile:
    """Check data that comes as JSON, as if it came from a file.

    Raises:
        ConfigFileError: Something in it is wrong.
    """
    return _checked(tree.of_plain(value), source, None)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"must be UTF-8, and is not from byte {error.start} on.") from None
    except (OSError, ValueError) as error:  # a ValueError: there is a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise _unreadable(path, f"can't be read: {reason}.") from None
    if len(content) > LARGEST:
        raise _unreadable(path, f"must have at most {LARGEST} bytes.")
    return text


def _unreadable(path: Path, message: str) -> ConfigFileError:
    return ConfigFileError([Mistake(message, source=str(path))])


def _checked(found: Tree, source: str, base: Path | None) -> ConfigFile:
    wrong = [*found.wrong]
    try:
        config = ServeConfig.model_validate(found.value)
    except ValidationError as error:
        wrong += _not_told_yet(wrong, [*_told_by(error), *_repeated(found.value)])
    if wrong:
        raise ConfigFileError(_mistakes(wrong, found, source))
    warnings = _mistakes(_warnings(config, ()), found, source)
    marks = {path(place): mark for place, mark in found.values.items()}
    return ConfigFile(_from(base, config) if base else config, warnings, source, marks)


def _mistakes(wrong: Iterable[Wrong], found: Tree, source: str) -> tuple[Mistake, ...]:
    marked = [(found.mark(each), each) for each in wrong]
    marked.sort(key=lambda pair: pair[0].rank)
    return tuple(
        Mistake(each.message, path(each.place), mark.line, mark.column, source)
        for mark, each in marked
    )


def _told_by(error: ValidationError) -> Iterator[Wrong]:
    for each in error.errors(include_url=False):
        place: Place = each["loc"]
        match each["type"]:
            case "missing":
                yield Wrong(place, "is missing.")
            case "extra_forbidden":
                yield Wrong(place, _unknown(place), at_key=True)
            case _:
                yield from _told_by_rule(place, each["ctx"]["error"])


def _told_by_rule(place: Place, error: ConfigError | SeveralError) -> Iterator[Wrong]:
    if isinstance(error, SeveralError):
        for each in error.wrong:
            yield each._replace(place=(*place, *each.place))
    else:
        yield Wrong(place, f"must be {_in_yaml(error.expected)}, not {shown(error.value)}.")


def _in_yaml(expected: str) -> str:
    for ours, theirs in _SPELLINGS.items():
        expected = expected.replace(ours, theirs)
    return expected


def _unknown(place: Place) -> str:
    around = [PARTS[step] for step in place[:-1] if isinstance(step, str)]
    model = around[-1] if around else ServeConfig
    meant = did_you_mean(str(place[-1]), model.model_fields)
    return f"is no field here{meant}."


def _repeated(value: Any) -> Iterator[Wrong]:
    """Names that are there twice. The models see them only once nothing else is wrong."""
    applications = _mappings(value, "applications")
    for name in ("name", "route_prefix"):
        default = ApplicationConfig.model_fields[name].default
        yield from _within(("applications",), name, applications, default)
    for index, application in enumerate(applications):
        place = ("applications", index, "deployments")
        yield from _within(place, "name", _mappings(application, "deployments"), None)


def _within(place: Place, name: str, all_of_it: list[Any], default: Any) -> Iterator[Wrong]:
    for each in repeated(name, [each.get(name, default) for each in all_of_it]):
        yield each._replace(place=(*place, *each.place))


def _mappings(value: Any, name: str) -> list[dict[str, Any]]:
    """A list of mappings, with an empty one in place of everything else."""
    items = value.get(name) if isinstance(value, dict) else None
    return [
        each if isinstance(each, dict) else {"name": None, "route_prefix": None}
        for each in (items if isinstance(items, list) else ())
    ]


def _not_told_yet(told: list[Wrong], more: Iterable[Wrong]) -> Iterator[Wrong]:
    """Each once, and none of what could not be read in the first place."""
    lost = {each.place for each in told if each.lost}
    for each in dict.fromkeys(more):
        if not any(each.place[:length] in lost for length in range(len(each.place) + 1)):
            yield each


def _warnings(value: Any, place: Place) -> Iterator[Wrong]:
    if isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from _warnings(each, (*place, index))
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if name in value.model_fields_set:
                yield from _warnings_of_field(value, name, (*place, name))


def _warnings_of_field(model: Any, name: str, place: Place) -> Iterator[Wrong]:
    value = getattr(model, name)
    if name in model.for_ray():
        no_effect = isinstance(model, RuntimeEnv) and name in _INSTALLS
        yield Wrong(place, _NOT_INSTALLED if no_effect else _NO_EFFECT, at_key=True)
    elif name == "max_queued_requests" and value == -1:
        yield Wrong(place, _UNBOUNDED)
    else:
        yield from _warnings(value, place)


def _from(base: Path, config: ServeConfig) -> ServeConfig:
    """The same, with every path absolute."""
    applications = tuple(_application_from(base, each) for each in config.applications)
    return config.model_copy(update={"applications": applications})


def _application_from(base: Path, application: ApplicationConfig) -> ApplicationConfig:
    env = application.runtime_env
    paths: dict[str, Any] = {}
    if env.working_dir is not None:
        paths["working_dir"] = os.path.abspath(base / env.working_dir)
    if env.py_modules:
        paths["py_modules"] = tuple(os.path.abspath(base / each) for each in env.py_modules)
    if not paths:
        return application
    return application.model_copy(update={"runtime_env": env.model_copy(update=paths)})
