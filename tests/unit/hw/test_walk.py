"""Rules of the page walk, one by one: directed cases for what recorded walks touch seldom or not at all."""

import pytest

from sim.hw.mmu import Access, ControlState, GeneralProtection, Kind, PageFault, Rights, Translation, walk

P, W, U, A, D, PS, G, NX = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63
ROOT, PDPT, PD, PT, FRAME = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
ALL = P | W | U
READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH


def tables(leaf=FRAME | ALL, upper=ALL, key=0):
    """A path for addresses 0 to 0xfff through four tables."""
    return {ROOT: PDPT | upper, PDPT: PD | upper, PD: PT | upper, PT: leaf | key << 59}


def run(memory, kind, *, user=False, va=0x123, implicit=False, **control):
    state = ControlState(cr3=ROOT, **control)
    return walk(lambda pa: memory.get(pa, 0), memory.__setitem__, state, va, Access(kind, user, implicit))


def code(memory, kind, **arguments):
    outcome = run(memory, kind, **arguments)
    return outcome.error_code if isinstance(outcome, PageFault) else None


def test_a_granted_access_gives_address_size_rights_and_marks():
    memory = tables(FRAME | ALL | G)
    outcome = run(memory, WRITE, user=True)
    rights = Rights(write=True, user=True, execute=True)
    assert outcome == Translation(pa=FRAME | 0x123, page_bytes=4096, rights=rights, global_page=True)
    assert [memory[each] & (A | D) for each in (ROOT, PDPT, PD, PT)] == [A, A, A, A | D]


def test_a_read_sets_no_dirty_bit():
    memory = tables()
    run(memory, READ, user=True)
    assert memory[PT] & (A | D) == A


def test_marks_already_set_are_not_written_again():
    memory = {each: entry | A | D for each, entry in tables().items()}
    state = ControlState(cr3=ROOT)

    def refuse(pa, entry):
        raise AssertionError(f"{pa:#x} was written with {entry:#x}")

    outcome = walk(memory.__getitem__, refuse, state, 0, Access(WRITE, user=True))
    assert isinstance(outcome, Translation)


@pytest.mark.parametrize("absent", [ROOT, PDPT, PD, PT])
@pytest.mark.parametrize(
    ("kind", "user", "wanted"), [(READ, True, 4), (WRITE, False, 2), (FETCH, True, 20), (FETCH, False, 16)]
)
def test_a_not_present_entry_faults_without_p_even_with_reserved_bits(absent, kind, user, wanted):
    memory = tables()
    memory[absent] = (memory[absent] | 1 << 50 | NX) & ~P
    assert code(memory, kind, user=user) == wanted


@pytest.mark.parametrize("level", [ROOT, PDPT, PD, PT])
@pytest.mark.parametrize("bit", [46, 51])
def test_an_address_bit_beyond_the_physical_width_is_reserved(level, bit):
    memory = tables()
    memory[level] |= 1 << bit
    assert code(memory, READ, user=True) == 1 | 4 | 8
    assert code(memory, READ, user=True, maxphyaddr=bit) == 13


@pytest.mark.parametrize("level", [ROOT, PDPT, PD, PT])
def test_nx_is_reserved_without_nxe_and_denies_fetches_with_it(level):
    memory = tables()
    memory[level] |= NX
    assert code(memory, FETCH, user=True) == 1 | 4 | 16
    assert code(memory, READ, user=True) is None
    assert code(memory, READ, user=True, nxe=False) == 13


def test_the_fetch_bit_needs_smep_or_nxe():
    memory = tables(upper=P | W)
    assert code(memory, FETCH, user=True, smep=False, nxe=False) == 5
    assert code(memory, FETCH, user=True, smep=True, nxe=False) == 21
    assert code(memory, FETCH, user=True, smep=False, nxe=True) == 21


def test_ps_is_reserved_in_the_root_and_in_a_pdpt_without_gigabyte_pages():
    memory = tables()
    memory[ROOT] |= PS
    assert code(memory, READ, user=True) == 13
    memory = tables()
    memory[PDPT] = (1 << 30) | ALL | PS
    assert code(memory, READ, user=True) is None
    assert code(memory, READ, user=True, gigabyte_pages=False) == 13


def test_bit_8_of_a_root_entry_is_ignored_by_intel_and_reserved_by_amd():
    memory = tables()
    memory[ROOT] |= G
    assert code(memory, READ, user=True) is None
    assert code(memory, READ, user=True, amd=True) == 13


@pytest.mark.parametrize(
    ("entry", "page", "wrong_bits"), [(PD, 2 << 20, (13, 20)), (PDPT, 1 << 30, (13, 29))]
)
def test_low_address_bits_of_a_large_leaf_are_reserved_but_the_pat_bit_is_not(entry, page, wrong_bits):
    memory = tables()
    memory[entry] = page | ALL | PS | 1 << 12
    outcome = run(memory, READ, user=True, va=page // 2 - 0x10 if page < 1 << 30 else 0x10)
    assert isinstance(outcome, Translation)
    assert outcome.page_bytes == page
    assert outcome.pa >= page
    for bit in wrong_bits:
        memory[entry] = page | ALL | PS | 1 << bit
        assert code(memory, READ, user=True) == 13


@pytest.mark.parametrize("level", [ROOT, PDPT, PD, PT])
def test_w_and_u_count_at_every_level(level):
    memory = tables()
    memory[level] &= ~W
    assert code(memory, WRITE, user=True) == 7
    memory = tables()
    memory[level] &= ~U
    assert code(memory, READ, user=True) == 5
    assert code(memory, READ) is None


def test_wp_decides_supervisor_writes_only():
    memory = tables(FRAME | P)
    assert code(memory, WRITE) == 3
    assert code(memory, WRITE, wp=False) is None
    user_page = tables(FRAME | P | U)
    assert code(user_page, WRITE, user=True, wp=False) == 7


def test_smap_stops_the_kernel_at_user_pages_unless_ac():
    assert code(tables(), READ) == 1
    assert code(tables(), WRITE) == 3
    assert code(tables(), READ, ac=True) is None
    assert code(tables(), READ, smap=False) is None


def test_ac_never_exempts_an_implicit_access():
    assert code(tables(), READ, ac=True, implicit=True) == 1
    assert code(tables(), READ, user=True, implicit=True) == 1
    assert code(tables(FRAME | P | W), READ, user=True, implicit=True) is None


def test_smep_stops_the_kernel_from_running_user_code_whatever_ac_says():
    assert code(tables(), FETCH, ac=True) == 17
    assert code(tables(), FETCH, smep=False) is None


@pytest.mark.parametrize(
    ("pkru", "kind", "user", "wp", "wanted"),
    [
        (0b01 << 6, READ, True, True, 1 | 4 | 32),
        (0b01 << 6, WRITE, False, False, 1 | 2 | 32),
        (0b10 << 6, READ, True, True, None),
        (0b10 << 6, WRITE, True, False, 1 | 2 | 4 | 32),
        (0b10 << 6, WRITE, False, True, 1 | 2 | 32),
        (0b10 << 6, WRITE, False, False, None),
        (0b11 << 6, FETCH, True, True, None),
        (0b11 << 4 | 0b11 << 8, READ, True, True, None),
    ],
)
def test_a_protection_key_denies_data_accesses_to_user_pages(pkru, kind, user, wp, wanted):
    assert code(tables(key=3), kind, user=user, wp=wp, pke=True, pkru=pkru, smap=False) == wanted


def test_a_protection_key_is_ignored_without_pke_and_on_supervisor_pages():
    assert code(tables(key=3), READ, user=True, pkru=0xFFFFFFFF) is None
    assert code(tables(FRAME | P | W, key=3), WRITE, pke=True, pkru=0xFFFFFFFF) is None


def test_the_key_bit_is_reported_beside_another_reason():
    assert code(tables(FRAME | P | U, key=15), WRITE, user=True, pke=True, pkru=1 << 30) == 1 | 2 | 4 | 32


@pytest.mark.parametrize("va", [0x0000_8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF, 1 << 63])
def test_an_address_that_is_not_canonical_walks_nowhere(va):
    outcome = run({}, READ, va=va)
    assert outcome == GeneralProtection()
    assert str(outcome) == "#GP(0)"


def test_five_levels_make_57_bits_canonical():
    memory = {0x9000: ROOT | ALL, **tables()}
    state = ControlState(cr3=0x9000, la57=True)
    assert isinstance(
        walk(memory.get, memory.__setitem__, state, 0x123, Access(READ, user=True)), Translation
    )
    high = walk(lambda _: 0, memory.__setitem__, state, 1 << 55, Access(READ))
    assert isinstance(high, PageFault)
    assert walk(memory.get, memory.__setitem__, state, 1 << 56, Access(READ)) == GeneralProtection()


def test_one_table_used_at_every_level_keeps_the_dirty_bit():
    memory = {ROOT: ROOT | ALL}
    outcome = run(memory, WRITE, user=True, va=0)
    assert outcome.pa == ROOT
    assert memory[ROOT] == ROOT | ALL | A | D


def test_a_fault_says_where_the_walk_stopped():
    memory = tables()
    memory[PD] = 0
    assert str(run(memory, READ, user=True)) == "#PF error code 0x4 CR2 0x123 at PD"
