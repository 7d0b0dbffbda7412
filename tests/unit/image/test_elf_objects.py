"""Relocatable objects: what we build is real, what is read is what others read, and what must not be placed is refused."""

import struct
import subprocess
from io import BytesIO

import attrs
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf import Export, ModuleSpec, Pointer, build_object, read_module, read_object
from sim.image.elf_file import MEMORY_BYTES_MAX

SPEC = ModuleSpec(
    name="driver",
    version="1.0",
    license="BSD",
    provider="Maker",
    text=b"\x31\xc0\xc3" * 20,
    rodata=b"constant\0",
    data=bytes(range(40)),
    bss_bytes=100,
    exports=(
        Export(name="init_module", size_bytes=3),
        Export(name="state", area="data", offset=8, size_bytes=8),
        Export(name="zeros", area="data", offset=48),
    ),
    imports=("vmk_Alloc", "vmk_Log"),
    pointers=(Pointer(offset=0, area="rodata", target=2), Pointer(offset=16, area="data", target=50)),
    version_record=b"V\0",
)
OBJECT = build_object(SPEC)
TEXT, RODATA, DATA, BSS, TABLE, MODINFO, VERSION, RELA_DATA, RELA_TABLE, SYMTAB, STRTAB = range(1, 12)
NAME, KIND, FLAGS, ADDRESS, OFFSET, SIZE, LINK, INFO, ALIGN, ENTRY = (0, 4, 8, 16, 24, 32, 40, 44, 48, 56)


def row(section, field, data=OBJECT):
    """The file offset of a field of a section header."""
    return struct.unpack_from("<Q", data, 40)[0] + 64 * section + field


def content(section):
    return struct.unpack_from("<Q", OBJECT, row(section, OFFSET))[0]


def patched(at, layout, *values, data=OBJECT):
    changed = bytearray(data)
    struct.pack_into("<" + layout, changed, at, *values)
    assert changed != data
    return bytes(changed)


def refusal(data):
    with pytest.raises(FormatError) as caught:
        read_object(data)
    return caught.value


def test_a_built_object_reads_back_as_it_was_asked_for():
    module = read_object(OBJECT)
    assert read_module(OBJECT) == module
    sections = {section.name: section for section in module.sections}
    assert sections[".text"].data == SPEC.text
    assert (sections[".text"].executable, sections[".text"].writable) == (True, False)
    assert sections[".rodata"].data == SPEC.rodata
    assert sections[".data"].data == SPEC.data
    assert (sections[".bss"].size_bytes, sections[".bss"].data) == (100, b"")
    assert module.imports == ("vmk_Alloc", "vmk_Log")
    assert [symbol.name for symbol in module.exports] == ["init_module", "state", "zeros"]
    assert module.info("provider") == "Maker"
    assert module.version_record == b"V\0"
    assert not module.has_thread_storage
    constant = [one.name for one in module.sections if one.read_only_after_relocation]
    assert constant == [".text", ".rodata", ".data.rel.ro", ".modinfo", ".version"]


def test_pyelftools_reads_the_same_sections_symbols_and_relocations():
    peer, module = ELFFile(BytesIO(OBJECT)), read_object(OBJECT)
    assert peer["e_type"] == "ET_REL"
    loaded = [(n, one) for n, one in enumerate(peer.iter_sections()) if one["sh_flags"] & 2]
    assert [(n, one.name, one["sh_size"], one["sh_addralign"]) for n, one in loaded] == [
        (one.index, one.name, one.size_bytes, one.alignment) for one in module.sections
    ]
    symbols = list(peer.get_section_by_name(".symtab").iter_symbols())
    assert [(one["st_value"], one["st_size"]) for one in symbols] == [
        (one.value, one.size_bytes) for one in module.symbols
    ]
    assert [one.name for one in symbols if one["st_info"]["type"] != "STT_SECTION"] == [
        one.name for one in module.symbols if one.kind != "section"
    ]
    for section in module.sections:
        theirs = peer.get_section_by_name(f".rela{section.name}")
        assert [(one.offset, one.symbol, one.addend) for one in section.relocations] == [
            (one["r_offset"], one["r_info_sym"], one["r_addend"])
            for one in (theirs.iter_relocations() if theirs else ())
        ]


@pytest.mark.client
def test_readelf_has_nothing_to_complain_about_and_ld_takes_it(program, tmp_path):
    path = tmp_path / "driver.o"
    path.write_bytes(OBJECT)
    done = subprocess.run([program("readelf"), "-Wa", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Warning" not in done.stdout
    linked = tmp_path / "linked.o"
    subprocess.run([program("ld"), "-r", "-o", str(linked), str(path)], check=True)
    again = read_object(linked.read_bytes())
    assert [one.data for one in again.sections if one.name == ".text"] == [SPEC.text]
    assert {one.name for one in again.exports} == {"init_module", "state", "zeros"}


@pytest.mark.client
def test_an_object_of_gcc_is_read_as_pyelftools_reads_it(program, tmp_path):
    source, path = tmp_path / "a.c", tmp_path / "a.o"
    source.write_text(
        "extern int far; int common; static int s[3] = {1}; int *f(int n) { return n ? s : &far; }"
    )
    subprocess.run(
        [program("gcc"), "-c", "-g", "-fcommon", "-fPIC", "-o", str(path), str(source)], check=True
    )
    peer, module = ELFFile(BytesIO(path.read_bytes())), read_object(path.read_bytes())
    loaded = [one for one in peer.iter_sections() if one["sh_flags"] & 2]
    assert [one.name for one in loaded] == [one.name for one in module.sections]
    symbols = list(peer.get_section_by_name(".symtab").iter_symbols())
    places = {"SHN_UNDEF": 0, "SHN_ABS": f.SHN_ABS, "SHN_COMMON": f.SHN_COMMON}
    assert [places.get(one["st_shndx"], one["st_shndx"]) for one in symbols] == [
        one.section for one in module.symbols
    ]
    assert any(one.section == f.SHN_COMMON for one in module.symbols)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("header: expected ET_REL for x86-64, found type 3, machine 62", patched(16, "H", f.ET_DYN)),
        ("header: expected ET_REL for x86-64, found type 1, machine 183", patched(18, "H", 183)),
        ("header: expected an ELF file of 64 bits, little-endian, version 1", patched(4, "B", 1)),
        ("section 1: both writable and executable", patched(row(TEXT, FLAGS), "Q", 7)),
        (
            "section 2: is compressed, and goes into memory",
            patched(row(RODATA, FLAGS), "Q", 2 | f.SHF_COMPRESSED),
        ),
        (
            "section 3: an alignment of 24, wanted a power of two up to a page",
            patched(row(DATA, ALIGN), "Q", 24),
        ),
        (
            "section 3: an alignment of 8192, wanted a power of two up to a page",
            patched(row(DATA, ALIGN), "Q", 8192),
        ),
        (
            "section 1: 60 bytes at offset 0x10000000000 go beyond the file's end",
            patched(row(TEXT, OFFSET), "Q", 2**40),
        ),
        (
            "section 1: 100000 bytes at offset 0x40 go beyond the file's end",
            patched(row(TEXT, SIZE), "Q", 10**5),
        ),
        ("section 2: type 0x63 is not loaded", patched(row(RODATA, KIND), "I", 99)),
        ("sections: expected one symbol table, found 0", patched(row(SYMTAB, KIND), "I", f.SHT_STRTAB)),
        ("symbols: their names are in no string table", patched(row(SYMTAB, LINK), "I", TEXT)),
        ("symbols: entries of another size than ELF64 has", patched(row(SYMTAB, ENTRY), "Q", 16)),
        ("symbols: entries of another size than ELF64 has", patched(row(SYMTAB, SIZE), "Q", 25)),
        (
            "section 8: relocations without addend or of another symbol table",
            patched(row(RELA_DATA, KIND), "I", f.SHT_REL),
        ),
        (
            "section 8: relocations without addend or of another symbol table",
            patched(row(RELA_DATA, LINK), "I", STRTAB),
        ),
        ("section 8: relocations of a section that is not there", patched(row(RELA_DATA, INFO), "I", 77)),
        ("section 8: 25 bytes are no whole number of relocations", patched(row(RELA_DATA, SIZE), "Q", 25)),
        ("section 8: the relocation at 0x21 lies outside its section", patched(content(RELA_DATA), "Q", 33)),
        (
            "section 8: the relocation at 0x0 lies outside its section",
            patched(row(RELA_DATA, INFO), "I", BSS),
        ),
        ("section 8: relocation type 99 is not applied", patched(content(RELA_DATA) + 8, "I", 99)),
        ("section 8: relocation type 8 is not applied", patched(content(RELA_DATA) + 8, "I", 8)),
        (
            "section 8: a relocation names a symbol that is not there",
            patched(content(RELA_DATA) + 12, "I", 99),
        ),
        (
            "symbol names: no name of at most 16384 bytes at 0xf4240",
            patched(content(SYMTAB) + 24 * 5, "I", 10**6),
        ),
        ("symbols: a symbol of a section that is not there", patched(content(SYMTAB) + 24 * 5 + 6, "H", 50)),
        (
            "symbols: a symbol of a section that is not there",
            patched(content(SYMTAB) + 24 * 5 + 6, "H", struct.unpack_from("<H", OBJECT, 60)[0]),
        ),
        ("file: the file ends inside one of its tables", OBJECT[:40]),
        (
            "symbols: section number 0xffff has no meaning here",
            patched(content(SYMTAB) + 24 * 5 + 6, "H", 0xFFFF),
        ),
        (
            "symbols: a common symbol of alignment 3",
            patched(content(SYMTAB) + 24 * 5 + 6, "HQ", f.SHN_COMMON, 3),
        ),
        ("symbols: the value 0x3d lies outside its section", patched(content(SYMTAB) + 24 * 5 + 8, "Q", 61)),
        (".modinfo: expected key=value texts", patched(content(MODINFO) + 4, "B", 32)),
    ],
)
def test_an_object_that_must_not_be_placed_is_refused(text, data):
    assert str(refusal(data)) == f"ELF: {text}"


def test_sizes_above_the_limits_are_refused():
    for data in (
        patched(row(BSS, SIZE), "Q", MEMORY_BYTES_MAX + 1),
        patched(row(BSS, SIZE), "Q", MEMORY_BYTES_MAX - 10),
        patched(content(SYMTAB) + 24 * 5 + 6, "HQQ", f.SHN_COMMON, 8, 2**60),
        patched(row(SYMTAB, SIZE), "Q", 24 * 10**6),
    ):
        assert isinstance(refusal(data), LimitError)


def test_an_object_with_nothing_to_load_is_refused():
    data = bytearray(OBJECT)
    for section in range(1, 8):
        struct.pack_into("<Q", data, row(section, FLAGS), 0)
    assert str(refusal(bytes(data))) == "ELF: sections: there is no section to load"


def test_every_truncation_is_refused():
    for length in range(0, len(OBJECT), 13):
        refusal(OBJECT[:length])


def grouped(*signatures):
    """Make groups of `.version` and `.modinfo`, each alone, with the symbols that these signatures number."""
    members = (VERSION, MODINFO)
    data = bytearray(OBJECT)
    for spare, member, signature in zip((RELA_TABLE, RELA_DATA), members, signatures, strict=True):
        struct.pack_into("<II", data, content(spare), f.GRP_COMDAT, member)
        struct.pack_into("<I", data, row(spare, KIND), f.SHT_GROUP)
        struct.pack_into("<QII", data, row(spare, SIZE), 8, SYMTAB, signature)
        struct.pack_into("<Q", data, row(spare, FLAGS), 0)
    return bytes(data)


def test_of_two_groups_with_one_signature_the_first_is_kept():
    names = [section.name for section in read_object(grouped(5, 6)).sections]
    assert {".version", ".modinfo"} <= {*names}
    names = [section.name for section in read_object(grouped(6, 6)).sections]
    assert ".modinfo" in names
    assert ".version" not in names


def test_a_symbol_of_a_dropped_group_binds_by_name():
    data = patched(content(SYMTAB) + 24 * 7 + 6, "HQ", VERSION, 0, data=grouped(6, 6))
    zeros = read_object(data).symbols[7]
    assert (zeros.name, zeros.defined) == ("zeros", False)


def test_groups_that_lie_are_refused():
    words = str(refusal(patched(content(RELA_TABLE) + 4, "I", 99, data=grouped(5, 6))))
    assert words == f"ELF: section {RELA_TABLE}: a group names a section that is not there"
    words = str(refusal(patched(row(RELA_TABLE, SIZE), "Q", 6, data=grouped(5, 6))))
    assert words == f"ELF: section {RELA_TABLE}: is no list of a group's sections"
    words = str(refusal(patched(row(RELA_TABLE, INFO), "I", 999, data=grouped(5, 6))))
    assert words == f"ELF: section {RELA_TABLE}: is no list of a group's sections"


def test_thread_storage_is_noted():
    assert read_object(patched(row(DATA, FLAGS), "Q", 3 | f.SHF_TLS)).has_thread_storage


@given(
    st.lists(st.tuples(st.integers(0, len(OBJECT) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_mutants_are_read_or_refused_and_never_writable_and_executable(changes, near):
    mutant = bytearray(OBJECT)
    headers = struct.unpack_from("<Q", OBJECT, 40)[0]
    for at, value in changes:
        mutant[headers + at % (len(OBJECT) - headers) if near else at] = value
    try:
        module = read_module(bytes(mutant))
    except FormatError:
        return
    if module.type != "ET_REL":
        return
    for section in module.sections:
        assert not (section.writable and section.executable)
        for one in section.relocations:
            assert one.offset + f.RELOCATION_BYTES[one.kind] <= section.size_bytes


def test_specs_that_cannot_be_are_not_built():
    with pytest.raises(ValueError):
        build_object(attrs.evolve(SPEC, imports=("init_module",)))
