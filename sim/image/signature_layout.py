"""Reads a signature file of the usual layout at fixed places, without taking every element apart.

Models: the one layout in which this project signs VIBs: plain data outside the file, SHA-256 in its short form, and
three signed attributes.  Nearly all of such a file are known bytes, and lengths that follow from each other: they are
compared, and what stands between them is cut out.  The answer is that of the strict reader (`sim.image.signed_data`),
or none: a file that differs in a byte or a length is left to that reader, which alone refuses.

Leaves out: every other layout, Authenticode among them.

Sources: RFC 5652, section 5; ITU-T X.690, section 10.1 (one form of each length).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from sim.errors import FormatError
from sim.image import der
from sim.image.algorithms import digest_identifier

__all__ = [
    "CONTENT_TYPE",
    "DATA",
    "MESSAGE_DIGEST",
    "SIGNED_DATA",
    "SIGNING_TIME",
    "usual_attributes",
    "usual_layout",
]

DATA = der.encode_oid("1.2.840.113549.1.7.1")
SIGNED_DATA = der.encode_oid("1.2.840.113549.1.7.2")
CONTENT_TYPE = der.encode_oid("1.2.840.113549.1.9.3")
MESSAGE_DIGEST = der.encode_oid("1.2.840.113549.1.9.4")
SIGNING_TIME = der.encode_oid("1.2.840.113549.1.9.5")

OPENINGS_MAX = 512
"""Beginnings of files, and of their signers, whose lengths are remembered: those of one maker are mostly equal."""

_WHAT = "signature"
_DIGEST = digest_identifier("sha256")

_MIDDLE = b"\x02\x01\x01" + der.tlv(der.SET, _DIGEST) + der.tlv(der.SEQUENCE, DATA)
_OPENING = Struct(f">2sH{len(SIGNED_DATA)}s2sH2sH{len(_MIDDLE)}s2sH")
_KNOWN_OPENING = (b"\x30\x82", SIGNED_DATA, b"\xa0\x82", b"\x30\x82", _MIDDLE, b"\xa0\x82")
_SIGNER = Struct(">2sH2sH3s")
_KNOWN_SIGNER = (b"\x31\x82", b"\x30\x82", b"\x02\x01\x01")
_LONG_HEADER = 4  # tag, 0x82, and the two octets of a length
_LONG_MIN, _SHORT_END = 0x100, 0x80

_TIME = der.tlv(der.UTC_TIME, bytes(13))
_HASH = der.tlv(der.OCTET_STRING, bytes(32))
_BEFORE_TIME = (
    der.tlv(der.SEQUENCE, CONTENT_TYPE, der.tlv(der.SET, DATA))
    + der.tlv(der.SEQUENCE, SIGNING_TIME, der.tlv(der.SET, _TIME))[:-13]
)
_BEFORE_HASH = der.tlv(der.SEQUENCE, MESSAGE_DIGEST, der.tlv(der.SET, _HASH))[:-32]
_TIME_AT = len(_BEFORE_TIME) - 2
_TIME_END = _TIME_AT + len(_TIME)
_HASH_AT = _TIME_END + len(_BEFORE_HASH) - 2
_ATTRIBUTES_BYTES = _HASH_AT + len(_HASH)
_BEFORE_ATTRIBUTES = _DIGEST + bytes((0xA0, _ATTRIBUTES_BYTES))


def usual_layout(data: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes] | None:
    """Return bag, signer id, signed attributes, signature algorithm and signature, or None for another layout."""
    size = len(data)
    begin = _begin_of_signer(data[: _OPENING.size], size)
    if begin == 0:
        return None
    name_at = begin + _SIGNER.size
    name_size = _name_bytes(data[begin : name_at + 2], size - begin)
    name_end = name_at + name_size
    at = name_end + len(_BEFORE_ATTRIBUTES)
    end = at + _ATTRIBUTES_BYTES
    if name_size == 0 or data[name_end:at] != _BEFORE_ATTRIBUTES or end + 2 > size:
        return None
    signature_at = end + 2 + data[end + 1]
    if data[end] != der.SEQUENCE or data[end + 1] >= _SHORT_END:
        return None
    try:
        signature = der.only(data[signature_at:], der.OCTET_STRING, _WHAT)
    except FormatError:
        return None
    return (
        data[_OPENING.size : begin],
        data[name_at:name_end],
        data[at:end],
        data[end:signature_at],
        signature,
    )


def usual_attributes(content: bytes) -> tuple[bytes, der.Element, bytes] | None:
    """Return content type, signing time and encoded message digest of signed attributes, or None for another layout."""
    if (
        len(content) != _ATTRIBUTES_BYTES
        or not content.startswith(_BEFORE_TIME)
        or not content.startswith(_BEFORE_HASH, _TIME_END)
    ):
        return None
    time = content[_TIME_AT:_TIME_END]
    return DATA, (der.UTC_TIME, time[2:], time), content[_HASH_AT:]


@lru_cache(maxsize=OPENINGS_MAX)
def _begin_of_signer(opening: bytes, size: int) -> int:
    """Return where the set of signers begins in a file of this size, or 0 if it does not begin in the usual way."""
    if len(opening) < _OPENING.size:
        return 0
    outer, outer_size, kind, inner, inner_size, body, body_size, middle, tag, bag_size = _OPENING.unpack(
        opening
    )
    usual = (
        (outer, kind, inner, body, middle, tag) == _KNOWN_OPENING
        and outer_size == size - _LONG_HEADER
        and inner_size == outer_size - len(SIGNED_DATA) - _LONG_HEADER
        and body_size == inner_size - _LONG_HEADER
        and bag_size >= _LONG_MIN
    )
    return _OPENING.size + bag_size if usual else 0


@lru_cache(maxsize=OPENINGS_MAX)
def _name_bytes(opening: bytes, size: int) -> int:
    """Return the size of a signer's id, given the `size` of the signers with their opening; 0 if that is not usual."""
    if len(opening) < _SIGNER.size + 2:
        return 0
    signers, signers_size, signer, signer_size, version = _SIGNER.unpack_from(opening)
    usual = (
        (signers, signer, version) == _KNOWN_SIGNER
        and signers_size == size - _LONG_HEADER
        and signer_size == signers_size - _LONG_HEADER
        and signer_size >= _LONG_MIN
        and opening[-2] == der.SEQUENCE
        and opening[-1] < _SHORT_END
    )
    return 2 + opening[-1] if usual else 0
