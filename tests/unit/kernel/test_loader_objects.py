"""Relocatable objects in the kernel: parts placed apart, relocated in memory, unloaded, moved, and refused whole."""

import struct

import attrs
import pytest

from sim.core.rng import Rng
from sim.hw.mmu import PageFault
from sim.image import elf_format as f
from sim.image.elf import Export, build_module, build_object, read_object
from sim.image.pki import Pki
from sim.kernel.layout import LayoutProfile, Window
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario

from .test_loader import CERTIFIED, EPOCH, TEXT, kernel, origin_of, refusal, spec, vib_of


@pytest.fixture(scope="module")
def pki():
    return Pki.create(Rng(13), epoch=EPOCH)


def object_spec(name="nvme_pci", **changes):
    values = {
        "exports": (
            Export(name="init_module", offset=4, size_bytes=3),
            Export(name="cleanup_module", offset=16),
            Export(name=f"{name}_Attach", offset=1),
            Export(name=f"{name}_State", area="data", offset=70),
        ),
    }
    return spec(name, **{**values, **changes})


def load_data(pki, host, name, data):
    return host.loader.load(name, data, vib=origin_of(vib_of(pki, {name: data})))


def load(pki, host, name="nvme_pci", **changes):
    data = build_object(object_spec(name, **changes))
    return load_data(pki, host, name, data), data


def word(host, address):
    return int.from_bytes(host.memory.read(address, 8), "little")


def parts(module):
    return {segment.name: segment for segment in module.segments}


def test_code_constants_and_data_have_windows_and_rights_of_their_own(pki):
    host = kernel(pki)
    module, _ = load(pki, host)
    assert module.type == "ET_REL"
    assert {name: part.rights for name, part in parts(module).items()} == {
        "text": "r-x",
        "rodata": "r--",
        "data": "rw-",
    }
    for name, part in parts(module).items():
        window = host.layout.profile.window(f"module.{name}")
        assert window.base <= part.base < part.base + part.size_bytes <= window.end
    assert len(module.regions) == len(host.layout.regions()) == 3
    records = host.sim.trace.select("module.segment")
    assert [(row["segment"], row["rights"]) for row in records] == [
        ("text", "r-x"),
        ("rodata", "r--"),
        ("data", "rw-"),
    ]
    host.check()


def test_the_bytes_in_memory_are_those_of_the_sections_but_for_relocated_places(pki):
    host = kernel(pki)
    module, data = load(pki, host)
    sections = {section.name: section for section in read_object(data).sections}
    assert host.memory.read(parts(module)["text"].base, len(TEXT)) == TEXT
    assert host.memory.read(parts(module)["rodata"].base, 11) == b"nvme rodata"
    base = parts(module)["data"].base
    assert word(host, base) == parts(module)["text"].base
    assert word(host, base + 16) == base + 40
    assert host.memory.read(base + 24, 40) == sections[".data"].data[24:]
    assert host.memory.read(base + 64, 9000) == bytes(9000)
    assert isinstance(host.memory.write(parts(module)["rodata"].base, b"x"), PageFault)
    assert isinstance(host.memory.write(parts(module)["text"].base, b"x"), PageFault)


def test_entry_exit_and_exports_are_addresses_in_their_parts(pki):
    host = kernel(pki)
    module, _ = load(pki, host)
    text, data = parts(module)["text"].base, parts(module)["data"].base
    assert (module.entry, module.exit_entry) == (text + 4, text + 16)
    assert module.exports["nvme_pci_Attach"] == text + 1
    assert module.exports["nvme_pci_State"] == data + 64 + 6


def test_imports_are_bound_to_the_kernel_and_to_earlier_modules_and_are_read_only(pki):
    host = kernel(pki)
    core = build_module(spec("vmkernel", exports=(Export(name="vmk_HeapAlloc", offset=5),)))
    host.loader.load_kernel(
        "vmkernel", core, vib=origin_of(vib_of(pki, {"vmkernel": core}, CERTIFIED, "VMware"))
    )
    lower, _ = load(pki, host, "lower")
    upper, data = load(pki, host, "upper", imports=("vmk_HeapAlloc", "lower_Attach"))
    assert upper.uses == ("vmkernel", "lower")
    places = {section.name: section.index for section in read_object(data).sections}
    table = parts(upper)["rodata"].base + parts(upper)["rodata"].size_bytes - 4096
    words = [word(host, table + at) for at in range(0, 1024, 8)]
    assert host.loader.get("vmkernel").exports["vmk_HeapAlloc"] in words
    assert lower.exports["lower_Attach"] in words
    assert ".data.rel.ro" in places
    assert refusal(lambda: host.loader.unload("lower")) == "module.in-use"
    host.check()


def test_unloading_gives_all_parts_back_and_a_new_load_moves_them_with_the_same_bytes(pki):
    host = kernel(pki)
    before = host.frames.owners()
    first, data = load(pki, host)
    kept = {name: host.memory.read(part.base, part.size_bytes) for name, part in parts(first).items()}
    host.loader.unload("nvme_pci")
    assert host.frames.owners() == before
    assert host.layout.regions() == ()
    assert isinstance(host.memory.read(first.base, 1), PageFault)
    again = load_data(pki, host, "nvme_pci", data)
    relocated = {0, 16}
    for name, part in parts(again).items():
        assert part.base != parts(first)[name].base
        moved = host.memory.read(part.base, part.size_bytes)
        differ = {at & ~7 for at in range(len(moved)) if moved[at] != kept[name][at]}
        assert differ == (relocated if name == "data" else set())
    base, old = parts(again)["data"].base, parts(first)["data"].base
    assert word(host, base + 16) - base == int.from_bytes(kept["data"][16:24], "little") - old
    host.check()


def test_a_symbol_that_nobody_defines_is_refused_and_nothing_is_left(pki):
    host = kernel(pki)
    before = host.frames.owners()
    assert refusal(lambda: load(pki, host, imports=("vmk_Missing",))) == "module.unresolved"
    assert host.frames.owners() == before
    assert host.layout.regions() == ()
    host.check()


@pytest.mark.parametrize("kind", ["module.text", "module.rodata", "module.data"])
def test_no_room_for_one_part_gives_the_others_back(pki, kind):
    windows = [
        attrs.evolve(window, span_bytes=4096) if window.kind == kind else window
        for window in LayoutProfile().windows
    ]
    host = kernel(pki, profile=LayoutProfile(windows=tuple(windows)))
    changes = {"rodata": bytes(9000)} if kind == "module.rodata" else {}
    assert refusal(lambda: load(pki, host, **changes)) == "module.memory"
    assert host.layout.regions() == ()
    host.check()


def test_no_memory_for_the_last_part_gives_the_others_back(pki):
    host = kernel(pki)
    host.frames.allocate(host.frames.frames_free - 4, "hog")
    before = host.frames.owners()
    assert refusal(lambda: load(pki, host)) == "module.memory"
    assert host.frames.owners() == before
    assert host.layout.regions() == ()
    host.check()


def test_a_profile_without_windows_for_parts_refuses_objects(pki):
    window = Window(kind="module", base=0x4180_4000_0000, span_bytes=1 << 20)
    host = kernel(pki, profile=LayoutProfile(windows=(window,)))
    assert refusal(lambda: load(pki, host)) == "module.memory"


def test_a_program_at_fixed_addresses_is_no_kernel_module(pki):
    data = bytearray(build_module(spec()))
    struct.pack_into("<H", data, 16, f.ET_EXEC)
    host = kernel(pki)
    assert refusal(lambda: load_data(pki, host, "nvme_pci", bytes(data))) == "module.format"
    assert host.layout.regions() == ()


def test_thread_storage_in_an_object_is_refused(pki):
    data = bytearray(build_object(object_spec()))
    (sections_at,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, sections_at + 3 * 64 + 8, f.SHF_ALLOC | f.SHF_WRITE | f.SHF_TLS)
    host = kernel(pki)
    assert refusal(lambda: load_data(pki, host, "nvme_pci", bytes(data))) == "module.tls"


def test_the_same_source_as_object_and_as_shared_object_exports_the_same(pki):
    host = kernel(pki)
    one, _ = load(pki, host, "one")
    two = load_data(pki, host, "two", build_module(object_spec("two")))
    assert [name.replace("one", "two") for name in one.exports] == list(two.exports)
    assert two.type == "ET_DYN"


def test_an_image_with_relocatable_drivers_boots_and_places_them_in_parts():
    machinery = build(
        Scenario(image=ImageSpec(modules=3, module_size_bytes=1024, module_type="object"), vms=()), 5
    )
    machinery.host.power_on()
    machinery.sim.engine.run()
    modules = machinery.host.kernel.loader.modules()
    assert [module.type for module in modules].count("ET_REL") == 3
    assert all(len(module.regions) == 3 for module in modules if module.type == "ET_REL")
    assert not machinery.host.kernel.refused
    machinery.host.kernel.check_invariants()
