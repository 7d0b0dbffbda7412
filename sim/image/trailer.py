"""The signature trailer of early modules: what the boot loader checks before any file system is there.

Models: data, then a 32-bit schema, a signature made of a 16-byte ASCII key id and the raw signature, the signature's
length, and a magic number, all little-endian.  Data and schema are covered; key id, length and magic are not, yet
each of them changed leaves nothing to verify.  The key's certificate is what the loader measures as the signer.
A key is revoked by the SHA-256 of its certificate or of its authority's, or by a revocation list of that authority.

Leaves out: nothing of the layout; validity, which the loader does not look at, as it has no clock that it could trust,
except for revocation lists.  What the four schema numbers mean is not public; here 1 and 2 are RSA
PKCS #1 v1.5 with SHA-256 and SHA-512, 3 and 4 are ECDSA with SHA-256 and SHA-384: this project's choice.

Sources: the layout as read in VMware's esx-boot (ESXi 9.0), mboot/secure.c.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import field, frozen

from sim.core.facts import fact
from sim.errors import FormatError, LimitError
from sim.image.algorithms import key_type, verify
from sim.image.certificate import load_certificate
from sim.image.chain import check_not_revoked
from sim.image.crl import check_revocation
from sim.image.trust import KEY_ID_BYTES, EarlyKey, SignatureError, TrustStore

if TYPE_CHECKING:
    from sim.image.pki import EarlySigner

__all__ = [
    "MAGIC",
    "SCHEMAS",
    "ModuleSignature",
    "Trailer",
    "check_key_not_revoked",
    "sign_module",
    "split_trailer",
    "verify_early_module",
    "verify_module",
]

MAGIC = fact(
    "image.trailer_magic", 0x1ABE11ED, unit="magic", source="read: esx-boot, mboot/secure.c", kind="vendor"
).value

SCHEMAS = {1: ("rsa", "sha256"), 2: ("rsa", "sha512"), 3: ("ec", "sha256"), 4: ("ec", "sha384")}
"""Schema number -> key type and digest."""

SIGNATURE_BYTES_MAX = 1024

_WORD = struct.Struct("<I")
_WHAT = "module signature"


@frozen(kw_only=True)
class Trailer:
    """A trailer taken off its module but not yet believed; `covered` is what the signature is over."""

    payload: bytes = field(repr=False)
    covered: bytes = field(repr=False)
    schema: int
    key_id: bytes
    signature: bytes = field(repr=False)


@frozen(kw_only=True)
class ModuleSignature:
    """A verified early module: the key that signed it, the schema, and the module without its trailer."""

    key_id: str
    schema: int
    payload: bytes = field(repr=False)
    certificate_der: bytes = field(repr=False)


def sign_module(data: bytes, signer: EarlySigner) -> bytes:
    """Append the trailer of an early-module key to a module."""
    covered = data + _WORD.pack(signer.key.schema)
    digest = SCHEMAS[signer.key.schema][1]
    signature = signer.key.key_id.encode("ascii") + signer.identity.sign(covered, digest)
    return covered + signature + _WORD.pack(len(signature)) + _WORD.pack(MAGIC)


def verify_early_module(data: bytes, trust: TrustStore, now: datetime) -> ModuleSignature:
    """Check the trailer of a module, and that its key is not revoked at the (simulated) time `now`.

    Raises SignatureError: those of `verify_module` and of `check_key_not_revoked`.
    """
    signature = verify_module(data, trust.early_keys)
    key = next(one for one in trust.early_keys if one.key_id == signature.key_id)
    check_key_not_revoked(key, trust, now)
    return signature


def check_key_not_revoked(key: EarlyKey, trust: TrustStore, now: datetime) -> None:
    """Demand that neither a key's certificate nor its authority's is revoked.

    Raises SignatureError: chain (the authority did not issue the key), revoked, or one of `check_revocation`.  Where
    every authority must have a list, a key that no authority can revoke is refused too.
    """
    path = [load_certificate(key.certificate_der)]
    if key.authority_der:
        path.append(load_certificate(key.authority_der))
        if not path[0].is_issued_by(path[1]):
            raise SignatureError("chain", f"key {key.key_id} was not issued by {path[1].title}")
    elif trust.revocation.missing == "refuse":
        raise SignatureError("crl-missing", f"key {key.key_id} has no authority that could revoke it")
    check_not_revoked(tuple(path), trust.revoked)
    check_revocation(path, trust.crls, trust.revocation, now)


def verify_module(data: bytes, keys: tuple[EarlyKey, ...]) -> ModuleSignature:
    """Check the trailer of a module against the loader's keys.

    Raises SignatureError: no-signature (there is no trailer), trailer-format, key-id, schema, signature.
    """
    try:
        trailer = split_trailer(data)
    except FormatError as error:
        raise SignatureError("trailer-format", str(error)) from error
    if trailer is None:
        raise SignatureError("no-signature", "no signature found")
    key = _named_key(trailer, keys)
    check_schema(trailer, key)
    check_module_signature(trailer, key)
    return ModuleSignature(
        key_id=key.key_id, schema=key.schema, payload=trailer.payload, certificate_der=key.certificate_der
    )


def split_trailer(data: bytes) -> Trailer | None:
    """Take the trailer off a module; None if the magic is not there, FormatError if the rest does not fit."""
    if len(data) < _WORD.size or _WORD.unpack(data[-4:])[0] != MAGIC:
        return None
    end = len(data) - 2 * _WORD.size
    if end < _WORD.size:
        raise FormatError(_WHAT, f"offset {len(data)}", "the module is shorter than its trailer")
    (length,) = _WORD.unpack_from(data, end)
    if length > SIGNATURE_BYTES_MAX:
        raise LimitError(
            _WHAT, f"offset {end}", f"a signature of {length} bytes, at most {SIGNATURE_BYTES_MAX}"
        )
    start = end - length
    if length <= KEY_ID_BYTES or start < _WORD.size:
        raise FormatError(_WHAT, f"offset {end}", f"a signature of {length} bytes does not fit")
    (schema,) = _WORD.unpack_from(data, start - _WORD.size)
    return Trailer(
        payload=data[: start - _WORD.size],
        covered=data[:start],
        schema=schema,
        key_id=data[start : start + KEY_ID_BYTES],
        signature=data[start + KEY_ID_BYTES : end],
    )


def check_schema(trailer: Trailer, key: EarlyKey) -> None:
    """Demand the schema that the key was made for."""
    if trailer.schema != key.schema:
        raise SignatureError(
            "schema", f"key {key.key_id} signs with schema {key.schema}, not {trailer.schema}"
        )


def check_module_signature(trailer: Trailer, key: EarlyKey) -> None:
    """Demand that the key of that id signed data and schema."""
    kind, digest = SCHEMAS[key.schema]
    public_key = load_certificate(key.certificate_der).public_key
    if key_type(public_key) != kind or not verify(public_key, trailer.signature, trailer.covered, digest):
        raise SignatureError("signature", f"the signature was not made by key {key.key_id}")


def _named_key(trailer: Trailer, keys: tuple[EarlyKey, ...]) -> EarlyKey:
    for key in keys:
        if key.key_id.encode("ascii") == trailer.key_id:
            return key
    raise SignatureError("key-id", f"no key has the id {trailer.key_id!r}")
