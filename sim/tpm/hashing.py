"""The hash algorithms of PCR banks, for the device, the event log and the verifier alike.

Leaves out SM3: a log may carry such digests, but no Python can be counted on to compute them.
Source: TCG Algorithm Registry.
"""

from __future__ import annotations

import hashlib

from sim.tpm.constants import TPM_ALG

__all__ = ["BANK_NAMES", "HASHES", "algorithm_of_name", "bank_name", "hash_bytes"]

HASHES = {
    TPM_ALG.SHA1.value: hashlib.sha1,
    TPM_ALG.SHA256.value: hashlib.sha256,
    TPM_ALG.SHA384.value: hashlib.sha384,
    TPM_ALG.SHA512.value: hashlib.sha512,
}

BANK_NAMES = {
    "sha1": TPM_ALG.SHA1.value,
    "sha256": TPM_ALG.SHA256.value,
    "sha384": TPM_ALG.SHA384.value,
    "sha512": TPM_ALG.SHA512.value,
    "sm3_256": TPM_ALG.SM3_256.value,
}
"""The algorithm of a bank, by its name."""

_NAMES = {alg: name for name, alg in BANK_NAMES.items()}


def hash_bytes(hash_alg: int, data: bytes) -> bytes:
    """Hash `data` with an implemented algorithm."""
    return HASHES[hash_alg](data).digest()


def algorithm_of_name(name: bytes) -> int:
    """Return the algorithm that a Name of the TPM library begins with; whoever calls must doubt it."""
    return int.from_bytes(name[:2], "big")


def bank_name(hash_alg: int) -> str:
    """Return the name of a bank, such as "sha256"."""
    return _NAMES.get(hash_alg, f"0x{hash_alg:04x}")
