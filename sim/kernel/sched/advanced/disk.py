"""ESXi's disk options over its releases: `Disk.*`.

Models: nothing; a table.  Leaves out other families of options.

Source: `esxcli system settings advanced list` of 12 builds, 6.0 U3 to 9.0.1 (public dumps); the meanings are in our words.
"""

from __future__ import annotations

from sim.kernel.sched.advanced.option import AdvancedOption, Setting

__all__ = ["OPTIONS"]

OPTIONS = (
    AdvancedOption(
        "Disk.BandwidthCap",
        "KB/s",
        "most bandwidth of one world on a disk",
        (Setting("6.0", 4_294_967_294, 10, 4_294_967_294),),
    ),
    AdvancedOption(
        "Disk.DiskMaxIOSize",
        "KB",
        "largest request before it is split",
        (Setting("6.0", 32_767, 32, 32_767),),
    ),
    AdvancedOption(
        "Disk.IdleCredit", "requests", "credit that an idle world may save up", (Setting("6.0", 32, 1, 512),)
    ),
    AdvancedOption(
        "Disk.QFullSampleSize",
        "requests",
        "queue-full answers in a sample before the queue depth is cut; 0: off",
        (Setting("6.0", 0, 0, 64),),
    ),
    AdvancedOption(
        "Disk.QFullThreshold",
        "requests",
        "good answers after which the queue depth grows again",
        (Setting("6.0", 8, 1, 16),),
    ),
    AdvancedOption(
        "Disk.SchedCostUnit",
        "byte",
        "size of request that counts as one",
        (Setting("6.0", 32_768, 4_096, 262_144),),
    ),
    AdvancedOption(
        "Disk.SchedQCleanupInterval",
        "s",
        "time after which an unused queue is removed",
        (Setting("6.5", 300, 0, 31_536_000),),
    ),
    AdvancedOption(
        "Disk.SchedQControlSeqReqs",
        "requests",
        "requests of one world in a row that raise its queue to the most",
        (Setting("6.0", 128, 0, 2_048),),
    ),
    AdvancedOption(
        "Disk.SchedQControlVMSwitches",
        "switches",
        "changes between VMs that lower the queue again",
        (Setting("6.0", 6, 0, 2_048),),
    ),
    AdvancedOption(
        "Disk.SchedQPriorityPercentage",
        "%",
        "part of priority commands taken from the priority queue",
        (Setting("6.0", 80, 10, 100),),
    ),
    AdvancedOption(
        "Disk.SchedQuantum", "requests", "requests of one world in a row", (Setting("6.0", 8, 1, 64),)
    ),
    AdvancedOption(
        "Disk.SchedReservationBurst",
        "switch",
        "allow bursts in the scheduler with reservations",
        (Setting("6.0", 1, 0, 1),),
    ),
    AdvancedOption(
        "Disk.SchedulerWithReservation",
        "choice",
        "0 the older disk scheduler, 1 mClock",
        (Setting("6.0", 1, 0, 1),),
    ),
    AdvancedOption(
        "Disk.SharesHigh", "shares", "disk shares of level high", (Setting("6.0", 2_000, 100, 10_000),)
    ),
    AdvancedOption(
        "Disk.SharesLow", "shares", "disk shares of level low", (Setting("6.0", 500, 100, 10_000),)
    ),
    AdvancedOption(
        "Disk.SharesNormal", "shares", "disk shares of level normal", (Setting("6.0", 1_000, 100, 10_000),)
    ),
    AdvancedOption(
        "Disk.ThroughputCap",
        "1/s",
        "most requests of one world on a disk",
        (Setting("6.0", 4_294_967_294, 10, 4_294_967_294),),
    ),
)
"""In the order of their names."""
