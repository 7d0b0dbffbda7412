"""The attack on a late launch, row B21; `threats.py` says how a row is made."""

import hashlib

import attrs
import pytest

from sim.attest.launch import LaunchEvent, check_launch_policy
from sim.attest.verdict import AttestationError
from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.context import BootPolicy
from sim.boot.launchpolicy import LcpList, LcpPolicy, PolicyType, mle_element, pconf_element
from sim.boot.launchspec import LaunchSpec
from sim.boot.txt_errors import SinitError, sinit_errorcode
from sim.core.units import SECOND
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.launchwork import provision_policy, store_policy
from sim.scenario.run import simulate
from sim.scenario.spec import ImageSpec, Scenario, VCenterSpec
from sim.tpm.eventlog import parse

from .threats import threat

MISMATCH = sinit_errorcode(SinitError.MLE_MISMATCH)
NOT_LAUNCHED = b"\xff" * 32


@threat(
    "B21",
    threat="code is to be launched whose digest the owner's launch control policy does not list",
    stopped_by="SINIT's evaluation of the policy in the TPM (`sim.boot.lcpcheck`), before the code runs",
    evidence="a TXT reset with the code of MLE_MISMATCH in TXT.ERRORCODE, which stays until power is cut; the policy's"
    " action decides: reset, halt, or a boot with PCRs 17-22 untouched, which attestation refuses where it wants a launch",
    not_covered="an owner who set the action to continue and whose verifier wants no launch: the host boots as any other",
    anchor="tboot, policy types nonfatal, continue and halt",
)
def test_b21_what_the_policy_does_not_list_is_not_launched(make_world):
    def boot(action, digests=None):
        spec = LaunchSpec(policy="list", on_failure=action)
        world = make_world(txt=True, kernelopt="enableTboot=TRUE", policy=BootPolicy(launch=spec))
        tpm = world.board.tpm.device
        provision_policy(world.board, tpm, spec)
        if digests is not None:
            lists = (LcpList(elements=(mle_element(digests),)),)
            store_policy(world.board, tpm, LcpPolicy(policy_type=PolicyType.LIST), lists)
        return world, world.boot()

    world, info = boot("reset")
    assert isinstance(info, BootInfo)
    assert info.drtm
    for action in ("reset", "halt", "continue"):
        for digests in ([], [bytes(32)], [b"\xff" * 32] * 9):
            world, failure = boot(action, digests)
            assert isinstance(failure, BootFailure)
            assert (failure.stage, failure.component) == ("tboot", "launch control policy")
            assert world.board.txt.errorcode == MISMATCH
            assert "TXT.ERRORCODE: 0xc0001501" in world.lines("tboot")
            assert failure.resets is (action != "reset")
        world.board.reset()
        second = world.boot()
        assert isinstance(second, BootInfo) is (action == "continue")
        assert world.board.txt.errorcode == MISMATCH
        assert all(world.pcrs()[pcr] == NOT_LAUNCHED for pcr in range(17, 23))
        if action == "continue":
            assert not second.drtm
            assert world.pcrs()[12] != bytes(32)
        world.board.power_off()
        third = world.boot()
        assert isinstance(third, BootFailure), "with the power the error goes, and the next launch fails anew"
        assert third.component == "launch control policy"


@pytest.mark.parametrize(
    ("action", "launch", "boot", "verdict"),
    [
        ("reset", "any", "refused", "N/A"),
        ("halt", "any", "refused", "N/A"),
        ("continue", "required", "ok", "notAccepted"),
        ("continue", "any", "ok", "accepted"),
    ],
)
def test_b21_whole_host_shows_what_its_owner_chose(action, launch, boot, verdict):
    scenario = Scenario(
        duration_ns=2 * SECOND,
        host=HostSpec(firmware=FirmwareSpec(txt_enabled=True)),
        image=ImageSpec(modules=1, module_size_bytes=2048),
        options={"enableTboot": True},
        launch=LaunchSpec(policy="list", on_failure=action),
        faults=(FaultSpec(kind="launch_policy", defect="mle"),),
        vcenter=VCenterSpec(launch=launch),
    )
    result = simulate(scenario)
    assert (result.boot.state, result.boot.drtm, result.attestation.status) == (boot, False, verdict)
    assert result.txt.errorcode == MISMATCH
    clean = simulate(attrs.evolve(scenario, faults=()))
    assert (clean.boot.drtm, clean.attestation.status, clean.txt.errorcode) == (True, "accepted", 0)


@threat(
    "B30",
    threat="a policy that pins nothing passes for one that pins the launched code: a list without an MLE element, type any with "
    "a digest beside it, or an event on a policy that the launched code extends itself",
    stopped_by="SINIT's own events before the launched code, and the kinds of the elements in them (`sim.attest.launch`); a type "
    "any measures no digest (`sim.boot.lcpcheck`)",
    evidence="reason launch_policy where a policy is required",
    not_covered="in legacy use only a digest over the lists is measured: the verdict lists under what is not known whether they "
    "are about the launched code",
    anchor="CVE-2017-16837, tboot measured less than it ran",
)
def test_b30_a_policy_that_pins_nothing_is_not_taken_for_one(make_world):
    def launched(lists, usage="details", kind=PolicyType.LIST):
        spec = LaunchSpec(policy="list", usage=usage)
        world = make_world(txt=True, kernelopt="enableTboot=TRUE", policy=BootPolicy(launch=spec))
        tpm = world.board.tpm.device
        provision_policy(world.board, tpm, spec)
        if lists is not None:
            store_policy(world.board, tpm, LcpPolicy(policy_type=kind), lists)
        info = world.boot()
        assert isinstance(info, BootInfo)
        assert info.drtm
        return parse(info.event_log).events

    check_launch_policy(launched(None))
    check_launch_policy(launched(None, "legacy"))
    state = hashlib.sha256(bytes(32)).digest()
    for events in (
        launched((LcpList(elements=(pconf_element([((16,), state)]),)),)),
        launched((LcpList(elements=()),)),
        launched((LcpList(elements=()),), "legacy", PolicyType.ANY),
    ):
        with pytest.raises(AttestationError, match="no launch control policy pins"):
            check_launch_policy(events)
    honest = launched(None)
    own = next(event for event in honest if event.type == LaunchEvent.LCP_DETAILS_HASH)
    bare = [event for event in honest if event.type != LaunchEvent.LCP_DETAILS_HASH]
    with pytest.raises(AttestationError, match="stands behind the launched code"):
        check_launch_policy([*bare, own])
