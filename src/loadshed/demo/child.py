"""A server process, seen from inside: `python -m loadshed.demo.child APP SETTINGS`.

It listens on a free port of the loopback interface, writes that port to its standard output once
it accepts connections, and ends when its standard input does.
"""

import json
import os
import socket
import sys
import threading

import uvicorn

from loadshed.demo.apps import APPS


class _ReportingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()


def main(app: str, settings: str) -> None:
    """Serve until the standard input ends.

    Args:
        app: A key of `loadshed.demo.apps.APPS`.
        settings: Its keyword arguments, in JSON.
    """
    server = _ReportingServer(_config(app, settings))
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.run(sockets=[listener])


def _config(app: str, settings: str) -> uvicorn.Config:
    return uvicorn.Config(
        APPS[app](**json.loads(settings)),
        # Named rather than found, so that the demo is the same wherever it runs.
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        # Without loadshed thousands of requests are left over, and each of them would log how
        # it was cancelled.
        log_level="critical",
        timeout_graceful_shutdown=0,
    )


def _end_with_parent(server: uvicorn.Server) -> None:
    # The parent never writes. The kernel closes its end of the pipe however it dies, which
    # holds on every platform; and a bare read leaves no lock behind in a thread that is killed.
    os.read(0, 1)
    server.should_exit = True


if __name__ == "__main__":
    main(*sys.argv[1:])
