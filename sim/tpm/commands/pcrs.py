"""The PCR commands: read, extend, reset, allocate, and set authorisations.

Models: these commands with their locality rules; a change of PCR 0 to 15 undoes a shutdown.
Leaves out: policies of groups of PCRs beyond the one that a PC Client TPM has.
Sources: TPM 2.0 Library part 3, chapter 22; measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.constants import HASH_BYTES, PCR_COUNT, TPM_CC, TPM_RC, TPM_RH
from sim.tpm.eventlog import EV
from sim.tpm.hashing import hash_bytes
from sim.tpm.pcr import ALL_PCRS, AUTH_PCRS, BANKS_BYTES_MAX, EXTEND_LOCALITIES, RESET_LOCALITIES, SAVED_PCRS
from sim.tpm.pcr_log import Form, plain_form
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.wire import TPMS_PCR_SELECTION, TPMT_HA

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "extend_pcr", "pcr_event", "pcr_extend", "pcr_read", "pcr_reset", "present_pcrs"]

READ_DIGESTS_MAX = 8
_NULL = TPM_RH.NULL.value


def pcr_extend(tpm: Tpm, pcr: int, digests: tuple[TPMT_HA, ...]) -> tuple[Any, ...]:
    """Extend a PCR with a digest for each bank; at the null handle nothing happens."""
    extend_pcr(tpm, pcr, digests, plain_form("PCR_Extend", tpm.locality))
    return ()


def extend_pcr(tpm: Tpm, pcr: int, digests: tuple[TPMT_HA, ...], form: Form) -> None:
    """Extend a PCR, if the locality may; `form` is how the event log describes it."""
    if pcr != _NULL:
        _need_locality(tpm, EXTEND_LOCALITIES, pcr)
        tpm.pcrs.extend(pcr, [(each.hashAlg, each.digest) for each in digests], form)
        _touch(tpm, pcr)


def pcr_event(tpm: Tpm, pcr: int, data: bytes) -> tuple[Any, ...]:
    """Hash data with every implemented hash, extend the PCR with the digests, and return them."""
    digests = tuple(TPMT_HA(hashAlg=alg, digest=hash_bytes(alg, data)) for alg in HASH_BYTES)
    extend_pcr(tpm, pcr, digests, (EV.COMPACT_HASH.value, data))
    return (digests,)


def pcr_reset(tpm: Tpm, pcr: int) -> tuple[Any, ...]:
    """Set a PCR to zeros."""
    _need_locality(tpm, RESET_LOCALITIES, pcr)
    tpm.pcrs.reset(pcr)  # never one of the saved PCRs
    return ()


def pcr_read(tpm: Tpm, selection: tuple[TPMS_PCR_SELECTION, ...]) -> tuple[Any, ...]:
    """Return the update counter and the first eight selected PCRs, with the selection of just these."""
    banks = tpm.pcrs.values
    answered = []
    digests: list[bytes] = []
    for each in selection:
        wanted = each.pcrs
        pcrs = present_pcrs(tpm, each)[: READ_DIGESTS_MAX - len(digests)]
        answered.append(each if pcrs == wanted else TPMS_PCR_SELECTION.of(each.hash, pcrs))
        if pcrs:
            bank = banks[each.hash]
            digests += [bank[pcr] for pcr in pcrs]
    return (tpm.pcrs.update_counter, tuple(answered), tuple(digests))


def present_pcrs(tpm: Tpm, selection: TPMS_PCR_SELECTION) -> tuple[int, ...]:
    """Return the selected PCRs, none if the bank is not allocated."""
    mask = tpm.pcrs.allocated.get(selection.hash, 0)
    if mask == ALL_PCRS:
        return selection.pcrs
    return tuple(pcr for pcr in selection.pcrs if mask >> pcr & 1) if mask else ()


def pcr_allocate(tpm: Tpm, platform: int, selection: tuple[TPMS_PCR_SELECTION, ...]) -> tuple[Any, ...]:
    """Choose the PCRs of each named bank from the next reset on; return whether that is possible, and the room."""
    masks = [(each.hash, int.from_bytes(each.pcrSelect, "little")) for each in selection]
    needed = tpm.pcrs.allocate(masks)
    if needed is None:
        raise RefusedError(TPM_RC.PCR)
    return (1, PCR_COUNT, needed, BANKS_BYTES_MAX)


def pcr_set_auth_value(tpm: Tpm, pcr: int, auth: bytes) -> tuple[Any, ...]:
    """Give the PCRs that have an authorisation value another one, until the next Startup(CLEAR)."""
    if pcr not in AUTH_PCRS:
        raise RefusedError(TPM_RC.VALUE)
    tpm.pcrs.auth = auth.rstrip(b"\0")
    tpm.shutdown_type = None
    return ()


def pcr_set_auth_policy(tpm: Tpm, platform: int, policy: bytes, hash_alg: int, pcr: int) -> tuple[Any, ...]:
    """Give the PCRs that have a policy another one; the null hash takes it away."""
    if len(policy) != HASH_BYTES.get(hash_alg, 0):
        raise in_parameter(TPM_RC.SIZE, 1)
    if pcr not in AUTH_PCRS:
        raise in_parameter(TPM_RC.VALUE, 3)
    tpm.pcrs.policy, tpm.pcrs.policy_alg = policy, hash_alg
    return ()


def _need_locality(tpm: Tpm, table: tuple[int, ...], pcr: int) -> None:
    if not table[pcr] >> tpm.locality & 1 or (table is RESET_LOCALITIES and tpm.locality == 4):
        raise RefusedError(TPM_RC.LOCALITY)


def _touch(tpm: Tpm, pcr: int) -> None:
    if pcr in SAVED_PCRS:
        tpm.shutdown_type = None


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.PCR_Allocate.value: pcr_allocate,
    TPM_CC.PCR_Event.value: pcr_event,
    TPM_CC.PCR_Extend.value: pcr_extend,
    TPM_CC.PCR_Read.value: pcr_read,
    TPM_CC.PCR_Reset.value: pcr_reset,
    TPM_CC.PCR_SetAuthPolicy.value: pcr_set_auth_policy,
    TPM_CC.PCR_SetAuthValue.value: pcr_set_auth_value,
}
"""The actions of this group, by command code."""
