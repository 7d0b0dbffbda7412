"""Each relocation of relocatable objects as the psABI defines it, the two tables, and what is refused."""

import attrs
import pytest

from sim.image import elf_format as f
from sim.image.elf import ElfObject, Relocation, Section, Symbol
from sim.kernel.object_layout import ObjectLayout
from sim.kernel.object_relocation import ObjectPlaces, Tables, relocate_object
from sim.kernel.segment_buffers import RelocationError

TEXT, DATA, CODE_ONLY = 1, 2, 3
BASES = {TEXT: 0x4180_6000_0000, DATA: 0x4180_7000_0000}
GOT, PLT, GOT_SYMBOL = 0x4180_6100_0000, 0x4180_6000_1000, 0x4180_6100_0800
FAR = 0x4180_0000_1234
PLACE = 0x40
P = BASES[DATA] + PLACE
S = BASES[DATA] + 0x20


def symbol(name, section=0, value=0, *, kind="object", binding="global", size=0):
    return Symbol(
        name=name,
        value=value,
        size_bytes=size,
        kind=kind,
        binding=binding,
        defined=section != 0,
        section=section,
    )


SYMBOLS = (
    symbol("", kind="none", binding="local"),
    symbol("own", DATA, 0x20, size=24),
    symbol("far"),
    symbol("lost"),
    symbol("perhaps", binding="weak"),
    symbol("threads", DATA, 0, kind="tls"),
    symbol("chosen", TEXT, 0, kind="ifunc"),
    symbol("fixed", f.SHN_ABS, 0x77),
    symbol("unloaded", 9, 0),
    symbol("_GLOBAL_OFFSET_TABLE_"),
    symbol("common", f.SHN_COMMON, 16, size=40),
    symbol("own"),
)
OWN, FAR_AWAY, LOST, PERHAPS, THREADS, CHOSEN, FIXED, UNLOADED, TABLE, COMMON, TWIN = range(1, 12)


def module(*relocations, where=DATA):
    texts = relocations if where == TEXT else ()
    datas = relocations if where == DATA else ()
    return ElfObject(
        type="ET_REL",
        machine="EM_X86_64",
        sections=(
            section(TEXT, ".text", texts, executable=True),
            section(DATA, ".data", datas, writable=True),
        ),
        symbols=SYMBOLS,
        modinfo=(),
        version_record=b"",
        has_thread_storage=False,
    )


def section(index, name, relocations, *, writable=False, executable=False):
    return Section(
        index=index,
        name=name,
        kind=f.SHT_PROGBITS,
        writable=writable,
        executable=executable,
        alignment=16,
        size_bytes=0x80,
        data=b"\xaa" * 0x80,
        relocations=tuple(relocations),
    )


def find(name):
    return ("vmkernel", FAR) if name == "far" else None


def relocated(kind, number=OWN, addend=0, *, lookup=find, strict=True, bases=BASES):
    one = Relocation(offset=PLACE, kind=kind, symbol=number, addend=addend)
    places = ObjectPlaces(sections=bases, commons={COMMON: 0x5000}, got=GOT, plt=PLT, got_symbol=GOT_SYMBOL)
    return relocate_object(module(one), places, lookup, strict=strict)


def stored(kind, number=OWN, addend=0, **options):
    size = f.RELOCATION_BYTES[kind]
    data = relocated(kind, number, addend, **options).sections[DATA]
    assert data[:PLACE] == b"\xaa" * PLACE
    assert data[PLACE + size :] == b"\xaa" * (0x80 - PLACE - size)
    return int.from_bytes(data[PLACE : PLACE + size], "little")


def low(value, size):
    return value & ((1 << 8 * size) - 1)


@pytest.mark.parametrize(
    ("kind", "number", "addend", "wanted"),
    [
        ("64", OWN, 4, S + 4),
        ("64", FAR_AWAY, -1, FAR - 1),
        ("64", FIXED, 1, 0x78),
        ("64", COMMON, 2, 0x5002),
        ("64", TWIN, 0, S),
        ("64", TABLE, 0, GOT_SYMBOL),
        ("PC64", OWN, 8, S + 8 - P),
        ("PC32", FAR_AWAY, -4, FAR - 4 - P),
        ("PLT32", FAR_AWAY, -4, FAR - 4 - P),
        ("32", FIXED, 0, 0x77),
        ("32S", FIXED, -0x80, -9),
        ("16", FIXED, 0, 0x77),
        ("8", FIXED, 8, 0x7F),
        ("PC16", OWN, 0, -0x20),
        ("PC8", OWN, 1, -0x1F),
        ("GOTPCREL", FAR_AWAY, -4, GOT - 4 - P),
        ("GOTPCRELX", FAR_AWAY, -4, GOT - 4 - P),
        ("REX_GOTPCRELX", OWN, -4, GOT - 4 - P),
        ("GOTPCREL64", OWN, 0, GOT - P),
        ("GOT64", OWN, 3, GOT - GOT_SYMBOL + 3),
        ("GOT32", OWN, 0, GOT - GOT_SYMBOL),
        ("GOTPLT64", OWN, 0, GOT - GOT_SYMBOL),
        ("GOTOFF64", OWN, 0, S - GOT_SYMBOL),
        ("PLTOFF64", FAR_AWAY, 0, FAR - GOT_SYMBOL),
        ("GOTPC32", TABLE, 0, GOT_SYMBOL - P),
        ("GOTPC64", TABLE, 2, GOT_SYMBOL + 2 - P),
        ("SIZE32", OWN, 1, 25),
        ("SIZE64", OWN, 0, 24),
    ],
)
def test_each_kind_stores_what_the_psabi_says(kind, number, addend, wanted):
    assert stored(kind, number, addend) == low(wanted, f.RELOCATION_BYTES[kind])


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("32", 2**32 - 1, True),
        ("32", 2**32, False),
        ("32", -1, False),
        ("32S", 2**31 - 1, True),
        ("32S", 2**31, False),
        ("32S", -(2**31), True),
        ("32S", -(2**31) - 1, False),
        ("16", 2**16 - 1, True),
        ("16", 2**16, False),
        ("16", -(2**15), True),
        ("16", -(2**15) - 1, False),
        ("8", 255, True),
        ("8", 256, False),
        ("8", -128, True),
        ("8", -129, False),
        ("SIZE32", 2**32 - 24, False),
    ],
)
def test_a_value_beyond_its_field_is_refused(kind, value, fits):
    number = OWN if kind == "SIZE32" else FIXED
    addend = value if kind == "SIZE32" else value - 0x77
    if fits:
        assert stored(kind, number, addend) == low(value, f.RELOCATION_BYTES[kind])
    else:
        with pytest.raises(RelocationError, match="does not fit"):
            stored(kind, number, addend)


@pytest.mark.parametrize(("kind", "bits"), [("PC32", 32), ("PC16", 16), ("PC8", 8)])
def test_distances_are_signed(kind, bits):
    for distance, fits in ((2 ** (bits - 1) - 1, True), (2 ** (bits - 1), False), (-(2 ** (bits - 1)), True)):
        addend = distance + P - S
        if fits:
            assert stored(kind, OWN, addend) == low(distance, bits // 8)
        else:
            with pytest.raises(RelocationError, match="does not fit"):
                stored(kind, OWN, addend)


def test_a_got_slot_holds_the_address_and_is_shared_by_all_references():
    relocations = [
        Relocation(offset=at, kind="GOTPCREL", symbol=number, addend=-4)
        for at, number in ((0, FAR_AWAY), (8, OWN), (16, FAR_AWAY))
    ]
    one = module(*relocations)
    assert Tables.of(one) == Tables(slots=(FAR_AWAY, OWN), entries=())
    made = relocate_object(one, ObjectPlaces(sections=BASES, commons={COMMON: 0x5000}, got=GOT), find)
    assert made.got == FAR.to_bytes(8, "little") + S.to_bytes(8, "little")
    assert made.plt == b""
    assert made.providers == ("vmkernel",)


def test_a_call_that_does_not_reach_goes_through_the_linkage_table():
    distant = 0x7000_0000_0000
    made = relocated("PLT32", FAR_AWAY, -4, lookup=lambda _: ("vmkernel", distant))
    displacement = int.from_bytes(made.sections[DATA][PLACE : PLACE + 4], "little", signed=True)
    assert P + 4 + displacement == PLT
    assert made.plt[:2] == b"\xff\x25"
    slot = PLT + 6 + int.from_bytes(made.plt[2:6], "little", signed=True)
    assert slot == GOT
    assert int.from_bytes(made.got, "little") == distant
    with pytest.raises(RelocationError, match="does not fit"):
        relocated("PC32", FAR_AWAY, -4, lookup=lambda _: ("vmkernel", distant))


def test_a_symbol_that_nobody_defines_is_refused_unless_it_is_weak():
    with pytest.raises(RelocationError, match="nobody defines lost") as caught:
        relocated("64", LOST)
    assert caught.value.check == "module.unresolved"
    loose = relocated("64", LOST, strict=False)
    assert loose.unresolved == ("lost",)
    assert stored("64", PERHAPS) == 0
    called = relocated("PLT32", PERHAPS, -4)
    assert called.unresolved == ("perhaps",)
    assert called.got == bytes(8)


def test_a_hostile_name_stays_on_one_line_of_the_message():
    one = Relocation(offset=0, kind="64", symbol=1, addend=0)
    hostile = attrs.evolve(module(one), symbols=(SYMBOLS[0], symbol("x\ny" * 900)))
    with pytest.raises(RelocationError) as caught:
        relocate_object(hostile, ObjectPlaces(sections=BASES), find)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", ["TLSGD", "TLSLD", "GOTTPOFF", "TPOFF32", "DTPOFF32", "DTPMOD64", "TPOFF64"])
def test_thread_relocations_are_refused(kind):
    with pytest.raises(RelocationError, match=kind):
        relocated(kind)


def test_symbols_that_have_no_address_in_a_kernel_are_refused():
    for number, text in ((THREADS, "tls"), (CHOSEN, "ifunc"), (UNLOADED, "not loaded")):
        with pytest.raises(RelocationError, match=text):
            relocated("64", number)


def test_parts_are_stacked_by_area_with_their_alignment():
    parts = [
        ("b", f.SHT_NOBITS, True, False, 64, 10),
        ("a", f.SHT_PROGBITS, True, False, 8, 3),
        (".data.rel.ro.x", f.SHT_PROGBITS, True, False, 16, 5),
        ("c", f.SHT_PROGBITS, False, False, 1, 1),
        (".init_array", f.SHT_INIT_ARRAY, True, False, 8, 8),
        ("t", f.SHT_PROGBITS, False, True, 16, 100),
        ("u", f.SHT_PROGBITS, False, True, 32, 4),
    ]
    sections = tuple(
        Section(
            index=number,
            name=name,
            kind=kind,
            writable=writable,
            executable=executable,
            alignment=alignment,
            size_bytes=size,
            data=b"" if kind == f.SHT_NOBITS else bytes([number]) * size,
        )
        for number, (name, kind, writable, executable, alignment, size) in enumerate(parts, 1)
    )
    one = ElfObject(
        type="ET_REL",
        machine="EM_X86_64",
        sections=sections,
        symbols=(SYMBOLS[0], SYMBOLS[COMMON]),
        modinfo=(),
        version_record=b"",
        has_thread_storage=False,
    )
    layout = ObjectLayout(one)
    areas = {area.name: area for area in layout.areas}
    assert {name: dict(area.sections) for name, area in areas.items()} == {
        "text": {6: 0, 7: 128},
        "rodata": {3: 0, 4: 5, 5: 8},
        "data": {2: 0, 1: 64},
    }
    assert dict(areas["data"].commons) == {1: 80}
    assert areas["data"].size_bytes == 120
    bases = {"text": 0x1000, "rodata": 0x2000, "data": 0x3000}
    places = layout.places(bases)
    made = relocate_object(one, places, find, tables=layout.tables)
    segments = {segment.name: segment for segment in layout.segments(bases, made)}
    assert segments["text"].data == b"\6" * 100 + bytes(28) + b"\7" * 4
    assert segments["rodata"].data == b"\3" * 5 + b"\4" + bytes(2) + b"\5" * 8
    assert segments["data"].data == b"\2" * 3
    assert [str(segments[name].rights) for name in ("text", "rodata", "data")] == ["r-x", "r--", "rw-"]


def test_the_tables_lie_behind_code_and_constants():
    one = module(
        Relocation(offset=0, kind="PLT32", symbol=FAR_AWAY, addend=-4),
        Relocation(offset=8, kind="GOTPCREL", symbol=OWN, addend=-4),
        where=TEXT,
    )
    layout = ObjectLayout(one)
    areas = {area.name: area for area in layout.areas}
    assert (areas["text"].table, areas["text"].size_bytes) == (0x80, 0x88)
    assert (areas["rodata"].table, areas["rodata"].size_bytes) == (0, 16)
    bases = {"text": BASES[TEXT], "rodata": GOT, "data": BASES[DATA]}
    places = layout.places(bases)
    made = relocate_object(one, places, find, tables=layout.tables)
    segments = {segment.name: segment for segment in layout.segments(bases, made)}
    assert segments["text"].data[0x80:0x82] == b"\xff\x25"
    assert segments["rodata"].data == S.to_bytes(8, "little") + FAR.to_bytes(8, "little")
