"""What an object keeps secret, and the forms in which it leaves the TPM under protection.

Models: sensitive areas, wrapped private areas, credentials, saved contexts, and the parameters of algorithms.
Leaves out: how they are encrypted (`sim.tpm.protection`, `sim.tpm.contexts`).
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, chapters 11, 12 and 14; sizes measured on swtpm 0.7.1.
"""
# ruff: noqa: N801, N815, RUF009 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from typing import Any

from attrs import frozen

from sim.tpm.codec import Number, Select, Sized, SizedBytes, Structure, variant, wire
from sim.tpm.constants import TPM_ALG
from sim.tpm.wire.basic import (
    SESSION_HANDLES,
    TPM2B_AUTH,
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_SENSITIVE_DATA,
    TPMI_ALG_HASH_OR_NULL,
    TPMI_RH_HIERARCHY,
    UINT64,
)
from sim.tpm.wire.public import (
    TPM2B_SENSITIVE_CREATE,
    TPMI_ALG_PUBLIC,
    TPMS_ECC_PARMS,
    TPMS_RSA_PARMS,
    TPMS_SENSITIVE_CREATE,
    TPMS_SYMCIPHER_PARMS,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMT_SYM_DEF_OBJECT,
)

__all__ = [
    "TEMPLATE_BYTES_MAX",
    "TPM2B_CONTEXT_DATA",
    "TPM2B_ENCRYPTED_SECRET",
    "TPM2B_ID_OBJECT",
    "TPM2B_PRIVATE",
    "TPM2B_PUBLIC_EXTERNAL",
    "TPM2B_SENSITIVE",
    "TPM2B_SENSITIVE_CREATE",
    "TPM2B_SENSITIVE_OR_EMPTY",
    "TPM2B_TEMPLATE",
    "TPMS_CONTEXT",
    "TPMS_DERIVE",
    "TPMS_SENSITIVE_CREATE",
    "TPMT_PUBLIC_PARMS",
    "TPMT_SENSITIVE",
    "TPMT_TEMPLATE_DERIVED",
]

TEMPLATE_BYTES_MAX = 484
_LABEL_BYTES_MAX = 32
_RSA_PRIVATE_BYTES_MAX = 192
_SYMMETRIC_KEY_BYTES_MAX = 32

TPM2B_PRIVATE = SizedBytes(1230)
TPM2B_ENCRYPTED_SECRET = SizedBytes(384)
TPM2B_ID_OBJECT = SizedBytes(132)
TPM2B_CONTEXT_DATA = SizedBytes(2748)
TPM2B_TEMPLATE = SizedBytes(TEMPLATE_BYTES_MAX)
TPM2B_LABEL = SizedBytes(_LABEL_BYTES_MAX)


class _SizedOrEmpty(Sized):
    """A TPM2B that holds a structure or, with size zero, nothing (None)."""

    def decode(self, data: bytes, at: int, end: int) -> tuple[Any, int]:
        if data[at : at + 2] == b"\0\0" and at + 2 <= end:
            return None, at + 2
        return super().decode(data, at, end)

    def encode(self, value: Any) -> bytes:
        return b"\0\0" if value is None else super().encode(value)


@frozen(kw_only=True)
class TPMT_SENSITIVE(Structure):
    """The sensitive area of an object: of RSA keys one prime, of ECC keys the scalar, else the key or the data."""

    sensitiveType: int = wire(TPMI_ALG_PUBLIC)
    authValue: bytes = wire(TPM2B_AUTH)
    seedValue: bytes = wire(TPM2B_DIGEST)
    sensitive: bytes = wire(
        Select(
            "sensitiveType",
            {
                TPM_ALG.RSA: SizedBytes(_RSA_PRIVATE_BYTES_MAX),
                TPM_ALG.ECC: TPM2B_ECC_PARAMETER,
                TPM_ALG.KEYEDHASH: TPM2B_SENSITIVE_DATA,
                TPM_ALG.SYMCIPHER: SizedBytes(_SYMMETRIC_KEY_BYTES_MAX),
            },
        )
    )


TPM2B_SENSITIVE = Sized(TPMT_SENSITIVE)
TPM2B_SENSITIVE_OR_EMPTY = _SizedOrEmpty(TPMT_SENSITIVE)

TPM2B_PUBLIC_EXTERNAL = Sized(variant(TPMT_PUBLIC, nameAlg=TPMI_ALG_HASH_OR_NULL))
"""A public area that may have no name algorithm, as LoadExternal takes it."""


@frozen(kw_only=True)
class TPMS_DERIVE(Structure):
    """What tells derived objects of one parent apart."""

    label: bytes = wire(TPM2B_LABEL)
    context: bytes = wire(TPM2B_LABEL)


TPMT_TEMPLATE_DERIVED = variant(
    TPMT_PUBLIC,
    unique=Select(
        "type",
        dict.fromkeys((TPM_ALG.RSA, TPM_ALG.ECC, TPM_ALG.KEYEDHASH, TPM_ALG.SYMCIPHER), TPMS_DERIVE),
    ),
)
"""A template whose unique field holds label and context of a derivation."""


@frozen(kw_only=True)
class TPMT_PUBLIC_PARMS(Structure):
    """The parameters of an object type."""

    type: int = wire(TPMI_ALG_PUBLIC)
    parameters: TPMS_ECC_PARMS | TPMS_RSA_PARMS | TPMT_SYM_DEF_OBJECT | TPMT_KEYEDHASH_SCHEME = wire(
        Select(
            "type",
            {
                TPM_ALG.ECC: TPMS_ECC_PARMS,
                TPM_ALG.RSA: TPMS_RSA_PARMS,
                TPM_ALG.SYMCIPHER: TPMS_SYMCIPHER_PARMS,
                TPM_ALG.KEYEDHASH: TPMT_KEYEDHASH_SCHEME,
            },
        )
    )


TPMI_DH_SAVED = Number("I", allowed=SESSION_HANDLES | set(range(0x8000_0000, 0x8000_0003)))
"""Sessions, and the three kinds of saved objects: ordinary ones, sequences, and those that go with a start."""


@frozen(kw_only=True)
class TPMS_CONTEXT(Structure):
    """A saved context."""

    sequence: int = wire(UINT64)
    savedHandle: int = wire(TPMI_DH_SAVED)
    hierarchy: int = wire(TPMI_RH_HIERARCHY)
    contextBlob: bytes = wire(TPM2B_CONTEXT_DATA)
