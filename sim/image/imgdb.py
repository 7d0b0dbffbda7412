"""imgdb.tgz: which VIBs are installed, with the signed descriptor of each, and which bank file is which payload.

Models the image database of a boot bank as a small archive: an image profile (name, acceptance level, for each VIB
the bank file of each payload, and the settings of boot.cfg that no measurement covers) and, for each VIB, its
descriptor and signature as they were in the archive.  A verifier at boot needs nothing else to check every bank file
against a signed digest.  The profile itself is signed by nobody: it only says where to look, and is measured.

Leaves out the history of profiles but for the versions of removed VIBs, and the dates of installation.

Sources: the image database of installed hosts (var/db/esximg with vibs and profiles); the place of the signatures and
the element names of the profile are this project's own.
"""

from __future__ import annotations

import re
from functools import lru_cache

import attrs

from sim.errors import FormatError, LimitError
from sim.image.acceptance import AcceptanceLevel
from sim.image.boundedxml import Node, escape, parse_xml
from sim.image.descriptor import parse_descriptor
from sim.image.metadata import Descriptor
from sim.image.payload import check_canonical_gzip, declared_size, gzip_stored
from sim.image.tar import EntryKind, TarEntry, read_ustar, with_parents, write_ustar

__all__ = ["DATABASE_FILE", "VIBS_MAX", "ImageDatabase", "VibRecord", "read_database", "write_database"]

DATABASE_FILE = "imgdb.tgz"
VIBS_MAX = 1024
DATABASE_BYTES_MAX = 16 << 20
"""The largest database, packed or not: sixteen KiB for each VIB."""

_WHAT = "image database"
_ROOT = "var/db/esximg"
_PROFILE = f"{_ROOT}/profile.xml"
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@attrs.frozen(kw_only=True)
class VibRecord:
    """An installed VIB: its signed descriptor, and for each payload the name of its file in the bank."""

    descriptor_xml: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    files: tuple[str, ...]

    @property
    def descriptor(self) -> Descriptor:
        """What the descriptor says; its payloads are in the order of `files`."""
        return parse_descriptor(self.descriptor_xml)


@attrs.frozen(kw_only=True)
class ImageDatabase:
    """An image profile with the records of its VIBs, in the order of installation."""

    name: str
    level: AcceptanceLevel
    records: tuple[VibRecord, ...]
    settings: tuple[tuple[str, str], ...] = ()
    """Settings of boot.cfg that must stand there as here: they are neither signed nor measured."""
    gone: tuple[tuple[str, str], ...] = ()
    """Name and version of each VIB that was installed once and is not now; nothing older than that comes back by itself."""

    def record(self, name: str) -> VibRecord | None:
        """Return the record of the VIB of that name."""
        return next((record for record in self.records if record.descriptor.name == name), None)


@lru_cache(maxsize=4)
def read_database(data: bytes) -> ImageDatabase:
    """Return the database in the bytes of an imgdb.tgz, which must be spelled as `write_database` does.

    The last few are remembered: boot check, kernel and management calls read the same database.
    """
    if max(len(data), declared_size(data)) > DATABASE_BYTES_MAX:
        raise LimitError(_WHAT, "", f"more than {DATABASE_BYTES_MAX} bytes")
    entries = read_ustar(check_canonical_gzip(data, DATABASE_FILE))
    files = {entry.path: entry.data for entry in entries if entry.kind is EntryKind.FILE}
    if _PROFILE not in files:
        raise FormatError(_WHAT, _PROFILE, "is missing")
    database = _read_profile(files)
    if write_database(database) != data:
        raise FormatError(_WHAT, "", "holds more than its profile says, or another spelling of it")
    return database


def write_database(database: ImageDatabase) -> bytes:
    """Return the one spelling of a database."""
    entries = [TarEntry(path=_PROFILE, data=_write_profile(database))]
    for number, record in enumerate(database.records):
        entries.append(TarEntry(path=_path(number, "xml"), data=record.descriptor_xml))
        entries.append(TarEntry(path=_path(number, "p7s"), data=record.signature))
    return gzip_stored(write_ustar(with_parents(entries)))


def _path(number: int, suffix: str) -> str:
    return f"{_ROOT}/vibs/{number:04d}.{suffix}"


def _write_profile(database: ImageDatabase) -> bytes:
    parts = [f'<profile name="{escape(database.name)}" acceptance-level="{database.level.xml_name}">']
    parts += [f'<setting key="{escape(key)}">{escape(text)}</setting>' for key, text in database.settings]
    parts += [f'<gone name="{escape(name)}" version="{escape(version)}"/>' for name, version in database.gone]
    for record in database.records:
        files = "".join(f"<file>{escape(name)}</file>" for name in record.files)
        parts.append(f'<vib id="{escape(record.descriptor.vib_id)}">{files}</vib>')
    return ("".join(parts) + "</profile>").encode()


def _read_profile(files: dict[str, bytes]) -> ImageDatabase:
    root = parse_xml(files[_PROFILE], _WHAT)
    vibs = root.named("vib")
    if root.tag != "profile":
        raise FormatError(_WHAT, _PROFILE, "root element is not profile")
    gone = root.named("gone")
    if max(len(vibs), len(gone)) > VIBS_MAX:
        raise LimitError(_WHAT, _PROFILE, f"more than {VIBS_MAX} VIBs")
    return ImageDatabase(
        name=root.attributes.get("name", ""),
        level=AcceptanceLevel.from_xml(root.attributes.get("acceptance-level", "")),
        records=tuple(_read_record(number, vib, files) for number, vib in enumerate(vibs)),
        settings=tuple((node.attributes.get("key", ""), node.text) for node in root.named("setting")),
        gone=tuple((node.attributes.get("name", ""), node.attributes.get("version", "")) for node in gone),
    )


def _read_record(number: int, vib: Node, files: dict[str, bytes]) -> VibRecord:
    where = f"VIB {vib.attributes.get('id', '')[:80]}"
    xml, signature = (files.get(_path(number, suffix)) for suffix in ("xml", "p7s"))
    if xml is None or signature is None:
        raise FormatError(_WHAT, where, "has no descriptor or no signature file")
    record = VibRecord(
        descriptor_xml=xml, signature=signature, files=tuple(node.text for node in vib.named("file"))
    )
    if record.descriptor.vib_id != vib.attributes.get("id"):
        raise FormatError(_WHAT, where, f"its descriptor is that of {record.descriptor.vib_id}")
    if len(record.files) != len(record.descriptor.payloads):
        raise FormatError(_WHAT, where, "number of files and number of payloads differ")
    for name in record.files:
        if not _FILE.fullmatch(name):
            raise FormatError(_WHAT, where, f"{name[:40]!r} is not a file name")
    return record
