"""The memory scheduler of a host: what it takes, from whom, and that nothing is lost."""

import pickle

import numpy as np
import pytest

from sim.core.context import Sim
from sim.core.units import GIB, MIB, PAGE_BYTES, SECOND
from sim.hw.memory import PhysicalMemory
from sim.kernel.memory.counters import guest_counters, publish_memory
from sim.kernel.memory.guest_pages import BALLOONED, COMPRESSED, RESIDENT, SHARED, SWAPPED, UNTOUCHED
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.reclaim_rules import balloon_max, owed
from sim.kernel.memory.scheduler import MemoryScheduler
from sim.kernel.memory.spec import MemorySpec, MemoryWorkload
from sim.kernel.memory.states import MemState, actions_of
from sim.testing.invariants import (
    check_conservation,
    check_limit_ceiling,
    check_reservation_floor,
    check_state_machine,
)

HOST = 512 * MIB


def scheduler(*, host_bytes=HOST, seed=1, **options):
    sim = Sim(seed=seed)
    memory = PhysicalMemory(host_bytes)
    return MemoryScheduler(sim, memory, MemOptions(**options), sim.rng.child("host"), core_hz=8 * 10**9)


def workload(used, working=0, **arguments):
    return MemoryWorkload(used_bytes=used * MIB, working_set_bytes=working * MIB, **arguments)


def add(mem, name, megabytes, load, **spec):
    return mem.add(name, megabytes * MIB // PAGE_BYTES, MemorySpec(workload=load, **spec))


def run(mem, seconds, step=SECOND):
    """Run, and look at the books of everybody after every second."""
    before = mem.picture().host
    for _ in range(seconds * SECOND // step):
        balances = mem.balances
        mem.sim.engine.run(mem.sim.now + step)
        mem.check_invariants()
        picture = mem.picture()
        check_conservation(picture)
        check_reservation_floor(picture)
        check_limit_ceiling(picture)
        if mem.balances > balances and step == SECOND:
            orders = mem.table.columns
            done = tuple(
                name for name, column in (("swap", "swap"), ("block", "blocked")) if orders[column].any()
            )
            assert set(done) <= {name for name in ("swap", "block") if getattr(actions_of(mem.state), name)}
        before = picture.host
    return before


def megabytes(guest):
    return {
        name: int(guest.pages.counts[place]) * PAGE_BYTES // MIB
        for name, place in (
            ("resident", RESIDENT),
            ("shared", SHARED),
            ("ballooned", BALLOONED),
            ("compressed", COMPRESSED),
            ("swapped", SWAPPED),
            ("untouched", UNTOUCHED),
        )
    }


def test_with_enough_memory_nothing_is_taken():
    mem = scheduler(large_pages=False)
    guest = add(mem, "a", 128, workload(100, 50))
    run(mem, 120)
    found = megabytes(guest)
    assert (found["ballooned"], found["compressed"], found["swapped"]) == (0, 0, 0)
    assert found["untouched"] == 28
    assert mem.state is MemState.CLEAR or mem.state is MemState.HIGH
    assert guest.refused == 0


def test_a_large_page_brings_untouched_memory_with_it():
    mem = scheduler(host_bytes=8 * GIB)
    guest = add(mem, "a", 128, workload(100, 50, zero_percent=0))
    run(mem, 3)
    assert megabytes(guest)["resident"] == 100
    assert guest.pages.whole.sum() == 50
    scattered = add(mem, "b", 128, MemoryWorkload(working_set_bytes=128 * MIB, rate=20))
    run(mem, 1)
    assert megabytes(scattered)["resident"] >= 20


def test_an_overcommitted_host_takes_by_shares_and_spares_the_reservation():
    mem = scheduler(large_pages=False, share_scan_ns=0)
    rich = add(mem, "rich", 400, workload(400, 400), shares="high")
    poor = add(mem, "poor", 400, workload(400, 400), shares="low")
    safe = add(mem, "safe", 100, workload(100, 0), reservation_bytes=100 * MIB, shares=1)
    run(mem, 300, step=10 * SECOND)
    assert megabytes(safe)["resident"] == 100
    held = {guest.name: megabytes(guest)["resident"] for guest in (rich, poor)}
    assert held["rich"] > 2.5 * held["poor"]
    taken = megabytes(poor)
    assert taken["ballooned"] + taken["compressed"] + taken["swapped"] > 200
    assert mem.memory.frames_free >= mem.reserve


def test_the_idle_tax_takes_from_the_idle():
    held = {}
    for tax in (0, 75):
        mem = scheduler(large_pages=False, share_scan_ns=0, idle_tax_percent=tax, sample_ns=10 * SECOND)
        idle = add(mem, "idle", 400, workload(400, 20))
        busy = add(mem, "busy", 400, workload(400, 400, rate=20_000))
        run(mem, 300, step=30 * SECOND)
        held[tax] = [guest.held for guest in (idle, busy)]
    assert abs(held[0][0] - held[0][1]) < held[0][0] // 10
    assert held[75][1] > 1.5 * held[75][0]


def test_the_limit_holds_at_every_moment_and_the_vm_swaps_its_own():
    mem = scheduler(large_pages=False, share_scan_ns=0)
    guest = add(mem, "a", 200, workload(200, 100), limit_bytes=50 * MIB)
    run(mem, 60)
    found = megabytes(guest)
    assert found["resident"] == 50
    assert guest.pages.counts[COMPRESSED] + guest.pages.counts[SWAPPED] == 150 * MIB // PAGE_BYTES
    assert guest.cache.count * PAGE_BYTES <= 20 * MIB
    assert guest.swapped_in > 0
    assert mem.state is MemState.HIGH or mem.state is MemState.CLEAR


def test_zero_pages_and_equal_pages_share_frames_within_a_vm():
    mem = scheduler(large_pages=False, share_scan_ns=20 * SECOND, share_scan_mb_ghz=1000)
    guest = add(mem, "a", 100, workload(100, 0, zero_percent=30, common_percent=40, copies=4))
    run(mem, 60)
    found = megabytes(guest)
    assert found["shared"] > 60
    assert mem.shared.count < guest.pages.counts[SHARED] // 2
    assert guest_counters(mem, guest).consumed < guest_counters(mem, guest).granted - 10_000


@pytest.mark.parametrize(
    ("salting", "salts", "shares"), [(2, "", False), (2, "x", True), (1, "", True), (0, "", True)]
)
def test_salting_decides_whether_two_vms_share(salting, salts, shares):
    mem = scheduler(
        large_pages=False, force_salting=salting, share_scan_ns=20 * SECOND, share_scan_mb_ghz=1000
    )
    guests = [
        add(mem, name, 64, workload(64, 0, zero_percent=0, common_percent=80), salt=salts) for name in "ab"
    ]
    run(mem, 60)
    for guest in guests:
        assert bool(guest.pages.counts[SHARED] > 10_000) is shares
    if shares:
        assert mem.shared.count * 2 == sum(guest.pages.counts[SHARED] for guest in guests)


def test_a_write_leaves_the_shared_frame_to_the_others():
    mem = scheduler(large_pages=False, force_salting=0, share_scan_ns=5 * SECOND, share_scan_mb_ghz=1000)
    quiet = add(mem, "quiet", 32, workload(32, 0, zero_percent=0, common_percent=100))
    writer = add(
        mem, "writer", 32, workload(32, 32, rate=500, write_percent=100, zero_percent=0, common_percent=100)
    )
    run(mem, 30)
    assert quiet.pages.counts[SHARED] > 5000
    assert (
        writer.pages.counts[SHARED] < 8192 * 35 // 100
    )  # what was written is like no other, and not shared again
    assert writer.stall_ns > 0
    mem.remove("quiet")
    mem.check_invariants()
    assert mem.shared.count == writer.pages.counts[SHARED]


def test_everything_is_given_back_when_a_vm_goes():
    mem = scheduler(large_pages=False)
    for name in "abc":
        add(mem, name, 250, workload(250, 100), limit_bytes=200 * MIB)
    run(mem, 120)
    for name in "bac":
        mem.remove(name)
        mem.check_invariants()
    assert mem.memory.frames_free == mem.memory.frames_total
    run(mem, 5)
    assert mem.sim.engine.idle or mem.balances == 8


def test_room_is_made_at_once_for_who_gets_memory_whole():
    mem = scheduler(large_pages=False)
    guest = add(mem, "a", 450, workload(450, 0), reservation_bytes=100 * MIB)
    run(mem, 60)
    mem.make_room(300 * MIB // PAGE_BYTES)
    mem.check_invariants()
    assert mem.memory.frames_free >= 300 * MIB // PAGE_BYTES
    assert guest.held * PAGE_BYTES >= 100 * MIB


def test_room_is_made_of_shared_pages_where_private_ones_do_not_suffice():
    mem = scheduler(large_pages=False, share_scan_ns=SECOND, share_scan_mb_ghz=10**5)
    twins = [
        add(mem, name, 200, workload(200, common_percent=100, zero_percent=0), salt="x") for name in "ab"
    ]
    run(mem, 30)
    assert all(int(one.pages.counts[SHARED]) > 45_000 for one in twins)
    mem.table.columns["reservation"][twins[0].row] = 100 * MIB // PAGE_BYTES
    mem.table.columns["reservation"][twins[1].row] = 60 * MIB // PAGE_BYTES
    mem.make_room(350 * MIB // PAGE_BYTES)
    mem.check_invariants()
    check_conservation(mem.picture())
    assert mem.free >= 350 * MIB // PAGE_BYTES
    assert [one.swapped_out * PAGE_BYTES // MIB for one in twins] == [
        39,
        39,
    ]  # the same ones, no more than needed
    mem.make_room(500 * MIB // PAGE_BYTES)  # more than there is beside the reservations
    mem.check_invariants()
    assert [megabytes(one)["shared"] + megabytes(one)["resident"] for one in twins] == [100, 60]


def test_room_is_made_of_the_compression_cache():
    mem = scheduler(large_pages=False, share_scan_ns=0)
    guest = add(mem, "a", 400, workload(400, 50, zero_percent=0, common_percent=0, compressible_percent=100))
    run(mem, 10)
    mem.reclaiming.swap(guest, 100 * MIB // PAGE_BYTES, zip_too=True)
    assert guest.cache.count > 1000
    mem.make_room(mem.memory.frames_total - mem.reserve)
    mem.check_invariants()
    assert (guest.cache.count, megabytes(guest)["compressed"], megabytes(guest)["swapped"]) == (0, 0, 400)


def test_a_balloon_without_a_driver_takes_nothing_and_other_means_follow():
    mem = scheduler(large_pages=False, share_scan_ns=0)
    load = {"zero_percent": 0, "common_percent": 0, "balloon_driver": False}
    guests = [add(mem, name, 400, workload(300, 20, **load)) for name in "ab"]
    run(mem, 240)
    assert all(one.pages.counts[BALLOONED] == 0 for one in guests)
    assert all(one.zipped > 0 < one.swapped_out for one in guests)
    states = [row["new"] for row in mem.sim.trace.select("mem.state")]
    assert states.index("soft") < states.index("hard")


def test_no_means_takes_a_vm_below_its_reservation():
    mem = scheduler(large_pages=False)
    guest = add(mem, "a", 100, workload(100, 0), reservation_bytes=60 * MIB)
    run(mem, 5)
    assert mem.reclaiming.swap(guest, len(guest.pages), zip_too=True) == 40 * MIB // PAGE_BYTES
    assert guest.held == 60 * MIB // PAGE_BYTES
    assert mem.reclaiming.swap(guest, 1, zip_too=False) == 0


def test_a_hint_is_compared_before_two_vms_share():
    mem = scheduler(large_pages=False, force_salting=0, share_scan_ns=0)
    one, other = (add(mem, name, 4, workload(4, 0, zero_percent=0, common_percent=100)) for name in "ab")
    run(mem, 2)
    assert mem.reclaiming.scan(one, 1024) == 0
    one.pages.content[:512] = -1
    assert mem.reclaiming.scan(other, 1024) == 512
    assert (one.pages.counts[SHARED], other.pages.counts[SHARED]) == (512, 512)
    mem.check_invariants()


def test_a_balance_orders_what_the_rule_says():
    mem = scheduler(large_pages=False, share_scan_ns=0)
    for name, megs in (("a", 300), ("b", 200), ("c", 250)):
        add(mem, name, megs, workload(megs, megs // 2))
    for _ in range(90):
        mem.sim.engine.run(mem.sim.now + SECOND)
        balances = mem.balances
        counts = mem.table.counts.copy()
        held = counts[:, RESIDENT] + counts[:, SHARED]
        mem.balance()
        assert mem.balances == balances + 1
        for row, guest in enumerate(mem.guests.values()):
            columns = {name: int(column[row]) for name, column in mem.table.columns.items()}
            wanted = owed(
                int(held[row]),
                columns["target"],
                int(counts[row][BALLOONED]),
                balloon_max(len(guest.pages), mem.options),
                actions_of(mem.state),
            )
            assert (wanted.balloon, wanted.swap, int(wanted.blocked)) == (
                columns["balloon"],
                columns["swap"],
                columns["blocked"],
            )


@pytest.mark.parametrize("release", ["6.0", "5.x"])
def test_states_follow_the_rule_from_balance_to_balance(release):
    mem = scheduler(large_pages=False, release=release)
    for name in "abc":
        add(mem, name, 300, workload(300, 200))
    states = set()
    for _ in range(30):
        mem.sim.engine.run(mem.sim.now + 7 * SECOND)
        before = mem.picture().host
        mem.balance()
        after = mem.picture().host
        check_state_machine(before, after, mem.options)
        states.add(after.state)
    assert len(states) >= 2


def test_a_checkpoint_in_the_middle_changes_nothing():
    def made():
        mem = scheduler(share_scan_mb_ghz=100)
        for name, megs in (("a", 300), ("b", 300)):
            add(mem, name, megs, workload(megs, megs // 2), salt="x")
        return mem

    whole = made()
    whole.sim.engine.run(200 * SECOND)
    parts = made()
    for stop in (3, 61, 124):
        parts.sim.engine.run(stop * SECOND)
        parts = pickle.loads(pickle.dumps(parts))
    parts.sim.engine.run(200 * SECOND)
    parts.check_invariants()
    assert parts.sim.trace.digest() == whole.sim.trace.digest()
    assert parts.picture() == whole.picture()
    assert whole.picture().vms["a"].ballooned + whole.picture().vms["a"].swapped > 0


def test_the_estimate_has_the_noise_of_a_sample_of_100():
    mem = scheduler(host_bytes=GIB, large_pages=False, share_scan_ns=0)
    estimates = []
    for number in range(12):
        guest = add(mem, f"vm{number}", 32, workload(32, 16, rate=1000))
        estimates.append(guest)
    run(mem, 480, step=60 * SECOND)
    found = [guest.activity.fast * 100 / (1 << 20) for guest in estimates]
    assert abs(np.mean(found) - 50) < 6
    assert np.std(found) > 1


def test_the_counters_are_those_of_the_pages():
    mem = scheduler(large_pages=False, share_scan_mb_ghz=100)
    guest = add(mem, "a", 100, workload(100, 10, zero_percent=50), limit_bytes=60 * MIB)
    run(mem, 60)
    row = guest_counters(mem, guest)
    assert row.granted == guest.held
    assert row.zipped == guest.pages.counts[COMPRESSED]
    assert row.shares == 1000
    assert row.balloon_max == guest.pages.place.size * 65 // 100
    publish_memory(mem, mem.sim.metrics)
    report = mem.sim.metrics.report()
    assert report["mem.swapped"]["level"] == int(guest.pages.counts[SWAPPED]) * PAGE_BYTES
    assert report["mem.free"]["level"] == mem.memory.frames_free * PAGE_BYTES
