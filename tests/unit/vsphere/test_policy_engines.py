"""Third parties' policy engines on real simulated hosts: what each one notices, and what follows from it."""

import pickle

import attrs
import pytest

from sim.attest.engines import AllowListEngine, Case, Decision, Finding, SealEngine, SignerEngine
from sim.attest.evidence import Evidence
from sim.attest.verdict import AttestationError, Verdict
from sim.core.context import Sim
from sim.core.rng import Rng
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import BootBank
from sim.image.drivers import drivers
from sim.image.imgdb import write_database
from sim.image.install import install
from sim.image.manifest import ReferenceManifest
from sim.image.pki import Pki
from sim.image.recipes import Workshop
from sim.kernel.api import ApiError
from sim.vsphere.engagement import Action, Engagement
from sim.vsphere.faults import NoCompatibleHost

ALL = (Action.ALARM, Action.QUARANTINE, Action.WITHHOLD_KEY)
EMPTY = Evidence(
    ek_public=b"",
    ek_certificate_der=b"",
    ak_public=b"",
    credential_blob=b"",
    encrypted_secret=b"",
    activated_secret=b"",
    attest=b"",
    signature=b"",
    pcr_values={},
    event_log=b"",
)
VM = {"name": "a", "memory": 64 << 20}


def engaged(w, *engines, actions=ALL):
    w.vcenter.engagements = tuple(Engagement(engine=each, actions=actions) for each in engines)
    return w


def allow_list(w, **changes):
    return AllowListEngine(allowed=w.image.manifest, **changes)


def signer(w, **changes):
    return SignerEngine(trust=w.host.trust, boot_signers=w.pki.uefi_db, now=w.sim.epoch, **changes)


def seal(w):
    return SealEngine(w.sim.rng.stream("engine/seal"))


def rules(entry):
    return {finding.rule for decided in entry.decisions for finding in decided.findings}


def test_a_clean_host_is_trusted_by_every_engine_and_gets_its_key(world):
    w = world()
    engaged(w, allow_list(w), signer(w), seal(w))
    entry = w.add()
    assert [(each.engine, each.trusted) for each in entry.decisions] == [
        ("allow-list", True),
        ("signer", True),
        ("seal", True),
    ]
    assert (entry.policy_alarm, entry.quarantined, entry.key_withheld) == ("green", False, False)
    assert w.vcenter.engagements[2].engine.is_key_of("esx01", w.host.kernel.vms.host_key)
    assert w.vcenter.place_vm(VM) == "esx01"
    assert w.vcenter.place_vm({**VM, "name": "b", "encrypted": True}) == "esx01"


def test_a_flipped_bit_with_secure_boot_off_is_noticed_by_every_engine(world):
    w = world(secure_boot=False, require_secure_boot=False)
    engaged(w, allow_list(w), signer(w, require_secure_boot=False), seal(w))
    assert w.add().quarantined is False
    w.flip_content_bit("vmkusb.v00")
    w.reboot()
    entry = w.attest_again("on_host_rebooted")
    assert [each.trusted for each in entry.decisions] == [False, False, False]
    assert rules(entry) == {"unlisted", "unsigned", "other_state"}
    named = {f.component for each in entry.decisions[:2] for f in each.findings}
    assert named == {"vmkusb.v00"}
    assert (entry.policy_alarm, entry.quarantined, entry.key_withheld) == ("red", True, True)
    assert w.host.kernel.vms.host_key is None
    with pytest.raises(NoCompatibleHost, match="esx01: in quarantine"):
        w.vcenter.place_vm(VM)
    assert w.vcenter.host("esx01").quarantined
    assert "a" not in w.host.kernel.vms.vms


def test_the_signer_engine_survives_a_signed_update_that_the_allow_list_refuses(world):
    w = world()
    engaged(w, allow_list(w), signer(w), actions=(Action.ALARM,))
    assert w.add().policy_alarm == "green"
    update(w)
    w.reboot()
    entry = w.attest_again("on_host_rebooted")
    assert [(each.engine, each.trusted) for each in entry.decisions] == [
        ("allow-list", False),
        ("signer", True),
    ]
    assert (entry.policy_alarm, entry.quarantined) == ("red", False)


def update(w, version="9.9", name="vmkusb", rng=5, **more):
    """Install another vmkusb of the same makers into the boot bank on the disk; return what it publishes."""
    pki = Pki.create(Sim(seed=3).rng, epoch=w.sim.epoch)
    shop = Workshop(rng=Rng(rng), pki=pki, epoch=w.sim.epoch, module_bytes=2048)
    driver = attrs.evolve(next(each for each in drivers(4) if each.name == name), version=version)
    vib = shop.driver_vib(driver, with_need=False)
    old = BootBank(files={path: w.bank.read(path) for path in w.bank.paths()})
    new = install(old, vib, AcceptanceLevel.PARTNER_SUPPORTED, w.host.trust, w.sim.epoch, **more).bank
    for path, data in new.files.items():
        w.bank.write(path, data)
    return ReferenceManifest.from_bank(new, w.image.esp)


def test_an_old_version_is_refused_though_it_is_listed_and_signed(world):
    w = world()
    engaged(w, allow_list(w, least_versions={"vmkusb": "9.9-1"}), actions=(Action.QUARANTINE,))
    entry = w.add()
    assert entry.tpm_attestation.status == "accepted"
    assert rules(entry) == {"too_old"}
    assert entry.decisions[0].findings[0].component == "vmkusb.v00"
    assert (entry.quarantined, entry.policy_alarm) == (True, "green")
    published = update(w)
    w.vcenter.engagements = (
        Engagement(
            engine=AllowListEngine(
                allowed=w.image.manifest.merged(published), least_versions={"vmkusb": "9.9-1"}
            ),
            actions=(Action.QUARANTINE,),
        ),
    )
    w.reboot()
    assert not w.attest_again("on_host_rebooted").quarantined


def test_a_provider_or_a_level_that_is_not_taken_is_a_finding_that_names_the_vib(world):
    w = world()
    engaged(
        w,
        signer(w, providers=("VMware",), name="only-vmware"),
        signer(w, level=AcceptanceLevel.VMWARE_CERTIFIED, name="only-certified"),
    )
    entry = w.add()
    for decided in entry.decisions:
        assert {finding.rule for finding in decided.findings} == {"vib_provider", "unsigned"}
        assert "lsi-mr3" in {finding.component for finding in decided.findings}
        assert "esx-base" not in {finding.component for finding in decided.findings}


def test_a_signer_engine_wants_secure_boot_unless_told_otherwise(world):
    w = world(secure_boot=False, require_secure_boot=False)
    engaged(w, signer(w), signer(w, require_secure_boot=False, name="without"))
    wanting, without = w.add().decisions
    assert [finding.rule for finding in wanting.findings] == ["secure_boot"]
    assert wanting.message == "Secure Boot was off when the files were loaded"
    assert without.trusted


def test_a_revoked_signer_is_a_finding(world):
    w = world()
    pki = Pki.create(Sim(seed=3).rng, epoch=w.sim.epoch)
    certificate = pki.signer("certified", "VMware").certificate_der
    engaged(
        w,
        SignerEngine(trust=w.host.trust.revoking([certificate]), boot_signers=w.pki.uefi_db, now=w.sim.epoch),
    )
    entry = w.add()
    assert "vib_signature" in rules(entry)
    assert not entry.decisions[0].trusted


def test_an_inventory_that_was_not_booted_is_not_believed(world):
    w = world()
    engaged(w, signer(w))
    w.add()
    answer = {"database": write_database(attrs.evolve(w.image.bank.database, name="another"))}
    w.agent.call = forged(w.agent.call, "FetchImageDatabase", answer)
    entry = w.attest_again()
    assert rules(entry) == {"unreadable"}
    assert "not the one that was booted" in entry.decisions[0].message


@pytest.mark.parametrize("answer", [None, {}, {"database": "text"}, {"database": b"x" * (65 << 20)}])
def test_an_answer_that_is_no_inventory_fails_the_attestation(world, answer):
    w = world()
    engaged(w, signer(w))
    w.add()
    w.agent.call = forged(w.agent.call, "FetchImageDatabase", answer)
    entry = w.attest_again()
    assert entry.tpm_attestation.status == "notAccepted"
    assert rules(entry) == {"no_evidence"}
    assert entry.quarantined


def forged(call, wanted, answer):
    """A host agent's `call` that answers one method with something else."""

    def changed(method, params=None, *, session=""):
        found = call(method, params, session=session)
        return answer if method == wanted else found

    return changed


def test_signer_and_allow_list_trust_nothing_that_no_quote_proves(world):
    w = world()
    engaged(w, allow_list(w), signer(w), seal(w))
    w.add()
    quote = w.agent.call

    def other_values(method, params=None, *, session=""):
        found = quote(method, params, session=session)
        if method == "RetrieveTpmQuote":
            found["pcr_values"]["sha256"][13] = bytes(32)
        return found

    w.agent.call = other_values
    entry = w.attest_again()
    assert rules(entry) == {"unproven"}
    assert entry.quarantined


def test_a_host_that_was_never_accepted_has_no_known_state_and_no_key(world):
    w = world(secure_boot=False)
    engaged(w, seal(w))
    entry = w.add()
    assert entry.tpm_attestation.status == "notAccepted"
    assert rules(entry) == {"not_enrolled"}
    assert w.host.kernel.vms.host_key is None
    case = Case(host="esx01", evidence=EMPTY, verdict=Verdict(status="accepted", replayed=True))
    with pytest.raises(AttestationError, match="no state of"):
        w.vcenter.engagements[0].engine.release(case)
    with pytest.raises(AttestationError, match="was not quoted"):
        w.vcenter.engagements[0].engine.enroll(case)


def test_quarantine_ends_with_the_next_attestation_that_all_engines_trust(world):
    w = world(secure_boot=False, require_secure_boot=False)
    engaged(w, allow_list(w), seal(w))
    w.add()
    w.flip_content_bit("vmkusb.v00")
    w.reboot()
    assert w.attest_again("on_host_rebooted").quarantined
    w.flip_content_bit("vmkusb.v00")
    w.reboot()
    entry = w.attest_again("on_host_rebooted")
    assert (entry.quarantined, entry.key_withheld, entry.policy_alarm) == (False, False, "green")
    assert w.vcenter.place_vm({**VM, "encrypted": True}) == "esx01"


def test_an_engine_of_ones_own_needs_a_name_and_a_decision(world):
    class OnlyTuesdays:
        name = "only-tuesdays"

        def decide(self, case):
            return Decision(
                engine=self.name, findings=(Finding(rule="day", message=f"{case.host}: not today"),)
            )

    w = world()
    engaged(w, OnlyTuesdays(), actions=(Action.QUARANTINE,))
    assert w.add().quarantined
    assert [event.full_formatted_message for event in w.vcenter.events][3].endswith("(actions: quarantine)")


def test_an_encrypted_vm_does_not_start_without_the_hosts_key(world):
    w = world()
    w.add()
    with pytest.raises(NoCompatibleHost, match="is encrypted, and the host holds no key"):
        w.vcenter.place_vm({**VM, "encrypted": True})
    assert w.vcenter.place_vm(VM) == "esx01"


def test_the_key_of_one_host_cannot_be_opened_by_another(world):
    w, other = world(), world(serial="T2", seed=4)
    engine = seal(w)
    engaged(w, engine)
    w.add()
    other.add()
    params = {}
    call = w.agent.call

    def watched(method, given=None, *, session=""):
        if method == "EnableCrypto":
            params.update(given)
        return call(method, given, session=session)

    w.agent.call = watched
    w.attest_again()
    assert params
    with pytest.raises(ApiError, match="not for this TPM"):
        other.host.call("host.enable_crypto", params)
    assert other.host.kernel.vms.host_key is None


def test_engines_travel_with_a_pickled_vcenter(world):
    w = world()
    engaged(w, allow_list(w), signer(w), seal(w))
    w.add()
    again = pickle.loads(pickle.dumps(w.vcenter))
    assert again.host("esx01").decisions == w.vcenter.host("esx01").decisions
    assert [each.engine.name for each in again.engagements] == ["allow-list", "signer", "seal"]
