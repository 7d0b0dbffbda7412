"""The authenticated code module (SINIT): its layout, how its maker signs it, and the checks before it runs.

Models: a chipset module with the header of version 0.0 (2048-bit RSA key, exponent and signature inside, scratch space
behind it), Intel's information table with the list of chipsets, and code.  Who checks what:

* the launching code (tboot), before it asks for a launch: format, size, the chipset's list, debug against production;
  a module that fails is not tried (`check_platform`);
* the processor: format again, the digest of the key against the chipset's, the signature (`authenticate`); a module that
  fails resets the platform with an error code;
* the module itself, once it runs: whether its security version was revoked (`check_not_revoked`), and the launch
  control policy (`sim.boot.lcpcheck`).

Leaves out: what the code does (`sim.boot.latelaunch` does it), the processors' list, the TPM's list, revisions of
chipsets below the vendor and device, real sizes.

Sources: Intel TXT MLE Developer's Guide, appendix A (header, information table, what the signature covers) and its
table of processor errors; tboot 1.10.5, txt/acmod.c (order and texts of the launching code's checks).
"""

from __future__ import annotations

import hashlib
import struct

from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sim.boot.acm_key import EXPONENT, chipset_maker_key
from sim.boot.txt_errors import ProcessorError, processor_errorcode
from sim.core.rng import Rng
from sim.errors import VerificationError
from sim.hw.txt import TXT_DEVICE, TXT_SVN_MIN, TXT_VENDOR

__all__ = [
    "Acm",
    "AcmError",
    "AcmMismatch",
    "AcmRecipe",
    "authenticate",
    "build_acm",
    "check_not_revoked",
    "check_platform",
    "chipset_key_digest",
    "public_key_of",
    "read_acm",
]

HEADER = struct.Struct("<HHIIHHIIIHHIIIIII64sII")
"""Up to the key: type, subtype, header length (in 4-byte words), version, chipset, flags, vendor, date, size (words),
TXT and SE security versions, code control, error entry, GDT limit and base, selector, entry, reserved, key and scratch
sizes (words)."""
KEY_BYTES = 256
SIGNATURE_BYTES = 256
SCRATCH_BYTES = 143 * 4
HEADER_BYTES = HEADER.size + KEY_BYTES + 4 + SIGNATURE_BYTES
USER_AREA = HEADER_BYTES + SCRATCH_BYTES
INFO_TABLE = struct.Struct("<16sBBHIIIIB3sII")
"""UUID, type (1: SINIT), version, length, offset of the chipsets' list, version of OsSinitData, least MLE header,
capabilities, module version, revision, offsets of the processors' and the TPM's lists."""
CHIPSET_ID = struct.Struct("<IHHHHI")

MODULE_TYPE_CHIPSET = 2
SUBTYPE_SINIT = 0
INFO_UUID = bytes.fromhex("aa3ac07fa746db18ac2e698f8d417f5a")
INFO_SINIT = 1
VENDOR_INTEL = 0x8086
FLAG_PREPRODUCTION = 1 << 14
FLAG_DEBUG = 1 << 15
CODE_BYTES = 32 * 1024
WORD = 4
IDS_MAX = 64
_DATE = 0x20260101
_OS_SINIT_DATA_VERSION = 7
_CAPABILITIES = 0x221


class AcmError(VerificationError):
    """The processor refuses the module; `code` is what it leaves in TXT.ERRORCODE."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__("acm", message)

    def __reduce__(self) -> tuple[object, ...]:
        return (AcmError, (self.code, self.message))


class AcmMismatch(VerificationError):  # noqa: N818 - a refusal is the normal answer here, not an error of ours
    """The module is for another platform, so that no launch is tried with it."""

    def __init__(self, message: str) -> None:
        super().__init__("acm_platform", message)


@frozen(kw_only=True)
class AcmRecipe:
    """What the maker puts into a module; the defaults fit the simulation's chipset."""

    vendor: int = TXT_VENDOR.value
    device: int = TXT_DEVICE.value
    flags: int = 0
    svn: int = TXT_SVN_MIN.value
    version: int = 4
    """The version of the module that a launch policy may demand at least."""


@frozen(kw_only=True)
class Acm:
    """A module as its header and information table describe it; nothing is proven by them."""

    flags: int
    svn: int
    version: int
    chipsets: tuple[tuple[int, int], ...]
    """Vendor and device of each chipset that it is for."""


def build_acm(rng: Rng, recipe: AcmRecipe | None = None, key: rsa.RSAPrivateKey | None = None) -> bytes:
    """Make a platform's module, signed with `key` (the chipset maker's if None); the same bytes for the same `rng`."""
    recipe = recipe if recipe is not None else AcmRecipe()
    key = key if key is not None else chipset_maker_key()
    ids_at = USER_AREA + INFO_TABLE.size
    info = INFO_TABLE.pack(
        INFO_UUID,
        INFO_SINIT,
        5,
        INFO_TABLE.size,
        ids_at,
        _OS_SINIT_DATA_VERSION,
        0x20000,
        _CAPABILITIES,
        recipe.version,
        bytes(3),
        0,
        0,
    )
    ids = struct.pack("<I", 1) + CHIPSET_ID.pack(0, recipe.vendor, recipe.device, 0xFFFF, 0, 0)
    user = info + ids + rng.child("txt").stream("sinit code").bytes(CODE_BYTES)
    words = (USER_AREA + len(user)) // WORD
    header = HEADER.pack(
        *(MODULE_TYPE_CHIPSET, SUBTYPE_SINIT, HEADER_BYTES // WORD, 0, recipe.device, recipe.flags),
        *(VENDOR_INTEL, _DATE, words, recipe.svn, 0, 0, 0, 0x1F, USER_AREA, 8, USER_AREA, bytes(64)),
        *(KEY_BYTES // WORD, SCRATCH_BYTES // WORD),
    )
    signature = key.sign(header + user, padding.PKCS1v15(), hashes.SHA256())
    public = _modulus(key.public_key())
    return (
        header + public + struct.pack("<I", EXPONENT) + signature[::-1] + bytes(SCRATCH_BYTES) + user
    )  # numbers stand little-endian in the header


def chipset_key_digest() -> bytes:
    """Return the SHA-256 of the public key that the chipset was made to trust."""
    return hashlib.sha256(_modulus(chipset_maker_key().public_key())).digest()


def public_key_of(acm: bytes) -> bytes:
    """Return the modulus of the public key that the module carries."""
    return acm[HEADER.size : HEADER.size + KEY_BYTES]


def read_acm(acm: bytes) -> Acm:
    """Read header and information table; `AcmError` with the processor's code where they make no sense."""
    if len(acm) < USER_AREA + INFO_TABLE.size:
        raise _bad_format(f"{len(acm)} bytes are too few for a module")
    kind, _, words, version, _, flags, vendor, _, size, svn, *rest = HEADER.unpack_from(acm)
    key_words, scratch_words = rest[-2:]
    if kind != MODULE_TYPE_CHIPSET or vendor != VENDOR_INTEL:
        raise AcmError(
            processor_errorcode(ProcessorError.UNSUPPORTED_ACM),
            f"module type {kind} of vendor {vendor:#x} is not a chipset module",
        )
    if (words * WORD, key_words * WORD, scratch_words * WORD) != (HEADER_BYTES, KEY_BYTES, SCRATCH_BYTES):
        raise _bad_format(f"a header of version {version:#x} with {words} words is not known")
    if size * WORD != len(acm):
        raise _bad_format(f"the header says {size * WORD} bytes, the module has {len(acm)}")
    uuid, info_kind, _, _, ids_at, _, _, _, module_version, *_ = INFO_TABLE.unpack_from(acm, USER_AREA)
    if uuid != INFO_UUID or info_kind != INFO_SINIT:
        raise _bad_format("the information table is not that of a SINIT module")
    return Acm(flags=flags, svn=svn, version=module_version, chipsets=_chipsets(acm, ids_at))


def check_platform(acm: Acm, didvid: int, *, production: bool) -> None:
    """Check a module as the launching code does before it asks for a launch; `AcmMismatch` says what does not fit."""
    vendor, device = didvid & 0xFFFF, didvid >> 16 & 0xFFFF
    not_production = acm.flags & (FLAG_DEBUG | FLAG_PREPRODUCTION)
    if production and not_production:
        raise AcmMismatch(f"production/debug mismatch between chipset and ACM (flags {acm.flags:#06x})")
    if (vendor, device) not in acm.chipsets:
        listed = ", ".join(f"vendor: {one[0]:#x}, device: {one[1]:#x}" for one in acm.chipsets)
        raise AcmMismatch(f"chipset id mismatch: {vendor:#x}/{device:#x} is not among {listed or 'none'}")


def authenticate(acm: bytes, key_digest: bytes) -> None:
    """Check a module as the processor does before it runs it; `AcmError` says what is wrong."""
    read_acm(acm)
    key = public_key_of(acm)
    if hashlib.sha256(key).digest() != key_digest:
        raise _not_authentic("the module's key is not the chipset's")
    at = HEADER.size + KEY_BYTES
    (exponent,) = struct.unpack_from("<I", acm, at)
    signature = acm[at + WORD : HEADER_BYTES][::-1]
    if exponent != EXPONENT:
        raise _not_authentic(f"the exponent of the module's key is {exponent}")
    public = rsa.RSAPublicNumbers(exponent, int.from_bytes(key, "little")).public_key()
    try:
        public.verify(signature, acm[: HEADER.size] + acm[USER_AREA:], padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise _not_authentic("the module's signature does not verify") from None


def check_not_revoked(acm: Acm, svn_min: int) -> None:
    """Demand a security version that the platform has not left behind; `VerificationError` otherwise."""
    if acm.svn < svn_min:
        raise VerificationError(
            "acm_revoked", f"security version {acm.svn} is revoked, {svn_min} is the least"
        )


def _chipsets(acm: bytes, at: int) -> tuple[tuple[int, int], ...]:
    if not USER_AREA <= at <= len(acm) - WORD:
        raise _bad_format(f"the list of chipsets at {at} is outside the module")
    (count,) = struct.unpack_from("<I", acm, at)
    if count > IDS_MAX or at + WORD + count * CHIPSET_ID.size > len(acm):
        raise _bad_format(f"a list of {count} chipsets does not fit")
    entries = (CHIPSET_ID.unpack_from(acm, at + WORD + index * CHIPSET_ID.size) for index in range(count))
    return tuple((vendor, device) for _, vendor, device, *_ in entries)


def _modulus(public: rsa.RSAPublicKey) -> bytes:
    return public.public_numbers().n.to_bytes(KEY_BYTES, "little")


def _bad_format(message: str) -> AcmError:
    return AcmError(processor_errorcode(ProcessorError.BAD_ACM_FORMAT), message)


def _not_authentic(message: str) -> AcmError:
    return AcmError(processor_errorcode(ProcessorError.AUTHENTICATE_FAIL), message)
