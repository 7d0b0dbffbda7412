"""Key derivation: KDFa, KDFe, MGF1 and the XOR obfuscation that is built on them.

Models: the four functions exactly, for every hash of the TPM and any number of bits.
Leaves out: everything about who derives what.
Sources: TPM 2.0 Library part 1, 11.4.10 (KDFa, KDFe) and 11.4.7.3 (XOR obfuscation); SP 800-108 (counter mode);
SP 800-56A (concatenation); RFC 8017, B.2.1 (MGF1).
"""

from __future__ import annotations

import hmac

from sim.tpm.constants import HASH_BYTES, TPM_ALG
from sim.tpm.hashing import hash_bytes

__all__ = ["HASH_NAMES", "kdf_a", "kdf_e", "mgf1", "xor_bytes", "xor_obfuscate"]

HASH_NAMES = {
    TPM_ALG.SHA1.value: "sha1",
    TPM_ALG.SHA256.value: "sha256",
    TPM_ALG.SHA384.value: "sha384",
    TPM_ALG.SHA512.value: "sha512",
}
"""The name that `hmac.digest` takes, by hash algorithm."""


def kdf_a(hash_alg: int, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Derive `bits` from `key`: SP 800-108 in counter mode with HMAC; `context` is contextU with contextV behind it.

    `label` comes without its NUL.  Where `bits` is no multiple of 8, the surplus bits of the first byte are zero.
    """
    algorithm = HASH_NAMES[hash_alg]
    fixed = label + b"\0" + context + bits.to_bytes(4, "big")
    blocks = -(-bits // (8 * HASH_BYTES[hash_alg]))
    stream = b"".join(
        hmac.digest(key, counter.to_bytes(4, "big") + fixed, algorithm) for counter in range(1, blocks + 1)
    )
    return _cut(stream, bits)


def kdf_e(  # noqa: PLR0917 - the order of the library
    hash_alg: int, z: bytes, label: bytes, party_u: bytes, party_v: bytes, bits: int
) -> bytes:
    """Derive `bits` from the shared secret `z` (an x coordinate) of two parties; `label` comes without its NUL."""
    blocks = -(-bits // (8 * HASH_BYTES[hash_alg]))
    fixed = z + label + b"\0" + party_u + party_v
    stream = b"".join(
        hash_bytes(hash_alg, counter.to_bytes(4, "big") + fixed) for counter in range(1, blocks + 1)
    )
    return _cut(stream, bits)


def _cut(stream: bytes, bits: int) -> bytes:
    surplus = -bits % 8
    result = stream[: (bits + 7) // 8]
    return bytes([result[0] & (0xFF >> surplus)]) + result[1:] if surplus else result


def mgf1(hash_alg: int, seed: bytes, count: int) -> bytes:
    """Return the first `count` bytes of the mask that belongs to `seed`."""
    blocks = -(-count // HASH_BYTES[hash_alg])
    return b"".join(hash_bytes(hash_alg, seed + block.to_bytes(4, "big")) for block in range(blocks))[:count]


def xor_bytes(left: bytes, right: bytes) -> bytes:
    """Return the exclusive or of two byte strings of one length."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def xor_obfuscate(hash_alg: int, key: bytes, context_u: bytes, context_v: bytes, data: bytes) -> bytes:
    """Mask `data` (the same call unmasks it) with KDFa under the label "XOR"."""
    return (
        xor_bytes(data, kdf_a(hash_alg, key, b"XOR", context_u + context_v, len(data) * 8)) if data else b""
    )
