"""Runs every benchmark: `make bench`, or one of them with `make bench ARGS=asgi`.

Absolute times are those of this machine in this minute. What counts are the ratios: both sides
are measured in turns in the same run, and the median of the rounds is shown.
"""

import logging
import sys
from collections.abc import Callable

from tests.benchmarks import adaptive, asgi, client, limiter, pool, pool_asgi, serve, serve_rollout

BENCHMARKS: dict[str, Callable[[], None]] = {
    "limiter": limiter.main,
    "asgi": asgi.main,
    "client": client.main,
    "pool": pool.main,
    "pool_asgi": pool_asgi.main,
    "serve": serve.main,
    "serve_rollout": serve_rollout.main,
    "adaptive": adaptive.main,
}

if __name__ == "__main__":
    logging.getLogger("loadshed").setLevel(logging.CRITICAL)
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n{name} on Python {sys.version.split()[0]}")
        BENCHMARKS[name]()
