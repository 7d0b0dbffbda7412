"""The authenticated code module (SINIT) that a late launch runs before anything else.

Models: a module with Intel's header fields, code, the chipset maker's public key and a signature over header and code;
the chipset knows the key only by its digest.

Leaves out: what the code does (`sim.boot.latelaunch` does it), scratch space, real sizes, and the real algorithm: the
signature is ECDSA on P-256, where Intel's modules carry RSA.

Sources: Intel TXT MLE Developer's Guide, appendix A.1 (header) and table of processor error codes.
"""

from __future__ import annotations

import hashlib
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sim.core.keys import ec_private_key
from sim.core.rng import Rng
from sim.errors import VerificationError

__all__ = ["AcmError", "build_acm", "chipset_key_digest", "public_key_of", "verify_acm"]

HEADER = struct.Struct("<HHIIHHIII")
"""Type, subtype, header length (in 4-byte words), header version, chipset, flags, vendor, date, size (in words)."""

MODULE_TYPE_CHIPSET = 2
VENDOR_INTEL = 0x8086
CODE_BYTES = 32 * 1024
KEY_BYTES = 64
SIGNATURE_BYTES = 64

FORMAT_UNKNOWN = 0x8000_0002
NOT_AUTHENTIC = 0x8000_0003
FORMAT_INVALID = 0x8000_0004


class AcmError(VerificationError):
    """The processor refuses the module; `code` is what it leaves in TXT.ERRORCODE."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__("acm", message)

    def __reduce__(self) -> tuple[object, ...]:
        return (AcmError, (self.code, str(self)))


def build_acm(rng: Rng) -> bytes:
    """Make the platform's module, signed by the chipset maker; the same bytes for the same `rng`."""
    streams = rng.child("txt")
    code = streams.stream("sinit code").bytes(CODE_BYTES)
    total = HEADER.size + KEY_BYTES + SIGNATURE_BYTES + len(code)
    header = HEADER.pack(
        MODULE_TYPE_CHIPSET, 0, HEADER.size // 4, 0x40000, 0xB002, 0, VENDOR_INTEL, 0x20260101, total // 4
    )
    private = ec_private_key(streams.stream("chipset key"))
    signature = private.sign(header + code, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(signature)
    return header + _point(private.public_key()) + r.to_bytes(32, "big") + s.to_bytes(32, "big") + code


def chipset_key_digest(rng: Rng) -> bytes:
    """Return the SHA-256 of the public key that the chipset was made to trust."""
    private = ec_private_key(rng.child("txt").stream("chipset key"))
    return hashlib.sha256(_point(private.public_key())).digest()


def public_key_of(acm: bytes) -> bytes:
    """Return the public key that the module carries (x and y of a P-256 point)."""
    return acm[HEADER.size : HEADER.size + KEY_BYTES]


def verify_acm(acm: bytes, key_digest: bytes) -> None:
    """Check a module as the processor does before it runs it; `AcmError` says what is wrong."""
    if len(acm) < HEADER.size + KEY_BYTES + SIGNATURE_BYTES:
        raise AcmError(FORMAT_INVALID, "the module is shorter than its header")
    kind, _, words, _, _, _, vendor, _, size = HEADER.unpack_from(acm)
    if kind != MODULE_TYPE_CHIPSET or vendor != VENDOR_INTEL:
        raise AcmError(FORMAT_UNKNOWN, f"module type {kind} of vendor {vendor:#x} is not a chipset module")
    if words * 4 != HEADER.size or size * 4 != len(acm):
        raise AcmError(FORMAT_INVALID, f"the header says {size * 4} bytes, the module has {len(acm)}")
    key = public_key_of(acm)
    if hashlib.sha256(key).digest() != key_digest:
        raise AcmError(NOT_AUTHENTIC, "the module's key is not the chipset's")
    _check_signature(acm, key)


def _check_signature(acm: bytes, key: bytes) -> None:
    at = HEADER.size + KEY_BYTES
    raw = acm[at : at + SIGNATURE_BYTES]
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    signed = acm[: HEADER.size] + acm[at + SIGNATURE_BYTES :]
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    try:
        public.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise AcmError(NOT_AUTHENTIC, "the module's signature does not verify") from None


def _point(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
