"""vCenter and real simulated hosts: verdicts, inventory, events, alarm, and what makes it attest again."""

import pickle

import pytest

from sim.attest.esxi_report import replay_report
from sim.attest.tpm_report import (
    CommandDetails,
    OptionDetails,
    SignerDetails,
    SoftwareComponentDetails,
    VersionDetails,
)
from sim.boot.logform import FORMS
from sim.core.units import MS
from sim.kernel import quoting
from sim.tpm.client import TpmClient
from sim.tpm.eventlog import EV, parse
from sim.tpm.templates import SIGNING_KEY
from sim.vsphere.attestation_run import NOT_ACTIVATED, TPM_UNREACHABLE
from sim.vsphere.faults import AlreadyConnected, InvalidLogin, NotAuthenticated, NotFound, NotSupported
from sim.vsphere.inventory import ATTESTATION_FAILED_EVENT
from sim.vsphere.vcenter import VCenter


def details(entry, kind):
    return [one.event_details for one in entry.report.tpm_events if type(one.event_details) is kind]


def test_a_clean_host_is_accepted_and_the_alarm_turns_green(world):
    w = world()
    entry = w.add()
    assert (entry.tpm_attestation.status, entry.tpm_attestation.message) == ("accepted", "")
    assert (entry.attestation_column, entry.alarm, entry.connection_state) == ("Passed", "green", "connected")
    assert w.event_types() == ["HostAddedEvent", "HostConnectedEvent", "AlarmStatusChangedEvent"]
    assert [row["status"] for row in w.sim.trace.select("vcenter.attestation")] == ["accepted"]
    assert w.errors == []


def test_the_inventory_holds_pcr_values_and_events_that_replay(world):
    entry = world().add()
    assert [value.pcr_number for value in entry.report.tpm_pcr_values] == [
        *range(8),
        *range(11, 15),
        *range(17, 23),
    ]
    assert replay_report(entry.report).matches == (11, 12, 13, 14)
    assert replay_report(entry.report).mismatches == ()
    assert entry.report.log_reliable is True
    base = next(one for one in details(entry, SoftwareComponentDetails) if one.component_name == "k.b00")
    assert (base.vib_name, base.vib_vendor) == ("esx-base", "VMware")
    assert {one.options_file_name for one in details(entry, OptionDetails)} >= {"useropts.gz", "jumpstrt.gz"}
    assert len(details(entry, CommandDetails)) == 1
    assert len(details(entry, SignerDetails)) == 1
    assert {type(one.event_details) for one in entry.report.tpm_events} >= {VersionDetails}


def test_a_boot_option_that_comes_to_nothing_is_no_reason_against_a_host(world):
    w = world()
    w.board.firmware.set_boot_option(3, "Network", "\\EFI\\network.efi")
    w.board.firmware.set_variable("BootOrder", b"\x03\x00\x01\x00")
    assert w.add().tpm_attestation.status == "accepted"
    returning = b"Returning from EFI Application from Boot Option"
    assert returning in [event.data for event in parse(w.host.boot.event_log).events]


def test_a_dynamic_launch_shows_in_pcr_17_to_21(world):
    entry = world(kernelopt="enableTboot=TRUE", txt=True, launch="required").add()
    assert entry.tpm_attestation.status == "accepted"
    assert replay_report(entry.report).matches == (17, 18, 19, 20, 21)
    names = [one.component_name for one in details(entry, SoftwareComponentDetails)]
    assert names.count("TPM_EVENT_LOG_PREBOOT") > 10


def test_secure_boot_off_is_not_accepted_and_the_alarm_turns_red(world):
    w = world(secure_boot=False)
    entry = w.add()
    assert (entry.tpm_attestation.status, entry.tpm_attestation.message) == (
        "notAccepted",
        "Host secure boot was disabled",
    )
    assert (entry.attestation_column, entry.alarm) == ("Failed", "red")
    assert ATTESTATION_FAILED_EVENT in w.event_types()
    assert w.vcenter.events[-1].full_formatted_message == (
        "Alarm 'Host TPM attestation alarm' on esx01 changed from gray to red"
    )


def test_one_flipped_bit_of_a_module_is_named_when_secure_boot_lets_it_pass(world):
    w = world(secure_boot=False)
    w.flip_content_bit("s.v00")
    entry = w.add()
    assert entry.tpm_attestation.status == "notAccepted"
    assert "component s.v00 of esx-base is not as its vendor published it" in entry.tpm_attestation.message
    assert [reason.component for reason in entry.reasons if reason.component] == ["s.v00"]
    assert entry.report.log_reliable is True


@pytest.mark.parametrize("tpm", ["absent", "disabled"])
def test_a_host_without_a_usable_tpm_is_not_applicable(world, tpm):
    w = world(tpm=tpm)
    entry = w.add()
    assert entry.tpm_attestation is None
    assert (entry.attestation_column, entry.alarm, entry.report.tpm_pcr_values) == ("N/A", "gray", ())
    assert w.event_types() == ["HostAddedEvent", "HostConnectedEvent"]


def test_a_tpm_that_stops_answering_fails_attestation_in_vmware_s_words(world):
    w = world().boot()
    w.board.tpm.transmit = lambda command, *, locality=0: bytes.fromhex("80010000000a00000101")
    w.vcenter.add_host(w.agent)
    w.run()
    entry = w.vcenter.host("esx01")
    assert (entry.tpm_attestation.status, entry.tpm_attestation.message) == ("notAccepted", TPM_UNREACHABLE)
    assert entry.alarm == "red"


def test_attestation_takes_the_time_of_the_tpm_and_the_network(world):
    w = world().boot()
    began = w.sim.now
    finished = []
    w.vcenter.add_host(w.agent, on_done=finished.append)
    w.run()
    elapsed = (finished[0].tpm_attestation.time - w.sim.epoch).total_seconds() - began / 1e9
    assert 0.3 < elapsed < 2
    assert w.board.meter.totals_ns["tpm"] > 300 * MS


def test_every_attestation_uses_another_nonce(world):
    w = world()
    w.add()
    for _ in range(3):
        w.attest_again()
    nonces = [row for row in w.sim.trace.select("tpm.command") if row["code"] == 0x158]
    assert len(nonces) == 4
    assert w.vcenter.host("esx01").tpm_attestation.status == "accepted"


def test_a_reboot_is_attested_anew(world):
    w = world()
    first = w.add()
    w.reboot()
    second = w.attest_again("on_host_rebooted")
    assert second.boot_id != first.boot_id
    assert second.tpm_attestation.status == "accepted"
    assert second.tpm_attestation.time > first.tpm_attestation.time
    assert second.last_accepted.reset_count + second.last_accepted.restart_count > (
        first.last_accepted.reset_count + first.last_accepted.restart_count
    )


def test_a_host_tampered_with_between_two_boots_turns_red_and_back(world):
    w = world(require_secure_boot=False, secure_boot=False)
    assert w.add().alarm == "green"
    w.flip_content_bit("s.v00")
    w.reboot()
    assert w.attest_again("on_host_rebooted").alarm == "red"
    w.flip_content_bit("s.v00")
    w.reboot()
    assert w.attest_again("on_host_rebooted").alarm == "green"
    changes = [
        event.full_formatted_message
        for event in w.vcenter.events
        if event.event_type_id == "AlarmStatusChangedEvent"
    ]
    assert [text.rsplit(" ", 3)[1:] for text in changes] == [
        ["gray", "to", "green"], ["green", "to", "red"], ["red", "to", "green"],
    ]  # fmt: skip


def test_a_tpm_reset_under_a_running_host_is_noticed_at_the_next_reconnect(world):
    w = world()
    w.add()
    log = w.host.boot.event_log
    w.board.tpm.power_cycle()
    replay_boot_into(w.board.tpm, log)
    entry = w.attest_again()
    assert entry.tpm_attestation.status == "notAccepted"
    assert "the TPM was reset while its host was not" in entry.tpm_attestation.message


def test_a_host_that_is_down_stays_out_of_the_inventory(world):
    w = world()
    w.vcenter.add_host(w.agent, on_error=w.errors.append)
    w.run()
    with pytest.raises(NotFound):
        w.vcenter.host("esx01")
    assert len(w.errors) == 1
    assert w.event_types() == ["HostAddFailedEvent"]


def test_a_known_host_that_goes_down_is_not_responding_and_keeps_its_verdict(world):
    w = world()
    before = w.add()
    w.vcenter.reconnect_host("esx01", on_error=w.errors.append)
    w.sim.engine.run(w.sim.now + 100 * MS)
    w.host.power_off()
    w.run()
    entry = w.vcenter.host("esx01")
    assert entry.connection_state == "notResponding"
    assert entry.tpm_attestation == before.tpm_attestation
    assert w.event_types()[-1] == "HostConnectionLostEvent"
    assert len(w.errors) == 1


def test_a_wrong_password_keeps_the_host_out(world):
    w = world().boot()
    vcenter = VCenter(w.sim, vendor_roots=(), manifest=w.image.manifest, credentials=("vpxuser", "wrong"))
    vcenter.add_host(w.agent, on_error=w.errors.append)
    w.run()
    assert isinstance(w.errors[0], InvalidLogin)
    assert vcenter.hosts() == ()


def test_a_host_is_added_once_and_can_be_disconnected_and_removed(world):
    w = world()
    w.add()
    with pytest.raises(AlreadyConnected):
        w.vcenter.add_host(w.agent)
    w.vcenter.disconnect_host("esx01")
    assert w.vcenter.host("esx01").connection_state == "disconnected"
    assert w.attest_again().connection_state == "connected"
    w.vcenter.remove_host("esx01")
    assert w.vcenter.hosts() == ()
    for call in (
        w.vcenter.reconnect_host,
        w.vcenter.on_host_rebooted,
        w.vcenter.disconnect_host,
        w.vcenter.remove_host,
    ):
        with pytest.raises(NotFound):
            call("esx01")


def test_a_newer_attestation_replaces_one_that_still_runs(world):
    w = world()
    w.add()
    finished = []
    w.vcenter.reconnect_host("esx01", on_done=lambda entry: finished.append("first"))
    w.sim.engine.run(w.sim.now + 100 * MS)
    w.vcenter.reconnect_host("esx01", on_done=lambda entry: finished.append("second"))
    w.run()
    assert finished == ["second"]


class LyingHost:
    """Stands before a real host and changes its answers."""

    def __init__(self, host, changes):
        self.host = host
        self.changes = changes

    def call(self, name, params=None):
        change = self.changes.get(name, lambda answer: answer)
        return change(self.host.call(name, params))


@pytest.mark.parametrize(("name", "change"), [
    ("tpm.identity", lambda answer: None),
    ("tpm.identity", lambda answer: {**answer, "ak_public": "text"}),
    ("tpm.identity", lambda answer: {}),
    ("tpm.identity", lambda answer: {**answer, "ek_public": b""}),
    ("tpm.identity", lambda answer: {**answer, "ek_public": answer["ak_public"]}),
    ("tpm.identity", lambda answer: {**answer, "ek_certificate_der": None}),
    ("tpm.identity", lambda answer: {**answer, "ek_certificate_der": b"0"}),
    ("tpm.activate", lambda answer: None),
    ("tpm.activate", lambda answer: {}),
    ("tpm.activate", lambda answer: {"secret": "text"}),
    ("tpm.activate", lambda answer: {"secret": b""}),
    ("tpm.activate", lambda answer: {"secret": answer["secret"][:-1] + b"x"}),
    ("tpm.event_log", lambda answer: {**answer, "log_truncated": 0}),
    ("tpm.event_log", lambda answer: {**answer, "event_log": answer["event_log"][:-1]}),
    ("tpm.event_log", lambda answer: {**answer, "event_log": b""}),
    ("tpm.event_log", lambda answer: {**answer, "log_truncated": True}),
    ("tpm.quote", lambda answer: {**answer, "pcr_values": []}),
    ("tpm.quote", lambda answer: {**answer, "pcr_values": {"sha256": {"0": b""}}}),
    ("tpm.quote", lambda answer: {**answer, "pcr_values": {1: {}}}),
    ("tpm.quote", lambda answer: {**answer, "pcr_values": {"sha256": {True: b""}}}),
    ("tpm.quote", lambda answer: {**answer, "pcr_values": {str(bank): {} for bank in range(9)}}),
    ("tpm.quote", lambda answer: {**answer, "pcr_values": {"sha256": dict.fromkeys(range(25), b"")}}),
    ("tpm.quote", lambda answer: {**answer, "attest": b""}),
    ("tpm.quote", lambda answer: [answer]),
])  # fmt: skip
def test_no_lie_of_a_host_is_accepted_or_raises(world, name, change):
    w = world().boot()
    w.agent._host = LyingHost(w.host, {name: change})
    w.vcenter.add_host(w.agent, on_error=w.errors.append)
    w.run()
    entry = w.vcenter.host("esx01")
    assert entry.tpm_attestation.status == "notAccepted"
    assert entry.tpm_attestation.message


def verdict(entry):
    """Status and codes of an entry, which has a message for each code."""
    assert all(reason.message in entry.tpm_attestation.message for reason in entry.reasons)
    return entry.tpm_attestation.status, [reason.code for reason in entry.reasons]


def added(w):
    w.vcenter.add_host(w.agent, on_error=w.errors.append)
    w.run()
    assert w.errors == []
    return w.vcenter.host("esx01")


class Proxy:
    """A host that answers some calls with those of another host, whose TPM is as genuine as its own."""

    def __init__(self, host, other, calls, fields=()):
        self.host, self.other = host, other
        self.calls, self.fields = calls, fields

    def call(self, name, params=None):
        if name in self.calls:
            return self.other.call(name, params)
        answer = self.host.call(name, params)
        if name == "tpm.identity":
            theirs = self.other.call(name, params)
            answer = {**answer, **{field: theirs[field] for field in self.fields}}
        return answer


ENDORSEMENT = ("ek_public", "ek_certificate_der")


@pytest.mark.parametrize(("fields", "code"), [
    (ENDORSEMENT, "activation"), (("ak_public",), "activation"), (("ek_public",), "activation"),
    (("ek_certificate_der",), "ek_public"), ((*ENDORSEMENT, "ak_public"), "activation"),
])  # fmt: skip
def test_keys_and_certificates_of_another_tpm_are_refused_at_activation(world, fields, code):
    w = world().boot()
    w.agent._host = Proxy(w.host, world(serial="T2").boot().host, (), fields)
    entry = added(w)
    assert verdict(entry) == ("notAccepted", [code])
    if code == "activation":
        assert entry.tpm_attestation.message == NOT_ACTIVATED
    assert entry.alarm == "red"


def test_a_host_that_lets_another_tpm_open_the_credential_cannot_quote_with_its_key(world):
    """The endorsement key of a good host vouches for the keys of that host only."""
    w = world().boot()
    other = world(serial="T2").boot().host
    w.agent._host = Proxy(w.host, other, ("tpm.identity", "tpm.activate"))
    assert verdict(added(w)) == ("notAccepted", ["signature"])


def test_an_attestation_key_that_is_not_restricted_is_refused_though_its_tpm_opens_the_credential(
    world, monkeypatch
):
    monkeypatch.setattr(quoting, "HOST_ATTESTATION_KEY", SIGNING_KEY)
    w = world().boot()
    w.agent._host = Tap(w.host)
    quote = w.host.call
    monkeypatch.setattr(w.host, "call", lambda name, params=None: (
        {"attest": b"", "signature": b"", "pcr_values": {}} if name == "tpm.quote" else quote(name, params)
    ))  # fmt: skip
    assert verdict(added(w)) == ("notAccepted", ["ak_attributes", "ak_scheme"])


def test_a_tpm_without_endorsement_certificate_is_refused_in_vmware_s_words(world):
    entry = added(world(endorsement_keys=()).boot())
    assert verdict(entry) == ("notAccepted", ["ek_certificate"])
    assert entry.tpm_attestation.message == (
        "Unable to provision Endorsement Key on TPM 2.0 device: No ECC Endorsement Key certificate found "
        "in TPM 2.0 device's non-volatile memory."
    )


@pytest.mark.parametrize("part", ["credential_blob", "encrypted_secret"])
def test_a_credential_changed_on_its_way_is_not_opened(world, part):
    w = world().boot()
    host, changed = w.host, []

    class Interposer:
        def call(self, name, params=None):
            if name == "tpm.activate":
                changed.append(name)
                params = {**params, part: params[part][:-1] + bytes([params[part][-1] ^ 1])}
            return host.call(name, params)

    w.agent._host = Interposer()
    assert verdict(added(w)) == ("notAccepted", ["activation"])
    assert changed == ["tpm.activate"]


def test_every_attestation_makes_a_credential_with_a_fresh_secret(world):
    made = world()
    tap = made.agent._host = Tap(made.host)
    made.add()
    made.attest_again()
    made.reboot()
    made.attest_again("on_host_rebooted")
    assert len({credential for credential, _ in tap.opened}) == 3
    assert len({secret for _, secret in tap.opened}) == 3
    assert [name for name in tap.names if name.startswith("tpm.")] == 3 * [
        "tpm.identity", "tpm.activate", "tpm.event_log", "tpm.quote",
    ]  # fmt: skip


def test_a_host_that_repeats_what_it_once_opened_is_refused(world):
    made = world()
    tap = made.agent._host = Tap(made.host)
    assert made.add().tpm_attestation.status == "accepted"
    made.agent._host = LyingHost(made.host, {"tpm.activate": lambda _: {"secret": tap.opened[0][1]}})
    assert verdict(made.attest_again()) == ("notAccepted", ["credential"])


@pytest.mark.parametrize("tpm", ["absent", "disabled"])
def test_a_host_without_a_usable_tpm_is_asked_for_no_key(world, tpm):
    w = world(tpm=tpm)
    tap = w.agent._host = Tap(w.host)
    w.add()
    assert tap.names == ["host.info"]


def test_two_runs_of_one_seed_attest_alike_to_the_last_byte(world):
    runs = []
    for _ in range(2):
        made = world()
        tap = made.agent._host = Tap(made.host)
        made.add()
        made.attest_again()
        runs.append((tap.names, tap.nonces, tap.opened, made.sim.trace.digest(), made.vcenter.host("esx01")))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"boot_id": 1, "tpm": "enabled"}, {"boot_id": "\n", "tpm": "enabled"}]
)
def test_a_host_that_does_not_answer_as_one_is_not_added(world, answer):
    w = world().boot()
    w.agent._host = LyingHost(w.host, {"host.info": lambda _: answer})
    w.vcenter.add_host(w.agent, on_error=w.errors.append)
    w.run()
    assert w.vcenter.hosts() == ()
    assert w.errors[0].wire_name == "HostConnectFault"


def test_a_host_that_claims_another_boot_for_an_old_quote_is_refused(world):
    w = world()
    w.add()
    w.agent._host = LyingHost(w.host, {"host.info": lambda answer: {**answer, "boot_id": "a later one"}})
    assert "was not seen to reboot" in w.attest_again().tpm_attestation.message
    assert "its TPM was not reset" in w.attest_again("on_host_rebooted").tpm_attestation.message


def test_an_attestation_can_be_pickled_after_each_of_its_steps_and_ends_the_same(world):
    w = world().boot()
    copies, stages = [], set()
    w.vcenter.add_host(w.agent)
    while not w.vcenter.hosts():
        stages.add(len(w.sim.trace.select("api.call")))
        copies.append(pickle.dumps((w.sim, w.vcenter, w.board)))
        w.sim.engine.run(w.sim.now + 60 * MS)
    assert stages >= {3, 4, 6}, "taken after the answers to identity, activation and quote"
    w.run()
    for data in copies:
        sim, vcenter, _ = pickle.loads(data)
        sim.engine.run(w.sim.now)
        assert vcenter.host("esx01") == w.vcenter.host("esx01")
        assert vcenter.host("esx01").tpm_attestation.status == "accepted"
        assert sim.trace.digest() == w.sim.trace.digest()


def test_the_agent_refuses_what_is_not_in_its_list(world):
    w = world().boot()
    session = w.agent.login("root", "simulated")
    with pytest.raises(NotSupported):
        w.agent.call("ExecuteShell", {"command": "sh"}, session=session)
    assert w.sim.trace.select("api.call")[-1]["outcome"] == "NotSupported"


def replay_boot_into(slot, log):
    """What the attacker does: start the TPM again and extend all that a good log says, at locality 0."""
    client = TpmClient(slot.transmit)
    client.startup()
    for event in parse(log).events:
        if event.type != EV.NO_ACTION:
            client.pcr_extend(event.pcr, event.digests)


class Tap:
    """Stands between agent and host, and notes the calls, the nonces and the credentials that were opened."""

    def __init__(self, host):
        self.host = host
        self.names = []
        self.nonces = []
        self.opened = []
        self.old = None

    def call(self, name, params=None):
        self.names.append(name)
        if name == "tpm.quote":
            self.nonces.append(params["nonce"])
            if self.old is not None:
                return self.old
        answer = self.host.call(name, params)
        if name == "tpm.activate":
            self.opened.append((params["credential_blob"], answer["secret"]))
        return answer


def test_every_attestation_asks_with_a_fresh_nonce(world):
    made = world()
    tap = made.agent._host = Tap(made.host)
    made.add()
    made.attest_again()
    made.reboot()
    made.attest_again("on_host_rebooted")
    assert [len(nonce) for nonce in tap.nonces] == [32, 32, 32]
    assert len(set(tap.nonces)) == 3


def test_a_host_that_answers_with_an_old_quote_is_refused(world):
    made = world()
    tap = made.agent._host = Tap(made.host)
    assert made.add().tpm_attestation.status == "accepted"
    tap.old = made.host.call("tpm.quote", {"nonce": tap.nonces[0], "banks": ["sha256"]})
    entry = made.attest_again()
    assert entry.tpm_attestation.status == "notAccepted"
    assert [reason.code for reason in entry.reasons] == ["nonce"]


def test_no_session_outlives_a_reboot_that_vcenter_knows_of(world):
    made = world()
    made.add()
    session = made.agent.login("root", "simulated")
    made.agent.call("RetrieveHostInfo", session=session)
    made.reboot()
    made.attest_again("on_host_rebooted")
    with pytest.raises(NotAuthenticated):
        made.agent.call("RetrieveHostInfo", session=session)


@pytest.mark.parametrize("form", FORMS)
def test_a_host_is_accepted_in_whichever_form_its_maker_writes_the_log_and_not_with_other_code(world, form):
    assert world(log_form=form).add().tpm_attestation.status == "accepted"
    changed = world(log_form=form)
    changed.board.firmware.flip_bit("DXE", 5)
    measured = FORMS[form].code is not None
    entry = changed.add()
    assert entry.tpm_attestation.status == ("notAccepted" if measured else "accepted")
    assert ("firmware_code" in {reason.code for reason in entry.reasons}) == measured
