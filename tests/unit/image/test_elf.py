"""Modules that we build are real ELF, and real ELF files are read."""

import ctypes
import gc
import pickle
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import attrs
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from sim.image.elf import Export, ModuleSpec, Pointer, build_module, read_elf

ANSWER = bytes.fromhex("b82a000000c3")  # mov eax, 42; ret
DRIVER = ModuleSpec(
    name="nmlx5_core",
    version="4.23.0.36-8vmw",
    license="BSD",
    provider="Mellanox",
    text=ANSWER + bytes(10) + bytes.fromhex("31c0c3"),
    rodata=b"constant\0",
    data=bytes(24),
    bss_bytes=5000,
    exports=(
        Export(name="answer", size_bytes=6),
        Export(name="init_module", offset=16, size_bytes=3),
        Export(name="pointers", area="data", size_bytes=24),
    ),
    pointers=(
        Pointer(offset=0, area="rodata"),
        Pointer(offset=8, area="text", target=16),
        Pointer(offset=16, area="data", target=16),
    ),
)
IMPORTING = attrs.evolve(DRIVER, imports=("vmk_Alloc", "vmk_Free"), version_record=b"VMKSIM 8.0.3\0")


def test_a_built_module_reads_back_as_it_was_asked_for() -> None:
    image = read_elf(build_module(IMPORTING))
    assert (image.type, image.machine) == ("ET_DYN", "EM_X86_64")
    assert [segment.rights for segment in image.segments] == ["r--", "r-x", "rw-"]
    constants, code, data = image.segments
    assert code.data == IMPORTING.text
    assert constants.data.endswith(IMPORTING.rodata)
    assert data.memory_bytes - len(data.data) == IMPORTING.bss_bytes
    assert image.entry == code.virtual_address + 16
    assert {symbol.name: symbol.kind for symbol in image.exports} == {
        "answer": "function",
        "init_module": "function",
        "pointers": "object",
    }
    assert image.imports == ("vmk_Alloc", "vmk_Free")
    assert image.modinfo == (
        ("name", "nmlx5_core"),
        ("version", "4.23.0.36-8vmw"),
        ("license", "BSD"),
        ("provider", "Mellanox"),
    )
    assert image.info("license") == "BSD"
    assert image.info("absent") == ""
    assert image.version_record == b"VMKSIM 8.0.3\0"
    assert not image.has_thread_storage


def test_relocations_say_what_goes_where() -> None:
    image = read_elf(build_module(IMPORTING))
    constants, code, data = image.segments
    relative = [(one.offset, one.addend) for one in image.relocations if one.kind == "RELATIVE"]
    at = data.virtual_address + len(data.data) - 24
    assert relative == [
        (at, constants.virtual_address + len(constants.data) - len(IMPORTING.rodata)),
        (at + 8, code.virtual_address + 16),
        (at + 16, at + 16),
    ]
    named = [image.symbols[one.symbol].name for one in image.relocations if one.kind == "GLOB_DAT"]
    assert named == ["vmk_Alloc", "vmk_Free"]


def test_building_twice_gives_the_same_bytes_and_images_pickle() -> None:
    assert build_module(DRIVER) == build_module(DRIVER)
    image = read_elf(build_module(DRIVER))
    assert pickle.loads(pickle.dumps(image)) == image


def test_reading_leaves_nothing_behind_that_only_the_garbage_collector_finds() -> None:
    data = build_module(IMPORTING)
    gc.collect()
    gc.disable()
    try:
        assert read_elf(data).symbols
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_whole_module_spans_its_segments_in_pages() -> None:
    image = read_elf(build_module(DRIVER))
    assert image.memory_bytes % 4096 == 0
    assert image.memory_bytes >= image.segments[-1].end


def test_pyelftools_reads_what_we_build() -> None:
    peer = ELFFile(BytesIO(build_module(IMPORTING)))
    assert peer["e_type"] == "ET_DYN"
    names = {section.name for section in peer.iter_sections()}
    assert {
        ".text",
        ".rodata",
        ".data",
        ".bss",
        ".dynsym",
        ".rela.dyn",
        ".modinfo",
        ".version",
        ".dynamic",
    } <= names
    assert (
        peer.get_section_by_name(".modinfo").data()
        == b"name=nmlx5_core\0version=4.23.0.36-8vmw\0license=BSD\0provider=Mellanox\0"
    )
    symbols = {symbol.name: symbol for symbol in peer.get_section_by_name(".dynsym").iter_symbols()}
    assert symbols["answer"]["st_value"] == peer.get_section_by_name(".text")["sh_addr"]
    assert symbols["vmk_Free"]["st_shndx"] == "SHN_UNDEF"
    dynamic = peer.get_section_by_name(".dynamic")
    assert dynamic.num_tags() == 10
    flags = [segment["p_flags"] for segment in peer.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert flags == [4, 5, 6]


def test_pyelftools_and_our_reader_agree_on_a_real_file() -> None:
    data = Path(real_modules()[0]).read_bytes()
    peer, ours = ELFFile(BytesIO(data)), read_elf(data)
    loads = [segment for segment in peer.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert [(one["p_vaddr"], one["p_memsz"], one.data()) for one in loads] == [
        (segment.virtual_address, segment.memory_bytes, segment.data) for segment in ours.segments
    ]
    symbols = [
        (one.name, one["st_value"], one["st_size"])
        for one in peer.get_section_by_name(".dynsym").iter_symbols()
    ]
    assert symbols == [(one.name, one.value, one.size_bytes) for one in ours.symbols]
    tables = [peer.get_section_by_name(name) for name in (".rela.dyn", ".rela.plt")]
    theirs = [
        (one["r_offset"], one["r_info_sym"], one["r_addend"])
        for table in tables
        if table is not None
        for one in table.iter_relocations()
    ]
    assert theirs == [(one.offset, one.symbol, one.addend) for one in ours.relocations]


def real_modules() -> list[str]:
    """Shared objects of this very interpreter and its packages."""
    folders = (sysconfig.get_config_var("DESTSHARED"), sysconfig.get_path("platlib"))
    found = sorted(
        str(path) for folder in folders for path in Path(str(folder)).rglob("*.so") if path.is_file()
    )
    if not found or sys.platform != "linux" or Path(found[0]).read_bytes()[18:20] != b"\x3e\0":
        pytest.skip("no x86-64 shared objects here")
    return found


def test_shared_objects_of_this_machine_are_read() -> None:
    paths = real_modules()
    for path in paths[:: max(1, len(paths) // 40)]:
        image = read_elf(Path(path).read_bytes())
        assert any(segment.executable for segment in image.segments), path
        assert not any(segment.writable and segment.executable for segment in image.segments), path
        assert any(symbol.kind == "function" for symbol in image.exports), path
        assert image.imports, path


@pytest.mark.skipif(sys.platform != "linux", reason="needs a Linux dynamic linker")
def test_the_dynamic_linker_loads_and_runs_what_we_build(tmp_path: Path) -> None:
    real_modules()
    path = tmp_path / "driver.so"
    path.write_bytes(build_module(attrs.evolve(DRIVER, imports=("malloc",))))
    code = f"""
import ctypes
library = ctypes.CDLL({str(path)!r})
pointers = (ctypes.c_void_p * 3).in_dll(library, "pointers")
print(library.answer(), ctypes.string_at(pointers[0]).decode(), pointers[2] - ctypes.addressof(pointers))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "42 constant 16\n"), done.stderr
    assert ctypes.sizeof(ctypes.c_void_p) == 8


@pytest.mark.client
def test_readelf_has_nothing_to_complain_about(program: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "driver.so"
    path.write_bytes(build_module(IMPORTING))
    done = subprocess.run([program("readelf"), "-Wa", str(path)], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Warning" not in done.stdout
    assert "vmk_Alloc" in done.stdout


@pytest.mark.parametrize(
    "changes",
    [
        {"text": b""},
        {"exports": (Export(name="a", offset=10**6),)},
        {"exports": (Export(name="a", area="rodata", offset=0, size_bytes=100),)},
        {"exports": (Export(name="a"), Export(name="a"))},
        {"exports": (Export(name="a"),), "imports": ("a",)},
        {"pointers": (Pointer(offset=17, area="text"),)},
        {"pointers": (Pointer(offset=0, area="text", target=10**6),)},
        {"name": "a\0b"},
    ],
)
def test_a_module_that_cannot_be_is_not_built(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        build_module(attrs.evolve(DRIVER, **changes))


@given(
    text=st.binary(min_size=1, max_size=9000),
    rodata=st.binary(max_size=5000),
    data=st.binary(max_size=5000),
    bss_bytes=st.integers(0, 1 << 20),
    names=st.lists(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), unique=True, max_size=12),
)
def test_any_module_reads_back(
    text: bytes, rodata: bytes, data: bytes, bss_bytes: int, names: list[str]
) -> None:
    half = len(names) // 2
    spec = ModuleSpec(
        name="m",
        version="1",
        text=text,
        rodata=rodata,
        data=data,
        bss_bytes=bss_bytes,
        exports=tuple(Export(name=name) for name in names[:half]),
        imports=tuple(names[half:]),
    )
    image = read_elf(build_module(spec))
    assert image.segments[1].data == text
    assert image.segments[2].data.endswith(data)
    assert image.segments[2].memory_bytes - len(image.segments[2].data) == bss_bytes
    assert [symbol.name for symbol in image.exports] == names[:half]
    assert list(image.imports) == names[half:]
