"""The benchmarks run to their end: the figures of a moment are not looked at."""

import pytest

from tests.benchmarks import asgi, client, limiter, pool, pool_asgi


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
