"""The knobs of memory management, named after ESXi's public advanced options where one exists.

Models: values and ranges of one release line (6.0 to 8.0), and the reclamation states of 5.x as another.

Leaves out: Mem.ShareRateMax, per-VM balloon limits (sched.mem.maxmemctl), host cache, NUMA, and the progressive form of
the idle tax, whose formula is not public.

Sources: vSphere Resource Management, advanced memory attributes; Broadcom KB 323624 (salting); Waldspurger, OSDI 2002.
What is not public is our choice and marked assumed.
"""

from __future__ import annotations

from attrs import field, frozen, validators

from sim.core.facts import fact
from sim.core.structure import between, in_choices, quantity
from sim.core.units import SECOND

__all__ = ["RELEASES", "MemOptions"]

_MANUAL = "vSphere Resource Management, advanced memory attributes"
_OSDI = "Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002"
_OURS = "our choice: not public"

IDLE_TAX_PERCENT = fact("mem.Mem.IdleTax", 75, unit="percent", source=_MANUAL, kind="vendor")
BALANCE_NS = fact("mem.Mem.BalancePeriod", 15 * SECOND, unit="ns", source=_MANUAL, kind="vendor")
SAMPLE_NS = fact("mem.Mem.SamplePeriod", 60 * SECOND, unit="ns", source=_MANUAL, kind="vendor")
CTL_MAX_PERCENT = fact("mem.Mem.CtlMaxPercent", 65, unit="percent", source=_MANUAL, kind="vendor")
SHARE_SCAN_NS = fact("mem.Mem.ShareScanTime", 3600 * SECOND, unit="ns", source=_MANUAL, kind="vendor")
SHARE_SCAN_RATE = fact(
    "mem.Mem.ShareScanGHz", 4, unit="MB/s per GHz of the host", source=_MANUAL, kind="vendor"
)
SALTING = fact(
    "mem.Mem.ShareForceSalting",
    2,
    unit="1",
    source="Broadcom KB 323624: default 2 since December 2014",
    kind="vendor",
)
LARGE_PAGES = fact("mem.Mem.AllocGuestLargePage", 1, unit="1", source=_MANUAL, kind="vendor")
ZIP_MAX_PERCENT = fact("mem.Mem.MemZipMaxPct", 10, unit="percent", source=_MANUAL, kind="vendor")
SAMPLE_PAGES = fact("mem.sample_pages", 100, unit="page", source=_OSDI, kind="vendor")
POLL_NS = fact("mem.balloon_poll_ns", SECOND, unit="ns", source=_OSDI, kind="vendor")
BALLOON_RATE = fact("mem.balloon_pages_per_poll", 8192, unit="page", source=_OURS, kind="assumed")
SWAP_RATE = fact("mem.swap_pages_per_poll", 8192, unit="page", source=_OURS, kind="assumed")
HYSTERESIS = fact(
    "mem.hysteresis_percent",
    5,
    unit="percent of minFree",
    source="there is hysteresis (OSDI 2002, section 6.3), its widths are not public",
    kind="assumed",
)
SLOW_SHIFT = fact("mem.slow_average_shift", 3, unit="1", source=_OURS, kind="assumed")
FAST_SHIFT = fact("mem.fast_average_shift", 1, unit="1", source=_OURS, kind="assumed")

RELEASES = ("5.x", "6.0")
"""The two sets of reclamation states: before and since the clear state."""


@frozen(kw_only=True)
class MemOptions:
    """One setting of all knobs.

    `release`: the set of reclamation states.  `idle_tax_percent`: how much of an idle page's shares is taken.
    `force_salting`: 0 all share, 1 as 0 where no salt is set, 2 a VM shares with itself unless salts are set equal.
    `share_scan_ns`: within which time all pages are looked at (0: no scan), at most `share_scan_mb_ghz` MB/s per GHz.
    """

    release: str = field(default="6.0", validator=in_choices(*RELEASES))
    idle_tax_percent: int = field(default=IDLE_TAX_PERCENT.value, validator=between(0, 99))
    balance_ns: int = field(
        default=BALANCE_NS.value, metadata=quantity("ns"), validator=between(SECOND, 3600 * SECOND)
    )
    sample_ns: int = field(
        default=SAMPLE_NS.value, metadata=quantity("ns"), validator=between(SECOND, 3600 * SECOND)
    )
    poll_ns: int = field(
        default=POLL_NS.value, metadata=quantity("ns"), validator=between(SECOND // 100, 60 * SECOND)
    )
    sample_pages: int = field(default=SAMPLE_PAGES.value, validator=between(1, 10_000))
    ctl_max_percent: int = field(default=CTL_MAX_PERCENT.value, validator=between(0, 75))
    balloon_pages: int = field(default=BALLOON_RATE.value, validator=between(1, 1 << 30))
    swap_pages: int = field(default=SWAP_RATE.value, validator=between(1, 1 << 30))
    zip_max_percent: int = field(default=ZIP_MAX_PERCENT.value, validator=between(0, 100))
    hysteresis_percent: int = field(default=HYSTERESIS.value, validator=between(0, 100))
    force_salting: int = field(default=SALTING.value, validator=between(0, 2))
    share_scan_ns: int = field(
        default=SHARE_SCAN_NS.value, metadata=quantity("ns"), validator=between(0, 86_400 * SECOND)
    )
    share_scan_mb_ghz: int = field(default=SHARE_SCAN_RATE.value, validator=between(1, 1_000_000))
    large_pages: bool = field(default=bool(LARGE_PAGES.value), validator=validators.instance_of(bool))
