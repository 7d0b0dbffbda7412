"""descriptor.xml, read strictly.

Models the XML of version 5.0.  Reading is strict about what it understands (each value once, known words, bounded
sizes, a SHA-256 of the stored file for every payload, a checksum of its content where it is packed) and keeps the path of
every element and attribute that it does not know; the original bytes stay with the VIB, so these remain under its
signature.

Leaves out writing (`sim.image.descriptor_writer`), resolving relations (`sim.image.install`) and comparing the file list with the payloads.

Sources: descriptors of real VIBs; VMware's documentation of the VIB format for limits and words; constraint and
softwarePlatform attributes as remembered from public VIBs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

from sim.core.facts import fact
from sim.errors import FormatError, LimitError
from sim.image.acceptance import AcceptanceLevel
from sim.image.boundedxml import Node, parse_xml
from sim.image.metadata import OPERATORS, Checksum, Descriptor, PayloadEntry, Platform, Relation
from sim.image.paths import check_path

__all__ = ["DIGEST_BYTES", "PACKED_KINDS", "PAYLOADS_MAX", "PAYLOAD_KINDS", "parse_descriptor"]

PAYLOADS_MAX = 512
NAME_CHARS_MAX = fact(
    "vib.name_chars_max",
    35,
    unit="characters",
    source="VMware: VIB format, name, vendor, version parts",
    kind="vendor",
).value
SUMMARY_CHARS_MAX = fact(
    "vib.summary_chars_max", 80, unit="characters", source="VMware: VIB format, summary", kind="vendor"
).value
PAYLOAD_KINDS = ("vgz", "tgz", "boot", "bootloader", "upgrade", "bootisobios", "bootisoefi")
PACKED_KINDS = ("vgz", "tgz")
"""Kinds that are always gzip, so that their content has a checksum of its own."""
DIGEST_BYTES = {"sha-256": 32, "sha-1": 20}

_WHAT = "VIB descriptor"
_NAME = re.compile(rf"[0-9a-zA-Z_.-]{{1,{NAME_CHARS_MAX}}}")
_PART = rf"[0-9][0-9a-zA-Z_.]{{0,{NAME_CHARS_MAX - 1}}}"
_VERSION = re.compile(rf"{_PART}-{_PART}")
_BOUND = re.compile(rf"{_PART}(-{_PART})?")
_FEATURE = re.compile(r"[0-9a-zA-Z_.:+-]{1,100}")
_PAYLOAD_NAME = re.compile(r"[0-9a-zA-Z_.-]{1,15}")
_RESERVED = ("descriptor.xml", "sig.pkcs7")
_SIZE = re.compile(r"0|[1-9][0-9]{0,9}")
_HEX = re.compile(r"[0-9a-f]+")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?([+-]\d\d:\d\d|Z)", re.ASCII)


@lru_cache(maxsize=256)
def parse_descriptor(data: bytes) -> Descriptor:
    """Return the descriptor in the bytes of a descriptor.xml; recent ones are remembered."""
    root = parse_xml(data, _WHAT)
    if root.tag != "vib" or root.attributes.get("version") != "5.0":
        raise FormatError(_WHAT, f"element {root.tag[:40]}", 'root element is not <vib version="5.0">')
    vib = _Fields(root)
    relations = _Fields(vib.child("relationships"))
    requires = _Fields(vib.child("system-requires"))
    return Descriptor(
        kind=vib.word("type", ("bootbank",)),
        name=vib.matching("name", _NAME, f"1 to {NAME_CHARS_MAX} of [0-9a-zA-Z_.-]"),
        version=vib.matching("version", _VERSION, "version-release, both beginning with a digit"),
        vendor=vib.matching("vendor", _NAME, f"1 to {NAME_CHARS_MAX} of [0-9a-zA-Z_.-]"),
        summary=_summary(vib.text("summary", "")),
        description=vib.text("description", ""),
        release_date=_date(vib.text("release-date")),
        urls=tuple((url.attributes.get("key", ""), url.text.strip()) for url in vib.items("urls", "url")),
        depends=_relations(relations, "depends"),
        conflicts=_relations(relations, "conflicts"),
        replaces=_relations(relations, "replaces"),
        provides=_relations(relations, "provides"),
        compatible_with=_relations(relations, "compatibleWith"),
        software_tags=tuple(tag.text.strip() for tag in vib.items("software-tags", "tag")),
        maintenance_mode=requires.flag("maintenance-mode"),
        platforms=tuple(_platform(node) for node in requires.all("softwarePlatform")),
        files=_files(vib.items("file-list", "file")),
        level=AcceptanceLevel.from_xml(vib.text("acceptance-level")),
        live_install_allowed=vib.flag("live-install-allowed"),
        live_remove_allowed=vib.flag("live-remove-allowed"),
        cimom_restart=vib.flag("cimom-restart"),
        stateless_ready=vib.flag("stateless-ready"),
        overlay=vib.flag("overlay"),
        payloads=_payloads(vib.items("payloads", "payload")),
        unknown=tuple(_unknown(root, root.tag)),
    )


class _Fields:
    """The children of one element, each of which may stand there once."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def all(self, tag: str) -> list[Node]:
        return self._node.named(tag)

    def child(self, tag: str) -> Node:
        found = self._node.named(tag)
        if len(found) > 1:
            raise FormatError(_WHAT, f"element {tag}", f"stands {len(found)} times, once is allowed")
        return found[0] if found else Node(tag, {})

    def items(self, tag: str, item: str) -> list[Node]:
        return self.child(tag).named(item)

    def text(self, tag: str, default: str | None = None) -> str:
        text = self.child(tag).text.strip()
        if text or default is not None:
            return text or default or ""
        raise FormatError(_WHAT, f"element {self._node.tag}", f"has no {tag}")

    def matching(self, tag: str, pattern: re.Pattern[str], wanted: str) -> str:
        text = self.text(tag)
        if not pattern.fullmatch(text):
            raise FormatError(_WHAT, f"element {tag}", f"{text[:60]!r} is not {wanted}")
        return text

    def word(self, tag: str, words: tuple[str, ...], default: str | None = None) -> str:
        text = self.text(tag, default)
        if text not in words:
            raise FormatError(_WHAT, f"element {tag}", f"{text[:40]!r} is not {' or '.join(words)}")
        return text

    def flag(self, tag: str) -> bool:
        return self.word(tag, ("true", "false"), "false") == "true"


def _summary(text: str) -> str:
    if len(text) > SUMMARY_CHARS_MAX:
        raise LimitError(_WHAT, "element summary", f"longer than {SUMMARY_CHARS_MAX} characters")
    return text


def _date(text: str) -> datetime:
    if not _DATE.fullmatch(text):
        raise FormatError(_WHAT, "element release-date", f"{text[:40]!r} is not an ISO 8601 time with a zone")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise FormatError(_WHAT, "element release-date", f"{text[:40]!r} is not a date") from None


def _files(nodes: list[Node]) -> tuple[str, ...]:
    paths = tuple(node.text.strip() for node in nodes)
    for number, path in enumerate(paths):
        check_path(path, _WHAT, f"file {number} of the file list")
    if len(set(paths)) != len(paths):
        raise FormatError(_WHAT, "file list", "names a file twice")
    return paths


def _relations(parent: _Fields, tag: str) -> tuple[Relation, ...]:
    return tuple(
        _relation(node, f"constraint {number} of {tag}")
        for number, node in enumerate(parent.items(tag, "constraint"))
    )


def _relation(node: Node, where: str) -> Relation:
    name = node.attributes.get("name", "")
    operator = node.attributes.get("relation")
    version = node.attributes.get("version")
    if not _FEATURE.fullmatch(name):
        raise FormatError(_WHAT, where, f"{name[:60]!r} is not the name of a VIB or feature")
    if (operator is None) != (version is None):
        raise FormatError(_WHAT, where, "relation and version do not stand together")
    if operator is not None and operator not in OPERATORS:
        raise FormatError(_WHAT, where, f"relation {operator[:20]!r} is not one of {' '.join(OPERATORS)}")
    if version is not None and not _BOUND.fullmatch(version):
        raise FormatError(_WHAT, where, f"{version[:60]!r} is not a version")
    return Relation(name=name, operator=operator, version=version)


def _platform(node: Node) -> Platform:
    get = node.attributes.get
    return Platform(
        product_line=get("productLineID", ""), version=get("version", ""), locale=get("locale", "")
    )


def _payloads(nodes: list[Node]) -> tuple[PayloadEntry, ...]:
    if len(nodes) > PAYLOADS_MAX:
        raise LimitError(_WHAT, "element payloads", f"more than {PAYLOADS_MAX} payloads")
    entries = tuple(_payload(node) for node in nodes)
    if len({entry.name for entry in entries}) != len(entries):
        raise FormatError(_WHAT, "element payloads", "names a payload twice")
    return entries


def _payload(node: Node) -> PayloadEntry:
    name = node.attributes.get("name", "")
    where = f"payload {name[:20]}"
    if not _PAYLOAD_NAME.fullmatch(name) or name in _RESERVED:
        raise FormatError(_WHAT, where, "name is not 1 to 15 of [0-9a-zA-Z_.-], or is reserved")
    kind = node.attributes.get("type", "")
    if kind not in PAYLOAD_KINDS:
        raise FormatError(_WHAT, where, f"type {kind[:20]!r} is not one of {', '.join(PAYLOAD_KINDS)}")
    size = node.attributes.get("size", "")
    if not _SIZE.fullmatch(size):
        raise FormatError(_WHAT, where, f"size {size[:20]!r} is not a plain decimal number")
    checksums = tuple(_checksum(item, where) for item in node.named("checksum"))
    kinds = [(item.algorithm, item.process) for item in checksums]
    if ("sha-256", "") not in kinds:
        raise FormatError(_WHAT, where, "has no sha-256 checksum of the file")
    if kind in PACKED_KINDS and not any(item.process for item in checksums):
        raise FormatError(_WHAT, where, "has no checksum of its unpacked content")
    if len(set(kinds)) != len(kinds):
        raise FormatError(_WHAT, where, "has two checksums of one kind")
    return PayloadEntry(name=name, kind=kind, size=int(size), checksums=checksums)


def _checksum(node: Node, where: str) -> Checksum:
    algorithm = node.attributes.get("checksum-type", "")
    process = node.attributes.get("verify-process", "")
    if algorithm not in DIGEST_BYTES:
        raise FormatError(
            _WHAT, where, f"checksum type {algorithm[:20]!r} is not {' or '.join(DIGEST_BYTES)}"
        )
    if process not in ("", "gunzip"):
        raise FormatError(_WHAT, where, f"verify-process {process[:20]!r} is not gunzip")
    text = node.text.strip()
    if not _HEX.fullmatch(text) or len(text) != 2 * DIGEST_BYTES[algorithm]:
        raise FormatError(_WHAT, where, f"{algorithm} checksum is not {DIGEST_BYTES[algorithm]} bytes in hex")
    return Checksum(algorithm=algorithm, digest=bytes.fromhex(text), process=process)


def _unknown(node: Node, path: str) -> Iterator[str]:
    """Yield the paths of elements, and of attributes with an @, that nothing here reads."""
    for attribute in node.attributes:
        if attribute not in _ATTRIBUTES.get(node.tag, ()):
            yield f"{path}/@{attribute}"
    known = _CHILDREN.get(node.tag, "").split()
    for child in node.children:
        if child.tag in known:
            yield from _unknown(child, f"{path}/{child.tag}")
        else:
            yield f"{path}/{child.tag}"


_ATTRIBUTES = {
    "vib": ("version",),
    "url": ("key",),
    "constraint": ("name", "relation", "version"),
    "softwarePlatform": ("productLineID", "version", "locale"),
    "payload": ("name", "type", "size"),
    "checksum": ("checksum-type", "verify-process"),
}
_CHILDREN = {
    "vib": "type name version vendor summary description release-date urls relationships software-tags"
    " system-requires file-list acceptance-level live-install-allowed live-remove-allowed cimom-restart"
    " stateless-ready overlay payloads",
    "urls": "url",
    "relationships": "depends conflicts replaces provides compatibleWith",
    "depends": "constraint",
    "conflicts": "constraint",
    "replaces": "constraint",
    "provides": "constraint",
    "compatibleWith": "constraint",
    "software-tags": "tag",
    "system-requires": "maintenance-mode softwarePlatform",
    "file-list": "file",
    "payloads": "payload",
    "payload": "checksum",
}
