"""Attacks on the scheduler and on memory, one test each; `threats.py` says how a row is made."""

import pickle
import random
from fractions import Fraction
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings

from sim.core.context import Sim
from sim.core.units import GIB, MIB, PAGE_BYTES, SECOND
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, ControlState, Kind, PageFault, Translation
from sim.hw.mmu.nested import NestedTranslation
from sim.hw.mmu.walk import FAULT_FETCH, FAULT_PRESENT, FAULT_USER
from sim.kernel.api import ApiError
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.paged import PagedMemory
from sim.kernel.sched.fluid import Claim, fluid_shares
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.kernel.sched.policies.stride import Stride
from sim.scenario.build import build
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation
from sim.testing import find_violation, sched_plans
from sim.testing.invariants import check_conservation, check_reservation_floor
from sim.testing.scheduling_books import check_limit, check_time_conservation
from sim.testing.scheduling_host import play
from sim.testing.scheduling_plan import HZ, Load, SchedPlan, VmPlan
from sim.testing.scheduling_shares import check_no_starvation, check_reservation
from tests.unit.kernel.conftest import small

from .measure import cases, state_hash
from .threats import threat


def ran(host, name):
    """Return for how long the vCPUs of a VM of a plan have run, ns."""
    (machine,) = (one for one in host.machines if one.plan.name == name)
    return sum(world.times(host.now_ns).run_ns for world in machine.worlds)


@threat(
    "C1",
    threat="one VM spins on all of its vCPUs, with far more shares than anybody else",
    stopped_by="reservations before shares, a bucket for each limit (`sim.kernel.sched.policies.esxi`)",
    evidence="in no interval does a runnable vCPU lag its reservation by more than one quantum; nobody passes a limit;"
    " what is left is divided by shares to 2 quanta",
    not_covered="caches, memory bandwidth and power, for which there are no reservations",
    anchor="ESXi resource management guide",
)
def test_c1_a_spinning_vm_takes_nothing_that_is_reserved():
    spinner = VmPlan(name="spinner", loads=(Load(),) * 4, shares=100_000)
    others = (
        VmPlan(name="half", shares=1, reservation_hz=HZ // 2),
        VmPlan(
            name="naps",
            shares=1,
            reservation_hz=HZ // 4,
            loads=(Load(kind="onoff", run_us=40_000, wait_us=900),),
        ),
        VmPlan(name="capped", shares=200_000, limit_hz=3 * HZ // 10),
        VmPlan(name="plain", shares=50_000),
    )
    plan = SchedPlan(cores=4, quantum_ms=50, vms=(*others, spinner), span_ms=12_000)
    host = play(plan)
    check_reservation(host, quanta=1)
    check_limit(host)
    check_time_conservation(host)
    claims = [
        Claim(weight=vm.shares, floor=Fraction(vm.reservation_hz, HZ), ceiling=ceiling(vm)) for vm in others
    ]
    claims += [Claim(weight=spinner.shares, floor=Fraction(0), ceiling=Fraction(1))] * 4
    shares = fluid_shares(plan.cpus, claims).shares
    for vm, share in zip(others, shares, strict=False):
        if vm.name != "naps":
            assert abs(ran(host, vm.name) - share * plan.span_ns) <= 2 * plan.quantum_ns, vm.name
    assert abs(ran(host, "spinner") - sum(shares[4:]) * plan.span_ns) <= 4 * 2 * plan.quantum_ns


def ceiling(vm):
    return Fraction(1) if vm.limit_hz is None else Fraction(vm.limit_hz, HZ)


def attempt(host, call, arguments):
    """Make a management call, and return "ok" or the code of its refusal."""
    try:
        host.call(call, arguments)
    except ApiError as error:
        return error.code
    return "ok"


def refused(host, spec, fault):
    """Demand that a power-on is refused with that fault, and that nothing but the trace has changed."""
    before = state_hash(host)
    with pytest.raises(ApiError) as caught:
        host.call("vm.power_on", {"spec": spec})
    assert caught.value.code == fault
    assert state_hash(host) == before
    return caught.value.message


@threat(
    "C2",
    threat="virtual machines are powered on until the host is full, and then some hundred times more",
    stopped_by="admission before anything is made of a VM (`sim.kernel.sched.admission`, `sim.kernel.vm`)",
    evidence="InsufficientMemoryResourcesFault or InsufficientCpuResourcesFault; the host's state is as before the call,"
    " its queue of events too; it goes on as if nobody had asked",
    not_covered="the rate of the calls themselves: each costs the host agent time, and nobody is shut out",
    anchor="ESXi admission control",
)
@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"memory": "256MiB"}, "InsufficientMemoryResourcesFault"),
        ({"memory": "64MiB", "cpu": {"reservation": "500MHz"}}, "InsufficientCpuResourcesFault"),
    ],
    ids=["memory", "cpu"],
)
def test_c2_a_full_host_refuses_and_leaves_no_part_of_a_vm(machinery, spec, fault):
    host, sim = machinery.host, machinery.sim
    admitted = 0
    while attempt(host, "vm.power_on", {"spec": {"name": f"vm{admitted}", **spec}}) == "ok":
        admitted += 1
    assert attempt(host, "vm.power_on", {"spec": {"name": f"vm{admitted}", **spec}}) == fault
    assert 8 <= admitted <= 24
    events = []
    for tries, copy in (
        (0, pickle.loads(pickle.dumps(machinery))),
        (300, pickle.loads(pickle.dumps(machinery))),
    ):
        for number in range(tries):
            with pytest.raises(ApiError):
                copy.host.call("vm.power_on", {"spec": {"name": f"more{number}", **spec}})
        copy.sim.engine.run(sim.now + 2 * SECOND)
        events.append(copy.sim.engine.events_done)
    assert events[0] == events[1]
    assert "requested" in refused(host, {"name": "more", **spec}, fault)
    assert [vm["name"] for vm in host.call("vm.list")] == [f"vm{number}" for number in range(admitted)]
    host.check_invariants()


@threat(
    "C3",
    threat="ten vCPUs a pCPU, all of equal shares and always busy: does somebody starve, or time get lost",
    stopped_by="virtual time of every world, moved by what it has used (`sim.kernel.sched.policies`)",
    evidence="after 60 s the shares agree to 1 %, pCPUs are never idle, and nobody waits longer than his turns",
    not_covered="lottery scheduling, which agrees in expectation alone",
    anchor="stride and lottery scheduling, Waldspurger 1995",
)
@pytest.mark.parametrize("policy", [EsxiPolicy, Stride])
def test_c3_tenfold_overcommitment_divides_evenly(policy):
    vms = tuple(VmPlan(name=f"vm{number}") for number in range(20))
    plan = SchedPlan(cores=2, quantum_ms=50, vms=vms, span_ms=60_000)
    host = play(plan, policy)
    times = [ran(host, vm.name) for vm in vms]
    assert max(times) - min(times) <= plan.span_ns * plan.cpus // len(vms) // 100
    assert sum(times) == plan.span_ns * plan.cpus
    check_no_starvation(host)


@threat(
    "C4",
    threat="more is reserved than the host has, so that a promise would be broken while the VMs run",
    stopped_by="admission at power-on, reconfiguration and in pools; room for an admitted VM is made at once, of shared and"
    " compressed pages too (`sim.kernel.memory.scheduler`)",
    evidence="InsufficientCpuResourcesFault or InsufficientMemoryResourcesFault, and nothing has changed; a host that is"
    " promised away to the last MHz and page gives everybody his part",
    not_covered="memory that fails while it is promised away: its VM is ended (machine checks)",
    anchor="vSphere API, InsufficientResourcesFault",
)
def test_c4_reservations_beyond_capacity_are_refused_at_the_door(machinery):
    host, sim = machinery.host, machinery.sim
    core_hz = host.call("host.info")["core_hz"]
    whole = {"name": "one", "memory": "64MiB", "cpu": {"reservation": core_hz}}
    host.call("vm.power_on", {"spec": whole})
    host.call("pool.create", {"spec": {"name": "lab", "reservation": core_hz // 2}})
    refused(host, {**whole, "name": "two"}, "InsufficientCpuResourcesFault")
    refused(
        host,
        {**whole, "name": "two", "cpu": {"reservation": core_hz // 2 + 1}},
        "InsufficientCpuResourcesFault",
    )
    host.call("vm.power_on", {"spec": {**whole, "name": "two", "cpu": {"reservation": core_hz // 2}}})
    before = state_hash(host)
    for call, arguments in (
        ("vm.reconfigure", {"name": "two", "cpu": {"reservation": core_hz // 2 + 1}}),
        ("pool.create", {"spec": {"name": "more", "reservation": 1}}),
        ("pool.reconfigure", {"spec": {"name": "lab", "reservation": core_hz // 2 + 1}}),
    ):
        with pytest.raises(ApiError) as caught:
            host.call(call, arguments)
        assert caught.value.code == "InsufficientCpuResourcesFault", call
    assert state_hash(host) == before
    for number in range(6):
        host.call(
            "vm.power_on",
            {"spec": {"name": f"greedy{number}", "memory": "64MiB", "cpu": {"shares": 100_000}}},
        )
    begin = host.call("host.counters")
    sim.engine.run(sim.now + 10 * SECOND)
    end = host.call("host.counters")
    for name, part in (("one", 1), ("two", Fraction(1, 2))):
        (number, *_) = end["vms"][name]
        got_ns = counter(end, number) - counter(begin, number)
        assert got_ns >= part * 10 * SECOND - 2 * host.kernel.scheduler.options.quantum_ns, name


def counter(books, number):
    return next(world["run_ns"] for world in books["worlds"] if world["id"] == number)


def test_c4_memory_that_was_promised_is_there_although_others_share_all_of_theirs():
    options = MemOptions(large_pages=False, share_scan_ns=SECOND, share_scan_mb_ghz=10_000)
    machinery = build(small(mem=options), 1)
    machinery.host.power_on()
    machinery.sim.engine.run()
    host, sim = machinery.host, machinery.sim
    load = {
        "used": "1GiB",
        "working_set": "64MiB",
        "fill": 1_000_000,
        "common_percent": 100,
        "zero_percent": 0,
    }
    mem = {"salt": "same", "workload": load, "reservation": "128MiB"}
    for name in ("left", "right"):
        host.call("vm.power_on", {"spec": {"name": name, "memory": "1GiB", "mem": mem}})
    sim.engine.run(sim.now + 30 * SECOND)
    free = host.call("host.info")["memory_free_bytes"]
    assert free < 3 * GIB
    refused(host, {"name": "big", "memory": "3840MiB"}, "InsufficientMemoryResourcesFault")
    host.call("vm.power_on", {"spec": {"name": "big", "memory": "3500MiB"}})
    host.kernel.vms.get("big").space.populate(0, 3500 * MIB // PAGE_BYTES)
    sim.engine.run(sim.now + 30 * SECOND)
    granted = {vm["name"]: vm["granted_bytes"] for vm in host.call("vm.list")}
    assert granted["big"] == 3500 * MIB
    assert min(granted["left"], granted["right"]) >= 128 * MIB
    host.check_invariants()


@threat(
    "C5",
    threat="the balloon driver of a guest returns no pages, by fault or by will",
    stopped_by="the state falls on, and compression and swap need no guest (`sim.kernel.memory.reclaiming`)",
    evidence="soft, then hard; no page ballooned, then pages compressed, and swapped where the cache is full; books and"
    " invariants hold at every moment, and nobody falls below his reservation",
    not_covered="a driver that says it gave pages up and uses them: the VMkernel has unmapped them by then",
    anchor="Waldspurger 2002",
)
def test_c5_without_a_balloon_memory_is_compressed_and_then_swapped():
    load = {"used": "1600MiB", "working_set": "32MiB", "rate": 200, "balloon_driver": False}
    load |= {"common_percent": 0, "zero_percent": 0}
    machinery = build(small(mem=MemOptions(large_pages=False, share_scan_ns=0)), 1)
    machinery.host.power_on()
    machinery.sim.engine.run()
    host, sim = machinery.host, machinery.sim
    for name, fill in (("one", 100_000), ("two", 100_000), ("slow", 1_000)):
        mem = {"reservation": "512MiB", "workload": {**load, "fill": fill}}
        host.call("vm.power_on", {"spec": {"name": name, "memory": "2GiB", "mem": mem}})
    for _ in range(80):
        sim.engine.run(sim.now + 4 * SECOND)
        host.check_invariants()
        picture = host.kernel.vms.mem.picture()
        check_conservation(picture)
        check_reservation_floor(picture)
    states = [row["new"] for row in sim.trace.select("mem.state")]
    assert states.index("soft") < states.index("hard")
    reclaimed = list(sim.trace.select("mem.reclaim"))
    assert [row for row in reclaimed if row["ballooned"]] == []
    first = {
        kind: next(n for n, row in enumerate(reclaimed) if row[kind] > 0)
        for kind in ("compressed", "swapped")
    }
    assert first["compressed"] <= first["swapped"]
    for vm in picture.vms.values():
        assert vm.ballooned == 0
        assert vm.compressed > 1_000
        assert vm.swapped > 1_000
    assert host.call("host.info")["memory_free_bytes"] > 0


FETCHES = (
    (Access(Kind.FETCH), FAULT_PRESENT | FAULT_FETCH),
    (Access(Kind.FETCH, user=True), FAULT_PRESENT | FAULT_FETCH | FAULT_USER),
)
"""A fetch by the kernel and by a program, and the error code that each should meet on a data page it may read."""


def fetched(translate, va, access):
    """Fetch at an address, and return the error code of the page fault that this must be."""
    outcome = translate(va, access)
    assert isinstance(outcome, PageFault), outcome
    assert outcome.cr2 == va
    return outcome.error_code


@threat(
    "C6",
    threat="code that was put into data is executed: in the kernel, in a module, in a program, in a guest",
    stopped_by="NX in every entry of a segment that is not text, and SMEP (`sim.kernel.memory.kernel_memory`, `sim.hw.mmu`)",
    evidence="a page fault with the I/D bit at each privilege, for every data segment; text runs where it should",
    not_covered="text that is already there and is only called in another order; NX that a guest does not set in its tables",
    anchor="lkdtm EXEC_DATA of the Linux kernel",
)
def test_c6_no_data_page_is_ever_executed(machinery):
    kernel = machinery.host.kernel
    segments = kernel.memory.segments()
    modules = {part.base: part.rights for module in kernel.loader.modules() for part in module.segments}
    data = [one for one in segments if not one.rights.execute]
    assert {modules.get(one.base, "") for one in data} >= {"", "rw-", "r--"}
    for one in data:
        for va in (one.base, one.end - 1):
            for access, code in FETCHES:
                translate = partial(kernel.memory.access, 0)
                assert fetched(translate, va, access) == code
    text = [one for one in segments if one.rights.execute]
    assert all(isinstance(kernel.memory.access(0, one.base, FETCHES[0][0]), Translation) for one in text)
    assert not any(one.rights.write for one in text)


def test_c6_nor_in_programs_whoever_fetches(machinery):
    worlds = machinery.host.kernel.user_worlds.running.values()
    assert worlds
    for user_world in worlds:
        space = user_world.memory.space
        for segment in user_world.memory.segments():
            for access, code in FETCHES:
                outcome = space.translate(segment.base, access)
                if segment.rights.execute and access.user:
                    assert isinstance(outcome, Translation)
                else:  # the kernel may not run a program's text either: SMEP
                    assert isinstance(outcome, PageFault)
                    assert outcome.error_code == code


def test_c6_nor_in_guests_at_either_privilege(machinery):
    host = machinery.host
    host.call("vm.power_on", {"spec": {"name": "guest", "memory": "16MiB"}})
    guest = host.kernel.vms.get("guest").guest
    present, writable, user, no_execute = 1, 2, 4, 1 << 63
    for table, entry in ((1, 2), (2, 3), (3, 4)):
        assert (
            guest.store_physical(table << 12, (entry << 12 | present | writable | user).to_bytes(8, "little"))
            is None
        )
    leaves = {0: no_execute | user, 1: no_execute, 2: user, 3: 0}
    for index, flags in leaves.items():
        entry = 16 + index << 12 | present | writable | flags
        assert guest.store_physical(4 << 12 | index << 3, entry.to_bytes(8, "little")) is None
    control = ControlState(cr3=1 << 12)
    for index, flags in leaves.items():
        for access, code in FETCHES:
            outcome = guest.translate(control, index << 12, access)
            runs = not flags & no_execute and bool(flags & user) == access.user
            assert isinstance(outcome, NestedTranslation if runs else PageFault), (index, access)
            assert runs or outcome.error_code == code


@threat(
    "C7",
    threat="interrupts come at a vector that nobody owns, one or a storm of them",
    stopped_by="one owner for each vector (`sim.kernel.interrupts`)",
    evidence="each is counted; log and trace tell of them once a second; VMs run and nothing is stored as if none had come",
    not_covered="the time that a storm takes: interrupts cost none here, so that a real storm would be worse",
    anchor="spurious interrupts, Intel SDM",
)
def test_c7_stray_interrupts_are_counted_and_change_nothing():
    def run(faults):
        text = f"duration = '5s'\n[host]\nmemory = '2GiB'\ncpu = {{ cores_per_node = 2 }}\n[image]\nmodules = 2\n{faults}"
        simulation = Simulation(parse_scenario(text + "[[vms]]\nname = 'a'\nvcpus = 3\nmemory = '64MiB'\n"))
        simulation.run()
        return simulation

    quiet = run("")
    storm = run("[[faults]]\nkind = 'stray_interrupts'\nat = '1s'\ncount = 20_000\n")
    for simulation in (quiet, storm):
        simulation.check_invariants()
    interrupts = storm.host.kernel.interrupts
    ((vector, count),) = interrupts.unowned.items()
    assert count == 20_000
    assert interrupts.owner_of(vector) is None
    assert interrupts.taken == {}
    told = list(storm.sim.trace.select("interrupt.unowned"))
    assert [row["count"] for row in told] == [1]
    assert storm.host.call("host.counters") == quiet.host.call("host.counters")
    assert volumes(storm) == volumes(quiet)


def volumes(simulation):
    """Return everything that is stored on the host's disk."""
    disk = simulation.host.board.disk
    return {
        name: {path: disk.volume(name).peek(path) for path in disk.volume(name).paths()}
        for name in ("esp", "bootbank")
    }


@threat(
    "C8",
    threat="time is counted twice, or lost, under some workload",
    stopped_by="integer books of every pCPU and world, closed at each change of state (`sim.kernel.sched.pcpu`)",
    evidence="busy, switching and idle time of all pCPUs add up to elapsed x pCPUs, to the nanosecond, in 30 random plans"
    " (1,000 with VMKSIM_CATALOGUE=whole) and on a whole host",
    not_covered="time inside the guest, which is its own affair",
    anchor="accounting of schedulers",
)
@settings(max_examples=cases(30, 1_000))
@given(plan=sched_plans("any"))
def test_c8_no_nanosecond_is_lost(plan):
    host = play(plan)
    check_time_conservation(host)
    elapsed_ns = host.now_ns - host.sched.began_ns
    times = [pcpu.times(host.now_ns) for pcpu in host.sched.pcpus]
    assert sum(one.busy_ns + one.switch_ns + one.idle_ns for one in times) == elapsed_ns * plan.cpus


def test_c8_nor_on_a_whole_host(machinery):
    host, sim = machinery.host, machinery.sim
    for number, kind in enumerate(("busy", "io", "spinlock", "barrier", "periodic")):
        load = {"kind": kind, "run": "3ms", "wait": "2ms", "period": "7ms", "random": number % 2 == 1}
        host.call("vm.power_on", {"spec": {"name": kind, "vcpus": 2, "memory": "64MiB", "workload": load}})
    for step_ns in (1, 7_654_321, SECOND, 3 * SECOND + 1):
        sim.engine.run(sim.now + step_ns)
        books = host.call("host.counters")
        elapsed_ns = books["time_ns"] - host.kernel.scheduler.began_ns
        assert (
            sum(pcpu[name] for pcpu in books["pcpus"] for name in ("busy_ns", "switch_ns", "idle_ns"))
            == 2 * elapsed_ns
        )
        assert sum(world["run_ns"] for world in books["worlds"]) == sum(
            pcpu["busy_ns"] for pcpu in books["pcpus"]
        )


@threat(
    "C9",
    threat="some order of power, balloon, swap, compression and sharing gives a page two owners, or loses one",
    stopped_by="one owner for each frame and one place for each page, checked against each other (`sim.hw.frames`,"
    " `sim.kernel.memory`)",
    evidence="no violation in 150 sequences of 30 steps on the tables (10,000 of 50 with VMKSIM_CATALOGUE=whole), and in"
    " 4 of 40 steps on a whole host (300): free and used frames are all there are",
    not_covered="orders that nobody tried: this is a search, no proof",
    anchor="Hypothesis, stateful testing",
)
def test_c9_no_page_has_two_owners_whatever_is_done_in_whatever_order():
    def make():
        return PagedMemory(Sim(categories=()), PhysicalMemory(8 * MIB), pcpus=2)

    found = find_violation(make, examples=cases(150, 10_000), steps=cases(30, 50), pcpus=2, used_bits=True)
    assert found is None, str(found)


@pytest.mark.parametrize("seed", range(cases(4, 300)))
def test_c9_nor_on_a_whole_host(machinery, seed):
    host, sim, chance = machinery.host, machinery.sim, random.Random(seed)
    load = {"used": "700MiB", "working_set": "100MiB", "fill": 200_000, "common_percent": 50}
    for _ in range(40):
        name = f"vm{chance.randrange(6)}"
        what = chance.choice(
            ("power_on", "power_on", "power_off", "suspend", "resume", "touch", "pass", "pass")
        )
        spec = {"name": name, "memory": "768MiB"}
        if chance.random() < 0.7:
            spec["mem"] = {"salt": "s", "reservation": "64MiB", "workload": load}
        outcome = "ok"
        if what == "power_on":
            outcome = attempt(host, "vm.power_on", {"spec": spec})
        elif what in ("power_off", "suspend", "resume"):
            outcome = attempt(host, f"vm.{what}", {"name": name})
        elif what == "touch" and (vm := host.kernel.vms.vms.get(name)) is not None and vm.space is not None:
            vm.space.populate(chance.randrange(vm.space.pages - 500), 500)
        assert outcome in ("ok", "InvalidState", "InsufficientMemoryResourcesFault")
        sim.engine.run(sim.now + chance.choice((1, SECOND // 2, 20 * SECOND)))
        host.check_invariants()
        check_owners(host)


def check_owners(host):
    """Compare what holders say they hold with what the books of the frames say: disjoint, owned, and all there are."""
    memory, manager = host.board.memory, host.kernel.vms
    owned = memory.owners()
    assert sum(owned.values()) + memory.frames_free == memory.frames_total
    pools = [vm.managed.frames for vm in manager.vms.values() if vm.managed is not None]
    if manager.mem is not None:
        pools += [manager.mem.shared, *(one.cache for one in manager.mem.guests.values())]
    held = sorted((one.first_mpn, one.end_mpn, pool.owner) for pool in pools for one in pool._extents)
    for (_, end, _), (begin, _, _) in pairwise(held):
        assert end <= begin
    for begin, end, owner in held:
        assert {memory.owner_of(mpn) for mpn in (begin, (begin + end) // 2, end - 1)} == {owner}
    for pool in pools:
        assert sum(end - begin for begin, end, owner in held if owner == pool.owner) == owned.get(
            pool.owner, 0
        )
