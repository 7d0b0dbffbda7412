"""The two-dimensional walk: guest tables under EPT, references, order of faults, flags in both dimensions."""

import pytest
from attrs import evolve

from sim.hw.mmu.ept import EptMisconfiguration, EptViolation
from sim.hw.mmu.ept_entries import EptControl
from sim.hw.mmu.nested import NestedControl, NestedTranslation, walk_nested, walk_unpaged
from sim.hw.mmu.paging import ControlState
from sim.hw.mmu.walk import Access, GeneralProtection, Kind, PageFault

R, W, X, XU = 1, 2, 4, 1 << 10
RWX = R | W | X
WB = 6 << 3
LARGE = 1 << 7
EPT_A, EPT_D = 1 << 8, 1 << 9
PT_A, PT_D = 1 << 5, 1 << 6
KINDS = {"read": Kind.READ, "write": Kind.WRITE, "fetch": Kind.FETCH}
VA = 0x7F12_3456_7ABC
GUEST_PAGE = 0x80000
GUEST_TABLES = {5: 0x10000, 4: 0x11000, 3: 0x12000, 2: 0x13000, 1: 0x14000}


class Machine:
    """A guest with one mapped page, under EPT that maps guest page n to host page n + 0x100000, 4 KiB each."""

    def __init__(self, *, guest_levels=4, ept_levels=4, guest_leaf=1, ept_leaf=1, **features):
        self.memory = {}
        self._next = 0x1000
        features.setdefault("accessed_dirty", False)
        self.ept = EptControl(root=self._table(), levels=ept_levels, **features)
        self.ept_leaf = ept_leaf
        top = GUEST_TABLES[guest_levels]
        self.guest = ControlState(cr3=top, la57=guest_levels == 5, smap=False, smep=False, maxphyaddr=46)
        for table in GUEST_TABLES.values():
            self.map(table)
        self.map(GUEST_PAGE)
        self.entries = {}
        for level in range(guest_levels, guest_leaf - 1, -1):
            target = 0 if level == guest_leaf > 1 else GUEST_TABLES.get(level - 1, GUEST_PAGE)
            at = GUEST_TABLES[level] | (VA >> (12 + 9 * (level - 1)) & 0x1FF) << 3
            self.entries[level] = at
            self.set_guest(level, target | 7 | (LARGE if level == guest_leaf > 1 else 0))

    def _table(self):
        self._next += 0x1000
        return self._next

    def host(self, gpa):
        return gpa + (0x100000 << 12)

    def slot(self, gpa):
        """The address of the EPT leaf entry for a guest page, making tables on the way."""
        table = self.ept.root
        for level in range(self.ept.levels, self.ept_leaf, -1):
            at = table | (gpa >> (12 + 9 * (level - 1)) & 0x1FF) << 3
            if at not in self.memory:
                self.memory[at] = self._table() | RWX | XU
            table = self.memory[at] & ~0xFFF
        return table | (gpa >> (12 + 9 * (self.ept_leaf - 1)) & 0x1FF) << 3

    def map(self, gpa, bits=RWX | XU):
        size = 1 << (12 + 9 * (self.ept_leaf - 1))
        frame = self.host(gpa) & -size
        self.memory[self.slot(gpa)] = frame | bits | WB | (LARGE if self.ept_leaf > 1 else 0) if bits else 0

    def set_guest(self, level, entry):
        self.memory[self.host(self.entries[level])] = entry

    def guest_entry(self, level):
        return self.memory[self.host(self.entries[level])]

    def add_flags(self, bits):
        for level in self.entries:
            self.set_guest(level, self.guest_entry(level) | bits)

    def run(self, kind="read", *, user=False, va=VA):
        control = NestedControl(guest=self.guest, ept=self.ept)
        access = Access(KINDS[kind], user)
        return walk_nested(self.read, self.memory.__setitem__, control, va, access)

    def read(self, pa):
        return self.memory.get(pa, 0)

    def outcome(self, kind="read", **more):
        return self.run(kind, **more).outcome


# ----------------------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("guest", "ept", "guest_leaf", "ept_leaf", "references"),
    [
        (4, 4, 1, 1, 24),
        (5, 5, 1, 1, 35),
        (5, 4, 1, 1, 29),
        (4, 5, 1, 1, 29),
        (4, 4, 2, 1, 19),
        (4, 4, 3, 1, 14),
        (4, 4, 1, 2, 19),
        (4, 4, 1, 3, 14),
        (4, 4, 3, 3, 8),
    ],
)
def test_a_full_walk_makes_n_plus_1_times_m_plus_1_minus_1_references(
    guest, ept, guest_leaf, ept_leaf, references
):
    machine = Machine(guest_levels=guest, ept_levels=ept, guest_leaf=guest_leaf, ept_leaf=ept_leaf)
    if guest_leaf > 1:
        machine.map(VA & ((1 << (12 + 9 * (guest_leaf - 1))) - 1) & ~0xFFF)
    n, m = guest - guest_leaf + 1, ept - ept_leaf + 1
    assert references == (n + 1) * (m + 1) - 1
    for kind in KINDS:
        walked = machine.run(kind)
        assert isinstance(walked.outcome, NestedTranslation)
        assert walked.references == references


@pytest.mark.parametrize("flags", [False, True])
def test_setting_flags_adds_no_references(flags):
    machine = Machine(accessed_dirty=flags)
    assert machine.run("write").references == 24
    assert machine.run("write").references == 24


def test_a_walk_that_stops_has_made_fewer_references():
    machine = Machine()
    machine.map(GUEST_TABLES[4], 0)
    assert machine.run().references == 4
    machine = Machine()
    machine.set_guest(4, 0)
    assert machine.run().references == 5
    machine = Machine()
    machine.map(GUEST_PAGE, 0)
    assert machine.run().references == 24
    assert Machine().run(va=1 << 63).references == 0


def test_the_result_is_ept_of_the_guests_result():
    outcome = Machine().outcome("write")
    assert outcome.gpa == GUEST_PAGE | VA & 0xFFF
    assert outcome.pa == Machine().host(outcome.gpa)
    assert (outcome.page_bytes, outcome.memory_type) == (4096, 6)
    large = Machine(ept_leaf=2).outcome()
    assert large.page_bytes == 4096, "the smaller of the two pages"
    machine = Machine(guest_leaf=2)
    machine.map(VA & ((1 << 21) - 1) & ~0xFFF)
    assert machine.outcome().page_bytes == 4096
    assert Machine(guest_leaf=2, ept_leaf=3).outcome().page_bytes == 2 << 20


# ------------------------------------------------ guest paging structures under restricted EPT rights

PAGING_ROWS = [
    # EPT flags on?, EPT rights of the page of the guest's table, guest flags set before, access, result
    *((False, 0, flags, kind, 1) for flags in (0, PT_A, PT_A | PT_D) for kind in KINDS),
    *((True, 0, flags, kind, 1 | 2) for flags in (0, PT_A, PT_A | PT_D) for kind in KINDS),
    *((False, R, 0, kind, 1 | 2 | 8) for kind in KINDS),
    (False, R, PT_A, "read", "ok"),
    (False, R, PT_A, "write", 1 | 2 | 8),
    (False, R, PT_A, "fetch", "ok"),
    *((False, R, PT_A | PT_D, kind, "ok") for kind in KINDS),
    *((True, R, flags, kind, 1 | 2 | 8) for flags in (0, PT_A, PT_A | PT_D) for kind in KINDS),
    *((False, R | X, 0, kind, 1 | 2 | 8 | 32) for kind in KINDS),
    (False, R | X, PT_A, "write", 1 | 2 | 8 | 32),
    *((False, R | X, PT_A | PT_D, kind, "ok") for kind in KINDS),
    *((True, R | X, flags, kind, 1 | 2 | 8 | 32) for flags in (0, PT_A | PT_D) for kind in KINDS),
    *((False, X, PT_A | PT_D, kind, 1 | 32) for kind in KINDS),
    *((True, X, PT_A | PT_D, kind, 1 | 2 | 32) for kind in KINDS),
    *((flags, R | W, 0, kind, "ok") for flags in (False, True) for kind in KINDS),
    *((flags, W, 0, kind, "misconfiguration") for flags in (False, True) for kind in KINDS),
    *((flags, W | X, 0, kind, "misconfiguration") for flags in (False, True) for kind in KINDS),
]


@pytest.mark.parametrize(("flags", "rights", "before", "kind", "wanted"), PAGING_ROWS)
def test_access_to_a_guest_paging_entry_is_judged_by_ept(flags, rights, before, kind, wanted):
    machine = Machine(accessed_dirty=flags)
    machine.add_flags(before)
    machine.map(GUEST_TABLES[1], rights)
    outcome = machine.outcome(kind)
    if wanted == "ok":
        assert isinstance(outcome, NestedTranslation)
    elif wanted == "misconfiguration":
        assert isinstance(outcome, EptMisconfiguration)
        assert outcome.gpa == machine.entries[1]
    else:
        assert isinstance(outcome, EptViolation)
        assert outcome.qualification == wanted | 1 << 7, "a linear address, but not its translation"
        assert (outcome.gpa, outcome.linear) == (machine.entries[1], VA)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_each_level_of_the_guests_tables_is_reached_through_ept(level):
    machine = Machine()
    machine.map(GUEST_TABLES[level], 0)
    outcome = machine.outcome("write")
    assert (outcome.gpa, outcome.qualification) == (machine.entries[level], 1 | 1 << 7)


# -------------------------------------------------------------------------- the final access

FINAL_ROWS = [
    (R, "write", 2 | 8),
    (R, "fetch", 4 | 8),
    (R | W, "fetch", 4 | 8 | 16),
    (X, "read", 1 | 32),
    (X, "write", 2 | 32),
    (R | X, "write", 2 | 8 | 32),
    (0, "read", 1),
    (0, "write", 2),
    (0, "fetch", 4),
]


@pytest.mark.parametrize(("rights", "kind", "low"), FINAL_ROWS)
def test_a_violation_of_the_final_page_sets_bits_7_and_8(rights, kind, low):
    machine = Machine()
    machine.map(GUEST_PAGE, rights)
    outcome = machine.outcome(kind)
    assert outcome.qualification == low | 1 << 7 | 1 << 8
    assert (outcome.gpa, outcome.linear) == (GUEST_PAGE | VA & 0xFFF, VA)


def test_advanced_information_describes_the_guests_page_at_the_final_access_only():
    machine = Machine(advanced_info=True)
    machine.set_guest(1, GUEST_PAGE | 5 | 1 << 63)
    machine.map(GUEST_PAGE, 0)
    assert machine.outcome("read").qualification == 1 | 0x180 | 1 << 9 | 1 << 11
    machine.map(GUEST_TABLES[2], 0)
    assert machine.outcome("read").qualification == 1 | 0x80


@pytest.mark.parametrize(
    ("guest", "user_page", "rights", "granted"),
    [
        ("supervisor", False, R | X, True),
        ("supervisor", False, R | XU, False),
        ("user", True, R | XU, True),
        ("user", True, R | X, False),
    ],
)
def test_under_mbec_the_guests_page_decides_which_execute_right_counts(guest, user_page, rights, granted):
    machine = Machine(mbec=True)
    machine.set_guest(1, GUEST_PAGE | (7 if user_page else 3))
    machine.map(GUEST_PAGE, rights)
    outcome = machine.outcome("fetch", user=guest == "user")
    assert isinstance(outcome, NestedTranslation) == granted
    readable = machine.outcome("read", user=guest == "user")
    assert readable.rights.execute == granted


def test_rights_of_both_dimensions_are_anded_for_the_tlb():
    machine = Machine()
    machine.map(GUEST_PAGE, R)
    rights = machine.outcome("read").rights
    assert (rights.write, rights.execute, rights.user) == (False, False, True)
    machine = Machine()
    machine.set_guest(1, GUEST_PAGE | 1 | 1 << 63)
    rights = machine.outcome("read").rights
    assert (rights.write, rights.execute, rights.user) == (False, False, False)


# ---------------------------------------------------------------------------- the order of things


def test_a_guest_fault_comes_before_a_violation_of_the_final_page():
    machine = Machine()
    machine.map(GUEST_PAGE, 0)
    for entry in (GUEST_PAGE | 6, GUEST_PAGE | 3, GUEST_PAGE | 7 | 1 << 50):
        machine.set_guest(1, entry)
        assert isinstance(machine.outcome("read", user=True), PageFault)
    machine.set_guest(1, GUEST_PAGE | 7)
    assert isinstance(machine.outcome("read", user=True), EptViolation)


def test_a_guest_fault_at_an_upper_level_comes_before_a_violation_of_a_lower_table():
    machine = Machine()
    machine.map(GUEST_TABLES[1], 0)
    machine.set_guest(3, 0)
    outcome = machine.outcome()
    assert isinstance(outcome, PageFault)
    assert (outcome.level, outcome.cr2) == (3, VA)


def test_a_violation_at_an_upper_table_comes_before_a_guest_fault_below():
    machine = Machine()
    machine.map(GUEST_TABLES[3], 0)
    machine.set_guest(1, 0)
    assert machine.outcome().gpa == machine.entries[3]


def test_an_address_that_is_not_canonical_reaches_no_table():
    machine = Machine()
    machine.map(GUEST_TABLES[4], 0)
    assert isinstance(machine.outcome(va=1 << 47), GeneralProtection)


def test_a_guest_page_fault_changes_nothing_in_the_guests_tables():
    machine = Machine(accessed_dirty=True)
    machine.set_guest(1, 0)
    before = {level: machine.guest_entry(level) for level in machine.entries}
    machine.outcome("write")
    assert before == {level: machine.guest_entry(level) for level in machine.entries}


# --------------------------------------------------------------------- flags in both dimensions


@pytest.mark.parametrize("kind", KINDS)
def test_with_flags_on_the_pages_of_guest_tables_become_dirty_whatever_the_access(kind):
    machine = Machine(accessed_dirty=True)
    machine.add_flags(PT_A | PT_D)
    machine.outcome(kind)
    for level in machine.entries:
        assert machine.memory[machine.slot(machine.entries[level])] & (EPT_A | EPT_D) == EPT_A | EPT_D
    final = machine.memory[machine.slot(GUEST_PAGE)]
    assert final & EPT_A
    assert bool(final & EPT_D) == (kind == "write")


def test_with_flags_off_ept_entries_stay_as_they_are():
    machine = Machine()
    before = {gpa: machine.memory[machine.slot(gpa)] for gpa in (*GUEST_TABLES.values(), GUEST_PAGE)}
    machine.outcome("write")
    assert before == {gpa: machine.memory[machine.slot(gpa)] for gpa in before}


@pytest.mark.parametrize("flags", [False, True])
def test_the_guests_own_flags_are_set_in_guest_memory(flags):
    machine = Machine(accessed_dirty=flags)
    machine.outcome("read")
    assert all(machine.guest_entry(level) & (PT_A | PT_D) == PT_A for level in machine.entries)
    machine.outcome("write")
    assert machine.guest_entry(1) & (PT_A | PT_D) == PT_A | PT_D
    assert all(machine.guest_entry(level) & PT_D == 0 for level in (2, 3, 4))


# ------------------------------------------------------------------------------ paging off


def test_without_paging_linear_is_guest_physical_and_every_page_a_writable_user_page():
    machine = Machine(advanced_info=True, mbec=True)
    walked = walk_unpaged(machine.read, machine.memory.__setitem__, machine.ept, GUEST_PAGE | 5, Kind.WRITE)
    assert walked.references == 4
    assert (walked.outcome.gpa, walked.outcome.pa) == (GUEST_PAGE | 5, machine.host(GUEST_PAGE | 5))
    machine.map(GUEST_PAGE, R | X)
    walked = walk_unpaged(machine.read, machine.memory.__setitem__, machine.ept, GUEST_PAGE | 5, Kind.FETCH)
    assert walked.outcome.qualification == 4 | 8 | 32 | 0x180 | 1 << 9 | 1 << 10


def test_a_guest_root_beyond_its_physical_width_is_cut_as_the_processor_does():
    machine = Machine()
    machine.guest = evolve(machine.guest, cr3=machine.guest.cr3 | 0xFFF | 1 << 60)
    assert isinstance(machine.outcome(), NestedTranslation)
