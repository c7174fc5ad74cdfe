"""The benchmarks run to their end: the figures of a moment are not looked at."""

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.benchmarks import (
    adaptive,
    adaptive_load,
    asgi,
    client,
    limiter,
    pool,
    pool_asgi,
    serve,
    serve_load,
    serve_rollout,
)
from tests.benchmarks.serve_load import Answer, Speed


def test_the_limiters_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limiter, "ROUNDS", 1)
    monkeypatch.setattr(limiter, "CALLS", 10)
    monkeypatch.setattr(limiter, "MANY", 200)
    limiter.main()
    assert "async with ConcurrencyLimiter(10)" in capsys.readouterr().out


def test_the_middlewares_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(asgi, "ROUNDS", 1)
    monkeypatch.setattr(asgi, "SECONDS", 0.05)
    asgi.compare("h11", {"loop": "asyncio", "http": "h11"})
    assert "sheds of the middleware" in capsys.readouterr().out


def test_the_clients_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ROUNDS", 1)
    monkeypatch.setattr(client, "CALLS", 2)
    monkeypatch.setattr(client, "IMPORTS", 1)
    client.main()
    assert "AsyncRetryTransport without timeouts" in capsys.readouterr().out


def test_the_pools_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ROUNDS", "LARGE_ROUNDS", "REPLICAS", "STARTS", "MEMORIES"):
        monkeypatch.setattr(pool, name, 1)
    monkeypatch.setattr(pool, "CALLS", dict.fromkeys(pool.CALLS, 10))
    monkeypatch.setattr(pool, "SIZE", 1_000_000)
    monkeypatch.setattr(pool, "IDLE", 0)
    pool.main()
    assert "memory of an idle process" in capsys.readouterr().out


def test_the_benchmark_of_the_pools_application_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool_asgi, "HELLO_ROUNDS", 1)
    monkeypatch.setattr(pool_asgi, "HELLO_SECONDS", 0.1)
    monkeypatch.setattr(pool_asgi, "OVERLOAD_ROUNDS", 1)
    monkeypatch.setattr(pool_asgi, "OVERLOAD_SECONDS", 0.2)
    monkeypatch.setattr(pool_asgi, "CAPACITY_REQUESTS", 2)
    pool_asgi.main()
    assert "those that were served in the end" in capsys.readouterr().out


def test_the_benchmark_of_the_command_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("STARTS", "ROUNDS", "OVERLOAD_ROUNDS"):
        monkeypatch.setattr(serve, name, 1)
    monkeypatch.setattr(serve, "NUMBERS_OF_REPLICAS", [1])
    monkeypatch.setattr(serve, "CONNECTIONS", [2])
    monkeypatch.setattr(serve, "FACTORS", [5])
    for name in ("SECONDS", "OVERLOAD_SECONDS", "WARM_UP", "IDLE"):
        monkeypatch.setattr(serve, name, 0.1)
    monkeypatch.setattr(serve, "RAY_PYTHON", Path("/nowhere-ray/bin/python"))
    monkeypatch.setattr(serve_load, "WRK", None)
    serve.main()
    shown = capsys.readouterr().out
    assert "Ray is left out" in shown
    assert "of these were no 200" not in shown
    assert "those that were served: the 99th percentile" in shown


def test_the_command_is_shown_beside_ray_serve(capsys: pytest.CaptureFixture[str]) -> None:
    ours = [Speed(5_000, 1 / 5_000, 0)]
    serve.show_speeds({serve.OURS: ours, serve.RAY: [Speed(250, 1 / 250, 0)]}, 1, 1)
    serve.show_speeds({serve.OURS: ours, serve.BARE: [Speed(20_000, 1 / 20_000, 0)]}, 1, 1)
    shown = capsys.readouterr().out
    assert "20.00 x   target >= 20 x: met" in shown
    assert "0.25 x   target >= 0.5 x: MISSED" in shown


def test_the_benchmark_of_deploys_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve_rollout, "ROUNDS", 1)
    monkeypatch.setattr(serve_rollout, "REST", 0.1)
    monkeypatch.setattr(serve_rollout, "PLACES", {(1, 1): 1, (2, 1): 0, (2, 2): 0, (1, 2): 0})
    monkeypatch.setattr(serve_rollout, "WARM_UP", 0.1)
    monkeypatch.setattr(serve_load, "WRK", None)
    serve_rollout.main()
    shown = capsys.readouterr().out
    assert "1 -> 2 -> 1 replicas, 1 times another user_config, 1 times other code" in shown
    assert shown.count("target 0: met") == 3
    assert "target <= 2 x" in shown


def test_what_is_answered_late_or_before_the_load_is_steady_is_no_goodput(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "WARM_UP", 1)
    monkeypatch.setattr(serve, "OVERLOAD_SECONDS", 2)
    cases = itertools.product([200, 503], [0.5, 1.5], [0.5, 1.5, 3.5])
    assert serve.goodput([Answer(*case, late=0) for case in cases]) == 0.5


def test_the_benchmark_of_limits_that_nobody_chose_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adaptive, "SECONDS", 0.4)
    monkeypatch.setattr(adaptive, "WARM_UP", 0.2)
    monkeypatch.setattr(adaptive, "SEARCH_SHARE", 1)
    monkeypatch.setattr(adaptive, "FIXED", [10])
    monkeypatch.setattr(adaptive, "FACTORS", [2])
    monkeypatch.setattr(adaptive, "SHARES", {})
    monkeypatch.setattr(adaptive, "OTHERS", {"Vegas": "VegasLimit"})
    monkeypatch.setenv("ADAPTIVE_SERVICES", "slots,stepping")
    adaptive.main()
    shown = capsys.readouterr().out
    for service in adaptive.services().values():
        assert service.title in shown
    assert shown.count("the best fixed, 10") == 2


def test_what_is_answered_late_is_no_goodput_and_what_comes_early_does_not_count() -> None:
    came = [0.5, 1.5, 2.5, 3.5]
    answers = [
        Answer(status, seconds, due + seconds, late=0.1)
        for due, status, seconds in itertools.product(came, [200, 503, 0], [0.2, 0.7])
    ]
    run = adaptive.weighed(answers, warm_up=1, seconds=2, patience=0.5)
    assert run == adaptive.Run(goodput=1, offered=6, p99=0.7, unanswered=1 / 3, late=0.1)


def test_clients_hang_up_when_their_patience_is_over() -> None:
    answer = asyncio.run(asked_of_a_server_that_never_answers(patience=0.02))
    assert answer.status == 0
    assert answer.seconds >= 0.02


async def asked_of_a_server_that_never_answers(patience: float) -> Answer:
    left = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        [answer] = await adaptive_load.saturate(port, 1, 0.01, patience, 0)
        await left.wait()
    return answer


def test_what_wrk_tells_is_understood() -> None:
    output = """Running 1s test @ http://127.0.0.1:8000/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.40ms  512.07us   6.60ms   87.65%
    Req/Sec    12.46k   736.72    13.19k    80.00%
  Latency Distribution
     50%  849.00us
     75%    1.51ms
     90%    1.77ms
     99%    3.21ms
  12398 requests in 1.00s, 1.63MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:  12387.87
Transfer/sec:      1.63MB
"""
    assert serve_load.parsed(output) == Speed(12387.87, 849 * 1e-6, 10)
