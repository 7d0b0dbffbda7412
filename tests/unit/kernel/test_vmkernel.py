"""Claims about the VMkernel's start: order, placement, W^X, module table, what a broken image does."""

import re

import pytest

from sim.errors import SimBug
from sim.image.payload import gzip_stored
from sim.kernel.host import HostState
from sim.kernel.vmkernel import START, VMkernel
from sim.scenario.faults import FaultSpec
from sim.scenario.strike import strike


def lines(machinery, source="vmkernel"):
    return [row["text"] for row in machinery.sim.trace.select("log.line") if row["source"] == source]


def kernel(machinery):
    return machinery.host.kernel


def test_the_start_order_is_that_of_the_table(boot, monkeypatch):
    called = []

    def watched(step, original):
        def wrapper(self):
            called.append(step)
            original(self)

        return wrapper

    for step in START:
        monkeypatch.setattr(VMkernel, step, watched(step, getattr(VMkernel, step)))
    boot()
    assert tuple(called) == START


def test_all_modules_of_the_image_are_loaded_with_provider_and_level(machinery):
    rows = machinery.host.call("module.list")
    assert rows[0]["name"] == "vmkernel"
    assert len(rows) == 5
    assert kernel(machinery).refused == []
    for row in rows:
        assert row["signed"] == f"{row['provider']} Signed"
        assert row["level"] in ("PartnerSupported", "VMwareAccepted", "VMwareCertified")


def test_no_page_is_writable_and_executable_and_all_parts_agree(machinery):
    machinery.host.check_invariants()
    for row in machinery.host.call("module.list"):
        rights = [segment["rights"] for segment in row["segments"]]
        assert any("x" in right.lower() for right in rights)
        assert not any("w" in right.lower() and "x" in right.lower() for right in rights)


def test_regions_move_with_the_seed_and_with_each_boot(boot):
    first = boot()
    again = boot()
    bases = [row["base"] for row in first.host.call("module.list")]
    assert [row["base"] for row in again.host.call("module.list")] == bases
    again.host.call("host.reboot")
    again.sim.engine.run()
    moved = [row["base"] for row in again.host.call("module.list")]
    assert len(moved) == len(bases)
    assert not set(moved) & set(bases)


def test_agents_run_in_spaces_of_their_own(machinery):
    worlds = kernel(machinery).user_worlds.running
    assert list(worlds) == ["hostd", "vpxa"]
    programs = machinery.sim.trace.select("userworld.started")
    places = [row[part] for row in programs for part in ("program", "library", "heap", "stack")]
    assert len(set(places)) == len(places)
    assert 0 not in places
    for world in worlds.values():
        for segment in world.memory.segments():
            assert segment.rights.user
            assert not (segment.rights.write and segment.rights.execute)


def test_a_driver_that_was_changed_and_packed_again_is_refused_by_the_kernel(boot, specs):
    def tamper(machinery):
        fault = FaultSpec(kind="flip_bit", target="vib/vmkusb", unpacked=True, byte=0x2400, bit=0)
        strike(fault, 0, machinery.host.board)

    machinery = boot(before=tamper, host={"firmware": specs["firmware"](secure_boot=False)})
    assert machinery.host.state is HostState.RUNNING
    assert kernel(machinery).refused == ["vmkusb"]
    assert any("Loading module vmkusb failed" in line for line in lines(machinery))
    assert all(row["name"] != "vmkusb" for row in machinery.host.call("module.list"))


def test_an_unreadable_image_database_refuses_every_module_but_not_the_boot(boot, specs):
    def spoil(machinery):
        machinery.host.board.disk.volume("bootbank").write("imgdb.tgz", gzip_stored(b"junk"))

    machinery = boot(before=spoil, host={"firmware": specs["firmware"](secure_boot=False)})
    (row,) = machinery.host.call("module.list")
    assert (row["name"], row["signed"]) == ("vmkernel", "Not verified (module.unowned)")
    assert kernel(machinery).refused == ["vmkusb", "lsi_mr3", "nmlx5_core", "ixgben", "s.v00"]
    assert any("image database cannot be read" in line for line in lines(machinery))


@pytest.mark.parametrize(
    ("state", "line", "answer"),
    [
        ("present", r"tpmDriver: TPM 2\.0 device loaded, manufacturer", "enabled"),
        ("disabled", r"Error loading TPM$", "disabled"),
        ("absent", r"VMB_TPM: no TPM device found", "absent"),
    ],
)
def test_the_boot_goes_on_whatever_the_tpm_is(boot, specs, state, line, answer):
    machinery = boot(tpm=specs["tpm"](state=state))
    assert machinery.host.state is HostState.RUNNING
    assert any(re.match(line, text) for text in lines(machinery))
    assert any(text == "Error loading TPM" for text in lines(machinery)) == (state == "disabled")
    assert machinery.host.call("tpm.state")["state"] == answer


def test_a_kernel_that_ends_without_a_beginning_is_a_bug(machinery):
    running = kernel(machinery)
    running._on_started = None
    with pytest.raises(SimBug):
        running._finish()
