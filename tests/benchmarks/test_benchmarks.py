"""The benchmarks run to their end: the figures of a moment are not looked at."""

import pytest

from tests.benchmarks import asgi, client, limiter


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
