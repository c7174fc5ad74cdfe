"""ReplicaPool, and what it is made of.

- `pool`: what users see: calls, settings, the block that starts and stops it all.
- `plan`: what its replicas are.
- `block`: the time in which it runs.
- `crew`: its replicas, as many as there have to be.
- `slots`: which replica takes the next request; the pool's one limiter.
- `place`: keeps one replica alive, replacing it when it dies.
- `replica`: one replica, seen from here: its calls and its state.
- `watch`: whether it can still be trusted.
- `process`, `connection`, `output`: what it is made of.
- `call`: one call, from when it is sent until it is answered.
- `application`: the pool as an ASGI application.
"""
