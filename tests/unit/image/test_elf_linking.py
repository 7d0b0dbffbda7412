"""What a dynamic linker reads: libraries, versions, hash tables, RELRO, thread storage; pyelftools and readelf as peers."""

import re
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf import Export, ModuleSpec, build_module, read_elf
from sim.image.elf_hash import SYMBOLS_MAX, GnuHash, SysvHash, gnu_hash, sysv_hash
from sim.image.elf_versions import VERSIONS_MAX, VersionReader

CANDIDATES = (
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libm.so.6",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/x86_64-linux-gnu/libz.so.1",
    "/usr/lib64/libc.so.6",
    "/bin/cat",
    "/usr/bin/python3",
)
NAMES = ("alpha", "beta", "gamma", "delta", "alpha2", "beta_of_gamma")


PRESENT = [path for path in CANDIDATES if sys.platform == "linux" and Path(path).is_file()]


@pytest.fixture(scope="module", params=PRESENT or ["no library"])
def real(request):
    path = Path(request.param)
    if not PRESENT or path.read_bytes()[18:20] != b"\x3e\0":
        pytest.skip("no x86-64 programs and libraries here")
    data = path.read_bytes()
    return path, read_elf(data), ELFFile(BytesIO(data))


def test_type_interpreter_libraries_and_name_are_those_of_the_peer(real):
    _, image, peer = real
    dynamic = next(segment for segment in peer.iter_segments() if isinstance(segment, DynamicSegment))
    tags = list(dynamic.iter_tags())
    assert image.type == peer["e_type"]
    assert list(image.linking.needed) == [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
    assert image.linking.soname == "".join(tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME")
    interpreters = [each.get_interp_name() for each in peer.iter_segments("PT_INTERP")]
    assert image.linking.interpreter == "".join(interpreters)


def test_relro_and_thread_storage_are_those_of_the_peer(real):
    _, image, peer = real
    relro = [(one["p_vaddr"], one["p_vaddr"] + one["p_memsz"]) for one in peer.iter_segments("PT_GNU_RELRO")]
    assert [image.linking.relro] == (relro or [None])
    threads = [
        (one["p_vaddr"], one["p_filesz"], one["p_memsz"], one["p_align"])
        for one in peer.iter_segments("PT_TLS")
    ]
    ours = image.linking.thread_storage
    assert threads == (
        [] if ours is None else [(ours.virtual_address, ours.file_bytes, ours.memory_bytes, ours.alignment)]
    )


def test_symbol_versions_are_those_of_the_peer(real):
    _, image, peer = real
    sections = list(peer.iter_sections())
    names = {}
    for section in sections:
        if isinstance(section, GNUVerDefSection):
            for definition, parts in section.iter_versions():
                names[definition["vd_ndx"]] = "" if definition["vd_flags"] & 1 else next(iter(parts)).name
        if isinstance(section, GNUVerNeedSection):
            for _, parts in section.iter_versions():
                names |= {part["vna_other"]: part.name for part in parts}
    numbers = next(section for section in sections if isinstance(section, GNUVerSymSection))
    theirs = []
    for number in range(numbers.num_symbols()):
        ndx = numbers.get_symbol(number)["ndx"]
        value = {"VER_NDX_LOCAL": 0, "VER_NDX_GLOBAL": 1}.get(ndx, ndx)
        theirs.append((names.get(value & 0x7FFF, ""), bool(value & 0x8000)))
    assert [(one.version, one.version_hidden) for one in image.symbols] == theirs
    wanted = [
        (need.name, part.name)
        for section in sections
        if isinstance(section, GNUVerNeedSection)
        for need, parts in section.iter_versions()
        for part in parts
    ]
    assert [(need.library, need.version) for need in image.linking.version_needs] == wanted


def test_each_definition_is_found_through_the_files_own_hash_table(real):
    _, image, _ = real
    looked_up = 0
    for number, symbol in enumerate(image.symbols):
        if symbol.defined and symbol.name and symbol.binding != "local":
            assert number in list(image.linking.hash_table.candidates(symbol.name))
            looked_up += 1
    assert looked_up or image.type != "ET_DYN" or image.linking.interpreter
    assert not [
        n
        for n in image.linking.hash_table.candidates("no_such_name_here")
        if image.symbols[n].name == "no_such_name_here"
    ]


@pytest.mark.client
def test_readelf_counts_the_same_relocations_of_each_type(real, program):
    path, image, _ = real
    command = [program("readelf"), "-rW", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs, ours = {}, {}
    for name in re.findall(r"R_X86_64_(\w+)", text):
        theirs[name[:9]] = theirs.get(name[:9], 0) + 1
    for relocation in image.relocations:
        ours[relocation.kind[:9]] = ours.get(relocation.kind[:9], 0) + 1
    packed = sum(map(int, re.findall(r"(\d+) offsets", text)))
    ours["RELATIVE"] = ours.get("RELATIVE", 0) - packed
    assert {name: count for name, count in ours.items() if count} == theirs


# ---------------------------------------------------------------- hash tables


@pytest.mark.parametrize(
    ("name", "sysv", "gnu"),
    [
        ("", 0, 0x1505),
        ("printf", 0x077905A6, 0x156B2BB8),
        ("exit", 0x0006CF04, 0x7C967E3F),
        ("syscall", 0x0B09985C, 0xBAC212A0),
    ],
)
def test_hashes_are_the_published_ones(name, sysv, gnu):
    assert (sysv_hash(name), gnu_hash(name)) == (sysv, gnu)


def gnu_table(names, buckets=3, first=1):
    """A GNU table over `names`, which are sorted by bucket as the format demands."""
    ordered = sorted(names, key=lambda name: gnu_hash(name) % buckets)
    heads, chain, bloom = [0] * buckets, [], 0
    for index, name in enumerate(ordered):
        value = gnu_hash(name)
        bloom |= 1 << value % 64 | 1 << (value >> 6) % 64
        bucket = value % buckets
        heads[bucket] = heads[bucket] or first + index
        last = index + 1 == len(ordered) or gnu_hash(ordered[index + 1]) % buckets != bucket
        chain.append(value & ~1 | last)
    data = struct.pack("<IIIIQ", buckets, first, 1, 6, bloom) + struct.pack(f"<{buckets}I", *heads)
    return ordered, data + struct.pack(f"<{len(chain)}I", *chain)


def test_a_gnu_table_finds_each_name_and_knows_how_many_there_are():
    ordered, data = gnu_table(NAMES, first=4)
    table = GnuHash(data)
    assert table.count == 4 + len(NAMES)
    for index, name in enumerate(ordered):
        assert list(table.candidates(name)) == [4 + index]
    assert list(table.candidates("omega")) == []


def test_a_system_v_table_finds_each_name():
    chain = [0, 0, 1, 2, 3, 4, 5]
    table = SysvHash(struct.pack("<II", 1, 7) + struct.pack("<I7I", 6, *chain))
    assert list(table.candidates("anything")) == [6, 5, 4, 3, 2, 1]


def test_chains_that_run_in_circles_or_outside_end():
    circle = SysvHash(struct.pack("<II", 1, 3) + struct.pack("<4I", 1, 0, 2, 1))
    assert len(list(circle.candidates("x"))) == 3
    outside = SysvHash(struct.pack("<II", 1, 3) + struct.pack("<4I", 99, 0, 0, 0))
    assert list(outside.candidates("x")) == []
    assert list(SysvHash(struct.pack("<II", 0, 0)).candidates("x")) == []


@pytest.mark.parametrize(
    "table",
    [
        b"",
        struct.pack("<IIII", 1, 1, 1, 6),
        struct.pack("<IIII", 0, 1, 1, 6) + bytes(64),
        struct.pack("<IIII", 1, 1, 3, 6) + bytes(64),
        struct.pack("<IIIIQI", 1, 1, 1, 6, 0, 1) + bytes(16),
        struct.pack("<IIII", SYMBOLS_MAX + 1, 1, 1, 6) + bytes(64),
    ],
)
def test_gnu_tables_that_lie_are_refused(table):
    with pytest.raises(FormatError):
        GnuHash(table)


def test_system_v_tables_that_lie_are_refused():
    for table in (b"", struct.pack("<II", 5, 5), struct.pack("<II", SYMBOLS_MAX + 1, 1)):
        with pytest.raises(FormatError):
            SysvHash(table)


# ---------------------------------------------------------------- versions


def reader(memory):
    def read(address, size):
        if address + size > len(memory):
            raise FormatError("ELF", "symbol versions", "outside")
        return memory[address : address + size]

    return VersionReader(read, lambda offset: f"name{offset}")


def test_version_lists_that_never_end_are_limited():
    need = struct.pack("<HHIII", 1, 1, 5, 16, 0) + struct.pack("<IHHII", 0, 0, 2, 9, 0)
    sound = reader(need)
    sound.needed(0, 1)
    assert [(one.library, one.version) for one in sound.needs] == [("name5", "name9")]
    with pytest.raises(LimitError):
        reader(need).needed(0, VERSIONS_MAX + 1)
    endless = struct.pack("<HHIII", 1, 2000, 5, 0, 16) * (VERSIONS_MAX + 1)
    with pytest.raises((LimitError, FormatError)):
        reader(endless).needed(0, VERSIONS_MAX)


def test_versions_of_another_kind_are_refused():
    with pytest.raises(FormatError, match="another kind"):
        reader(struct.pack("<HHIII", 2, 1, 5, 16, 0)).needed(0, 1)
    with pytest.raises(FormatError, match="another kind"):
        reader(struct.pack("<HHHHIII", 1, 0, 2, 0, 0, 20, 0)).definitions(0, 1)


# ---------------------------------------------------------------- what is built


def test_a_built_program_names_its_libraries():
    spec = ModuleSpec(
        name="agent", version="1", needed=("libc.so.6", "libm.so.6"), exports=(Export(name="_start"),)
    )
    image = read_elf(build_module(spec))
    assert image.linking.needed == ("libc.so.6", "libm.so.6")
    assert image.linking.soname == "agent"
    assert (
        read_elf(build_module(ModuleSpec(name="libc", version="1", soname="libc.so.6"))).linking.soname
        == "libc.so.6"
    )


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (f.PT_GNU_RELRO, (4, 0, 0, 0, 8, 8, 1), "relro: expected one range in a writable segment"),
        (f.PT_GNU_RELRO, (4, 0, 0x2000, 0x2000, 8, 0x9000, 1), "relro: the range goes beyond its segment"),
        (f.PT_TLS, (4, 0, 0, 0, 16, 8, 8), "thread storage: expected one block of at most 1048576 bytes"),
        (
            f.PT_TLS,
            (4, 0, 0, 0, 8, 1 << 40, 8),
            "thread storage: expected one block of at most 1048576 bytes",
        ),
        (f.PT_TLS, (4, 0, 0, 0, 8, 8, 3), "thread storage: expected an alignment of at most a page"),
        (f.PT_TLS, (4, 0, 0, 0, 8, 8, 8192), "thread storage: expected an alignment of at most a page"),
        (f.PT_INTERP, (4, 0, 0, 0, 9999, 9999, 1), "interpreter: expected one path of 1 to 4095 characters"),
        (f.PT_INTERP, (4, 0, 0, 0, 1, 1, 1), "interpreter: expected one path of 1 to 4095 characters"),
        (f.PT_INTERP, (4, 0, 0, 0, 20, 20, 1), "interpreter: expected ASCII text with one NUL at its end"),
    ],
)
def test_headers_that_a_linker_would_follow_into_nothing_are_refused(kind, fields, words):
    data = bytearray(build_module(ModuleSpec(name="m", version="1", data=bytes(64))))
    row = 64 + 56 * 4
    f.PROGRAM_HEADER.pack_into(data, row, kind, *fields)
    with pytest.raises(FormatError) as caught:
        read_elf(bytes(data))
    assert str(caught.value) == f"ELF: {words}"
