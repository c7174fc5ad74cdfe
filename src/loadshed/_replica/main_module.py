"""The program's main script in a replica: run when something of it is asked for, not before."""

import contextlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

Where = tuple[str | None, str | None]
"""The name of the main module, where it was started by name, and its file; else None."""

_importing: list[bool] = []


def is_importing() -> bool:
    """Whether a replica is just importing its target, which must start no pool."""
    return bool(_importing)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """The time in which a replica imports its target."""
    _importing.append(True)
    try:
        yield
    finally:
        _importing.pop()


def where() -> Where:
    """Where the main module of this process is to be found by its replicas."""
    main = sys.modules["__main__"]
    # What a replica sends of the classes of the main module bears the name that it has there.
    sys.modules.setdefault("__mp_main__", main)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is None:
        return None, file
    if spec.name == "__main__":  # a directory, or a zip file, that was run like a script
        return None, str(Path(str(file)).parent)
    return spec.name, file


def stand_in(where: Where) -> None:
    """Let `__main__` be a module that runs the main script when something of it is asked for.

    As with `multiprocessing`, the script is run under the name `__mp_main__`, so that what stands
    below `if __name__ == "__main__"` is not. But most replicas need nothing of it, and where it is
    uvicorn, or pytest, it is large.
    """
    module, script = where
    main: Any = ModuleType("__mp_main__")

    def find(name: str) -> Any:
        if name.startswith("__") or (module is None and script is None):
            raise AttributeError(f"the main module has no attribute {name!r}")
        del main.__getattr__
        with importing():
            if module is not None:
                found = runpy.run_module(module, run_name="__mp_main__", alter_sys=True)
            else:
                found = runpy.run_path(str(script), run_name="__mp_main__")
        main.__dict__.update(found)
        try:
            return main.__dict__[name]
        except KeyError:
            raise AttributeError(f"{module or script} has no attribute {name!r}") from None

    main.__getattr__ = find
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
