"""What the memory of a virtual machine is declared to be: its allocation, and what the guest does with it.

Models: shares, reservation, limit and salt; a guest that touches so much of its memory once and then works on a part of
it; how much of that is zeros, is common to all VMs of one image, and compresses.

Leaves out: what the guest's own memory management does, but that a balloon gets idle pages first.

Sources: vSphere API (SharesInfo.Level: 5, 10 and 20 shares a megabyte); the shapes of the workload are our own.
"""

from __future__ import annotations

import attrs

from sim.core.facts import fact
from sim.core.structure import FieldError, between, matches, quantity
from sim.core.units import MIB, PAGE_BYTES

__all__ = ["SHARES_TOTAL_MAX", "MemorySpec", "MemoryWorkload"]

_API = "vSphere API, SharesInfo.Level: memory"
SHARES_LOW = fact("mem.shares_low", 5, unit="1/MB", source=_API, kind="vendor")
SHARES_NORMAL = fact("mem.shares_normal", 10, unit="1/MB", source=_API, kind="vendor")
SHARES_HIGH = fact("mem.shares_high", 20, unit="1/MB", source=_API, kind="vendor")

SHARES_TOTAL_MAX = 1 << 30
"""The most memory shares of one VM; the arithmetic of targets rests on it."""

BYTES_MAX = 1 << 50
RATE_MAX = 10_000_000
_LEVELS = {"low": SHARES_LOW, "normal": SHARES_NORMAL, "high": SHARES_HIGH}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"


@attrs.frozen(kw_only=True)
class MemoryWorkload:
    """What a guest does with its memory; all rates in pages a second, all parts in percent.

    It touches `used` bytes once, `fill` pages a second, and from the start on `rate` random pages a second of the first
    `working_set` bytes, of which `write` percent are writes.  Of what it touches, `zero` percent are zeros; `common`
    percent hold what every VM of the same `image` and size holds at that place, each content on `copies` pages in a row.
    `compressible` percent fit into half a page, half of those into a quarter.
    """

    used_bytes: int = attrs.field(default=0, metadata=quantity("bytes"), validator=between(0, BYTES_MAX))
    working_set_bytes: int = attrs.field(
        default=0, metadata=quantity("bytes"), validator=between(0, BYTES_MAX)
    )
    fill: int = attrs.field(default=100_000, validator=between(1, RATE_MAX))
    rate: int = attrs.field(default=2_000, validator=between(0, RATE_MAX))
    write_percent: int = attrs.field(default=20, validator=between(0, 100))
    zero_percent: int = attrs.field(default=10, validator=between(0, 100))
    common_percent: int = attrs.field(default=10, validator=between(0, 100))
    compressible_percent: int = attrs.field(default=50, validator=between(0, 100))
    image: str = attrs.field(default="guest", validator=matches(_NAME, "a name"))
    copies: int = attrs.field(default=1, validator=between(1, 1 << 20))
    balloon_driver: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))

    def __attrs_post_init__(self) -> None:
        if self.zero_percent + self.common_percent > 100:
            raise FieldError("common_percent", self.common_percent, "zero and common together at most 100")


@attrs.frozen(kw_only=True)
class MemorySpec:
    """The memory of a VM that takes part in the division of the host's memory.

    `shares` is low, normal, high (5, 10, 20 a megabyte) or a number for the whole VM; `salt` is sched.mem.pshare.salt.
    """

    shares: int | str = "normal"
    reservation_bytes: int = attrs.field(
        default=0, metadata=quantity("bytes"), validator=between(0, BYTES_MAX)
    )
    limit_bytes: int | None = attrs.field(
        default=None,
        metadata=quantity("bytes"),
        validator=attrs.validators.optional(between(PAGE_BYTES, BYTES_MAX)),
    )
    salt: str = attrs.field(default="", validator=matches(rf"|{_NAME}", "a name, or nothing"))
    workload: MemoryWorkload = attrs.field(factory=MemoryWorkload)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.shares, str):
            if self.shares not in _LEVELS:
                raise FieldError("shares", self.shares, "low, normal, high or a number")
        elif isinstance(self.shares, bool) or not 1 <= self.shares <= SHARES_TOTAL_MAX:
            raise FieldError("shares", self.shares, f"an integer from 1 to {SHARES_TOTAL_MAX}")
        if self.limit_bytes is not None and self.limit_bytes < self.reservation_bytes:
            raise FieldError("limit_bytes", self.limit_bytes, "at least the reservation")

    def shares_of(self, memory_bytes: int) -> int:
        """Return the shares of a VM with so much memory, at least 1; a level counts by started megabytes."""
        if isinstance(self.shares, int):
            return self.shares
        return min(SHARES_TOTAL_MAX, _LEVELS[self.shares].value * -(-memory_bytes // MIB))
