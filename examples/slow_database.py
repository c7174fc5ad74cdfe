"""A decorator around a slow database call: two queries run, two wait, the rest is told to go away.

Run it, in the directory above this one:

    python examples/slow_database.py
"""

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from anyio import to_thread

from loadshed import BackPressureError, ConcurrencyLimiter

SLOW_QUERY = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
SELECT sum(times) FROM visits WHERE (SELECT max(i) FROM n) > 0
"""

limiter = ConcurrencyLimiter(max_ongoing_requests=2, max_queued_requests=2, name="database")


def create(database: Path) -> None:
    """Make a database with one table."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE visits (page TEXT, times INTEGER)")
        connection.execute("INSERT INTO visits VALUES ('/', 41), ('/about', 1)")


def query(database: Path) -> int:
    """Ask it something that takes a while."""
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(SLOW_QUERY).fetchone()[0])


@limiter
async def count_visits(database: Path) -> int:
    """Count in a thread. The permit comes back when the thread has, whoever has left meanwhile."""
    return await to_thread.run_sync(query, database)


async def main() -> None:
    """Ask nine times at once."""
    with tempfile.TemporaryDirectory() as directory:
        create(database := Path(directory, "visits.sqlite"))
        callers = (count_visits(database) for _ in range(9))
        for answer in await asyncio.gather(*callers, return_exceptions=True):
            if isinstance(answer, BackPressureError):
                print(f"{answer} Retry after {answer.retry_after} s.")
            else:
                print(f"{answer} visits")
    print(limiter)


if __name__ == "__main__":
    asyncio.run(main())
