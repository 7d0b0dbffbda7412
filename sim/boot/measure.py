"""Measuring: one event into the log and its digests into the TPM, or nothing at all where there is no TPM.

Models: the measurement service that firmware offers to what it boots (TCG2): every allocated bank is extended, the
event is appended to the log, and a full log area sets the truncation flag while extending goes on.  Each byte string
is hashed once per bank.  A platform measurement that fails makes the firmware give the TPM up, or stop the boot where
the platform's policy says so; who measures a boot module decides alone what a failure means.

The log is firmware's own, in the machine's memory, and says what firmware says.  Each event is also described to the
TPM's log (`sim.tpm.pcr_log`), which is the simulator's and says what the TPM took in.

Leaves out: the separate log area of a TXT launch: its events follow in the same log, in true order.

Sources: TCG EFI Protocol Specification, section 6.6 (HashLogExtendEvent); vmware/esx-boot (truncation flag).
"""

from __future__ import annotations

from sim.boot.bootinfo import TpmFailureRule, TpmState
from sim.boot.context import BOOT_MEASURED, BootContext
from sim.boot.costs import charge_hash
from sim.boot.loaded import Digests
from sim.core.facts import fact
from sim.core.procedure import CostMeter
from sim.core.units import KIB
from sim.errors import FormatError, VmksimError
from sim.hw.tpm_slot import TpmSlot, TpmSlotError
from sim.image.pe import authenticode_digest
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EventLogWriter
from sim.tpm.hashing import HASHES, bank_name, hash_bytes

__all__ = ["MeasureError", "Measurer", "hash_sequence"]

LOG_AREA_BYTES = fact(
    "boot.log_area_bytes",
    256 * KIB,
    unit="byte",
    source="set aside by firmware; EDK2: 64 KiB and up",
    kind="assumed",
)
_SHA256 = TPM_ALG.SHA256.value


class MeasureError(VmksimError):
    """The TPM refused a measurement."""


class Measurer:
    """Hashes, extends and logs; while it is not active, every call returns without doing anything."""

    def __init__(self, context: BootContext) -> None:
        self._context = context
        self._slot: TpmSlot | None = None
        self._writer: EventLogWriter | None = None
        self.banks: tuple[int, ...] = ()

    @property
    def active(self) -> bool:
        """Whether measurements go anywhere."""
        return self._writer is not None

    @property
    def truncated(self) -> bool:
        """Whether the log area was too small for all events."""
        return self._writer is not None and self._writer.truncated

    def begin(self, slot: TpmSlot, banks: tuple[int, ...]) -> None:
        """Start measuring into `slot` with these allocated banks (algorithm ids)."""
        self._slot = slot
        self.banks = tuple(bank for bank in banks if bank in HASHES)
        self._writer = EventLogWriter(self.banks, capacity_bytes=LOG_AREA_BYTES.value)

    def give_up(self, reason: str) -> None:
        """Measure nothing from now on, since the TPM does not work; what was logged is thrown away.

        Errors: `BootError` under a policy that does not boot with a failed TPM.
        """
        self._slot = None
        self._writer = None
        self.banks = ()
        self._context.tpm_state = TpmState.FAILED
        if self._context.policy.tpm_failure is TpmFailureRule.STOP:
            raise self._context.stop("firmware", "TPM", f"TPM: failed: {reason}")
        self._context.say("firmware", f"TPM: given up: {reason}")

    def digests(self, data: bytes) -> Digests:
        """Return the digest of `data` in every bank, charging one pass each; empty when not measuring."""
        self._charge(len(data))
        return {bank: hash_bytes(bank, data) for bank in self.banks}

    def image_digests(self, image: bytes) -> Digests:
        """Return the Authenticode digest of an EFI image in every bank."""
        self._charge(len(image))
        return {bank: authenticode_digest(image, bank_name(bank)) for bank in self.banks}

    def measure(
        self,
        pcr: int,
        kind: int,
        data: bytes,
        *,
        name: str,
        over: bytes | None = None,
        digests: Digests | None = None,
        locality: int = 0,
    ) -> None:
        """Extend `pcr` and log the event; the digests are those given, else of `over`, else of the event data.

        Errors: `MeasureError` when the TPM refuses.
        """
        if self._slot is None:
            return
        if digests is None:
            digests = self.digests(data if over is None else over)
        try:
            TpmClient(self._slot.transmit, locality=locality).pcr_extend(pcr, digests)
        except (TpmError, TpmSlotError, FormatError) as error:
            raise MeasureError(f"cannot extend PCR {pcr} with {name}: {error}") from error
        self.log(pcr, kind, data, digests, name=name)

    def measure_platform(
        self,
        pcr: int,
        kind: int,
        data: bytes,
        *,
        name: str,
        over: bytes | None = None,
        digests: Digests | None = None,
    ) -> None:
        """Measure as the firmware does: a TPM that refuses is given up, and the boot goes on."""
        try:
            self.measure(pcr, kind, data, name=name, over=over, digests=digests)
        except MeasureError as error:
            self.give_up(str(error))

    def log(self, pcr: int, kind: int, data: bytes, digests: Digests, *, name: str) -> None:
        """Append an event whose digests are in the TPM already."""
        if self._writer is None or self._slot is None:
            return
        self._writer.append(pcr, kind, digests, data)
        self._slot.describe_event(pcr, kind, data)
        digest = digests.get(_SHA256) or next(iter(digests.values()), b"")
        self._context.sim.trace.emit(BOOT_MEASURED, self._context.board.spec.name, pcr, kind, name, digest)

    def note_startup_locality(self, locality: int) -> None:
        """Log where PCR 0 began; nothing is extended."""
        if self._writer is not None:
            self._writer.startup_locality(locality)

    def event_log(self) -> bytes:
        """Return the log's bytes; empty when nothing was measured."""
        return b"" if self._writer is None else self._writer.to_bytes()

    def _charge(self, size_bytes: int) -> None:
        for bank in self.banks:
            charge_hash(self._context.meter, bank_name(bank), size_bytes)


def hash_sequence(slot: TpmSlot, meter: CostMeter, data: bytes) -> None:
    """Drive the hash sequence of locality 4 over `data`, and charge what the TPM takes for it."""
    slot.hash_start()
    meter.charge(slot.device.last_latency_ns, what="tpm")
    slot.hash_data(data)
    meter.charge(slot.device.last_latency_ns, what="tpm")
    slot.hash_end()
    meter.charge(slot.device.last_latency_ns, what="tpm")
