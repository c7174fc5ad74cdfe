"""The program's main script in a replica: run when something of it is asked for, not before."""

import runpy
import sys
from types import ModuleType
from typing import Any

Where = tuple[str | None, str | None]
"""The name of the main module, where it was started by name, and its file; else None."""

_state = {"running": False}


def is_running() -> bool:
    """Whether the main script is just being run by a replica, and must start no pool."""
    return _state["running"]


def where() -> Where:
    """Where the main module of this process is to be found by its replicas."""
    main = sys.modules["__main__"]
    # What a replica sends of the classes of the main module bears the name that it has there.
    sys.modules.setdefault("__mp_main__", main)
    spec = getattr(main, "__spec__", None)
    return (None if spec is None else spec.name), getattr(main, "__file__", None)


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
        _state["running"] = True
        try:
            if module is not None:
                found = runpy.run_module(module, run_name="__mp_main__", alter_sys=True)
            else:
                found = runpy.run_path(str(script), run_name="__mp_main__")
        finally:
            _state["running"] = False
        main.__dict__.update(found)
        try:
            return main.__dict__[name]
        except KeyError:
            raise AttributeError(f"{module or script} has no attribute {name!r}") from None

    main.__getattr__ = find
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
