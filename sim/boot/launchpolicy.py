"""The launch control policy (LCP) as bytes: the index in the TPM's NV memory, and the policy data file that it pins.

Models: LCP_POLICY2, which the owner writes into NV index 0x01C10106 (the platform's supplier into 0x01C10103); the data
file with its policy lists of version 2; elements for the launched code (MLE2) and for the platform's PCRs (PCONF2);
lists signed with RSA, with their revocation counter; which digest of the lists the policy holds.

Leaves out: lists signed with elliptic curves, the older structures of TPM 1.2, the elements SBIOS, CUSTOM and STM (they
are kept as bytes), and the masks of algorithms, which are written and not used.

Sources: Intel TXT MLE Developer's Guide, appendix D (LCP); tboot 1.10.5, include/lcp3.h and lcptools-v2 (field order,
indices, attributes, sizes); TPM 2.0 Library part 2, TPMS_QUOTE_INFO (content of PCONF2).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

from attrs import field, frozen
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sim.core.facts import fact
from sim.errors import FormatError, LimitError
from sim.tpm.constants import TPM_ALG

__all__ = [
    "ELEMENT_MLE",
    "ELEMENT_PCONF",
    "LcpElement",
    "LcpList",
    "LcpPolicy",
    "PolicyType",
    "decode_policy",
    "decode_policy_data",
    "encode_policy",
    "encode_policy_data",
    "list_digest",
    "lists_digest",
    "mle_element",
    "mle_hashes",
    "pconf_digests",
    "pconf_element",
    "sign_list",
]

_LCPTOOLS = "tboot 1.10.5, lcptools-v2 and docs: index for TPM 2.0"
OWNER_INDEX: Final = fact(
    "boot.lcp_owner_index", 0x01C10106, unit="NV index", source=_LCPTOOLS, kind="vendor"
)
SUPPLIER_INDEX: Final = fact(
    "boot.lcp_supplier_index", 0x01C10103, unit="NV index", source=_LCPTOOLS, kind="vendor"
)
ELEMENT_MLE: Final = 0x10
ELEMENT_PCONF: Final = 0x11

_WHAT: Final = "launch control policy"
_POLICY: Final = struct.Struct("<HHBB8HIBBHIHH")
_VERSIONS: Final = (0x0300, 0x0301, 0x0302)
_DATA_SIGNATURE: Final = b"Intel(R) TXT LCP_POLICY_DATA\0\0\0\0"
_LIST: Final = struct.Struct("<HHI")
_LIST_VERSIONS: Final = (0x0200, 0x0201)
_ELEMENT: Final = struct.Struct("<III")
_MLE: Final = struct.Struct("<BBHH")
_PCONF: Final = struct.Struct("<HH")
_SIGNATURE: Final = struct.Struct("<HH")
_LISTS_MAX: Final = 8
_ELEMENTS_MAX: Final = 64
_DIGESTS_MAX: Final = 256
_DATA_BYTES_MAX: Final = 64 * 1024
_RSA_BYTES: Final = (256, 384)
_SHA256_BYTES: Final = 32
_SHA256: Final = TPM_ALG.SHA256.value
_UNSIGNED: Final = TPM_ALG.NULL.value
_RSASSA: Final = TPM_ALG.RSASSA.value


class PolicyType:
    """Types of a policy: a list that must match, or anything."""

    LIST: Final = 0
    ANY: Final = 1


@frozen(kw_only=True)
class LcpPolicy:
    """LCP_POLICY2 with a SHA-256 digest of the lists; the version of SINIT that it wants at least."""

    policy_type: int = PolicyType.ANY
    sinit_version_min: int = 0
    revocation: tuple[int, ...] = (0,) * _LISTS_MAX
    """For each list, the least revocation counter of its signature."""
    control: int = 0
    digest: bytes = field(default=bytes(_SHA256_BYTES), repr=lambda value: value.hex())


@frozen(kw_only=True)
class LcpElement:
    """One element of a list; `data` is what stands behind its three words."""

    kind: int
    control: int = 0
    data: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the element as it stands in its list."""
        return _ELEMENT.pack(_ELEMENT.size + len(self.data), self.kind, self.control) + self.data


@frozen(kw_only=True)
class LcpList:
    """A policy list; with `public_key` it is signed, and the key stands for the list in the policy's digest."""

    elements: tuple[LcpElement, ...]
    revocation: int = 0
    public_key: bytes = field(default=b"", repr=False)
    signature: bytes = field(default=b"", repr=False)

    @property
    def signed(self) -> bool:
        """Whether the list carries a signature."""
        return bool(self.public_key)


# ---------------------------------------------------------------- the index


def encode_policy(policy: LcpPolicy) -> bytes:
    """Return the content of the NV index, 70 bytes."""
    return (
        _POLICY.pack(
            *(_VERSIONS[-1], _SHA256, policy.policy_type, policy.sinit_version_min, *policy.revocation),
            *(policy.control, 0xFF, 0xFF, 0x8, 0x8, 0x8, 0),
        )
        + policy.digest
    )


def decode_policy(data: bytes) -> LcpPolicy:
    """Read the content of an NV index; `FormatError` unless it is a policy of a known version over SHA-256."""
    if len(data) != _POLICY.size + _SHA256_BYTES:
        raise FormatError(_WHAT, "", f"{len(data)} bytes, a policy over SHA-256 has 70")
    version, algorithm, kind, sinit_min, *rest = _POLICY.unpack_from(data)
    if version not in _VERSIONS or algorithm != _SHA256:
        raise FormatError(_WHAT, "", f"version {version:#x} with algorithm {algorithm:#x} is not known")
    if kind not in (PolicyType.LIST, PolicyType.ANY):
        raise FormatError(_WHAT, "PolicyType", f"{kind} is neither a list nor any")
    return LcpPolicy(
        policy_type=kind,
        sinit_version_min=sinit_min,
        revocation=tuple(rest[:_LISTS_MAX]),
        control=rest[_LISTS_MAX],
        digest=data[_POLICY.size :],
    )


# ---------------------------------------------------------------- the data file


def encode_policy_data(lists: Iterable[LcpList]) -> bytes:
    """Return the policy data file."""
    parts = [_list_bytes(one) for one in lists]
    return _DATA_SIGNATURE + bytes(3) + bytes([len(parts)]) + b"".join(parts)


def decode_policy_data(data: bytes) -> tuple[LcpList, ...]:
    """Read a policy data file; `FormatError` unless it is one to its last byte."""
    head = len(_DATA_SIGNATURE) + 4
    if len(data) > _DATA_BYTES_MAX:
        raise LimitError(_WHAT, "data file", f"more than {_DATA_BYTES_MAX} bytes")
    if not data.startswith(_DATA_SIGNATURE) or len(data) < head or any(data[head - 4 : head - 1]):
        raise FormatError(_WHAT, "data file", "it does not begin as a policy data file does")
    count = data[head - 1]
    if not 1 <= count <= _LISTS_MAX:
        raise LimitError(_WHAT, "data file", f"{count} lists, 1 to {_LISTS_MAX} are possible")
    lists, at = [], head
    for _ in range(count):
        one, at = _read_list(data, at)
        lists.append(one)
    if at != len(data):
        raise FormatError(_WHAT, "data file", f"{len(data) - at} bytes are left over")
    return tuple(lists)


def list_digest(one: LcpList) -> bytes:
    """Return what stands for a list in the policy: of a signed list the digest of its key alone."""
    return hashlib.sha256(one.public_key if one.signed else _list_bytes(one)).digest()


def lists_digest(lists: Iterable[LcpList]) -> bytes:
    """Return the digest of all lists that the policy in NV holds."""
    return hashlib.sha256(b"".join(map(list_digest, lists))).digest()


def signed_part(one: LcpList) -> bytes:
    """Return what the signature of a list covers: everything up to the signature block."""
    whole = _list_bytes(one)
    return whole[: len(whole) - len(one.signature)]


def sign_list(elements: Iterable[LcpElement], key: rsa.RSAPrivateKey, revocation: int = 0) -> LcpList:
    """Return a list of these elements, signed."""
    numbers = key.public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    public = numbers.n.to_bytes(size, "little")
    draft = LcpList(elements=tuple(elements), revocation=revocation, public_key=public, signature=bytes(size))
    signature = key.sign(signed_part(draft), padding.PKCS1v15(), hashes.SHA256())[::-1]
    return LcpList(elements=draft.elements, revocation=revocation, public_key=public, signature=signature)


# ---------------------------------------------------------------- elements


def mle_element(digests: Iterable[bytes], sinit_version_min: int = 0) -> LcpElement:
    """Return an MLE2 element: the SHA-256 digests of the code that may be launched."""
    known = tuple(digests)
    head = _MLE.pack(sinit_version_min, 0, _SHA256, len(known))
    return LcpElement(kind=ELEMENT_MLE, data=head + b"".join(known))


def mle_hashes(element: LcpElement) -> tuple[int, tuple[bytes, ...]]:
    """Return the least version of SINIT and the digests of an MLE2 element; `FormatError` if it is none."""
    where = "MLE element"
    if len(element.data) < _MLE.size:
        raise FormatError(_WHAT, where, "it ends within its head")
    sinit_min, _, algorithm, count = _MLE.unpack_from(element.data)
    body = element.data[_MLE.size :]
    if algorithm != _SHA256 or count > _DIGESTS_MAX or len(body) != count * _SHA256_BYTES:
        raise FormatError(_WHAT, where, f"{count} digests of algorithm {algorithm:#x} in {len(body)} bytes")
    return sinit_min, tuple(body[at : at + _SHA256_BYTES] for at in range(0, len(body), _SHA256_BYTES))


def pconf_element(choices: Iterable[tuple[tuple[int, ...], bytes]]) -> LcpElement:
    """Return a PCONF2 element: each choice names PCRs of the SHA-256 bank and the digest over their values."""
    infos = []
    for pcrs, digest in choices:
        mask = sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
        infos.append(struct.pack(">IHB3sH", 1, _SHA256, 3, mask, len(digest)) + digest)
    return LcpElement(kind=ELEMENT_PCONF, data=_PCONF.pack(_SHA256, len(infos)) + b"".join(infos))


def pconf_digests(element: LcpElement) -> tuple[tuple[tuple[int, ...], bytes], ...]:
    """Return the choices of a PCONF2 element as PCRs and digest; `FormatError` if it is none."""
    where, data = "PCONF element", element.data
    if len(data) < _PCONF.size:
        raise FormatError(_WHAT, where, "it ends within its head")
    algorithm, count = _PCONF.unpack_from(data)
    info = struct.Struct(">IHB3sH")
    size = info.size + _SHA256_BYTES
    if algorithm != _SHA256 or count > _DIGESTS_MAX or len(data) != _PCONF.size + count * size:
        raise FormatError(_WHAT, where, f"{count} choices of algorithm {algorithm:#x} in {len(data)} bytes")
    choices = []
    for at in range(_PCONF.size, len(data), size):
        selections, bank, octets, mask, digest_size = info.unpack_from(data, at)
        if (selections, bank, octets, digest_size) != (1, _SHA256, 3, _SHA256_BYTES):
            raise FormatError(_WHAT, where, "a choice is not one selection of the SHA-256 bank")
        bits = int.from_bytes(mask, "little")
        pcrs = tuple(pcr for pcr in range(24) if bits >> pcr & 1)
        choices.append((pcrs, data[at + info.size : at + size]))
    return tuple(choices)


# ---------------------------------------------------------------- parsing


def _list_bytes(one: LcpList) -> bytes:
    elements = b"".join(element.to_bytes() for element in one.elements)
    kind = _RSASSA if one.signed else _UNSIGNED
    data = _LIST.pack(_LIST_VERSIONS[-1], kind, len(elements)) + elements
    if one.signed:
        data += _SIGNATURE.pack(one.revocation, len(one.public_key)) + one.public_key + one.signature
    return data


def _read_list(data: bytes, at: int) -> tuple[LcpList, int]:
    where = f"list at {at}"
    if at + _LIST.size > len(data):
        raise FormatError(_WHAT, where, "it ends within its head")
    version, algorithm, size = _LIST.unpack_from(data, at)
    if version != _LIST_VERSIONS[-1] or algorithm not in (_UNSIGNED, _RSASSA):
        raise FormatError(_WHAT, where, f"version {version:#x} with algorithm {algorithm:#x} is not known")
    at += _LIST.size
    if at + size > len(data):
        raise FormatError(_WHAT, where, f"its elements take {size} bytes that are not there")
    elements = _read_elements(data, at, at + size)
    at += size
    if algorithm == _UNSIGNED:
        return LcpList(elements=elements), at
    if at + _SIGNATURE.size > len(data):
        raise FormatError(_WHAT, where, "its signature is missing")
    revocation, key_size = _SIGNATURE.unpack_from(data, at)
    at += _SIGNATURE.size
    if key_size not in _RSA_BYTES or at + 2 * key_size > len(data):
        raise FormatError(_WHAT, where, f"a key of {key_size} bytes with its signature is not there")
    public, signature = data[at : at + key_size], data[at + key_size : at + 2 * key_size]
    signed = LcpList(elements=elements, revocation=revocation, public_key=public, signature=signature)
    return signed, at + 2 * key_size


def _read_elements(data: bytes, at: int, end: int) -> tuple[LcpElement, ...]:
    elements: list[LcpElement] = []
    while at < end:
        if len(elements) == _ELEMENTS_MAX:
            raise LimitError(_WHAT, f"element at {at}", f"more than {_ELEMENTS_MAX} elements")
        if at + _ELEMENT.size > end:
            raise FormatError(_WHAT, f"element at {at}", "it ends within its head")
        size, kind, control = _ELEMENT.unpack_from(data, at)
        if not _ELEMENT.size <= size <= end - at:
            raise FormatError(_WHAT, f"element at {at}", f"a size of {size} bytes cannot be")
        elements.append(LcpElement(kind=kind, control=control, data=data[at + _ELEMENT.size : at + size]))
        at += size
    return tuple(elements)
