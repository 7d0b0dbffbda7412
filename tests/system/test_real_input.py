"""Claims about files that nobody here wrote: a community VIB and shared objects of this machine, on a whole host."""

import importlib.util
import sysconfig
from pathlib import Path

import pytest

from sim.hw.spec import FirmwareSpec, HostSpec
from sim.image.acceptance import AcceptanceLevel
from sim.image.metadata import Descriptor
from sim.image.payload import gzip_stored
from sim.image.tar import TarEntry, with_parents
from sim.image.vib import Payload, build_vib
from sim.image.vtar import write_vtar
from sim.kernel.api import ApiError
from sim.kernel.host import HostState
from sim.kernel.layout.spec import KernelSpec
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario
from sim.tpm.eventlog import parse
from sim.tpm.tagged import EsxTag, decode_tagged

EV_EVENT_TAG = 6


def running(secure_boot=True, strict_symbols=True):
    firmware = FirmwareSpec(secure_boot=secure_boot)
    scenario = Scenario(
        image=ImageSpec(modules=4, module_size_bytes=2048),
        host=HostSpec(firmware=firmware),
        kernel=KernelSpec(strict_symbols=strict_symbols),
    )
    machinery = build(scenario, 5)
    machinery.host.power_on()
    machinery.sim.engine.run()
    assert machinery.host.state is HostState.RUNNING
    return machinery


def reboot(machinery):
    machinery.host.call("host.reboot")
    machinery.sim.engine.run()


def measured(machinery):
    """File names and PCRs of the module events in the boot's log."""
    log = parse(machinery.host.call("tpm.event_log")["event_log"])
    tags = [(event.pcr, decode_tagged(event.data)) for event in log.events if event.type == EV_EVENT_TAG]
    return {tag.text: pcr for pcr, tag in tags if tag.id in (EsxTag.MOD, EsxTag.BOOT_OPT)}


def test_a_community_vib_is_refused_then_installed_at_the_lower_level_and_then_measured(vectors):
    archive = (vectors / "vibs" / "ghettoVCB.vib").read_bytes()
    machinery = running(secure_boot=False)
    host = machinery.host
    before = measured(machinery)
    with pytest.raises(ApiError) as caught:
        host.call("image.install", {"archive": archive})
    text = str(caught.value)
    assert (
        "acceptance level is community, which is not compliant with the ImageProfile acceptance level partner"
        in text
    )
    assert "To change the host acceptance level, use the 'esxcli software acceptance set' command." in text
    host.call("image.set_acceptance", {"level": "CommunitySupported"})
    host.call("image.install", {"archive": archive, "force": True})
    reboot(machinery)
    assert host.state is HostState.RUNNING
    added = {name: pcr for name, pcr in measured(machinery).items() if name not in before}
    assert added == {"payload1.v00": 13}
    assert any(
        row["name"] == "ghettoVCB" and row["level"] == "CommunitySupported" for row in host.call("image.vibs")
    )


def test_secure_boot_forbids_a_community_vib(vectors):
    machinery = running(secure_boot=True)
    machinery.host.call("image.set_acceptance", {"level": "CommunitySupported"})
    archive = (vectors / "vibs" / "ghettoVCB.vib").read_bytes()
    machinery.host.call("image.install", {"archive": archive, "force": True})
    reboot(machinery)
    assert machinery.host.state is HostState.HALTED
    assert "ghettoVCB" in machinery.host.failure.message


def shared_objects():
    """Some C extensions of the Python that runs the tests."""
    found = []
    for name in ("_json", "_struct", "math", "_bisect", "_heapq", "zlib", "_csv"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and spec.origin.endswith(".so"):
            found.append(Path(spec.origin))
    if not found:
        found = sorted(Path(sysconfig.get_path("platlib")).rglob("*.so"))[:3]
    return found[:3]


@pytest.mark.parametrize("path", shared_objects(), ids=lambda path: path.name)
def test_a_real_shared_object_is_packed_signed_installed_booted_and_mapped(path):
    data = path.read_bytes()
    machinery = running(strict_symbols=False)  # it needs the symbols of a whole interpreter
    host = machinery.host
    entry = TarEntry(path="usr/lib/vmware/vmkmod/realmod", data=data, mode=0o555)
    descriptor = Descriptor(
        name="realmod",
        version="1.0-1",
        vendor="Example",
        level=AcceptanceLevel.PARTNER_SUPPORTED,
        summary="A shared object of this machine",
        description="A shared object of this machine",
        release_date=machinery.sim.epoch,
        files=(entry.path,),
    )
    payload = Payload(name="realmod", kind="vgz", data=gzip_stored(write_vtar(with_parents([entry]))))
    signer = machinery.pki.signer("partner", "Example")
    archive = build_vib(descriptor, [payload], signer, machinery.sim.epoch)
    host.call("image.install", {"archive": archive})
    reboot(machinery)
    assert host.state is HostState.RUNNING, host.failure
    row = next(row for row in host.call("module.list") if row["name"] == "realmod")
    assert (row["provider"], row["level"], row["signed"]) == ("Example", "PartnerSupported", "Example Signed")
    rights = [segment["rights"] for segment in row["segments"]]
    assert len(rights) >= 3
    assert not any("w" in right.lower() and "x" in right.lower() for right in rights)
    host.check_invariants()
    first = next(segment for segment in row["segments"] if "x" in segment["rights"].lower())
    text = host.kernel.memory.read(first["base"], 64)
    assert isinstance(text, bytes)
    assert text in data
    bases = {row["base"]}
    reboot(machinery)
    bases.add(next(row["base"] for row in host.call("module.list") if row["name"] == "realmod"))
    assert len(bases) == 2
