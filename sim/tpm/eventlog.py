"""The TCG event log: what was measured into which PCR, written, parsed and replayed.

Models: the crypto-agile form (a Spec ID record, then events with one digest per bank) and the older SHA-1 form; the
start value of PCR 0 after Startup at locality 3 or an H-CRTM, and of PCR 17 to 22 with and without a launch.
Leaves out: what an event means.  Neither its type nor, for most types, its data is covered by the PCR, so a replay
alone proves nothing about them; a parsed log is untrusted until a quote confirms its PCRs.
Sources: TCG PC Client Platform Firmware Profile, chapters 9 and 10; twelve logs of real machines.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum

from attrs import frozen

from sim.errors import FormatError, LimitError, SimBug
from sim.tpm.constants import HASH_BYTES, PCR_COUNT, TPM_ALG
from sim.tpm.hashing import BANK_NAMES, HASHES, bank_name, hash_bytes

__all__ = [
    "BANK_NAMES",
    "EV",
    "EventLog",
    "EventLogWriter",
    "SpecId",
    "TcgEvent",
    "bank_name",
    "event_record",
    "event_type_name",
    "parse",
    "pcr_start_record",
    "replay",
    "spec_id_record",
    "startup_locality_data",
]

LOG_BYTES_MAX = 16 * 1024 * 1024
EVENTS_MAX = 16_384
EVENT_DATA_BYTES_MAX = 4 * 1024 * 1024
BANKS_MAX = 8

_WHAT = "event log"
_DIGEST_BYTES = {**HASH_BYTES, TPM_ALG.SM3_256.value: 32}
_SHA1 = TPM_ALG.SHA1.value
_SPEC_ID_03 = b"Spec ID Event03\0"
_STARTUP_LOCALITY = b"StartupLocality\0"
_PCR_START = b"vmksim PCR start"
_SIGNATURE_BYTES = 16
_LAUNCH_PCR = 17
_DYNAMIC_PCRS = range(17, 23)
_START_LOCALITIES = (0, 3, 4)
_HEADER = struct.Struct("<II")
_HEADER_AND_COUNT = struct.Struct("<III")
_UINT16 = struct.Struct("<H")
_UINT32 = struct.Struct("<I")
_BANK_BYTES = {bank: _UINT16.pack(bank) for bank in HASH_BYTES}
_SPEC_ID = struct.Struct("<IBBBBI")
_ALGORITHM = struct.Struct("<HH")


class EV(IntEnum):
    """Event types."""

    PREBOOT_CERT = 0x00
    POST_CODE = 0x01
    NO_ACTION = 0x03
    SEPARATOR = 0x04
    ACTION = 0x05
    EVENT_TAG = 0x06
    S_CRTM_CONTENTS = 0x07
    S_CRTM_VERSION = 0x08
    CPU_MICROCODE = 0x09
    PLATFORM_CONFIG_FLAGS = 0x0A
    TABLE_OF_DEVICES = 0x0B
    COMPACT_HASH = 0x0C
    IPL = 0x0D
    IPL_PARTITION_DATA = 0x0E
    NONHOST_CODE = 0x0F
    NONHOST_CONFIG = 0x10
    NONHOST_INFO = 0x11
    OMIT_BOOT_DEVICE_EVENTS = 0x12
    EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EFI_VARIABLE_BOOT = 0x80000002
    EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EFI_RUNTIME_SERVICES_DRIVER = 0x80000005
    EFI_GPT_EVENT = 0x80000006
    EFI_ACTION = 0x80000007
    EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EFI_HANDOFF_TABLES = 0x80000009
    EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EFI_HANDOFF_TABLES2 = 0x8000000B
    EFI_VARIABLE_BOOT2 = 0x8000000C
    EFI_HCRTM_EVENT = 0x80000010
    EFI_VARIABLE_AUTHORITY = 0x800000E0
    EFI_SPDM_FIRMWARE_BLOB = 0x800000E1
    EFI_SPDM_FIRMWARE_CONFIG = 0x800000E2


@frozen(kw_only=True)
class TcgEvent:
    """One event; `digests` holds a digest per bank (by TPM_ALG), `data` describes what was measured.

    A bank without a digest was not extended: firmware measures into all of them, but a command may name fewer.
    """

    pcr: int
    type: int
    digests: Mapping[int, bytes]
    data: bytes


@frozen(kw_only=True)
class SpecId:
    """The first record of a crypto-agile log."""

    platform_class: int
    version_major: int
    version_minor: int
    errata: int
    uintn_size: int
    algorithms: tuple[int, ...]
    vendor_info: bytes


@frozen(kw_only=True)
class EventLog:
    """A parsed log; `events` leaves out the Spec ID record, and `spec_id` is None for a SHA-1 log."""

    events: tuple[TcgEvent, ...]
    spec_id: SpecId | None
    banks: tuple[int, ...]

    @property
    def record_count(self) -> int:
        """The number of records, with the Spec ID record."""
        return len(self.events) + (self.spec_id is not None)


def event_type_name(event_type: int) -> str:
    """Return the name of an event type, such as "EV_SEPARATOR"."""
    return f"EV_{EV(event_type).name}" if event_type in _TYPES else f"0x{event_type:08x}"


_TYPES = frozenset(EV)


def replay(log: EventLog, *, launched: bool | None = None) -> dict[int, dict[int, bytes]]:
    """Compute {bank: {pcr: value}} that the log leads to, for the PCRs that it extends.

    `launched` says whether a late launch cleared PCR 17 to 22.  None takes an event in PCR 17 for its sign, and believes
    the log where it says itself with what a PCR began; a verifier, which must not, says what it knows.  An SM3 bank is
    passed over.  Errors: `FormatError` if the events about the start of PCR 0 contradict each other, which `parse`
    refuses already.
    """
    first = _start_of_pcr0(log.events)
    stated = _stated_starts(log.events) if launched is None else {}
    if launched is None:
        launched = any(event.pcr == _LAUNCH_PCR and event.type != EV.NO_ACTION for event in log.events)
    dynamic = 0x00 if launched else 0xFF
    values: dict[int, dict[int, bytes]] = {bank: {} for bank in log.banks if bank in HASHES}
    for event in log.events:
        if event.type == EV.NO_ACTION:
            continue
        for bank, pcrs in values.items():
            if bank not in event.digests:
                continue
            old = pcrs.get(event.pcr)
            if old is None:
                size = HASH_BYTES[bank]
                fill = stated.get(event.pcr, dynamic if event.pcr in _DYNAMIC_PCRS else 0)
                old = first.to_bytes(size, "big") if event.pcr == 0 else bytes([fill]) * size
            pcrs[event.pcr] = hash_bytes(bank, old + event.digests[bank])
    return {bank: dict(sorted(pcrs.items())) for bank, pcrs in values.items()}


def _stated_starts(events: tuple[TcgEvent, ...]) -> dict[int, int]:
    """Return by PCR the byte that filled it at first, where a record of `pcr_start_record` says so."""
    return {
        event.pcr: event.data[_SIGNATURE_BYTES]
        for event in events
        if event.type == EV.NO_ACTION
        and event.data.startswith(_PCR_START)
        and len(event.data) == _SIGNATURE_BYTES + 1
    }


def _start_of_pcr0(events: tuple[TcgEvent, ...]) -> int:
    """Return the last byte with which PCR 0 began: the locality of Startup, or 4 after an H-CRTM."""
    stated: int | None = None
    measured = h_crtm = False
    for number, event in enumerate(events, 1):
        if event.pcr != 0:
            continue
        where = f"event {number}"
        if event.type == EV.NO_ACTION and event.data.startswith(_STARTUP_LOCALITY):
            if stated is not None or measured:
                raise FormatError(
                    _WHAT, where, "StartupLocality stands twice, or behind a measurement of PCR 0"
                )
            if len(event.data) != _SIGNATURE_BYTES + 1 or event.data[-1] not in _START_LOCALITIES:
                raise FormatError(_WHAT, where, "StartupLocality needs one byte: 0, 3 or 4")
            stated = event.data[-1]
        elif event.type == EV.EFI_HCRTM_EVENT:
            if measured:
                raise FormatError(_WHAT, where, "an H-CRTM event stands behind another measurement of PCR 0")
            measured = h_crtm = True
        elif event.type != EV.NO_ACTION:
            measured = True
    return 4 if h_crtm else stated or 0


# -- parsing ----------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads little-endian fields, and knows where it is."""

    def __init__(self, data: bytes, *, base: int = 0) -> None:
        self.data = data
        self.base = base
        self.at = 0
        self.number = 0

    @property
    def where(self) -> str:
        return f"record {self.number}, offset 0x{self.base + self.at:x}"

    def wrong(self, message: str) -> FormatError:
        return FormatError(_WHAT, self.where, message)

    def fields(self, layout: struct.Struct) -> tuple[int, ...]:
        if self.at + layout.size > len(self.data):
            raise self.wrong(f"cut short: {layout.size} bytes wanted, {len(self.data) - self.at} left")
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise self.wrong(f"cut short: {size} bytes wanted, {len(self.data) - self.at} left")
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def event_data(self) -> bytes:
        (size,) = self.fields(_UINT32)
        if size > EVENT_DATA_BYTES_MAX:
            raise LimitError(
                _WHAT, self.where, f"event size {size} passes the limit of {EVENT_DATA_BYTES_MAX}"
            )
        return self.take(size)


def parse(data: bytes, *, allow_padding: bool = False, every_bank: bool = False) -> EventLog:
    """Parse a log; with `allow_padding`, zeros or 0xFF may fill the buffer behind the last event.

    With `every_bank` each event must have a digest for each bank of the log, as the profile demands of firmware.

    Errors: `FormatError` for anything that is not exactly such a log, `LimitError` past a limit of this module.
    """
    if len(data) > LOG_BYTES_MAX:
        raise LimitError(_WHAT, "", f"{len(data)} bytes pass the limit of {LOG_BYTES_MAX}")
    if not data:
        raise FormatError(_WHAT, "", "is empty")
    reader = _Reader(data)
    try:
        first = _read_sha1_event(reader)
    except FormatError as error:
        raise type(error)(error.what, error.where, f"{error.message} (is this a TCG event log?)") from None
    spec_id = _spec_id(reader, first)
    events = [] if spec_id is not None else [first]
    banks = spec_id.algorithms if spec_id is not None else (_SHA1,)
    while reader.at < len(data):
        if allow_padding and _is_padding(data[reader.at :]):
            break
        reader.number += 1
        if reader.number >= EVENTS_MAX:
            raise LimitError(_WHAT, reader.where, f"more than {EVENTS_MAX} events")
        if spec_id is None:
            events.append(_read_sha1_event(reader))
        else:
            events.append(_read_event(reader, banks, every_bank=every_bank))
    _start_of_pcr0(tuple(events))
    return EventLog(events=tuple(events), spec_id=spec_id, banks=banks)


def _is_padding(rest: bytes) -> bool:
    return rest[0] in (0x00, 0xFF) and rest.count(rest[0]) == len(rest)


def _read_sha1_event(reader: _Reader) -> TcgEvent:
    pcr, event_type = _pcr_and_type(reader)
    digest = reader.take(HASH_BYTES[_SHA1])
    return _checked(
        reader, TcgEvent(pcr=pcr, type=event_type, digests={_SHA1: digest}, data=reader.event_data())
    )


def _read_event(reader: _Reader, banks: tuple[int, ...], *, every_bank: bool) -> TcgEvent:
    pcr, event_type = _pcr_and_type(reader)
    (count,) = reader.fields(_UINT32)
    if count > len(banks) or count < (len(banks) if every_bank else 1):
        raise reader.wrong(f"{count} digests, but the log has {len(banks)} banks")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        (bank,) = reader.fields(_UINT16)
        if bank not in banks or bank in digests:
            raise reader.wrong(f"the digest of {bank_name(bank)} is not announced, or stands twice")
        digests[bank] = reader.take(_DIGEST_BYTES[bank])
    return _checked(reader, TcgEvent(pcr=pcr, type=event_type, digests=digests, data=reader.event_data()))


def _pcr_and_type(reader: _Reader) -> tuple[int, int]:
    pcr, event_type = reader.fields(_HEADER)
    if pcr >= PCR_COUNT:
        raise reader.wrong(f"there is no PCR {pcr}")
    return pcr, event_type


def _checked(reader: _Reader, event: TcgEvent) -> TcgEvent:
    if event.type == EV.NO_ACTION and 0 < len(event.data) < _SIGNATURE_BYTES:
        raise reader.wrong("a NO_ACTION event is shorter than its signature")
    return event


def _spec_id(reader: _Reader, first: TcgEvent) -> SpecId | None:
    """Return what a Spec ID record says, or None if the first event is none."""
    if first.type != EV.NO_ACTION or not first.data.startswith(_SPEC_ID_03):
        return None
    if first.pcr != 0 or any(first.digests[_SHA1]):
        raise reader.wrong("the Spec ID record must name PCR 0 and have a zero digest")
    inner = _Reader(first.data[_SIGNATURE_BYTES:], base=reader.at - len(first.data) + _SIGNATURE_BYTES)
    platform_class, minor, major, errata, uintn_size, count = inner.fields(_SPEC_ID)
    if (major, minor) != (2, 0) or uintn_size not in (1, 2):
        raise reader.wrong(f"Spec ID version {major}.{minor} with UINTN size {uintn_size} is not known")
    algorithms = _algorithms(inner, count)
    vendor_info = inner.take(inner.take(1)[0])
    if inner.at != len(inner.data):
        raise reader.wrong("bytes follow the vendor information of the Spec ID record")
    return SpecId(
        platform_class=platform_class,
        version_major=major,
        version_minor=minor,
        errata=errata,
        uintn_size=uintn_size,
        algorithms=algorithms,
        vendor_info=vendor_info,
    )


def _algorithms(reader: _Reader, count: int) -> tuple[int, ...]:
    if not 1 <= count <= BANKS_MAX:
        raise LimitError(_WHAT, reader.where, f"{count} algorithms, 1 to {BANKS_MAX} are possible")
    algorithms: list[int] = []
    for _ in range(count):
        algorithm, size = reader.fields(_ALGORITHM)
        if _DIGEST_BYTES.get(algorithm) != size:
            raise reader.wrong(f"algorithm 0x{algorithm:04x} with {size} bytes is not known")
        if algorithm in algorithms:
            raise reader.wrong(f"algorithm {bank_name(algorithm)} is announced twice")
        algorithms.append(algorithm)
    return tuple(algorithms)


# -- writing ----------------------------------------------------------------------------------------------------------


class EventLogWriter:
    """Collects events; one that passes `capacity_bytes` is dropped, and so are all later ones (`truncated`)."""

    def __init__(
        self, banks: Iterable[int], *, crypto_agile: bool = True, capacity_bytes: int = LOG_BYTES_MAX
    ) -> None:
        self.banks = tuple(int(bank) for bank in banks)
        if not self.banks or any(bank not in HASH_BYTES for bank in self.banks):
            raise SimBug(f"an event log cannot have the banks {self.banks}")
        if not crypto_agile and self.banks != (_SHA1,):
            raise SimBug("the older form of the event log has the bank SHA-1 alone")
        self.crypto_agile = crypto_agile
        self.capacity_bytes = capacity_bytes
        self.truncated = False
        self._data = bytearray(spec_id_record(self.banks) if crypto_agile else b"")

    def append(self, pcr: int, event_type: int, digests: Mapping[int, bytes], data: bytes) -> bool:
        """Add an event with its digests by bank (more banks than the log has may be given); return False if full."""
        if self.crypto_agile:
            record = event_record(pcr, event_type, {bank: digests[bank] for bank in self.banks}, data)
        else:
            record = _HEADER.pack(pcr, event_type) + digests[_SHA1] + _UINT32.pack(len(data)) + data
        if self.truncated or len(self._data) + len(record) > self.capacity_bytes:
            self.truncated = True
            return False
        self._data += record
        return True

    def measure(
        self, pcr: int, event_type: int, data: bytes, measured: bytes | None = None
    ) -> dict[int, bytes]:
        """Add an event whose digests are over `measured` (over `data` if None); return the digests to extend."""
        content = data if measured is None else measured
        digests = {bank: hash_bytes(bank, content) for bank in self.banks}
        self.append(pcr, event_type, digests, data)
        return digests

    def no_action(self, data: bytes, pcr: int = 0) -> None:
        """Add an event that is not measured."""
        self.append(pcr, EV.NO_ACTION, {bank: bytes(HASH_BYTES[bank]) for bank in self.banks}, data)

    def startup_locality(self, locality: int) -> None:
        """Record the locality from which the TPM was started (4 for an H-CRTM)."""
        self.no_action(startup_locality_data(locality))

    def to_bytes(self) -> bytes:
        """Return the log so far."""
        return bytes(self._data)


def event_record(pcr: int, event_type: int, digests: Mapping[int, bytes], data: bytes) -> bytes:
    """Return the bytes of one event of a crypto-agile log (TCG_PCR_EVENT2)."""
    parts = [_HEADER_AND_COUNT.pack(pcr, event_type, len(digests))]
    for bank, digest in digests.items():
        parts += (_BANK_BYTES.get(bank) or _UINT16.pack(bank), digest)
    parts += (_UINT32.pack(len(data)), data)
    return b"".join(parts)


def pcr_start_record(pcr: int, fill: int, banks: Iterable[int]) -> bytes:
    """Return a record that says which byte fills a PCR before its first event: no standard has one for PCR 17 to 22."""
    zeros = {bank: bytes(HASH_BYTES[bank]) for bank in banks}
    return event_record(pcr, EV.NO_ACTION, zeros, _PCR_START + bytes([fill]))


def startup_locality_data(locality: int) -> bytes:
    """Return the data of the NO_ACTION event that says where PCR 0 began (4: an H-CRTM)."""
    return _STARTUP_LOCALITY + bytes([locality])


def spec_id_record(banks: tuple[int, ...]) -> bytes:
    """Return the first record of a crypto-agile log with these banks."""
    listed = b"".join(_ALGORITHM.pack(bank, HASH_BYTES[bank]) for bank in banks)
    data = _SPEC_ID_03 + _SPEC_ID.pack(0, 0, 2, 0, 2, len(banks)) + listed + b"\0"
    return _HEADER.pack(0, EV.NO_ACTION) + bytes(HASH_BYTES[_SHA1]) + _UINT32.pack(len(data)) + data
