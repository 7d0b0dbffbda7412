"""Sign, VerifySignature and Commit.

Models: signatures over digests, with tickets where a restricted key signs; the first half of ECDAA.
Leaves out: X.509 certification.
Sources: TPM 2.0 Library part 3, chapters 19.2 and 20; part 1, annex C.4; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.commands.asymmetric import encode_point, need_point
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_ST, TPMA_OBJECT
from sim.tpm.crypto import ecc
from sim.tpm.crypto.ecdaa import commit_points
from sim.tpm.entities import object_at
from sim.tpm.hashing import hash_bytes
from sim.tpm.keys import ecc_scalar
from sim.tpm.refusal import in_handle, in_parameter
from sim.tpm.signing import can_sign, chosen_scheme, scheme_hash, sign_digest
from sim.tpm.tickets import hashcheck_digest, verified_digest
from sim.tpm.verification import need_valid_signature
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_SCHEME_ECDAA,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
)
from sim.tpm.wire.session import TPMT_TK_VERIFIED
from sim.tpm.wire.tickets import TPMT_TK_HASHCHECK

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS"]

_ANONYMOUS = frozenset({TPM_ALG.ECDAA.value})


def sign(
    tpm: Tpm, key_handle: int, digest: bytes, in_scheme: TPMT_SIG_SCHEME, validation: TPMT_TK_HASHCHECK
) -> tuple[Any, ...]:
    """Sign a digest; a restricted key signs only what the TPM hashed itself, as the ticket proves."""
    loaded = object_at(tpm, key_handle)
    if not can_sign(loaded):
        raise in_handle(TPM_RC.KEY, 1)
    if loaded.public.objectAttributes & TPMA_OBJECT.x509sign:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    scheme = chosen_scheme(loaded, in_scheme, 2)
    if validation.digest or loaded.public.objectAttributes & TPMA_OBJECT.restricted:
        expected = hashcheck_digest(tpm, validation.hierarchy, scheme_hash(scheme), digest)
        if not hmac.compare_digest(expected, validation.digest):
            raise in_parameter(TPM_RC.TICKET, 3)
    elif len(digest) != HASH_BYTES[scheme_hash(scheme)]:
        raise in_parameter(TPM_RC.SIZE, 1)
    return (sign_digest(tpm, loaded, scheme, digest),)


def verify_signature(tpm: Tpm, key_handle: int, digest: bytes, signature: TPMT_SIGNATURE) -> tuple[Any, ...]:
    """Check a signature with a loaded key, and return a ticket for that."""
    loaded = object_at(tpm, key_handle)
    if not loaded.public.objectAttributes & TPMA_OBJECT.sign:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    need_valid_signature(loaded, digest, signature, 2)
    tag, hierarchy = TPM_ST.VERIFIED.value, loaded.hierarchy
    if hierarchy == TPM_RH.NULL or not loaded.name:
        return (TPMT_TK_VERIFIED(tag=tag, hierarchy=TPM_RH.NULL.value, digest=b""),)
    proof = verified_digest(tpm, hierarchy, digest, loaded.name)
    return (TPMT_TK_VERIFIED(tag=tag, hierarchy=hierarchy, digest=proof),)


def commit(tpm: Tpm, key_handle: int, p1: TPMS_ECC_POINT, s2: bytes, y2: bytes) -> tuple[Any, ...]:
    """Return the points of the first half of an anonymous signature, and the counter that names its scalar."""
    loaded = object_at(tpm, key_handle)
    parameters = loaded.public.parameters
    if not isinstance(parameters, TPMS_ECC_PARMS):
        raise in_handle(TPM_RC.KEY, 1)
    if parameters.scheme.scheme not in _ANONYMOUS:
        raise in_handle(TPM_RC.SCHEME, 1)
    if bool(s2) != bool(y2):
        raise in_parameter(TPM_RC.SIZE, 3)
    details = parameters.scheme.details
    assert isinstance(details, TPMS_SCHEME_ECDAA)
    curve = ecc.CURVES[parameters.curveID]
    second = None
    if s2:
        second = (
            int.from_bytes(hash_bytes(details.hashAlg, s2), "big") % curve.p,
            int.from_bytes(y2, "big"),
        )
        if not ecc.is_on_curve(curve, second):
            raise in_parameter(TPM_RC.ECC_POINT, 2)
    first = need_point(curve, p1, 1) if p1.x or p1.y else None
    counter = tpm.commits.take()
    full = tpm.commits.find(counter)
    assert full is not None
    nonce = tpm.commits.scalar(full, curve, loaded.name)
    points = commit_points(curve, ecc_scalar(loaded), nonce, first, second)
    return (*[encode_point(curve, point) for point in points], counter)


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.Commit.value: commit,
    TPM_CC.Sign.value: sign,
    TPM_CC.VerifySignature.value: verify_signature,
}
"""The actions of this group, by command code."""
