"""Laws of the EPT walk over arbitrary tables, and of large leaves broken and formed."""

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.units import GIB
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu.ept import EptAccess, EptMisconfiguration, EptTranslation, EptViolation, ept_walk
from sim.hw.mmu.ept_entries import EptControl, EptRights
from sim.hw.mmu.ept_tables import EptTables
from sim.hw.mmu.paging import Rights
from sim.hw.mmu.walk import Kind

A, D = 1 << 8, 1 << 9
INDICES = (0, 1, 511)

SOUND = st.builds(
    lambda table, rights, more: table << 12 | rights | more,
    st.integers(0, 3),
    st.sampled_from([7, 7, 7, 3, 1, 5, 4]),
    st.sampled_from([0, 0, A, A | D, 1 << 10, 6 << 3]),
)
LARGE = st.builds(
    lambda page, rights: page << 30 | rights | 1 << 7 | 6 << 3, st.integers(0, 3), st.integers(0, 7)
)
ENTRY = st.one_of(SOUND, SOUND, SOUND, SOUND, LARGE, st.integers(0, 2**64 - 1))


@st.composite
def walks(draw):
    """Four tables full of a few entries, an address that uses them, a processor and an access."""
    memory = {table << 12 | index << 3: draw(ENTRY) for table in range(4) for index in INDICES}
    gpa = 0
    for _ in range(5):
        gpa = gpa << 9 | draw(st.sampled_from(INDICES))
    gpa = gpa << 12 | draw(st.integers(0, 4095))
    flags = {
        name: draw(st.booleans())
        for name in (
            "accessed_dirty",
            "mbec",
            "execute_only",
            "large_pages",
            "gigabyte_pages",
            "advanced_info",
        )
    }
    control = EptControl(
        root=0, levels=draw(st.sampled_from([4, 5])), maxphyaddr=draw(st.integers(32, 52)), **flags
    )
    if control.levels == 4:
        gpa &= (1 << 48) - 1
    guest_rights = draw(st.none() | st.builds(Rights, write=st.booleans(), user=st.booleans()))
    access = EptAccess.of(draw(st.sampled_from(Kind)), linear=0x1000, guest_rights=guest_rights)
    if draw(st.booleans()):
        access = EptAccess(read=True, write=control.accessed_dirty, linear=0x1000)
    return memory, control, gpa, access


def run(memory, control, gpa, access):
    memory = dict(memory)
    return ept_walk(lambda pa: memory.get(pa, 0), memory.__setitem__, control, gpa, access), memory


@settings(max_examples=200)
@given(walks())
def test_an_exit_changes_no_entry_and_a_grant_only_sets_accessed_and_dirty(case):
    memory, control, gpa, access = case
    outcome, after = run(memory, control, gpa, access)
    changed = {at: entry ^ memory.get(at, 0) for at, entry in after.items() if entry != memory.get(at, 0)}
    if isinstance(outcome, EptTranslation) and control.accessed_dirty:
        allowed = A | D if access.write else A
        assert all(change & ~allowed == 0 for change in changed.values())
        assert run(after, control, gpa, access) == (outcome, after)
    else:
        assert not changed


@settings(max_examples=200)
@given(walks(), st.integers(0, 3), st.sampled_from(INDICES), st.sampled_from([1, 2, 4, 1 << 10]))
def test_taking_a_right_away_never_grants_an_access(case, table, index, right):
    memory, control, gpa, access = case
    before, _ = run(memory, control, gpa, access)
    weaker = dict(memory)
    weaker[table << 12 | index << 3] &= ~right
    after, _ = run(weaker, control, gpa, access)
    assert isinstance(before, EptTranslation) or not isinstance(after, EptTranslation)


@settings(max_examples=200)
@given(walks())
def test_the_qualification_agrees_with_what_the_same_path_permits(case):
    """Where one access is denied by rights, each other access is granted exactly if bits 5:3 (or 6) say so."""
    memory, control, gpa, access = case
    outcome, _ = run(memory, control, gpa, access)
    if not isinstance(outcome, EptViolation) or outcome.level:
        return
    for kind, bit in ((Kind.READ, 8), (Kind.WRITE, 16), (Kind.FETCH, 32)):
        other = EptAccess.of(kind, linear=0x1000, guest_rights=Rights(user=False))
        granted = isinstance(run(memory, control, gpa, other)[0], EptTranslation)
        assert granted == bool(outcome.qualification & bit)
    user = EptAccess.of(Kind.FETCH, linear=0x1000, guest_rights=Rights(user=True))
    if control.mbec:
        granted = isinstance(run(memory, control, gpa, user)[0], EptTranslation)
        assert granted == bool(outcome.qualification & 64)


@settings(max_examples=200)
@given(walks())
def test_a_misconfiguration_is_one_for_every_access(case):
    memory, control, gpa, access = case
    outcome, _ = run(memory, control, gpa, access)
    for kind in Kind:
        other, _ = run(memory, control, gpa, EptAccess.of(kind))
        assert isinstance(outcome, EptMisconfiguration) == isinstance(other, EptMisconfiguration)


RIGHTS = st.sampled_from(
    [EptRights(), EptRights(write=False), EptRights(execute=False), EptRights(read=False, write=False)]
)


@settings(max_examples=25)
@given(
    large=st.sampled_from([512, 262_144]),
    rights=RIGHTS,
    extra=st.sampled_from([0, A, D, A | D, 1 << 6, 1 << 63, 1 << 62, 1 << 11]),
    pages=st.lists(st.integers(0, 262_143), min_size=1, max_size=8),
)
def test_breaking_and_forming_change_no_translation_no_right_and_no_bit(large, rights, extra, pages):
    memory = PhysicalMemory(2 * GIB)
    tables = EptTables(memory, "ept", features=EptControl(root=0, accessed_dirty=False))
    tables.map(0, large, large, rights)
    entry_pa, entry, _ = tables._find(0)
    memory.write_u64(entry_pa, entry | extra)

    def seen():
        return [
            evolve(outcome, page_bytes=0) if isinstance(outcome, EptTranslation) else outcome
            for page in pages
            for kind in Kind
            for outcome in [tables.walk(page % large << 12 | 5, EptAccess.of(kind))]
        ]

    before = seen()
    sizes = [tables.split(pages[0] % large)]
    if sizes[-1] > 1:
        sizes.append(tables.split(pages[-1] % large))
    assert seen() == before
    tables.check_invariants()
    for page in (pages[-1], pages[0])[-len(sizes) :]:
        assert tables.form(page % large)
        assert seen() == before
    assert memory.read_u64(entry_pa) == entry | extra
    assert tables.table_frames == (3 if large == 512 else 2)
