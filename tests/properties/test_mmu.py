"""Address spaces against a dictionary, and laws of the walk over arbitrary tables."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sim.core.units import MIB
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import (
    Access,
    AddressSpace,
    ControlState,
    GeneralProtection,
    Kind,
    MappingError,
    PageFault,
    Rights,
    Translation,
    walk,
)

RIGHTS = st.builds(Rights, write=st.booleans(), user=st.booleans(), execute=st.booleans())
SMALL_VAS = st.sampled_from(
    [base + page * 4096 for base in (0, 1 << 30, 1 << 46, -(1 << 31) % 2**64) for page in (0, 1, 511)]
)
LARGE_VAS = st.sampled_from([base + page * 2 * MIB for base in (0, 1 << 30, 1 << 46) for page in (0, 1)])


class SpaceMachine(RuleBasedStateMachine):
    """Compares an `AddressSpace` with a dictionary from address to (frame, rights, size)."""

    def __init__(self):
        super().__init__()
        self.memory = PhysicalMemory(16 * MIB)
        self.space = AddressSpace(self.memory, "space")
        self.model = {}

    def overlaps(self, va, size):
        return any(va < other + entry[2] and other < va + size for other, entry in self.model.items())

    @rule(va=SMALL_VAS, mpn=st.integers(0, 4095), rights=RIGHTS)
    def map_small(self, va, mpn, rights):
        self.map(va, mpn, rights, 4096)

    @rule(va=LARGE_VAS, block=st.integers(0, 7), rights=RIGHTS)
    def map_large(self, va, block, rights):
        self.map(va, block * 512, rights, 2 * MIB)

    def map(self, va, mpn, rights, size):
        taken = self.overlaps(va, size)
        try:
            self.space.map(va, mpn, rights, large=size != 4096)
        except MappingError:
            assert taken
            return
        assert not taken
        self.model[va] = (mpn, rights, size)

    @rule(va=SMALL_VAS | LARGE_VAS)
    def unmap(self, va):
        try:
            removed = self.space.unmap(va)
        except MappingError:
            assert va not in self.model
            return
        assert self.model.pop(va) == (removed.mpn, removed.rights, removed.page_bytes)

    @rule(va=SMALL_VAS | LARGE_VAS, rights=RIGHTS)
    def protect(self, va, rights):
        try:
            self.space.protect(va, rights)
        except MappingError:
            assert va not in self.model
            return
        mpn, _, size = self.model[va]
        self.model[va] = (mpn, rights, size)

    @rule(
        va=SMALL_VAS | LARGE_VAS, offset=st.integers(0, 4095), kind=st.sampled_from(Kind), user=st.booleans()
    )
    def access(self, va, offset, kind, user):
        """User rules are simple enough to state again; the kernel's are tested elsewhere."""
        outcome = self.space.translate(va + offset, Access(kind, user))
        hit = next(
            (each for each in self.model.items() if each[0] <= va + offset < each[0] + each[1][2]), None
        )
        if hit is None:
            assert isinstance(outcome, PageFault)
            assert not outcome.error_code & 1
            return
        base, (mpn, rights, _) = hit
        if isinstance(outcome, Translation):
            assert outcome.pa == (mpn << 12) + va + offset - base
            assert outcome.rights == rights
        else:
            assert outcome.error_code & 1
            assert outcome.cr2 == va + offset
        if user:
            allowed = rights.user and {"r": True, "w": rights.write, "x": rights.execute}[kind.value]
            assert isinstance(outcome, Translation) == allowed

    @invariant()
    def the_space_holds_what_the_model_holds(self):
        found = {each.va: (each.mpn, each.rights, each.page_bytes) for each in self.space.mappings()}
        assert found == self.model
        self.space.check_invariants()
        assert self.memory.frames_used == self.space.table_frames


SpaceMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestSpace = SpaceMachine.TestCase

SOUND_ENTRY = st.builds(
    lambda table, flags, nx: table << 12 | flags | nx << 63,
    st.integers(0, 3),
    st.sampled_from([0x7, 0x7, 0x27, 0x67, 0x5, 0x3, 0x1]),
    st.sampled_from([0, 0, 0, 1]),
)
LARGE_ENTRY = st.builds(
    lambda page, flags: page << 30 | flags | 0x81, st.integers(0, 3), st.integers(0, 0x7F)
)
ENTRY = st.one_of(SOUND_ENTRY, SOUND_ENTRY, SOUND_ENTRY, LARGE_ENTRY, st.integers(0, 2**64 - 1))


@st.composite
def walks(draw):
    """Four tables full of a few entries, an address that uses them, a control state and an access."""
    indices = [draw(st.sampled_from([0, 1, 511])) for _ in range(5)]
    memory = {table << 12 | index << 3: draw(ENTRY) for table in range(4) for index in (0, 1, 511)}
    va = 0
    for index in indices[1:]:
        va = va << 9 | index
    va = va << 12 | draw(st.integers(0, 4095))
    va |= 0xFFFF << 48 if va >> 47 else 0
    flags = {
        name: draw(st.booleans())
        for name in ("la57", "wp", "nxe", "smep", "smap", "ac", "pke", "gigabyte_pages", "amd")
    }
    control = ControlState(
        cr3=0, maxphyaddr=draw(st.integers(32, 52)), pkru=draw(st.integers(0, 2**32 - 1)), **flags
    )
    access = Access(draw(st.sampled_from(Kind)), draw(st.booleans()), draw(st.booleans()))
    return memory, control, va, access


def run(memory, control, va, access):
    memory = dict(memory)
    return walk(lambda pa: memory.get(pa, 0), memory.__setitem__, control, va, access), memory


@settings(max_examples=400)
@given(walks())
def test_a_fault_changes_no_entry_and_a_grant_only_sets_accessed_and_dirty(case):
    memory, control, va, access = case
    outcome, after = run(memory, control, va, access)
    changed = {at: entry ^ memory[at] for at, entry in after.items() if entry != memory[at]}
    if isinstance(outcome, Translation):
        assert all(change & ~0x60 == 0 for change in changed.values())
        assert access.kind is Kind.WRITE or all(change == 0x20 for change in changed.values())
        assert run(after, control, va, access) == (outcome, after)
    else:
        assert not changed


@settings(max_examples=400)
@given(walks(), st.integers(0, 3), st.sampled_from([0, 1, 511]), st.sampled_from([1, 2, 4, 1 << 63]))
def test_taking_a_right_away_never_grants_a_user_access(case, table, index, bit):
    memory, control, va, access = case
    access = Access(access.kind, user=True)
    before, _ = run(memory, control, va, access)
    weaker = dict(memory)
    at = table << 12 | index << 3
    weaker[at] = weaker[at] | bit if bit == 1 << 63 else weaker[at] & ~bit
    after, _ = run(weaker, control, va, access)
    assert isinstance(before, Translation) or not isinstance(after, Translation)


@given(walks(), st.integers(1, 0xFFFF))
def test_only_canonical_addresses_are_walked(case, upper):
    _, control, va, access = case
    broken = (va & ~(0xFFFF << 48)) | (upper << 48)
    sign = broken >> (56 if control.la57 else 47)
    outcome = walk(lambda pa: 0, {}.__setitem__, control, broken, access)
    canonical = sign in (0, 0xFF if control.la57 else 0x1FFFF)
    assert isinstance(outcome, PageFault if canonical else GeneralProtection)
