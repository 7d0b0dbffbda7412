"""Quote and ReadClock.

Models: ECDSA quotes over PCRs with clock and counters, obfuscated for keys outside the endorsement and platform
hierarchies.
Leaves out: certification of objects, creation, time, NV and audits; other signature schemes.
Sources: TPM 2.0 Library part 3, chapters 18.4 and 29.1; part 1, chapter 36.7 (obfuscation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sim.tpm.commands.objects import selected_pcrs
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_GENERATED_VALUE, TPM_RC, TPM_RH, TPM_ST, TPMA_OBJECT
from sim.tpm.keys import LoadedObject, kdf_a, sign_ecdsa
from sim.tpm.refusal import in_handle, in_parameter
from sim.tpm.wire import (
    TPMS_ATTEST,
    TPMS_CLOCK_INFO,
    TPMS_ECC_PARMS,
    TPMS_PCR_SELECTION,
    TPMS_QUOTE_INFO,
    TPMS_SCHEME_HASH,
    TPMT_SIG_SCHEME,
)

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "quote", "read_clock"]

_OPEN_HIERARCHIES = (TPM_RH.ENDORSEMENT, TPM_RH.PLATFORM)
_IN_SCHEME = 2
_OBFUSCATION_BITS = 128


def quote(
    tpm: Tpm,
    sign_handle: int,
    qualifying_data: bytes,
    in_scheme: TPMT_SIG_SCHEME,
    selection: tuple[TPMS_PCR_SELECTION, ...],
) -> tuple[Any, ...]:
    """Sign the digest of the selected PCRs together with the caller's data, the clock and the counters."""
    if sign_handle == TPM_RH.NULL:
        raise in_parameter(TPM_RC.SCHEME, _IN_SCHEME)
    signer = tpm.objects[sign_handle]
    if not signer.public.objectAttributes & TPMA_OBJECT.sign:
        raise in_handle(TPM_RC.KEY, 1)
    hash_alg = _scheme_hash(signer, in_scheme)
    pcr_select, pcr_digest = selected_pcrs(tpm, hash_alg, selection)
    clock_info, firmware_version = _seen_by(tpm, signer)
    attest = TPMS_ATTEST(
        magic=TPM_GENERATED_VALUE,
        type=TPM_ST.ATTEST_QUOTE.value,
        qualifiedSigner=signer.qualified_name,
        extraData=qualifying_data,
        clockInfo=clock_info,
        firmwareVersion=firmware_version,
        attested=TPMS_QUOTE_INFO(pcrSelect=pcr_select, pcrDigest=pcr_digest),
    ).encode()
    return (attest, sign_ecdsa(signer.private, hash_alg, attest))


def read_clock(tpm: Tpm) -> tuple[Any, ...]:
    """Return time, clock and counters."""
    return (tpm.time.time_info(tpm.clock.now),)


def _scheme_hash(signer: LoadedObject, asked: TPMT_SIG_SCHEME) -> int:
    """Return the hash to sign with: the key's own, or the one asked for if the key leaves it open."""
    parameters = signer.public.parameters
    assert isinstance(parameters, TPMS_ECC_PARMS)
    own = parameters.scheme
    chosen = own if asked.scheme == TPM_ALG.NULL else asked
    fits = chosen.scheme == TPM_ALG.ECDSA and (own.scheme == TPM_ALG.NULL or own.details == chosen.details)
    if not fits or not isinstance(chosen.details, TPMS_SCHEME_HASH):
        raise in_parameter(TPM_RC.SCHEME, _IN_SCHEME)
    return chosen.details.hashAlg


def _seen_by(tpm: Tpm, signer: LoadedObject) -> tuple[TPMS_CLOCK_INFO, int]:
    """Return clock info and firmware version, shifted by a secret of the signer if it must not link the owner."""
    clock_info = tpm.time.clock_info(tpm.clock.now)
    version = tpm.profile.firmware_version
    if signer.hierarchy in _OPEN_HIERARCHIES:
        return clock_info, version
    proof = tpm.hierarchies[TPM_RH.OWNER].proof
    shift = kdf_a(TPM_ALG.SHA512, proof, b"OBFUSCATE", signer.qualified_name, _OBFUSCATION_BITS)
    high, low = int.from_bytes(shift[:8], "big"), int.from_bytes(shift[8:], "big")
    shifted = attrs.evolve(
        clock_info,
        resetCount=(clock_info.resetCount + (low >> 32)) & 0xFFFFFFFF,
        restartCount=(clock_info.restartCount + low) & 0xFFFFFFFF,
    )
    return shifted, (version + high) & 0xFFFFFFFFFFFFFFFF


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.Quote.value: quote,
    TPM_CC.ReadClock.value: read_clock,
}
"""The actions of this group, by command code."""
