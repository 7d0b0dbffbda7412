"""Programs on a running host: what an installed VIB holds runs, anything else only where execInstalledOnly is off."""

import pytest

from sim.errors import FormatError, VmksimError
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import BootBank
from sim.image.contents import open_archive
from sim.image.elf import read_elf
from sim.image.install import install, set_acceptance
from sim.image.metadata import Descriptor
from sim.image.pathrules import ANYWHERE
from sim.image.payload import content_of, gzip_stored
from sim.image.tar import TarEntry, read_ustar, with_parents, write_ustar
from sim.image.vib import Payload, build_vib, read_vib
from sim.image.vtar import write_vtar
from sim.kernel import userworld
from sim.kernel.execution import ProgramRefused
from sim.kernel.host import HostState
from sim.kernel.program_loading import load_program
from sim.kernel.userworld import AGENTS, LIBRARIES
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario

COMMUNITY_SUPPORTED = AcceptanceLevel.COMMUNITY_SUPPORTED
ON, OFF = (("execInstalledOnly", "TRUE"),), (("execInstalledOnly", "FALSE"),)


def booted(options, secure_boot=True, before=None):
    scenario = Scenario(
        image=ImageSpec(modules=2, module_size_bytes=2048),
        host=HostSpec(firmware=FirmwareSpec(secure_boot=secure_boot)),
        options=dict(options),
    )
    machinery = build(scenario, 5)
    if before is not None:
        before(machinery.host.board.disk.volume("bootbank"))
    machinery.host.power_on()
    machinery.sim.engine.run(60 * 10**9)
    assert machinery.host.state is HostState.RUNNING, machinery.host.failure
    return machinery


def program(machinery, path=AGENTS[0]):
    """The bytes of an installed program."""
    for module in machinery.host.boot.modules:
        for entry in open_archive(module.content):
            if entry.path == path:
                return entry.data
    raise AssertionError(path)


def run_again(machinery, path, data):
    """Start a program after its running instance was ended."""
    kernel = machinery.host.kernel
    kernel.user_worlds.running.pop(path.rpartition("/")[2], None)
    return kernel.execute(path, data)


def outcomes(machinery):
    return [(row["path"], row["outcome"], row["check"]) for row in machinery.sim.trace.select("exec.program")]


@pytest.mark.parametrize("options", [ON, OFF])
def test_an_installed_program_runs_and_is_traced(options):
    machinery = booted(options)
    started = run_again(machinery, AGENTS[0], program(machinery))
    assert machinery.host.kernel.user_worlds.running["hostd"] is started
    assert outcomes(machinery) == [(AGENTS[0], "installed", "")]


@pytest.mark.parametrize(
    ("path", "change", "check"),
    [
        ("vmfs/volumes/store/tool", b"", "exec.not-installed"),
        ("bin/hostd2", b"", "exec.not-installed"),
        (AGENTS[0], b"\0", "exec.bytes"),
    ],
)
def test_a_program_that_is_not_installed_runs_only_where_the_option_is_off(path, change, check):
    strict = booted(ON)
    data = program(strict) + change
    worlds = dict(strict.host.kernel.user_worlds.running)
    worlds.pop(path.rpartition("/")[2], None)
    with pytest.raises(ProgramRefused) as caught:
        run_again(strict, path, data)
    assert caught.value.check == check
    assert strict.host.kernel.user_worlds.running == worlds
    assert outcomes(strict) == [(path, "refused", check)]

    lax = booted(OFF)
    assert run_again(lax, path, data).name == path.rpartition("/")[2]
    assert outcomes(lax) == [(path, "allowed", check)]
    lines = [row["text"] for row in lax.sim.trace.select("log.line")]
    assert any("although it is not installed" in line for line in lines)


def drop_into_state(bank, **files):
    """Put files into the saved state, which no signature covers."""
    dropped = files or {"bin/implant": b"\x7fELFimplant"}
    entries = read_ustar(content_of(bank.peek("state.tgz")))
    entries = [*entries, *(TarEntry(path=path, data=data, mode=0o755) for path, data in dropped.items())]
    files = [entry for entry in entries if entry.data]
    bank.write("state.tgz", gzip_stored(write_ustar(with_parents(files))))


def test_a_program_that_came_in_by_the_saved_state_is_not_installed():
    machinery = booted(ON, secure_boot=False, before=drop_into_state)
    with pytest.raises(ProgramRefused) as caught:
        machinery.host.kernel.execute("bin/implant", b"\x7fELFimplant")
    assert caught.value.check == "module.unowned"


def test_a_program_whose_vib_lost_its_signature_is_refused():
    def strip(bank):
        import attrs

        from sim.image.imgdb import read_database, write_database

        database = read_database(bank.peek("imgdb.tgz"))
        records = [
            attrs.evolve(one, signature=b"") if one.descriptor.name == "esx-base" else one
            for one in database.records
        ]
        bank.write("imgdb.tgz", write_database(attrs.evolve(database, records=tuple(records))))

    machinery = booted(ON, secure_boot=False, before=strip)
    with pytest.raises(ProgramRefused) as caught:
        machinery.host.kernel.execute(AGENTS[0], program(machinery))
    assert caught.value.check == "vib.signature-missing"
    assert not machinery.host.kernel.user_worlds.running


def test_a_program_runs_once_under_its_name():
    machinery = booted(ON)
    with pytest.raises(VmksimError, match="runs already"):
        machinery.host.kernel.execute(AGENTS[0], program(machinery))


def altered(library):
    """The library with one byte changed, still a good ELF file."""
    for at in range(0x1000, len(library)):
        other = library[:at] + bytes([library[at] ^ 1]) + library[at + 1 :]
        try:
            read_elf(other)
        except FormatError:
            continue
        return other
    raise AssertionError("no byte can be changed")


@pytest.mark.parametrize("options", [ON, OFF])
def test_a_library_of_the_saved_state_is_linked_with_no_program(options, monkeypatch):
    linked = []

    def watched(layout, name, program, libraries):
        linked.append(dict(libraries))
        return load_program(layout, name, program, libraries)

    clean = booted(options)
    good = program(clean, LIBRARIES[0])
    evil = altered(good)
    files = {AGENTS[1]: b"\x7fELFagent", LIBRARIES[0]: evil}
    machinery = booted(options, before=lambda bank: drop_into_state(bank, **files))
    assert machinery.host.boot.modules[-1].name == "state.tgz"
    monkeypatch.setattr(userworld, "load_program", watched)
    machinery.host.kernel.execute("bin/sh", program(clean, "bin/sh"))
    assert outcomes(machinery) == [("bin/sh", "installed", "")]
    assert linked == [{LIBRARIES[0]: good}]


def test_a_program_at_a_path_beyond_its_vibs_level_is_not_installed():
    """The bank was written by hand: no installation would have let the VIB bring the path."""
    clean = booted(ON)
    data = program(clean, "bin/sh") + b"changed"

    def put(volume):
        spec = Descriptor(
            name="evil", version="1.0-1", vendor="Nobody", level=COMMUNITY_SUPPORTED, files=("bin/sh",)
        )
        archive = write_vtar(with_parents([TarEntry(path="bin/sh", data=data, mode=0o755)]))
        payload = Payload(name="evil", kind="vgz", data=gzip_stored(archive))
        vib = read_vib(build_vib(spec, [payload], None, clean.sim.epoch))
        bank = BootBank(files={path: volume.peek(path) for path in volume.paths()})
        bank = set_acceptance(bank, COMMUNITY_SUPPORTED)
        trust, now = clean.host.kernel.trust, clean.sim.epoch
        changed = install(bank, vib, COMMUNITY_SUPPORTED, trust, now, paths=ANYWHERE, force=True)
        volume.copy_from(changed.bank.files.items())

    machinery = booted(ON, secure_boot=False, before=put)
    assert machinery.host.boot.modules[-3].name == "evil.v00"
    with pytest.raises(ProgramRefused) as caught:
        machinery.host.kernel.execute("bin/sh", data)
    assert caught.value.check == "exec.path"
