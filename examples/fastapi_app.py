"""A FastAPI service with room for four reports at a time.

Start it, in the directory above this one:

    uvicorn examples.fastapi_app:app

Then ask for more than it can take:

    for i in $(seq 20); do curl -si 127.0.0.1:8000/report | grep HTTP & done; wait
    curl 127.0.0.1:8000/metrics
"""

import asyncio

from fastapi import FastAPI, Response

from loadshed import ConcurrencyLimiter
from loadshed.asgi import LoadShedMiddleware

# Four run, four wait, everybody else gets a 503 at once. Nobody waits longer than a second.
limiter = ConcurrencyLimiter(max_ongoing_requests=4, max_wait=1.0, name="reports")

app = FastAPI()
app.add_middleware(LoadShedMiddleware, limiter=limiter, request_timeout_s=5.0)


@app.get("/report")
async def report() -> dict[str, str]:
    """Something that takes a while."""
    await asyncio.sleep(0.1)
    return {"report": "all is well"}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Never limited: a busy service is a healthy one."""
    return {"status": "ok"}


@app.get("/metrics")
async def metrics() -> Response:
    """Never limited either; in the text format that Prometheus reads."""
    now = limiter.statistics()
    lines = [
        f"reports_ongoing {now.ongoing}",
        f"reports_queued {now.queued}",
        f"reports_completed_total {now.completed}",
        f"reports_abandoned_total {now.abandoned}",
        *(f'reports_shed_total{{reason="{why}"}} {count}' for why, count in now.shed.items()),
    ]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")
