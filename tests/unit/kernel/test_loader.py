"""The loader: verified bytes, random bases, relocations, rights; refusals that leave nothing behind."""

import hashlib
import pickle
from datetime import UTC, datetime

import attrs
import pytest

from sim.core.context import Sim
from sim.core.procedure import CostMeter
from sim.core.rng import Rng
from sim.core.units import MIB
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import PageFault
from sim.image.acceptance import AcceptanceLevel
from sim.image.contents import kernel_modules
from sim.image.elf import Export, ModuleSpec, Pointer, build_module, read_elf
from sim.image.metadata import Descriptor
from sim.image.payload import content_of, gzip_stored
from sim.image.pki import Pki
from sim.image.tar import TarEntry
from sim.image.vib import Payload, Vib, build_vib, read_vib
from sim.image.vtar import write_vtar
from sim.kernel.layout import Layout, LayoutProfile, Window
from sim.kernel.loader import LoadRefused, ModuleLoader
from sim.kernel.memory import KernelMemory
from sim.kernel.module_signing import ImageModuleVerifier, ModuleOrigin

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
PARTNER, CERTIFIED = AcceptanceLevel.PARTNER_SUPPORTED, AcceptanceLevel.VMWARE_CERTIFIED
COMMUNITY = AcceptanceLevel.COMMUNITY_SUPPORTED
TEXT = b"\x31\xc0\xc3" + bytes(range(200)) * 30


@pytest.fixture(scope="module")
def pki():
    return Pki.create(Rng(11), epoch=EPOCH)


def spec(name="nvme_pci", **changes):
    values = {
        "version": "1.2.4-1vmw",
        "license": "BSD",
        "provider": "VMware",
        "text": TEXT,
        "rodata": b"nvme rodata",
        "data": bytes(64),
        "bss_bytes": 9000,
        "exports": (Export(name="init_module", size_bytes=3), Export(name=f"{name}_Attach", offset=1)),
        "pointers": (Pointer(offset=0, area="text"), Pointer(offset=16, area="data", target=40)),
    }
    return ModuleSpec(name=name, **{**values, **changes})


def vib_of(pki, modules, level=PARTNER, provider="Mellanox"):
    """A signed VIB with one vgz payload that holds the modules."""
    entries = [TarEntry(path=f"usr/lib/vmware/vmkmod/{name}", data=data) for name, data in modules.items()]
    descriptor = Descriptor(name="drv", version="1.0-1", vendor="MEL", level=level, release_date=EPOCH)
    signer = pki.signer(level.xml_name, provider) if level is not COMMUNITY else None
    payload = Payload(name="drv", kind="vgz", data=gzip_stored(write_vtar(entries)))
    return read_vib(build_vib(descriptor, [payload], signer, EPOCH))


def origin_of(vib: Vib) -> ModuleOrigin:
    return ModuleOrigin(
        vib_id=vib.vib_id,
        descriptor_xml=vib.descriptor_xml,
        signature=vib.signature,
        content=content_of(vib.payloads[0].data),
    )


@attrs.define
class Kernel:
    """What a loader works on."""

    sim: Sim
    frames: PhysicalMemory
    memory: KernelMemory
    layout: Layout
    loader: ModuleLoader
    meter: CostMeter

    def check(self):
        self.frames.check_invariants()
        self.memory.check_invariants()
        self.layout.check_invariants()
        self.loader.check_invariants()

    def log(self):
        return [line["text"] for line in self.sim.trace.select("log.line")]


def kernel(pki, *, seed=1, level=PARTNER, enforce=True, strict=True, profile=None, memory_bytes=32 * MIB):
    sim = Sim(seed=seed, epoch=EPOCH)
    meter = CostMeter()
    frames = PhysicalMemory(memory_bytes)
    memory = KernelMemory(sim, frames)
    layout = Layout(sim.rng.stream("layout"), profile if profile is not None else LayoutProfile())
    verifier = ImageModuleVerifier(sim, pki.trust, level, meter)
    return Kernel(
        sim=sim,
        frames=frames,
        memory=memory,
        layout=layout,
        loader=ModuleLoader(sim, memory, layout, verifier, enforce=enforce, strict=strict),
        meter=meter,
    )


def load(pki, host, name="nvme_pci", **changes):
    data = build_module(spec(name, **changes))
    return host.loader.load(name, data, vib=origin_of(vib_of(pki, {name: data}))), data


def refusal(call):
    with pytest.raises(LoadRefused) as caught:
        call()
    return caught.value.check


# ---------------------------------------------------------------- loading


def test_a_signed_module_is_loaded_with_its_identity(pki):
    host = kernel(pki)
    module, _ = load(pki, host)
    assert (module.module_id, module.name, module.version, module.license) == (
        1,
        "nvme_pci",
        "1.2.4-1vmw",
        "BSD",
    )
    assert (module.provider, module.level) == ("Mellanox", "PartnerSupported")
    assert module.signed_status == "Mellanox Signed"
    assert module.vib_id == "MEL_bootbank_drv_1.0-1"
    assert host.loader.get("nvme_pci") is module
    host.check()


def test_the_log_tells_the_story_in_the_hosts_words(pki):
    host = kernel(pki)
    load(pki, host)
    assert host.log() == [
        "Loading module nvme_pci ...",
        "Elf: module nvme_pci has license BSD",
        "Mod: Initialization of nvme_pci succeeded with module ID 1.",
        "nvme_pci loaded successfully.",
    ]


def test_text_in_memory_is_text_in_the_file_and_each_segment_has_its_own_rights(pki):
    host = kernel(pki)
    module, data = load(pki, host)
    for loaded, segment in zip(module.segments, read_elf(data).segments, strict=True):
        assert loaded.rights == segment.rights
        if not segment.writable:
            assert host.memory.read(loaded.base, len(segment.data)) == segment.data
    assert [segment.name for segment in module.segments] == ["rodata", "text", "data"]
    assert isinstance(host.memory.write(module.segments[1].base, b"\x90"), PageFault)


def test_pointers_are_relocated_to_the_random_base(pki):
    host = kernel(pki)
    module, data = load(pki, host)
    image = read_elf(data)
    assert len(image.relocations) == 2
    for relocation in image.relocations:
        stored = host.memory.read(module.base + relocation.offset, 8)
        assert int.from_bytes(stored, "little") == module.base + relocation.addend
    assert module.exports["init_module"] == module.segments[1].base


def test_zero_initialised_data_is_zero_and_writable_to_its_end(pki):
    host = kernel(pki)
    module, data = load(pki, host)
    last = read_elf(data).segments[-1]
    end = module.base + last.end
    assert host.memory.read(end - 9000, 9000) == bytes(9000)
    assert host.memory.write(end - 1, b"\x01") is None


def test_unmapped_guard_pages_surround_a_module(pki):
    host = kernel(pki)
    module, _ = load(pki, host)
    assert isinstance(host.memory.read(module.base - 1, 1), PageFault)
    assert isinstance(host.memory.read(module.base + module.size_bytes, 1), PageFault)


def test_the_base_follows_the_seed(pki):
    bases = [load(pki, kernel(pki, seed=seed))[0].base for seed in (1, 1, 2, 3)]
    assert bases[0] == bases[1]
    assert len(set(bases)) == 3


def test_imports_bind_to_the_kernel_and_to_earlier_modules(pki):
    host = kernel(pki, strict=False)
    core = build_module(spec("vmkernel", exports=(Export(name="vmk_HeapAlloc", offset=5),)))
    vib = vib_of(pki, {"vmkernel": core}, CERTIFIED, "VMware")
    base = host.loader.load_kernel("vmkernel", core, vib=origin_of(vib))
    assert base.module_id == 0
    assert base.base % (2 * MIB) == 0
    load(pki, host, "lower")
    module, data = load(pki, host, "upper", imports=("vmk_HeapAlloc", "lower_Attach", "vmk_Missing"))
    assert module.uses == ("vmkernel", "lower")
    assert module.unresolved == ("vmk_Missing",)
    image = read_elf(data)
    slots = {
        image.symbols[each.symbol].name: int.from_bytes(
            host.memory.read(module.base + each.offset, 8), "little"
        )
        for each in image.relocations
        if each.symbol
    }
    assert slots["vmk_HeapAlloc"] == base.exports["vmk_HeapAlloc"]
    assert slots["lower_Attach"] == host.loader.get("lower").exports["lower_Attach"]
    assert slots["vmk_Missing"] == 0
    assert isinstance(host.memory.read(0, 1), PageFault)
    host.check()


def test_a_symbol_that_nobody_defines_is_refused_and_nothing_is_left(pki):
    host = kernel(pki)
    before = host.frames.owners()
    assert refusal(lambda: load(pki, host, imports=("vmk_Missing",))) == "module.unresolved"
    assert "nobody defines vmk_Missing" in host.log()[-1]
    assert host.frames.owners() == before
    assert host.layout.regions() == ()
    host.check()


def test_of_two_definitions_the_earliest_loaded_one_serves_until_its_module_goes(pki):
    host = kernel(pki)
    both = (Export(name="vmk_Same", offset=1),)
    for name in ("one", "two"):
        load(pki, host, name, exports=both)
    first, _ = load(pki, host, "three", exports=(), imports=("vmk_Same",))
    assert first.uses == ("one",)
    host.loader.unload("three")
    host.loader.unload("one")
    second, _ = load(pki, host, "four", exports=(), imports=("vmk_Same",))
    assert second.uses == ("two",)
    host.loader.unload("four")
    host.loader.unload("two")
    assert refusal(lambda: load(pki, host, "five", imports=("vmk_Same",))) == "module.unresolved"


def test_verification_charges_time_once_for_a_vib_and_each_time_for_its_payload(pki):
    host = kernel(pki)
    files = {name: build_module(spec(name)) for name in ("one", "two")}
    origin = origin_of(vib_of(pki, files))
    host.loader.load("one", files["one"], vib=origin)
    first = host.meter.take()
    host.loader.load("two", files["two"], vib=origin)
    assert 0 < host.meter.take() < first
    assert host.meter.totals_ns["verify signature"] > 0


# ---------------------------------------------------------------- unloading


def test_unloading_gives_everything_back_and_ids_are_not_used_again(pki):
    host = kernel(pki)
    before = host.frames.owners()
    module, _ = load(pki, host)
    host.loader.unload("nvme_pci")
    assert host.frames.owners() == before
    assert host.layout.regions() == ()
    assert isinstance(host.memory.read(module.base, 1), PageFault)
    again, _ = load(pki, host)
    assert again.module_id == 2
    host.check()


def test_a_module_in_use_and_the_kernel_stay(pki):
    host = kernel(pki)
    load(pki, host, "lower")
    load(pki, host, "upper", imports=("lower_Attach",))
    assert refusal(lambda: host.loader.unload("lower")) == "module.in-use"
    host.loader.unload("upper")
    host.loader.unload("lower")
    assert refusal(lambda: host.loader.unload("lower")) == "module.unknown"


# ---------------------------------------------------------------- refusals


def test_any_flipped_bit_of_a_module_is_refused_and_leaves_nothing(pki):
    host = kernel(pki)
    data = build_module(spec())
    origin = origin_of(vib_of(pki, {"nvme_pci": data}))
    before = host.frames.owners()
    for bit in range(0, 8 * len(data), 4999):
        broken = bytearray(data)
        broken[bit >> 3] ^= 1 << (bit & 7)
        assert (
            refusal(lambda made=bytes(broken): host.loader.load("nvme_pci", made, vib=origin))
            == "module.bytes"
        )
    assert host.frames.owners() == before
    assert host.loader.modules() == ()
    assert host.layout.regions() == ()
    assert host.loader.load("nvme_pci", data, vib=origin).module_id == 1


def test_a_flipped_bit_in_the_payload_in_memory_is_refused(pki):
    host = kernel(pki)
    data = build_module(spec())
    good = origin_of(vib_of(pki, {"nvme_pci": data}))
    content = bytearray(good.content)
    content[content.index(TEXT)] ^= 1
    bad = attrs.evolve(good, content=bytes(content))
    (name, changed) = kernel_modules(bad.content)[0]
    assert changed != data
    assert refusal(lambda: host.loader.load(name, changed, vib=bad)) == "module.payload"


def test_a_module_is_entered_under_the_digest_of_the_payload_that_was_verified(pki):
    host = kernel(pki)
    data = build_module(spec())
    vib = vib_of(pki, {"nvme_pci": data})
    origin = origin_of(vib)
    row = host.loader.load("nvme_pci", data, vib=origin)
    assert row.digest == hashlib.sha256(origin.content).digest() != hashlib.sha256(data).digest()
    listed = [each.digest for entry in vib.descriptor.payloads for each in entry.checksums]
    assert row.digest in listed
    assert [each["digest"] for each in host.sim.trace.select("module.loaded")] == [row.digest]


def test_a_payload_that_is_the_module_itself_loads_under_any_name(pki):
    host = kernel(pki)
    data = build_module(spec())
    descriptor = Descriptor(name="drv", version="1.0-1", vendor="MEL", level=PARTNER, release_date=EPOCH)
    payload = Payload(name="drv", kind="boot", data=gzip_stored(data))
    origin = origin_of(read_vib(build_vib(descriptor, [payload], pki.signer("partner"), EPOCH)))
    assert refusal(lambda: host.loader.load("nvme_pci", data + b"\0", vib=origin)) == "module.bytes"
    assert host.loader.load("nvme_pci", data, vib=origin).module_id == 1


@pytest.mark.parametrize("where", ["descriptor_xml", "signature"])
def test_a_flipped_bit_in_the_signed_record_is_refused(pki, where):
    host = kernel(pki)
    data = build_module(spec())
    origin = origin_of(vib_of(pki, {"nvme_pci": data}))
    original = getattr(origin, where)
    for at in range(0, len(original), 97):
        broken = bytearray(original)
        broken[at] ^= 4
        changed = attrs.evolve(origin, **{where: bytes(broken)})
        refusal(lambda vib=changed: host.loader.load("nvme_pci", data, vib=vib))
    assert host.loader.modules() == ()
    assert len(host.sim.trace.select("module.refused")) == len(range(0, len(original), 97))


def test_a_module_of_another_name_or_of_no_vib_is_refused(pki):
    host = kernel(pki)
    data = build_module(spec())
    origin = origin_of(vib_of(pki, {"nvme_pci": data}))
    assert refusal(lambda: host.loader.load("other", data, vib=origin)) == "module.bytes"
    assert refusal(lambda: host.loader.load("nvme_pci", data, vib=None)) == "module.unowned"
    assert host.log()[-1] == "Mod: Loading module nvme_pci failed: module nvme_pci belongs to no VIB"


@pytest.mark.parametrize(
    ("level", "host_level", "loads"),
    [
        (PARTNER, PARTNER, True),
        (PARTNER, CERTIFIED, False),
        (CERTIFIED, CERTIFIED, True),
        (COMMUNITY, COMMUNITY, True),
        (COMMUNITY, PARTNER, False),
    ],
)
def test_the_acceptance_level_of_the_host_is_a_floor(pki, level, host_level, loads):
    host = kernel(pki, level=host_level)
    data = build_module(spec())
    provider = "VMware" if level is CERTIFIED else "Mellanox"
    origin = origin_of(vib_of(pki, {"nvme_pci": data}, level, provider))
    if loads:
        module = host.loader.load("nvme_pci", data, vib=origin)
        assert module.level == level.title
        assert module.signed_status == ("Unsigned" if level is COMMUNITY else f"{provider} Signed")
    else:
        assert refusal(lambda: host.loader.load("nvme_pci", data, vib=origin)) == "module.level"


def test_without_enforcement_a_refused_module_loads_and_shows_it(pki):
    host = kernel(pki, enforce=False)
    data = build_module(spec())
    module = host.loader.load("nvme_pci", data, vib=None)
    assert module.signed_status == "Not verified (module.unowned)"
    assert module.level == "CommunitySupported"
    assert (
        "Mod: module nvme_pci is not verified, loaded all the same: module nvme_pci belongs to no VIB"
        in host.log()
    )


def test_a_name_is_loaded_once(pki):
    host = kernel(pki)
    load(pki, host)
    assert refusal(lambda: load(pki, host)) == "module.loaded"
    assert len(host.loader.modules()) == 1


def test_a_file_that_is_no_module_is_refused(pki):
    host = kernel(pki)
    junk = b"\x7fELF" + bytes(400)
    origin = origin_of(vib_of(pki, {"junk": junk}))
    assert refusal(lambda: host.loader.load("junk", junk, vib=origin)) == "module.format"


def test_no_room_in_the_window_or_in_memory_is_a_refusal_that_leaves_nothing(pki):
    window = Window(kind="module", base=0x4180_4000_0000, span_bytes=0x4000)
    host = kernel(pki, profile=LayoutProfile(windows=(window,)))
    assert refusal(lambda: load(pki, host)) == "module.memory"
    small = kernel(pki)
    small.frames.allocate(small.frames.frames_free - 4, "hog")
    before = small.frames.owners()
    assert refusal(lambda: load(pki, small)) == "module.memory"
    assert small.frames.owners() == before
    assert small.layout.regions() == ()
    small.check()


def test_a_loader_pickles_with_its_modules(pki):
    host = kernel(pki)
    load(pki, host, "lower")
    copy = pickle.loads(pickle.dumps(host))
    one = load(pki, copy, "upper", imports=("lower_Attach",))[0]
    two = load(pki, host, "upper", imports=("lower_Attach",))[0]
    assert one == two
    copy.check()


def test_a_proven_record_vouches_for_no_other_descriptor_under_its_signature(pki):
    machine = kernel(pki)
    module = build_module(spec())
    sound = origin_of(vib_of(pki, {"nvme_pci": module}))
    machine.loader.load("nvme_pci", module, vib=sound)
    other = build_module(spec("evil"))
    forged = attrs.evolve(origin_of(vib_of(pki, {"evil": other})), signature=sound.signature)
    with pytest.raises(LoadRefused) as caught:
        machine.loader.load("evil", other, vib=forged)
    assert caught.value.check == "message-digest"
    machine.check()
