"""Mutations of TCG event logs that know their structure: records, counts, sizes, digests and the Spec ID record."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping

from attrs import frozen

from sim.tpm.constants import HASH_BYTES, PCR_COUNT
from sim.tpm.eventlog import BANKS_MAX, EV, EVENT_DATA_BYTES_MAX, parse

FAULTS_MAX = 3
GARBAGE_BYTES_MAX = 300
SHA1_RECORD_HEAD = 32
"""Bytes before the event data of a record of the older form, and of the Spec ID record."""

SIZES = (
    0,
    1,
    2,
    15,
    16,
    17,
    0x7F,
    0xFF,
    0x100,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    EVENT_DATA_BYTES_MAX + 1,
)
COUNTS = (0, 1, 2, 3, 4, 5, BANKS_MAX, BANKS_MAX + 1, 0xFF, 0xFFFF, 0xFFFFFFFF)
BANKS = (*sorted(HASH_BYTES), 0x00, 0x05, 0x12, 0x27, 0xFFFF)
SPEC_ID_AT = 16 + SHA1_RECORD_HEAD
UINT16, UINT32 = struct.Struct("<H"), struct.Struct("<I")


@frozen(kw_only=True)
class Parts:
    """A log in records; the first may be a Spec ID record."""

    records: tuple[bytes, ...]
    has_spec_id: bool


def split_log(data: bytes) -> Parts:
    """Cut a good log between its records."""
    log = parse(data)
    records, at = [], 0
    if log.spec_id is not None:
        at = SHA1_RECORD_HEAD + UINT32.unpack_from(data, SHA1_RECORD_HEAD - 4)[0]
        records.append(data[:at])
    for event in log.events:
        digests = sum(2 + len(digest) for digest in event.digests.values())
        head = 12 + digests + 4 if log.spec_id is not None else SHA1_RECORD_HEAD
        size = head + len(event.data)
        records.append(data[at : at + size])
        at += size
    assert b"".join(records) == data
    return Parts(records=tuple(records), has_spec_id=log.spec_id is not None)


class Mutator:
    """Makes mutants of logs from one stream of chance."""

    def __init__(self, chance: random.Random, logs: Mapping[str, Parts]) -> None:
        self.chance = chance
        self.logs = logs
        self.others = [log.records for _, log in sorted(logs.items())]
        self.of_records: tuple[Callable[[list[bytes], Parts], None], ...] = (
            self.swap,
            self.double,
            self.drop,
            self.borrow,
            self.repeat,
            self.change_field,
            self.change_field,
            self.change_digest_bank,
            self.change_data,
            self.change_spec_id,
        )
        self.of_bytes: tuple[Callable[[bytes], bytes], ...] = (
            self.bit,
            self.byte,
            self.cut,
            self.append,
            self.remove,
            self.insert,
        )

    def mutant(self, name: str) -> tuple[bytes, str]:
        """Return a log with one to three faults, and what they are."""
        log = self.logs[name]
        records = list(log.records)
        names = []
        data: bytes | None = None
        for _ in range(self.chance.randint(1, FAULTS_MAX)):
            if data is None and self.chance.random() < 0.6:
                change = self.chance.choice(self.of_records)
                if records:
                    change(records, log)
                names.append(change.__name__)
            else:
                damage = self.chance.choice(self.of_bytes)
                data = damage(b"".join(records) if data is None else data)
                names.append(damage.__name__)
        return (b"".join(records) if data is None else data), " + ".join(names)

    # -- faults in the list of records

    def at(self, records: list[bytes]) -> int:
        return self.chance.randrange(len(records))

    def swap(self, records: list[bytes], _log: Parts) -> None:
        one, other = self.at(records), self.at(records)
        records[one], records[other] = records[other], records[one]

    def double(self, records: list[bytes], _log: Parts) -> None:
        records.insert(self.at(records), self.chance.choice(records))

    def drop(self, records: list[bytes], _log: Parts) -> None:
        del records[self.at(records)]

    def borrow(self, records: list[bytes], _log: Parts) -> None:
        records.insert(self.at(records), self.chance.choice(self.chance.choice(self.others)))

    def repeat(self, records: list[bytes], _log: Parts) -> None:
        at = self.at(records)
        records[at:at] = [records[at]] * self.chance.choice((2, 10, 200))

    # -- faults in one record

    def change_field(self, records: list[bytes], log: Parts) -> None:
        """Change PCR, type, count of digests or size of the data of a record, but for the count in the older form."""
        at = self.at(records)
        record = bytearray(records[at])
        agile = log.has_spec_id and at > 0
        field = self.chance.choice(("pcr", "type", "count", "size"))
        if field == "pcr":
            value = self.chance.choice((self.chance.randrange(PCR_COUNT), PCR_COUNT, 0xFF, 0xFFFFFFFF))
            UINT32.pack_into(record, 0, value)
        elif field == "type":
            known = (*sorted(EV), 0x401, 0x402, 0xFFFFFFFF)
            UINT32.pack_into(record, 4, self.chance.choice(known))
        elif field == "count" and agile:
            UINT32.pack_into(record, 8, self.chance.choice(COUNTS))
        else:
            place = self.size_at(record, agile)
            if place + 4 <= len(record):
                (old,) = UINT32.unpack_from(record, place)
                near = (max(0, old - 1), min(old + 1, 0xFFFFFFFF), old ^ 0x80)
                UINT32.pack_into(record, place, self.chance.choice(SIZES + near))
        records[at] = bytes(record)

    def size_at(self, record: bytes, agile: bool) -> int:
        """Return where the size of the data stands, as far as the counts before it can be believed."""
        if not agile:
            return SHA1_RECORD_HEAD - 4
        place = 12
        for _ in range(min(UINT32.unpack_from(record, 8)[0], BANKS_MAX)):
            if place + 2 > len(record):
                break
            place += 2 + HASH_BYTES.get(UINT16.unpack_from(record, place)[0], 0)
        return place

    def change_digest_bank(self, records: list[bytes], log: Parts) -> None:
        at = self.at(records)
        if log.has_spec_id and at > 0 and len(records[at]) >= 14:
            record = bytearray(records[at])
            UINT16.pack_into(record, 12, self.chance.choice(BANKS))
            records[at] = bytes(record)

    def change_data(self, records: list[bytes], log: Parts) -> None:
        """Give a record other data of a size that fits: the next layer has to read them."""
        at = self.at(records)
        place = self.size_at(records[at], log.has_spec_id and at > 0)
        if place + 4 > len(records[at]):
            return
        old = records[at][place + 4 :]
        data = self.chance.choice(
            (
                self.chance.randbytes(self.chance.randrange(GARBAGE_BYTES_MAX)),
                old[: self.chance.randint(0, len(old))],
                self.byte(old) if old else b"",
                old + old[: self.chance.randint(0, len(old))],
            )
        )
        records[at] = records[at][:place] + UINT32.pack(len(data)) + data

    def change_spec_id(self, records: list[bytes], log: Parts) -> None:
        """Change a byte or the count of algorithms in the Spec ID record."""
        if not log.has_spec_id or len(records[0]) <= SPEC_ID_AT + 12:
            return
        record = bytearray(records[0])
        if self.chance.random() < 0.3:
            UINT32.pack_into(record, SPEC_ID_AT + 8, self.chance.choice(COUNTS))
        else:
            record[self.chance.randrange(SPEC_ID_AT - 16, len(record))] = self.chance.choice(
                (0, 1, 2, 4, 0x0B, 0x20, 0x7F, 0x80, 0xFF)
            )
        records[0] = bytes(record)

    # -- faults in the bytes

    def bit(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self.chance.randrange(len(data))
        return data[:at] + bytes((data[at] ^ 1 << self.chance.randrange(8),)) + data[at + 1 :]

    def byte(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self.chance.randrange(len(data))
        return data[:at] + self.chance.randbytes(1) + data[at + 1 :]

    def cut(self, data: bytes) -> bytes:
        return data[: self.chance.randint(0, len(data))]

    def append(self, data: bytes) -> bytes:
        size = self.chance.randint(1, GARBAGE_BYTES_MAX)
        return data + self.chance.choice((self.chance.randbytes(size), bytes(size), b"\xff" * size))

    def remove(self, data: bytes) -> bytes:
        at = self.chance.randint(0, len(data))
        return data[:at] + data[at + self.chance.randint(1, 64) :]

    def insert(self, data: bytes) -> bytes:
        at = self.chance.randint(0, len(data))
        return data[:at] + self.chance.randbytes(self.chance.randint(1, 16)) + data[at:]
