"""Claims about memory managers and policies over everything that Hypothesis can think of."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.core.rng import Rng
from sim.core.units import GIB
from sim.hw.memory import FRAME_BYTES, PhysicalMemory
from sim.hw.mmu import (
    Access,
    AddressSpace,
    ControlState,
    GeneralProtection,
    Kind,
    PageFault,
    Translation,
    walk,
)
from sim.kernel.layout import Layout, LayoutError, kernel_profile, user_profile
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.paged import PagedMemory
from sim.kernel.memory.protocol import HostView
from sim.kernel.memory.reclaim_rules import compress_page, decompress_page, slot_of
from sim.kernel.memory.states import MemState, actions_of, min_free, next_state, states_of
from sim.kernel.memory.targets import IdleTaxPolicy, targets_of
from sim.testing import (
    Step,
    access_patterns,
    claims,
    find_violation,
    layout_requests,
    mappings,
    mem_options,
    memory_machine,
    page_tables,
    placed_regions,
    replay,
)
from sim.testing.invariants import check_layout, check_shares, check_state_machine
from sim.testing.memory_driver import shortened

MEMORY_BYTES = 8 << 20


def managed(**arguments):
    return lambda: PagedMemory(Sim(categories=()), PhysicalMemory(MEMORY_BYTES), pcpus=2, **arguments)


TestEager = memory_machine(managed(), pcpus=2, used_bits=True).TestCase
TestEager.settings = settings(max_examples=80, stateful_step_count=30)
TestLazy = memory_machine(managed(eager=False), pcpus=2, used_bits=True).TestCase
TestLazy.settings = settings(max_examples=80, stateful_step_count=30)
TestPoorHash = memory_machine(managed(hash_bits=1), pcpus=2, used_bits=True).TestCase
TestPoorHash.settings = settings(max_examples=40, stateful_step_count=30)


class Merges(PagedMemory):
    """Merges pages without looking at their salts."""

    def share(self, one, other):
        space = self._spaces[other[0]]
        group, space.group = space.group, self._spaces[one[0]].group
        shared = super().share(one, other)
        space.group = group
        return shared


class Forgets(PagedMemory):
    """Tells no processor about a copy."""

    def _copy(self, one, page, state):
        tell, self._changed = self._changed, lambda page, at_once: None
        super()._copy(one, page, state)
        self._changed = tell


class Loses(PagedMemory):
    """Swaps and compresses nothing but zeros."""

    def _bring_back(self, one, page, state):
        super()._bring_back(one, page, state)
        self._memory.write(state.frame * FRAME_BYTES, bytes(FRAME_BYTES))


@pytest.mark.parametrize(("broken", "number"), [(Merges, 10), (Loses, 15)])
def test_the_machine_finds_a_planted_bug_and_shrinks_it(broken, number):
    def make():
        return broken(Sim(categories=()), PhysicalMemory(MEMORY_BYTES), pcpus=2)

    found = find_violation(make, pcpus=2)
    assert found is not None
    assert found.violation.number == number
    assert 3 <= len(found.steps) <= 6
    again = replay(make, found.steps, pcpus=2)
    assert again is not None
    assert str(again) == str(found)


def test_a_sequence_of_steps_can_be_replayed_and_is_shortened():
    """The steps are what a property test printed; one of them is not needed."""
    steps = [
        Step(what="map", space=0, page=0),
        Step(what="read", space=0, page=0),
        Step(what="map", space=1, page=2),
        Step(what="share", space=0, page=0, other=(1, 2)),
        Step(what="read", space=1, page=2, pcpu=1),
        Step(what="write", space=1, page=2, data=b"right"),
    ]

    def make():
        return Forgets(Sim(categories=()), PhysicalMemory(MEMORY_BYTES), pcpus=2)

    assert replay(managed(), steps, pcpus=2, used_bits=True) is None
    found = replay(make, steps, pcpus=2)
    assert found is not None
    assert found.violation.number == 2
    shorter = shortened(make, found, pcpus=2)
    assert [str(step) for step in shorter.steps] == [
        "map page 0 of a rw",
        "map page 2 of b rw",
        "share page 0 of a with page 2 of b",
        "read page 2 of b on pCPU 1",
        "write page 2 of b 'left'",
    ]


@given(claims(), st.integers(0, 70_000), st.sampled_from((0, 50, 75, 99)))
def test_ours_divides_by_shares_and_tax(some, capacity, tax):
    check_shares(IdleTaxPolicy(tax_percent=tax), capacity, some, tax)


@given(claims(8, 1 << 33), st.integers(0, 1 << 36), st.sampled_from((0, 50, 75, 99)), st.integers(0, 1 << 60))
def test_both_divisions_agree(some, capacity, tax, hint):
    import numpy as np

    columns = [
        np.array([getattr(claim, name) for claim in some], dtype=np.int64)
        for name in ("shares", "active", "floor", "ceiling")
    ]
    targets, _ = targets_of(capacity, *columns, tax_percent=tax, hint=hint)
    assert tuple(targets.tolist()) == IdleTaxPolicy(tax_percent=tax).targets(capacity, some)


@given(claims(), st.integers(0, 70_000), st.data())
def test_more_capacity_never_gives_anybody_less(some, capacity, data):
    more = data.draw(st.integers(capacity, 80_000))
    policy = IdleTaxPolicy()
    for less, most in zip(policy.targets(capacity, some), policy.targets(more, some), strict=True):
        assert less <= most


@given(mem_options(), st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_ours_follows_the_states(options, frees):
    host = HostView(total=10_000, free=1000, min_free=100)
    for free in frees:
        state = next_state(MemState(host.state), free, 100, options)
        actions = actions_of(state)
        done = tuple(name for name in ("balloon", "compress", "swap", "block") if getattr(actions, name))
        after = HostView(total=10_000, free=free, min_free=100, state=str(state), changed=done)
        check_state_machine(host, after, options)
        assert next_state(state, free, 100, options) is state
        host = after


@given(mem_options(), st.integers(0, 1000), st.integers(0, 1000))
def test_from_one_state_more_free_memory_never_leads_lower(options, one, other):
    order = [state for state, _ in states_of(options.release)]
    for start in order:
        low, high = (next_state(start, free, 100, options) for free in sorted((one, other)))
        assert order.index(high) <= order.index(low)


@given(st.integers(0, 16 * 1024 * GIB), st.integers(0, GIB))
def test_min_free_never_falls(size, more):
    assert min_free(size) <= min_free(size + more) <= min_free(size) + more
    assert min_free(size) * 100 <= size * 6


@given(st.binary(max_size=64), st.integers(0, FRAME_BYTES))
def test_a_page_that_fits_a_slot_comes_back(pattern, zeros):
    page = (pattern * (FRAME_BYTES // max(1, len(pattern)) + 1))[: FRAME_BYTES - zeros].ljust(
        FRAME_BYTES, b"\0"
    )
    packed = compress_page(page)
    assert packed is not None
    assert slot_of(len(packed)) is not None
    assert decompress_page(packed) == page


@given(page_tables(), st.sampled_from(Kind), st.booleans())
def test_a_walk_of_any_tables_ends_in_a_translation_or_a_fault(image, kind, user):
    entries = dict(image.entries)
    control = ControlState(cr3=image.cr3, maxphyaddr=40)
    got = walk(lambda pa: entries.get(pa, 0), entries.__setitem__, control, image.va, Access(kind, user=user))
    assert isinstance(got, Translation | PageFault | GeneralProtection)
    if not isinstance(got, Translation):
        assert entries == image.entries


def test_the_strategy_for_tables_reaches_every_kind_of_end():
    ends = {"granted": 0, "reserved": 0, "absent": 0, "denied": 0}

    @settings(max_examples=400)
    @given(page_tables())
    def collect(image):
        entries = dict(image.entries)
        control = ControlState(cr3=image.cr3, maxphyaddr=40)
        got = walk(
            lambda pa: entries.get(pa, 0),
            entries.__setitem__,
            control,
            image.va,
            Access(Kind.READ, user=True),
        )
        if isinstance(got, Translation):
            ends["granted"] += 1
        elif isinstance(got, PageFault):
            end = "reserved" if got.error_code & 8 else "denied" if got.error_code & 1 else "absent"
            ends[end] += 1

    collect()
    assert min(ends.values()) >= 3, ends


@given(mappings())
def test_planned_mappings_can_be_made_and_overlap_nowhere(plan):
    space = AddressSpace(PhysicalMemory(MEMORY_BYTES), "space")
    seen = set()
    for one in plan:
        assert seen.isdisjoint(one.pages)
        seen.update(one.pages)
        space.map(one.page * FRAME_BYTES, 512 if one.large else 3, one.rights, large=one.large)
    assert [mapping.va // FRAME_BYTES for mapping in space.mappings()] == [one.page for one in plan]


@given(access_patterns(10))
def test_access_patterns_stay_inside(pattern):
    assert all(0 <= page < 10 for page, _ in pattern)


@given(st.integers(0, 1000), st.booleans(), st.data())
def test_our_layouts_keep_the_invariant(seed, kernel, data):
    profile = kernel_profile() if kernel else user_profile()
    requests = data.draw(layout_requests(profile))

    def place():
        layout = Layout(Rng(seed).stream("layout"), profile)
        try:
            for kind, size in requests:
                layout.place(kind, size, kind)
        except LayoutError:
            assume(False)
        return placed_regions(layout)

    check_layout(place(), place())


def test_the_options_are_those_of_the_manual():
    options = MemOptions()
    assert (options.idle_tax_percent, options.ctl_max_percent, options.zip_max_percent) == (75, 65, 10)
    assert (options.balance_ns, options.sample_ns, options.force_salting) == (15 * 10**9, 60 * 10**9, 2)
