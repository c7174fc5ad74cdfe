"""Work: how many seconds a request takes where nothing holds it up."""

import math
from collections.abc import Callable
from random import Random

Work = Callable[[Random], float]
"""Draws the seconds of one request."""


def constant(seconds: float) -> Work:
    """Always the same."""
    return lambda _: seconds


def exponential(mean: float, *, least: float = 0) -> Work:
    """Exponential, on top of what each takes at the least."""
    rate = 1 / mean
    return lambda random: least + random.expovariate(rate)


def log_normal(mean: float, cv: float) -> Work:
    """Log-normal, with this mean and this ratio of the standard deviation to it."""
    sigma2 = math.log(1 + cv * cv)
    mu, sigma = math.log(mean) - sigma2 / 2, math.sqrt(sigma2)
    return lambda random: random.lognormvariate(mu, sigma)
