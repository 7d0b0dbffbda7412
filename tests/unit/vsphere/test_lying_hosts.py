"""What vCenter and its policy engines do not take from a host: its word on reboots, on its TPM, on its loaders."""

import pytest

from sim.attest.engines import AllowListEngine, SealEngine, SignerEngine
from sim.core.rng import Rng
from sim.image.efi import build_efi
from sim.image.efi_lists import encode_signature_lists
from sim.image.pki import Pki
from sim.scenario.strike_launch import strike_tpm_reset
from sim.tpm.client import TpmClient
from sim.vsphere.engagement import Action, Engagement
from sim.vsphere.faults import NoCompatibleHost

QUARANTINE = (Action.ALARM, Action.QUARANTINE, Action.WITHHOLD_KEY)
LOADER = "EFI/VMware/mboot64.efi"


class Liar:
    """Stands before a host and changes what it says of itself."""

    def __init__(self, host, **changes):
        self.host = host
        self.changes = changes

    def call(self, name, params=None):
        answer = self.host.call(name, params)
        return {**answer, **self.changes} if name == "host.info" else answer


class Fault:
    kind = "tpm_reset"


def engaged(w, *engines):
    w.vcenter.engagements = tuple(Engagement(engine=each, actions=QUARANTINE) for each in engines)
    return w


def codes(entry):
    return [reason.code for reason in entry.reasons]


def rules(entry):
    return {finding.rule for decided in entry.decisions for finding in decided.findings}


def test_a_reset_tpm_with_its_log_replayed_is_no_reboot_because_the_host_says_so(world):
    w = world()
    w.add()
    TpmClient(w.board.tpm.transmit).pcr_extend(12, {11: b"\x66" * 32})
    assert w.attest_again().tpm_attestation.status == "notAccepted"
    strike_tpm_reset(Fault(), w.host)
    w.agent._host = Liar(w.host, boot_id="f" * len(w.host.boot.boot_id))
    assert codes(w.attest_again()) == ["unseen_reboot"]
    w.agent._host = w.host
    assert codes(w.attest_again()) == ["tpm_reset"]


@pytest.mark.parametrize("how", ["reported", "disconnected", "unreachable"])
def test_a_host_that_was_out_of_sight_may_have_rebooted(world, how):
    w = world()
    w.add()
    if how == "disconnected":
        w.vcenter.disconnect_host("esx01")
    if how == "unreachable":
        w.host.power_off()
        w.vcenter.reconnect_host("esx01", on_error=w.errors.append)
        w.run()
        assert w.vcenter.host("esx01").connection_state == "notResponding"
        w.host.power_on()
        w.run(60)
    else:
        w.reboot()
    if how != "reported":
        w.agent.restart()
    entry = w.attest_again("on_host_rebooted" if how == "reported" else "reconnect_host")
    assert (entry.tpm_attestation.status, entry.away) == ("accepted", False)


@pytest.mark.parametrize("state", ["absent", "disabled"])
def test_a_host_that_denies_its_tpm_stays_in_quarantine(world, state):
    w = world(secure_boot=False, require_secure_boot=False)
    engaged(w, AllowListEngine(allowed=w.image.manifest))
    assert not w.add().quarantined
    w.flip_content_bit("vmkusb.v00")
    w.reboot()
    assert w.attest_again("on_host_rebooted").quarantined
    w.agent._host = Liar(w.host, tpm=state)
    entry = w.attest_again()
    assert entry.attestation_column == "N/A"
    assert (entry.quarantined, entry.key_withheld) == (True, True)
    assert (entry.alarm, entry.policy_alarm) == ("red", "red")
    assert rules(entry) == {"no_evidence"}
    with pytest.raises(NoCompatibleHost, match="esx01: in quarantine"):
        w.vcenter.place_vm({"name": "a", "memory": 64 << 20})


@pytest.mark.parametrize("tpm", ["absent", "disabled"])
def test_engines_trust_no_host_without_evidence_and_without_engines_it_is_not_applicable(world, tpm):
    alone = world(tpm=tpm)
    entry = alone.add()
    assert (entry.attestation_column, entry.alarm, entry.quarantined) == ("N/A", "gray", False)
    w = world(tpm=tpm)
    engaged(w, AllowListEngine(allowed=w.image.manifest))
    assert w.add().quarantined


def test_another_tpm_under_the_name_of_an_accepted_host_gets_neither_verdict_nor_key(world):
    w, other = world(serial="A"), world(serial="B")
    seal = SealEngine(Rng(9).stream("seal"))
    engaged(w, seal)
    w.add()
    for _ in range(3):  # the other TPM's counters and clock are ahead
        other.boot() if other.host.kernel is None else other.reboot()
    w.agent._host = other.host
    entry = w.attest_again("on_host_rebooted")
    assert codes(entry) == ["other_tpm"]
    assert (entry.quarantined, entry.key_withheld) == (True, True)
    assert other.host.kernel.vms.host_key is None
    w.vcenter.remove_host("esx01")
    w.vcenter.add_host(w.agent, on_error=w.errors.append)
    w.run()
    entry = w.vcenter.host("esx01")
    assert entry.tpm_attestation.status == "accepted"  # it was removed and added anew: another host
    assert rules(entry) == {"other_tpm"}  # whose key is still the first one's
    assert other.host.kernel.vms.host_key is None


def test_a_changed_driver_withholds_the_key_of_a_host_that_launches_late(world):
    w = world(txt=True, kernelopt="enableTboot=TRUE", secure_boot=False, require_secure_boot=False)
    engaged(w, SealEngine(Rng(9).stream("seal")))
    assert not w.add().key_withheld
    assert w.host.boot.drtm
    w.reboot()
    assert not w.attest_again("on_host_rebooted").key_withheld  # the same state
    w.flip_content_bit("vmkusb.v00")
    w.reboot()
    entry = w.attest_again("on_host_rebooted")
    assert (rules(entry), entry.key_withheld) == ({"other_state"}, True)


def test_an_unknown_loader_is_refused_by_the_allow_list(world):
    w = world(secure_boot=False, require_secure_boot=False)
    w.board.disk.volume("esp").write(LOADER, build_efi(b"another loader" * 20))
    engaged(w, AllowListEngine(allowed=w.image.manifest))
    entry = w.add()
    assert rules(entry) == {"loader"}
    assert entry.quarantined


def test_a_loader_let_in_by_an_enrolled_key_is_refused_by_both_engines(world):
    w = world()
    stranger = Pki.create(Rng(999), epoch=w.sim.epoch)
    w.board.firmware.set_variable("db", encode_signature_lists((*w.pki.uefi_db, *stranger.uefi_db)))
    loader = build_efi(b"another loader" * 30, stranger.loader_signer, when=w.sim.epoch)
    w.board.disk.volume("esp").write(LOADER, loader)
    signer = SignerEngine(trust=w.host.trust, boot_signers=w.pki.uefi_db)
    engaged(w, signer, AllowListEngine(allowed=w.image.manifest))
    entry = w.add()
    assert [{finding.rule for finding in each.findings} for each in entry.decisions] == [
        {"authority"},
        {"loader"},
    ]


def test_a_signer_is_judged_at_the_time_of_the_appraisal(world):
    w = world()
    signer = SignerEngine(trust=w.host.trust, boot_signers=w.pki.uefi_db)
    engaged(w, signer)
    entry = w.add()
    assert w.sim.epoch < entry.case.now <= entry.tpm_attestation.time
    assert not entry.quarantined
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(w.sim, "epoch", w.sim.epoch.replace(year=w.sim.epoch.year + 60))
        late = w.attest_again()
    assert "vib_signature" in rules(late)
