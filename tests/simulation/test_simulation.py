"""The simulation agrees with what queueing theory knows exactly."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest

from loadshed._policy.admission import Admission
from tests.simulation import __main__ as command
from tests.simulation import pictures
from tests.simulation.clients import Clients, Source
from tests.simulation.front import Front
from tests.simulation.gate import lag_gate
from tests.simulation.limits import CONTENDERS, Contender
from tests.simulation.loop import Loop
from tests.simulation.one_cpu import NoAwait, OneCpu
from tests.simulation.request import Request
from tests.simulation.robustness import ROBUSTNESS
from tests.simulation.scenario import Outcome, Scenario, run
from tests.simulation.scenarios import ACCEPTANCE
from tests.simulation.services import Service, Sharing, Slots
from tests.simulation.steps import Steps, bursts
from tests.simulation.tally import Tally
from tests.simulation.work import Work, constant, exponential, log_normal

pytestmark = pytest.mark.long


class Watched(Front):
    """A front that remembers for how long each request was there."""

    sojourns: list[float]

    def finish(self, now: float, request: Request) -> None:
        self.sojourns.append(now - request.arrived)
        super().finish(now, request)


def mean_sojourn(
    service: Callable[[Loop], Service],
    rate: float,
    work: Work,
    *,
    limit: float = math.inf,
    seconds: int = 3000,
) -> float:
    """Seconds from the arrival to the answer, where nobody is turned away or gives up."""
    loop, tally = Loop(), Tally(seconds)
    server = service(loop)
    front = Watched(loop, server, Admission(limit, math.inf), tally)
    front.sojourns = []
    clients = Clients(Steps(rate), work, patience=math.inf)
    Source(clients, loop, service=server, front=front, tally=tally, seed="0")
    loop.run(seconds)
    return sum(front.sojourns) / len(front.sojourns)


def erlang_c(servers: int, offered: float) -> float:
    """The probability that one has to wait in M/M/c."""
    weights = [math.pow(offered, n) / math.factorial(n) for n in range(servers + 1)]
    last = weights.pop() * servers / (servers - offered)
    return last / (sum(weights) + last)


def mean_sojourn_of_m_m_c(servers: int, rate: float, mean: float) -> float:
    return mean + erlang_c(servers, rate * mean) / (servers / mean - rate)


def lost_in_m_m_c_k(servers: int, places: int, offered: float) -> float:
    """The probability that all servers and all places in the queue are taken."""
    weights = [
        math.pow(offered, n)
        / math.factorial(min(n, servers))
        / math.pow(servers, max(0, n - servers))
        for n in range(servers + places + 1)
    ]
    return weights[-1] / sum(weights)


def outcome_of(scenario: Scenario, limit: float, max_queued: float, seed: int = 0) -> Outcome:
    def admission(_: int) -> Admission[Request]:
        return Admission(limit, max_queued)

    return run(scenario, Contender("", admission), seed)


def slots(
    number: int, rate: float, *, patience: float, seconds: int = 500, retries: int = 0
) -> Scenario:
    """Requests that take 0.1 s, exponential."""
    clients = Clients(Steps(rate), exponential(0.1), patience, retries)
    return Scenario(
        name="slots",
        title="",
        service=partial(Slots, slots=Steps(number)),
        clients=(clients,),
        capacity=Steps(10 * number),
        right=number,
        seconds=seconds,
    )


@pytest.mark.parametrize("limit", [5, math.inf], ids=["in the queue", "in the service"])
def test_requests_wait_as_in_m_m_c(limit: float) -> None:
    service = partial(Slots, slots=Steps(5))
    found = mean_sojourn(service, 40, exponential(0.1), limit=limit)
    assert found == pytest.approx(mean_sojourn_of_m_m_c(5, 40, 0.1), rel=0.05)


@pytest.mark.parametrize(("places", "rate"), [(0, 80), (0, 200), (10, 100), (10, 200)])
def test_requests_are_lost_as_in_m_m_c_k(places: int, rate: float) -> None:
    tally = outcome_of(slots(10, rate, patience=math.inf), 10, places).tally
    lost = 1 - sum(tally.good) / sum(tally.arrived)
    assert lost == pytest.approx(lost_in_m_m_c_k(10, places, rate * 0.1), rel=0.05, abs=0.002)


def test_clients_give_up_as_often_as_a_request_of_m_m_1_takes_longer() -> None:
    tally = outcome_of(slots(1, 7, patience=0.5, seconds=5000), math.inf, math.inf).tally
    in_time = sum(tally.good) / sum(tally.arrived)
    assert in_time == pytest.approx(1 - math.exp(-(10 - 7) * 0.5), rel=0.03)


@pytest.mark.parametrize("work", [constant(0.1), exponential(0.1), log_normal(0.1, cv=2)])
def test_a_shared_server_takes_as_long_whatever_the_distribution(work: Work) -> None:
    found = mean_sojourn(partial(Sharing, full=1), 7, work, seconds=8000)
    assert found == pytest.approx(0.1 / (1 - 0.7), rel=0.06)


def test_a_service_shared_beyond_some_is_as_long_as_m_m_c() -> None:
    found = mean_sojourn(partial(Sharing, full=5), 40, exponential(0.1))
    assert found == pytest.approx(mean_sojourn_of_m_m_c(5, 40, 0.1), rel=0.05)


def test_a_drag_costs_all() -> None:
    # Of two at once on one processor each takes 2 * (1 + drag) times as long.
    loop, tally = Loop(), Tally(10)
    service = Sharing(loop, full=1, drag=0.5)
    front = Watched(loop, service, Admission(math.inf), tally)
    front.sojourns = []
    none = Clients(Steps(0), constant(1), patience=10)
    source = Source(none, loop, service=service, front=front, tally=tally, seed="")
    for _ in range(2):
        about = {"work": 1.0, "arrived": 0.0, "gives_up_at": 10.0}
        service.receive(0.0, Request(source=source, front=front, attempt=0, **about))
    loop.run(10)
    assert front.sojourns == pytest.approx([3, 3])


def test_one_that_takes_several_slots_waits_inside_until_so_many_are_free() -> None:
    loop, tally = Loop(), Tally(10)
    service = Slots(loop, Steps(3))
    front = Watched(loop, service, Admission(math.inf), tally)
    front.sojourns = []
    for seed, (cost, seconds) in enumerate([(1, 2), (2, 1), (3, 2), (1, 1)]):
        none = Clients(Steps(0), constant(1), patience=10, cost=cost)
        source = Source(none, loop, service=service, front=front, tally=tally, seed=f"{seed}")
        about = {"work": seconds, "arrived": 0.0, "gives_up_at": 10.0}
        service.receive(0.0, Request(source=source, front=front, attempt=0, **about))
    loop.run(10)
    assert front.sojourns == [1, 2, 4, 5]


def test_an_event_loop_is_m_g_1() -> None:
    # Pollaczek and Khinchine: it waits for the work that it finds, whatever the distribution.
    rate, least, mean = 70, 0.0045, 0.005
    second_moment = (least + mean) ** 2 + mean**2
    busy = rate * (least + mean)
    expected = least + mean + rate * second_moment / (2 * (1 - busy))
    work = exponential(mean, least=least)
    assert mean_sojourn(partial(NoAwait, parse=0), rate, work) == pytest.approx(expected, rel=0.05)
    awaiting = partial(OneCpu, parse=0, wait=0.09)
    assert mean_sojourn(awaiting, rate, work) == pytest.approx(expected + 0.09, rel=0.05)


def test_reading_and_shedding_take_time_of_the_cpu() -> None:
    # 400 a second that are read and shed: 0.32 s; what is left is for others, at 10 ms each.
    scenario = Scenario(
        name="cpu",
        title="",
        service=NoAwait,
        clients=(Clients(Steps(400), constant(0.0095), patience=0.5),),
        capacity=Steps(100),
        right=1,
        seconds=200,
    )
    gated = Contender("", CONTENDERS["right"].admission, lag_gate)
    served = (1 - 400 * 0.0008) / (0.0095 - 0.0003)
    assert run(scenario, gated, 0).goodput == pytest.approx(served / 100, rel=0.02)


def test_handlers_that_never_await_are_one_at_a_time() -> None:
    ongoing = []

    class Seen(NoAwait):
        def start(self, now: float, request: Request) -> None:
            ongoing.append(request.front.admission.ongoing)
            super().start(now, request)

    assert mean_sojourn(Seen, 90, constant(0.0095), seconds=20) > 0.0095
    assert set(ongoing) == {1}


def test_a_change_counts_for_what_begins_after_it() -> None:
    service = partial(Slots, slots=Steps(1, (10, 2)), slowness=Steps(1, (10, 2)))
    scenario = replace(slots(1, 1000, patience=math.inf, seconds=20), service=service)
    tally = outcome_of(scenario, 10, 10).tally
    assert sum(tally.good[10:]) == pytest.approx(100, rel=0.3)
    assert sum(tally.good[:10]) == pytest.approx(100, rel=0.3)


def test_fewer_slots_take_effect_when_those_at_work_are_done() -> None:
    service = partial(Slots, slots=Steps(10, (10, 5)))
    scenario = replace(slots(10, 1000, patience=math.inf, seconds=60), service=service)
    tally = outcome_of(scenario, 20, 20).tally
    assert sum(tally.good[11:]) / 49 == pytest.approx(50, rel=0.1)


def test_where_everything_takes_too_long_nothing_is_good() -> None:
    service = partial(Slots, slots=Steps(10), least=Steps(0, (10, 1), (20, 0)))
    scenario = replace(slots(10, 200, patience=0.5, seconds=30), service=service)
    good = outcome_of(scenario, 10, 10).tally.good
    assert sum(good[11:20]) == 0
    assert min(good[:10]) > 0 < min(good[22:])


def test_clients_that_were_shed_or_gave_up_try_again() -> None:
    # One slot that nobody gives back in time: all but the first are shed, or give up, 4 times.
    sent = []

    class Stuck(Service):
        def receive(self, now: float, request: Request) -> None:
            sent.append(request.attempt)
            super().receive(now, request)

        def start(self, now: float, request: Request) -> None:
            """It takes for ever."""

    scenario = slots(1, 2, patience=0.5, seconds=100, retries=3)
    scenario = replace(scenario, service=Stuck)
    outcome_of(scenario, 1, 1)
    counts = [sent.count(attempt) for attempt in range(5)]
    assert counts[0] > 100
    assert counts[4] == 0
    assert counts[1:4] == pytest.approx([counts[0]] * 3, abs=5)


def test_a_load_that_changes_is_a_poisson_process_in_each_piece() -> None:
    load = Steps(100, (1000, 0), (2000, 5))
    scenario = replace(
        slots(10, 1, patience=1, seconds=3000),
        clients=(Clients(load, constant(0.001), patience=1),),
    )
    arrived = outcome_of(scenario, 10, 10).tally.arrived
    for start, rate in ((0, 100), (2000, 5)):
        counts = arrived[start : start + 1000]
        mean = sum(counts) / 1000
        variance = sum((count - mean) ** 2 for count in counts) / 1000
        assert mean == pytest.approx(rate, rel=0.05)
        assert variance == pytest.approx(rate, rel=0.15)
    assert sum(arrived[1000:2000]) == 0


def test_a_number_changes_in_steps() -> None:
    steps = Steps(10, (60, 5), (150, 10))
    assert [steps.at(time) for time in (0, 59, 60, 149, 150, 1000)] == [10, 10, 5, 5, 10, 10]
    assert list(steps.times(2).pieces())[1] == (60, 150, 10)
    on_and_off = bursts(1, 9, on=2, off=4, until=100)
    assert {number for _, _, number in on_and_off.pieces()} == {1, 9}


def test_a_log_normal_has_the_mean_and_the_spread_that_were_asked_for() -> None:
    random, draw = Random(0), log_normal(0.5, cv=0.3)  # noqa: S311
    drawn = [draw(random) for _ in range(20_000)]
    mean = sum(drawn) / len(drawn)
    assert mean == pytest.approx(0.5, rel=0.02)
    variance = sum((each - mean) ** 2 for each in drawn) / len(drawn)
    assert math.sqrt(variance) / mean == pytest.approx(0.3, rel=0.05)


def test_every_limit_meets_the_same_requests() -> None:
    scenario = slots(10, 150, patience=0.5, seconds=20)
    first, second = (outcome_of(scenario, limit, limit) for limit in (3, 30))
    assert first.tally.arrived == second.tally.arrived
    assert first.tally.good != second.tally.good
    assert outcome_of(scenario, 3, 3).tally.good == first.tally.good
    assert outcome_of(scenario, 3, 3, seed=1).tally.good != first.tally.good


def test_scenarios_have_names_of_their_own() -> None:
    assert len(command.SCENARIOS) == len(ACCEPTANCE) + len(ROBUSTNESS)


def test_the_command_prints_and_writes_a_table_and_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(pictures, "LOADS", (0.5, 1))
    monkeypatch.setattr(pictures, "LOOKS", {"right": pictures.LOOKS["right"]})
    monkeypatch.setattr(pictures, "CHANGED", {"right": pictures.CHANGED["right"]})
    written = tmp_path / "limits.md"
    options = ["14", "--seeds", "1", "--limits", "right", "half", "--write", str(written)]
    monkeypatch.setattr("sys.argv", ["simulation", *options])
    command.main()
    assert "| 14 | 8 requests a minute for 30 minutes |  | 1.00 [1.00] |" in capsys.readouterr().out
    assert "| fixed, half |" in written.read_text()
    for name in ("limits-over-load.svg", "limit-over-time.svg"):
        ElementTree.fromstring((tmp_path / "assets" / name).read_text())  # noqa: S314


def test_the_command_knows_the_scenarios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulation", "1", "nonsense"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no such scenario: nonsense" in capsys.readouterr().err
