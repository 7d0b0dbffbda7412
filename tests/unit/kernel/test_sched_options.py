"""Releases and their options, and what of them acts."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from sim.core.context import Sim
from sim.core.structure import FieldError, structure
from sim.core.units import MS, SECOND
from sim.errors import ScenarioError
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.advanced import OPTIONS, RELEASES, USED, UnknownOption, default_of, setting_of
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy
from sim.kernel.world import COMPETING


def test_there_are_82_options_and_12_releases():
    assert (len(OPTIONS), len(RELEASES)) == (82, 12)
    assert set(OPTIONS) >= USED


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Cpu.Quantum", [50] + [200] * 11),
        ("Cpu.HTWholeCoreThreshold", [200] + [800] * 11),
        ("Cpu.PackageRebalancePeriod", [20] * 6 + [2000] * 6),
        ("Cpu.HostRebalancePeriod", [100] * 6 + [2000] * 6),
        ("Cpu.DefaultImpact", [30] * 3 + [None] * 9),
        ("Cpu.MoveCurrentRunnerPcpus", [4] * 4 + [None] * 8),
        ("Cpu.CoschedExclusiveAffinity", [None] + [0] * 3 + [None] * 8),
        ("Numa.PageMigRateMax", [16000] + [8000] * 9 + [32000] * 2),
        ("Numa.DeviceAffinity", [None] * 10 + [0] * 2),
        ("Cpu.CoschedCostopThreshold", [3000] * 12),
    ],
)
def test_defaults_change_with_the_releases_as_published(name, values):
    found = [setting and setting.default for setting in map(OPTIONS[name].at, RELEASES)]
    assert found == values


def test_ranges_hold_their_defaults():
    for option in OPTIONS.values():
        for release in RELEASES:
            setting = option.at(release)
            assert setting is None or setting.low <= setting.default <= setting.high


def test_an_option_that_a_release_lacks_is_named():
    with pytest.raises(UnknownOption, match=r"ESXi 6.0 has no option 'Numa.DeviceAffinity'"):
        default_of("Numa.DeviceAffinity", "6.0")
    with pytest.raises(UnknownOption, match=r"did you mean Cpu.Quantum"):
        setting_of("Cpu.Quantom", "8.0")


def test_a_release_sets_the_knobs_and_advanced_options_and_own_names_win():
    assert SchedOptions().quantum_ns == 200 * MS
    assert SchedOptions(release="6.0").quantum_ns == 50 * MS
    options = SchedOptions(release="6.0", advanced={"Cpu.Quantum": 70, "Cpu.CoschedCostopThreshold": 5000})
    assert (options.quantum_ns, options.costop_ns) == (70 * MS, 5 * MS)
    assert SchedOptions(advanced={"Cpu.Quantum": 70}, quantum_ns=MS).quantum_ns == MS


@pytest.mark.parametrize(
    ("advanced", "wanted"),
    [
        ({"Cpu.Quantum": 0}, "from 1 to 1000"),
        ({"Cpu.Quantum": True}, "an integer"),
        ({"Cpu.No": 1}, "no option"),
    ],
)
def test_a_value_outside_its_range_is_refused(advanced, wanted):
    with pytest.raises(FieldError, match=wanted):
        SchedOptions(advanced=advanced)
    with pytest.raises(ScenarioError, match=r"sched.advanced"):
        structure({"advanced": advanced}, SchedOptions, "sched")


def test_one_option_set_later_changes_what_follows_from_it_only():
    before = SchedOptions(advanced={"Cpu.BoundLagQuanta": 3}, world_switch_ns=7)
    after = before.with_advanced("Cpu.Quantum", 20)
    assert (after.quantum_ns, after.bound_lag_quanta, after.world_switch_ns) == (20 * MS, 3, 7)
    with pytest.raises(FieldError):
        before.with_advanced("Cpu.Quantum", 1001)


DUMPED = Path(__file__).resolve().parents[4] / "shared" / "facts" / "esxi_scheduler_defaults.json"


@pytest.mark.skipif(not DUMPED.exists(), reason="the dumps of ESXi's options are not beside this tree")
def test_every_option_of_every_build_has_the_default_and_range_that_was_dumped():
    """82 options of 12 builds, and none that a build lacks; both lists are in the order of the releases."""
    dumps = json.loads(DUMPED.read_text(encoding="utf-8"))
    assert len(dumps) == len(RELEASES) == 12
    wrong, names = [], set(OPTIONS)
    for (build, dump), release in zip(dumps.items(), RELEASES, strict=True):
        assert build[:2] == release.replace(".", "")[:2]
        dumped = {name: value for name, value in dump.items() if name != "build"}
        names |= set(dumped)
        for name in set(dumped) | set(OPTIONS):
            found = OPTIONS[name].at(release) if name in OPTIONS else None
            ours = found and (found.default, found.low, found.high)
            theirs = dumped.get(name) and tuple(int(dumped[name][key]) for key in ("default", "min", "max"))
            if ours != theirs:
                wrong.append((build, name, ours, theirs))
    assert wrong == []
    assert len(names) == 82


def test_a_knob_set_by_our_own_name_keeps_its_value_when_the_option_behind_it_is_set():
    after = SchedOptions(quantum_ns=7 * MS).with_advanced("Cpu.Quantum", 20)
    assert (after.quantum_ns, after.get("Cpu.Quantum")) == (7 * MS, 20)


def busy_host(**options):
    """Two busy vCPUs of one VM on two pCPUs, in a pool with a limit, and their scheduler."""
    sched = Scheduler(Sim(categories=()), Topology.of(CpuSpec(cores_per_node=2)), SchedOptions(**options))
    pool = sched.pools.add(PoolSpec(name="p", limit_hz=2 * 10**9))
    worlds = [sched.add(name, Busy()) for name in "ab"]
    sched.group(worlds)
    bucket = sched.bucket(10**9, pool)
    for world in worlds:
        sched.allocate(world, shares=1000, bucket=bucket, pool=pool)
        sched.begin(world)
    return sched, worlds, (bucket, pool.bucket)


def test_options_of_groups_and_buckets_that_exist_act_at_once():
    sched, worlds, buckets = busy_host(world_switch_ns=0, migrate_llc_ns=0)
    sched.sim.engine.run(100 * MS)
    chosen = sched.options.with_advanced("Cpu.CoschedCostopThreshold", 50_000)
    sched.configure(chosen.with_advanced("Cpu.LimitEnforcementThreshold", 1000))
    assert [world.group.costop_ns for world in worlds] == [50 * MS] * 2
    assert [bucket.burst_ns for bucket in buckets] == [SECOND] * 2
    sched.configure(sched.options.with_advanced("Cpu.LimitEnforcementThreshold", 10))
    begin_ns, before = sched.sim.now, sum(world.times(sched.sim.now).run_ns for world in worlds)
    sched.sim.engine.run(begin_ns + 2 * SECOND)
    sched.check_invariants()
    ran_ns = sum(world.times(sched.sim.now).run_ns for world in worlds) - before
    rate = Fraction(10**9, sched.topology.core_hz)
    assert rate * 2 * SECOND - 20 * MS <= ran_ns <= rate * 2 * SECOND + 10 * MS


def test_coscheduling_is_switched_off_and_on_under_vms_that_exist():
    sched, worlds, _ = busy_host()
    sched.sim.engine.run(100 * MS)
    sched.configure(sched.options.with_advanced("Cpu.CoschedCostopThreshold", 0))
    assert [world.group for world in worlds] == [None, None]
    sched.sim.engine.run(200 * MS)
    while not any(world.pcpu is not None for world in worlds):  # both have had their limit's worth
        sched.sim.engine.run(sched.sim.now + MS)
    running = next(world for world in worlds if world.pcpu is not None)
    sched.block(running)
    sched.configure(sched.options.with_advanced("Cpu.CoschedCostopThreshold", 3000))
    assert running.state in COMPETING  # its wait for swap has been cut short
    assert worlds[0].group is worlds[1].group is not None
    sched.sim.engine.run(SECOND)
    sched.check_invariants()
