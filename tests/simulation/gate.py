"""A gate: what a limit can't see, an event loop's lag shows."""

from tests.simulation.services import Gate


def lag_gate(most: float = 0.1) -> Gate:
    """Turn away who has waited in the loop for longer than this before it was looked at."""
    return lambda _, lag: lag <= most
