"""The event log that a TPM keeps beside its PCRs: what explains the values that they hold now.

Models: a crypto-agile log of every extend, through whichever door it came, with the digests of the banks that it
reached.  It begins anew with the PCRs; a PCR that is reset leaves it.  So replaying it gives the PCRs, unless the
named limit was passed: then the event that did not fit and all later ones are missing, and `truncated` says so.
Leaves out: what an extend was for, which a TPM is not told; whoever knows may describe the newest event, as the
simulation's boot does, and otherwise it has the plain form of `plain_form`.  No hardware TPM keeps such a log, and the
verifier never sees it: what a host reports is the log that its own firmware wrote into memory.
Sources: TCG PC Client Platform Firmware Profile 1.05, chapter 10 (form, event types); Intel TXT (0x402, hash start).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping

from sim.core.facts import fact
from sim.core.units import KIB
from sim.tpm.constants import HASH_BYTES
from sim.tpm.eventlog import EV, event_record, pcr_start_record, spec_id_record, startup_locality_data

__all__ = ["EVENT_LOG_BYTES_MAX", "H_CRTM_FORM", "LAUNCH_FORM", "Form", "PcrLog", "plain_form"]

EVENT_LOG_BYTES_MAX = fact(
    "tpm.event_log_bytes_max",
    256 * KIB,
    unit="byte",
    source="as much as the simulated firmware sets aside for its own",
    kind="assumed",
).value

Form = tuple[int, bytes]
"""Type and data of an event."""

_HASH_START = 0x402
H_CRTM_FORM: Form = (EV.EFI_HCRTM_EVENT.value, b"HCRTM")
LAUNCH_FORM: Form = (_HASH_START, b"")
_LOCALITIES = range(5)
_COMMANDS = ("PCR_Extend", "EventSequenceComplete")
_PLAIN = {
    name: tuple((EV.IPL.value, f"TPM2_{name} at locality {n}".encode()) for n in _LOCALITIES)
    for name in _COMMANDS
}
_NO_ACTION = EV.NO_ACTION.value
_DYNAMIC_PCRS = range(17, 23)
_HEAD = struct.Struct("<III")
_BANK_BYTES = 2
_DIGEST_BYTES = {
    bank.to_bytes(_BANK_BYTES, "little"): _BANK_BYTES + size for bank, size in HASH_BYTES.items()
}
"""How much a digest takes in a record, by the bank that it begins with."""
_SIZE = struct.Struct("<I")


def plain_form(command: str, locality: int) -> Form:
    """Return the form of an event of which only the command is known, and where it came from."""
    return _PLAIN[command][locality]


class PcrLog:
    """The log of one TPM; its records are whole TCG_PCR_EVENT2 structures."""

    def __init__(self, banks: Collection[int], capacity_bytes: int = EVENT_LOG_BYTES_MAX) -> None:
        self.capacity_bytes = capacity_bytes
        self.begin(banks, 0)

    def begin(self, banks: Collection[int], locality: int) -> None:
        """Begin anew, with PCR 0 started from `locality` (4 after an H-CRTM)."""
        self.banks = tuple(banks)
        self.head = spec_id_record(self.banks)
        self.records: list[bytes] = []
        self.size_bytes = len(self.head)
        self.truncated = self.size_bytes > self.capacity_bytes
        self.launched = False
        if locality:
            zeros = {bank: bytes(HASH_BYTES[bank]) for bank in self.banks}
            self._append(event_record(0, _NO_ACTION, zeros, startup_locality_data(locality)))

    def note(self, pcr: int, digests: Mapping[int, bytes], form: Form, *, old: bytes) -> None:
        """Add an extend of `pcr` by the digests (by bank); `old` is a value that the PCR had before."""
        if self.truncated:
            return
        if (
            pcr in _DYNAMIC_PCRS
            and not self.launched
            and not any(_pcr_of(each) == pcr for each in self.records)
        ):
            self._append(pcr_start_record(pcr, old[0], self.banks))
        self._append(event_record(pcr, form[0], digests, form[1]))

    def describe(self, pcr: int, event_type: int, data: bytes) -> bool:
        """Give the newest event another type and data; False when it is no event of `pcr`, or was not kept."""
        if self.truncated or not self.records:
            return False
        record = self.records[-1]
        found, old_type, count = _HEAD.unpack_from(record)
        if found != pcr or old_type == _NO_ACTION:
            return False
        self.records.pop()
        self.size_bytes -= len(record)
        digests = record[_HEAD.size : _end_of_digests(record, count)]
        described = b"".join((_HEAD.pack(pcr, event_type, count), digests, _SIZE.pack(len(data)), data))
        return self._append(described)

    def launch(self) -> None:
        """Note that a late launch has cleared PCR 17 to 22."""
        self.forget(_DYNAMIC_PCRS)
        self.launched = True

    def forget(self, pcrs: Collection[int]) -> None:
        """Drop the events of PCRs that begin anew."""
        self.records = [record for record in self.records if _pcr_of(record) not in pcrs]
        self.size_bytes = len(self.head) + sum(map(len, self.records))

    def restart_dynamic(self, pcrs: Collection[int]) -> None:
        """Drop the events of PCRs that begin anew as they do before any launch."""
        self.forget(pcrs)
        self.launched = False

    def to_bytes(self) -> bytes:
        """Return the log in the form that `sim.tpm.eventlog.parse` and tpm2_eventlog read."""
        return self.head + b"".join(self.records)

    def check_invariants(self) -> None:
        """Assert what must always hold."""
        assert self.size_bytes == len(self.to_bytes())
        assert self.size_bytes <= self.capacity_bytes or not self.records

    def _append(self, record: bytes) -> bool:
        if self.truncated or self.size_bytes + len(record) > self.capacity_bytes:
            self.truncated = True
            return False
        self.records.append(record)
        self.size_bytes += len(record)
        return True


def _pcr_of(record: bytes) -> int:
    pcr, _, _ = _HEAD.unpack_from(record)
    return int(pcr)


def _end_of_digests(record: bytes, count: int) -> int:
    """Return where the digests end in a record that `event_record` made."""
    at = _HEAD.size
    for _ in range(count):
        at += _DIGEST_BYTES[record[at : at + _BANK_BYTES]]
    return at
