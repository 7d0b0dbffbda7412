"""GetCapability.

Models: every capability group, with the values of a TPM that implements what this one does.
Leaves out: vendor properties.
Sources: TPM 2.0 Library part 2, chapters 6.12 to 6.14; part 3, chapter 30; values measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.algorithms import ALGORITHMS
from sim.tpm.codec import ListOf
from sim.tpm.constants import PCR_COUNT, TPM_ALG, TPM_CAP, TPM_CC, TPM_HT, TPM_PT, TPM_RC, TPM_RH
from sim.tpm.crypto.ecc import CURVES
from sim.tpm.nv import counter_count, counters_available, persistent_available
from sim.tpm.pcr import (
    AUTH_PCRS,
    DYNAMIC_PCRS,
    EXTEND_LOCALITIES,
    RESET_LOCALITIES,
    SAVED_PCRS,
    UNCOUNTED_PCRS,
)
from sim.tpm.refusal import in_parameter
from sim.tpm.sessions import ACTIVE_MAX, LOADED_MAX
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import (
    DIGEST_BYTES_MAX,
    NV_BUFFER_BYTES_MAX,
    PCR_SELECT_BYTES,
    TPMS_ALG_PROPERTY,
    TPMS_CAPABILITY_DATA,
    TPMS_PCR_SELECTION,
    TPMS_TAGGED_PCR_SELECT,
    TPMS_TAGGED_POLICY,
    TPMS_TAGGED_PROPERTY,
    TPMU_CAPABILITIES,
)

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "get_capability"]

_PROPERTY = 2
_OF_16_BITS = (TPM_CAP.ALGS, TPM_CAP.ECC_CURVES)
"""Groups of which only the lower half of the property counts (measured)."""


def get_capability(tpm: Tpm, capability: int, first: int, count: int) -> tuple[Any, ...]:
    """Return up to `count` entries of a group from `first` on, and whether there are more."""
    if capability == TPM_CAP.PCRS:
        if first != 0:
            raise in_parameter(TPM_RC.VALUE, _PROPERTY)
        banks = _banks(tpm) if count else ()
        return (int(not count), TPMS_CAPABILITY_DATA(capability=capability, data=banks))
    if capability == TPM_CAP.ACT or (capability == TPM_CAP.AUTH_POLICIES and first >> 24 != TPM_HT.PERMANENT):
        raise in_parameter(TPM_RC.VALUE, _PROPERTY)
    if capability in _OF_16_BITS:
        first &= 0xFFFF
    entries = [entry for key, entry in _GROUPS[capability](tpm, first) if key >= first]
    listed = TPMU_CAPABILITIES[capability]
    assert isinstance(listed, ListOf)
    shown = tuple(entries[: min(count, listed.count_max)])
    return (int(len(shown) < len(entries)), TPMS_CAPABILITY_DATA(capability=capability, data=shown))


def _banks(tpm: Tpm) -> tuple[TPMS_PCR_SELECTION, ...]:
    return tuple(
        TPMS_PCR_SELECTION(hash=bank, pcrSelect=mask.to_bytes(PCR_SELECT_BYTES, "little"))
        for bank, mask in tpm.pcrs.allocated.items()
    )


def _algorithms(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    return [(alg, TPMS_ALG_PROPERTY(alg=alg, algProperties=what)) for alg, what in ALGORITHMS.items()]


def _handles(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    kind = first >> 24
    by_kind: dict[int, list[int]] = {
        TPM_HT.PCR: list(range(PCR_COUNT)),
        TPM_HT.NV_INDEX: sorted(tpm.nv),
        TPM_HT.HMAC_SESSION: sorted(tpm.sessions.loaded, key=_number),
        TPM_HT.POLICY_SESSION: sorted(
            TPM_HT.HMAC_SESSION << 24 | _number(handle) for handle in tpm.sessions.saved
        ),
        TPM_HT.PERMANENT: sorted(TPM_RH),
        TPM_HT.TRANSIENT: sorted(tpm.objects),
        TPM_HT.PERSISTENT: sorted(tpm.persistent),
    }
    if kind not in by_kind:
        raise in_parameter(TPM_RC.HANDLE, _PROPERTY)
    return [(kind << 24 | _number(handle), handle) for handle in by_kind[kind]]


def _number(handle: int) -> int:
    return handle & 0xFFFFFF


def _commands(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    return [(code, spec.attributes) for code, spec in COMMANDS.items()]


def _presence_commands(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    return [(code, code) for code in tpm.presence_commands]


def _audit_commands(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    return [(code, code) for code in tpm.command_audit.commands]


def _curves(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    return [(curve, curve) for curve in sorted(CURVES)]


def _policies(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    handles = (TPM_RH.OWNER, TPM_RH.LOCKOUT, TPM_RH.ENDORSEMENT, TPM_RH.PLATFORM)
    listed = []
    for handle in handles:
        hierarchy = tpm.hierarchies[handle]
        policy = TPMS_TAGGED_POLICY(
            handle=handle, hashAlg=hierarchy.policy_alg, digest=hierarchy.policy or None
        )
        listed.append((int(handle), policy))
    return listed


def _pcr_properties(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    every = range(PCR_COUNT)
    groups: dict[int, list[int]] = {0x00: list(SAVED_PCRS)}
    for locality in range(5):
        groups[1 + 2 * locality] = [pcr for pcr in every if EXTEND_LOCALITIES[pcr] >> locality & 1]
        groups[2 + 2 * locality] = [pcr for pcr in every if RESET_LOCALITIES[pcr] >> locality & 1]
    groups[0x0A] = list(DYNAMIC_PCRS)
    groups[0x11] = sorted(UNCOUNTED_PCRS)
    groups[0x12] = list(DYNAMIC_PCRS)
    groups[0x13] = groups[0x14] = list(AUTH_PCRS)
    return [
        (tag, TPMS_TAGGED_PCR_SELECT(tag=tag, pcrSelect=TPMS_PCR_SELECTION.of(0, pcrs).pcrSelect))
        for tag, pcrs in sorted(groups.items())
    ]


def _properties(tpm: Tpm, first: int) -> list[tuple[int, Any]]:
    variable = first >> 8 == TPM_PT.PERMANENT >> 8
    if first >= TPM_PT.PERMANENT and not variable:
        return []
    values = _variable(tpm) if variable else _fixed(tpm)
    return [(tag, TPMS_TAGGED_PROPERTY(property=tag, value=value)) for tag, value in sorted(values.items())]


def _fixed(tpm: Tpm) -> dict[int, int]:
    profile = tpm.profile
    family, revision, day, year = 0x322E3000, 0xA4, 0x4B, 2021
    strings = profile.vendor_string_ids
    slots = profile.transient_slots
    return {
        TPM_PT.FAMILY_INDICATOR: family,
        TPM_PT.LEVEL: 0,
        TPM_PT.REVISION: revision,
        TPM_PT.DAY_OF_YEAR: day,
        TPM_PT.YEAR: year,
        TPM_PT.MANUFACTURER: profile.manufacturer_id,
        TPM_PT.VENDOR_STRING_1: strings[0],
        TPM_PT.VENDOR_STRING_2: strings[1],
        TPM_PT.VENDOR_STRING_3: strings[2],
        TPM_PT.VENDOR_STRING_4: strings[3],
        TPM_PT.VENDOR_TPM_TYPE: 1,
        TPM_PT.FIRMWARE_VERSION_1: profile.firmware_version >> 32,
        TPM_PT.FIRMWARE_VERSION_2: profile.firmware_version & 0xFFFFFFFF,
        TPM_PT.INPUT_BUFFER: 1024,
        TPM_PT.HR_TRANSIENT_MIN: slots,
        TPM_PT.HR_PERSISTENT_MIN: profile.persistent_slots_min,
        TPM_PT.HR_LOADED_MIN: slots,
        TPM_PT.ACTIVE_SESSIONS_MAX: 0x40,
        TPM_PT.PCR_COUNT: PCR_COUNT,
        TPM_PT.PCR_SELECT_MIN: PCR_COUNT // 8,
        TPM_PT.CONTEXT_GAP_MAX: 0xFFFF,
        TPM_PT.NV_COUNTERS_MAX: 0,
        TPM_PT.NV_INDEX_MAX: 0x800,
        TPM_PT.MEMORY: 6,
        TPM_PT.CLOCK_UPDATE: 0x1000,
        TPM_PT.CONTEXT_HASH: TPM_ALG.SHA512,
        TPM_PT.CONTEXT_SYM: TPM_ALG.AES,
        TPM_PT.CONTEXT_SYM_SIZE: 0x100,
        TPM_PT.ORDERLY_COUNT: 0xFF,
        TPM_PT.MAX_COMMAND_SIZE: profile.command_bytes_max,
        TPM_PT.MAX_RESPONSE_SIZE: 4096,
        TPM_PT.MAX_DIGEST: DIGEST_BYTES_MAX,
        TPM_PT.MAX_OBJECT_CONTEXT: 0xA84,
        TPM_PT.MAX_SESSION_CONTEXT: 0x194,
        TPM_PT.PS_FAMILY_INDICATOR: family,
        TPM_PT.PS_LEVEL: 0,
        TPM_PT.PS_REVISION: revision,
        TPM_PT.PS_DAY_OF_YEAR: day,
        TPM_PT.PS_YEAR: year,
        TPM_PT.SPLIT_MAX: 0x80,
        TPM_PT.TOTAL_COMMANDS: len(COMMANDS),
        TPM_PT.LIBRARY_COMMANDS: len(COMMANDS),
        TPM_PT.VENDOR_COMMANDS: 0,
        TPM_PT.NV_BUFFER_MAX: NV_BUFFER_BYTES_MAX,
        TPM_PT.MODES: 0,
        TPM_PT.MAX_CAP_BUFFER: 1024,
    }


def _variable(tpm: Tpm) -> dict[int, int]:
    free = tpm.profile.transient_slots - len(tpm.objects)
    active = len(tpm.sessions.loaded) + len(tpm.sessions.saved)
    tpm.da.heal(tpm.time.time_ms(tpm.clock.now))
    return {
        TPM_PT.PERMANENT: _permanent(tpm),
        TPM_PT.STARTUP_CLEAR: _startup_clear(tpm),
        TPM_PT.HR_NV_INDEX: len(tpm.nv),
        TPM_PT.HR_LOADED: len(tpm.sessions.loaded),
        TPM_PT.HR_LOADED_AVAIL: LOADED_MAX - len(tpm.sessions.loaded),
        TPM_PT.HR_ACTIVE: active,
        TPM_PT.HR_ACTIVE_AVAIL: ACTIVE_MAX - active,
        TPM_PT.HR_TRANSIENT_AVAIL: free,
        TPM_PT.HR_PERSISTENT: len(tpm.persistent),
        TPM_PT.HR_PERSISTENT_AVAIL: persistent_available(tpm.nv, len(tpm.persistent)),
        TPM_PT.NV_COUNTERS: counter_count(tpm.nv),
        TPM_PT.NV_COUNTERS_AVAIL: counters_available(tpm.nv, len(tpm.persistent)),
        TPM_PT.ALGORITHM_SET: tpm.algorithm_set,
        TPM_PT.LOADED_CURVES: len(_curves(tpm, 0)),
        TPM_PT.LOCKOUT_COUNTER: tpm.da.failed_tries,
        TPM_PT.MAX_AUTH_FAIL: tpm.da.max_tries,
        TPM_PT.LOCKOUT_INTERVAL: tpm.da.recovery_s,
        TPM_PT.LOCKOUT_RECOVERY: tpm.da.lockout_recovery_s,
        TPM_PT.NV_WRITE_RECOVERY: 0,
        TPM_PT.AUDIT_COUNTER_0: tpm.command_audit.counter >> 32,
        TPM_PT.AUDIT_COUNTER_1: tpm.command_audit.counter & 0xFFFFFFFF,
    }


def _permanent(tpm: Tpm) -> int:
    """Return TPMA_PERMANENT: which authorisation values are set, whether Clear is off, and lockout."""
    secrets = (TPM_RH.OWNER, TPM_RH.ENDORSEMENT, TPM_RH.LOCKOUT)
    value = sum(bool(tpm.hierarchies[handle].auth) << bit for bit, handle in enumerate(secrets))
    made_own_seed = 1 << 10
    return value | tpm.clear_disabled << 8 | tpm.da.is_locked(lockout=False) << 9 | made_own_seed


def _startup_clear(tpm: Tpm) -> int:
    """Return TPMA_STARTUP_CLEAR: which hierarchies are on, and whether the last stop was orderly."""
    switches = (TPM_RH.PLATFORM, TPM_RH.OWNER, TPM_RH.ENDORSEMENT)
    value = sum(tpm.hierarchies[handle].enabled << bit for bit, handle in enumerate(switches))
    return value | tpm.platform_nv_enabled << 3 | tpm.started_orderly << 31


_GROUPS: dict[int, Callable[[Tpm, int], list[tuple[int, Any]]]] = {
    TPM_CAP.ALGS: _algorithms,
    TPM_CAP.HANDLES: _handles,
    TPM_CAP.COMMANDS: _commands,
    TPM_CAP.PP_COMMANDS: _presence_commands,
    TPM_CAP.AUDIT_COMMANDS: _audit_commands,
    TPM_CAP.TPM_PROPERTIES: _properties,
    TPM_CAP.PCR_PROPERTIES: _pcr_properties,
    TPM_CAP.ECC_CURVES: _curves,
    TPM_CAP.AUTH_POLICIES: _policies,
}


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.GetCapability.value: get_capability,
}
"""The actions of this group, by command code."""
