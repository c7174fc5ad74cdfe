"""What a pool may be made for, as far as its own process can tell."""

import inspect
import pickle
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from loadshed._errors import ConfigError

EXPECTED = (
    "a class or a function at the top level of a module, or where to import one, "
    '"package.module:name"'
)


def checked(target: object) -> Any:
    """The target, if a replica can import it."""
    if isinstance(target, str):
        if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", target):
            raise ConfigError("target", target, EXPECTED)
        return target
    if not (inspect.isclass(target) or callable(target)):
        raise ConfigError("target", target, EXPECTED)
    main = sys.modules["__main__"]
    if getattr(target, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
        # A notebook, or an interactive session: there is no file in which a replica would find it.
        raise ConfigError("target", target, f"{EXPECTED}; not of a notebook or a prompt")
    try:
        pickle.dumps(target, 5)
    except Exception as error:
        raise ConfigError("target", target, f"{EXPECTED} ({error})") from error
    return target


def name_of(target: object) -> str:
    """What to call a pool for it."""
    if isinstance(target, str):
        return target.rpartition(":")[2]
    return getattr(target, "__name__", type(target).__name__)


def arguments(values: object) -> tuple[Any, ...]:
    """What a class is called with."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ConfigError("init_args", values, "a tuple or list of arguments")
    return tuple(values)


def keywords(values: object) -> dict[str, Any]:
    """The same, by name."""
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise ConfigError("init_kwargs", values, "a mapping of arguments by name, or None")
    return dict(values)


def pickled(target: object, args: object, kwargs: object, config: tuple[Any, ...]) -> bytes:
    """What a replica is told of them.

    Raises:
        ConfigError: One of them can't be sent.
    """
    try:
        return pickle.dumps((target, args, kwargs, config), 5)
    except Exception:
        for setting, value in (
            ("init_args", args),
            ("init_kwargs", kwargs),
            ("user_config", config[0] if config else None),
        ):
            try:
                pickle.dumps(value, 5)
            except Exception as error:
                raise ConfigError(setting, value, f"what can be pickled ({error})") from error
        raise
