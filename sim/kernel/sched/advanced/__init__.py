"""ESXi's advanced options of scheduling, all 82 of them, with defaults and ranges of 12 releases.

Models: the table, and which of it acts: those in `USED` do, the others are stored, shown and checked by range only.
Leaves out options of memory, network and the rest of the kernel.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from sim.core.facts import fact
from sim.kernel.sched.advanced import cpu, disk, numa
from sim.kernel.sched.advanced.option import RELEASES, AdvancedOption, Setting

__all__ = [
    "OPTIONS",
    "RELEASES",
    "USED",
    "WHERE",
    "AdvancedOption",
    "UnknownOption",
    "default_of",
    "setting_of",
]

OPTIONS: Mapping[str, AdvancedOption] = {
    option.name: option for option in (*cpu.OPTIONS, *numa.OPTIONS, *disk.OPTIONS)
}
"""Every option by name."""

USED = frozenset(
    (
        "Cpu.AllowWideVsmp",
        "Cpu.BoundLagQuanta",
        "Cpu.CoschedCostartThreshold",
        "Cpu.CoschedCostopThreshold",
        "Cpu.CoschedHandoffSkip",
        "Cpu.CoschedPollUsec",
        "Cpu.FairnessRebalancePcpus",
        "Cpu.HTRebalancePeriod",
        "Cpu.HostRebalancePeriod",
        "Cpu.L3RebalancePeriod",
        "Cpu.LimitEnforcementThreshold",
        "Cpu.PackageRebalancePeriod",
        "Cpu.PcpuMigrateIdlePcpus",
        "Cpu.Quantum",
        "Cpu.VMAdmitCheckPerVcpuMin",
        "Cpu.WakeupMigrateIdlePcpus",
        "Numa.CostopSkewAdjust",
        "Numa.MigImbalanceThreshold",
        "Numa.MigThrashThreshold",
        "Numa.MigThreshold",
        "Numa.PageMigEnable",
        "Numa.PageMigRateMax",
        "Numa.PreferHT",
        "Numa.RebalanceCoresNode",
        "Numa.RebalanceCoresTotal",
        "Numa.RebalanceEnable",
        "Numa.RebalancePeriod",
        "Numa.SwapInterval",
        "Numa.SwapLoadEnable",
    )
)
"""The options that the model acts on."""

WHERE: Mapping[str, str] = {
    "Cpu.FairnessRebalancePcpus": "several queues",
    "Cpu.HTRebalancePeriod": "pcpu queues",
    "Cpu.HostRebalancePeriod": "no home nodes",
    "Cpu.L3RebalancePeriod": "2 threads or pcpu queues",
    "Cpu.PackageRebalancePeriod": "several caches",
    "Cpu.PcpuMigrateIdlePcpus": "2 threads or several queues",
}
"""On what hosts alone an option acts: with two threads a core; with several last-level caches in a package, and so several
queues; with a queue for each pCPU (`sched.queues`); with several packages and worlds that have no home node."""

_DUMPS = "esxcli system settings advanced list, ESXi 6.0 U3 to 9.0.1"

for _option in OPTIONS.values():
    _last = next(setting for setting in reversed(_option.settings) if setting.default is not None)
    assert _last.default is not None
    fact(f"option.{_option.name}", _last.default, unit=_option.unit, source=_DUMPS, kind="vendor")


class UnknownOption(ValueError):  # noqa: N818 - the name says the condition
    """There is no such option in this release; the message names the nearest."""


def setting_of(name: str, release: str) -> Setting:
    """Return an option's default and range in a release; errors: `UnknownOption`."""
    option = OPTIONS.get(name)
    setting = None if option is None else option.at(release)
    if setting is None:
        near = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if option is None and near else ""
        raise UnknownOption(f"ESXi {release} has no option {name[:80]!r}{hint}")
    return setting


def default_of(name: str, release: str) -> int:
    """Return an option's default in a release; errors: `UnknownOption`."""
    setting = setting_of(name, release)
    assert setting.default is not None
    return setting.default
