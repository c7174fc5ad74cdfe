"""The same deployments on Ray Serve, when one machine is not enough.

```python
from ray import serve
from loadshed.ray_serve import to_ray

serve.run(to_ray(app))  # where loadshed.serve.run(app) was
```

`loadshed run --engine ray` does the same from the command line, and the file that
`loadshed build --engine ray` writes is for Ray's own `serve deploy`.

How each setting is there:

- `num_replicas`, `max_ongoing_requests`, `user_config`, `backpressure_config`, health checks,
  `graceful_shutdown_timeout_s`: Ray's own, the same. `Retry-After` is sent where
  `retry_after_s` is given: Ray's proxy has no estimate.
- `max_queued_requests`: Ray's own, which is for each caller; each of Ray's proxies is one. By
  default as many as all replicas may work on.
- `request_timeout_s`: from when a replica has the request; then 504. Ray's own bound for every
  request, `http_options.request_timeout_s`, counts its time in the queue, too; then 408.
- The header `x-request-timeout-seconds`: Ray's own bound for that request; then 408.
- `max_wait`, an infinite `max_ongoing_requests` and `max_queued_requests=0` are refused, by name:
  Ray has nothing like them. `LoadShedMiddleware` around the application of an `ingress` has
  `max_wait` and deadlines there, too.
- `max_ongoing_requests="auto"` is refused as well: Ray needs a number. So are `order`, `shares`,
  `trust_criticality`, `tenant_header` and its bounds, and `priority`, `tenant` and `cost` of a
  handle: in Ray's queue all requests are alike. The same middleware has them, without a number too.
- Settings that only Ray has are handed on as they are.

A function that is not async and whose caller has left runs on, as here, and no other one takes its
place before it has returned.
"""

try:
    import ray.serve  # noqa: F401
except ImportError as error:
    raise ImportError("loadshed.ray_serve needs Ray Serve: pip install 'loadshed[ray]'") from error

from loadshed.ray_serve._application import build, to_ray
from loadshed.ray_serve._run import run

__all__ = ["build", "run", "to_ray"]
