"""Prints pip constraints that pin every dependency in pyproject.toml to the oldest it allows."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"].values()
for requirement in [*project["dependencies"], *(one for extra in extras for one in extra)]:
    if requirement == "loadshed[serve]":
        continue  # its own are in the list
    name, version = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)(?:,.*)?", requirement).groups()  # type: ignore[union-attr]
    print(f"{name}=={version}")
