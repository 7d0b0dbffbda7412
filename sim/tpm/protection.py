"""How secrets travel: wrapped under a parent, for another parent, or as a credential; and how their seeds are shared.

Models: the outer wrap (encrypt, then HMAC with the object's name), the inner wrap of duplication, and the sharing of a
seed with the owner of a key by OAEP or by one-pass ECDH.
Leaves out: which objects may be wrapped (`sim.tpm.commands`), and saved contexts (`sim.tpm.contexts`).
Sources: TPM 2.0 Library part 1, 22 (protected storage), 23.3 (duplication), 24 (credentials), annexes B and C.
"""

from __future__ import annotations

import hmac

from attrs import frozen

from sim.core.rng import Stream
from sim.tpm.codec import WireError, codec_of
from sim.tpm.constants import HASH_BYTES, TPM_RC
from sim.tpm.crypto import ecc, rsa
from sim.tpm.crypto.kdf import HASH_NAMES, kdf_a, kdf_e
from sim.tpm.crypto.symmetric import BLOCK_BYTES, cfb_decrypt, cfb_encrypt
from sim.tpm.hashing import algorithm_of_name, hash_bytes
from sim.tpm.keys import LoadedObject, ecc_scalar, rsa_numbers, rsa_private
from sim.tpm.object_rules import storage_symmetric
from sim.tpm.wire import (
    TPM2B_DIGEST,
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMT_PUBLIC,
    TPMT_SYM_DEF_OBJECT,
    UINT16,
)
from sim.tpm.wire.private import TPM2B_SENSITIVE, TPMT_SENSITIVE

__all__ = [
    "CREDENTIAL",
    "DUPLICATION",
    "SESSION_SECRET",
    "Wrapper",
    "decode_sensitive",
    "encode_sensitive",
    "inner_unwrap",
    "inner_wrap",
    "open_secret",
    "share_secret",
    "storage_wrapper",
]

CREDENTIAL = b"IDENTITY"
"""Label of the seed of a credential."""
DUPLICATION = b"DUPLICATE"
"""Label of the seed of a duplicated object."""
SESSION_SECRET = b"SECRET"
"""Label of the salt of a session."""


@frozen(kw_only=True)
class Wrapper:
    """The keys of an outer wrap: they follow from `seed` and, for the cipher, from the name of what is wrapped."""

    hash_alg: int
    symmetric: TPMT_SYM_DEF_OBJECT
    seed: bytes
    has_vector: bool = False
    """Whether a random vector stands before the ciphertext, which must be so where one seed serves many times."""

    def wrap(self, name: bytes, content: bytes, chance: Stream | None = None) -> bytes:
        """Encrypt `content` and put the HMAC over it and the name in front."""
        vector, before = bytes(self._block), b""
        if self.has_vector:
            assert chance is not None
            vector = chance.bytes(self._block)
            before = TPM2B_DIGEST.encode(vector)
        body = before + cfb_encrypt(self.symmetric.algorithm, self._cipher_key(name), vector, content)
        return TPM2B_DIGEST.encode(self._integrity(body, name)) + body

    def unwrap(self, name: bytes, data: bytes) -> bytes:
        """Check the HMAC and decrypt; `WireError` with the code to answer otherwise."""
        found, at = TPM2B_DIGEST.decode(data, 0, len(data))
        body = data[at:]
        if not hmac.compare_digest(found, self._integrity(body, name)):
            raise WireError(TPM_RC.INTEGRITY, "the HMAC of the wrap differs")
        vector = bytes(self._block)
        if self.has_vector:
            vector, at = TPM2B_DIGEST.decode(body, 0, len(body))
            body = body[at:]
            if len(vector) != self._block:
                raise WireError(TPM_RC.SIZE, f"{len(vector)} bytes of vector")
        return cfb_decrypt(self.symmetric.algorithm, self._cipher_key(name), vector, body)

    @property
    def _block(self) -> int:
        return BLOCK_BYTES[self.symmetric.algorithm]

    def _cipher_key(self, name: bytes) -> bytes:
        assert self.symmetric.keyBits is not None
        return kdf_a(self.hash_alg, self.seed, b"STORAGE", name, self.symmetric.keyBits)

    def _integrity(self, body: bytes, name: bytes) -> bytes:
        key = kdf_a(self.hash_alg, self.seed, b"INTEGRITY", b"", HASH_BYTES[self.hash_alg] * 8)
        return hmac.digest(key, body + name, HASH_NAMES[self.hash_alg])


def storage_wrapper(parent: TPMT_PUBLIC, seed: bytes, *, has_vector: bool) -> Wrapper:
    """Return the wrapper of a storage parent: its children's with its own seed, or another's with a shared seed."""
    symmetric = storage_symmetric(parent)
    return Wrapper(hash_alg=parent.nameAlg, symmetric=symmetric, seed=seed, has_vector=has_vector)


def encode_sensitive(sensitive: TPMT_SENSITIVE, name_alg: int) -> bytes:
    """Return a sensitive area for wrapping: the authorisation value is filled up, so that its length does not show."""
    filled = TPMT_SENSITIVE(
        sensitiveType=sensitive.sensitiveType,
        authValue=sensitive.authValue.ljust(HASH_BYTES.get(name_alg, 0), b"\0"),
        seedValue=sensitive.seedValue,
        sensitive=sensitive.sensitive,
    )
    return TPM2B_SENSITIVE.encode(filled)


def decode_sensitive(data: bytes) -> TPMT_SENSITIVE:
    """Read a sensitive area that was wrapped."""
    size, at = UINT16.decode(data, 0, len(data))
    if size != len(data) - at:
        raise WireError(TPM_RC.SIZE, f"size {size}, but {len(data) - at} bytes follow")
    return TPMT_SENSITIVE.decode(data[at:])


def inner_wrap(symmetric: TPMT_SYM_DEF_OBJECT, key: bytes, name: bytes, content: bytes) -> bytes:
    """Put a digest with the name in front of `content` and encrypt both with the caller's key."""
    name_alg = algorithm_of_name(name)
    body = TPM2B_DIGEST.encode(hash_bytes(name_alg, content + name)) + content
    return cfb_encrypt(symmetric.algorithm, key, bytes(BLOCK_BYTES[symmetric.algorithm]), body)


def inner_unwrap(symmetric: TPMT_SYM_DEF_OBJECT, key: bytes, name: bytes, data: bytes) -> bytes:
    """Undo `inner_wrap`."""
    body = cfb_decrypt(symmetric.algorithm, key, bytes(BLOCK_BYTES[symmetric.algorithm]), data)
    found, at = TPM2B_DIGEST.decode(body, 0, len(body))
    if found != hash_bytes(algorithm_of_name(name), body[at:] + name):
        raise WireError(TPM_RC.INTEGRITY, "the digest of the inner wrap differs")
    return body[at:]


def share_secret(public: TPMT_PUBLIC, label: bytes, chance: Stream) -> tuple[bytes, bytes]:
    """Make a seed that only the owner of a key can recover; return it and its encrypted form."""
    size = HASH_BYTES.get(public.nameAlg)
    if size is None:
        raise WireError(TPM_RC.VALUE, "a key without a name algorithm shares no seed")
    if isinstance(public.parameters, TPMS_RSA_PARMS):
        if len(public.unique) < 3 * size + 2:  # type: ignore[arg-type]
            raise WireError(TPM_RC.VALUE, "the key is too short for its name algorithm")
        seed = chance.bytes(size)
        n, e = rsa_numbers(public)
        padded = rsa.oaep_encode(public.nameAlg, label + b"\0", seed, len(public.unique), chance)  # type: ignore[arg-type]
        assert padded is not None
        return seed, rsa.public_operation(n, e, padded)
    assert isinstance(public.parameters, TPMS_ECC_PARMS)
    curve = ecc.CURVES[public.parameters.curveID]
    private = ecc.private_scalar(curve, chance.bytes(curve.size + ecc.EXTRA_BITS // 8))
    x, y = (curve.encode(number) for number in ecc.public_point(curve, private))
    seed = _agreed(public, private, _point(public), label, x)
    return seed, TPMS_ECC_POINT(x=x, y=y).encode()


def open_secret(key: LoadedObject, label: bytes, encrypted: bytes) -> bytes:
    """Recover a seed that was shared with a loaded key; `WireError` with the code to answer otherwise."""
    if isinstance(key.public.parameters, TPMS_RSA_PARMS):
        return _open_rsa(key, label, encrypted)
    if not isinstance(key.public.parameters, TPMS_ECC_PARMS):
        raise WireError(TPM_RC.KEY, "no seed can be shared with such a key")
    other: TPMS_ECC_POINT
    other, _ = codec_of(TPMS_ECC_POINT).decode(encrypted, 0, len(encrypted))
    curve = ecc.CURVES[key.public.parameters.curveID]
    point = (int.from_bytes(other.x, "big"), int.from_bytes(other.y, "big"))
    if not ecc.is_on_curve(curve, point):
        raise WireError(TPM_RC.ECC_POINT, "the point is not on the curve")
    return _agreed(key.public, ecc_scalar(key), point, label, other.x)


def _open_rsa(key: LoadedObject, label: bytes, encrypted: bytes) -> bytes:
    size, name_alg = len(key.public.unique), key.public.nameAlg  # type: ignore[arg-type]
    if len(encrypted) != size:
        raise WireError(TPM_RC.SIZE, f"{len(encrypted)} bytes, the key has {size}")
    private = rsa_private(key)
    if int.from_bytes(encrypted, "big") >= private.n:
        raise WireError(TPM_RC.VALUE, "the number is not below the modulus")
    seed = rsa.oaep_decode(name_alg, label + b"\0", rsa.private_operation(private, encrypted))
    if seed is None:
        raise WireError(TPM_RC.VALUE, "the padding is wrong")
    if len(seed) > HASH_BYTES[name_alg]:
        raise WireError(TPM_RC.SIZE, "the seed is too long")
    return seed


def _agreed(public: TPMT_PUBLIC, scalar: int, point: ecc.Point, label: bytes, ephemeral_x: bytes) -> bytes:
    """Return the seed of a one-pass exchange: KDFe over the common x, the ephemeral x and the key's x."""
    assert isinstance(public.parameters, TPMS_ECC_PARMS)
    assert isinstance(public.unique, TPMS_ECC_POINT)
    curve = ecc.CURVES[public.parameters.curveID]
    common = ecc.shared_x(curve, scalar, point)
    if common is None:
        raise WireError(TPM_RC.NO_RESULT, "the common point is at infinity")
    z = curve.encode(common)
    bits = HASH_BYTES[public.nameAlg] * 8
    return kdf_e(public.nameAlg, z, label, ephemeral_x, public.unique.x, bits)


def _point(public: TPMT_PUBLIC) -> ecc.Point:
    assert isinstance(public.unique, TPMS_ECC_POINT)
    return int.from_bytes(public.unique.x, "big"), int.from_bytes(public.unique.y, "big")
