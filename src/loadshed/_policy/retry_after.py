"""How long a shed caller is told to stay away."""

import math
from collections import deque

LONGEST = 32
"""Nobody is told to stay away longer, in seconds (Kubernetes' `maxRetryAfter`)."""

LATELY = 5.0
"""Seconds, of those in which somebody waited, that count as "lately": one to two times so many."""


class RetryAfter:
    """An honest estimate, and a growing answer to those who keep coming: the larger of the two.

    The estimate is the time that the queue and one more take at the rate at which permits came
    back lately, while somebody waited; before any did it is 1 second. The growing answer is in
    `_Patience`.
    """

    __slots__ = ("_latest", "_patience", "_rate", "_since", "_waited_at")

    def __init__(self) -> None:
        self._latest = -math.inf  # no event was seen after this time
        self._forget()

    def _forget(self) -> None:
        self._rate = _ReturnRate()
        self._patience = _Patience()
        self._waited_at = -math.inf  # the last time at which somebody is known to have waited
        self._since = self._rate.mark()  # when the waiting began that goes on, with short pauses

    def observe(self, now: float, returned: int, *, busy: bool) -> None:
        """Note how many permits were `returned` by `now`.

        Args:
            now: The time.
            returned: How many permits have been returned so far.
            busy: Whether somebody waited for one ever since the last observation.
        """
        self._observe(now, returned, busy=busy)
        if busy:
            self._waited_at = now
        elif now - self._waited_at > LATELY:
            self._since = self._rate.mark()

    def _observe(self, now: float, returned: int, *, busy: bool) -> None:
        if now < self._latest:  # another event loop, another clock
            self._forget()
        self._latest = now
        self._rate.observe(now, returned, busy=busy)

    def pace(self) -> float:
        """Seconds from one permit that comes back to the next; 0 where that isn't known.

        For who turns a request away by it, so it is more careful than the estimate. It rests on
        what was seen since somebody began to wait, with no pause of more than `LATELY`. Else one
        slow hour would shed, a day later, whoever would have had to wait, and as then nobody
        waits, nothing would ever be seen that corrects it.
        """
        return self._rate.seconds_for(1, since=self._since)

    def shed(self, now: float, queued: int, returned: int, *, earlier: int = 0) -> int:
        """A request was shed: the whole seconds to tell it, 1 to 32.

        Args:
            now: The time.
            queued: How many requests wait.
            returned: How many permits have been returned so far.
            earlier: How many more were shed since the last call, in the same second as that one.
        """
        # Where nobody can wait, sheds that follow each other closely say that it is busy.
        self._observe(now, returned, busy=queued > 0 or now - self._latest <= LATELY)
        patience = self._patience.shed(math.floor(now), earlier)
        estimate = math.ceil(self._rate.seconds_for(queued + 1))
        return max(1, patience, min(LONGEST, estimate))


class _ReturnRate:
    """How fast permits came back lately, from two points in the past: no sum, no clock.

    Only time in which somebody waited counts. What comes back without that says how much was asked
    for, not how fast it could have gone.
    """

    __slots__ = ("_now", "_older", "_recent", "_seen")

    def __init__(self) -> None:
        self._seen: tuple[float, int] | None = None  # the last observation
        # (seconds in which somebody waited, permits that came back in them): in all, and at two
        # points in the past.
        self._now = self._older = self._recent = (0.0, 0)

    def observe(self, now: float, returned: int, *, busy: bool) -> None:
        if busy and self._seen is not None:
            seconds, permits = self._now
            seen_at, seen = self._seen
            self._now = (seconds + now - seen_at, permits + returned - seen)
        self._seen = (now, returned)
        if self._now[0] - self._recent[0] >= LATELY and self._now[1] > self._recent[1]:
            self._older, self._recent = self._recent, self._now

    def mark(self) -> tuple[float, int]:
        """This point in time, for `seconds_for`."""
        return self._now

    def seconds_for(self, permits: int, *, since: tuple[float, int] = (0.0, 0)) -> float:
        """How long that many take to come back; 0 before any did, lately and `since` then."""
        seconds, returned = self._now
        began, before = max(self._older, since)
        return permits * (seconds - began) / (returned - before) if returned > before else 0


class _Patience:
    """Kubernetes' answer to clients that keep coming: double, then fall again.

    `apiserver/pkg/util/flowcontrol/dropped_requests_tracker.go`: it starts at 1 second and is
    looked at once a second. If over the last so many seconds at least 3 requests a second were
    shed it doubles, at most once in that time; if fewer than one a second were, it falls by 1.
    There it is looked at only in seconds in which a request is shed; here in those between too, so
    that an overload long past is forgotten.
    """

    __slots__ = ("_doubled_at", "_seconds", "_sheds")

    def __init__(self) -> None:
        self._seconds = 1
        self._doubled_at = -math.inf
        self._sheds: deque[list[int]] = deque()  # [second, how many], the last 32 seconds

    def shed(self, second: int, earlier: int = 0) -> int:
        """A request was shed in this second, and `earlier` ones in that of the last call."""
        if not self._sheds:
            self._sheds.append([second, 0])
        self._sheds[-1][1] += earlier
        last = self._sheds[-1][0]
        if second > last:
            # Every second since is looked at; none is left to see after twice the longest.
            for each in range(max(last + 1, second - 2 * LONGEST), second + 1):
                self._look(each)
            self._sheds.append([second, 0])
        self._sheds[-1][1] += 1
        while self._sheds[0][0] < second - LONGEST:
            self._sheds.popleft()
        return self._seconds

    def _look(self, second: int) -> None:
        shed = sum(count for at, count in self._sheds if at >= second - self._seconds)
        if shed >= 3 * self._seconds and second - self._doubled_at >= self._seconds:
            self._seconds = min(2 * self._seconds, LONGEST)
            self._doubled_at = second
        elif shed < self._seconds > 1:
            self._seconds -= 1
