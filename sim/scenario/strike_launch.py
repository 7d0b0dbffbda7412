"""Carrying out the faults of a late launch, and the reset of the TPM under a running host.

Models: a SINIT module of the wrong kind in the flash; a launch control policy that does not fit, or was tampered with; and
the attack that a pulled reset line of the TPM allows: the TPM alone begins anew, is started from locality 0, and gets every
measurement of the boot's own event log again.  What only a late launch could extend it refuses.

Leaves out: how the attacker reaches flash, NV memory or the line.

Sources: the reset attack on static measurement (Kauer, "OSLO", 2007; Sparks, "A security assessment of trusted platform
modules", 2007); tboot 1.10.5 and Intel TXT MLE Developer's Guide for what can be wrong with module and policy.
"""

from __future__ import annotations

from attrs import evolve

from sim.boot.acm import FLAG_DEBUG, AcmRecipe, build_acm
from sim.boot.latelaunch import LAUNCH_VOLUME, POLICY_FILE, SINIT_VOLUME, sinit_module
from sim.boot.launchpolicy import (
    OWNER_INDEX,
    LcpList,
    LcpPolicy,
    PolicyType,
    decode_policy,
    decode_policy_data,
    encode_policy_data,
    mle_element,
    pconf_element,
    sign_list,
)
from sim.boot.launchspec import LaunchSpec
from sim.core.keys import rsa_private_key
from sim.core.trace import record
from sim.errors import ScenarioError
from sim.hw.board import Board
from sim.hw.txt import TXT_SVN_MIN
from sim.kernel.host import Host
from sim.scenario.faults import FaultSpec
from sim.scenario.launchwork import (
    OWNER_LIST_REVOCATION,
    owner_key,
    policy_elements,
    store_index,
    store_policy,
)
from sim.scenario.strike import FAULT, strike
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.device import Tpm
from sim.tpm.eventlog import EV, parse
from sim.tpm.faults import FaultyTpm

__all__ = ["TPM_RESET", "strike_board", "strike_policy", "strike_sinit", "strike_tpm_reset"]

TPM_RESET = record("fault.tpm_reset", host=str, replayed=int, refused=int)
"""The TPM was reset alone: how many events of the log it took again, and how many it refused."""

_OTHER_DEVICE = 0xB000
_OLD_VERSION = 1


def strike_board(fault: FaultSpec, number: int, board: Board, spec: LaunchSpec) -> None:
    """Carry out a fault of what a board holds, with or without power; errors as those that it calls."""
    if fault.kind == "sinit":
        strike_sinit(fault, board)
    elif fault.kind == "launch_policy":
        strike_policy(fault, number, board, spec)
    else:
        strike(fault, number, board)


def strike_sinit(fault: FaultSpec, board: Board) -> None:
    """Exchange the SINIT module for one with the fault's defect, or put the right one back."""
    rng = board.sim.rng
    good = build_acm(rng)
    recipes = {
        "chipset": AcmRecipe(device=_OTHER_DEVICE),
        "debug": AcmRecipe(flags=FLAG_DEBUG),
        "revoked": AcmRecipe(svn=TXT_SVN_MIN.value - 1),
        "old": AcmRecipe(version=_OLD_VERSION),
    }
    sinit_module(board)
    volumes = board.firmware.volumes
    if fault.defect in recipes:
        volumes[SINIT_VOLUME] = build_acm(rng, recipes[fault.defect])
    elif fault.defect == "key":
        volumes[SINIT_VOLUME] = build_acm(rng, key=rsa_private_key(rng.child("txt").stream("forger")))
    elif fault.defect == "bit":
        volumes[SINIT_VOLUME] = good
        board.firmware.flip_bit(SINIT_VOLUME, 8 * (len(good) - 1))
    else:
        volumes[SINIT_VOLUME] = {"truncated": good[:-4], "absent": b"", "repaired": good}[str(fault.defect)]
    board.sim.trace.emit(FAULT, fault.kind, str(fault.defect), -1, -1)


def strike_policy(fault: FaultSpec, number: int, board: Board, spec: LaunchSpec) -> None:
    """Exchange the launch control policy for one with the fault's defect.

    Errors: `ScenarioError` where there is no TPM, or no list to tamper with.
    """
    tpm = tpm_of(board)
    if tpm is None:
        raise ScenarioError(f"faults[{number}].kind", "a launch policy lies in a TPM, and there is none")
    volume = board.disk.volume(LAUNCH_VOLUME)
    if fault.defect == "absent":
        tpm.nv.pop(OWNER_INDEX.value, None)
        if volume.exists(POLICY_FILE):
            volume.remove(POLICY_FILE)
    elif fault.defect == "format":
        store_index(tpm, b"\xff" * 70)
    elif fault.defect == "data":
        if not volume.exists(POLICY_FILE):
            raise ScenarioError(f"faults[{number}].defect", 'there is no data file without policy = "list"')
        data = bytearray(volume.peek(POLICY_FILE))
        data[-1] ^= 1
        volume.write(POLICY_FILE, bytes(data))
    else:
        _exchange(fault, board, tpm, spec)
    board.sim.trace.emit(FAULT, fault.kind, str(fault.defect), -1, -1)


def _exchange(fault: FaultSpec, board: Board, tpm: Tpm, spec: LaunchSpec) -> None:
    """Write a whole policy with a list that does not fit, or is signed wrongly."""
    elements = policy_elements(board, spec)
    index = tpm.nv.get(OWNER_INDEX.value)
    policy = decode_policy(index.content) if index is not None and index.content else LcpPolicy()
    policy = evolve(policy, policy_type=PolicyType.LIST)
    if fault.defect == "mle":
        store_policy(board, tpm, policy, (LcpList(elements=(mle_element([bytes(32)]),)),))
        return
    if fault.defect == "state":
        state = pconf_element([((0,), bytes(32))])
        store_policy(board, tpm, policy, (LcpList(elements=(*elements, state)),))
        return
    key = owner_key(board.sim.rng)
    one = sign_list(elements, key, OWNER_LIST_REVOCATION)
    if fault.defect == "revoked":
        least = (OWNER_LIST_REVOCATION + 1, *policy.revocation[1:])
        store_policy(board, tpm, evolve(policy, revocation=least), (one,))
        return
    store_policy(board, tpm, policy, (one,))
    forged = evolve(one, elements=(mle_element([bytes(32)]),))
    data = encode_policy_data([forged])
    assert decode_policy_data(data), "the forged list still has the form of one"
    board.disk.volume(LAUNCH_VOLUME).write(POLICY_FILE, data)


def strike_tpm_reset(fault: FaultSpec, host: Host) -> None:
    """Reset the TPM alone and replay the boot's log into it; nothing happens without a running host and a TPM in use."""
    slot, boot = host.board.tpm, host.boot
    if slot is None or not slot.enabled or boot is None or not boot.event_log:
        host.sim.trace.emit(FAULT, f"{fault.kind} (nothing there)", "", -1, -1)
        return
    host.sim.trace.emit(FAULT, fault.kind, "", -1, -1)
    slot.power_cycle()
    client = TpmClient(slot.transmit)
    client.startup()
    replayed = refused = 0
    for event in parse(boot.event_log).events:
        if event.type == EV.NO_ACTION:
            continue
        try:
            client.pcr_extend(event.pcr, event.digests)
            replayed += 1
        except TpmError:
            refused += 1
    host.sim.trace.emit(TPM_RESET, host.name, replayed, refused)


def tpm_of(board: Board) -> Tpm | None:
    """Return the TPM in the slot, from behind its faults."""
    device = board.tpm.device if board.tpm is not None else None
    if isinstance(device, FaultyTpm):
        return device.tpm
    return device if isinstance(device, Tpm) else None
