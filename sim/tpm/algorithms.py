"""Which algorithms the TPM implements, what each is for, and which the self-test tests.

Models: the list of GetCapability(ALGS) and that of IncrementalSelfTest.
Leaves out: what is not implemented, such as SM3.
Sources: TPM 2.0 Library part 2, 8.2 (TPMA_ALGORITHM); values and tests measured on swtpm 0.7.1.
"""

from __future__ import annotations

from sim.tpm.constants import TPM_ALG

__all__ = ["ALGORITHMS", "TESTABLE", "TESTED_WITH", "UNTESTED"]

ALGORITHMS: dict[int, int] = {
    TPM_ALG.RSA: 0x009,
    TPM_ALG.TDES: 0x002,
    TPM_ALG.SHA1: 0x004,
    TPM_ALG.HMAC: 0x104,
    TPM_ALG.AES: 0x002,
    TPM_ALG.MGF1: 0x404,
    TPM_ALG.KEYEDHASH: 0x30C,
    TPM_ALG.XOR: 0x006,
    TPM_ALG.SHA256: 0x004,
    TPM_ALG.SHA384: 0x004,
    TPM_ALG.SHA512: 0x004,
    TPM_ALG.RSASSA: 0x101,
    TPM_ALG.RSAES: 0x201,
    TPM_ALG.RSAPSS: 0x101,
    TPM_ALG.OAEP: 0x201,
    TPM_ALG.ECDSA: 0x101,
    TPM_ALG.ECDH: 0x401,
    TPM_ALG.ECDAA: 0x101,
    TPM_ALG.SM2: 0x501,
    TPM_ALG.ECSCHNORR: 0x101,
    TPM_ALG.ECMQV: 0x401,
    TPM_ALG.KDF1_SP800_56A: 0x404,
    TPM_ALG.KDF2: 0x404,
    TPM_ALG.KDF1_SP800_108: 0x404,
    TPM_ALG.ECC: 0x009,
    TPM_ALG.SYMCIPHER: 0x008,
    TPM_ALG.CAMELLIA: 0x002,
    TPM_ALG.CMAC: 0x102,
    TPM_ALG.CTR: 0x202,
    TPM_ALG.OFB: 0x202,
    TPM_ALG.CBC: 0x202,
    TPM_ALG.CFB: 0x202,
    TPM_ALG.ECB: 0x202,
}
"""Implemented algorithms with their TPMA_ALGORITHM."""

TESTABLE = frozenset(ALGORITHMS)
"""What IncrementalSelfTest may name."""

TESTED_WITH = {TPM_ALG.ECC.value: TPM_ALG.ECDH.value}
"""Algorithms that the test of another one tests too (measured)."""

UNTESTED = (
    *(TPM_ALG.TDES.value, TPM_ALG.SHA1.value, TPM_ALG.AES.value, TPM_ALG.SHA256.value),
    *(TPM_ALG.SHA384.value, TPM_ALG.SHA512.value, TPM_ALG.RSASSA.value, TPM_ALG.RSAES.value),
    *(TPM_ALG.RSAPSS.value, TPM_ALG.OAEP.value, TPM_ALG.ECDSA.value, TPM_ALG.ECDH.value),
    *(TPM_ALG.ECSCHNORR.value, TPM_ALG.KDF1_SP800_108.value, TPM_ALG.CAMELLIA.value, TPM_ALG.CFB.value),
)
"""What a power-on leaves untested (measured)."""
