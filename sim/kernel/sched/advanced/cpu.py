"""ESXi's processor options over its releases: `Cpu.*`.

Models: nothing; a table.  Leaves out other families of options.

Source: `esxcli system settings advanced list` of 12 builds, 6.0 U3 to 9.0.1 (public dumps); the meanings are in our words.
"""

from __future__ import annotations

from sim.kernel.sched.advanced.option import AdvancedOption, Setting

__all__ = ["OPTIONS"]

OPTIONS = (
    AdvancedOption(
        "Cpu.ActionLoadThreshold",
        "%",
        "load below which worlds that interact are not pulled together",
        (
            Setting("6.0", 10, 0, 100),
            Setting("7.0", None),
        ),
    ),
    AdvancedOption(
        "Cpu.AllowWideVsmp",
        "switch",
        "admit a VM with more vCPUs than the host has logical processors",
        (Setting("6.0", 0, 0, 1),),
    ),
    AdvancedOption(
        "Cpu.BoundLagQuanta",
        "quanta",
        "how far behind or ahead a world may be when it begins to compete",
        (Setting("6.0", 8, 1, 100),),
    ),
    AdvancedOption(
        "Cpu.CommRateThreshold",
        "1/s",
        "interactions above which two worlds count as related",
        (Setting("6.0", 500, 0, 50_000),),
    ),
    AdvancedOption(
        "Cpu.CoschedCostartThreshold",
        "us",
        "skew down to which a co-stopped vCPU must come before it starts again",
        (Setting("6.0", 2_000, 0, 100_000),),
    ),
    AdvancedOption(
        "Cpu.CoschedCostopThreshold",
        "us",
        "skew at which a vCPU is co-stopped; 0 switches co-scheduling off",
        (Setting("6.0", 3_000, 0, 100_000),),
    ),
    AdvancedOption(
        "Cpu.CoschedCrossCall", "switch", "co-schedule vCPUs that call across", (Setting("6.0", 1, 0, 1),)
    ),
    AdvancedOption(
        "Cpu.CoschedExclusiveAffinity",
        "switch",
        "co-schedule VMs with exclusive affinity too",
        (
            Setting("6.5", 0, 0, 1),
            Setting("7.0", None),
        ),
    ),
    AdvancedOption(
        "Cpu.CoschedHandoffLLC",
        "switch",
        "hand a pCPU to a lagging sibling within the last-level cache only",
        (Setting("6.0", 1, 0, 1),),
    ),
    AdvancedOption(
        "Cpu.CoschedHandoffSkip",
        "us",
        "ready time below which the hand-off to a lagging sibling is left out",
        (Setting("6.0", 10, 0, 1_000),),
    ),
    AdvancedOption(
        "Cpu.CoschedPollUsec",
        "us",
        "time between two looks at the skew, in polling mode",
        (Setting("6.0", 1_000, 1_000, 5_000),),
    ),
    AdvancedOption(
        "Cpu.CreditAgePeriod",
        "ms",
        "a period by which credit ages; what it does is not public",
        (Setting("6.0", 3_000, 1_000, 10_000),),
    ),
    AdvancedOption(
        "Cpu.DefaultImpact",
        "%",
        "speed that a world is taken to lose away from its last-level cache",
        (
            Setting("6.0", 30, 0, 100),
            Setting("6.7U3", None),
        ),
    ),
    AdvancedOption(
        "Cpu.FairnessRebalancePcpus",
        "pCPUs",
        "pCPUs looked at when queues are balanced for fairness",
        (Setting("6.0", 4, 0, 32),),
    ),
    AdvancedOption(
        "Cpu.HTRebalancePeriod",
        "ms",
        "average time between chances to move a world to the other thread of a core; 0: never",
        (Setting("6.0", 5, 0, 5_000),),
    ),
    AdvancedOption(
        "Cpu.HTStolenAgeThreshold",
        "s",
        "time lost to sibling threads that a world keeps without ageing",
        (Setting("6.0", 8, 0, 500),),
    ),
    AdvancedOption(
        "Cpu.HTWholeCoreThreshold",
        "ms",
        "lag at which a world may have a whole core to itself; 0: never",
        (
            Setting("6.0", 200, 0, 5_000),
            Setting("6.5", 800, 0, 5_000),
        ),
    ),
    AdvancedOption(
        "Cpu.HostRebalancePeriod",
        "ms",
        "average time between chances to move a world across the host; 0: never",
        (
            Setting("6.0", 100, 0, 5_000),
            Setting("7.0U2", 2_000, 0, 5_000),
        ),
    ),
    AdvancedOption(
        "Cpu.IntraCoreMigrate",
        "switch",
        "allow moves between the threads of a core",
        (
            Setting("6.0", 0, 0, 1),
            Setting("6.5", None),
        ),
    ),
    AdvancedOption(
        "Cpu.L2RebalancePeriod",
        "ms",
        "average time between chances to move a world within an L2 cache; 0: never",
        (Setting("6.0", 10, 0, 5_000),),
    ),
    AdvancedOption(
        "Cpu.L3RebalancePeriod",
        "ms",
        "average time between chances to move a world within an L3 cache; 0: never",
        (Setting("6.0", 20, 0, 5_000),),
    ),
    AdvancedOption(
        "Cpu.LimitEnforcementThreshold",
        "ms",
        "slack within which a limit is enforced",
        (Setting("6.0", 200, 0, 10_000),),
    ),
    AdvancedOption(
        "Cpu.MaxSampleRateLg",
        "log2 1/s",
        "most samples of system services, as a power of two",
        (Setting("6.0", 7, 1, 15),),
    ),
    AdvancedOption(
        "Cpu.MoveCurrentRunnerPcpus",
        "pCPUs",
        "pCPUs looked at when a running world is moved",
        (
            Setting("6.0", 4, 0, 32),
            Setting("7.0", None),
        ),
    ),
    AdvancedOption(
        "Cpu.NonTimerWakeupRate",
        "1/s",
        "rate of wake-ups above which power states are left alone",
        (Setting("6.0", 500, 0, 5_000),),
    ),
    AdvancedOption(
        "Cpu.PackageRebalancePeriod",
        "ms",
        "average time between chances to move a world within a package; 0: never",
        (
            Setting("6.0", 20, 0, 5_000),
            Setting("7.0U2", 2_000, 0, 5_000),
        ),
    ),
    AdvancedOption(
        "Cpu.PcpuMigrateIdlePcpus",
        "pCPUs",
        "queues looked at by a pCPU that becomes idle (pull)",
        (Setting("6.0", 4, 0, 32),),
    ),
    AdvancedOption(
        "Cpu.Quantum",
        "ms",
        "the longest turn",
        (
            Setting("6.0", 50, 1, 1_000),
            Setting("6.5", 200, 1, 1_000),
        ),
    ),
    AdvancedOption(
        "Cpu.SchedPerfOptimizations",
        "switch",
        "an internal switch; what it does is not public",
        (
            Setting("6.0", 0, 0, 1),
            Setting("6.5", None),
        ),
    ),
    AdvancedOption(
        "Cpu.UseMwait",
        "choice",
        "how idle pCPUs wait: 0 HLT, 1 MWAIT, 2 by type of processor",
        (Setting("6.0", 2, 0, 3),),
    ),
    AdvancedOption(
        "Cpu.VMAdmitCheckPerVcpuMin",
        "switch",
        "refuse a reservation above one physical CPU for each vCPU",
        (Setting("6.0", 1, 0, 1),),
    ),
    AdvancedOption(
        "Cpu.WakeupMigrateIdlePcpus",
        "pCPUs",
        "pCPUs looked at when a world wakes (push)",
        (Setting("6.0", 4, 0, 32),),
    ),
)
"""In the order of their names."""
