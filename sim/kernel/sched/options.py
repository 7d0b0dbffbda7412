"""The scheduler's knobs, named after ESXi's public advanced options where one exists.

Models: values and ranges of one release line (7.0 to 8.0).  Leaves out the options of co-scheduling, hyper-threading
and NUMA, and the other releases.

Sources: `esxcli system settings advanced list` of ESXi 6.0 to 9.0 builds (public dumps).  What is not public
(world-switch cost, preemption at wake-up) is our choice and marked assumed.
"""

from __future__ import annotations

from attrs import field, frozen, validators

from sim.core.facts import fact
from sim.core.structure import between, quantity
from sim.core.units import MS, SECOND

__all__ = ["SchedOptions"]

_DUMPS = "esxcli system settings advanced list, ESXi 6.5d to 9.0.1"

QUANTUM_NS = fact("sched.Cpu.Quantum", 200 * MS, unit="ns", source=_DUMPS, kind="vendor")
BOUND_LAG_QUANTA = fact("sched.Cpu.BoundLagQuanta", 8, unit="quanta", source=_DUMPS, kind="vendor")
LIMIT_THRESHOLD_NS = fact(
    "sched.Cpu.LimitEnforcementThreshold", 200 * MS, unit="ns", source=_DUMPS, kind="vendor"
)
WAKEUP_PCPUS = fact("sched.Cpu.WakeupMigrateIdlePcpus", 4, unit="pCPUs", source=_DUMPS, kind="vendor")
ALLOW_WIDE_VSMP = fact("sched.Cpu.AllowWideVsmp", 0, unit="1", source=_DUMPS, kind="vendor")
ADMIT_PER_VCPU = fact("sched.Cpu.VMAdmitCheckPerVcpuMin", 1, unit="1", source=_DUMPS, kind="vendor")
WORLD_SWITCH_NS = fact(
    "sched.world_switch_ns", 2_000, unit="ns", source="our choice: the cost is not public", kind="assumed"
)
LIMIT_SLICE_NS = fact(
    "sched.limit_slice_ns", 20 * MS, unit="ns", source="our choice: a tenth of the threshold", kind="assumed"
)
PREEMPT_GRAIN_NS = fact(
    "sched.preempt_grain_ns",
    MS,
    unit="ns",
    source="our choice, as Xen credit2's rate limit: the rule at wake-up is not public",
    kind="assumed",
)


@frozen(kw_only=True)
class SchedOptions:
    """One setting of all knobs.

    `quantum_ns`: the longest turn.  `bound_lag_quanta`: how far behind or ahead of the common virtual time a world
    may be when it starts to compete.  `limit_burst_ns`: how much CPU time a limited VM may use at once after a rest;
    `limit_slice_ns`: its longest turn.  `world_switch_ns`: the time a pCPU loses when it changes worlds.
    `preempt_grain_ns`: a waking world takes a pCPU from one that has run, and is ahead of it, by more than this.
    `wakeup_pcpus`: how many pCPUs it looks at.
    """

    quantum_ns: int = field(
        default=QUANTUM_NS.value, metadata=quantity("ns"), validator=between(1, 10 * SECOND)
    )
    bound_lag_quanta: int = field(default=BOUND_LAG_QUANTA.value, validator=between(1, 100))
    limit_burst_ns: int = field(
        default=LIMIT_THRESHOLD_NS.value, metadata=quantity("ns"), validator=between(1, 10 * SECOND)
    )
    limit_slice_ns: int = field(
        default=LIMIT_SLICE_NS.value, metadata=quantity("ns"), validator=between(1, 10 * SECOND)
    )
    world_switch_ns: int = field(
        default=WORLD_SWITCH_NS.value, metadata=quantity("ns"), validator=between(0, 10 * MS)
    )
    preempt_grain_ns: int = field(
        default=PREEMPT_GRAIN_NS.value, metadata=quantity("ns"), validator=between(0, 10 * SECOND)
    )
    wakeup_pcpus: int = field(default=WAKEUP_PCPUS.value, validator=between(0, 32))
    allow_wide_vsmp: bool = field(default=bool(ALLOW_WIDE_VSMP.value), validator=validators.instance_of(bool))
    admit_check_per_vcpu: bool = field(
        default=bool(ADMIT_PER_VCPU.value), validator=validators.instance_of(bool)
    )
