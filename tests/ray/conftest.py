"""One Ray cluster for all tests here. Nothing of Ray is imported before they run."""

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
Serve = Callable[..., str]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A Ray cluster whose workers find the tests' modules, and its dashboard."""
    import ray  # noqa: PLC0415

    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    yield ray.init(
        num_cpus=2,
        namespace="serve",
        include_dashboard=True,
        dashboard_port=free_port(),
        log_to_driver=False,
    )
    ray.shutdown()


@pytest.fixture(scope="module")
def serving(cluster: Any) -> Iterator[str]:
    """Ray Serve, and its URL."""
    from ray import serve  # noqa: PLC0415

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def deployed(serving: str) -> Serve:
    """Deploys an application under a route of its own, once, and returns its URL."""
    from ray import serve  # noqa: PLC0415

    from loadshed.ray_serve import to_ray  # noqa: PLC0415

    names = (f"app{index}" for index in itertools.count())
    known: dict[int, str] = {}

    def deploy(application: Any, *, built: Any = None) -> str:
        if id(application) not in known:
            name = next(names)
            made = to_ray(application) if built is None else built
            serve.run(made, name=name, route_prefix=f"/{name}")
            known[id(application)] = f"{serving}/{name}"
        return known[id(application)]

    return deploy


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client
