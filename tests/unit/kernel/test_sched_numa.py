"""Home nodes, moves between them, memory that follows, and queues by cache or pCPU."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.units import MS, SECOND
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.machine import set_online
from sim.kernel.sched.numa import client_sizes, set_home, vnuma_nodes
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import FOREVER_NS, Busy, OnOff, Run, Wait
from sim.kernel.world import WorldState


class Script:
    """A fixed list of steps, then sleep."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def next(self, now_ns):
        return self.steps.pop(0) if self.steps else Wait(FOREVER_NS)


def host(cores=4, nodes=2, threads=1, **options):
    spec = CpuSpec(packages=nodes, cores_per_node=cores, threads_per_core=threads, core_hz=10**9)
    knobs = {"quantum_ns": 10 * MS, "world_switch_ns": 0, "migrate_llc_ns": 0, **options}
    return Scheduler(Sim(), Topology.of(spec), SchedOptions(**knobs))


def vm(sched, *workloads, pages=0, shares=1000):
    worlds = []
    for workload in workloads:
        world = sched.add("w", workload)
        worlds.append(world)
    sched.group(worlds, pages=pages)
    for world in worlds:
        sched.allocate(world, shares=shares)
    for world in worlds:
        sched.begin(world)
    return worlds


def run(sched, ms):
    sched.sim.engine.run(sched.sim.now + ms * MS)
    sched.check_invariants()


@pytest.mark.parametrize(
    ("vcpus", "cores", "sizes"), [(12, 10, (6, 6)), (10, 10, (10,)), (13, 6, (5, 4, 4)), (1, 4, (1,))]
)
def test_a_wide_machine_is_split_evenly_over_the_fewest_clients(vcpus, cores, sizes):
    assert client_sizes(vcpus, cores) == sizes


def test_a_guest_sees_nodes_from_nine_vcpus_on_if_it_is_wider_than_one():
    assert [vnuma_nodes(*each) for each in ((8, 4), (9, 4), (9, 10), (12, 10))] == [1, 3, 1, 2]


def test_machines_run_on_their_home_nodes_alone():
    sched = host()
    vms = [vm(sched, Busy(), Busy()) for _ in range(4)]
    assert [worlds[0].home for worlds in vms] == [0, 1, 0, 1]
    for _ in range(20):
        run(sched, 33)
        for worlds in vms:
            assert all(world.last_pcpu.place.node == world.home for world in worlds)


def test_threads_count_only_when_they_are_preferred():
    assert host(threads=2).numa.node_cores == 4
    assert host(threads=2, advanced={"Numa.PreferHT": 1}).numa.node_cores == 8


def test_a_crowded_node_gives_a_client_away_and_its_memory_follows_slowly():
    sched = host()
    shortlived = [vm(sched, Script(Run(100 * MS))) for _ in range(8)]
    stay = [vm(sched, Busy(), pages=20_000) for _ in range(8)]
    for worlds, node in zip(stay, (0, 0, 0, 0, 0, 0, 1, 1), strict=True):
        client = sched.numa.client_of(worlds[0])
        client.pages[client.node], client.pages[node] = 0, 20_000
        client.node = node
        set_home(sched, worlds[0], node)
    run(sched, 1500)
    assert sched.numa.moves == 0
    run(sched, 600)
    assert [worlds[0].state for worlds in shortlived] == [WorldState.WAIT_IDLE] * 8
    assert sched.numa.moves == 1
    (moved,) = [client for client in sched.numa.clients if client.migrations]
    first = sched.numa.client_of(moved.worlds[0]).local_pages
    assert 0 < first < 20_000
    run(sched, 1000)
    assert sched.numa.client_of(moved.worlds[0]).local_pages == min(20_000, first + 8000)
    run(sched, 3000)
    assert sched.numa.client_of(moved.worlds[0]).local_pages == 20_000
    (row,) = list(sched.sim.trace.select("numa.move"))[-1:]
    assert (row["old"], row["new"]) == (0, 1)


def test_balanced_nodes_are_left_alone():
    sched = host()
    for _ in range(8):
        vm(sched, Busy())
    run(sched, 20_000)
    assert sched.numa.reviews == 10
    assert sched.numa.moves == 0


def test_two_clients_change_places_when_no_move_helps():
    sched = host(cores=2, advanced={"Numa.RebalanceCoresTotal": 4})
    big = [vm(sched, Busy(), Busy()) for _ in range(2)]
    small = [vm(sched, OnOff(6 * MS, 4 * MS), OnOff(6 * MS, 4 * MS)) for _ in range(2)]
    for worlds, node in zip(big + small, (0, 0, 1, 1), strict=True):
        sched.numa.client_of(worlds[0]).node = node
        for world in worlds:
            set_home(sched, world, node)
    run(sched, 13_000)
    assert sorted(sched.numa.client_of(worlds[0]).node for worlds in big) == [0, 1]
    assert sched.numa.moves >= 2


def test_rebalancing_can_be_switched_off():
    sched = host(advanced={"Numa.RebalanceEnable": 0})
    worlds = vm(sched, Busy())
    assert worlds[0].home == -1


def test_a_node_without_pcpus_loses_its_clients():
    sched = host(cores=2)
    vms = [vm(sched, Busy()) for _ in range(4)]
    run(sched, 50)
    for index in (0, 1):
        set_online(sched, index, online=False)
        sched.check_invariants()
    assert {worlds[0].home for worlds in vms} == {1}
    run(sched, 100)
    for index in (0, 1):
        set_online(sched, index, online=True)
    run(sched, 6000)
    assert {worlds[0].home for worlds in vms} == {0, 1}


def test_an_affinity_frees_a_machine_from_its_home():
    sched = host()
    (world,) = vm(sched, Busy())
    sched.suspend(world)
    sched.allocate(world, shares=1000, affinity=1 << 6)
    sched.resume(world)
    run(sched, 20)
    assert (world.home, world.pcpu.index) == (-1, 6)
    assert not sched.numa.clients


@pytest.mark.parametrize("queues", ["host", "llc", "pcpu"])
def test_equal_worlds_get_equal_time_whatever_the_queues(queues):
    """Ten worlds on eight pCPUs: with a queue each they move at the rebalance periods, and nobody falls far behind."""
    sched = host(
        queues=queues,
        advanced={
            "Numa.RebalanceEnable": 0,
            "Cpu.PackageRebalancePeriod": 20,
            "Cpu.HostRebalancePeriod": 100,
        },
    )
    worlds = [vm(sched, Busy())[0] for _ in range(10)]
    run(sched, 10_000)
    ran = [world.times(sched.sim.now).run_ns for world in worlds]
    assert sum(ran) == 80 * SECOND
    assert max(ran) - min(ran) <= (20 * MS if queues == "host" else 400 * MS)


def test_an_idle_pcpu_pulls_from_a_queue_near_by_at_once():
    sched = host(cores=4, nodes=1, queues="pcpu")
    worlds = [vm(sched, Script(Run((5 if index % 2 else 50) * MS)))[0] for index in range(8)]
    run(sched, 12)
    assert sum(world.state is WorldState.READY for world in worlds) == 0


def test_worlds_stay_where_they_ran_with_a_queue_for_each_pcpu():
    sched = host(cores=4, nodes=1, queues="pcpu")
    worlds = [vm(sched, Busy())[0] for _ in range(9)]
    run(sched, 4000)
    moves = sum(world.migrations for world in worlds)
    assert moves * 4 < sum(world.dispatches for world in worlds)
    shared = host(cores=4, nodes=1)
    others = [vm(shared, Busy())[0] for _ in range(9)]
    run(shared, 4000)
    assert sum(world.migrations for world in others) > 2 * moves


def test_a_move_to_another_cache_costs_time():
    sched = host(cores=1, queues="host", migrate_llc_ns=MS, world_switch_ns=0)
    for _ in range(3):
        vm(sched, Busy())
    run(sched, 1000)
    switched = sum(pcpu.times(sched.sim.now).switch_ns for pcpu in sched.pcpus)
    migrations = sum(world.migrations for world in sched.worlds.values())
    assert migrations > 20
    assert abs(switched - migrations * MS) <= 2 * MS, "but for the switches that are going on"


def test_a_pickled_host_with_homes_goes_on_alike():
    digests = []
    for cut in (False, True):
        sched = host(cores=2)
        for index in range(5):
            vm(sched, OnOff((3 + index) * MS, 2 * MS), Busy(), pages=1000)
        if cut:
            sched.sim.engine.run(2500 * MS)
            sched = pickle.loads(pickle.dumps(sched))
        sched.sim.engine.run(5000 * MS)
        digests.append(sched.sim.trace.digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("pinned", [[1, 2], [3, 3]])
def test_no_pcpu_stays_idle_beside_a_world_that_pinned_ones_crowd_out(pinned):
    """Two pinned worlds fill node 0; the free one whose home it is goes to the idle pCPU of the other node."""
    sched = host(cores=2)
    free = [vm(sched, Busy())[0] for _ in range(2)]
    for affinity in pinned:
        world = sched.add("pinned", Busy())
        sched.group([world])
        sched.allocate(world, shares=1000, affinity=affinity)
        sched.begin(world)
    assert [world.home for world in free] == [0, 1]
    run(sched, 4100)
    assert [world.home for world in free] == [1, 1]
    assert sched.numa.moves == 1
    assert sched.idle.idle == 0
    run(sched, 8000)
    assert sched.numa.moves == 1


def test_a_new_machine_gets_the_node_that_pinned_ones_leave_free():
    sched = host(cores=2)
    for _ in range(2):
        world = sched.add("pinned", Busy())
        sched.allocate(world, shares=1000, affinity=3)
        sched.begin(world)
    homes = [vm(sched, Busy())[0].home for _ in range(2)]
    assert homes == [1, 1]


def test_a_node_far_fuller_than_another_gives_away_one_client_after_the_other():
    """No single move halves the imbalance, but none turns it round either."""
    sched = host()
    for _ in range(10):
        (world,) = vm(sched, Busy())
        sched.numa.client_of(world).node = 0
        set_home(sched, world, 0)
    run(sched, 13_000)
    assert sorted(client.node for client in sched.numa.clients) == [0] * 5 + [1] * 5
    assert sched.idle.idle == 0


@pytest.mark.parametrize(("threshold", "moves"), [(50, 1), (10, 0)])
def test_a_move_that_turns_the_imbalance_round_must_leave_little_of_it(threshold, moves):
    sched = host(cores=2, advanced={"Numa.MigThrashThreshold": threshold})
    for load, node in ((Busy(), 0), (Busy(), 0), (OnOff(5 * MS, 5 * MS), 1)):
        (world,) = vm(sched, load)
        sched.numa.client_of(world).node = node
        set_home(sched, world, node)
    run(sched, 2100)
    assert sched.numa.moves == moves
