"""Block ciphers: AES, Camellia and triple DES in the modes of the TPM, with the vector that chains the next call.

Models: CTR, OFB, CBC, CFB and ECB, and CMAC.  CTR, OFB and CFB take any length; CBC and ECB whole blocks only.
Leaves out: padding, which the TPM leaves to the caller.
Sources: SP 800-38A (modes), SP 800-38B (CMAC); TPM 2.0 Library part 1, 11.4.6; part 3, EncryptDecrypt.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from sim.errors import SimBug
from sim.tpm.constants import TPM_ALG
from sim.tpm.crypto.kdf import xor_bytes

try:  # newer releases keep these apart, older ones have one place only
    from cryptography.hazmat.decrepit.ciphers.algorithms import Camellia, TripleDES
    from cryptography.hazmat.decrepit.ciphers.modes import CFB, OFB
except ImportError:  # pragma: no cover - depends on the release
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cryptography.hazmat.primitives.ciphers.algorithms import (
            Camellia,
            TripleDES,
        )
        from cryptography.hazmat.primitives.ciphers.modes import CFB, OFB

__all__ = [
    "BLOCK_BYTES",
    "KEY_BITS",
    "cfb_decrypt",
    "cfb_encrypt",
    "cmac",
    "crypt",
    "is_usable_key",
    "with_odd_parity",
]

BLOCK_BYTES = {TPM_ALG.TDES.value: 8, TPM_ALG.AES.value: 16, TPM_ALG.CAMELLIA.value: 16}
"""Block size of each cipher."""

KEY_BITS = {TPM_ALG.TDES.value: (128, 192), TPM_ALG.AES.value: (128, 256), TPM_ALG.CAMELLIA.value: (128, 256)}
"""Key sizes of each cipher, as swtpm 0.7.1 accepts them."""

_CTR, _OFB, _CBC, _CFB, _ECB = (
    mode.value for mode in (TPM_ALG.CTR, TPM_ALG.OFB, TPM_ALG.CBC, TPM_ALG.CFB, TPM_ALG.ECB)
)


_MODES: dict[int, Callable[[bytes], Any]] = {_CTR: modes.CTR, _OFB: OFB, _CBC: modes.CBC, _CFB: CFB}


def crypt(
    algorithm: int, mode: int, key: bytes, iv: bytes, data: bytes, *, decrypt: bool
) -> tuple[bytes, bytes]:
    """Encrypt or decrypt `data`; return the result and the vector with which the next piece goes on.

    `iv` has the size of a block (none for ECB); CBC and ECB need whole blocks.
    """
    block = BLOCK_BYTES[algorithm]
    if len(iv) != (0 if mode == _ECB else block) or (mode in (_CBC, _ECB) and len(data) % block):
        raise SimBug(f"{len(iv)} bytes of vector and {len(data)} of data do not fit mode 0x{mode:04x}")
    if not data:
        return b"", iv
    if mode == _CTR and algorithm != TPM_ALG.AES:
        result = xor_bytes(data, _counter_stream(algorithm, key, iv, len(data)))
    else:
        result = _run(algorithm, mode, key, iv, data, decrypt=decrypt)
    plain = result if decrypt else data
    if mode in (_OFB, _CFB):  # the rest of a partial last block is key stream
        padded = plain.ljust(-(-len(plain) // block) * block, b"\0")
        cipher = _run(algorithm, mode, key, iv, padded, decrypt=False)
        last = cipher[-block:]
        return result, xor_bytes(last, padded[-block:]) if mode == _OFB else last
    return result, _next_iv(mode, iv, data if decrypt else result)


def cfb_encrypt(algorithm: int, key: bytes, iv: bytes, data: bytes) -> bytes:
    """Encrypt in CFB mode, the mode of all that the TPM protects itself."""
    return crypt(algorithm, _CFB, key, iv, data, decrypt=False)[0]


def cfb_decrypt(algorithm: int, key: bytes, iv: bytes, data: bytes) -> bytes:
    """Decrypt in CFB mode."""
    return crypt(algorithm, _CFB, key, iv, data, decrypt=True)[0]


def cmac(algorithm: int, key: bytes, data: bytes) -> bytes:
    """Return the CMAC of `data`."""
    mac = CMAC(_cipher(algorithm, key))
    mac.update(data)
    return mac.finalize()


def with_odd_parity(key: bytes) -> bytes:
    """Return a key of DES with the lowest bit of each byte set so that the byte has odd parity."""
    return bytes(byte & 0xFE | (byte >> 1).bit_count() % 2 ^ 1 for byte in key)


def is_usable_key(algorithm: int, key: bytes) -> bool:
    """Tell whether a key may be used: for triple DES no single key is weak and neighbours differ."""
    if algorithm != TPM_ALG.TDES:
        return True
    parts = [with_odd_parity(key[at : at + 8]) for at in range(0, len(key), 8)]
    if any(part in _WEAK_DES_KEYS for part in parts):
        return False
    return parts[0] != parts[1] and (len(parts) < 3 or parts[1] != parts[2])


def _run(algorithm: int, mode: int, key: bytes, iv: bytes, data: bytes, *, decrypt: bool) -> bytes:
    made = _MODES[mode](iv) if mode in _MODES else modes.ECB()  # noqa: S305 - a mode of the TPM
    cipher = Cipher(_cipher(algorithm, key), made)
    context = cipher.decryptor() if decrypt else cipher.encryptor()
    return bytes(context.update(data) + context.finalize())


@lru_cache(maxsize=256)
def _cipher(algorithm: int, key: bytes) -> algorithms.AES | Camellia | TripleDES:
    if algorithm == TPM_ALG.AES:
        return algorithms.AES(key)
    if algorithm == TPM_ALG.CAMELLIA:
        return Camellia(key)
    return TripleDES(key if len(key) == 24 else key + key[:8])


def _counter_stream(algorithm: int, key: bytes, iv: bytes, count: int) -> bytes:
    """Return the key stream of CTR mode for a cipher that the library has no such mode of."""
    block = len(iv)
    first = int.from_bytes(iv, "big")
    counters = b"".join(
        (first + number & ((1 << 8 * block) - 1)).to_bytes(block, "big")
        for number in range(-(-count // block))
    )
    return _run(algorithm, _ECB, key, b"", counters, decrypt=False)[:count]


def _next_iv(mode: int, iv: bytes, cipher: bytes) -> bytes:
    """Return the chaining value behind the last block of ECB, CTR and CBC."""
    block = len(iv)
    if mode == _ECB:
        return b""
    if mode == _CTR:
        counter = int.from_bytes(iv, "big") + -(-len(cipher) // block)
        return (counter & ((1 << 8 * block) - 1)).to_bytes(block, "big")
    return cipher[-block:]


_WEAK_DES_KEYS = frozenset(
    bytes.fromhex(text)
    for text in (
        "0101010101010101",
        "fefefefefefefefe",
        "e0e0e0e0f1f1f1f1",
        "1f1f1f1f0e0e0e0e",
        "01fe01fe01fe01fe",
        "fe01fe01fe01fe01",
        "1fe01fe00ef10ef1",
        "e01fe01ff10ef10e",
        "01e001e001f101f1",
        "e001e001f101f101",
        "1ffe1ffe0efe0efe",
        "fe1ffe1ffe0efe0e",
        "011f011f010e010e",
        "1f011f010e010e01",
        "e0fee0fef1fef1fe",
        "fee0fee0fef1fef1",
    )
)
