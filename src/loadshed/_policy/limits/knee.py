"""A limit that nobody has to choose: it looks for the knee of the throughput."""

from enum import Enum
from math import exp, inf, log, sqrt

from loadshed._policy.limits.evidence import LONGEST, SHORTEST, Base, Window, standard_error
from loadshed._policy.limits.moving import MovingLimit

# How far a try goes

SMALLEST_STEP = 1.25
"""The factor of the most careful try: a smaller one is lost in the noise."""

LARGEST_STEP = 1.6
"""The factor of the boldest: one of 2 overshoots."""

STEP_IN_HASTE = 2
"""The factor where the service became slower while others wait: it has to be tried soon."""

STEP_OF_DISTRESS = 1.5
"""The least step down where most requests are of no use."""

# What a try has to bring

RAISE_PAYS = 0.4
"""The part of a raise by which throughput has to grow: below the knee it is all of it, beyond it
nothing, and a raise that was not needed costs latency alone."""

CUT_COSTS = 0.2
"""The part of a cut by which throughput may fall. It is less, as a cut that was wrong costs
throughput."""

DOWN_EVERY = 4
"""Rounds that end where they began, of which one tries down too: a limit is too high more seldom
than too low, and to try down costs throughput."""

# How much evidence it takes

CONFIDENCE = 2
"""Standard errors that are no chance."""

PRECISION = 0.25
"""The standard error, as a part of the step, with which a window is precise enough."""

PRECISION_IN_HASTE = 0.35
"""The same for what a hasty try is compared with: it takes half as many samples."""

ENOUGH_SAMPLES = 600
"""Samples with which a window is precise enough however much they differ: with 1000 it comes
too late where the service changes."""

ENOUGH_TO_REST = 64
"""Samples that end a window at rest, where nothing hangs on it."""

SHORTEST_WINDOW = 0.5
"""Seconds that a window lasts at least: a pause of the garbage collector is no evidence."""

SETTLING = 1.5
"""Times that a request takes until those that began under the last limit have gone."""

BOUND, BOUND_WITHOUT_QUEUE = 0.8, 0.4
"""The part that has to end while the limit is reached: else more could have come, and how much
gets through says nothing of the limit. Without a queue a slot is free until the next one comes."""

# What happens around it

RECENT = 64
"""Samples over which the average of the most recent goes."""

RECENT_COUNTS = 2 * RECENT
"""Samples that such an average is worth."""

CHANGED = 0.25
"""How much longer or shorter (its logarithm) requests have to take for the service to be another:
what is less does not spoil a try."""

QUIET = 0.5
"""The part up to which requests may meet the limit where the service counts as unloaded."""

BECOMES_QUICKER, BECOMES_SLOWER = 0.5, 0.05
"""How fast the time of an unloaded service follows a shorter and a longer one: load makes none
shorter."""

FAR_SLOWER = 2
"""Times as long as requests took, from where on the limit is far from right: make haste."""

LOST = 0.05
"""The part of use below which there is nothing to lose: the limit is halved unasked."""

MOST_FAIL = 0.5
"""The part of use below which a raise is not worth asking for: down at once."""

LONGEST_REST = 16
"""Windows to rest at most after tries that failed: each costs a little, and the world changes."""

# Why the limit moved, for people

TRYING_UP = "trying {new}: does more get through?"
TRYING_DOWN = "trying {new}: does as much get through?"
FAILING = "most are of no use: trying {new}"
RAISED = "{old} brought more: trying {new}"
CUT = "with {old} as much got through: trying {new}"
RAISE_IN_VAIN = "{new} again: {old} brought too little"
CUT_IN_VAIN = "{new} again: with {old} less got through"
ALL_LOST = "hardly any is of use: half of {old}"
OF_USE_AGAIN = "of use again: back from {old} to {new}"
SLOWER = "the service became slower: {new} again"
QUICKER = "the service became quicker: {new} again"
CALM = "{new} again: too few requests to judge {old}"


class Phase(Enum):
    """What it is doing."""

    RESTING = "resting"
    """It holds the limit, and learns what gets through with it."""
    TRYING_UP = "trying up"
    """It tries a higher one: does more get through?"""
    TRYING_DOWN = "trying down"
    """It tries a lower one: does as much get through?"""


class KneeLimit(MovingLimit):
    """Finds out by trying how many requests a service can work on at once.

    Up to some number more at once get more done; beyond that knee each only takes longer. Latency
    can't tell the two apart: a service that became slower for a reason of its own looks like one
    that is overloaded, and cutting its limit makes that worse. So this asks the one question that
    matters: did more requests get through when the limit was raised, or as many when it was cut?

    1. It *rests* until it knows what gets through now.
    2. It *tries up*, and on as long as each raise pays; or else it goes back.
    3. Where the first raise does not pay, it *tries down* now and then, and on as long as as much
       gets through. Then it rests, the longer the more often nothing has come of it.

    It moves on evidence that is no chance only. Where fewer come than may, it learns nothing, and
    holds the limit. Where the service itself became slower or quicker, it forgets what it knew; if
    it became far slower while others wait, it makes haste: it rests for a moment only, and tries
    twice as many. Where hardly any request is of use, it halves the limit unasked; that is no
    evidence, so it is undone step by step when most are of use again.

    >>> limit = KneeLimit()
    >>> for request in range(1, 81):  # each takes 0.1 s, and all of the 10 slots are in use
    ...     limit.observe(now=request / 100, seconds=0.1, ok=True, ongoing=10)
    >>> limit.limit, limit.reason
    (16, 'trying 16: does more get through?')

    Attributes:
        limit: How many may be ongoing now.
        has_queue: Whether others may wait for a slot. A queue keeps the service busy while it
            tries, so that what it sees is plainer; without one it takes what it gets.

    Args:
        initial: The limit to begin with.
        lowest: The limit is never below this.
        highest: The limit is never above this; `math.inf` where it may be anything.

    Raises:
        ConfigError: Not 1 <= lowest <= initial <= highest, or no whole numbers.
    """

    __slots__ = (
        "_base",
        "_before_loss",
        "_failed",
        "_latest",
        "_phase",
        "_recent",
        "_rest_left",
        "_rest_length",
        "_restored",
        "_rose",
        "_step",
        "_took_before",
        "_unloaded",
        "_window",
        "has_queue",
    )

    def __init__(self, initial: int = 10, *, lowest: int = 1, highest: float = 10_000) -> None:
        super().__init__(initial, lowest, highest)
        self.has_queue = True
        self._window = Window()
        self._recent = 0.0  # how long the most recent requests took
        self._latest = 0.0  # how long they took in the last window that came to something
        self._unloaded = 0.0  # how long they take with little load; 0 where that is not known
        self._rose = False  # a raise of this round paid
        self._base = Base(self.limit)  # what a try is compared with; of `limit` while it rests
        self._phase = Phase.RESTING
        self._step = LARGEST_STEP
        self._rest_length = 0  # windows to rest after the last try
        self._rest_left = 0  # how many of them are left
        self._failed = 0  # rounds one after the other that came to nothing
        self._before_loss = 0  # the limit that was halved unasked; 0 once a try has said more
        self._restored = False  # it was undone in part
        self._took_before = 0.0  # how long requests took before they called for haste; 0: no haste

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        """A request has ended: see `Limit.observe`.

        It is called with every request, so nothing is done here but adding up.
        """
        if not 0.0 <= seconds <= LONGEST:
            return  # a clock was set, so it says nothing
        window = self._window
        self._recent += (seconds - self._recent) / RECENT
        if now < window.opens_at:
            if now >= window.asked_at:
                return  # it began under the last limit
            self._begin(now, seconds)
        window.count += 1
        window.seconds += seconds
        window.squares += seconds * seconds
        if ok:
            window.useful += 1
        if ongoing >= self.limit:
            window.full += 1
        if window.count >= window.next_look:
            self._look(now)

    def _begin(self, now: float, seconds: float) -> None:
        """The first request of all has ended, or time went back: that is another clock."""
        if self._window.asked_at == inf:
            self._recent = seconds
        self._window.open(now, now)

    def _look(self, now: float) -> None:
        """See whether what is in the window says something by now."""
        window = self._window
        window.weigh(now)
        if window.lasted < SHORTEST_WINDOW or window.lasted < window.mean:
            return
        if not window.makes_sense:
            window.open(now, now)
            return
        if self._is_back():
            self._restore(now)
        elif surprise := self._surprise():
            self._start_over(now, surprise)
        elif not self._is_bound():
            self._hold(now)
        elif self._load_set_in():
            self._make_haste(now, self.limit, self._unloaded)
        elif self._phase is Phase.RESTING:
            self._rest(now)
        else:
            self._judge(now)

    # What the window says

    def _is_bound(self) -> bool:
        """Whether the limit is what holds requests back."""
        window = self._window
        return window.full >= window.count * (BOUND if self.has_queue else BOUND_WITHOUT_QUEUE)

    def _load_set_in(self) -> bool:
        """After a time of little load requests take far longer."""
        return 0.0 < self._unloaded * FAR_SLOWER < self._window.mean and (
            self._phase is Phase.RESTING and not self._base.count
        )

    def _is_back(self) -> bool:
        """Most requests are of use again, and the limit is less than half of what it was.

        A single halving is not undone, as it may be what helped.
        """
        of_use = self._window.useful >= MOST_FAIL * self._window.count
        halved_again = 2 * self.limit < self._before_loss
        return of_use and halved_again and self._phase is not Phase.TRYING_DOWN

    def _surprise(self) -> float:
        """The logarithm of how much longer or shorter requests take than the limit explains.

        With a limit other than the base's they may take as long as with that, or longer or shorter
        in proportion. 0 where it is no more, or may be chance.
        """
        base = self._base
        if not base.count:
            return 0.0
        recent = max(self._recent, SHORTEST)
        factor = self.limit / base.limit
        longer = log(recent / (base.mean * max(1.0, factor)))
        shorter = log(base.mean * min(1.0, factor) / recent)
        surprise = max(longer, shorter)
        chance = standard_error(self._window.spread, RECENT_COUNTS, base.count)
        return surprise if surprise > CHANGED + CONFIDENCE * chance else 0.0

    def _is_precise(self, count: int, precision: float = PRECISION) -> bool:
        """Whether so many samples can tell two limits apart that are a step from each other."""
        if count >= ENOUGH_SAMPLES:
            return True
        return standard_error(self._window.spread, count, count) <= precision * log(self._step)

    def _rate(self) -> float:
        """How much gets through while the limit is reached, in requests of use in a second.

        It is Little's law, as to count those that end says less: slots / seconds that each takes.
        """
        window = self._window
        slots = self.limit if self.has_queue else min(self.limit, window.busy)
        return slots / window.mean * (window.useful + 0.5) / (window.count + 0.5)

    def _gain(self, rate: float) -> float:
        """The logarithm of how much more gets through than with the base."""
        return log(rate / self._base.rate)

    def _bar(self) -> float:
        """What the gain has to be for a try to pay: it is negative for a cut."""
        part = RAISE_PAYS if self._phase is Phase.TRYING_UP else CUT_COSTS
        return part * log(self.limit / self._base.limit)

    # What follows

    def _restore(self, now: float) -> None:
        """Undo a halving: it was no evidence that the limit had been too high.

        One after the other, not all at once: perhaps the service can do less than it could.
        """
        self._latest = self._window.mean
        self._restored = True
        self._forget(now, 2 * self.limit, LARGEST_STEP, OF_USE_AGAIN)

    def _start_over(self, now: float, surprise: float) -> None:
        """The service became another: what was known is of no use."""
        base = self._base
        self._latest = self._recent
        slower = self._recent > base.mean
        if slower and self._is_bound():
            self._make_haste(now, base.limit, base.mean)
        else:
            step = min(LARGEST_STEP, max(SMALLEST_STEP, exp(surprise)))
            self._forget(now, base.limit, step, SLOWER if slower else QUICKER)

    def _make_haste(self, now: float, limit: int, took_before: float) -> None:
        """Requests take longer while others wait: to be careful now costs more than to be wrong.

        By Little's law as many get through only if as many times more are ongoing, if the service
        can do that at all.
        """
        self._forget(now, limit, STEP_IN_HASTE, SLOWER)
        self._took_before = took_before
        self._unloaded = 0.0

    def _calm_down(self) -> None:
        self._took_before = 0.0
        self._step = LARGEST_STEP

    def _hold(self, now: float) -> None:
        """Fewer come than may: that says nothing of the limit, unless a try made it worse."""
        window = self._window
        resting = self._phase is Phase.RESTING
        enough_to_rest = resting and window.count >= ENOUGH_TO_REST
        if not (enough_to_rest or self._is_precise(window.count)):
            return
        self._latest = window.mean
        if resting and window.full < QUIET * window.count:
            self._learn_unloaded(window.mean)
        limit = self._base.limit if self._is_in_vain() else self.limit
        self._forget(now, limit, SMALLEST_STEP, CALM)

    def _learn_unloaded(self, mean: float) -> None:
        weight = BECOMES_QUICKER if mean < self._unloaded else BECOMES_SLOWER
        self._unloaded += (mean - self._unloaded) * (weight if self._unloaded else 1)

    def _is_in_vain(self) -> bool:
        """Whether a try brought less: fewer come than may, so no cut was called for."""
        if self._phase is Phase.TRYING_UP:
            rate = self._rate() * min(1.0, self._window.busy / self.limit)
            return self._gain(rate) < self._bar()
        return self._phase is Phase.TRYING_DOWN

    def _rest(self, now: float) -> None:
        """Learn what gets through, and begin a round when it is known and the rest is over."""
        window = self._window
        if self._took_before and window.mean < FAR_SLOWER * self._took_before:
            self._calm_down()  # it was chance: others take as long as before
        in_haste = self._took_before > 0.0
        known = self._is_precise(window.count, PRECISION_IN_HASTE if in_haste else PRECISION)
        if not known and window.count < ENOUGH_TO_REST:
            return
        if in_haste and not known:
            self._calm_down()  # they differ too much for a few to say anything
        self._base.pool(window)
        self._latest = window.mean
        if window.useful < LOST * window.count:
            self._halve(now)
            return
        self._rest_left -= 1
        if self._took_before or (self._rest_left <= 0 and self._is_precise(self._base.count)):
            self._begin_round(now)
        else:
            window.open(now, now)

    def _halve(self, now: float) -> None:
        """Nothing gets through: less can't be worse."""
        window = self._window
        if not self._before_loss:
            self._before_loss = self.limit
        elif self._restored:
            self._before_loss //= 2  # what was too much on the way back is not tried for ever
        self._restored = False
        self._took_before = 0.0
        self._base = Base(self.limit, count=window.count, mean=window.mean, useful=0.0)
        self._rest_length = self._failed = 0
        self._rest_at(now, self.limit / 2, ALL_LOST)

    def _begin_round(self, now: float) -> None:
        base = self._base
        base.rate = base.limit / base.mean * base.useful
        self._rose = False
        if base.useful < MOST_FAIL and self.limit > self._lowest:
            self._took_before = 0.0
            self._step = max(STEP_OF_DISTRESS, self._step)
            self._try_down(now, FAILING)
        else:
            self._try_up(now, TRYING_UP)

    def _judge(self, now: float) -> None:
        """Go on where a try paid, and back where it did not, as soon as that is clear."""
        window = self._window
        surplus = self._gain(self._rate()) - self._bar()
        chance = standard_error(window.spread, window.count, self._base.count)
        if abs(surplus) < CONFIDENCE * chance and not self._is_precise(window.count):
            return
        self._latest = window.mean
        self._before_loss = 0  # a try says more
        if surplus >= 0:
            self._go_on(now)
        elif self._is_time_to_try_down():
            self._try_down(now, TRYING_DOWN)
        else:
            self._go_back(now)

    def _is_time_to_try_down(self) -> bool:
        """Whether a round whose first raise was in vain goes on with a cut."""
        first_raise = self._phase is Phase.TRYING_UP and not self._rose
        due = self._failed % DOWN_EVERY == 0 and not self._took_before
        return first_raise and due and self._base.limit > self._lowest

    def _go_on(self, now: float) -> None:
        """The try paid: compare the next with it."""
        window = self._window
        self._base = Base(
            self.limit,
            rate=self._rate(),
            count=window.count,
            mean=window.mean,
            useful=window.useful / window.count,
        )
        self._step = STEP_IN_HASTE if self._took_before else LARGEST_STEP  # the knee may be far
        if self._phase is Phase.TRYING_UP:
            self._rose = True
            self._try_up(now, RAISED)
        elif self.limit > self._lowest:
            self._try_down(now, CUT)
        else:
            self._rest_length = self._failed = 0
            self._rest_at(now, self.limit, CUT)

    def _go_back(self, now: float) -> None:
        """The try did not pay: rest, the longer the more tries came to nothing."""
        up = self._phase is Phase.TRYING_UP
        if self._took_before:
            self._calm_down()
            if not self._rose:  # it was compared with little, so that says little
                self._forget(now, self._base.limit, LARGEST_STEP, RAISE_IN_VAIN)
                return
        if self._rose or not up:
            self._step = max(SMALLEST_STEP, sqrt(self._step))  # the knee is near: look closer
        if self._rose:
            self._rest_length = 1
            self._failed = 0  # so that it tries down next, should it have risen too far
        else:
            self._rest_length = min(LONGEST_REST, max(1, 2 * self._rest_length))
            self._failed += 1
        self._rest_at(now, self._base.limit, RAISE_IN_VAIN if up else CUT_IN_VAIN)

    # How it moves

    def _try_up(self, now: float, why: str) -> None:
        self._phase = Phase.TRYING_UP
        limit = self._base.limit
        self._move(now, max(limit + 1, limit * self._step), why)

    def _try_down(self, now: float, why: str) -> None:
        self._phase = Phase.TRYING_DOWN
        limit = self._base.limit
        self._move(now, min(limit - 1, limit / self._step), why)

    def _rest_at(self, now: float, limit: float, why: str) -> None:
        """Rest with what is known already."""
        self._phase = Phase.RESTING
        self._rest_left = self._rest_length
        self._move(now, limit, why)
        self._base.limit = self.limit

    def _forget(self, now: float, limit: int, step: float, why: str) -> None:
        """Rest, knowing nothing."""
        self._step = step
        self._took_before = 0.0
        self._rest_length = self._failed = 0
        self._base = Base(limit)
        self._rest_at(now, limit, why)

    def _move(self, now: float, limit: float, why: str) -> None:
        """Set the limit, and open a window when the service has got used to it."""
        old = self.limit
        self._set(int(self._clamped(limit) + 0.5), why)
        settled_at = now
        if self.limit != old:
            settled_at += SETTLING * self._latest * max(1.0, self.limit / old)
        self._window.open(now, settled_at)
