"""The scheduler's knobs: a release's defaults, advanced options set on top, and our own choices.

Models: `release` chooses the defaults of ESXi's options, `advanced` sets single ones by their ESXi name, and a knob set
by our own name wins over both.  Leaves out: nothing that acts; options that are stored only say so (`advanced.USED`).

Sources: `esxcli system settings advanced list` of ESXi 6.0 to 9.0 builds (public dumps).  What is not public
(world-switch cost, preemption at wake-up, cost of migration) is our choice and marked assumed.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import Attribute, Factory, evolve, field, fields, frozen, validators

from sim.core.facts import fact
from sim.core.structure import FieldError, between, in_choices, quantity
from sim.core.units import MS, SECOND, US
from sim.kernel.sched.advanced import RELEASES, UnknownOption, default_of, setting_of
from sim.kernel.sched.policy import POLICIES

__all__ = ["SchedOptions"]

WORLD_SWITCH_NS = fact(
    "sched.world_switch_ns", 2_000, unit="ns", source="our choice: the cost is not public", kind="assumed"
)
MIGRATE_LLC_NS = fact(
    "sched.migrate_llc_ns",
    50_000,
    unit="ns",
    source="our choice: 1 MiB of working set at 20 GB/s",
    kind="assumed",
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

ENTITLEMENT_NS = fact(
    "sched.entitlement_ns",
    50 * MS,
    unit="ns",
    source="our choice: how often entitlement is found anew is not public",
    kind="assumed",
)

TURN_NS_MIN = fact(
    "sched.turn_ns_min",
    100 * US,
    unit="ns",
    source="our choice: turns that are shorter would be spent on switching worlds",
    kind="assumed",
)
"""The shortest turn that a quantum, a limit or a skew threshold may make."""

SWITCHES_MIN = 4
"""A skew threshold leaves time for so many switches of worlds at least."""

_FOREIGN_POLICY = re.compile(r"[\w.]{1,100}:\w{1,60}")


def _policy(_instance: object, attribute: Attribute[Any], value: str) -> None:
    if not isinstance(value, str) or (value not in POLICIES and not _FOREIGN_POLICY.fullmatch(value)):
        raise FieldError(attribute.name, value, f"one of {', '.join(POLICIES)}, or module:Class")


def _settings(_instance: Any, attribute: Attribute[Any], value: dict[str, Any]) -> None:
    release = _instance.release
    for name, number in value.items():
        try:
            setting = setting_of(name, release)
        except UnknownOption as error:
            raise FieldError(attribute.name, name, str(error)) from None
        if (
            isinstance(number, bool)
            or not isinstance(number, int)
            or not setting.low <= number <= setting.high
        ):
            wanted = f"for {name} an integer from {setting.low} to {setting.high}"
            raise FieldError(attribute.name, number, wanted)


def _from(name: str, scale: int) -> Any:
    """Make a default that follows an advanced option of the release."""

    def default(options: SchedOptions) -> int:
        return scale * options.get(name)

    return Factory(default, takes_self=True)


@frozen(kw_only=True)
class SchedOptions:
    """One setting of all knobs.

    `release`: whose defaults; `advanced`: options by their ESXi names, e.g. {"Cpu.Quantum": 50}; `engine`: turns of
    a quantum, or the fluid ideal (`fluid_engine`), which knows no policy.  `policy`: a policy's name, or "module:Class".  `queues`: one queue of READY worlds for the host, for each last-level cache (llc) or each
    pCPU; NUMA home nodes need llc or pcpu.  `quantum_ns`: the longest turn.  `bound_lag_quanta`: how far behind or ahead of the
    common virtual time a world may be when it starts to compete.  `limit_burst_ns`: how much CPU time a limited VM may
    use at once after a rest; `limit_slice_ns`: its longest turn (less below a limit of many CPUs).  No turn is shorter
    than `TURN_NS_MIN`, and a burst holds the turns of all that a limit lets run; so `Cpu.LimitEnforcementThreshold` = 0, no
    slack, leaves that much.  `costop_ns`, `costart_ns`: the skews at which a vCPU is stopped and starts again (0: no
    co-scheduling; a lower threshold than `TURN_NS_MIN` and `SWITCHES_MIN` switches of worlds acts as that); `cosched_polling`: look every `cosched_poll_ns` instead of
    computing the moment.  `handoff_skip_ns`: a lagging sibling that has waited less is not handed the pCPU of one that
    is stopped.  `world_switch_ns`: the time a pCPU loses when it changes worlds; `migrate_llc_ns`: the more when the
    new one ran last at another last-level cache.  `preempt_grain_ns`: a waking world takes a pCPU from one that has
    run, and is ahead of it, by more than this.  `wakeup_pcpus`: how many pCPUs it looks at.  `entitlement_ns`: the least
    time between two divisions of the host through its pools (and never more often than once in a quantum).
    """

    release: str = field(default="8.0", validator=in_choices(*RELEASES))
    advanced: dict[str, Any] = field(factory=dict, validator=_settings)
    engine: str = field(default="quantum", validator=in_choices("quantum", "fluid"))
    policy: str = field(default="esxi", validator=_policy)
    queues: str = field(default="llc", validator=in_choices("host", "llc", "pcpu"))
    quantum_ns: int = field(
        default=_from("Cpu.Quantum", MS),
        metadata=quantity("ns"),
        validator=between(TURN_NS_MIN.value, 10 * SECOND),
    )
    bound_lag_quanta: int = field(default=_from("Cpu.BoundLagQuanta", 1), validator=between(1, 100))
    limit_burst_ns: int = field(
        default=_from("Cpu.LimitEnforcementThreshold", MS),
        metadata=quantity("ns"),
        validator=between(0, 10 * SECOND),
    )
    limit_slice_ns: int = field(
        default=LIMIT_SLICE_NS.value,
        metadata=quantity("ns"),
        validator=between(TURN_NS_MIN.value, 10 * SECOND),
    )
    costop_ns: int = field(
        default=_from("Cpu.CoschedCostopThreshold", US), metadata=quantity("ns"), validator=between(0, SECOND)
    )
    costart_ns: int = field(
        default=_from("Cpu.CoschedCostartThreshold", US),
        metadata=quantity("ns"),
        validator=between(0, SECOND),
    )
    cosched_polling: bool = field(default=False, validator=validators.instance_of(bool))
    cosched_poll_ns: int = field(
        default=_from("Cpu.CoschedPollUsec", US),
        metadata=quantity("ns"),
        validator=between(TURN_NS_MIN.value, SECOND),
    )
    handoff_skip_ns: int = field(
        default=_from("Cpu.CoschedHandoffSkip", US), metadata=quantity("ns"), validator=between(0, SECOND)
    )
    world_switch_ns: int = field(
        default=WORLD_SWITCH_NS.value, metadata=quantity("ns"), validator=between(0, 10 * MS)
    )
    migrate_llc_ns: int = field(
        default=MIGRATE_LLC_NS.value, metadata=quantity("ns"), validator=between(0, 10 * MS)
    )
    preempt_grain_ns: int = field(
        default=PREEMPT_GRAIN_NS.value, metadata=quantity("ns"), validator=between(0, 10 * SECOND)
    )
    entitlement_ns: int = field(
        default=ENTITLEMENT_NS.value, metadata=quantity("ns"), validator=between(1, 10 * SECOND)
    )
    wakeup_pcpus: int = field(default=_from("Cpu.WakeupMigrateIdlePcpus", 1), validator=between(0, 32))
    allow_wide_vsmp: bool = field(
        default=Factory(lambda self: bool(self.get("Cpu.AllowWideVsmp")), takes_self=True),
        validator=validators.instance_of(bool),
    )
    admit_check_per_vcpu: bool = field(
        default=Factory(lambda self: bool(self.get("Cpu.VMAdmitCheckPerVcpuMin")), takes_self=True),
        validator=validators.instance_of(bool),
    )

    def __attrs_post_init__(self) -> None:
        if self.engine == "fluid" and self.policy != "esxi":
            raise FieldError("policy", self.policy, "no policy with engine fluid, which knows none")

    def get(self, name: str) -> int:
        """Return the value of an advanced option, as set or by default; errors: `UnknownOption`."""
        value: int | None = self.advanced.get(name) if isinstance(self.advanced, dict) else None
        release = self.release if self.release in RELEASES else RELEASES[-1]
        return default_of(name, release) if not isinstance(value, int) else value

    def with_advanced(self, name: str, value: int) -> SchedOptions:
        """Return these options with one advanced option set; knobs set by our own name to another value keep it.

        Errors: `FieldError`.
        """
        changed = SchedOptions(release=self.release, advanced={**self.advanced, name: value})
        before = SchedOptions(release=self.release, advanced=self.advanced)
        follow = {
            one.name: getattr(changed, one.name)
            for one in fields(SchedOptions)
            if getattr(changed, one.name) != getattr(before, one.name)
            and (one.name == "advanced" or getattr(self, one.name) == getattr(before, one.name))
        }
        return evolve(self, **follow)
