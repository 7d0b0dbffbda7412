"""What a late launch does on this host, as far as its owner decides it: PCR map, form of the measurements, policy.

Models: the generation, which says what the launched code is and which PCR takes what; the two uses of PCRs 17 and 18
(legacy: what was combined, and the code; details/authorities: every part, and whose keys); the launch control policy
that the owner writes into the TPM; and what the launching code does when there is no measured launch.

Leaves out: tboot's own policy of which modules to verify, and its other options.

Sources: tboot 1.10.5, README and common/policy.c (policy types nonfatal, continue and halt; error_shutdown); Intel TXT
MLE Developer's Guide (the two uses, policy types); Intel SecL's table for ESXi (the TXT era).
"""

from __future__ import annotations

from attrs import field, frozen, validators
from attrs.validators import optional

from sim.boot.pcrmap import LATE_LAUNCH_MAP, TXT_ERA_MAP, PcrMap
from sim.core.structure import FieldError, in_choices

__all__ = ["FAILURE_ACTIONS", "GENERATIONS", "LAUNCH_POLICIES", "USAGES", "LaunchSpec"]

GENERATIONS = {"esxi-6.7": LATE_LAUNCH_MAP, "txt-era": TXT_ERA_MAP}
"""The maps of the generations by name."""

USAGES = ("legacy", "details")
FAILURE_ACTIONS = ("reset", "halt", "continue")
"""What follows a launch that fails: the platform resets for ever, it stops, or it boots without a measured launch."""

LAUNCH_POLICIES = ("none", "any", "list")
PCRS_LAUNCHED_FROM = 16


def _static_pcrs(_instance: object, attribute: object, value: tuple[int, ...]) -> None:
    if len(dict.fromkeys(value)) != len(value) or not all(0 <= pcr < PCRS_LAUNCHED_FROM for pcr in value):
        raise FieldError(getattr(attribute, "name", ""), value, "different PCRs from 0 to 15")


@frozen(kw_only=True)
class LaunchSpec:
    """The owner's settings of a late launch; the defaults are those of the real host whose report is known.

    `policy` "list" pins the launched code by its digest and, with `state_pcrs`, those PCRs to the values that a clean boot
    gives them; `signed` puts the list under the owner's key, so that a new one needs no write to the TPM.
    `sinit_version_min` is the least version of SINIT, and `allow_debug` lets one run that is not for production.
    """

    generation: str = field(default="esxi-6.7", validator=in_choices(*GENERATIONS))
    usage: str | None = field(default=None, validator=optional(in_choices(*USAGES)))
    on_failure: str = field(default="reset", validator=in_choices(*FAILURE_ACTIONS))
    policy: str = field(default="none", validator=in_choices(*LAUNCH_POLICIES))
    state_pcrs: tuple[int, ...] = field(default=(), validator=_static_pcrs)
    signed: bool = field(default=False, validator=validators.instance_of(bool))
    sinit_version_min: int = field(default=0, validator=validators.in_(range(256)))
    allow_debug: bool = field(default=False, validator=validators.instance_of(bool))

    def __attrs_post_init__(self) -> None:
        for name in ("state_pcrs", "signed"):
            if self.policy != "list" and getattr(self, name):
                raise FieldError(name, getattr(self, name), 'nothing, unless policy = "list"')
        for name in ("sinit_version_min", "allow_debug"):
            if self.policy == "none" and getattr(self, name):
                raise FieldError(name, getattr(self, name), 'nothing, where policy = "none"')

    @property
    def pcr_map(self) -> PcrMap:
        """The map of the generation."""
        return GENERATIONS[self.generation]

    @property
    def details(self) -> bool:
        """Whether PCR 17 takes each part by itself and 18 the authorities."""
        return self.form == "details"

    @property
    def form(self) -> str:
        """How PCRs 17 and 18 are used: as set, or as the generation did it."""
        return self.usage or ("details" if self.generation == "esxi-6.7" else "legacy")

    @property
    def own_launcher(self) -> bool:
        """Whether the launched code is tboot, a file of its own, and not the boot module b."""
        return self.generation == "txt-era"
