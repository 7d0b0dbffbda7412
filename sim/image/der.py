"""Reads and writes DER, the one canonical encoding of ASN.1 that signatures and certificates use.

Models: tag-length-value elements with definite lengths in their shortest form, split strictly and completely; the few
value types that a signature file needs.  A reader asks for exactly the tags it expects, so that whatever is not
wanted is refused where it stands, and no byte of a signature file stays unread.

Leaves out: tags above 30, indefinite lengths and every other liberty of BER; REAL, ENUMERATED and all string types
but those used here.

Sources: ITU-T X.690 (02/2021), sections 8 and 10 to 11.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from struct import Struct

from sim.errors import FormatError, LimitError

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "GENERALIZED_TIME",
    "IA5_STRING",
    "INTEGER",
    "NULL",
    "OBJECT_IDENTIFIER",
    "OCTET_STRING",
    "PRINTABLE_STRING",
    "SEQUENCE",
    "SET",
    "UTC_TIME",
    "UTF8_STRING",
    "Element",
    "check_canonical",
    "elements",
    "encode_integer",
    "encode_oid",
    "encode_set_of",
    "encode_time",
    "only",
    "read_integer",
    "read_oid",
    "read_text",
    "read_time",
    "tagged",
    "tlv",
]

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL = 0x01, 0x02, 0x03, 0x04, 0x05
OBJECT_IDENTIFIER, UTF8_STRING, PRINTABLE_STRING, IA5_STRING = 0x06, 0x0C, 0x13, 0x16
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

DEPTH_MAX = 24
"""Levels of nesting that `check_canonical` follows; real certificates need about ten."""

ELEMENTS_MAX = 2048
"""Elements in one constructed value."""

LENGTH_OCTETS_MAX = 4
INTEGER_BYTES_MAX = 1024
OID_BYTES_MAX = 64

Element = tuple[int, bytes, bytes]
"""Tag byte, content, and the whole element with tag and length."""

_CONSTRUCTED = 0x20
_UNUSED_TAGS = frozenset((0x00, 0x20, *range(0x1F, 0x100, 0x20)))  # end of contents, and numbers above 30
_LAST_UTC_YEAR = 2049
_TWO_DIGITS = {b"%02d" % number: number for number in range(100)}
_PAIRS = Struct("2s2s2s2s2s2s2sx").unpack
_ELEMENT_BYTES_MIN = 2
_TWO_OCTETS = 0x82
"""The length byte that says: the length is in the next two."""


def elements(data: bytes, what: str) -> list[Element]:
    """Split `data` into its DER elements, all of them, with nothing left over."""
    found: list[Element] = []
    position, end = 0, len(data)
    bounded = end <= _ELEMENT_BYTES_MIN * ELEMENTS_MAX  # then there cannot be more
    while position < end:
        start = position + 2
        if start > end:
            raise FormatError(what, f"offset {position}", "the data ends inside an element's header")
        if not bounded and len(found) == ELEMENTS_MAX:
            raise LimitError(what, f"offset {position}", f"more than {ELEMENTS_MAX} elements in one value")
        tag = data[position]
        length = data[position + 1]
        if length > 0x7F:
            length, start = _long_length(data, position, what)
        stop = start + length
        if stop > end:
            raise FormatError(
                what, f"offset {position}", f"the element needs {stop - end} bytes more than there are"
            )
        if tag in _UNUSED_TAGS:
            raise FormatError(what, f"offset {position}", f"tag byte {tag:#04x} is not used here")
        found.append((tag, data[start:stop], data[position:stop]))
        position = stop
    return found


def only(data: bytes, tag: int, what: str) -> bytes:
    """Return the content of the single element of the given tag that `data` must consist of."""
    size = len(data)
    if size >= _ELEMENT_BYTES_MIN and data[0] == tag and tag not in _UNUSED_TAGS:
        length = data[1]
        if length == size - 2 and length < 0x80:  # the usual case at once; all else is decided below
            return data[2:]
        if length == _TWO_OCTETS and size >= 0x104 and data[2] << 8 | data[3] == size - 4:
            return data[4:]
    found = elements(data, what)
    if len(found) != 1 or found[0][0] != tag:
        shown = ", ".join(f"{element[0]:#04x}" for element in found[:4]) or "nothing"
        raise FormatError(what, "", f"expected one element with tag {tag:#04x}, found {shown}")
    return found[0][1]


def tagged(element: Element, tag: int, what: str) -> bytes:
    """Return the content of an element that must have the given tag."""
    if element[0] != tag:
        raise FormatError(what, "", f"expected tag {tag:#04x}, found {element[0]:#04x}")
    return element[1]


def check_canonical(data: bytes, what: str, depth: int = DEPTH_MAX) -> None:
    """Demand that `data` is DER all the way down, as far as tags and lengths tell."""
    if depth == 0:
        raise LimitError(what, "", f"nested deeper than {DEPTH_MAX} levels")
    for tag, content, _ in elements(data, what):
        if tag & _CONSTRUCTED:
            check_canonical(content, what, depth - 1)
        elif tag in (SEQUENCE & 0x1F, SET & 0x1F):
            raise FormatError(what, "", "a SEQUENCE or SET in primitive form")
        if tag == INTEGER:
            read_integer(content, what)


def read_integer(content: bytes, what: str) -> int:
    """Decode the content of an INTEGER in its shortest form; it may be negative."""
    if not content:
        raise FormatError(what, "", "an INTEGER without content")
    if len(content) > INTEGER_BYTES_MAX:
        raise LimitError(what, "", f"an INTEGER of more than {INTEGER_BYTES_MAX} bytes")
    if len(content) > 1 and (content[0], content[1] & 0x80) in ((0x00, 0x00), (0xFF, 0x80)):
        raise FormatError(what, "", "an INTEGER longer than it need be")
    return int.from_bytes(content, "big", signed=True)


def read_oid(content: bytes, what: str) -> str:
    """Decode the content of an OBJECT IDENTIFIER into dotted numbers."""
    if len(content) > OID_BYTES_MAX:
        raise LimitError(what, "", f"an OBJECT IDENTIFIER of more than {OID_BYTES_MAX} bytes")
    arcs: list[int] = []
    arc, begun = 0, False
    for byte in content:
        if not begun and byte == 0x80:
            raise FormatError(what, "", "an OBJECT IDENTIFIER arc longer than it need be")
        arc = arc << 7 | byte & 0x7F
        begun = byte >= 0x80
        if not begun:
            arcs.append(arc)
            arc = 0
    if begun or not arcs:
        raise FormatError(what, "", "an OBJECT IDENTIFIER that ends early")
    first = min(arcs[0] // 40, 2)
    return ".".join(str(number) for number in (first, arcs[0] - 40 * first, *arcs[1:]))


def read_text(element: Element, what: str) -> str:
    """Decode a UTF8String, PrintableString or IA5String."""
    try:
        return element[1].decode("utf-8" if element[0] == UTF8_STRING else "ascii")
    except UnicodeDecodeError as error:
        raise FormatError(what, "", "a text that does not decode") from error


def read_time(element: Element, what: str) -> datetime:
    """Decode a UTCTime (1950 to 2049) or GeneralizedTime (from 2050) of whole seconds in UTC."""
    tag, content, _ = element
    if (tag, len(content)) not in ((UTC_TIME, 13), (GENERALIZED_TIME, 15)) or content[-1:] != b"Z":
        raise FormatError(what, "", "expected a time in UTC with seconds")
    if tag == UTC_TIME:
        content = (b"19" if content >= b"50" else b"20") + content
    century, decade, month, day, hour, minute, second = _PAIRS(content)
    number = _TWO_DIGITS
    try:
        year = 100 * number[century] + number[decade]
        rest = (number[month], number[day], number[hour], number[minute], number[second], 0, UTC)
    except KeyError as error:
        raise FormatError(what, "", "a time with something other than digits") from error
    if tag == GENERALIZED_TIME and year <= _LAST_UTC_YEAR:
        raise FormatError(what, "", f"a GeneralizedTime before {_LAST_UTC_YEAR + 1}")
    try:
        return datetime(year, *rest)
    except ValueError as error:
        raise FormatError(what, "", "a time that does not exist") from error


def tlv(tag: int, *parts: bytes) -> bytes:
    """Encode one element from its tag byte and the parts of its content."""
    content = parts[0] if len(parts) == 1 else b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def encode_set_of(members: Iterable[bytes], tag: int = SET) -> bytes:
    """Encode a SET OF: the encoded members in ascending order, as DER demands."""
    return tlv(tag, *sorted(members))


def encode_integer(value: int) -> bytes:
    """Encode an INTEGER that is not negative."""
    if value < 0:
        raise ValueError(f"only non-negative integers are written, got {value}")
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def encode_oid(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER from dotted numbers."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    return tlv(OBJECT_IDENTIFIER, *(_base128(arc) for arc in (40 * first + second, *rest)))


def encode_time(when: datetime) -> bytes:
    """Encode a moment (aware, cut to whole seconds) as UTCTime, or as GeneralizedTime from 2050 on."""
    if when.tzinfo is None:
        raise ValueError("a time without its zone cannot be encoded")
    when = when.astimezone(UTC)
    fields = (when.month, when.day, when.hour, when.minute, when.second)
    rest = "".join(f"{number:02d}" for number in fields) + "Z"
    if 1950 <= when.year <= _LAST_UTC_YEAR:
        return tlv(UTC_TIME, f"{when.year % 100:02d}{rest}".encode())
    return tlv(GENERALIZED_TIME, f"{when.year:04d}{rest}".encode())


def _long_length(data: bytes, position: int, what: str) -> tuple[int, int]:
    """Decode a length of more than one byte; return it with the offset of the content."""
    count = data[position + 1] & 0x7F
    where = f"offset {position}"
    if count == 0:
        raise FormatError(what, where, "indefinite length")
    if count > LENGTH_OCTETS_MAX:
        raise LimitError(what, where, f"a length of {count} bytes")
    start = position + 2 + count
    octets = data[position + 2 : start]
    length = int.from_bytes(octets, "big")
    if len(octets) < count or length < 0x80 or octets[0] == 0:
        raise FormatError(what, where, "a length that is not in its shortest form")
    return length, start


def _base128(number: int) -> bytes:
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))
