"""The public areas of a TPM's keys, and the checks that tell what may be believed of such a key.

Models: reading a public area, its Name, its key; the demands on an attestation key (restricted signing) and on an
endorsement key (restricted decryption), and the equality of an endorsement key with the one in a certificate.  Each
check raises AttestationError.

Leaves out: ECDAA, HMAC and RSAPSS keys; endorsement keys of policies other than the TCG's are not told apart, for the
host and not the verifier has to satisfy them.

Sources: TPM 2.0 Library 1.59, part 1 chapter 16 (names), part 2 chapters 8.3 and 12.2; TCG EK Credential Profile 2.3,
annex B (templates).
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sim.attest.verdict import AttestationError
from sim.errors import FormatError
from sim.image.algorithms import PublicKey, key_problem
from sim.tpm.constants import TPM_ALG, TPM_ECC, TPMA_OBJECT
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_HASH,
    TPMT_PUBLIC,
)

__all__ = [
    "check_ak_attributes",
    "check_ak_scheme",
    "check_ek_attributes",
    "check_ek_is_certified",
    "name_of",
    "public_key",
    "read_public",
]

_OWN: Final = TPMA_OBJECT.fixedTPM | TPMA_OBJECT.fixedParent | TPMA_OBJECT.sensitiveDataOrigin
_RESTRICTED: Final = _OWN | TPMA_OBJECT.restricted
_RSA_DEFAULT_EXPONENT: Final = 65537
_CURVES: Final = {TPM_ECC.NIST_P256.value: ec.SECP256R1(), TPM_ECC.NIST_P384.value: ec.SECP384R1()}


def read_public(data: bytes) -> TPMT_PUBLIC:
    """Read a TPM2B_PUBLIC that fills `data`; FormatError otherwise."""
    public, end = TPM2B_PUBLIC.decode(data, 0, len(data))
    if end != len(data):
        raise FormatError("public area", f"offset {end}", f"{len(data) - end} bytes follow the public area")
    assert isinstance(public, TPMT_PUBLIC)
    return public


def name_of(public_area: bytes) -> bytes:
    """Return the Name of a key from its TPM2B_PUBLIC, with SHA-256, the only name algorithm that is accepted."""
    return TPM_ALG.SHA256.to_bytes(2, "big") + hashlib.sha256(public_area[2:]).digest()


def public_key(public: TPMT_PUBLIC, check: str) -> PublicKey:
    """Return the key of a public area; AttestationError named `check` when it is none that is allowed."""
    try:
        key = _load(public)
    except (ValueError, KeyError) as error:
        raise AttestationError(check, f"the public area holds no usable key: {error}") from error
    problem = key_problem(key)
    if problem is not None:
        raise AttestationError(check, f"the public area holds {problem}")
    return key


def _load(public: TPMT_PUBLIC) -> PublicKey:
    if isinstance(public.parameters, TPMS_ECC_PARMS) and isinstance(public.unique, TPMS_ECC_POINT):
        x, y = (int.from_bytes(each, "big") for each in (public.unique.x, public.unique.y))
        return ec.EllipticCurvePublicNumbers(x, y, _CURVES[public.parameters.curveID]).public_key()
    if isinstance(public.parameters, TPMS_RSA_PARMS) and isinstance(public.unique, bytes):
        exponent = public.parameters.exponent or _RSA_DEFAULT_EXPONENT
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(public.unique, "big")).public_key()
    raise ValueError("neither RSA nor ECC")


# ---------------------------------------------------------------- the attestation key


def check_ak_attributes(public: TPMT_PUBLIC) -> None:
    """Demand a restricted signing key that was made in this TPM and cannot leave it."""
    _check_attributes(
        public,
        wanted=_RESTRICTED | TPMA_OBJECT.sign,
        forbidden=TPMA_OBJECT.decrypt,
        check="ak_attributes",
        what="the attestation key is not a restricted signing key of this TPM",
    )


def check_ak_scheme(public: TPMT_PUBLIC) -> None:
    """Demand a key that signs with ECDSA or RSASSA over SHA-256, and a SHA-256 name."""
    allowed = {TPM_ALG.ECC: TPM_ALG.ECDSA, TPM_ALG.RSA: TPM_ALG.RSASSA}
    scheme = getattr(public.parameters, "scheme", None)
    name = getattr(scheme, "scheme", None)
    details = getattr(scheme, "details", None)
    sha256 = isinstance(details, TPMS_SCHEME_HASH) and details.hashAlg == TPM_ALG.SHA256
    if public.type not in allowed or name != allowed[TPM_ALG(public.type)] or not sha256:
        raise AttestationError(
            "ak_scheme", "the attestation key does not sign with ECDSA or RSASSA over SHA-256"
        )
    if public.nameAlg != TPM_ALG.SHA256:
        raise AttestationError("ak_scheme", "the attestation key's name is not a SHA-256 name")


# ---------------------------------------------------------------- the endorsement key


def check_ek_attributes(public: TPMT_PUBLIC) -> None:
    """Demand a restricted decryption key that was made in this TPM and cannot leave it."""
    _check_attributes(
        public,
        wanted=_RESTRICTED | TPMA_OBJECT.decrypt,
        forbidden=TPMA_OBJECT.sign,
        check="ek_attributes",
        what="the endorsement key is not a restricted decryption key of this TPM",
    )


def check_ek_is_certified(public: TPMT_PUBLIC, certified: PublicKey) -> None:
    """Demand that the public area holds the very key that the certificate is for."""
    if public_key(public, "ek_public") != certified:
        raise AttestationError("ek_public", "the offered endorsement key is not the one in the certificate")


def _check_attributes(
    public: TPMT_PUBLIC, *, wanted: TPMA_OBJECT, forbidden: TPMA_OBJECT, check: str, what: str
) -> None:
    wrong = (wanted & ~public.objectAttributes) | (forbidden & public.objectAttributes)
    if wrong:
        names = [flag.name for flag in TPMA_OBJECT if flag & wrong and flag.name]
        raise AttestationError(
            check,
            f"{what} (wrong: {', '.join(names)})",
            evidence=f"objectAttributes 0x{public.objectAttributes:08x}",
        )
