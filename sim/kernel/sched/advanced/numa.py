"""ESXi's NUMA options over its releases: `Numa.*`.

Models: nothing; a table.  Leaves out other families of options.

Source: `esxcli system settings advanced list` of 12 builds, 6.0 U3 to 9.0.1 (public dumps); the meanings are in our words.
"""

from __future__ import annotations

from sim.kernel.sched.advanced.option import AdvancedOption, Setting

__all__ = ["OPTIONS"]

OPTIONS = (
    AdvancedOption(
        "Numa.AutoMemAffinity",
        "switch",
        "keep a client's memory on its home node",
        (
            Setting("6.0", 1, 0, 1),
            Setting("6.5", None),
        ),
    ),
    AdvancedOption(
        "Numa.CoreCapRatioPct",
        "%",
        "load of cores above which moves for locality are refused",
        (Setting("6.0", 90, 0, 100),),
    ),
    AdvancedOption(
        "Numa.CostopSkewAdjust",
        "choice",
        "1: spread the vCPUs of a VM in turn over its clients",
        (Setting("6.0", 1, 0, 2),),
    ),
    AdvancedOption(
        "Numa.DeviceAffinity", "switch", "prefer the node of a client's devices", (Setting("9.0", 0, 0, 1),)
    ),
    AdvancedOption(
        "Numa.FollowCoresPerSocket",
        "switch",
        "size clients by the VM's cores per socket",
        (Setting("6.5", 0, 0, 1),),
    ),
    AdvancedOption(
        "Numa.LTermFairnessInterval",
        "periods",
        "length of long-term fairness; 0: off",
        (Setting("6.0", 5, 0, 1_000),),
    ),
    AdvancedOption(
        "Numa.LTermMigImbalThreshold",
        "%",
        "owed share that makes a move for long-term fairness",
        (Setting("6.0", 10, 0, 100),),
    ),
    AdvancedOption(
        "Numa.LargeInterleave",
        "switch",
        "spread memory in large pages over the nodes where it is interleaved",
        (Setting("6.0", 1, 0, 1),),
    ),
    AdvancedOption(
        "Numa.LatencyProbePeriod",
        "ms",
        "time between two probes of the latency between nodes",
        (Setting("6.7", 500, 10, 100_000),),
    ),
    AdvancedOption(
        "Numa.LocalityWeightActionAffinity",
        "weight",
        "gain by one unit of affinity between clients that act on each other",
        (Setting("6.0", 130, 0, 200),),
    ),
    AdvancedOption(
        "Numa.LocalityWeightMem",
        "weight",
        "gain by one percent of local memory",
        (Setting("6.0", 1, 0, 100),),
    ),
    AdvancedOption(
        "Numa.MaxProximityDomains",
        "domains",
        "most proximity domains of the firmware that are used",
        (
            Setting("6.0", 16, 0, 16),
            Setting("6.5", None),
        ),
    ),
    AdvancedOption(
        "Numa.MigImbalanceThreshold",
        "%",
        "least imbalance between nodes before anything moves",
        (Setting("6.0", 10, 1, 200),),
    ),
    AdvancedOption(
        "Numa.MigPreventLTermThresh",
        "%",
        "owed share that forbids moves; 0: off",
        (Setting("6.0", 0, 0, 100),),
    ),
    AdvancedOption(
        "Numa.MigThrashThreshold",
        "%",
        "imbalance after a move, at most this part of that before",
        (Setting("6.0", 50, 0, 100),),
    ),
    AdvancedOption("Numa.MigThreshold", "%", "least gain of one move or swap", (Setting("6.0", 2, 0, 100),)),
    AdvancedOption(
        "Numa.MonMigEnable", "switch", "allow the monitor to help moving pages", (Setting("6.0", 1, 0, 1),)
    ),
    AdvancedOption(
        "Numa.PPDStats",
        "choice",
        "keep statistics by proximity domain",
        (
            Setting("6.0", 1, 0, 2),
            Setting("6.5", None),
        ),
    ),
    AdvancedOption(
        "Numa.PageMigEnable", "switch", "let a client's memory follow it", (Setting("6.0", 1, 0, 1),)
    ),
    AdvancedOption(
        "Numa.PageMigLinearRun", "pages", "candidates of one linear scan", (Setting("6.0", 95, 0, 10_000),)
    ),
    AdvancedOption(
        "Numa.PageMigRandomRun", "pages", "candidates of one random scan", (Setting("6.0", 5, 0, 10_000),)
    ),
    AdvancedOption(
        "Numa.PageMigRateMax",
        "pages/s",
        "highest rate at which memory follows",
        (
            Setting("6.0", 16_000, 0, 250_000),
            Setting("6.5", 8_000, 0, 250_000),
            Setting("9.0", 32_000, 0, 8_000_000),
        ),
    ),
    AdvancedOption(
        "Numa.PreferHT",
        "switch",
        "count threads instead of cores when clients are sized",
        (Setting("6.0", 0, 0, 1),),
    ),
    AdvancedOption(
        "Numa.RebalanceCoresNode",
        "cores",
        "least cores of a node for the balancer to work",
        (Setting("6.0", 2, 1, 8),),
    ),
    AdvancedOption(
        "Numa.RebalanceCoresTotal",
        "cores",
        "least cores of the host for the balancer to work",
        (Setting("6.0", 4, 1, 32),),
    ),
    AdvancedOption(
        "Numa.RebalanceEnable", "switch", "balance clients between nodes", (Setting("6.0", 1, 0, 1),)
    ),
    AdvancedOption(
        "Numa.RebalancePeriod",
        "ms",
        "time between two reviews of the nodes; the other periods count in these",
        (
            Setting("6.0", 2_000, 100, 60_000),
            Setting("9.0", 2_000, 1, 60_000),
        ),
    ),
    AdvancedOption(
        "Numa.SwapConsiderPeriod",
        "periods",
        "time before one client is considered again",
        (Setting("6.0", 15, 0, 10_000),),
    ),
    AdvancedOption(
        "Numa.SwapInterval",
        "periods",
        "time between two attempts to swap clients",
        (Setting("6.0", 3, 1, 10_000),),
    ),
    AdvancedOption("Numa.SwapLoadEnable", "switch", "swap clients for balance", (Setting("6.0", 1, 0, 1),)),
    AdvancedOption(
        "Numa.SwapLocalityEnable", "switch", "swap clients for locality", (Setting("6.0", 1, 0, 1),)
    ),
    AdvancedOption(
        "Numa.SwapMigrateOnly",
        "periods",
        "time between two attempts with moves only",
        (Setting("6.0", 2, 0, 100),),
    ),
    AdvancedOption(
        "Numa.UsePPDLocalityInfo",
        "switch",
        "use the firmware's distances between domains",
        (
            Setting("6.0", 1, 0, 1),
            Setting("6.5", None),
        ),
    ),
)
"""In the order of their names."""
