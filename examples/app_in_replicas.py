"""A whole FastAPI application in two processes, behind one queue.

Start it, in the directory above this one; the lifespan starts and stops the replicas:

    uvicorn examples.app_in_replicas:app

Then ask:

    for i in $(seq 20); do curl -s 127.0.0.1:8000/primes/100000; echo; done
"""

from loadshed import ReplicaPool

app = ReplicaPool(
    "examples.inner_app:app", num_replicas=2, max_ongoing_requests=1, max_queued_requests=4
).asgi
