r"""The example of Ray Serve's documentation, with other imports: two run, two wait, five are shed.

Start it, in the directory above this one:

    loadshed run examples.slow_deployment:app

or on Ray Serve (`pip install 'loadshed[ray]'`):

    loadshed run --engine ray examples.slow_deployment:app

Then, in another terminal, ask with 2, with 2 more, and with 5 more at once:

    for i in $(seq 9); do
        curl -s -o /dev/null -w '%{http_code}\n' 127.0.0.1:8000 & sleep 0.1
    done; wait

Five of them get their 503 at once, the first two their 200 after two seconds, and the two that
waited after four.
"""

import time

from starlette.requests import Request

from loadshed import serve


@serve.deployment(max_ongoing_requests=2, max_queued_requests=2)
class SlowDeployment:
    """Takes two seconds, whatever it is asked."""

    def __call__(self, request: Request) -> str:
        """Answer. It is not async, so it runs in a thread of the replica."""
        time.sleep(2)
        return "Hello!"


# mypy knows no decorators of classes (python/mypy#3135): it takes the class for what it was.
app = SlowDeployment.bind()  # type: ignore[attr-defined]
