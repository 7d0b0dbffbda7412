"""A verdict is about one boot and ages: who looks sees it, and policy engines act on it."""

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from sim.attest.engines import AllowListEngine
from sim.vsphere.engagement import Action, Engagement
from sim.vsphere.faults import NoCompatibleHost, NotFound
from sim.vsphere.freshness import why_stale
from sim.vsphere.inventory import HostEntry, TpmAttestationInfo

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = 10**9
ENTRY = HostEntry(
    name="a", boot_id="one", tpm_attestation=TpmAttestationInfo(time=NOON, status="accepted", message="")
)
VM = {"name": "a", "memory": 64 << 20}


@pytest.mark.parametrize(
    ("boot", "seconds", "limit", "said"),
    [
        ("one", 0, None, ""),
        ("one", 10**7, None, ""),
        ("one", 60, 60 * SECOND, ""),
        ("one", 61, 60 * SECOND, "attested at 2026-01-01T12:00:00Z, more than 60 s ago"),
        ("two", 0, None, "attested at 2026-01-01T12:00:00Z in boot one, and now in boot two"),
    ],
)
def test_a_verdict_holds_for_its_boot_and_its_time(boot, seconds, limit, said):
    assert why_stale(ENTRY, boot, NOON + timedelta(seconds=seconds), limit) == said


def test_no_verdict_cannot_be_stale():
    assert why_stale(attrs.evolve(ENTRY, tpm_attestation=None), "two", NOON) == ""


def test_a_reboot_makes_the_verdict_stale_until_the_next_attestation(world):
    w = world()
    first = w.add()
    assert w.vcenter.check_freshness("esx01") == ""
    w.reboot()
    said = w.vcenter.check_freshness("esx01")
    entry = w.vcenter.host("esx01")
    assert entry.stale == said
    assert f"in boot {first.boot_id}, and now in boot {w.host.boot.boot_id}" in said
    assert entry.tpm_attestation == first.tpm_attestation
    assert (entry.quarantined, entry.policy_alarm) == (False, "gray")
    assert w.attest_again("on_host_rebooted").stale == ""
    assert w.vcenter.check_freshness("esx01") == ""


def test_a_verdict_may_be_limited_in_time(world):
    w = world()
    w.vcenter.verdict_age_ns_max = 3600 * SECOND
    w.add()
    w.run(3500)
    assert w.vcenter.check_freshness("esx01") == ""
    w.run(101)
    assert "more than 3600 s ago" in w.vcenter.check_freshness("esx01")


def test_a_stale_verdict_is_told_and_acted_on_once(world):
    w = world()
    w.vcenter.engagements = (
        Engagement(
            engine=AllowListEngine(allowed=w.image.manifest), actions=(Action.ALARM, Action.QUARANTINE)
        ),
    )
    w.add()
    assert w.vcenter.place_vm(VM) == "esx01"
    w.reboot()
    for _ in range(2):
        with pytest.raises(NoCompatibleHost, match="esx01: in quarantine"):
            w.vcenter.place_vm(VM)
    entry = w.vcenter.host("esx01")
    assert [finding.rule for decision in entry.decisions for finding in decision.findings] == ["stale"]
    assert (entry.policy_alarm, entry.quarantined) == ("red", True)
    assert w.event_types().count("vmkernel-sim.host.PolicyFailedEvent") == 1
    entry = w.attest_again("on_host_rebooted")
    assert (entry.policy_alarm, entry.quarantined) == ("green", False)
    assert w.vcenter.place_vm(VM) == "esx01"


def test_a_host_that_is_gone_is_not_responding(world):
    w = world()
    w.add()
    w.host.power_off()
    assert w.vcenter.check_freshness("esx01")
    assert w.vcenter.host("esx01").connection_state == "notResponding"
    with pytest.raises(NotFound):
        w.vcenter.check_freshness("esx02")
