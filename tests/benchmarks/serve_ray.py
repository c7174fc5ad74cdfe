"""Ray Serve with a deployment of `serve_apps`, until its standard input is closed.

It runs in an environment of its own: `serve_ray.py NAME NUM_REPLICAS PORT TEMP_DIR`.
"""

import sys

import ray
from ray import serve

from tests.benchmarks import serve_apps

CODES = {"hello": serve_apps.Hello, "nap": serve_apps.Nap}


def main(name: str, num_replicas: str, port: str, directory: str) -> None:
    """Serve, on a cluster of its own with Ray's defaults; the log is in the directory."""
    ray.init(address="local", _temp_dir=directory, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    code = CODES[name]
    settings = serve_apps.SETTINGS[code]
    # As many as are wanted, however many processors there are.
    serve.run(
        serve.deployment(
            num_replicas=int(num_replicas), ray_actor_options={"num_cpus": 0.1}, **settings
        )(code).bind()
    )
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
