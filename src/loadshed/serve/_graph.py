"""Graph: the deployments of an application, and which one calls which."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loadshed.serve._deployment import Application


def nodes(application: Application) -> dict[str, Application]:
    """An application's deployments by name; each comes after those that it calls.

    One that is bound twice is there twice, and the second is called "Model_1". One that is handed
    on twice is there once.
    """
    found: dict[str, Application] = {}

    def visit(node: Application) -> None:
        if any(node is each for each in found.values()):
            return
        for argument in (*node.args, *node.kwargs.values()):
            for inner in _inside(argument):
                visit(inner)
        found[_free_name(node.deployment.name, found)] = node

    visit(application)
    return found


def with_handles(
    application: Application,
    named: Mapping[str, Application],
    handle: Callable[[str], Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What one of them is made with, where each application became a handle.

    Args:
        application: The deployment.
        named: All of them.
        handle: Makes a handle, by name.
    """
    names = {id(node): name for name, node in named.items()}

    def replaced(value: Any) -> Any:
        if isinstance(value, Application):
            return handle(names[id(value)])
        if type(value) in {list, tuple}:
            return type(value)(map(replaced, value))
        if type(value) is dict:
            return {key: replaced(inner) for key, inner in value.items()}
        return value

    args = tuple(map(replaced, application.args))
    return args, {name: replaced(value) for name, value in application.kwargs.items()}


def _inside(value: Any) -> Iterator[Application]:
    if isinstance(value, Application):
        yield value
    elif type(value) in {list, tuple}:
        for inner in value:
            yield from _inside(inner)
    elif type(value) is dict:
        for inner in value.values():
            yield from _inside(inner)


def _free_name(name: str, taken: Mapping[str, Application]) -> str:
    count = 0
    free = name
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free
