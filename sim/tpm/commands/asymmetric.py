"""RSA_Encrypt, RSA_Decrypt, ECDH_KeyGen, ECDH_ZGen, ECC_Parameters, EC_Ephemeral and ZGen_2Phase.

Models: encryption with every padding, and key exchange in one and two phases (ECDH, MQV and SM2).
Leaves out: the derivation of keys from the secrets, which is the caller's.
Sources: TPM 2.0 Library part 3, chapters 14 and 19.3; part 1, annexes B and C; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPMA_OBJECT
from sim.tpm.crypto import ecc, rsa
from sim.tpm.crypto.ecc import Curve, Point
from sim.tpm.crypto.twophase import exchange_ecdh, exchange_mqv, exchange_sm2
from sim.tpm.entities import object_at
from sim.tpm.keys import LoadedObject, ecc_scalar, rsa_numbers, rsa_private
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_RSA_SCHEME,
)
from sim.tpm.wire.asymmetric import TPMS_ALGORITHM_DETAIL_ECC

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "encode_point", "need_point"]

_NULL = TPM_ALG.NULL.value
_EMPTY_POINT = TPMS_ECC_POINT(x=b"", y=b"")
_NO_SIGN_SCHEME = TPMT_ECC_SCHEME(scheme=_NULL, details=None)
_NO_KDF = TPMT_KDF_SCHEME(scheme=_NULL, details=None)


def rsa_encrypt(
    tpm: Tpm, key_handle: int, message: bytes, in_scheme: TPMT_RSA_SCHEME, label: bytes
) -> tuple[Any, ...]:
    """Pad and encrypt with the public part of a key."""
    loaded = object_at(tpm, key_handle)
    if loaded.public.type != TPM_ALG.RSA:
        raise in_handle(TPM_RC.KEY, 1)
    if not loaded.public.objectAttributes & TPMA_OBJECT.decrypt:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    scheme = _rsa_scheme(loaded, in_scheme, label)
    modulus, exponent = rsa_numbers(loaded.public)
    size = (modulus.bit_length() + 7) // 8
    padded: bytes | None
    if scheme.scheme == TPM_ALG.OAEP:
        assert scheme.details is not None
        padded = rsa.oaep_encode(scheme.details.hashAlg, label, message, size, tpm.random)
    elif scheme.scheme == TPM_ALG.RSAES:
        padded = rsa.pkcs1_encode(message, size, tpm.random)
    else:
        padded = message.rjust(size, b"\0") if not any(message[:-size]) else None
        if padded is not None and int.from_bytes(padded, "big") >= modulus:
            raise RefusedError(TPM_RC.VALUE)
    if padded is None:
        raise RefusedError(TPM_RC.VALUE)
    return (rsa.public_operation(modulus, exponent, padded[-size:]),)


def rsa_decrypt(
    tpm: Tpm, key_handle: int, cipher: bytes, in_scheme: TPMT_RSA_SCHEME, label: bytes
) -> tuple[Any, ...]:
    """Decrypt with a key of the TPM and take the padding off."""
    loaded = object_at(tpm, key_handle)
    if loaded.public.type != TPM_ALG.RSA:
        raise in_handle(TPM_RC.KEY, 1)
    _need_decrypting(loaded)
    scheme = _rsa_scheme(loaded, in_scheme, label)
    key = rsa_private(loaded)
    if len(cipher) != key.size:
        raise RefusedError(TPM_RC.SIZE)
    if int.from_bytes(cipher, "big") >= key.n:
        raise RefusedError(TPM_RC.SIZE)
    padded = rsa.private_operation(key, cipher)
    message: bytes | None = padded
    if scheme.scheme == TPM_ALG.OAEP:
        assert scheme.details is not None
        message = rsa.oaep_decode(scheme.details.hashAlg, label, padded)
    elif scheme.scheme == TPM_ALG.RSAES:
        message = rsa.pkcs1_decode(padded)
    if message is None:
        raise RefusedError(TPM_RC.VALUE)
    return (message,)


def _rsa_scheme(loaded: LoadedObject, asked: TPMT_RSA_SCHEME, label: bytes) -> TPMT_RSA_SCHEME:
    """Return the padding to use: the key's own, or the one asked for if the key leaves it open."""
    parameters = loaded.public.parameters
    assert isinstance(parameters, TPMS_RSA_PARMS)
    if label and not label.endswith(b"\0"):
        raise in_parameter(TPM_RC.VALUE, 3)
    own = parameters.scheme
    if own.scheme == _NULL:
        return asked
    if asked.scheme != _NULL and asked != own:
        raise in_parameter(TPM_RC.SCHEME, 2)
    return own


def ecdh_key_gen(tpm: Tpm, key_handle: int) -> tuple[Any, ...]:
    """Draw an ephemeral key; return the secret that it shares with a key, and its public point."""
    curve, public = _ecc_public(tpm, key_handle)
    width = curve.size + ecc.EXTRA_BITS // 8
    private = ecc.private_scalar(curve, tpm.random.bytes(width))
    shared = ecc.multiply(curve, private, public)
    return (encode_point(curve, shared), encode_point(curve, ecc.public_point(curve, private)))


def ecdh_zgen(tpm: Tpm, key_handle: int, in_point: TPMS_ECC_POINT) -> tuple[Any, ...]:
    """Return the secret that a key of the TPM shares with the key of a point."""
    loaded = object_at(tpm, key_handle)
    curve, _ = _ecc_public(tpm, key_handle)
    _need_decrypting(loaded)
    parameters = loaded.public.parameters
    assert isinstance(parameters, TPMS_ECC_PARMS)
    if parameters.scheme.scheme not in (TPM_ALG.ECDH, TPM_ALG.NULL):
        raise in_handle(TPM_RC.SCHEME, 1)
    point = need_point(curve, in_point, 1)
    return (encode_point(curve, ecc.multiply(curve, ecc_scalar(loaded), point)),)


def ecc_parameters(tpm: Tpm, curve_id: int) -> tuple[Any, ...]:
    """Return the numbers of a curve."""
    curve = ecc.CURVES[curve_id]
    kdf = _NO_KDF
    if curve.kdf_hash is not None:
        details = TPMS_SCHEME_HASH(hashAlg=curve.kdf_hash)
        kdf = TPMT_KDF_SCHEME(scheme=TPM_ALG.KDF1_SP800_56A.value, details=details)
    numbers = (curve.p, curve.a, curve.b, curve.gx, curve.gy, curve.n)
    p, a, b, gx, gy, n = map(curve.encode, numbers)
    return (
        TPMS_ALGORITHM_DETAIL_ECC(
            curveID=curve_id,
            keySize=curve.bits,
            kdf=kdf,
            sign=_NO_SIGN_SCHEME,
            p=p,
            a=a if curve.a else b"\0",
            b=b,
            gX=gx,
            gY=gy,
            n=n,
            h=b"\1",
        ),
    )


def ec_ephemeral(tpm: Tpm, curve_id: int) -> tuple[Any, ...]:
    """Return the public point of a new ephemeral key, and the counter that names it."""
    curve = ecc.CURVES[curve_id]
    counter = tpm.commits.take()
    full = tpm.commits.find(counter)
    assert full is not None
    point = ecc.public_point(curve, tpm.commits.scalar(full, curve, b""))
    return (encode_point(curve, point), counter)


def zgen_2phase(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    key_handle: int,
    other_static: TPMS_ECC_POINT,
    other_ephemeral: TPMS_ECC_POINT,
    in_scheme: int,
    counter: int,
) -> tuple[Any, ...]:
    """Return the secrets of a static and an ephemeral key of the TPM with two points of the other party."""
    loaded = object_at(tpm, key_handle)
    curve, _ = _ecc_public(tpm, key_handle)
    _need_decrypting(loaded)
    parameters = loaded.public.parameters
    assert isinstance(parameters, TPMS_ECC_PARMS)
    own = parameters.scheme.scheme
    if own not in (_NULL, in_scheme):
        raise in_parameter(TPM_RC.SCHEME, 3)
    scheme = in_scheme if own == _NULL else own
    static_point = need_point(curve, other_static, 1)
    ephemeral_point = need_point(curve, other_ephemeral, 2)
    full = tpm.commits.find(counter)
    if full is None:
        raise in_parameter(TPM_RC.VALUE, 4)
    static, ephemeral = ecc_scalar(loaded), tpm.commits.scalar(full, curve, b"")
    if scheme == TPM_ALG.ECDH:
        first, second = exchange_ecdh(curve, static, ephemeral, static_point, ephemeral_point)
    else:
        exchange = exchange_mqv if scheme == TPM_ALG.ECMQV else exchange_sm2
        first, second = exchange(curve, static, ephemeral, static_point, ephemeral_point), None
    tpm.commits.spend(counter)
    return (encode_point(curve, first), encode_point(curve, second))


def encode_point(curve: Curve, point: Point | None) -> TPMS_ECC_POINT:
    """Return a point in the form of the wire; the one at infinity is empty."""
    if point is None:
        return _EMPTY_POINT
    return TPMS_ECC_POINT(x=curve.encode(point[0]), y=curve.encode(point[1]))


def need_point(curve: Curve, point: TPMS_ECC_POINT, number: int) -> Point:
    """Return the coordinates of a point of the curve; refuse parameter `number` if it is none."""
    found = int.from_bytes(point.x, "big"), int.from_bytes(point.y, "big")
    if not ecc.is_on_curve(curve, found):
        raise in_parameter(TPM_RC.ECC_POINT, number)
    return found


def _need_decrypting(loaded: LoadedObject) -> None:
    attributes = loaded.public.objectAttributes
    if attributes & TPMA_OBJECT.restricted or not attributes & TPMA_OBJECT.decrypt:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)


def _ecc_public(tpm: Tpm, handle: int) -> tuple[Curve, Point]:
    public = object_at(tpm, handle).public
    if not isinstance(public.parameters, TPMS_ECC_PARMS):
        raise in_handle(TPM_RC.KEY, 1)
    assert isinstance(public.unique, TPMS_ECC_POINT)
    point = int.from_bytes(public.unique.x, "big"), int.from_bytes(public.unique.y, "big")
    return ecc.CURVES[public.parameters.curveID], point


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.ECC_Parameters.value: ecc_parameters,
    TPM_CC.ECDH_KeyGen.value: ecdh_key_gen,
    TPM_CC.ECDH_ZGen.value: ecdh_zgen,
    TPM_CC.EC_Ephemeral.value: ec_ephemeral,
    TPM_CC.RSA_Decrypt.value: rsa_decrypt,
    TPM_CC.RSA_Encrypt.value: rsa_encrypt,
    TPM_CC.ZGen_2Phase.value: zgen_2phase,
}
"""The actions of this group, by command code."""
