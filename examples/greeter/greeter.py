r"""The code for `serve_config.yaml`: a builder function, and settings that the file overrides.

Start it, in the directory above this one:

    loadshed run examples/serve_config.yaml

Then ask:

    curl 127.0.0.1:8000/greet

Now change the file while it serves, `greeting` say, and deploy it; no request fails:

    loadshed deploy examples/serve_config.yaml
"""

import asyncio
import os
from typing import Any

from loadshed.serve import Application, deployment


@deployment(max_ongoing_requests=10)
class Greeter:
    """Greets whoever it was built for."""

    def __init__(self, name: str) -> None:
        """Get ready, in each replica."""
        self.name = name
        self.greeting = "Hello"

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Take the `user_config`: before the first request, and whenever it changes."""
        self.greeting = config["greeting"]

    async def __call__(self) -> str:
        """Answer."""
        await asyncio.sleep(0.01)
        return f"{self.greeting}, {self.name}{os.environ.get('END', '.')}\n"


def build(args: dict[str, str]) -> Application:
    """Make the application; `args` are those of the file, or KEY=VALUE of the command line."""
    # mypy knows no decorators of classes (python/mypy#3135): it takes the class for what it was.
    application: Application = Greeter.bind(args.get("name", "world"))  # type: ignore[attr-defined]
    return application
