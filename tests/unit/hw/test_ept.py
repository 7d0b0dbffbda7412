"""The EPT walk against the tables of the manual: rights, misconfigurations, qualification, flags."""

import pytest
from attrs import evolve

from sim.hw.mmu.ept import (
    EptAccess,
    EptMisconfiguration,
    EptTranslation,
    EptViolation,
    ept_walk,
)
from sim.hw.mmu.ept_entries import EptControl, EptpInvalid, EptRights, control_of
from sim.hw.mmu.paging import Rights
from sim.hw.mmu.walk import Kind

R, W, X, XU = 1, 2, 4, 1 << 10
RWX = R | W | X
WB = 6 << 3
LARGE = 1 << 7
A, D = 1 << 8, 1 << 9
GPA = 5 << 39 | 6 << 30 | 7 << 21 | 8 << 12 | 0x123
GPA5 = 3 << 48 | GPA
FRAME = 0x40000000

PLAIN = EptControl(root=0x1000, accessed_dirty=False, maxphyaddr=46)
ACCESSES = {
    "read": EptAccess(read=True),
    "write": EptAccess(write=True),
    "fetch": EptAccess(fetch=True),
}


def tables(leaf, level=1, control=PLAIN, gpa=GPA, upper=None):
    """A chain of tables, one at 0x1000 * (levels + 1 - level), that ends in `leaf` at `level`."""
    upper = upper or {}
    memory = {}
    for each in range(control.levels, level - 1, -1):
        at = 0x1000 * (control.levels + 1 - each) | (gpa >> (12 + 9 * (each - 1)) & 0x1FF) << 3
        memory[at] = leaf if each == level else upper.get(each, 0x1000 * (control.levels + 2 - each) | RWX)
    return memory


def leaf_entry(level, bits):
    return FRAME | bits | WB | (LARGE if level > 1 else 0)


def run(memory, access, control=PLAIN, gpa=GPA):
    reads = []

    def read(pa):
        reads.append(pa)
        return memory.get(pa, 0)

    return ept_walk(read, memory.__setitem__, control, gpa, access), reads


def seen(outcome):
    """What the table says: "ok", "misconfiguration" or the low six bits of the qualification."""
    if isinstance(outcome, EptTranslation):
        return "ok"
    if isinstance(outcome, EptMisconfiguration):
        assert outcome.exit_reason == 49
        return "misconfiguration"
    assert outcome.exit_reason == 48
    return outcome.qualification


BAD = "misconfiguration"
TABLE = {
    0: (1, 2, 4),
    R: ("ok", 2 + 8, 4 + 8),
    R | W: ("ok", "ok", 4 + 8 + 16),
    X: (1 + 32, 2 + 32, "ok"),
    R | X: ("ok", 2 + 8 + 32, "ok"),
    RWX: ("ok", "ok", "ok"),
    W: (BAD, BAD, BAD),
    W | X: (BAD, BAD, BAD),
}
"""Rights of the path, and what becomes of a read, a write and a fetch."""


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("rights", TABLE)
def test_the_rights_of_a_leaf_decide_as_the_table_says(rights, level):
    for access, wanted in zip(ACCESSES.values(), TABLE[rights], strict=True):
        outcome, _ = run(tables(leaf_entry(level, rights) if rights else 0, level), access)
        assert seen(outcome) == wanted


@pytest.mark.parametrize("level", [2, 3, 4])
@pytest.mark.parametrize("rights", TABLE)
def test_the_rights_of_an_upper_entry_decide_just_so(rights, level):
    entry = 0x1000 * (6 - level) | rights if rights else 0
    for access, wanted in zip(ACCESSES.values(), TABLE[rights], strict=True):
        outcome, _ = run(tables(leaf_entry(1, RWX), upper={level: entry}), access)
        assert seen(outcome) == wanted


@pytest.mark.parametrize("leaf", [R, R | W, R | X, RWX, X])
@pytest.mark.parametrize("above", [R, R | W, R | X, RWX, X])
def test_rights_of_two_levels_are_anded_and_the_qualification_shows_the_and(leaf, above):
    both = leaf & above
    for access, needed in zip(ACCESSES.values(), (R, W, X), strict=True):
        outcome, _ = run(tables(leaf_entry(1, leaf), upper={3: 0x3000 | above}), access)
        if both & needed:
            assert seen(outcome) == "ok"
        else:
            assert seen(outcome) == needed | both << 3


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_without_execute_only_support_an_execute_only_entry_is_a_misconfiguration(level):
    control = evolve(PLAIN, execute_only=False)
    memory = (
        tables(leaf_entry(1, X))
        if level == 1
        else tables(leaf_entry(1, RWX), upper={level: 0x1000 * (6 - level) | X})
    )
    for access in ACCESSES.values():
        outcome, _ = run(memory, access, control)
        assert isinstance(outcome, EptMisconfiguration)
        assert outcome.level == level


RESERVED_IN_TABLE = {4: [3, 4, 5, 6, 7, 46, 51], 3: [3, 4, 5, 6, 46, 51], 2: [3, 4, 5, 6, 46, 51]}
RESERVED_IN_LEAF = {1: [46, 51], 2: [*range(12, 21), 46, 51], 3: [*range(12, 30), 46, 51]}
IGNORED_IN_LEAF = {
    1: [6, 7, 8, 9, 10, 11, 52, 62, 63],
    2: [6, 8, 9, 10, 11, 52, 62, 63],
    3: [6, 8, 9, 10, 11, 63],
}
IGNORED_IN_TABLE = [8, 9, 10, 11, 52, 57, 62, 63]


@pytest.mark.parametrize(
    ("level", "bit"), [(level, bit) for level, bits in RESERVED_IN_TABLE.items() for bit in bits]
)
def test_a_reserved_bit_of_a_table_entry_is_a_misconfiguration(level, bit):
    entry = 0x1000 * (6 - level) | RWX | 1 << bit
    for access in ACCESSES.values():
        outcome, reads = run(tables(leaf_entry(1, 0), upper={level: entry}), access)
        assert isinstance(outcome, EptMisconfiguration)
        assert (outcome.level, outcome.entry, outcome.gpa) == (level, entry, GPA)
        assert len(reads) == 5 - level, "nothing below a misconfigured entry is read"


@pytest.mark.parametrize(
    ("level", "bit"), [(level, bit) for level, bits in RESERVED_IN_LEAF.items() for bit in bits]
)
def test_a_reserved_bit_of_a_leaf_is_a_misconfiguration_even_if_the_access_is_denied_too(level, bit):
    for rights in (R, RWX):
        for access in ACCESSES.values():
            outcome, _ = run(tables(leaf_entry(level, rights) | 1 << bit, level), access)
            assert isinstance(outcome, EptMisconfiguration)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_ignored_bits_change_nothing(level):
    for bit in IGNORED_IN_LEAF[level]:
        for access, wanted in zip(ACCESSES.values(), TABLE[R | W], strict=True):
            outcome, _ = run(tables(leaf_entry(level, R | W) | 1 << bit, level), access)
            assert seen(outcome) == wanted
    for bit in IGNORED_IN_TABLE:
        outcome, _ = run(tables(leaf_entry(1, RWX), upper={3: 0x3000 | RWX | 1 << bit}), ACCESSES["fetch"])
        assert seen(outcome) == "ok"


@pytest.mark.parametrize("level", [1, 2, 3])
def test_memory_types_2_3_and_7_are_misconfigurations_of_a_leaf(level):
    for kind in range(8):
        entry = FRAME | RWX | kind << 3 | (LARGE if level > 1 else 0)
        outcome, _ = run(tables(entry, level), ACCESSES["read"])
        if kind in (2, 3, 7):
            assert isinstance(outcome, EptMisconfiguration)
        else:
            assert outcome.memory_type == kind


def test_a_misconfiguration_below_beats_the_denial_by_an_upper_entry():
    memory = tables(leaf_entry(1, W), upper={4: 0x2000 | R})
    outcome, _ = run(memory, ACCESSES["fetch"])
    assert isinstance(outcome, EptMisconfiguration)


def test_an_absent_entry_is_not_checked_and_hides_what_is_below_and_the_rights_above():
    entry = 1 << 51 | 7 << 3
    outcome, reads = run(tables(leaf_entry(1, W), upper={2: entry}), ACCESSES["write"])
    assert seen(outcome) == 2
    assert (outcome.level, outcome.gpa, len(reads)) == (2, GPA, 3)


@pytest.mark.parametrize(("feature", "level"), [("large_pages", 2), ("gigabyte_pages", 3)])
def test_a_page_size_that_the_processor_lacks_is_a_misconfiguration(feature, level):
    memory = tables(leaf_entry(level, RWX), level)
    assert seen(run(memory, ACCESSES["read"])[0]) == "ok"
    outcome, _ = run(memory, ACCESSES["read"], evolve(PLAIN, **{feature: False}))
    assert isinstance(outcome, EptMisconfiguration)


@pytest.mark.parametrize(("level", "offset_bits"), [(1, 12), (2, 21), (3, 30)])
def test_the_address_is_the_frame_with_the_offset_of_the_leafs_size(level, offset_bits):
    outcome, _ = run(tables(leaf_entry(level, RWX), level), ACCESSES["read"])
    assert outcome.page_bytes == 1 << offset_bits
    assert outcome.pa == FRAME | GPA & ((1 << offset_bits) - 1)
    assert outcome.rights == EptRights(read=True, write=True, execute=True, execute_user=False)


def test_five_levels_walk_one_table_more():
    control = evolve(PLAIN, levels=5)
    outcome, reads = run(
        tables(leaf_entry(1, RWX), control=control, gpa=GPA5), ACCESSES["read"], control, GPA5
    )
    assert seen(outcome) == "ok"
    assert len(reads) == 5
    entry = 0x2000 | RWX | LARGE
    outcome, _ = run(
        tables(leaf_entry(1, RWX), control=control, gpa=GPA5, upper={5: entry}),
        ACCESSES["read"],
        control,
        GPA5,
    )
    assert (outcome.exit_reason, outcome.level) == (49, 5)


def test_an_address_of_more_bits_than_the_levels_translate_is_a_violation_without_rights():
    outcome, reads = run(tables(leaf_entry(1, RWX)), ACCESSES["write"], gpa=1 << 48 | GPA)
    assert seen(outcome) == 2
    assert not reads


# ------------------------------------------------------------------ accessed and dirty flags


@pytest.mark.parametrize("kind", ["read", "write", "fetch"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_grant_sets_accessed_everywhere_and_a_write_dirty_in_the_leaf(kind, level):
    control = evolve(PLAIN, accessed_dirty=True)
    memory = tables(leaf_entry(level, RWX), level)
    before = dict(memory)
    run(memory, ACCESSES[kind], control)
    for at, entry in memory.items():
        is_leaf = before[at] & WB == WB
        assert entry == before[at] | A | (D if kind == "write" and is_leaf else 0)


@pytest.mark.parametrize("kind", ["read", "write", "fetch"])
def test_without_the_flags_in_the_pointer_nothing_is_written(kind):
    memory = tables(leaf_entry(1, RWX))
    before = dict(memory)
    run(memory, ACCESSES[kind])
    assert memory == before


@pytest.mark.parametrize("rights", [0, R, W, X])
def test_an_exit_sets_no_flag(rights):
    control = evolve(PLAIN, accessed_dirty=True)
    memory = tables(leaf_entry(1, rights))
    before = dict(memory)
    outcome, _ = run(memory, EptAccess(write=True), control)
    assert not isinstance(outcome, EptTranslation)
    assert memory == before


# --------------------------------------------------------------- mode-based execute control

MBEC_TABLE = [
    # rights, user page?, what becomes of a fetch
    (R | X, False, "ok"),
    (R | X, True, 4 + 8 + 32),
    (R | XU, True, "ok"),
    (R | XU, False, 4 + 8 + 64),
    (R | X | XU, True, "ok"),
    (R | X | XU, False, "ok"),
    (R, True, 4 + 8),
    (XU, True, "ok"),
    (XU, False, 4 + 64),
    (X, True, 4 + 32),
    (W | XU, True, BAD),
]


@pytest.mark.parametrize(("rights", "user", "wanted"), MBEC_TABLE)
def test_under_mbec_user_pages_have_an_execute_right_of_their_own(rights, user, wanted):
    control = evolve(PLAIN, mbec=True)
    access = EptAccess.of(Kind.FETCH, linear=0x5000, guest_rights=Rights(user=user, execute=True))
    outcome, _ = run(tables(leaf_entry(1, rights), upper=_all_rights()), access, control)
    got = seen(outcome)
    assert got == (wanted if isinstance(wanted, str) else wanted | 0x180)


def _all_rights():
    return {4: 0x2000 | RWX | XU, 3: 0x3000 | RWX | XU, 2: 0x4000 | RWX | XU}


def test_under_mbec_an_entry_with_xu_alone_is_present_and_needs_execute_only_support():
    control = evolve(PLAIN, mbec=True, execute_only=False)
    memory = tables(leaf_entry(1, XU), upper=_all_rights())
    assert seen(run(memory, ACCESSES["read"], control)[0]) == BAD
    assert seen(run(memory, ACCESSES["read"], evolve(control, mbec=False))[0]) == 1
    assert seen(run(memory, ACCESSES["read"], evolve(control, execute_only=True))[0]) == 1 + 64


def test_without_mbec_bit_10_neither_grants_nor_shows():
    access = EptAccess.of(Kind.FETCH, linear=0x5000, guest_rights=Rights(user=True, execute=True))
    outcome, _ = run(tables(leaf_entry(1, R | XU), upper=_all_rights()), access)
    assert seen(outcome) == 4 + 8 + 0x180


# --------------------------------------------------------------------- qualification above bit 6

HIGH_BITS = [
    (EptAccess(read=True), 0),
    (EptAccess(read=True, linear=0x5000), 0x80),
    (EptAccess(read=True, linear=0x5000, final=True), 0x180),
    (EptAccess(read=True, nmi_unblocking=True), 0x1000),
    (EptAccess.of(Kind.READ, linear=0, guest_rights=Rights()), 0x180 | 0x800),
    (EptAccess.of(Kind.READ, linear=0, guest_rights=Rights(user=True)), 0x180 | 0xA00),
    (EptAccess.of(Kind.READ, linear=0, guest_rights=Rights(write=True)), 0x180 | 0xC00),
    (EptAccess.of(Kind.READ, linear=0, guest_rights=Rights(user=True, write=True, execute=True)), 0x780),
    (EptAccess(read=True, linear=0, guest_rights=Rights(user=True, write=True)), 0x80),
]


@pytest.mark.parametrize(("access", "high"), HIGH_BITS)
def test_the_high_bits_of_the_qualification_tell_where_the_access_came_from(access, high):
    outcome, _ = run({}, access, evolve(PLAIN, advanced_info=True))
    assert outcome.qualification == 1 | high
    assert outcome.linear == access.linear
    outcome, _ = run({}, access)
    assert outcome.qualification == 1 | high & ~0xE00


# ---------------------------------------------------------------------------------- the pointer


@pytest.mark.parametrize(
    ("eptp", "levels", "flags"),
    [(0x5000 | 6 | 3 << 3, 4, False), (0x5000 | 6 | 3 << 3 | 64, 4, True), (0x5000 | 4 << 3, 5, False)],
)
def test_an_ept_pointer_is_read_and_written_alike(eptp, levels, flags):
    control = control_of(eptp, features=PLAIN)
    assert (control.root, control.levels, control.accessed_dirty) == (0x5000, levels, flags)
    assert control.eptp == eptp


@pytest.mark.parametrize(
    "eptp",
    [
        *(0x5000 | kind | 3 << 3 for kind in (1, 2, 3, 4, 5, 7)),
        *(0x5000 | 6 | length << 3 for length in (0, 1, 2, 5, 6, 7)),
        *(0x5000 | 6 | 3 << 3 | 1 << bit for bit in (7, 8, 9, 10, 11, 46, 51, 52, 63)),
    ],
)
def test_an_ept_pointer_that_vm_entry_refuses_is_refused(eptp):
    with pytest.raises(EptpInvalid):
        control_of(eptp, features=PLAIN)


def test_features_that_the_processor_lacks_are_refused_in_the_pointer():
    with pytest.raises(EptpInvalid, match="levels"):
        control_of(0x5000 | 6 | 4 << 3, features=PLAIN, five_levels=False)
    with pytest.raises(EptpInvalid, match="flags"):
        control_of(0x5000 | 6 | 3 << 3 | 64, features=PLAIN, accessed_dirty=False)


def test_exits_say_what_they_are():
    violation, _ = run(tables(0), ACCESSES["read"])
    assert isinstance(violation, EptViolation)
    assert str(violation) == f"EPT violation at {GPA:#x}, qualification 0x1 at EPT PT"
    misconfiguration, _ = run(tables(leaf_entry(1, W)), ACCESSES["read"])
    assert str(misconfiguration).startswith(f"EPT misconfiguration at {GPA:#x}, EPT PT entry")
