"""Policy engines as a scenario declares them, and how each is made for its world.

Models: a table an engine, `[[vcenter.engines]]`: which of the three that ship, what it holds against a host, and what
vCenter does then.

Leaves out: engines of the user's own, which a script hands to `VCenter` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Attribute, field, frozen, validators

from sim.core.structure import FieldError, between, in_choices, matches
from sim.image.acceptance import AcceptanceLevel

if TYPE_CHECKING:
    from sim.attest.engines import PolicyEngine
    from sim.core.context import Sim
    from sim.image.manifest import ReferenceManifest
    from sim.image.trust import TrustStore
    from sim.vsphere.engagement import Engagement

__all__ = ["ENGINE_KINDS", "EngineSpec", "engagements"]

ENGINE_KINDS = ("allow_list", "signer", "seal")
ENGINES_MAX = 16
SEAL_PCRS = (*range(8), *range(11, 15), *range(17, 23))
"""Firmware, what the boot loader measures, and what a dynamic launch measures instead."""

_ACTIONS = ("alarm", "quarantine", "withhold_key")
_LEVELS = tuple(level.title for level in AcceptanceLevel)
_VERSION = r"[0-9][A-Za-z0-9.]{0,34}(-[0-9][A-Za-z0-9.]{0,34})?"


def _versions(_instance: object, attribute: object, value: dict[str, str]) -> None:
    for name, version in value.items():
        matches(_VERSION, f"a version such as 1.2-3 for VIB {name}")(_instance, attribute, version)  # type: ignore[arg-type]


def _some(_instance: object, attribute: Attribute[Any], value: tuple[object, ...]) -> None:
    if not value:
        raise FieldError(attribute.name, list(value), "at least one")


@frozen(kw_only=True)
class EngineSpec:
    """One engine: `allow_list` (digests and `least_versions`), `signer` (`providers`, `level`) or `seal` (`pcrs`).

    `actions` is what its refusal leads to: alarm, quarantine, withhold_key.
    """

    kind: str = field(validator=in_choices(*ENGINE_KINDS))
    actions: tuple[str, ...] = field(
        default=("alarm",),
        validator=[_some, validators.deep_iterable(in_choices(*_ACTIONS))],
    )
    least_versions: dict[str, str] = field(factory=dict, validator=_versions)
    providers: tuple[str, ...] = ()
    level: str = field(default="PartnerSupported", validator=in_choices(*_LEVELS))
    pcrs: tuple[int, ...] = field(
        default=SEAL_PCRS, validator=[_some, validators.deep_iterable(between(0, 23))]
    )

    def __attrs_post_init__(self) -> None:
        meant = {"least_versions": "allow_list", "providers": "signer"}
        for name, kind in meant.items():
            if getattr(self, name) and self.kind != kind:
                raise FieldError(name, getattr(self, name), f"no {name} for {self.kind}")


def engagements(
    specs: tuple[EngineSpec, ...],
    sim: Sim,
    manifest: ReferenceManifest,
    trust: TrustStore,
    boot_signers: tuple[bytes, ...],
) -> tuple[Engagement, ...]:
    """Make the engines of a scenario for its world; `boot_signers` are who may sign boot loaders."""
    from sim.vsphere.engagement import Action, Engagement

    known = _Published(manifest=manifest, trust=trust, boot_signers=boot_signers)
    return tuple(
        Engagement(
            engine=_engine(spec, number, sim, known),
            actions=tuple(Action(action) for action in spec.actions),
        )
        for number, spec in enumerate(specs)
    )


@frozen(kw_only=True)
class _Published:
    """What the makers of an image give out: its digests, whom to trust, who signs boot loaders."""

    manifest: ReferenceManifest
    trust: TrustStore
    boot_signers: tuple[bytes, ...]


def _engine(spec: EngineSpec, number: int, sim: Sim, known: _Published) -> PolicyEngine:
    from sim.attest.engines import AllowListEngine, SealEngine, SignerEngine

    if spec.kind == "allow_list":
        return AllowListEngine(allowed=known.manifest, least_versions=spec.least_versions)
    if spec.kind == "signer":
        level = AcceptanceLevel.from_title(spec.level)
        return SignerEngine(
            trust=known.trust, boot_signers=known.boot_signers, providers=spec.providers, level=level
        )
    return SealEngine(sim.rng.stream(f"vcenter/seal/{number}"), pcrs=spec.pcrs)
