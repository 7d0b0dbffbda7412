"""Whole lives of a host whose image is updated: a good update stays, a bad one rolls back by itself."""

import attrs
import pytest

from sim.hw.disk import DiskError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootcfg import parse_boot_config
from sim.image.bundle import depot_of, write_bundle
from sim.image.metadata import Descriptor
from sim.image.payload import content_of, gzip_stored
from sim.image.profile import ImageProfile
from sim.image.tar import TarEntry, with_parents
from sim.image.vib import Payload, build_vib, read_vib, write_vib
from sim.image.vtar import write_vtar
from sim.kernel.api import ApiError
from sim.kernel.host import HostState
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario, VCenterSpec

SECOND = 10**9


@pytest.fixture
def machinery():
    made = build(Scenario(image=ImageSpec(modules=2, module_size_bytes=2048), vcenter=VCenterSpec()), 5)
    made.host.power_on()
    run(made)
    assert made.host.state is HostState.RUNNING
    return made


def run(machinery, seconds=60):
    machinery.sim.engine.run(machinery.sim.now + seconds * SECOND)


def tool(machinery, version="1.0-1", name="tool"):
    path = f"opt/{name}/run"
    spec = Descriptor(
        name=name,
        version=version,
        vendor="Example",
        level=AcceptanceLevel.PARTNER_SUPPORTED,
        files=(path,),
    )
    archive = write_vtar(with_parents([TarEntry(path=path, data=version.encode())]))
    payload = Payload(name=name, kind="vgz", data=gzip_stored(archive))
    signer = machinery.pki.signer("partner", "Example")
    return read_vib(build_vib(spec, [payload], signer, machinery.sim.epoch))


def bundle(machinery, version="1.0-1"):
    """A bundle with all installed VIBs and the tool, and a profile of them."""
    store = machinery.host.board.disk.volume("store")
    vibs = [read_vib(store.peek(path)) for path in store.paths() if path.endswith(".vib")]
    vibs = [*vibs, tool(machinery, version)]
    order = [record.descriptor.vib_id for record in database(machinery, "bootbank").records]
    ids = [one for one in order if "_tool_" not in one] + [vibs[-1].vib_id]
    profile = ImageProfile(
        name="new", vendor="Example", level=AcceptanceLevel.PARTNER_SUPPORTED, vib_ids=tuple(ids)
    )
    return write_bundle(depot_of(vibs, vendor="Example", made_at=machinery.sim.epoch, profiles=[profile]))


def database(machinery, bank):
    from sim.image.imgdb import read_database

    return read_database(machinery.host.board.disk.volume(bank).peek("imgdb.tgz"))


def config(machinery, bank):
    return parse_boot_config(machinery.host.board.disk.volume(bank).peek("boot.cfg"))


def update(machinery, **options):
    call = {"bundle": bundle(machinery, **options), "profile": "new"}
    return machinery.host.call("image.update", call)


def versions(machinery):
    return {row["name"]: row["version"] for row in machinery.host.call("image.vibs")}


def damage(machinery):
    """Change a byte of the update's payload and pack it again, so that only its signed digest tells."""
    volume = machinery.host.board.disk.volume("altbootbank")
    volume.write("tool.v00", gzip_stored(content_of(volume.peek("tool.v00")) + b"x"))


def lines(machinery):
    return [row["text"] for row in machinery.sim.trace.select("log.line")]


def test_a_good_update_goes_into_the_other_bank_and_stays(machinery):
    before = {
        path: machinery.host.board.disk.volume("bootbank").peek(path) for path in ("boot.cfg", "imgdb.tgz")
    }
    answer = update(machinery)
    assert (answer["bank"], answer["installed"]) == ("altbootbank", ["Example_bootbank_tool_1.0-1"])
    assert (config(machinery, "altbootbank").bootstate, config(machinery, "altbootbank").updated) == (1, 2)
    assert all(
        machinery.host.board.disk.volume("bootbank").peek(path) == data for path, data in before.items()
    )
    machinery.host.reboot()
    run(machinery)
    assert machinery.host.state is HostState.RUNNING, machinery.host.failure
    assert machinery.host.boot.bank == "altbootbank"
    assert config(machinery, "altbootbank").bootstate == 0
    assert versions(machinery)["tool"] == "1.0-1"
    machinery.host.reboot()
    run(machinery)
    assert machinery.host.boot.bank == "altbootbank"


def test_what_lay_in_the_other_bank_is_gone_after_an_update(machinery):
    other = machinery.host.board.disk.volume("altbootbank")
    other.write("old.v00", b"left over")
    update(machinery)
    assert not other.exists("old.v00")
    machinery.host.reboot()
    run(machinery)
    assert machinery.host.boot.bank == "altbootbank"


def test_the_next_update_goes_back_into_the_first_bank(machinery):
    update(machinery)
    machinery.host.reboot()
    run(machinery)
    assert update(machinery, version="2.0-1")["bank"] == "bootbank"
    machinery.host.reboot()
    run(machinery)
    assert (machinery.host.boot.bank, versions(machinery)["tool"]) == ("bootbank", "2.0-1")


def test_a_bad_update_is_tried_once_and_rolls_back_at_the_next_reset(machinery):
    update(machinery)
    damage(machinery)
    machinery.host.reboot()
    run(machinery)
    assert machinery.host.state is HostState.HALTED
    assert "[tool]" in machinery.host.failure.message
    assert config(machinery, "altbootbank").bootstate == 2
    machinery.host.reset()
    run(machinery)
    assert machinery.host.state is HostState.RUNNING, machinery.host.failure
    assert machinery.host.boot.bank == "bootbank"
    assert "tool" not in versions(machinery)
    assert any("did not come up; rolling back" in line for line in lines(machinery))
    machinery.host.reset()
    run(machinery)
    assert machinery.host.boot.bank == "bootbank"


def test_vcenter_loses_a_host_with_a_bad_update_and_accepts_it_after_the_rollback(machinery):
    vcenter, errors = machinery.vcenter, []
    vcenter.add_host(machinery.agent, on_error=errors.append)
    run(machinery)
    assert vcenter.host("esx01").tpm_attestation.status == "accepted"
    update(machinery)
    damage(machinery)
    machinery.host.reboot()
    run(machinery)
    vcenter.reconnect_host("esx01", on_error=errors.append)
    run(machinery)
    assert vcenter.host("esx01").connection_state == "notResponding"
    machinery.host.reset()
    run(machinery)
    vcenter.on_host_rebooted("esx01", on_error=errors.append)
    run(machinery)
    entry = vcenter.host("esx01")
    assert (entry.connection_state, entry.tpm_attestation.status) == ("connected", "accepted")
    assert len(errors) == 1


def test_a_power_cut_before_the_management_interface_is_open_rolls_back_too(machinery):
    update(machinery)
    machinery.host.reboot()
    while config(machinery, "altbootbank").bootstate == 1:
        machinery.sim.engine.run(machinery.sim.now + SECOND // 10)
    machinery.host.power_off()
    machinery.host.power_on()
    run(machinery)
    assert (machinery.host.state, machinery.host.boot.bank) == (HostState.RUNNING, "bootbank")


def test_without_another_bank_a_bad_update_has_nowhere_to_go(machinery):
    update(machinery)
    disk = machinery.host.board.disk
    disk.volume("bootbank").clear()
    disk.volume("altbootbank").flip_bit("tool.v00", 4000)
    for _ in range(2):
        machinery.host.reset()
        run(machinery)
    assert machinery.host.failure.message == "Fatal error: 15 (Not found)"


def test_an_update_that_breaks_a_rule_leaves_both_banks_as_they_were(machinery):
    disk = machinery.host.board.disk
    before = {
        bank: {path: disk.volume(bank).peek(path) for path in disk.volume(bank).paths()}
        for bank in ("bootbank", "altbootbank")
    }
    good = bundle(machinery)
    for data, profile, code in (
        (good, "other", "depot.profile"),
        (good[:-1], "new", "InvalidArgument"),
        (good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], "new", ""),
    ):
        with pytest.raises(ApiError) as caught:
            machinery.host.call("image.update", {"bundle": data, "profile": profile})
        assert code in caught.value.code
    after = {
        bank: {path: disk.volume(bank).peek(path) for path in disk.volume(bank).paths()} for bank in before
    }
    assert after == before


def contents(machinery, bank):
    volume = machinery.host.board.disk.volume(bank)
    return {path: volume.peek(path) for path in volume.paths()}


def install(machinery, *vibs, **options):
    return [machinery.host.call("image.install", {"archive": write_vib(vib), **options}) for vib in vibs]


def again(machinery):
    machinery.host.reset()
    run(machinery)
    return machinery.host.state, machinery.host.boot.bank if machinery.host.boot else ""


def test_an_installation_goes_into_the_other_bank_and_stays_once_it_has_booted(machinery):
    before = contents(machinery, "bootbank")
    (answer,) = install(machinery, tool(machinery))
    assert (answer["bank"], answer["installed"]) == ("altbootbank", ["Example_bootbank_tool_1.0-1"])
    assert contents(machinery, "bootbank") == before
    assert "tool" not in versions(machinery)
    assert config(machinery, "altbootbank").bootstate == 1
    assert again(machinery) == (HostState.RUNNING, "altbootbank")
    assert (versions(machinery)["tool"], config(machinery, "altbootbank").bootstate) == ("1.0-1", 0)


def test_a_forced_installation_that_secure_boot_refuses_rolls_back_at_the_next_boot(machinery):
    vib = attrs.evolve(tool(machinery), signature=b"")
    (answer,) = install(machinery, vib, force=True)
    assert answer["warnings"]
    machinery.host.reboot()
    run(machinery)
    assert machinery.host.state is HostState.HALTED
    assert "[tool]" in machinery.host.failure.message
    assert again(machinery) == (HostState.RUNNING, "bootbank")
    assert "tool" not in versions(machinery)


def test_two_installations_before_a_boot_come_together(machinery):
    answers = install(machinery, tool(machinery), tool(machinery, name="other"))
    assert [answer["bank"] for answer in answers] == ["altbootbank"] * 2
    assert config(machinery, "altbootbank").updated == 3
    assert again(machinery) == (HostState.RUNNING, "altbootbank")
    assert {"tool", "other"} <= versions(machinery).keys()


def test_what_is_installed_already_stages_nothing(machinery):
    install(machinery, tool(machinery))
    staged = contents(machinery, "altbootbank")
    assert install(machinery, tool(machinery))[0]["bank"] == ""
    assert contents(machinery, "altbootbank") == staged


def test_an_option_set_while_an_update_waits_holds_after_it_and_after_its_rollback(machinery):
    for spoil in (False, True):
        install(machinery, tool(machinery, "2.0-1" if spoil else "1.0-1"))
        value = "TRUE" if spoil else "FALSE"
        machinery.host.call("host.set_option", {"key": "execInstalledOnly", "value": value})
        assert machinery.host.call("host.options")["next_boot"]["execInstalledOnly"] == value
        if spoil:
            volume = machinery.host.board.disk.volume("bootbank")
            volume.write("tool.v00", gzip_stored(b"damaged"))
            assert again(machinery)[0] is HostState.HALTED
        assert again(machinery) == (HostState.RUNNING, "altbootbank")
        assert machinery.host.call("host.options")["current"]["execInstalledOnly"] == value


def test_an_installation_that_the_disk_cannot_take_leaves_the_running_bank_bootable(machinery, monkeypatch):
    before = contents(machinery, "bootbank")
    disk = machinery.host.board.disk
    other = disk.volume("altbootbank")
    written = []

    def full(path, data):
        if len(written) == 3:
            raise DiskError("altbootbank is full")
        written.append(path)
        return type(other).write(other, path, data)

    monkeypatch.setattr(other, "write", full)
    with pytest.raises(ApiError, match="is full"):
        install(machinery, tool(machinery))
    monkeypatch.undo()
    assert not other.exists("boot.cfg")
    assert contents(machinery, "bootbank") == before
    assert again(machinery) == (HostState.RUNNING, "bootbank")


def test_an_update_that_failed_is_no_base_for_the_next_installation(machinery):
    install(machinery, tool(machinery))
    damage(machinery)
    again(machinery)
    assert again(machinery) == (HostState.RUNNING, "bootbank")
    install(machinery, tool(machinery, name="other"))
    assert again(machinery) == (HostState.RUNNING, "altbootbank")
    assert "other" in versions(machinery)
    assert "tool" not in versions(machinery)
