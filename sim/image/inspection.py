"""Looks into VIBs and boot banks and reports what is there, without believing any of it.

Models what a person asks of an unknown file: identity, members, payload files, and for each checksum whether it holds.
A wrong checksum is a line of the report; only bytes that cannot be read at all raise.

Leaves out signatures: who a VIB is from is decided by `sim.image.vib.verify_vib` and `sim.image.bankcheck`.

Sources: as for the formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import attrs

from sim.errors import FormatError
from sim.image.bootbank import BootBank, check_bank_contents
from sim.image.bootcfg import BootConfig
from sim.image.contents import paths_of, payload_entries
from sim.image.imgdb import VibRecord
from sim.image.metadata import Descriptor, PayloadEntry
from sim.image.payload import content_of, payload_problems
from sim.image.tar import TarEntry
from sim.image.vib import Payload, Vib, check_contents, parse_vib

__all__ = [
    "BankFile",
    "BankInspection",
    "BankVib",
    "InspectedFile",
    "InspectedPayload",
    "VibInspection",
    "inspect_bank",
    "inspect_vib",
]


@attrs.frozen(kw_only=True)
class InspectedFile:
    """A file, directory or link inside a payload."""

    path: str
    kind: str
    size: int
    mode: int
    header_checksum_ok: bool


@attrs.frozen(kw_only=True)
class InspectedPayload:
    """A payload file: sizes as stored and unpacked, its checksums by label (True: it holds), and what is in it."""

    name: str
    kind: str
    size: int
    content_bytes: int
    checksums: tuple[tuple[str, bool], ...]
    entries: tuple[InspectedFile, ...]
    problems: tuple[str, ...]

    @property
    def files(self) -> tuple[InspectedFile, ...]:
        """The entries that are files."""
        return tuple(entry for entry in self.entries if entry.kind == "file")


@attrs.frozen(kw_only=True)
class VibInspection:
    """What is in a VIB archive; `problems` is empty when every checksum holds and the file list fits."""

    descriptor: Descriptor
    members: tuple[tuple[str, int], ...]
    signature_bytes: int
    payloads: tuple[InspectedPayload, ...]
    problems: tuple[str, ...]


@attrs.frozen(kw_only=True)
class BankFile:
    """A file of a boot bank: sizes as stored and unpacked, and whether it has the digest of its descriptor."""

    name: str
    payload: str
    size: int
    content_bytes: int
    sha256: bytes = attrs.field(repr=lambda value: value.hex())
    as_described: bool


@attrs.frozen(kw_only=True)
class BankVib:
    """An installed VIB and its files."""

    descriptor: Descriptor
    signature_bytes: int
    files: tuple[BankFile, ...]


@attrs.frozen(kw_only=True)
class BankInspection:
    """What is in a boot bank: its profile, its boot.cfg, the installed VIBs, and the files of no VIB."""

    name: str
    level: str
    config: BootConfig
    vibs: tuple[BankVib, ...]
    unowned: tuple[BankFile, ...]
    problems: tuple[str, ...]


def inspect_vib(data: bytes) -> VibInspection:
    """Return what is in a VIB archive; `FormatError` when archive or descriptor cannot be read."""
    vib = parse_vib(data)
    check_contents(vib)
    payloads = tuple(
        _inspect_payload(entry, payload)
        for entry, payload in zip(vib.descriptor.payloads, vib.payloads, strict=True)
    )
    problems = [problem for payload in payloads for problem in payload.problems]
    if not problems:
        problems += _file_list_problems(vib)
    return VibInspection(
        descriptor=vib.descriptor,
        members=(
            ("descriptor.xml", len(vib.descriptor_xml)),
            ("sig.pkcs7", len(vib.signature)),
            *((payload.name, len(payload.data)) for payload in vib.payloads),
        ),
        signature_bytes=len(vib.signature),
        payloads=payloads,
        problems=tuple(problems),
    )


def inspect_bank(files: Mapping[str, bytes]) -> BankInspection:
    """Return what is in a boot bank; `FormatError` when boot.cfg or the image database cannot be read."""
    bank = BootBank(files=files)
    check_bank_contents(files.values())
    database = bank.database
    problems: list[str] = []
    vibs = tuple(_inspect_record(record, files, problems) for record in database.records)
    owned = {file.name for vib in vibs for file in vib.files}
    return BankInspection(
        name=database.name,
        level=database.level.title,
        config=bank.config,
        vibs=vibs,
        unowned=tuple(
            _bank_file(name, None, files[name], problems) for name in sorted(files) if name not in owned
        ),
        problems=tuple(problems),
    )


def _inspect_payload(entry: PayloadEntry, payload: Payload) -> InspectedPayload:
    faults = list(payload_problems(entry, payload.data))
    failed = {fault.check for fault in faults}
    problems = [str(fault) for fault in faults]
    entries: tuple[TarEntry, ...] = ()
    content_bytes = len(payload.data)
    try:
        content_bytes = len(content_of(payload.data))
        entries = payload_entries(payload.kind, payload.data)
    except FormatError as error:
        problems.append(f"payload {payload.name}: {error}")
    return InspectedPayload(
        name=payload.name,
        kind=payload.kind,
        size=len(payload.data),
        content_bytes=content_bytes,
        checksums=tuple((checksum.label, checksum.check not in failed) for checksum in entry.checksums),
        entries=tuple(_inspect_entry(item) for item in entries),
        problems=tuple(problems),
    )


def _inspect_entry(entry: TarEntry) -> InspectedFile:
    return InspectedFile(
        path=entry.path,
        kind=entry.kind.name.lower(),
        size=len(entry.data),
        mode=entry.mode,
        header_checksum_ok=entry.checksum_ok,
    )


def _file_list_problems(vib: Vib) -> list[str]:
    listed, held = set(vib.descriptor.files), set(paths_of(vib))
    problems = [f"file {path} is in a payload but not in the file list" for path in sorted(held - listed)]
    return problems + [f"file {path} is in the file list but in no payload" for path in sorted(listed - held)]


def _inspect_record(record: VibRecord, files: Mapping[str, bytes], problems: list[str]) -> BankVib:
    found = []
    for entry, name in zip(record.descriptor.payloads, record.files, strict=True):
        if name in files:
            found.append(_bank_file(name, entry, files[name], problems))
        else:
            problems.append(f"file {name} of VIB {record.descriptor.vib_id} is missing")
    return BankVib(descriptor=record.descriptor, signature_bytes=len(record.signature), files=tuple(found))


def _bank_file(name: str, entry: PayloadEntry | None, data: bytes, problems: list[str]) -> BankFile:
    digest = hashlib.sha256(data).digest()
    as_described = entry is None or entry.sha256 == digest
    if not as_described:
        problems.append(f"file {name} is not the payload that its descriptor names")
    try:
        content_bytes = len(content_of(data))
    except FormatError as error:
        content_bytes = 0
        problems.append(f"file {name}: {error}")
    return BankFile(
        name=name,
        payload=entry.name if entry is not None else "",
        size=len(data),
        content_bytes=content_bytes,
        sha256=digest,
        as_described=as_described,
    )
