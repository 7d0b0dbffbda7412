"""How a loaded key signs: the choice between its own scheme and the one asked for, and the signature itself.

Models: RSASSA, RSAPSS, ECDSA, ECDAA, EC-Schnorr, SM2 and HMAC.  ECC nonces follow from key and digest
(RFC 6979), PSS salts and ECDAA salts from the TPM's generator, so that a run repeats bit for bit.
Leaves out: resistance to side channels.
Sources: TPM 2.0 Library part 1, annexes B and C; part 3, 20.2 "Sign"; RFC 8017; RFC 6979.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_RC, TPMA_OBJECT
from sim.tpm.crypto import ecc, ecdaa, rsa
from sim.tpm.crypto.kdf import HASH_NAMES
from sim.tpm.hashing import hash_bytes
from sim.tpm.keys import LoadedObject, ecc_scalar, rsa_private
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_ECDAA,
    TPMS_SCHEME_HASH,
    TPMS_SIGNATURE_ECC,
    TPMS_SIGNATURE_RSA,
    TPMT_HA,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
)

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["NO_SCHEME", "can_sign", "chosen_scheme", "scheme_hash", "sign_digest"]

_NULL = TPM_ALG.NULL.value
_RSA_SCHEMES = frozenset({TPM_ALG.RSASSA.value, TPM_ALG.RSAPSS.value})
_ECC_SCHEMES = frozenset(
    {TPM_ALG.ECDSA.value, TPM_ALG.ECDAA.value, TPM_ALG.ECSCHNORR.value, TPM_ALG.SM2.value}
)
NO_SCHEME = TPMT_SIG_SCHEME(scheme=_NULL, details=None)


def can_sign(loaded: LoadedObject) -> bool:
    """Tell whether an object is a key that signs."""
    return bool(loaded.public.objectAttributes & TPMA_OBJECT.sign) and loaded.public.type != TPM_ALG.SYMCIPHER


def chosen_scheme(loaded: LoadedObject, asked: TPMT_SIG_SCHEME, number: int) -> TPMT_SIG_SCHEME:
    """Return the scheme to sign with; refuse parameter `number` if key and request do not go together."""
    parameters = loaded.public.parameters
    own_details: object
    if isinstance(parameters, TPMT_KEYEDHASH_SCHEME):
        own, own_details = parameters.scheme, parameters.details
        possible = frozenset({TPM_ALG.HMAC.value})
    elif isinstance(parameters, (TPMS_RSA_PARMS, TPMS_ECC_PARMS)):
        own, own_details = parameters.scheme.scheme, parameters.scheme.details
        possible = _RSA_SCHEMES if isinstance(parameters, TPMS_RSA_PARMS) else _ECC_SCHEMES
    else:
        raise in_parameter(TPM_RC.SCHEME, number)
    if own == _NULL:
        chosen = asked
    elif asked.scheme == _NULL:
        if own == TPM_ALG.ECDAA:  # its counter must be named
            raise in_parameter(TPM_RC.SCHEME, number)
        details = own_details if isinstance(own_details, TPMS_SCHEME_HASH) else None
        chosen = TPMT_SIG_SCHEME(scheme=own, details=details)
    else:
        same = asked.scheme == own and scheme_hash(asked) == getattr(own_details, "hashAlg", None)
        if not same:
            raise in_parameter(TPM_RC.SCHEME, number)
        chosen = asked
    if chosen.scheme not in possible:
        raise in_parameter(TPM_RC.SCHEME, number)
    return chosen


def scheme_hash(scheme: TPMT_SIG_SCHEME) -> int:
    """Return the hash of a scheme (null where it has none)."""
    return scheme.details.hashAlg if scheme.details is not None else _NULL


def sign_digest(tpm: Tpm, loaded: LoadedObject, scheme: TPMT_SIG_SCHEME, digest: bytes) -> TPMT_SIGNATURE:
    """Sign a digest with a scheme that `chosen_scheme` gave."""
    hash_alg = scheme_hash(scheme)
    if scheme.scheme == TPM_ALG.HMAC:
        code = hmac.digest(loaded.private, digest, HASH_NAMES[hash_alg])
        return TPMT_SIGNATURE(sigAlg=scheme.scheme, signature=TPMT_HA(hashAlg=hash_alg, digest=code))
    if isinstance(loaded.public.parameters, TPMS_RSA_PARMS):
        value = _sign_rsa(tpm, loaded, scheme.scheme, hash_alg, digest)
        return TPMT_SIGNATURE(sigAlg=scheme.scheme, signature=TPMS_SIGNATURE_RSA(hash=hash_alg, sig=value))
    r, s = _sign_ecc(tpm, loaded, scheme, digest)
    return TPMT_SIGNATURE(
        sigAlg=scheme.scheme, signature=TPMS_SIGNATURE_ECC(hash=hash_alg, signatureR=r, signatureS=s)
    )


def _sign_rsa(tpm: Tpm, loaded: LoadedObject, scheme: int, hash_alg: int, digest: bytes) -> bytes:
    key = rsa_private(loaded)
    if scheme == TPM_ALG.RSAPSS:
        bits = key.n.bit_length()
        salt_bytes = min(HASH_BYTES[hash_alg], (bits + 6) // 8 - HASH_BYTES[hash_alg] - 2)
        encoded = rsa.pss_encode(hash_alg, digest, bits, tpm.random.bytes(max(0, salt_bytes)))
    else:
        encoded = rsa.rsassa_encode(hash_alg, digest, key.size)
    if encoded is None:
        raise RefusedError(TPM_RC.SIZE)
    return rsa.private_operation(key, encoded)


def _sign_ecc(tpm: Tpm, loaded: LoadedObject, scheme: TPMT_SIG_SCHEME, digest: bytes) -> tuple[bytes, bytes]:
    parameters = loaded.public.parameters
    assert isinstance(parameters, TPMS_ECC_PARMS)
    assert isinstance(scheme.details, (TPMS_SCHEME_HASH, TPMS_SCHEME_ECDAA))
    curve, private = ecc.CURVES[parameters.curveID], ecc_scalar(loaded)
    hash_alg = scheme.details.hashAlg
    if isinstance(scheme.details, TPMS_SCHEME_ECDAA):
        full = tpm.commits.find(scheme.details.count)
        if full is None:
            raise RefusedError(TPM_RC.VALUE)
        salt = tpm.random.bytes(curve.size)
        nonce = tpm.commits.scalar(full, curve, loaded.name)
        tpm.commits.spend(scheme.details.count)
        return salt, curve.encode(ecdaa.sign_ecdaa(curve, private, nonce, salt, hash_alg, digest))
    if scheme.scheme == TPM_ALG.ECSCHNORR:
        r, s = ecdaa.sign_schnorr(curve, private, hash_alg, digest)
    elif scheme.scheme == TPM_ALG.SM2:
        r, s = ecdaa.sign_sm2(curve, private, hash_alg, digest)
    else:
        r, s = ecc.sign_ecdsa(curve, private, hash_alg, _sized_digest(hash_alg, digest))
    return curve.encode(r), curve.encode(s)


def _sized_digest(hash_alg: int, digest: bytes) -> bytes:
    """Return a digest of the size of its hash; one of another size (with a ticket only) is hashed first."""
    return digest if len(digest) == HASH_BYTES[hash_alg] else hash_bytes(hash_alg, digest)
