"""Theory of proportional share, run again: what computed examples say of stride, lottery and EEVDF, and what ours do.

Models: each example as a host of one or two pCPUs with busy worlds, no costs, looked at after each quantum; errors in
quanta, against the ideal share or between pairs.  The scheduled worlds begin behind others that hold the pCPUs for the
first quantum, so that the policy chooses from the first one on.

Leaves out: proofs.  The lottery's rows are samples against the mean of the binomial distribution.

Sources: bounds of Waldspurger and Weihl (MIT/LCS/TM-528 and OSDI 1994), Stoica and Abdel-Wahab (TR-95-22), Chandra et al.
(OSDI 2000); the weights are those of our own search for bad cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from math import isqrt

from sim.core.context import Sim
from sim.core.units import MS
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.policies.eevdf import Eevdf
from sim.kernel.sched.policies.lottery import Lottery
from sim.kernel.sched.policies.stride import Stride
from sim.kernel.sched.policy import Policy
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import FOREVER_NS, Busy, Run, Step, Wait, Workload
from sim.kernel.world import World
from sim.labs.cpu_fixtures import Fixture

__all__ = [
    "POLICY_FIXTURES",
    "binomial_error",
    "busy_host",
    "ideal_error",
    "lottery_errors",
    "pair_error",
    "quanta_served",
    "run_policy_fixtures",
    "starved_quanta",
]

QUANTUM_NS = MS
_THOUSANDTH = Fraction(1, 1000)


class _Script:
    """Takes some steps, then sleeps for good."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)

    def next(self, now_ns: int) -> Step:
        """Return the next step."""
        return self._steps.pop(0) if self._steps else Wait(FOREVER_NS)


def busy_host(
    policy: Policy, weights: Sequence[int], cpus: int = 1, *, seed: int = 0, late: Sequence[int] = ()
) -> tuple[Scheduler, list[World]]:
    """Make a host whose busy worlds of those weights have waited for one quantum, and run it up to there.

    `late` says after how many quanta more each of the last ones begins.
    """
    options = SchedOptions(quantum_ns=QUANTUM_NS, world_switch_ns=0, queues="host")
    topology = Topology.of(CpuSpec(cores_per_node=cpus, core_hz=1_000_000_000))
    sched = Scheduler(Sim(seed=seed, categories=()), topology, options, policy)
    before = [sched.add(f"before-{index}", _Script(Run(QUANTUM_NS))) for index in range(cpus)]
    workloads: list[Workload] = [Busy() for _ in weights[len(late) :]]
    workloads += [_Script(Wait((1 + quanta) * QUANTUM_NS), Run(FOREVER_NS)) for quanta in late]
    worlds = [sched.add(f"w{index}", workload) for index, workload in enumerate(workloads)]
    for world, weight in zip([*before, *worlds], [weights[0]] * cpus + list(weights), strict=True):
        sched.allocate(world, shares=weight)
        sched.begin(world)
    sched.sim.engine.run(QUANTUM_NS)
    return sched, worlds


def quanta_served(sched: Scheduler, worlds: Sequence[World], steps: int) -> Iterator[list[int]]:
    """Run quantum by quantum, and yield after each how many each world has been served."""
    begin_ns = sched.sim.now
    for step in range(1, steps + 1):
        sched.sim.engine.run(begin_ns + step * QUANTUM_NS)
        yield [world.times(sched.sim.now).run_ns // QUANTUM_NS for world in worlds]


def pair_error(served: Sequence[int], weights: Sequence[int]) -> Fraction:
    """Return the worst error of any two worlds against the ratio of their weights, in quanta."""
    worst = Fraction(0)
    for (one, mine), (other, yours) in combinations(zip(served, weights, strict=True), 2):
        worst = max(worst, abs(one - Fraction((one + other) * mine, mine + yours)))
    return worst


def ideal_error(served: Sequence[int], weights: Sequence[int]) -> Fraction:
    """Return the worst error of any world against its share of what all were served, in quanta."""
    total, whole = sum(served), sum(weights)
    return max(
        abs(Fraction(total * weight, whole) - got) for got, weight in zip(served, weights, strict=True)
    )


def _v7() -> list[Fixture]:
    """Stride on one CPU: pairwise within a quantum, in absolute terms beyond it."""
    weights = (29, 1, 29, 14, 2, 29, 13)
    sched, worlds = busy_host(Stride(), weights)
    rows = list(quanta_served(sched, worlds, 800))
    pairs = max(pair_error(served, weights) for served in rows)
    absolute = max(ideal_error(served, weights) for served in rows)
    case = "stride, weights 29,1,29,14,2,29,13, one CPU, 800 quanta"
    return [
        _row(
            "V7",
            f"{case}: worst pair",
            Fraction(9667, 10_000),
            pairs,
            Fraction(1, 20_000),
            published="0.9667",
        ),
        _row(
            "V7", f"{case}: worst world", Fraction(1487, 1000), absolute, _THOUSANDTH / 2, published="1.487"
        ),
    ]


def lottery_errors(seeds: int, lengths: Sequence[int]) -> dict[int, Fraction]:
    """Return the mean absolute error, over so many seeds, of the first of two worlds with 3 tickets to 1 after so many quanta."""
    errors = dict.fromkeys(lengths, Fraction(0))
    for seed in range(seeds):
        sched, worlds = busy_host(Lottery(), (3, 1), seed=seed)
        for length in sorted(lengths):
            sched.sim.engine.run((1 + length) * QUANTUM_NS)
            won = worlds[0].times(sched.sim.now).run_ns // QUANTUM_NS
            errors[length] += abs(won - Fraction(3 * length, 4))
    return {length: total / seeds for length, total in errors.items()}


def binomial_error(count: int, part: Fraction = Fraction(3, 4)) -> Fraction:
    """Return sqrt(2 n p (1 - p) / pi), the mean absolute deviation of a binomial, to a thousandth."""
    square = 2 * count * part * (1 - part) * Fraction(113, 355)
    return Fraction(isqrt(int(square * 1_000_000)), 1000)


def _v8() -> list[Fixture]:
    """Lottery: the error grows with the root of the number of quanta.  Within 3 standard errors of 200 samples: 16 %."""
    published = {100: "3.35", 1000: "11.0", 10_000: "32.4"}
    found = lottery_errors(200, list(published))
    return [
        _row(
            "V8",
            f"lottery 3:1, 200 seeds, mean absolute error after {length} quanta",
            binomial_error(length),
            found[length],
            binomial_error(length) * Fraction(16, 100),
            published=text,
        )
        for length, text in published.items()
    ]


def _eevdf() -> list[Fixture]:
    """EEVDF with the weights of V7, by which stride errs more than a quantum: the theorem says that it errs less."""
    weights = (29, 1, 29, 14, 2, 29, 13)
    sched, worlds = busy_host(Eevdf(), weights)
    worst = max(ideal_error(served, weights) for served in quanta_served(sched, worlds, 800))
    case = "EEVDF, the weights of V7, one CPU, 800 quanta: worst world, less than a quantum"
    return [_row("P3", case, Fraction(1), worst, Fraction(1), published="< 1", bound=True)]


def _v9() -> list[Fixture]:
    """Stride on two CPUs with feasible weights."""
    weights = (1, 3, 1, 2, 1, 2, 8, 1, 2)
    sched, worlds = busy_host(Stride(), weights, cpus=2)
    worst = max(ideal_error(served, weights) for served in quanta_served(sched, worlds, 400))
    case = "stride, weights 1,3,1,2,1,2,8,1,2, two CPUs, 400 quanta: worst world"
    return [_row("V9", case, Fraction(2048, 1000), worst, _THOUSANDTH / 2, published="2.048")]


def starved_quanta(*, readjust: bool) -> tuple[int, list[int]]:
    """Run the case of infeasible weights: the longest wait of the light world, and what all three were served."""
    policy = Stride(readjust=readjust, start_tags=True)
    sched, worlds = busy_host(policy, (1, 10, 1), cpus=2, late=(1000,))
    longest = wait = before = 0
    for served in quanta_served(sched, worlds, 2500):
        wait = wait + 1 if served[0] == before else 0
        before = served[0]
        longest = max(longest, wait)
    return longest, served


def _v10() -> list[Fixture]:
    """Infeasible weights: a newcomer locks the light world out, unless weights are readjusted."""
    rows = []
    case = "start tags, weights 1,10 on two CPUs, a third of 1 after 1000 quanta"
    for readjust, wait, served in ((False, 900, (1300, 2500, 1200)), (True, 1, (1750, 2500, 750))):
        found, got = starved_quanta(readjust=readjust)
        what = "readjusted" if readjust else "plain"
        rows.append(_row("V10", f"{case}, {what}: longest wait", Fraction(wait), Fraction(found)))
        for index, expected in enumerate(served):
            name = f"{case}, {what}: served to world {index + 1}"
            rows.append(_row("V10", name, Fraction(expected), Fraction(got[index])))
    return rows


def _row(
    name: str,
    case: str,
    expected: Fraction,
    found: Fraction,
    tolerance: Fraction = Fraction(0),
    *,
    published: str = "",
    bound: bool = False,
) -> Fixture:
    return Fixture(
        name=name,
        case=case,
        unit="quanta",
        expected=expected,
        found=found,
        tolerance=tolerance,
        published=published,
        bound=bound,
    )


POLICY_FIXTURES: tuple[Callable[[], list[Fixture]], ...] = (_v7, _v8, _eevdf, _v9, _v10)
"""The examples; each gives its rows."""


def run_policy_fixtures() -> list[Fixture]:
    """Run every example."""
    return [row for example in POLICY_FIXTURES for row in example()]
