"""Resource pools: division through the tree, admission, and what they do to a running host."""

from fractions import Fraction

import pytest

from sim.core.context import Sim
from sim.core.units import GIB, MIB, MS
from sim.hw.board import Board
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.resource_pools import PoolError
from sim.kernel.sched.entitlement import Party, PoolFull, Promise, divide, drawn
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.vm import AdmissionError, CpuAllocation, VmManager, VmSpec

MHZ = 1_000_000
GHZ = 1000 * MHZ


def leaf(name, weight=1000, ceiling=100, floor=0):
    return Party(name=name, weight=weight, ceiling=ceiling, floor=floor)


def test_the_larger_pool_can_give_less_to_each_of_its_machines():
    """Published: 100 GHz, a High pool with six busy VMs and a Normal one with two."""
    high = Party(name="High", weight=8000, children=tuple(leaf(f"h{n}") for n in range(6)))
    normal = Party(name="Normal", weight=4000, children=tuple(leaf(f"n{n}") for n in range(2)))
    found = divide(Party(name="", weight=1, children=(high, normal)), 100)
    assert found["High"][0] == Fraction(200, 3)
    assert found["h0"][0] == Fraction(100, 9)  # published as 11 GHz
    assert found["n0"][0] == Fraction(50, 3)  # published as 16.5 GHz


def test_what_happens_in_one_pool_leaves_the_other_alone():
    one = Party(name="a", weight=1, children=(leaf("x"), leaf("y", weight=1)))
    two = Party(name="a", weight=1, children=tuple(leaf(f"x{n}") for n in range(9)))
    other = Party(name="b", weight=3, children=(leaf("z"),))
    for first in (one, two):
        found = divide(Party(name="", weight=1, children=(first, other)), 8)
        assert found["b"][0] == 6


def test_a_pool_without_demand_leaves_all_to_the_others():
    idle = Party(name="a", weight=9, floor=5, children=(leaf("x", ceiling=0),))
    other = Party(name="b", weight=1, children=(leaf("z"),))
    found = divide(Party(name="", weight=1, children=(idle, other)), 8)
    assert found["b"][0] == 8
    assert "a" not in found


def test_a_reservation_of_a_pool_is_its_children_s_floor_together():
    first = Party(name="a", weight=1, floor=6, children=(leaf("x"), leaf("y")))
    other = Party(name="b", weight=1000, children=(leaf("z"),))
    found = divide(Party(name="", weight=1, children=(first, other)), 8)
    assert [found[name][0] for name in ("a", "x", "y", "b")] == [6, 3, 3, 2]


def tree(**pools):
    return {"": Promise(parent=None, reservation_hz=10, expandable=False), **pools}


def test_an_expandable_reservation_grows_up_to_the_first_pool_that_cannot():
    middle = Promise(parent="", reservation_hz=4, expandable=False)
    inner = Promise(parent="m", reservation_hz=1, expandable=True)
    assert drawn(tree(m=middle, i=inner), {"i": 4}) == {"": 4, "m": 4, "i": 4}
    with pytest.raises(PoolFull) as caught:
        drawn(tree(m=middle, i=inner), {"i": 5})
    assert caught.value.pool == "m"
    fixed = Promise(parent="m", reservation_hz=1, expandable=False)
    with pytest.raises(PoolFull) as caught:
        drawn(tree(m=middle, i=fixed), {"i": 2})
    assert caught.value.pool == "i"


def test_the_host_itself_never_grows():
    wide = Promise(parent="", reservation_hz=4, expandable=True)
    assert drawn(tree(w=wide), {"w": 7, "": 3})[""] == 10
    with pytest.raises(PoolFull):
        drawn(tree(w=wide), {"w": 8, "": 3})


def test_a_pool_draws_no_more_than_its_limit():
    bounded = Promise(parent="", reservation_hz=2, expandable=True, limit_hz=5)
    drawn(tree(b=bounded), {"b": 5})
    with pytest.raises(PoolFull):
        drawn(tree(b=bounded), {"b": 6})


def manager(cores=4, **options):
    sim = Sim(seed=3)
    cpu = CpuSpec(cores_per_node=cores, core_hz=GHZ)
    board = Board(sim, HostSpec(cpu=cpu, memory_bytes=4 * GIB, tpm_present=False))
    board.power_on()
    knobs = SchedOptions(**{"quantum_ns": 10 * MS, "world_switch_ns": 0, **options})
    return VmManager(sim, board, Scheduler(sim, board.topology, knobs))


def vm(vms, name, pool="", vcpus=1, **cpu):
    cpu = CpuAllocation(**cpu)
    return vms.power_on(VmSpec(name=name, pool=pool, vcpus=vcpus, memory_bytes=16 * MIB, cpu=cpu))


def used(vms, *names):
    return [sum(w.times(vms.sim.now).run_ns for w in vms.get(name).vcpus) / MS for name in names]


def run(vms, ms):
    vms.sim.engine.run(vms.sim.now + ms * MS)
    vms.check_invariants()


@pytest.mark.parametrize(("scalable", "ratio"), [(False, Fraction(2, 3)), (True, Fraction(2))])
def test_scalable_shares_cure_the_paradox(scalable, ratio):
    """Six VMs in a High pool, two in a Normal one: each of the six gets less, or with scalable shares twice as much."""
    vms = manager(cores=2)
    for name, shares in (("High", "high"), ("Normal", "normal")):
        vms.pools.create(PoolSpec(name=name, shares=shares, scalable=scalable))
    for number in range(6):
        vm(vms, f"h{number}", "High")
    for number in range(2):
        vm(vms, f"n{number}", "Normal")
    run(vms, 6000)
    high, normal = used(vms, "h3", "n1")
    assert high / normal == pytest.approx(float(ratio), rel=0.02)


def test_pools_divide_a_running_host_and_a_vm_can_move():
    vms = manager(cores=2)
    vms.pools.create(PoolSpec(name="a", shares=3000))
    vms.pools.create(PoolSpec(name="b", shares=1000))
    for number in range(4):
        vm(vms, f"a{number}", "a")
        vm(vms, f"b{number}", "b")
    run(vms, 2000)
    assert sum(used(vms, *(f"a{n}" for n in range(4)))) == pytest.approx(3000, abs=60)
    before = used(vms, "b0")[0]
    vms.move("b0", "a")
    run(vms, 2000)
    assert used(vms, "b0")[0] - before == pytest.approx(3000 / 5, abs=40)
    assert [row["vms"] for row in vms.pools.rows()][1] == ["b1", "b2", "b3"]


def test_the_limit_of_a_pool_holds_for_all_below_it():
    vms = manager(cores=4, limit_burst_ns=40 * MS)
    vms.pools.create(PoolSpec(name="a", limit_hz=1500 * MHZ))
    vms.pools.create(PoolSpec(name="in", parent="a", limit_hz=1000 * MHZ))
    for name, pool in (("x", "a"), ("y", "in"), ("z", "in")):
        vm(vms, name, pool)
    run(vms, 4000)
    x, y, z = used(vms, "x", "y", "z")
    assert x + y + z <= 1.5 * 4000 + 40
    assert x + y + z == pytest.approx(6000, rel=0.02)
    assert y + z <= 4000 + 40
    vms.pools.reconfigure(PoolSpec(name="a"))
    run(vms, 4000)
    assert used(vms, "x")[0] - x == pytest.approx(4000, abs=50)
    assert sum(used(vms, "y", "z")) - y - z == pytest.approx(4000, abs=80)


def test_admission_looks_at_every_pool_on_the_way_up():
    vms = manager(cores=4)
    vms.pools.create(PoolSpec(name="fixed", reservation_hz=GHZ, expandable=False))
    vm(vms, "one", "fixed", reservation_hz=600 * MHZ)
    with pytest.raises(AdmissionError, match="resources of pool fixed do not suffice for two"):
        vm(vms, "two", "fixed", reservation_hz=500 * MHZ)
    vms.pools.reconfigure(PoolSpec(name="fixed", reservation_hz=GHZ, expandable=True))
    vm(vms, "two", "fixed", reservation_hz=500 * MHZ)
    with pytest.raises(AdmissionError, match="resources of the host do not suffice"):
        vms.pools.create(PoolSpec(name="big", reservation_hz=3 * GHZ))
    with pytest.raises(PoolError):
        vms.pools.remove("fixed")
    with pytest.raises(PoolError, match="no resource pool 'none'"):
        vm(vms, "three", "none")
    vms.move("one", "")
    vms.move("two", "")
    vms.pools.remove("fixed")
    run(vms, 100)


def test_a_reservation_in_a_pool_is_delivered():
    vms = manager(cores=1)
    vms.pools.create(PoolSpec(name="small", shares=1, reservation_hz=500 * MHZ))
    vms.pools.create(PoolSpec(name="large", shares=4_000_000))
    vm(vms, "s", "small", reservation_hz=500 * MHZ)
    for number in range(3):
        vm(vms, f"l{number}", "large")
    run(vms, 4000)
    assert used(vms, "s")[0] == pytest.approx(2000, abs=30)


def test_affinity_confines_a_vm_and_shares_hold_inside():
    vms = manager(cores=2)
    for name, shares in (("a", 2000), ("b", 1000)):
        vm(vms, name, affinity=(1,), shares=shares)
    vm(vms, "free")
    run(vms, 3000)
    a, b, free = used(vms, "a", "b", "free")
    assert free == pytest.approx(3000, abs=30)
    assert a == pytest.approx(2000, abs=60)
    assert b == pytest.approx(1000, abs=60)
    with pytest.raises(AdmissionError, match="InvalidVmConfig"):
        vm(vms, "wrong", affinity=(2,))


def test_entitlements_are_divided_through_the_pools():
    vms = manager(cores=3)
    vms.pools.create(PoolSpec(name="a", shares=3000))
    vms.pools.create(PoolSpec(name="in", parent="a", shares=1000, limit_hz=GHZ // 2))
    vms.pools.create(PoolSpec(name="b", shares=1000))
    assert vms.entitlements() == {}
    for name, pool in (("x", "a"), ("y", "in"), ("z", "b"), ("w", "b"), ("v", "b")):
        vm(vms, name, pool, vcpus=2)
    vm(vms, "own", latency="high", reservation_hz=GHZ)
    found = vms.entitlements()
    assert found["own"] == 1
    assert found == {
        "own": 1,
        "x": Fraction(1),
        "y": Fraction(1, 2),
        "z": Fraction(1, 6),
        "w": Fraction(1, 6),
        "v": Fraction(1, 6),
    }
