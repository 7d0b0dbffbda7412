"""A real shared object of this machine, a CPython extension module, goes through the simulated loader."""

import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from sim.core.rng import Rng
from sim.hw.mmu import PageFault
from sim.image.pki import Pki

from .test_loader import EPOCH, kernel, origin_of, vib_of

CANDIDATES = ("_json", "math", "_struct", "_bisect", "_csv", "_elementtree", "array")


def real_files():
    """Paths of extension modules that are files of their own, on an x86-64 machine."""
    if not (sysconfig.get_platform().endswith("x86_64")):
        return []
    specs = [find_spec(name) for name in CANDIDATES]
    return [Path(each.origin) for each in specs if each is not None and str(each.origin).endswith(".so")]


@pytest.fixture(scope="module", params=CANDIDATES)
def real(request):
    found = [path for path in real_files() if path.name.startswith(request.param + ".")]
    if not found:
        pytest.skip(f"{request.param} is built into this Python, or this is no x86-64 machine")
    return request.param, found[0]


@pytest.fixture(scope="module")
def loaded(real):
    name, path = real
    pki = Pki.create(Rng(12), epoch=EPOCH)
    host = kernel(pki, strict=False)
    data = path.read_bytes()
    module = host.loader.load(name, data, vib=origin_of(vib_of(pki, {name: data})))
    return host, module, path


def segments_of(path):
    """Loadable segments by an independent reader: (address, file bytes, memory size, rights)."""
    with path.open("rb") as stream:
        return [
            (
                segment["p_vaddr"],
                segment.data(),
                segment["p_memsz"],
                "".join(
                    letter if segment["p_flags"] & bit else "-"
                    for letter, bit in (("r", 4), ("w", 2), ("x", 1))
                ),
            )
            for segment in ELFFile(stream).iter_segments("PT_LOAD")
        ]


def test_code_and_constants_in_memory_equal_the_file(loaded):
    host, module, path = loaded
    compared = 0
    for address, data, _, rights in segments_of(path):
        if "w" not in rights:
            assert host.memory.read(module.base + address, len(data)) == data
            compared += len(data)
    assert compared > 4096


def test_each_segment_has_its_own_rights_and_no_page_is_writable_and_executable(loaded):
    host, module, path = loaded
    wanted = [(module.base + (address & ~4095), rights) for address, _, _, rights in segments_of(path)]
    with path.open("rb") as stream:
        relro = next(ELFFile(stream).iter_segments("PT_GNU_RELRO"))
    end = module.base + ((relro["p_vaddr"] + relro["p_memsz"]) & ~4095)
    assert wanted[-1] == (module.base + (relro["p_vaddr"] & ~4095), "rw-")
    wanted[-1:] = [(wanted[-1][0], "r--"), (end, "rw-")]
    assert [(segment.base, segment.rights) for segment in module.segments] == wanted
    assert all(not (each.rights.write and each.rights.execute) for each in host.memory.space.mappings())
    host.check()


def test_relative_relocations_are_applied_as_an_independent_reader_says(loaded):
    host, module, path = loaded
    relative = 0
    with path.open("rb") as stream:
        for section in ELFFile(stream).iter_sections("SHT_RELA"):
            for relocation in section.iter_relocations():
                if relocation["r_info_type"] == 8:
                    stored = host.memory.read(module.base + relocation["r_offset"], 8)
                    assert int.from_bytes(stored, "little") == module.base + relocation["r_addend"]
                    relative += 1
    assert relative > 0


def test_data_beside_relocations_equals_the_file_and_the_rest_is_zero(loaded):
    host, module, path = loaded
    touched = {}
    with path.open("rb") as stream:
        for section in ELFFile(stream).iter_sections("SHT_RELA"):
            touched |= {each["r_offset"] + at: None for each in section.iter_relocations() for at in range(8)}
    for address, data, memory_bytes, rights in segments_of(path):
        if "w" in rights:
            found = host.memory.read(module.base + address, memory_bytes)
            wanted = data + bytes(memory_bytes - len(data))
            differ = [
                at
                for at, (one, two) in enumerate(zip(found, wanted, strict=True))
                if one != two and address + at not in touched
            ]
            assert differ == []


def test_symbols_of_the_interpreter_stay_unresolved_and_lead_nowhere(loaded):
    host, module, _ = loaded
    assert any(name.startswith("Py") for name in module.unresolved)
    assert isinstance(host.memory.read(0, 1), PageFault)
    assert any("symbols are not defined by any module" in line for line in host.log())
