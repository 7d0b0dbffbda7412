"""A credential for two keys: a secret that only a TPM with this endorsement key and this attestation key can open.

Models: what TPM2_MakeCredential does, in software and from public areas alone: a seed shared with the endorsement key
(one-pass ECDH or RSA-OAEP), a secret encrypted under a key that depends on the attestation key's Name, an HMAC over
both.  The Name is computed here, never taken from the host.  `check_activation` then compares what came back.

Leaves out: whether the endorsement key is one of a known vendor (`sim.attest.certificates`); ciphers other than AES.

Sources: TPM 2.0 Library 1.59, part 1 chapters 11.4.10 (KDFa, KDFe) and 24 (credentials), annexes B.10.4 and C.6.4;
RFC 8017, 7.1 (OAEP).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sim.attest.evidence import Evidence
from sim.attest.keys import name_of, public_key, read_public
from sim.attest.verdict import AttestationError
from sim.core.keys import ec_private_key
from sim.core.rng import RandomSource
from sim.image.algorithms import PublicKey
from sim.tpm.constants import TPM_ALG
from sim.tpm.wire import TPM2B_DIGEST, TPMS_ECC_POINT, TPMT_PUBLIC

__all__ = ["Challenge", "check_activation", "make_challenge", "make_credential"]

SECRET_BYTES: Final = 32
_LABEL: Final = b"IDENTITY\0"
_BLOCK_BYTES: Final = 16
_HASHES: Final = {TPM_ALG.SHA256: "sha256", TPM_ALG.SHA384: "sha384", TPM_ALG.SHA512: "sha512"}
_AES_BITS: Final = (128, 192, 256)


@frozen(kw_only=True)
class Challenge:
    """A credential as its maker remembers it: for which keys it is, what travels, and what must come back."""

    ek_public: bytes = field(repr=False)
    ak_name: bytes = field(repr=False)
    credential_blob: bytes = field(repr=False)
    encrypted_secret: bytes = field(repr=False)
    secret: bytes = field(repr=False)


def make_challenge(ek_public: bytes, ak_public: bytes, chance: RandomSource) -> Challenge:
    """Make a credential with a fresh secret for the keys of two TPM2B_PUBLIC.

    Raises FormatError when one of them cannot be read, AttestationError when no credential can be made for them.
    """
    read_public(ak_public)
    secret = chance.bytes(SECRET_BYTES)
    name = name_of(ak_public)
    blob, encrypted = make_credential(read_public(ek_public), name, secret, chance)
    return Challenge(
        ek_public=ek_public, ak_name=name, credential_blob=blob, encrypted_secret=encrypted, secret=secret
    )


def check_activation(evidence: Evidence, challenge: Challenge) -> None:
    """Demand that the host opened this challenge, and that it was made for the keys of this evidence."""
    if evidence.ek_public != challenge.ek_public or name_of(evidence.ak_public) != challenge.ak_name:
        raise AttestationError(
            "credential_keys", "the credential was made for other keys than those of the evidence"
        )
    sent = (challenge.credential_blob, challenge.encrypted_secret)
    if (evidence.credential_blob, evidence.encrypted_secret) != sent:
        raise AttestationError("credential", "the evidence answers another credential than the one made")
    if not hmac.compare_digest(evidence.activated_secret, challenge.secret):
        raise AttestationError(
            "credential", "the host's TPM has not opened the credential for its attestation key"
        )


# ---------------------------------------------------------------- TPM2_MakeCredential


def make_credential(ek: TPMT_PUBLIC, name: bytes, secret: bytes, chance: RandomSource) -> tuple[bytes, bytes]:
    """Return the credential (TPMS_ID_OBJECT) and the encrypted seed (TPMU_ENCRYPTED_SECRET) for `name` and `secret`."""
    symmetric = getattr(ek.parameters, "symmetric", None)
    bits = getattr(symmetric, "keyBits", None)
    if (
        getattr(symmetric, "algorithm", None) != TPM_ALG.AES
        or getattr(symmetric, "mode", None) != TPM_ALG.CFB
        or bits not in _AES_BITS
        or ek.nameAlg not in _HASHES
    ):
        raise AttestationError("ek_public", "the endorsement key does not protect with AES-CFB and SHA-2")
    algorithm = _HASHES[TPM_ALG(ek.nameAlg)]
    size = hashlib.new(algorithm).digest_size
    seed, encrypted = _share_seed(ek, public_key(ek, "ek_public"), algorithm, chance)
    cipher_key = _kdf_a(algorithm, seed, b"STORAGE\0", name, bits)
    body = _encrypt_cfb(cipher_key, TPM2B_DIGEST.encode(secret))
    mac_key = _kdf_a(algorithm, seed, b"INTEGRITY\0", b"", size * 8)
    return TPM2B_DIGEST.encode(hmac.digest(mac_key, body + name, algorithm)) + body, encrypted


def _share_seed(ek: TPMT_PUBLIC, key: PublicKey, algorithm: str, chance: RandomSource) -> tuple[bytes, bytes]:
    if isinstance(key, rsa.RSAPublicKey):
        seed = chance.bytes(hashlib.new(algorithm).digest_size)
        return seed, _encrypt_oaep(key, algorithm, seed, chance)
    assert isinstance(ek.unique, TPMS_ECC_POINT)
    ephemeral = ec_private_key(chance, key.curve)
    size = (key.curve.key_size + 7) // 8
    numbers = ephemeral.public_key().public_numbers()
    point = TPMS_ECC_POINT(x=numbers.x.to_bytes(size, "big"), y=numbers.y.to_bytes(size, "big"))
    shared = ephemeral.exchange(ec.ECDH(), key)
    return _kdf_e(algorithm, shared, _LABEL, point.x, ek.unique.x), point.encode()


def _kdf_a(algorithm: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Derive `bits`, a multiple of 8: SP 800-108 in counter mode."""
    fixed = label + context + bits.to_bytes(4, "big")
    blocks = -(-bits // (8 * hashlib.new(algorithm).digest_size))
    derived = b"".join(
        hmac.digest(key, counter.to_bytes(4, "big") + fixed, algorithm) for counter in range(1, blocks + 1)
    )
    return derived[: bits // 8]


def _kdf_e(algorithm: str, shared: bytes, label: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """Derive a seed of the hash's own size, which one block of SP 800-56A gives."""
    return hashlib.new(algorithm, b"\0\0\0\1" + shared + label + party_u + party_v).digest()


def _encrypt_cfb(key: bytes, data: bytes) -> bytes:
    """Encrypt with AES in CFB mode from a vector of zeros, which serves as each key is used once."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block at a time
    vector, result = bytes(_BLOCK_BYTES), b""
    for at in range(0, len(data), _BLOCK_BYTES):
        vector = _xor(block.update(vector), data[at : at + _BLOCK_BYTES])
        result += vector
    return result


def _encrypt_oaep(key: rsa.RSAPublicKey, algorithm: str, seed: bytes, chance: RandomSource) -> bytes:
    """Pad with OAEP, whose salt comes from `chance` (no library takes one), and raise to the public exponent."""
    label = hashlib.new(algorithm, _LABEL).digest()
    numbers = key.public_numbers()
    size = (key.key_size + 7) // 8
    block = label + bytes(size - 2 * len(label) - 2 - len(seed)) + b"\1" + seed
    salt = chance.bytes(len(label))
    masked = _xor(block, _mgf1(algorithm, salt, len(block)))
    masked_salt = _xor(salt, _mgf1(algorithm, masked, len(salt)))
    padded = int.from_bytes(b"\0" + masked_salt + masked, "big")
    return pow(padded, numbers.e, numbers.n).to_bytes(size, "big")


def _mgf1(algorithm: str, seed: bytes, count: int) -> bytes:
    mask = b""
    counter = 0
    while len(mask) < count:
        mask += hashlib.new(algorithm, seed + counter.to_bytes(4, "big")).digest()
        counter += 1
    return mask[:count]


def _xor(left: bytes, right: bytes) -> bytes:
    """Return the exclusive or, as long as the shorter one."""
    return bytes(a ^ b for a, b in zip(left, right, strict=False))
