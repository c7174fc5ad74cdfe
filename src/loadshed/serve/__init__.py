"""Deployments: the same code on a laptop, on a server, and on a Ray cluster.

```python
from loadshed.serve import deployment, run


@deployment(num_replicas=2, max_ongoing_requests=2, max_queued_requests=4)
class Model:
    async def __call__(self, request):
        return {"y": await predict(await request.json())}


app = Model.bind()

if __name__ == "__main__":
    run(app)
```

The names and what they mean are Ray Serve's. `loadshed run module:app` serves it from the command
line, and `loadshed.ray_serve.to_ray(app)` makes a Ray Serve application of it.
"""

from typing import TYPE_CHECKING

from loadshed._lazy import importing
from loadshed.serve._deployment import Application, Deployment, deployment
from loadshed.serve._settings import BackpressureConfig

if TYPE_CHECKING:
    from loadshed.serve._handle import (
        DeploymentHandle,
        DeploymentResponse,
        DeploymentResponseGenerator,
    )
    from loadshed.serve._ingress import ingress
    from loadshed.serve._running import Server, run, running

__all__ = [
    "Application",
    "BackpressureConfig",
    "Deployment",
    "DeploymentHandle",
    "DeploymentResponse",
    "DeploymentResponseGenerator",
    "Server",
    "deployment",
    "ingress",
    "run",
    "running",
]

__getattr__ = importing(
    globals(),
    {
        "DeploymentHandle": "loadshed.serve._handle",
        "DeploymentResponse": "loadshed.serve._handle",
        "DeploymentResponseGenerator": "loadshed.serve._handle",
        "Server": "loadshed.serve._running",
        "ingress": "loadshed.serve._ingress",
        "run": "loadshed.serve._running",
        "running": "loadshed.serve._running",
    },
)


def __dir__() -> list[str]:
    return __all__
