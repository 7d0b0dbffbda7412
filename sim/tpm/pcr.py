"""Platform Configuration Registers: values, who may change them from which locality, and when they start anew.

Models: banks of 24 PCRs of a PC Client TPM, the update counter that PCR_Read returns, the hash sequence that the
processor drives at locality 4 (H-CRTM before Startup, launch after it), and what a resume keeps.  Every change is noted
in the event log that is kept beside them (`sim.tpm.pcr_log`).
Leaves out: the commands (`sim.tpm.commands.pcrs`).
Sources: TCG PC Client Platform TPM Profile, table of PCR attributes; all cells of the tables below and the behaviour
of the counter were measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.core.facts import fact
from sim.tpm.constants import HASH_BYTES, PCR_COUNT, TPM_ALG
from sim.tpm.hashing import HASHES, hash_bytes
from sim.tpm.pcr_log import EVENT_LOG_BYTES_MAX, H_CRTM_FORM, LAUNCH_FORM, Form, PcrLog

__all__ = ["EXTEND_LOCALITIES", "RESET_LOCALITIES", "PcrBanks"]

_SOURCE = "PC Client Platform TPM Profile, PCR attributes; swtpm 0.7.1"


def _mask(name: str, value: int) -> int:
    return fact(f"tpm.pcr.{name}", value, unit="mask of localities", source=_SOURCE, kind="measured").value


_ALL = _mask("0_to_16_and_23.extend", 0x1F)
_LAUNCH = _mask("17_and_18.extend", 0x1C)
_TRUSTED_OS = _mask("19.extend", 0x0C)
_SHARED = _mask("20.extend", 0x0E)
_OS = _mask("21_and_22.extend", 0x04)
_DEBUG_RESET = _mask("16_and_23.reset", 0x0F)
_OS_RESET = _mask("20_to_22.reset", 0x04)

EXTEND_LOCALITIES = (*(_ALL,) * 17, _LAUNCH, _LAUNCH, _TRUSTED_OS, _SHARED, _OS, _OS, _ALL)
"""Per PCR the localities (bit n = locality n) that may extend it."""

RESET_LOCALITIES = (*(0,) * 16, _DEBUG_RESET, 0, 0, 0, _OS_RESET, _OS_RESET, _OS_RESET, _DEBUG_RESET)
"""Per PCR the localities that may reset it by command (the hash sequence resets 17 to 22 from locality 4)."""

LAUNCH_PCR = 17
HCRTM_PCR = 0
H_CRTM_LOCALITY = 4
"""What PCR 0 begins with when an H-CRTM came before Startup."""
DYNAMIC_PCRS = range(17, 23)
SAVED_PCRS = range(16)
AUTH_PCRS = range(20, 23)
"""PCRs that share one authorisation value and one policy (measured)."""
BANKS_BYTES_MAX = PCR_COUNT * sum(HASH_BYTES.values())
ALL_PCRS = (1 << PCR_COUNT) - 1
UNCOUNTED_PCRS = frozenset({16, 21, 22, 23})
"""PCRs whose change does not raise the update counter (measured)."""


class PcrBanks:
    """All PCR values of a TPM; every method keeps each value at its bank's digest size."""

    def __init__(self, banks: Iterable[int], log_bytes_max: int = EVENT_LOG_BYTES_MAX) -> None:
        self.values: dict[int, list[bytes]] = {
            int(alg): [bytes(HASH_BYTES[alg])] * PCR_COUNT for alg in banks
        }
        self.allocated: dict[int, int] = dict.fromkeys(self.values, ALL_PCRS)
        """Per bank which PCRs are there (bit n = PCR n); a bank without any has no values."""
        self.pending: dict[int, int] | None = None
        """The allocation that the next TPM reset brings."""
        self.update_counter = 0
        self.log = PcrLog(self.values, log_bytes_max)
        self.auth = b""
        self.policy = b""
        self.policy_alg = TPM_ALG.NULL.value

    @property
    def is_open(self) -> bool:
        """Whether the PCRs of `AUTH_PCRS` need neither authorisation value nor policy."""
        return not self.auth and self.policy_alg == TPM_ALG.NULL

    def allocate(self, selection: Iterable[tuple[int, int]]) -> int | None:
        """Choose the PCRs of banks (pairs of bank and mask) for the next reset; return the bytes that takes.

        Returns None, and changes nothing, if no bank would have the PCRs that the platform's hardware extends.
        """
        chosen = {**self.allocated, **dict(selection)}
        if not any(mask >> HCRTM_PCR & 1 for mask in chosen.values()):
            return None
        if not any(mask >> LAUNCH_PCR & 1 for mask in chosen.values()):
            return None
        self.pending = {alg: chosen[alg] for alg in HASH_BYTES if alg in chosen}
        return sum(HASH_BYTES[alg] * mask.bit_count() for alg, mask in chosen.items())

    def has(self, pcr: int, hash_alg: int) -> bool:
        """Tell whether a PCR is there in a bank."""
        return bool(self.allocated.get(hash_alg, 0) >> pcr & 1)

    def extend(self, pcr: int, digests: Iterable[tuple[int, bytes]], form: Form) -> None:
        """Set the PCR to H(old value || digest) for each bank and digest; `form` is how the log describes it.

        A bank that is not there is passed over; one that is named twice makes two events.
        """
        taken: dict[int, bytes] = {}
        old = b""
        for hash_alg, digest in digests:
            bank = self.values.get(hash_alg)
            if bank is None or not self.allocated[hash_alg] >> pcr & 1:
                continue
            if hash_alg in taken:
                self.log.note(pcr, taken, form, old=old)
                taken = {}
            old = bank[pcr]
            bank[pcr] = HASHES[hash_alg](old + digest).digest()
            taken[hash_alg] = digest
            if pcr not in UNCOUNTED_PCRS:
                self.update_counter += 1
        if taken:
            self.log.note(pcr, taken, form, old=old)

    def reset(self, pcr: int) -> None:
        """Set the PCR to zeros in every bank."""
        self._fill(pcr, 0x00)
        self.log.forget((pcr,))

    def start(self, *, locality: int, h_crtm: bytes | None) -> None:
        """Begin anew at Startup(CLEAR) from `locality`; `h_crtm` is what was hashed before Startup."""
        self.auth = b""
        if self.pending is not None:
            self.allocated, self.pending = self.pending, None
            self.values = {
                alg: [bytes(HASH_BYTES[alg])] * PCR_COUNT for alg, mask in self.allocated.items() if mask
            }
        for pcr in range(PCR_COUNT):
            self._fill(pcr, 0xFF if pcr in DYNAMIC_PCRS else 0x00)
        first = locality if h_crtm is None else H_CRTM_LOCALITY
        for hash_alg, bank in self.values.items():
            bank[HCRTM_PCR] = _ending_in(hash_alg, first)
        self.log.begin(self.values, first)
        if h_crtm is not None:
            self._take_in(HCRTM_PCR, h_crtm, H_CRTM_FORM)

    def resume(self) -> None:
        """Keep PCR 0 to 15 at Startup(STATE) and begin the others anew."""
        for pcr in range(PCR_COUNT):
            if pcr not in SAVED_PCRS:
                self._fill(pcr, 0xFF if pcr in DYNAMIC_PCRS else 0x00)
        self.log.restart_dynamic([pcr for pcr in range(PCR_COUNT) if pcr not in SAVED_PCRS])

    def launch(self, data: bytes) -> None:
        """Apply the hash sequence of a late launch: 17 to 22 to zeros, then PCR 17 extended with H(data)."""
        for pcr in DYNAMIC_PCRS:
            self._fill(pcr, 0x00)
        self.log.launch()
        self._take_in(LAUNCH_PCR, data, LAUNCH_FORM)

    def _take_in(self, pcr: int, data: bytes, form: Form) -> None:
        """Extend a PCR as the hash sequence does: with the digest of `data` in every bank, uncounted."""
        counter = self.update_counter
        self.extend(pcr, [(bank, hash_bytes(bank, data)) for bank in self.values], form)
        self.update_counter = counter

    def digest(self, hash_alg: int, selection: Iterable[tuple[int, tuple[int, ...]]]) -> bytes:
        """Hash the selected PCRs (pairs of bank and PCRs) one after the other with `hash_alg`."""
        values = self.values
        return hash_bytes(hash_alg, b"".join(values[bank][pcr] for bank, pcrs in selection for pcr in pcrs))

    def check_invariants(self) -> None:
        """Assert what must always hold."""
        self.log.check_invariants()
        for hash_alg, bank in self.values.items():
            assert len(bank) == PCR_COUNT
            assert all(len(value) == HASH_BYTES[hash_alg] for value in bank)

    def _fill(self, pcr: int, octet: int) -> None:
        for hash_alg, bank in self.values.items():
            bank[pcr] = bytes([octet]) * HASH_BYTES[hash_alg]
        if pcr not in UNCOUNTED_PCRS:
            self.update_counter += 1


def _ending_in(hash_alg: int, octet: int) -> bytes:
    return octet.to_bytes(HASH_BYTES[hash_alg], "big")
