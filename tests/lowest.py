"""Prints pip constraints that pin every dependency in pyproject.toml to the oldest it allows."""

import re
import tomllib
from pathlib import Path

NAME, OLDEST, MORE = r"([\w-]+)(?:\[[\w,]+\])?", r">=([\d.]+)", r"(?:[,;].*)?"

project = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"].values()
for requirement in [*project["dependencies"], *(one for extra in extras for one in extra)]:
    if requirement == "loadshed[serve]":
        continue  # its own are in the list
    found = re.fullmatch(NAME + OLDEST + MORE, requirement)
    assert found is not None, requirement
    name, version = found.groups()
    print(f"{name}=={version}")
