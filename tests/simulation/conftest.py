import sys

import pytest

from tests.simulation.loop import Loop


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No coverage is measured while virtual time goes on, as it would take five times as long.

    What is simulated is measured by its own tests.
    """
    run = Loop.run

    def untraced_run(self: Loop, until: float) -> None:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            run(self, until)
        finally:
            sys.settrace(tracer)

    monkeypatch.setattr(Loop, "run", untraced_run)
