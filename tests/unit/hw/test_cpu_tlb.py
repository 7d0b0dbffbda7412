"""A logical processor: what its TLB keeps, what each invalidation removes, what accesses cost."""

import pickle

import numpy as np
import pytest

from sim.core.metrics import Metrics
from sim.core.units import MIB
from sim.errors import SimBug
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import (
    Access,
    Accesses,
    AddressSpace,
    ControlState,
    Kind,
    PageFault,
    Permission,
    Rights,
    Translation,
)
from sim.hw.mmu import cpu as cpu_module
from sim.hw.mmu.cpu import Invpcid, LogicalCpu, TlbCosts
from sim.hw.mmu.tlb import Geometry, TlbSpec

VA = 0x4180_0000_0000
LARGE = 2 * MIB
READ, WRITE, FETCH = Access(Kind.READ), Access(Kind.WRITE), Access(Kind.FETCH)
USER_READ, USER_WRITE = Access(Kind.READ, user=True), Access(Kind.WRITE, user=True)
SHARED = Rights(write=True, user=True)


@pytest.fixture
def memory():
    return PhysicalMemory(64 * MIB)


@pytest.fixture
def space(memory):
    space = AddressSpace(memory, "kernel")
    for page in range(8):
        space.map(VA + page * 4096, 1000 + page, Permission.DATA)
    return space


@pytest.fixture
def cpu(memory, space):
    return LogicalCpu(0, memory, space.control)


def granted(cpu, va, access=READ):
    return isinstance(cpu.translate(va, access), Translation)


def counts(cpu):
    return cpu.first_hits.count, cpu.second_hits.count, cpu.walks.count


def test_the_second_access_to_a_page_is_a_hit_with_the_same_outcome(cpu):
    first = cpu.translate(VA + 5, READ)
    assert cpu.translate(VA + 5, READ) == first
    assert cpu.translate(VA + 6, READ).pa == first.pa + 1
    assert counts(cpu) == (2, 0, 1)


def test_a_stale_entry_grants_what_the_tables_deny_until_it_is_invalidated(cpu, space):
    assert granted(cpu, VA, WRITE)
    space.unmap(VA)
    assert granted(cpu, VA, WRITE)
    cpu.invlpg(VA + 77)
    assert cpu.translate(VA, WRITE) == PageFault(error_code=2, cr2=VA, level=1)
    assert cpu.cr2 == VA


def test_nothing_absent_or_reserved_is_cached(cpu, space, memory):
    absent = VA + 100 * 4096
    assert not granted(cpu, absent)
    space.map(absent, 5, Permission.DATA)
    assert granted(cpu, absent)
    space.map(absent + 4096, 6, Permission.DATA)
    path, _ = space._leaf_at(absent + 4096)
    at = path[-1]
    sound = memory.read_u64(at)
    memory.write_u64(at, sound | 1 << 51)
    assert cpu.translate(absent + 4096, READ).error_code == 9
    memory.write_u64(at, sound)
    assert granted(cpu, absent + 4096)


def test_a_write_to_a_page_cached_as_clean_walks_and_sets_dirty(cpu, space, memory):
    assert not cpu.translate(VA, READ).leaf & 0x40
    outcome = cpu.translate(VA, WRITE)
    assert outcome.leaf & 0x40
    assert cpu.dirty_walks.count == 1
    assert cpu.translate(VA, WRITE) == outcome
    assert counts(cpu) == (1, 0, 2)
    assert space.translate(VA, READ).leaf & 0x40


def test_a_write_right_that_is_gone_is_found_out_when_the_cached_page_is_clean(cpu, space):
    assert granted(cpu, VA, READ)
    space.protect(VA, Permission.RODATA)
    assert cpu.translate(VA, WRITE) == PageFault(error_code=3, cr2=VA)


def test_accessed_bits_cleared_by_software_are_set_again_only_after_an_invalidation(cpu, space, memory):
    def leaf():
        return space.translate(VA, READ).leaf

    cpu.translate(VA, READ)
    path, _ = space._leaf_at(VA)
    memory.write_u64(path[-1], leaf() & ~0x20)
    cpu.translate(VA, READ)
    assert not memory.read_u64(path[-1]) & 0x20
    cpu.invlpg(VA)
    cpu.translate(VA, READ)
    assert memory.read_u64(path[-1]) & 0x20


@pytest.mark.parametrize("rewalk", [False, True])
def test_a_right_added_without_invalidation_costs_at_most_one_fault(memory, space, rewalk):
    cpu = LogicalCpu(0, memory, space.control, rewalk_before_fault=rewalk)
    space.protect(VA, Permission.RODATA)
    assert granted(cpu, VA)
    space.protect(VA, Permission.DATA)
    assert granted(cpu, VA, WRITE) == rewalk
    assert granted(cpu, VA, WRITE)
    assert cpu.stale_faults.count == (0 if rewalk else 1)


def test_cached_rights_are_judged_by_the_present_flags(memory, space):
    space.map(VA + LARGE, 2000, Rights(write=True, user=True, execute=True))
    cpu = LogicalCpu(0, memory, space.control)
    va = VA + LARGE
    assert granted(cpu, va, USER_WRITE)
    assert cpu.translate(va, READ) == PageFault(error_code=1, cr2=va)
    assert granted(cpu, va, USER_READ)
    cpu.set_flags(ac=True)
    assert granted(cpu, va, READ)
    assert cpu.translate(va, FETCH) == PageFault(error_code=17, cr2=va)
    assert cpu.translate(va, Access(Kind.READ, implicit=True)).error_code == 1
    cpu.set_flags(pke=True, pkru=1)
    assert granted(cpu, va, Access(Kind.FETCH, user=True))
    assert cpu.translate(va, USER_READ) == PageFault(error_code=37, cr2=va)
    cpu.set_flags(pkru=2)
    assert granted(cpu, va, USER_READ)
    assert cpu.translate(va, USER_WRITE) == PageFault(error_code=39, cr2=va)
    cpu.set_flags(pke=False, wp=False)
    space.protect(VA, Permission.RODATA)
    cpu.invlpg(VA)
    assert granted(cpu, VA, WRITE)
    cpu.set_flags(wp=True)
    assert cpu.translate(VA, WRITE) == PageFault(error_code=3, cr2=VA)


def test_addresses_that_are_not_canonical_leave_cr2_and_the_tlb_alone(cpu):
    assert str(cpu.translate(1 << 63, READ)) == "#GP(0)"
    assert str(cpu.translate(1 << 63, Access(Kind.WRITE, stack=True))) == "#SS(0)"
    assert (cpu.cr2, cpu.faults.count, cpu.walks.count) == (0, 2, 0)


def test_pages_of_every_size_have_buffers_of_their_own(memory, space):
    space.map(1 << 30, 1 << 18, Permission.TEXT, page_bytes=1 << 30)
    space.map(0, 0, Permission.TEXT, large=True)
    cpu = LogicalCpu(0, memory, space.control)
    for va in (VA, LARGE - 1, (1 << 30) + 12345):
        first = cpu.translate(va, READ)
        assert cpu.translate(va, READ) == first
    assert [len(list(buffer.entries())) for buffer in cpu.tlb.data] == [1, 1, 1]
    assert [len(list(buffer.entries())) for buffer in cpu.tlb.second] == [2, 1]
    assert granted(cpu, LARGE - 1, FETCH)
    assert cpu.second_hits.count == 1
    assert [len(list(buffer.entries())) for buffer in cpu.tlb.instruction] == [0, 1]
    cpu.invlpg(12345)
    assert cpu.walks.count == 3
    cpu.translate(LARGE - 1, READ)
    assert cpu.walks.count == 4
    cpu.check_invariants()


def small(replacement="least recently used"):
    return TlbSpec(
        data_4k=Geometry(entries=2, ways=2), second_level=Geometry(entries=4, ways=4), replacement=replacement
    )


@pytest.mark.parametrize(("replacement", "kept"), [("least recently used", 0), ("first in first out", 1)])
def test_a_full_set_makes_room_by_the_policy(memory, space, replacement, kept):
    cpu = LogicalCpu(0, memory, space.control, tlb=small(replacement))
    for page in (0, 1, 0, 2):
        cpu.translate(VA + page * 4096, READ)
    found = {entry.va for entry in cpu.tlb.data[0].entries()}
    assert found == {VA + kept * 4096, VA + 2 * 4096}
    assert counts(cpu) == (1, 0, 3)
    cpu.translate(VA + (1 - kept) * 4096, READ)
    assert counts(cpu) == (1, 1, 3)
    for page in (3, 4, 5, 6):
        cpu.translate(VA + page * 4096, READ)
    assert sum(1 for _ in cpu.tlb.second[0].entries()) == 4
    cpu.check_invariants()


def test_buffers_that_cannot_be_are_refused():
    with pytest.raises(SimBug, match="cannot have 3 ways"):
        Geometry(entries=64, ways=3)


# ---------------------------------------------------------------- contexts


@pytest.fixture
def contexts(memory):
    """Two spaces that map the same address to different frames, and a global page that both have."""
    one, two = AddressSpace(memory, "one"), AddressSpace(memory, "two")
    for number, space in enumerate((one, two)):
        space.map(VA, 10 + number, Permission.DATA)
        space.map(VA + 4096, 20, Permission.DATA, global_page=True)
    return one, two


def held(cpu):
    return sorted({(entry.pcid, (entry.va - VA) >> 12, entry.global_page) for entry in cpu.tlb.entries()})


def filled(memory, contexts, **arguments):
    """A processor that has read both pages in context 1, then in context 2."""
    one, two = contexts
    cpu = LogicalCpu(0, memory, one.control, pcide=True, **arguments)
    for number, space in ((1, one), (2, two)):
        cpu.load_cr3(space.control.cr3 | number, keep=True)
        cpu.translate(VA, READ)
        cpu.translate(VA + 4096, READ)
    return cpu


ONE, TWO, GLOBAL = (1, 0, False), (2, 0, False), (1, 1, True)


def test_contexts_keep_their_translations_apart_and_share_global_ones(memory, contexts):
    cpu = filled(memory, contexts)
    assert held(cpu) == sorted([ONE, TWO, GLOBAL])
    assert cpu.translate(VA, READ).pa == 11 << 12
    cpu.load_cr3(contexts[0].control.cr3 | 1, keep=True)
    assert cpu.translate(VA, READ).pa == 10 << 12
    assert cpu.walks.count == 3


@pytest.mark.parametrize(
    ("do", "left"),
    [
        (lambda cpu, one: cpu.load_cr3(one | 1), [TWO, GLOBAL]),
        (lambda cpu, one: cpu.load_cr3(one | 1, keep=True), [ONE, TWO, GLOBAL]),
        (lambda cpu, one: cpu.load_cr3(one | 2), [ONE, GLOBAL]),
        (lambda cpu, one: cpu.invlpg(VA), [ONE, GLOBAL]),
        (lambda cpu, one: cpu.invlpg(VA + 4096), [ONE, TWO]),
        (lambda cpu, one: cpu.invpcid(Invpcid.ADDRESS, 1, VA), [TWO, GLOBAL]),
        (lambda cpu, one: cpu.invpcid(Invpcid.ADDRESS, 1, VA + 4096), [ONE, TWO, GLOBAL]),
        (lambda cpu, one: cpu.invpcid(Invpcid.CONTEXT, 1), [TWO, GLOBAL]),
        (lambda cpu, one: cpu.invpcid(Invpcid.ALL), [GLOBAL]),
        (lambda cpu, one: cpu.invpcid(Invpcid.ALL_WITH_GLOBAL), []),
        (lambda cpu, one: cpu.set_global_pages(enabled=False), []),
        (lambda cpu, one: cpu.set_global_pages(enabled=True), [ONE, TWO, GLOBAL]),
        (lambda cpu, one: cpu.set_pcide(enabled=False), []),
        (lambda cpu, one: cpu.set_flags(nxe=False), []),
        (lambda cpu, one: cpu.set_flags(ac=True, wp=False, smap=False), [ONE, TWO, GLOBAL]),
        (lambda cpu, one: (cpu.set_flags(smep=False), cpu.set_flags(smep=True)), [ONE, GLOBAL]),
    ],
)
def test_each_invalidation_removes_what_the_manual_says(memory, contexts, do, left):
    cpu = filled(memory, contexts)
    do(cpu, contexts[0].control.cr3)
    assert held(cpu) == sorted(left)
    cpu.check_invariants()


def test_without_contexts_a_cr3_load_keeps_global_pages_alone(memory, contexts):
    one, two = contexts
    cpu = LogicalCpu(0, memory, one.control)
    cpu.translate(VA, READ)
    cpu.translate(VA + 4096, READ)
    cpu.load_cr3(two.control.cr3)
    assert held(cpu) == [(0, 1, True)]
    assert cpu.translate(VA, READ).pa == 11 << 12


def test_with_global_pages_off_the_bit_means_nothing(memory, contexts):
    one, two = contexts
    cpu = LogicalCpu(0, memory, one.control)
    cpu.set_global_pages(enabled=False)
    cpu.translate(VA + 4096, READ)
    cpu.load_cr3(two.control.cr3)
    assert held(cpu) == []


def test_what_a_processor_answers_with_a_fault_is_refused(memory, space, contexts):
    cpu = LogicalCpu(0, memory, space.control)
    with pytest.raises(SimBug, match="bit 63"):
        cpu.load_cr3(space.control.cr3, keep=True)
    with pytest.raises(SimBug, match="INVPCID of context 5"):
        cpu.invpcid(Invpcid.CONTEXT, 5)
    with pytest.raises(SimBug, match="INVPCID"):
        cpu.invpcid(Invpcid.ADDRESS, 0, 1 << 63)
    with pytest.raises(SimBug, match="by load_cr3"):
        cpu.set_flags(cr3=0x1000)
    cpu.set_pcide(enabled=True)
    cpu.load_cr3(space.control.cr3 | 5)
    cpu.set_pcide(enabled=False)
    with pytest.raises(SimBug, match="context 0"):
        cpu.set_pcide(enabled=True)


# ---------------------------------------------------------------- batches and costs


@pytest.mark.parametrize("together_at", [1, 10, 4096])
def test_a_batch_is_its_accesses_one_after_another(memory, space, monkeypatch, together_at):
    monkeypatch.setattr(cpu_module, "BATCH_ACCESSES", together_at)
    space.map(VA + LARGE, 2000, SHARED)
    rng = np.random.default_rng(7)
    va = VA + rng.integers(0, 12, 500) * 4096 + rng.integers(0, 4096, 500)
    va[::7] = VA + LARGE
    va[250:] = VA + va[250:] % 8192
    va[100] = -(1 << 63) + 5
    columns = {
        "va": va.astype(np.uint64),
        "kind": rng.integers(0, 3, 500).astype(np.uint8),
        "user": rng.integers(0, 9, 500) == 0,
        "implicit": rng.integers(0, 9, 500) == 0,
        "stack": rng.integers(0, 2, 500).astype(np.bool_),
    }
    twin = pickle.loads(pickle.dumps(memory))
    together, apart = (LogicalCpu(0, each, space.control, tlb=small()) for each in (memory, twin))
    out = together.translate_many(Accesses(**columns))
    for row in range(500):
        kind = (Kind.READ, Kind.WRITE, Kind.FETCH)[columns["kind"][row]]
        flags = [bool(columns[name][row]) for name in ("user", "implicit", "stack")]
        outcome = apart.translate(int(columns["va"][row]), Access(kind, *flags))
        if isinstance(outcome, Translation):
            assert (out.vector[row], out.pa[row]) == (0, outcome.pa)
        elif isinstance(outcome, PageFault):
            assert (out.vector[row], out.error_code[row], out.cr2[row]) == (
                14,
                outcome.error_code,
                outcome.cr2,
            )
        else:
            assert out.vector[row] == (12 if flags[2] else 13)
    assert counts(together) == counts(apart)
    assert list(together.tlb.entries()) == list(apart.tlb.entries())
    assert (together.cycles, together.cr2) == (apart.cycles, apart.cr2)
    assert together.first_hits.count > 50
    assert set(out.vector.tolist()) >= {0, 14}


def test_a_batch_that_the_first_level_holds_is_served_together(memory, space, monkeypatch):
    space.map(0, 512, Permission.DATA, large=True)
    copied = pickle.loads(pickle.dumps(memory))
    cpu, twin = (LogicalCpu(0, each, space.control) for each in (memory, copied))
    rng = np.random.default_rng(3)
    va = (VA + rng.integers(0, 8, 6000) * 4096 + rng.integers(0, 4096, 6000)).astype(np.uint64)
    va[::5] = rng.integers(0, LARGE, 1200)
    batch = Accesses(va=va, kind=np.where(rng.integers(0, 4, 6000) == 0, 1, 0).astype(np.uint8))
    for each in (cpu, twin):
        each.translate_many(batch)
    monkeypatch.setattr(twin, "_all_from_first", lambda *_: False)
    one_by_one = twin.translate_many(batch)
    before = counts(cpu)
    monkeypatch.setattr(cpu, "translate", None)
    out = cpu.translate_many(batch)
    assert np.array_equal(out.pa, one_by_one.pa)
    assert not out.vector.any()
    assert counts(cpu) == (before[0] + 6000, *before[1:])
    assert list(cpu.tlb.entries()) == list(twin.tlb.entries())


def test_every_access_is_accounted_and_fractions_of_a_nanosecond_are_kept(memory, space):
    costs = TlbCosts(
        second_level_cycles=7, reference_cycles=10, page_cycles=100, flush_cycles=1000, core_hz=3 * 10**9
    )
    cpu = LogicalCpu(0, memory, space.control, costs=costs)
    cpu.translate(VA, READ)
    assert cpu.cycles == 40
    assert cpu.take_ns() == 13
    cpu.translate(VA, READ)
    assert cpu.cycles == 0
    cpu.translate(VA, FETCH)
    cpu.invlpg(VA)
    cpu.invpcid(Invpcid.ALL)
    cpu.translate(1 << 45, READ)
    assert cpu.cycles == 100 + 1000 + 10
    cpu.cycles = 2
    assert cpu.take_ns() == 1
    assert cpu.take_ns() == 0


def test_a_second_level_hit_costs_what_the_spec_says(memory, space):
    cpu = LogicalCpu(0, memory, space.control, tlb=small(), costs=TlbCosts(second_level_cycles=7))
    for page in (0, 1, 2):
        cpu.translate(VA + page * 4096, READ)
    before = cpu.cycles
    cpu.translate(VA, READ)
    assert cpu.cycles - before == 7


def test_what_happened_is_in_the_metrics(memory, space):
    metrics = Metrics()
    cpu = LogicalCpu(3, memory, space.control, metrics=metrics)
    cpu.translate(VA, READ)
    cpu.translate(VA, READ)
    cpu.translate(1 << 45, READ)
    report = metrics.report()
    found = {name.removeprefix("hw.cpu3.tlb."): row["count"] for name, row in report.items()}
    assert found == {
        "cached_faults": 0,
        "dirty_walks": 0,
        "faults": 1,
        "first_hits": 1,
        "flushes": 0,
        "pages_invalidated": 0,
        "second_hits": 0,
        "walks": 2,
    }


def test_a_processor_pickles_with_its_tlb(memory, space):
    cpu = LogicalCpu(0, memory, space.control)
    cpu.translate(VA, READ)
    other = pickle.loads(pickle.dumps(cpu))
    other.translate(VA, READ)
    assert counts(other) == (1, 0, 1)
    assert other.translate(VA + 4096, READ) == cpu.translate(VA + 4096, READ)


def test_five_levels_cost_one_reference_more(memory):
    space = AddressSpace(memory, "wide", control=ControlState(cr3=0, la57=True))
    space.map(VA, 5, Permission.DATA)
    cpu = LogicalCpu(0, memory, space.control, costs=TlbCosts(reference_cycles=1))
    cpu.translate(VA, READ)
    assert cpu.cycles == 5
