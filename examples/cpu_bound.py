"""Pure Python that computes, in two processes: nine ask, two run, three wait, four are turned away.

Run it, in the directory above this one:

    python examples/cpu_bound.py
"""

import asyncio

from loadshed import BackPressureError, ReplicaPool


def count_primes(below: int) -> int:
    """Count the prime numbers, the slow way. It runs in a replica, which imports this file."""
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))


async def main() -> None:
    """Ask nine times at once."""
    async with ReplicaPool(
        count_primes, num_replicas=2, max_ongoing_requests=1, max_queued_requests=3
    ) as pool:
        callers = (pool.call(100_000) for _ in range(9))
        for answer in await asyncio.gather(*callers, return_exceptions=True):
            if isinstance(answer, BackPressureError):
                print(f"{answer} Retry after {answer.retry_after} s.")
            else:
                print(f"{answer} primes")
        print(pool)


# A replica imports this file too, and must not start a pool of its own.
if __name__ == "__main__":
    asyncio.run(main())
