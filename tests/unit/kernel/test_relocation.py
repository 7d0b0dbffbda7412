"""Each relocation kind of x86-64 on a hand-made image, and the shape of what is mapped."""

import pytest

from sim.hw.mmu import Rights
from sim.image.elf import ElfImage, Relocation, Segment, Symbol
from sim.kernel.relocation import RelocationError, relocate

BASE = 0x4180_4020_0000
CODE = Segment(
    virtual_address=0x1000,
    memory_bytes=16,
    data=b"\xc3" * 16,
    file_offset=0x1000,
    readable=True,
    writable=False,
    executable=True,
)
DATA = Segment(
    virtual_address=0x3010,
    memory_bytes=0x2000,
    data=b"\xaa" * 64,
    file_offset=0x2010,
    readable=True,
    writable=True,
    executable=False,
)
SYMBOLS = (
    Symbol(name="", value=0, size_bytes=0, kind="none", binding="local", defined=False),
    Symbol(name="own", value=0x3020, size_bytes=8, kind="object", binding="global", defined=True),
    Symbol(name="far", value=0, size_bytes=0, kind="none", binding="global", defined=False),
    Symbol(name="lost", value=0, size_bytes=0, kind="none", binding="weak", defined=False),
    Symbol(name="hidden", value=0x1000, size_bytes=0, kind="function", binding="local", defined=True),
    Symbol(name="tls", value=0, size_bytes=0, kind="tls", binding="global", defined=True),
)
FAR = 0x4180_0000_1234


def image(*relocations, segments=(CODE, DATA), entry=0x1004):
    return ElfImage(
        type="ET_DYN",
        machine="EM_X86_64",
        entry=entry,
        segments=segments,
        symbols=SYMBOLS,
        relocations=relocations,
        modinfo=(),
        version_record=b"",
        has_thread_storage=False,
    )


def find(name):
    return ("vmkernel", FAR) if name == "far" else None


def stored(kind, symbol=0, addend=0, *, offset=0x3018, base=BASE, size=8, lookup=find):
    """The bytes at `offset` after one relocation, read as a number."""
    made = relocate(image(Relocation(offset=offset, kind=kind, symbol=symbol, addend=addend)), base, lookup)
    data = made.segments[1].data
    at = offset - 0x3000
    return int.from_bytes(data[at : at + size], "little"), made


@pytest.mark.parametrize(
    ("kind", "symbol", "addend", "wanted"),
    [
        ("RELATIVE", 0, 0x1008, BASE - 0x1000 + 0x1008),
        ("RELATIVE", 0, -8, BASE - 0x1000 - 8),
        ("64", 1, 4, BASE - 0x1000 + 0x3024),
        ("64", 2, 16, FAR + 16),
        ("64", 0, 3, BASE - 0x1000 + 3),
        ("GLOB_DAT", 2, 99, FAR),
        ("JUMP_SLOT", 1, 99, BASE - 0x1000 + 0x3020),
    ],
)
def test_word_relocations_store_what_the_psabi_says(kind, symbol, addend, wanted):
    assert stored(kind, symbol, addend)[0] == wanted


def test_pc32_is_relative_to_its_own_place():
    place = BASE - 0x1000 + 0x3018
    value, _ = stored("PC32", 1, -4, size=4)
    assert value == (BASE - 0x1000 + 0x3020 - 4 - place) & 0xFFFFFFFF
    value, made = stored("PC32", 2, 0, size=4)
    assert value == (FAR - place) & 0xFFFFFFFF
    assert made.segments[1].data[0x1C:0x20] == b"\xaa" * 4


@pytest.mark.parametrize(
    ("distance", "fits"), [(2**31 - 1, True), (2**31, False), (-(2**31), True), (-(2**31) - 1, False)]
)
def test_pc32_beyond_its_reach_is_refused(distance, fits):
    place = BASE - 0x1000 + 0x3018

    def lookup(_name):
        return "vmkernel", place + distance

    if fits:
        assert stored("PC32", 2, 0, size=4, lookup=lookup)[0] == distance & 0xFFFFFFFF
    else:
        with pytest.raises(RelocationError, match="does not fit"):
            stored("PC32", 2, 0, lookup=lookup)


def test_32_takes_unsigned_addresses_only():
    assert stored("32", 1, 0, base=0x10000, size=4)[0] == 0x10000 - 0x1000 + 0x3020
    with pytest.raises(RelocationError, match="does not fit"):
        stored("32", 1, 0)
    with pytest.raises(RelocationError, match="does not fit"):
        stored("32", 3, -1)


@pytest.mark.parametrize("kind", ["COPY", "DTPMOD64", "DTPOFF64", "TPOFF64", "TLSDESC", "IRELATIVE"])
def test_kinds_without_meaning_in_a_kernel_are_refused(kind):
    with pytest.raises(RelocationError, match=kind) as caught:
        stored(kind)
    assert caught.value.check == "module.relocation"


def test_a_symbol_of_thread_storage_is_refused():
    with pytest.raises(RelocationError, match="tls"):
        stored("64", 5)


def test_a_relocation_outside_every_segment_is_refused():
    for offset in (0x2000, 0x300C, 0x3010 + 0x2000 - 7):
        with pytest.raises(RelocationError, match="no segment"):
            stored("RELATIVE", offset=offset)


def test_a_relocation_in_zero_initialised_memory_makes_it_real():
    made = relocate(image(Relocation(offset=0x4000, kind="RELATIVE", symbol=0, addend=0)), BASE, find)
    assert len(made.segments[1].data) == 0x1008
    assert int.from_bytes(made.segments[1].data[0x1000:], "little") == BASE - 0x1000
    assert made.segments[1].size_bytes == 0x10 + 0x2000


def test_a_segment_that_begins_inside_a_page_is_mapped_from_the_page_with_zeros_before_it():
    made = relocate(image(), BASE, find)
    assert [segment.base for segment in made.segments] == [BASE, BASE + 0x2000]
    assert made.segments[1].data == bytes(16) + b"\xaa" * 64
    assert [segment.rights for segment in made.segments] == [Rights(execute=True), Rights(write=True)]
    assert made.entry == BASE + 4


def test_exports_are_the_global_symbols_at_their_new_addresses():
    made = relocate(image(), BASE, find)
    assert made.exports["own"] == BASE - 0x1000 + 0x3020
    assert "hidden" not in made.exports
    assert "far" not in made.exports


def test_providers_and_unresolved_symbols_are_listed_once():
    places = (0x3018, 0x3020, 0x3028, 0x3030)
    relocations = [
        Relocation(offset=place, kind="GLOB_DAT", symbol=symbol, addend=0)
        for place, symbol in zip(places, (2, 2, 3, 3), strict=True)
    ]
    made = relocate(image(*relocations), BASE, find)
    assert made.providers == ("vmkernel",)
    assert made.unresolved == ("lost",)


def test_segments_of_one_kind_are_numbered():
    more = [
        Segment(
            virtual_address=0x10000 + 0x1000 * number,
            memory_bytes=1,
            data=b"",
            file_offset=0,
            readable=True,
            writable=False,
            executable=False,
        )
        for number in range(2)
    ]
    made = relocate(image(segments=(CODE, DATA, *more), entry=0), BASE, find)
    assert [segment.name for segment in made.segments] == ["text", "data", "rodata", "rodata.2"]
    assert made.entry == 0
