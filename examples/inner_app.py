"""The application that `app_in_replicas.py` runs in its replicas: an ordinary one that computes."""

import os

from fastapi import FastAPI

app = FastAPI()


@app.get("/primes/{below}")
def primes(below: int) -> dict[str, int]:
    """Count prime numbers, the slow way, and say in which process."""
    count = sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))
    return {"primes": count, "pid": os.getpid()}
