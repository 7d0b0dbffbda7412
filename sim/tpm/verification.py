"""Checking a signature against a loaded key.

Models: RSASSA, RSAPSS, ECDSA and HMAC, with the response codes of the library.
Leaves out: the schemes of anonymous attestation.
Sources: TPM 2.0 Library part 3, 20.1 "VerifySignature"; RFC 8017; FIPS 186-5.
"""

from __future__ import annotations

import hmac

from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_RC
from sim.tpm.crypto.ecc import CURVES, verify_ecdsa
from sim.tpm.crypto.ecdaa import verify_schnorr, verify_sm2
from sim.tpm.crypto.kdf import HASH_NAMES
from sim.tpm.crypto.rsa import DEFAULT_EXPONENT, pss_fits, public_operation, rsassa_encode
from sim.tpm.keys import LoadedObject
from sim.tpm.refusal import in_parameter
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMS_SIGNATURE_ECC,
    TPMS_SIGNATURE_RSA,
    TPMT_HA,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMT_SIGNATURE,
)

__all__ = ["need_valid_signature"]

_ECC_SCHEMES = (TPM_ALG.ECDSA, TPM_ALG.ECSCHNORR, TPM_ALG.SM2)


def need_valid_signature(loaded: LoadedObject, digest: bytes, signature: TPMT_SIGNATURE, number: int) -> None:
    """Refuse, blaming parameter `number`, a signature that is not the key's over `digest`."""
    public = loaded.public
    parameters, content = public.parameters, signature.signature
    if isinstance(parameters, TPMS_RSA_PARMS):
        if not isinstance(content, TPMS_SIGNATURE_RSA):
            raise in_parameter(TPM_RC.SCHEME, number)
        valid = _is_rsa_valid(public, digest, signature.sigAlg, content)
    elif isinstance(parameters, TPMS_ECC_PARMS):
        if not isinstance(content, TPMS_SIGNATURE_ECC) or signature.sigAlg not in _ECC_SCHEMES:
            raise in_parameter(TPM_RC.SCHEME, number)
        valid = _is_ecc_valid(public, digest, signature.sigAlg, content)
    elif public.type == TPM_ALG.KEYEDHASH:
        if loaded.public_only:
            raise in_parameter(TPM_RC.HANDLE, number)
        if signature.sigAlg != TPM_ALG.HMAC or not isinstance(content, TPMT_HA):
            raise in_parameter(TPM_RC.SCHEME, number)
        assert isinstance(parameters, TPMT_KEYEDHASH_SCHEME)
        if parameters.details is not None and parameters.details.hashAlg != content.hashAlg:
            raise in_parameter(TPM_RC.SIGNATURE, number)
        expected = hmac.digest(loaded.private, digest, HASH_NAMES[content.hashAlg])
        valid = hmac.compare_digest(expected, content.digest)
    else:
        raise in_parameter(TPM_RC.SCHEME, number)
    if not valid:
        raise in_parameter(TPM_RC.SIGNATURE, number)


def _is_ecc_valid(public: TPMT_PUBLIC, digest: bytes, scheme: int, content: TPMS_SIGNATURE_ECC) -> bool:
    assert isinstance(public.unique, TPMS_ECC_POINT)
    assert isinstance(public.parameters, TPMS_ECC_PARMS)
    curve = CURVES[public.parameters.curveID]
    point = int.from_bytes(public.unique.x, "big"), int.from_bytes(public.unique.y, "big")
    r, s = int.from_bytes(content.signatureR, "big"), int.from_bytes(content.signatureS, "big")
    if scheme == TPM_ALG.ECSCHNORR:
        return verify_schnorr(curve, point, content.hash, digest, r, s)
    if scheme == TPM_ALG.SM2:
        return verify_sm2(curve, point, digest, r, s)
    return verify_ecdsa(curve, point, digest, r, s)


def _is_rsa_valid(public: TPMT_PUBLIC, digest: bytes, scheme: int, content: TPMS_SIGNATURE_RSA) -> bool:
    assert isinstance(public.unique, bytes)
    assert isinstance(public.parameters, TPMS_RSA_PARMS)
    modulus = int.from_bytes(public.unique, "big")
    size = len(public.unique)
    if len(content.sig) != size or len(digest) != HASH_BYTES[content.hash]:
        return False
    if int.from_bytes(content.sig, "big") >= modulus:
        return False
    encoded = public_operation(modulus, public.parameters.exponent or DEFAULT_EXPONENT, content.sig)
    if scheme == TPM_ALG.RSAPSS:
        return pss_fits(content.hash, digest, modulus.bit_length(), encoded)
    return encoded == rsassa_encode(content.hash, digest, size)
