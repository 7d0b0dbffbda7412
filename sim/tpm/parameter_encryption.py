"""Encryption of the first parameter of a command or response under a session.

Models: CFB mode of the session's cipher, and XOR obfuscation; keys from KDFa over both nonces.
Leaves out: the choice of the session, which dispatch makes by the session attributes.
Source: TPM 2.0 Library part 1, chapter 21 "Session-based encryption".
"""

from __future__ import annotations

from sim.tpm.constants import TPM_ALG
from sim.tpm.crypto.kdf import kdf_a, xor_obfuscate
from sim.tpm.crypto.symmetric import BLOCK_BYTES, crypt
from sim.tpm.wire.session import TPMT_SYM_DEF

__all__ = ["crypt_parameter"]


def crypt_parameter(  # noqa: PLR0917 - key, nonces and data as the library lists them
    symmetric: TPMT_SYM_DEF,
    auth_hash: int,
    value: bytes,
    nonce_newer: bytes,
    nonce_older: bytes,
    data: bytes,
    *,
    decrypt: bool,
) -> bytes:
    """Encrypt or decrypt the content of a TPM2B; `value` is session key and authorisation value of the entity."""
    if symmetric.algorithm == TPM_ALG.XOR:
        assert symmetric.keyBits is not None
        return xor_obfuscate(symmetric.keyBits, value, nonce_newer, nonce_older, data)
    assert symmetric.keyBits is not None
    block = BLOCK_BYTES[symmetric.algorithm]
    key_bytes = symmetric.keyBits // 8
    material = kdf_a(auth_hash, value, b"CFB", nonce_newer + nonce_older, (key_bytes + block) * 8)
    key, iv = material[:key_bytes], material[key_bytes:]
    return crypt(symmetric.algorithm, TPM_ALG.CFB.value, key, iv, data, decrypt=decrypt)[0]
