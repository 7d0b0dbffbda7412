"""Published and computed examples of CPU scheduling, run again: what they say, and what the model gives.

Models: each example as a small host; `vmksim fixtures` prints the table, and the tests check every row.  Expected values
are exact where the example is arithmetic, and rounded as published beside it.

Leaves out: what real hardware adds to a measurement (V6 is a shape: its bound is kept, the rest is compared to a
quarter), disks (`disk_fixtures`), policies other than ESXi's (`policy_fixtures`).

Sources: Denneman 2010-06-08 (shares and reservation) and 2020-05-27 (pools, scalable shares); VMware's operations guide, VM CPU
metrics (threads, frequency, states, limit); Chandra et al., OSDI 2000 (infeasible weights); options of ESXi (skew).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import attrs

from sim.core.context import Sim
from sim.core.units import MS, SECOND, US
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.cores import used_ns
from sim.kernel.sched.entitlement import Party, divide, scaled_shares
from sim.kernel.sched.fluid import Claim, feasible_weights, fluid_shares
from sim.kernel.sched.machine import set_frequency
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import Pool, PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, OnOff, Step, Trace, Wait, Workload
from sim.kernel.world import World, WorldState

__all__ = ["FIXTURES", "Fixture", "run_fixtures"]

MHZ = 1_000_000


@attrs.frozen(kw_only=True)
class Fixture:
    """One row: `found` differs from `expected` by at most `tolerance` (exact values have none).

    A `bound` must not be passed at all: only below it is there a tolerance.
    """

    name: str
    case: str
    unit: str
    expected: Fraction
    found: Fraction
    tolerance: Fraction = Fraction(0)
    published: str = ""
    bound: bool = False

    @property
    def met(self) -> bool:
        """Whether the model gives what the example says."""
        if self.bound and self.found > self.expected:
            return False
        return abs(self.found - self.expected) <= self.tolerance


class _Late:
    """Sleeps first, then does what another workload does."""

    def __init__(self, wait_ns: int, then: Workload) -> None:
        self._wait_ns = wait_ns
        self._then = then

    def next(self, now_ns: int) -> Step:
        """Return the sleep once, then the other's steps."""
        if self._wait_ns:
            wait_ns, self._wait_ns = self._wait_ns, 0
            return Wait(wait_ns)
        return self._then.next(now_ns)


def _host(cores: int, mhz: int, *, threads: int = 1, **options: int | bool | str) -> Scheduler:
    spec = CpuSpec(cores_per_node=cores, threads_per_core=threads, core_hz=mhz * MHZ)
    knobs: dict[str, int | bool | str] = {"quantum_ns": 10 * MS, "world_switch_ns": 0, **options}
    return Scheduler(Sim(categories=()), Topology.of(spec), SchedOptions(**knobs))  # type: ignore[arg-type]


def _start(
    sched: Scheduler,
    workloads: Sequence[Workload],
    *,
    shares: int = 1000,
    reservation_mhz: int = 0,
    limit_mhz: int = 0,
    affinity: int = -1,
    pool: Pool | None = None,
) -> list[World]:
    worlds = [sched.add("vcpu", workload) for workload in workloads]
    sched.group(worlds)
    bucket = sched.bucket(limit_mhz * MHZ) if limit_mhz else None
    for world in worlds:
        sched.allocate(
            world,
            shares=shares,
            reservation_hz=reservation_mhz * MHZ,
            bucket=bucket,
            affinity=affinity,
            pool=pool,
        )
    for world in worlds:
        sched.begin(world)
    return worlds


def _mhz(sched: Scheduler, worlds: Sequence[World]) -> Fraction:
    run_ns = sum(world.times(sched.sim.now).run_ns for world in worlds)
    return Fraction(run_ns * sched.topology.core_hz, sched.sim.now * MHZ)


def _percent_used(sched: Scheduler, world: World) -> Fraction:
    times = world.times(sched.sim.now)
    used = used_ns(times.run_ns, times.shared_ns, times.overclock_units, sched.topology.core_hz)
    return 100 * used / sched.sim.now


def _v1() -> list[Fixture]:
    """Shares, a reservation and a demand on a host of 6000 MHz: as fluid, and in the schedule."""
    rows = []
    cases = (("V1", 6000, (500, 2250, 3250)), ("V2", 2000, (500, 3500, 2000)))
    for name, demand, wanted in cases:
        claims = [
            Claim(weight=1000, ceiling=500),
            Claim(weight=1000, floor=2250, ceiling=6000),
            Claim(weight=2000, ceiling=demand),
        ]
        fluid = fluid_shares(6000, claims).shares
        sched = _host(1, 6000)
        slice_ns = 40 * MS
        vms = [
            _start(sched, [Trace((833,), slice_ns, slice_ns=slice_ns)]),
            _start(sched, [Busy()], reservation_mhz=2250),
            _start(sched, [Trace((demand * 10_000 // 6000,), slice_ns, slice_ns=slice_ns)], shares=2000),
        ]
        sched.sim.engine.run(20 * SECOND)
        for number, (share, expected, worlds) in enumerate(zip(fluid, wanted, vms, strict=True), 1):
            case = f"VM{number} of 500 MHz / res 2250 / {demand} MHz"
            rows.append(
                Fixture(
                    name=name, case=f"{case}, fluid", unit="MHz", expected=Fraction(expected), found=share
                )
            )
            rows.append(
                Fixture(
                    name=name,
                    case=f"{case}, scheduled",
                    unit="MHz",
                    expected=Fraction(expected),
                    found=_mhz(sched, worlds),
                    tolerance=Fraction(12),
                )
            )
    return rows


def _v3() -> list[Fixture]:
    """Divide 100 GHz over a High pool with six VMs and a Normal one with two."""
    rows = []
    for scalable in (False, True):
        high, normal = (Fraction(8000), Fraction(4000))
        if scalable:
            high, normal = scaled_shares("high", 6000), scaled_shares("normal", 2000)
        pools = tuple(
            Party(
                name=name,
                weight=weight,
                children=tuple(Party(name=f"{name}{n}", weight=1000, ceiling=100) for n in range(count)),
            )
            for name, weight, count in (("High", high, 6), ("Normal", normal, 2))
        )
        found = divide(Party(name="", weight=1, children=pools), 100)
        wanted = (Fraction(100, 7), Fraction(50, 7)) if scalable else (Fraction(100, 9), Fraction(50, 3))
        published = ("", "") if scalable else ("11 GHz", "16.5 GHz")
        how = "scalable shares" if scalable else "fixed shares"
        for pool, expected, text in zip(("High", "Normal"), wanted, published, strict=True):
            case = f"a VM of the {pool} pool, {how}"
            rows.append(
                Fixture(
                    name="V3",
                    case=case,
                    unit="GHz",
                    expected=expected,
                    found=found[f"{pool}0"][0],
                    published=text,
                )
            )
        rows += _v3_scheduled(wanted, published, scalable=scalable)
    return rows


def _v3_scheduled(
    wanted: tuple[Fraction, Fraction], published: tuple[str, str], *, scalable: bool
) -> list[Fixture]:
    """Let eight VMs of eight busy vCPUs each compete on 40 cores of 2.5 GHz, in the two pools; the mean VM of each."""
    sched = _host(40, 2500)
    rows = []
    vms: list[list[World]] = []
    for level, count in (("high", 6), ("normal", 2)):
        pool = sched.pools.add(PoolSpec(name=level, shares=level, scalable=scalable))
        vms.append([world for _ in range(count) for world in _start(sched, [Busy()] * 8, pool=pool)])
    sched.sim.engine.run(4 * SECOND)
    how = "scalable shares" if scalable else "fixed shares"
    for name, worlds, expected, text in zip(("High", "Normal"), vms, wanted, published, strict=True):
        rows.append(
            Fixture(
                name="V3",
                case=f"a VM of the {name} pool, {how}, scheduled",
                unit="GHz",
                expected=expected,
                found=_mhz(sched, worlds) / 1000 / (len(worlds) // 8),
                tolerance=Fraction(1, 20),
                published=text,
            )
        )
    return rows


def _v4() -> list[Fixture]:
    """Two threads of one core, each busy half the time, half of that together."""
    rows = []
    half = _host(1, 1000, threads=2)
    (world,) = _start(half, [OnOff(50 * MS, 50 * MS)], affinity=1)
    _start(half, [_Late(25 * MS, OnOff(50 * MS, 50 * MS))], affinity=2)
    half.sim.engine.run(100 * SECOND + 25 * MS)
    before = world.times(half.sim.now), half.sim.now
    half.sim.engine.run(200 * SECOND + 25 * MS)
    spent = world.times(half.sim.now) - before[0]
    span_ns = half.sim.now - before[1]
    run = Fraction(100 * spent.run_ns, span_ns)
    used = 100 * used_ns(spent.run_ns, spent.shared_ns, spent.overclock_units, 10**9) / span_ns
    rows.append(
        Fixture(
            name="V4",
            case="half the time, half of it together: Run",
            unit="%",
            expected=Fraction(50),
            found=run,
        )
    )
    rows.append(
        Fixture(
            name="V4",
            case="half the time, half of it together: Used",
            unit="%",
            expected=Fraction(40625, 1000),
            found=used,
        )
    )
    return rows


def _v4b() -> list[Fixture]:
    """Two threads of one core that are always busy, on the VM's side and on the pCPU's."""
    rows = []
    full = _host(1, 1000, threads=2)
    (world,) = _start(full, [Busy()])
    _start(full, [Busy()])
    full.sim.engine.run(10 * SECOND)
    rows.append(
        Fixture(
            name="V4b",
            case="always, both threads: Used",
            unit="%",
            expected=Fraction(625, 10),
            found=_percent_used(full, world),
        )
    )
    times = full.pcpus[0].times(full.sim.now)
    rows.append(
        Fixture(
            name="V4b",
            case="always, both threads: PCPU USED",
            unit="%",
            expected=Fraction(50),
            found=100 * times.used_ns / full.sim.now,
        )
    )
    return rows


def _frequency() -> list[Fixture]:
    """Run a core above and below its nominal frequency."""
    rows = []
    for hz, expected in ((3000, 150), (1500, 75)):
        fast = _host(1, 2000)
        set_frequency(fast, 0, hz * MHZ)
        (world,) = _start(fast, [Busy()])
        fast.sim.engine.run(SECOND)
        rows.append(
            Fixture(
                name="V4c",
                case=f"a 2000 MHz core at {hz} MHz: Used",
                unit="%",
                expected=Fraction(expected),
                found=_percent_used(fast, world),
            )
        )
    return rows


def _v5() -> list[Fixture]:
    """Four vCPUs over one sample of 20 s: their states add up to 80 000 ms."""
    sched = _host(2, 1000, world_switch_ns=2 * US)
    worlds = _start(sched, [OnOff(7 * MS, 3 * MS, sched.sim.rng.fast(f"{index}")) for index in range(4)])
    sched.sim.engine.run(20 * SECOND)
    total = sum(world.times(sched.sim.now).total_ns for world in worlds)
    return [
        Fixture(
            name="V5",
            case="states of 4 vCPUs in 20 s",
            unit="ms",
            expected=Fraction(80_000),
            found=Fraction(total, MS),
        )
    ]


def _v6() -> list[Fixture]:
    """Four vCPUs at 2.7 GHz that want 6.6 GHz under a limit of 4 GHz, in a sample of 20 s after the first burst is used up."""
    sched = _host(4, 2700)
    worlds = _start(sched, [Trace((6111,), 100 * MS) for _ in range(4)], limit_mhz=4000)
    sched.sim.engine.run(20 * SECOND)
    before = [world.times(sched.sim.now) for world in worlds]
    sched.sim.engine.run(40 * SECOND)
    times = [world.times(sched.sim.now) - old for world, old in zip(worlds, before, strict=True)]
    run_ns, ready_ns = sum(each.run_ns for each in times), sum(each.ready_ns for each in times)
    limited_ns = sum(each.max_limited_ns for each in times)
    whole_ns = 4 * 20 * SECOND
    rows = [
        ("usage under the limit, which it may not pass", "MHz", 4000, 4 * 2700 * run_ns, 1, "3.95 GHz"),
        (
            "Ready, with the time that the limit stops it",
            "%",
            40,
            100 * (ready_ns + limited_ns),
            10,
            "up to 40 %",
        ),
        ("ready but for the limit", "%", 0, 100 * ready_ns, 1, "about 0"),
    ]
    return [
        Fixture(
            name="V6",
            case=case,
            unit=unit,
            expected=Fraction(expected),
            found=Fraction(amount, whole_ns),
            tolerance=Fraction(tolerance),
            published=published,
            bound=unit == "MHz",
        )
        for case, unit, expected, amount, tolerance, published in rows
    ]


def _v10() -> list[Fixture]:
    """Two CPUs, weights 1 and 10, and a newcomer of weight 1: the light one must not starve."""
    plain = feasible_weights((1, 10, 1), 2)
    sched = _host(2, 1000, quantum_ns=MS)
    (light,) = _start(sched, [Busy()], shares=1)
    _start(sched, [Busy()], shares=10)
    sched.sim.engine.run(SECOND)
    _start(sched, [Busy()], shares=1)
    longest_ns, since_ns, ran_ns = 0, sched.sim.now, light.times(sched.sim.now).run_ns
    for step in range(1, 10_000):
        sched.sim.engine.run(SECOND + step * MS // 4)
        now_ns = light.times(sched.sim.now).run_ns
        if now_ns > ran_ns:
            since_ns, ran_ns = sched.sim.now, now_ns
        longest_ns = max(longest_ns, sched.sim.now - since_ns)
    return [
        Fixture(
            name="V10",
            case="readjusted weight of 10 beside 1 and 1",
            unit="1",
            expected=Fraction(2),
            found=plain[1],
        ),
        Fixture(
            name="V10",
            case="longest wait of the light one",
            unit="quanta",
            expected=Fraction(1),
            found=Fraction(longest_ns, MS),
            tolerance=Fraction(1, 2),
            published="1; 900 without readjustment",
        ),
    ]


def _skew() -> list[Fixture]:
    """Two vCPUs, one of them on a pCPU that it shares with three others: the lead of the other while it runs."""
    rows = []
    for polling, bound_us in ((False, 3000), (True, 4000)):
        sched = _host(2, 1000, quantum_ns=50 * MS, world_switch_ns=2 * US, cosched_polling=polling)
        first, second = (sched.add("vcpu", Busy()) for _ in range(2))
        sched.group((first, second))
        sched.allocate(first, shares=1000, affinity=1)
        sched.allocate(second, shares=1000, affinity=2)
        for world in (first, second):
            sched.begin(world)
        for _ in range(3):
            _start(sched, [Busy()], affinity=2)
        worst_ns = 0
        for step in range(1, 20_000):
            sched.sim.engine.run(step * 51 * US)
            if first.state is WorldState.RUN:
                lead_ns = first.times(sched.sim.now).run_ns - second.times(sched.sim.now).run_ns
                worst_ns = max(worst_ns, lead_ns)
        how = "looked at every 1000 us" if polling else "computed"
        rows.append(
            Fixture(
                name="P9",
                case=f"largest skew of a running vCPU, {how}",
                unit="us",
                expected=Fraction(bound_us),
                found=Fraction(worst_ns, US),
                tolerance=Fraction(1000 if polling else 60),
                bound=True,
            )
        )
    return rows


FIXTURES: tuple[Callable[[], list[Fixture]], ...] = (_v1, _v3, _v4, _v4b, _frequency, _v5, _v6, _v10, _skew)
"""The examples; each gives its rows."""


def run_fixtures() -> list[Fixture]:
    """Run every example."""
    return [row for example in FIXTURES for row in example()]
