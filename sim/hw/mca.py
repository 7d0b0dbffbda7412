"""The machine-check architecture: what the processor reports about a memory error, in its registers' own layout.

Models: IA32_MCi_STATUS, _ADDR and _MISC and IA32_MCG_STATUS for three kinds of memory error: corrected; uncorrected and
consumed by a load (action required); uncorrected and found by the patrol scrubber (action optional).  A bank keeps the
graver of two errors and sets its overflow bit.

Leaves out: other sources of machine checks, threshold-based status, one set of banks for each processor (a host has one
here), corrected-error interrupts as such: who wants to know polls or is called by the board.

Sources: Intel Software Developer's Manual volume 3B, chapter "Machine-Check Architecture": figure of IA32_MCi_STATUS
(bits 63 to 55, 52:38), software error recovery (S and AR), compound codes 000F 0000 1MMM CCCC of memory controllers and
0x134 for a data load; recalled, not re-read: RIPV and EIPV of a consumed error.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, field, frozen, validators

from sim.errors import SimBug, VmksimError

STATUS_VALID = 1 << 63
STATUS_OVERFLOW = 1 << 62
STATUS_UNCORRECTED = 1 << 61
STATUS_ENABLED = 1 << 60
STATUS_MISC_VALID = 1 << 59
STATUS_ADDRESS_VALID = 1 << 58
STATUS_CONTEXT_CORRUPT = 1 << 57
STATUS_SIGNALED = 1 << 56
STATUS_ACTION_REQUIRED = 1 << 55
STATUS_COUNT_SHIFT = 38
STATUS_COUNT_MAX = (1 << 15) - 1

MCG_RESTART_VALID = 1 << 0
MCG_ERROR_IP_VALID = 1 << 1
MCG_IN_PROGRESS = 1 << 2

CODE_DATA_LOAD = 0x0134
CODE_MEMORY_READ = 0x0090
CODE_MEMORY_SCRUB = 0x00C0

MSR_MCG_CAP = 0x179
MSR_MCG_STATUS = 0x17A
MSR_BANK_FIRST = 0x400
_CAP_CMCI = 1 << 10
_CAP_RECOVERY = 1 << 24

BANKS = 12
BANK_DATA_CACHE = 1
BANK_MEMORY_CONTROLLER = 7

LINE_BYTES = 64
_MISC_LINE_PHYSICAL = 2 << 6 | 6
"""Address mode 2 (physical), valid down to bit 6."""

CHANNELS = 4
_CHANNEL_SHIFT = 8

RECORDS_MAX = 10_000
"""The most records that the log keeps; later ones are only counted."""


@frozen(kw_only=True)
class MceRecord:
    """One logged machine-check error: the three registers of its bank, and IA32_MCG_STATUS with it."""

    bank: int = field(validator=[validators.ge(0), validators.lt(BANKS)])
    status: int
    address: int
    misc: int = _MISC_LINE_PHYSICAL
    mcg_status: int = 0

    @property
    def uncorrected(self) -> bool:
        """Whether the data is lost (bit UC)."""
        return self.status & STATUS_UNCORRECTED != 0

    @property
    def action_required(self) -> bool:
        """Whether a processor has consumed the error (bit AR)."""
        return self.status & STATUS_ACTION_REQUIRED != 0

    @property
    def code(self) -> int:
        """The MCA error code, bits 15:0."""
        return self.status & 0xFFFF

    def __str__(self) -> str:
        flags = (
            ("VAL", STATUS_VALID),
            ("OVFLW", STATUS_OVERFLOW),
            ("UC", STATUS_UNCORRECTED),
            ("EN", STATUS_ENABLED),
            ("PCC", STATUS_CONTEXT_CORRUPT),
            ("S", STATUS_SIGNALED),
            ("AR", STATUS_ACTION_REQUIRED),
        )
        shown = ", ".join(f"{name}={int(self.status & bit != 0)}" for name, bit in flags)
        return (
            f"bank{self.bank}: status={self.status:#018x}: ({shown}), "
            f"Addr:{self.address:#x} (valid), Misc:{self.misc:#x} (valid)"
        )


class MachineCheck(VmksimError):  # noqa: N818 - the processor's name of this exception
    """#MC: an access has met data that the memory could not correct; `record` is what the bank holds."""

    def __init__(self, record: MceRecord) -> None:
        super().__init__(f"machine check: {record}")
        self.record = record

    def __reduce__(self) -> tuple[type[MachineCheck], tuple[MceRecord]]:
        return (MachineCheck, (self.record,))


def corrected(pa: int, *, scrub: bool) -> MceRecord:
    """Return what is logged for one wrong bit, corrected by the memory controller on a read or by the patrol scrubber."""
    common = STATUS_VALID | STATUS_ENABLED | STATUS_MISC_VALID | STATUS_ADDRESS_VALID
    code = (CODE_MEMORY_SCRUB if scrub else CODE_MEMORY_READ) | channel_of(pa)
    status = common | 1 << STATUS_COUNT_SHIFT | code
    return MceRecord(bank=BANK_MEMORY_CONTROLLER, status=status, address=_line(pa))


def consumed(pa: int) -> MceRecord:
    """Return what is logged for a load of data that was lost: uncorrected, recoverable, action required (SRAR)."""
    common = STATUS_VALID | STATUS_ENABLED | STATUS_MISC_VALID | STATUS_ADDRESS_VALID
    recovery = STATUS_UNCORRECTED | STATUS_SIGNALED | STATUS_ACTION_REQUIRED
    return MceRecord(
        bank=BANK_DATA_CACHE,
        status=common | recovery | CODE_DATA_LOAD,
        address=_line(pa),
        mcg_status=MCG_IN_PROGRESS | MCG_ERROR_IP_VALID | MCG_RESTART_VALID,
    )


def found_by_scrub(pa: int) -> MceRecord:
    """Return what is logged for lost data that nobody has used yet: uncorrected, action optional (SRAO)."""
    common = STATUS_VALID | STATUS_ENABLED | STATUS_MISC_VALID | STATUS_ADDRESS_VALID
    status = common | STATUS_UNCORRECTED | STATUS_SIGNALED | CODE_MEMORY_SCRUB | channel_of(pa)
    return MceRecord(
        bank=BANK_MEMORY_CONTROLLER,
        status=status,
        address=_line(pa),
        mcg_status=MCG_IN_PROGRESS | MCG_RESTART_VALID,
    )


def channel_of(pa: int) -> int:
    """Return the memory channel of an address: channels take turns every 256 bytes (an assumption)."""
    return pa >> _CHANNEL_SHIFT & (CHANNELS - 1)


def _line(pa: int) -> int:
    return pa & -LINE_BYTES


class McaBanks:
    """The machine-check registers of a host, and a log of all that passed through them.

    `on_corrected(record)` is the interrupt for corrected errors (CMCI); it must be a bound method.
    """

    def __init__(self) -> None:
        self.on_corrected: Callable[[MceRecord], object] | None = None
        self.records: list[MceRecord] = []
        self.logged = 0
        self._banks: dict[int, MceRecord] = {}
        self._mcg_status = 0

    def log(self, record: MceRecord) -> MceRecord:
        """Enter an error and return it as its bank shows it: OVER is set where an earlier one was not read yet.

        A corrected error adds to the count of one that is there; it never displaces an uncorrected one.
        """
        self.logged += 1
        self._mcg_status |= record.mcg_status
        earlier = self._banks.get(record.bank)
        entered = record
        if earlier is not None:
            entered = _merged(earlier, record)
        self._banks[record.bank] = entered
        if len(self.records) < RECORDS_MAX:
            self.records.append(record)
        left_out = entered.uncorrected and not record.uncorrected
        told = record if left_out else entered
        if not record.uncorrected and self.on_corrected is not None:
            self.on_corrected(told)
        return told

    def read_msr(self, number: int) -> int:
        """Return a machine-check register as RDMSR does; `SimBug` for one that is not there."""
        if number == MSR_MCG_CAP:
            return BANKS | _CAP_CMCI | _CAP_RECOVERY
        if number == MSR_MCG_STATUS:
            return self._mcg_status
        bank, register = divmod(number - MSR_BANK_FIRST, 4)
        if not 0 <= bank < BANKS:
            raise SimBug(f"there is no machine-check register {number:#x}")
        if register == 0:
            return (1 << 64) - 1
        held = self._banks.get(bank)
        return 0 if held is None else (held.status, held.address, held.misc)[register - 1]

    def clear(self, bank: int) -> None:
        """Write 0 to IA32_MCi_STATUS, as software does after it has read an error."""
        self._banks.pop(bank, None)

    def end_handling(self) -> None:
        """Clear IA32_MCG_STATUS.MCIP and the rest, as the handler's last act."""
        self._mcg_status = 0

    def power_cycle(self) -> None:
        """Forget the registers; the log is the simulator's and stays."""
        self._banks.clear()
        self._mcg_status = 0


def _merged(earlier: MceRecord, later: MceRecord) -> MceRecord:
    """Return what a bank holds when a second error comes before the first was read."""
    if earlier.uncorrected and not later.uncorrected:
        return evolve(earlier, status=earlier.status | STATUS_OVERFLOW)
    if later.uncorrected:
        return evolve(later, status=later.status | STATUS_OVERFLOW)
    count = earlier.status >> STATUS_COUNT_SHIFT & STATUS_COUNT_MAX
    status = later.status & ~(STATUS_COUNT_MAX << STATUS_COUNT_SHIFT)
    status |= min(count + 1, STATUS_COUNT_MAX) << STATUS_COUNT_SHIFT
    return evolve(later, status=status | STATUS_OVERFLOW)
