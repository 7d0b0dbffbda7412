"""The engine that knows digests: every measured file must be listed, and none may be older than the least version.

Models: a list of digests with the VIB and version that each belongs to, and of EFI boot loaders; a least version for named VIBs, so that an old
release with a known hole is refused although its maker once signed it; golden values of firmware PCRs.

Leaves out: where the list comes from.  It must be renewed with every update: what survives that is the engine of
signers (`sim.attest.engines.signer`).

Sources: Intel SecL's flavours for ESXi hosts (which PCRs belong to platform and OS); TUF, "rollback attack" (least
versions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from sim.attest.engines.boot_path import about_loaders
from sim.attest.engines.case import (
    ALGORITHM,
    Case,
    Decision,
    Finding,
    decision,
    measured_files,
    unproven,
    unreadable,
)
from sim.attest.esx_events import Measurement
from sim.attest.verdict import AttestationError
from sim.errors import FormatError
from sim.image.manifest import ReferenceComponent, ReferenceManifest
from sim.image.versions import version_key

__all__ = ["AllowListEngine"]


@frozen(kw_only=True)
class AllowListEngine:
    """Trusts a host whose every loader and measured file is in `allowed` and whose VIBs are recent enough.

    `least_versions` is {VIB name: version}; `reference_pcrs` is {bank: {PCR: allowed values}}.
    """

    allowed: ReferenceManifest = field(repr=False)
    least_versions: Mapping[str, str] = field(factory=dict)
    reference_pcrs: Mapping[str, Mapping[int, tuple[bytes, ...]]] = field(factory=dict, repr=False)
    name: str = "allow-list"

    def decide(self, case: Case) -> Decision:
        """Decide about one host; every file that is not as listed is a finding of its own."""
        missing = unproven(case)
        if missing is not None:
            return decision(self.name, [missing])
        try:
            files = measured_files(case)
            loaders = list(about_loaders(case, self.allowed))
        except (AttestationError, FormatError) as error:
            return decision(self.name, [unreadable(error)])
        findings = [finding for each in files if (finding := self._about(each)) is not None]
        return decision(self.name, [*loaders, *findings, *self._about_pcrs(case)])

    def _about(self, measurement: Measurement) -> Finding | None:
        digest = measurement.digests.get(ALGORITHM, b"")
        listed = self.allowed.with_digest(digest)
        if not listed:
            return Finding(
                rule="unlisted",
                message=f"{measurement.title} is not on the list",
                component=measurement.title,
                evidence=f"PCR {measurement.pcr}, digest {digest.hex()}",
            )
        if all(self._is_too_old(component) for component in listed):
            component = listed[0]
            least = self.least_versions[component.vib_name]
            return Finding(
                rule="too_old",
                message=f"{component.vib_name} {component.vib_version} is older than {least}",
                component=measurement.title,
                evidence=f"digest {digest.hex()}",
            )
        return None

    def _is_too_old(self, component: ReferenceComponent) -> bool:
        least = self.least_versions.get(component.vib_name)
        return least is not None and version_key(component.vib_version) < version_key(least)

    def _about_pcrs(self, case: Case) -> Iterator[Finding]:
        for bank, wanted in self.reference_pcrs.items():
            values = case.evidence.pcr_values.get(bank, {})
            for pcr, allowed in wanted.items():
                if values.get(pcr, b"") not in allowed:
                    yield Finding(
                        rule="reference_pcr",
                        message=f"PCR {pcr} of the {bank} bank has no listed value",
                        evidence=values.get(pcr, b"").hex(),
                    )
