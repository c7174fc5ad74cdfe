"""Who is served where not all can be: classes, shares, tenants and costs, in virtual time."""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from loadshed._policy.admission import Admission
from loadshed._policy.criticality import Criticality
from loadshed._policy.limits.knee import KneeLimit
from loadshed._policy.line.line import PATIENCE_OF_A_CLASS
from tests.simulation.clients import Clients, Source
from tests.simulation.front import Front
from tests.simulation.loop import Loop
from tests.simulation.request import Request
from tests.simulation.services import Slots
from tests.simulation.steps import Steps
from tests.simulation.tally import Tally
from tests.simulation.work import exponential

pytestmark = pytest.mark.long

CRITICAL, SHEDDABLE = Criticality.CRITICAL, Criticality.SHEDDABLE
SLOTS = 10
TENTH = exponential(0.1)
CAPACITY = SLOTS / 0.1
"""Requests in a second, of one slot each."""

Shares = dict[Criticality, float] | None
Make = Callable[[Shares], Admission[Request]]

SEEDS = range(8 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 2)


def found(shares: Shares = None) -> Admission[Request]:
    """A limit that nobody chose."""
    return Admission(KneeLimit(), order="adaptive_lifo", shares=shares)


def fixed(shares: Shares = None) -> Admission[Request]:
    """The right one."""
    return Admission(SLOTS, shares=shares)


with_each_limit = pytest.mark.parametrize("make", [found, fixed])


@dataclass(slots=True)
class Record:
    """What came of one request.

    Attributes:
        work: How many seconds it takes.
        latency: How many seconds its client waited for the answer; infinitely many, if for none.
    """

    work: float
    latency: float = math.inf


class Account:
    """What came of the requests of one class, or of one tenant.

    Attributes:
        records: All that were sent.
        in_time: How many were answered before their client gave up.
        slot_seconds: For how long they were worked on, times the slots that they took.
    """

    def __init__(self) -> None:
        self.records: dict[Request, Record] = {}
        self.in_time = 0
        self.slot_seconds = 0.0


class Observed(Slots):
    """Ten slots that keep accounts, and see who goes before whom.

    Attributes:
        accounts: By tenant, or by class.
        wronged: How many of the class `CRITICAL` had to go though one that is `SHEDDABLE` waited.
        overtook: For each that is `SHEDDABLE` and began while one that is `CRITICAL` waited, how
            many of those had begun since the last one of its class.
    """

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop, Steps(SLOTS))
        self.accounts: dict[object, Account] = defaultdict(Account)
        self.wronged = 0
        self.overtook: list[int] = []
        self._before = 0

    def account(self, request: Request) -> Account:
        """The one of its tenant, or of its class."""
        is_told_apart = request.tenant is not None
        return self.accounts[request.tenant if is_told_apart else request.criticality]

    def receive(self, now: float, request: Request) -> None:
        self.account(request).records[request] = Record(request.work)
        super().receive(now, request)

    def start(self, now: float, request: Request) -> None:
        if request.criticality is CRITICAL:
            self._before += 1
        else:
            if request.front.admission.line.lane(CRITICAL).waiting:
                self.overtook.append(self._before)
            self._before = 0
        super().start(now, request)

    def refuse(self, now: float, request: Request) -> None:
        others_wait = request.front.admission.line.lane(SHEDDABLE).waiting > 0
        self.wronged += request.criticality is CRITICAL and others_wait

    def _finish(self, now: float, request: Request) -> None:
        account = self.account(request)
        account.records[request].latency = now - request.arrived
        account.in_time += now <= request.gives_up_at
        account.slot_seconds += request.cost * request.work
        super()._finish(now, request)


def observe(
    clients: Sequence[Clients], admission: Admission[Request], seconds: int, seed: int
) -> Observed:
    """Let them come for so long, and then see what becomes of the last of them."""
    loop, tally = Loop(), Tally(seconds + 9)
    service = Observed(loop)
    front = Front(loop, service, admission, tally)
    for number, each in enumerate(clients):
        load = Steps(each.load.first, *each.load.changes, (seconds, 0))
        finite, name = replace(each, load=load), f"{seed} {number}"
        Source(finite, loop, service=service, front=front, tally=tally, seed=name)
    loop.run(seconds + 9)
    return service


# Classes.


@with_each_limit
def test_a_spike_of_what_may_be_shed_costs_what_is_critical_next_to_nothing(make: Make) -> None:
    """What takes longer than its client waits is not counted: nobody could have served it."""
    deadline, served, possible = 0.5, 0, 0
    for seed in SEEDS:
        spike = Steps(0, (10, 12 * CAPACITY), (40, 0))
        service = observe(
            [
                Clients(Steps(0.5 * CAPACITY), TENTH, deadline),
                Clients(spike, TENTH, deadline, criticality=SHEDDABLE),
            ],
            make(None),
            seconds=50,
            seed=seed,
        )
        records = service.accounts[CRITICAL].records.values()
        served += sum(each.latency <= deadline for each in records)
        possible += sum(each.work <= deadline for each in records)
        assert service.wronged == 0
        assert min(service.overtook, default=PATIENCE_OF_A_CLASS) >= PATIENCE_OF_A_CLASS
    print(f"{served / possible:.4f} of {possible:,} in time")
    assert served / possible >= 0.994


@with_each_limit
def test_a_class_with_a_share_gets_it_whatever_a_higher_one_asks_for(make: Make) -> None:
    for seed in SEEDS:
        service = observe(
            [
                Clients(Steps(3 * CAPACITY), TENTH, 0.5),
                Clients(Steps(CAPACITY), TENTH, 0.5, criticality=SHEDDABLE),
            ],
            make({SHEDDABLE: 0.2}),
            seconds=60,
            seed=seed,
        )
        got = {each: a.slot_seconds / (SLOTS * 60) for each, a in service.accounts.items()}
        print(f"{got[SHEDDABLE]:.3f}, and {got[CRITICAL]:.3f} for the higher one")
        assert got[SHEDDABLE] >= 0.95 * 0.2
        assert got[CRITICAL] >= 0.95 * 0.8


# Tenants.


@with_each_limit
def test_a_tenant_that_sends_a_hundred_times_as_much_leaves_the_others_as_they_are(
    make: Make,
) -> None:
    """A request that was turned away counts as one that took for ever."""
    others = [Clients(Steps(0.05 * CAPACITY), TENTH, 1, tenant=f"{n}") for n in range(10)]
    greedy = Clients(Steps(5 * CAPACITY), TENTH, 1, tenant="greedy")
    alone: list[float] = []
    beside: list[float] = []
    for seed in SEEDS:
        quiet = observe(others, make(None), 60, seed)
        crowded = observe([*others, greedy], make(None), 60, seed)
        for service, latencies in [(quiet, alone), (crowded, beside)]:
            for each in others:
                records = service.accounts[each.tenant].records.values()
                latencies += [record.latency for record in records]
        goodput = [crowded.accounts[each.tenant].in_time for each in others]
        print(f"Jain's index {jain(goodput):.4f}")
        assert jain(goodput) >= 0.95
    print(f"99 %: {percentile(99, beside):.3f} s; alone {percentile(99, alone):.3f} s")
    assert percentile(99, beside) <= 1.5 * percentile(99, alone)


@with_each_limit
def test_a_tenant_whose_requests_take_more_slots_gets_no_more_of_them(make: Make) -> None:
    for seed in SEEDS:
        service = observe(
            [
                Clients(Steps(3 * CAPACITY), TENTH, 1, tenant="small"),
                Clients(Steps(0.75 * CAPACITY), TENTH, 1, tenant="large", cost=4),
            ],
            make(None),
            seconds=120,
            seed=seed,
        )
        small, large = (service.accounts[name].slot_seconds for name in ["small", "large"])
        print(f"{large / small:.3f} times as much, {(large + small) / (SLOTS * 120):.3f} in all")
        assert large == pytest.approx(small, rel=0.1)


def jain(shares: Sequence[float]) -> float:
    """1 where all have the same, 1 / n where one of n has all.

    Jain, Chiu and Hawe, "A quantitative measure of fairness", DEC-TR-301, 1984.
    """
    return sum(shares) ** 2 / (len(shares) * sum(each * each for each in shares))


def percentile(percent: float, values: Sequence[float]) -> float:
    """What so many of a hundred values don't exceed."""
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
