"""A tree of plain data, and where in the file each part of it stands.

YAML can say much that is not data: calls of Python, references to itself, a few lines that expand
to gigabytes. None of it gets past here. All that is wrong is gathered, not only the first.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Place = tuple[str | int, ...]
"""The names and indexes that lead from the top of the data to a part of it."""

MOST_VALUES = 100_000
"""Values that a file may have, those counted that its aliases stand for."""

DEEPEST = 64
"""Lists and mappings that may be in one another."""

LONGEST_SHOWN = 80
"""Characters of a value that a message shows."""

PLAIN = "a string, a number, true, false, null, a list or a mapping"

_LARGEST = 10**300
_TAG = "tag:yaml.org,2002:"
_LITERALS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null")}
_JUST_TEXT = {f"{_TAG}{name}" for name in ("value", "merge")}  # "=", and "<<" that is not a key


class Mark(NamedTuple):
    """Where something stands: its rank, and its line and column where there are lines."""

    rank: tuple[int, int]
    line: int | None = None
    column: int | None = None


class Wrong(NamedTuple):
    """Something wrong.

    Attributes:
        place: Its place.
        message: What is to be there.
        at_key: Whether it is the key of this place, not the value.
        lost: Whether there is no value now.
        mark: Where it stands, if not at its place.
    """

    place: Place
    message: str
    at_key: bool = False
    lost: bool = False
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """Plain data, with None for each part that is wrong.

    Attributes:
        value: The data.
        wrong: What is wrong with it.
        values: Where each value stands.
        keys: Where the key of each value stands that has one.
    """

    value: Any
    wrong: list[Wrong] = field(default_factory=list)
    values: dict[Place, Mark] = field(default_factory=dict)
    keys: dict[Place, Mark] = field(default_factory=dict)

    def mark(self, wrong: Wrong) -> Mark:
        """Where it stands; where there is nothing, where that stands which lacks it."""
        if wrong.mark:
            return wrong.mark
        place = wrong.place
        if wrong.at_key and place in self.keys:
            return self.keys[place]
        while place not in self.values:
            place = place[:-1]
        return self.values[place]


def of_plain(value: object, *, finite: bool = False) -> Tree:
    """A copy of data that is at hand; with `finite`, an infinite number is wrong in it."""
    return _PlainGrowth(finite=finite).tree(value)


def of_yaml(text: str) -> Tree:
    """What a text says in YAML."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        return _unreadable(f"has a character that YAML has not: {error.reason}", _at(text, error))
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(each for each in (error.context, error.problem) if each)
        mark = error.problem_mark or error.context_mark
        return _unreadable(f"is not YAML: {problem}", _mark(mark))
    except (ValueError, OverflowError) as error:  # an escape for a character that there is not
        return _unreadable(f"is not YAML: {error}", _mark(loader.get_mark()))
    if node is None:
        return _unreadable("is empty: it must have `applications`, if only `[]`", _mark(None))
    return _YamlGrowth(loader).tree(node)


def shown(value: object) -> str:
    """A value as a message shows it: not too long, and as a config file spells it."""
    text = _SPELLED.get(repr(value), repr(value))
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


_SPELLED = {"None": "null", "True": "true", "False": "false", "inf": ".inf", "nan": ".nan"}


class _Loader(yaml.SafeLoader):
    """One that tells how deep it is, before Python does."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._depth += 1
        self._count += 1
        if self._depth > DEEPEST + 1 or self._count > MOST_VALUES:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=_TOO_MUCH, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_TOO_MUCH = f"more than {MOST_VALUES} values, or more than {DEEPEST} levels of them"


class _RefusedError(Exception):
    """This is no plain data; the message says what it must be."""


class _TooManyError(Exception):
    """There are more values than there may be."""


@dataclass(frozen=True, slots=True)
class _Mapping:
    pairs: list[tuple[Any, Any]]
    merged: list[Any] = field(default_factory=list)


class _Growth(ABC):
    """Makes a tree of nodes; the subclasses say what a node is."""

    def __init__(self) -> None:
        self.wrong: list[Wrong] = []
        self.values: dict[Place, Mark] = {}
        self.keys: dict[Place, Mark] = {}
        self._count = 0
        self._around: list[int] = []

    @abstractmethod
    def look(self, node: Any) -> Any:
        """What the node is: a `_Mapping`, a list of nodes, or the value itself."""

    @abstractmethod
    def mark(self, node: Any) -> Mark:
        """Where it stands."""

    def tree(self, node: Any) -> Tree:
        try:
            value = self._grow(node, ())
        except _TooManyError:
            message = f"must have at most {MOST_VALUES} values, aliases expanded"
            return _unreadable(message, self.mark(node))
        return Tree(value, self.wrong, self.values, self.keys)

    def _grow(self, node: Any, place: Place) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise _TooManyError
        mark = self.mark(node)
        try:
            return self._grown(node, place)
        except _RefusedError as refused:
            self.wrong.append(Wrong(place, f"{refused}.", lost=True))
            return None
        finally:
            self.values[place] = mark  # last: what is merged into it has been at this place, too

    def _grown(self, node: Any, place: Place) -> Any:
        seen = self.look(node)
        if isinstance(seen, _Mapping):
            with self._inside(node):
                return self._mapping(seen, place)
        if isinstance(seen, list):
            with self._inside(node):
                return [self._grow(each, (*place, index)) for index, each in enumerate(seen)]
        return seen

    @contextmanager
    def _inside(self, node: Any) -> Iterator[None]:
        if id(node) in self._around:
            raise _RefusedError("must not contain itself")
        if len(self._around) == DEEPEST:
            raise _RefusedError(f"must have at most {DEEPEST} levels")
        self._around.append(id(node))
        try:
            yield
        finally:
            self._around.pop()

    def _mapping(self, seen: _Mapping, place: Place) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for node in reversed(seen.merged):  # the first of them counts
            value.update(self._merged(node, place))
        own: dict[str, Mark] = {}
        for key, node in seen.pairs:
            name = self._name(key, place)
            if name is None:
                continue
            mark = self.mark(key)
            if name in own:
                first = "" if own[name].line is None else f": first in line {own[name].line}"
                self.wrong.append(Wrong((*place, name), f"is given twice{first}.", mark=mark))
                continue
            own[name] = self.keys[(*place, name)] = mark
            value[name] = self._grow(node, (*place, name))
        return value

    def _merged(self, node: Any, place: Place) -> dict[str, Any]:
        value = self._grow(node, place)
        if isinstance(value, dict):
            return value
        message = f"must merge (<<) a mapping, or a list of mappings, not {shown(value)}."
        self.wrong.append(Wrong(place, message, mark=self.mark(node)))
        return {}

    def _name(self, key: Any, place: Place) -> str | None:
        try:
            name = self.look(key)
        except _RefusedError as refused:
            self.wrong.append(Wrong(place, f"has a key that {refused}.", mark=self.mark(key)))
            return None
        if isinstance(name, str):
            return name
        what = "a list or a mapping" if isinstance(name, _Mapping | list) else shown(name)
        message = f"has a key that must be a string (in quotes), not {what}."
        self.wrong.append(Wrong(place, message, mark=self.mark(key)))
        return None


class _PlainGrowth(_Growth):
    """The nodes are the data itself."""

    def __init__(self, *, finite: bool) -> None:
        super().__init__()
        self._finite = finite

    def look(self, node: Any) -> Any:
        if isinstance(node, dict):
            return _Mapping(list(node.items()))
        if isinstance(node, list | tuple):
            return list(node)
        if node is None or type(node) in (str, int, float, bool):
            return _literal(node, finite=self._finite)
        raise _RefusedError(f"must be {PLAIN}, not of the type {type(node).__name__}")

    def mark(self, node: Any) -> Mark:
        return Mark((self._count, 0))


class _YamlGrowth(_Growth):
    """The nodes are those of YAML."""

    def __init__(self, loader: _Loader) -> None:
        super().__init__()
        self._loader = loader

    def look(self, node: Node) -> Any:
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return _mapping(node)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return list(node.value)
        if isinstance(node, ScalarNode) and node.tag in _JUST_TEXT:
            return node.value
        if isinstance(node, ScalarNode) and node.tag in _LITERALS:
            return self._literal(node)
        if isinstance(node, ScalarNode) and node.tag == f"{_TAG}timestamp":
            raise _RefusedError(f"must be {PLAIN}, not the date {node.value} (put it in quotes)")
        tag = node.tag.removeprefix(_TAG)
        raise _RefusedError(f"must be {PLAIN}: the tag {shown(tag)} is refused")

    def _literal(self, node: ScalarNode) -> Any:
        try:
            value = self._loader.yaml_constructors[node.tag](self._loader, node)
        except (ValueError, LookupError):  # a tag that does not fit, or an int of 5000 digits
            kind = node.tag.removeprefix(_TAG)
            raise _RefusedError(f"must be a valid {kind}, not {shown(node.value)}") from None
        return _literal(value, finite=False)

    def mark(self, node: Node) -> Mark:
        return _mark(node.start_mark)


def _mapping(node: MappingNode) -> _Mapping:
    pairs, merged = [], []
    for key, value in node.value:
        if key.tag != f"{_TAG}merge":
            pairs.append((key, value))
        elif isinstance(value, SequenceNode):
            merged += value.value
        else:
            merged.append(value)
    return _Mapping(pairs, merged)


def _literal(value: Any, *, finite: bool) -> Any:
    if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
        raise _RefusedError(f"must be valid Unicode, not {shown(value)}")
    if type(value) is int and not -_LARGEST < value < _LARGEST:
        raise _RefusedError("must be a number of at most 300 digits")
    if finite and isinstance(value, float) and not math.isfinite(value):
        raise _RefusedError(f"must be a finite number, not {shown(value)}")
    return value


def _unreadable(message: str, mark: Mark) -> Tree:
    return Tree(None, [Wrong((), f"{message}.", lost=True, mark=mark)])


def _mark(mark: Any) -> Mark:
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Mark((line, column), line, column)


def _at(text: str, error: yaml.reader.ReaderError) -> Mark:
    before = text[: error.position]
    line, column = before.count("\n") + 1, error.position - before.rfind("\n")
    return Mark((line, column), line, column)
