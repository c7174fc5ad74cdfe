"""What `LoadShedMiddleware` costs under uvicorn: requests and sheds a second, over real sockets.

A second here is one of the server's own processor time. A client in Python is about as busy as a
server that says hello, so in seconds on the wall it would hide half of what the server does.
"""

import asyncio
import logging
import multiprocessing
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import uvicorn

from loadshed import ConcurrencyLimiter
from loadshed.asgi import LoadShedMiddleware
from tests.benchmarks.report import in_turns, ratio, show

ROUNDS = 15
SECONDS = 0.6
CONNECTIONS = 16
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answering(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Any:
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, (b"content-length", b"%d" % len(body))],
    }
    end = {"type": "http.response.body", "body": body}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send(end)

    return app


def full() -> ConcurrencyLimiter:
    limiter = ConcurrencyLimiter(1, 0)
    limiter.acquire_nowait()
    return limiter


APPS: dict[str, Callable[[], Any]] = {
    "hello world": lambda: answering(200, b"Hello, world!"),
    "hello world with the middleware": lambda: LoadShedMiddleware(
        answering(200, b"Hello, world!"), max_ongoing_requests=100
    ),
    "the same with request_timeout_s": lambda: LoadShedMiddleware(
        answering(200, b"Hello, world!"), max_ongoing_requests=100, request_timeout_s=30
    ),
    # What the middleware answers, to the byte.
    "a constant 503": lambda: answering(
        503,
        b'{"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": '
        b'"Request dropped due to backpressure (num_queued_requests=0, max_queued_requests=0)."}',
        (b"content-type", b"application/problem+json"),
        (b"retry-after", b"1"),
    ),
    "sheds of the middleware": lambda: LoadShedMiddleware(
        answering(200, b"Hello, world!"), limiter=full()
    ),
}


CPU = "/cpu"
"""Where each server tells how many seconds of processor time it has used."""


def counting(app: Any) -> Any:
    async def with_cpu(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == CPU:
            app_ = answering(200, str(time.process_time()).encode())
            await app_(scope, receive, send)
        else:
            await app(scope, receive, send)

    return with_cpu


def cpu_seconds(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{CPU}") as response:
        return float(response.read())


def serve(name: str, settings: dict[str, Any], pipe: Connection) -> None:
    """A process of its own: uvicorn with one of the applications."""
    logging.getLogger("loadshed").setLevel(logging.CRITICAL)
    # With the protocol named, as asyncio looks at it before it turns Nagle's algorithm off.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    config = uvicorn.Config(
        counting(APPS[name]()), lifespan="off", log_level="critical", access_log=False, **settings
    )
    uvicorn.Server(config).run(sockets=[listener])


class Client(asyncio.Protocol):
    """Sends a request as soon as the one before is answered; parses as little as it can."""

    def __init__(self) -> None:
        self.answers = 0
        self.rest = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.rest += data
        head, found, body = self.rest.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self.answers += 1
            self.rest = b""
            self.transport.write(REQUEST)


async def requests_a_second(port: int) -> float:
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(SECONDS / 8)
    before, start = sum(client.answers for client in clients), cpu_seconds(port)
    await asyncio.sleep(SECONDS)
    after, end = sum(client.answers for client in clients), cpu_seconds(port)
    for client in clients:
        client.transport.abort()
    return (after - before) / (end - start)


def compare(title: str, settings: dict[str, Any]) -> None:
    print(f" {title}, {CONNECTIONS} connections")
    context = multiprocessing.get_context("spawn")
    ports, processes = {}, []
    try:
        for name in APPS:
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(name, settings, there), daemon=True)
            process.start()
            processes.append(process)
            ports[name] = here.recv()
        results = _measure(ports)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    for name in APPS:
        sheds = "503" in name or "sheds" in name
        base = "a constant 503" if sheds else "hello world"
        target = {"hello world with the middleware": 0.95, "sheds of the middleware": 0.9}
        median = sorted(results[name])[ROUNDS // 2]
        show(name, f"{median:,.0f} /s", ratio(results, name, base), at_least=target.get(name, 0))


def _measure(ports: dict[str, int]) -> dict[str, list[float]]:
    def side(port: int) -> Callable[[], float]:
        return lambda: asyncio.run(requests_a_second(port))

    sides = {name: side(port) for name, port in ports.items()}
    in_turns(1, sides)  # warm
    return in_turns(ROUNDS, sides)


def main() -> None:
    if sys.platform != "win32":
        compare("uvicorn on uvloop and httptools", {"loop": "uvloop", "http": "httptools"})
    compare("uvicorn on asyncio and h11", {"loop": "asyncio", "http": "h11"})
