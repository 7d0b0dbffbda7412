"""Structures that the TPM signs about itself: what all of them have in common.

Models: the header of an attestation with signer, caller's data, clock and counters (obfuscated for signers outside
the endorsement and platform hierarchies), and its signature.
Leaves out: what each command attests (`sim.tpm.commands.attestation`, `sim.tpm.commands.auditing`).
Sources: TPM 2.0 Library part 3, chapter 18; part 1, 36.7 (obfuscation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from sim.tpm.constants import TPM_ALG, TPM_GENERATED_VALUE, TPM_RC, TPM_RH, TPM_ST
from sim.tpm.crypto.kdf import kdf_a
from sim.tpm.entities import object_at
from sim.tpm.hashing import hash_bytes
from sim.tpm.keys import LoadedObject
from sim.tpm.refusal import in_handle
from sim.tpm.signing import NO_SCHEME, can_sign, chosen_scheme, scheme_hash, sign_digest
from sim.tpm.wire import TPMS_ATTEST, TPMS_CLOCK_INFO, TPMT_SIG_SCHEME, TPMT_SIGNATURE

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["Signer", "signed_attestation", "signer_at"]

_OPEN_HIERARCHIES = (TPM_RH.ENDORSEMENT, TPM_RH.PLATFORM)
_OBFUSCATION_BITS = 128
_NULL_NAME = TPM_RH.NULL.to_bytes(4, "big")


@attrs.frozen
class Signer:
    """Who signs an attestation (None: nobody), and with which scheme."""

    loaded: LoadedObject | None
    scheme: TPMT_SIG_SCHEME

    @property
    def hash_alg(self) -> int:
        """The hash of the scheme (null where nobody signs)."""
        return scheme_hash(self.scheme)

    @property
    def anonymous(self) -> bool:
        """Whether the scheme hides which key signs."""
        return self.scheme.scheme == TPM_ALG.ECDAA


def signer_at(
    tpm: Tpm, handle: int, asked: TPMT_SIG_SCHEME, handle_number: int, scheme_number: int
) -> Signer:
    """Return the signer of an attestation, or refuse its handle or scheme by their numbers."""
    if handle == TPM_RH.NULL:
        return Signer(None, NO_SCHEME)
    loaded = object_at(tpm, handle)
    if not can_sign(loaded):
        raise in_handle(TPM_RC.KEY, handle_number)
    return Signer(loaded, chosen_scheme(loaded, asked, scheme_number))


def signed_attestation(
    tpm: Tpm, signer: Signer, kind: TPM_ST, qualifying_data: bytes, attested: Any
) -> tuple[bytes, TPMT_SIGNATURE]:
    """Return an attestation as its signed bytes, and the signature (null where nobody signs)."""
    loaded = signer.loaded
    name = _NULL_NAME if loaded is None else loaded.qualified_name
    nonce = b""
    if (
        signer.anonymous
    ):  # the structure names neither the signer nor the caller's data, which is hashed in instead
        name, nonce, qualifying_data = b"", qualifying_data, b""
    clock_info, version = _seen_by(tpm, loaded, name)
    attest = TPMS_ATTEST(
        magic=TPM_GENERATED_VALUE,
        type=kind.value,
        qualifiedSigner=name,
        extraData=qualifying_data,
        clockInfo=clock_info,
        firmwareVersion=version,
        attested=attested,
    ).encode()
    if loaded is None:
        return attest, TPMT_SIGNATURE(sigAlg=TPM_ALG.NULL.value, signature=None)
    digest = hash_bytes(signer.hash_alg, attest)
    if nonce:
        digest = hash_bytes(signer.hash_alg, nonce + digest)
    return attest, sign_digest(tpm, loaded, signer.scheme, digest)


def _seen_by(tpm: Tpm, loaded: LoadedObject | None, name: bytes) -> tuple[TPMS_CLOCK_INFO, int]:
    """Return clock info and firmware version, shifted by a secret of the signer if it must not link the owner."""
    clock_info = tpm.time.clock_info(tpm.clock.now)
    version = tpm.profile.firmware_version
    if loaded is not None and loaded.hierarchy in _OPEN_HIERARCHIES:
        return clock_info, version
    proof = tpm.hierarchies[TPM_RH.OWNER].proof
    shift = kdf_a(TPM_ALG.SHA512, proof, b"OBFUSCATE", name, _OBFUSCATION_BITS)
    high, low = int.from_bytes(shift[:8], "big"), int.from_bytes(shift[8:], "big")
    shifted = attrs.evolve(
        clock_info,
        resetCount=(clock_info.resetCount + (low >> 32)) & 0xFFFFFFFF,
        restartCount=(clock_info.restartCount + low) & 0xFFFFFFFF,
    )
    return shifted, (version + high) & 0xFFFFFFFFFFFFFFFF
