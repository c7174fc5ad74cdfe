"""CodeStore: copies of the code that runs, so that nobody can change it under a replica."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from loadshed._errors import ConfigError

LEFT_OUT = frozenset({".git", ".hg", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv",
                      "__pycache__", "node_modules"})  # fmt: skip
"""What is no part of the code."""

LARGEST = 500 * 1024 * 1024
"""Bytes that a directory of code may have: Ray's limit for a package."""


class CodeStore:
    """Keeps a copy of each directory of code, by its content.

    A replica that is replaced has to find the code that the others have, though the directory may
    have been changed since; and a rollout that fails has to find the old one.

    Args:
        directory: Where they are kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, setting: str, path: str, *, without: str = "") -> Path:
        """The copy of a directory; it is made if there is none.

        Args:
            setting: What the directory is given by, for an error.
            path: Where it is.
            without: A file that is no part of the code though it may lie there: the config file.

        Raises:
            ConfigError: There is none, it can't be read or it is too large.
        """
        source = Path(path)
        if not source.is_dir():
            raise ConfigError(setting, path, "a directory that exists")
        try:
            files = [each for each in files_of(source) if os.path.realpath(each) != without]
            copy = self._directory / _digest(source, files, setting)
            if not copy.exists():
                self._copy(source, files, copy)
        except OSError as error:
            raise ConfigError(setting, path, f"a directory that can be copied ({error})") from error
        return copy / source.resolve().name

    def _copy(self, source: Path, files: list[Path], copy: Path) -> None:
        """Copy a directory: all of it is there, or nothing."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self._directory) as new:
            inner = Path(new) / "code" / source.resolve().name
            for path in files:
                target = inner / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
            inner.mkdir(parents=True, exist_ok=True)
            try:
                inner.parent.rename(copy)
            except OSError:
                if not copy.is_dir():  # else another one has made it meanwhile
                    raise

    def keep(self, copies: Iterable[str]) -> None:
        """Remove all copies but these, and what is left of some that were not finished.

        Args:
            copies: Paths in them; others are ignored.
        """
        paths = [Path(copy) for copy in copies]
        names = {
            path.relative_to(self._directory).parts[0]
            for path in paths
            if path.is_relative_to(self._directory)
        }
        if self._directory.exists():
            for path in self._directory.iterdir():
                if path.name not in names:
                    shutil.rmtree(path, ignore_errors=True)


def _digest(directory: Path, files: list[Path], setting: str) -> str:
    """A name for the content of a directory."""
    total = hashlib.sha256(os.fsencode(directory.resolve().name))
    size = 0
    for path in files:
        size += path.stat().st_size
        if size > LARGEST:
            expected = f"a directory of at most {LARGEST // 1024**2} MiB"
            raise ConfigError(setting, str(directory), expected)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        is_executable = os.access(path, os.X_OK)
        name = os.fsencode(path.relative_to(directory))
        total.update(name + f"\0{content}\0{is_executable}\n".encode())
    return total.hexdigest()[:16]


def files_of(directory: Path, suffix: str = "") -> Iterator[Path]:
    """Its files, in an order that is always the same.

    Args:
        directory: Where they lie.
        suffix: What their names end with.
    """
    seen: set[str] = set()
    for where, directories, names in os.walk(directory, followlinks=True):
        if (real := os.path.realpath(where)) in seen:  # a link that leads back
            directories.clear()
            continue
        seen.add(real)
        directories[:] = sorted(set(directories) - LEFT_OUT)
        for name in sorted(names):
            path = Path(where, name)
            if name.endswith(suffix) and path.is_file():
                yield path
