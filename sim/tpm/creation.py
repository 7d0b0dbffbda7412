"""The secrets of a new object: made from a source of material, so that the same source gives the same object.

Models: RSA and ECC keys, cipher keys, HMAC and XOR keys, sealed data and their seeds.  The source is
* for a primary, the hierarchy's seed with the template's name and the digest of the caller's data as context: the same
  call gives the same key for ever, and another template another one;
* for an ordinary object, secret bytes drawn from the TPM's random numbers;
* for a derived object, the stream of KDFa that the library prescribes, label and context being the caller's.
Leaves out: which templates are allowed (`sim.tpm.object_rules`).  How a primary follows from its seed is each
vendor's own choice, so the same seed gives other keys on other makes.
Sources: TPM 2.0 Library part 1, 11.4.10 (KDFa), 14 (primary seeds), 27 (creation), 28 (derivation); FIPS 186-5 A.2.1.
"""

from __future__ import annotations

import hmac

import attrs
from attrs import frozen

from sim.core.rng import Stream
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPMA_OBJECT
from sim.tpm.crypto import ecc, rsa, symmetric
from sim.tpm.crypto.kdf import HASH_NAMES, kdf_a
from sim.tpm.hashing import hash_bytes
from sim.tpm.keys import name_of
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMT_SYM_DEF_OBJECT,
)

__all__ = [
    "HASH_BLOCK_BYTES",
    "CreationError",
    "DerivedSource",
    "DrawnSource",
    "Secrets",
    "SeedSource",
    "Source",
    "derive_primary",
    "make_secrets",
    "primary_source",
    "symmetric_unique",
]

_RSA_MATERIAL_BITS = 512
_SECRET_BYTES = 64
_PARENT = TPMA_OBJECT.restricted | TPMA_OBJECT.decrypt
_KEY = b"PRIMARY"
_SEED = b"SEED"
_DERIVATION_BITS = 8192
_TDES_TRIES = 8
HASH_BLOCK_BYTES = {
    TPM_ALG.SHA1.value: 64,
    TPM_ALG.SHA256.value: 64,
    TPM_ALG.SHA384.value: 128,
    TPM_ALG.SHA512.value: 128,
}


class CreationError(Exception):
    """The caller's data cannot be the secret of such an object; `what` is "size", "key size", "key" or "range"."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Source:
    """Where key material comes from."""

    def draw(self, label: bytes, bits: int) -> bytes:
        """Return `bits` of material (a multiple of 8) for the use that `label` names."""
        raise NotImplementedError


@frozen(kw_only=True)
class SeedSource(Source):
    """Material from a secret: each label gives its own."""

    seed: bytes
    context: bytes = b""

    def draw(self, label: bytes, bits: int) -> bytes:
        """Return KDFa of the seed under the label."""
        return kdf_a(TPM_ALG.SHA256, self.seed, label, self.context, bits)


class DrawnSource(Source):
    """Material from random numbers, of which none are drawn before the first use: a refusal costs none."""

    def __init__(self, chance: Stream) -> None:
        self._chance = chance
        self._source: SeedSource | None = None

    def draw(self, label: bytes, bits: int) -> bytes:
        """Return KDFa of secret bytes that were drawn for this object."""
        if self._source is None:
            self._source = SeedSource(seed=self._chance.bytes(_SECRET_BYTES))
        return self._source.draw(label, bits)


class DerivedSource(Source):
    """Material of a derived object: one stream, drawn from in order; the label of a draw plays no part."""

    def __init__(self, hash_alg: int, key: bytes, label: bytes, context: bytes) -> None:
        self._stream = kdf_a(hash_alg, key, label, context, _DERIVATION_BITS)

    def draw(self, label: bytes, bits: int) -> bytes:
        """Return the next bytes of the stream."""
        del label
        drawn, self._stream = self._stream[: bits // 8], self._stream[bits // 8 :]
        return drawn


@frozen(kw_only=True)
class Secrets:
    """A new object's public area with its unique value, its private part and its seed."""

    public: TPMT_PUBLIC
    private: bytes
    seed_value: bytes


def primary_source(seed: bytes, template: TPMT_PUBLIC, data: bytes) -> SeedSource:
    """Return the source of the primary that belongs to a hierarchy's seed, a template and the caller's data."""
    return SeedSource(seed=seed, context=name_of(template) + hash_bytes(TPM_ALG.SHA256, data))


def derive_primary(seed: bytes, template: TPMT_PUBLIC, data: bytes) -> tuple[TPMT_PUBLIC, bytes]:
    """Return the public area and the private part of the primary that belongs to seed, template and data."""
    secrets = make_secrets(template, data, primary_source(seed, template, data))
    return secrets.public, secrets.private


def make_secrets(template: TPMT_PUBLIC, data: bytes, source: Source) -> Secrets:
    """Make the secrets of an object; `data` is the caller's, used where the TPM is not the origin."""
    if template.objectAttributes & TPMA_OBJECT.sensitiveDataOrigin:
        data = b""
    if isinstance(template.parameters, TPMS_RSA_PARMS):
        return _rsa(template, template.parameters, source)
    if isinstance(template.parameters, TPMS_ECC_PARMS):
        return _ecc(template, template.parameters, source)
    if isinstance(template.parameters, TPMT_SYM_DEF_OBJECT):
        private = _cipher_key(template.parameters, data, source)
    else:
        private = _keyed_hash(template, template.parameters, data, source)
    seed_value = source.draw(_SEED, HASH_BYTES[template.nameAlg] * 8)
    unique = symmetric_unique(template, seed_value, private)
    return Secrets(public=attrs.evolve(template, unique=unique), private=private, seed_value=seed_value)


def symmetric_unique(public: TPMT_PUBLIC, seed_value: bytes, private: bytes) -> bytes:
    """Return the unique value of a keyed hash object or cipher key: a digest, of parents an HMAC."""
    if public.objectAttributes & _PARENT == _PARENT:
        return hmac.digest(seed_value, private, HASH_NAMES[public.nameAlg])
    return hash_bytes(public.nameAlg, seed_value + private)


def _parent_seed(template: TPMT_PUBLIC, source: Source) -> bytes:
    """Return the seed of an asymmetric object: only a parent has one."""
    if template.objectAttributes & _PARENT != _PARENT:
        return b""
    return source.draw(_SEED, HASH_BYTES[template.nameAlg] * 8)


def _rsa(template: TPMT_PUBLIC, parameters: TPMS_RSA_PARMS, source: Source) -> Secrets:
    bits, exponent = parameters.keyBits, parameters.exponent or rsa.DEFAULT_EXPONENT
    if not rsa.is_usable_exponent(exponent):
        raise CreationError("range")
    p, q = rsa.generate_primes(source.draw(_KEY, _RSA_MATERIAL_BITS), bits, exponent)
    public = attrs.evolve(template, unique=(p * q).to_bytes(bits // 8, "big"))
    return Secrets(
        public=public, private=p.to_bytes(bits // 16, "big"), seed_value=_parent_seed(template, source)
    )


def _ecc(template: TPMT_PUBLIC, parameters: TPMS_ECC_PARMS, source: Source) -> Secrets:
    curve = ecc.CURVES[parameters.curveID]
    private = ecc.private_scalar(curve, source.draw(_KEY, curve.size * 8 + ecc.EXTRA_BITS))
    x, y = ecc.public_point(curve, private)
    public = attrs.evolve(template, unique=TPMS_ECC_POINT(x=curve.encode(x), y=curve.encode(y)))
    return Secrets(public=public, private=curve.encode(private), seed_value=_parent_seed(template, source))


def _cipher_key(parameters: TPMT_SYM_DEF_OBJECT, data: bytes, source: Source) -> bytes:
    assert parameters.keyBits is not None
    if data:
        if len(data) * 8 != parameters.keyBits:
            raise CreationError("key size")
        if not symmetric.is_usable_key(parameters.algorithm, data):
            raise CreationError("key")
        return data
    key = source.draw(_KEY, parameters.keyBits)
    for retry in range(_TDES_TRIES):
        if symmetric.is_usable_key(parameters.algorithm, key):
            break
        key = source.draw(_KEY + bytes([retry]), parameters.keyBits)
    return symmetric.with_odd_parity(key) if parameters.algorithm == TPM_ALG.TDES else key


def _keyed_hash(
    template: TPMT_PUBLIC, parameters: TPMT_KEYEDHASH_SCHEME, data: bytes, source: Source
) -> bytes:
    details = parameters.details
    hash_alg = details.hashAlg if details is not None else template.nameAlg
    if not data:
        return source.draw(_KEY, HASH_BYTES[hash_alg] * 8)
    is_key = template.objectAttributes & (TPMA_OBJECT.sign | TPMA_OBJECT.decrypt)
    if is_key and len(data) > HASH_BLOCK_BYTES[hash_alg]:
        raise CreationError("size")
    return data
