"""What a verifier demands of a host, as one value.

Models: pinned TPM vendors, the published software, banks and PCRs that a quote must cover, Secure Boot, the dynamic
launch, boot options, and golden values for PCRs that no manifest describes.

Leaves out: how any of it is obtained; policies of third parties, which are functions over a verdict.

Sources: VMware's vSphere Security guide (Secure Boot is a requirement of attestation); TCG PC Client Platform
Firmware Profile (PCR 0 to 7); vmware/esx-boot (PCR 11 to 14).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from attrs import field, frozen, validators

from sim.attest.evidence import BANK_SIZES
from sim.image.manifest import ReferenceManifest

__all__ = ["FIRMWARE_PCRS", "LAUNCH_PCRS", "LOADER_PCRS", "AppraisalPolicy", "LaunchRule"]

FIRMWARE_PCRS: Final = tuple(range(8))
LOADER_PCRS: Final = (11, 12, 13, 14)
"""What the boot loader extends when there is no dynamic launch."""

LAUNCH_PCRS: Final = {"esxi-6.7": (17, 18, 19, 20, 21), "txt-era": (17, 18, 19, 20)}
"""What is extended after a dynamic launch of each generation; PCR 22 only by an asset tag."""


class LaunchRule(StrEnum):
    """Whether a dynamic launch (TXT) is wanted."""

    ANY = "any"
    REQUIRED = "required"
    FORBIDDEN = "forbidden"


@frozen(kw_only=True)
class AppraisalPolicy:
    """The demands of one appraisal; `now` is the calendar time at which it takes place.

    `required_pcrs` must all be quoted, in each of `required_banks`.  `required_components` are the file names that
    must have been measured (None: all names of the manifest).  `asset_tags` are the tags that may stand in the
    log (None: any; an allowed tag of free content could hide a boot option).  `command_lines` are the whole command
    lines that are good (None: any); `options_allowed` names the kernel options that one may hold (None: any) and
    `options_required` the pairs that must stand there.
    `reference_pcrs` gives golden values: {bank: {PCR: allowed values}}; a quote must cover them all.  `launch_generation` says which PCR takes what after
    a dynamic launch, and `require_launch_policy` that the launch was under a policy that pins the launched code.
    `allow_resume` lets a host say that it was suspended to memory, which restarts its TPM without a boot.
    """

    vendor_roots: tuple[bytes, ...] = field(repr=False)
    manifest: ReferenceManifest = field(repr=False)
    now: datetime
    required_banks: tuple[str, ...] = field(
        default=("sha256",),
        validator=[validators.min_len(1), validators.deep_iterable(validators.in_(BANK_SIZES))],
    )
    required_pcrs: tuple[int, ...] = (*FIRMWARE_PCRS, *LOADER_PCRS, *range(17, 23))
    require_secure_boot: bool = True
    launch: LaunchRule = field(default=LaunchRule.ANY, converter=LaunchRule)
    launch_generation: str = field(default="esxi-6.7", validator=validators.in_(LAUNCH_PCRS))
    require_launch_policy: bool = False
    allow_resume: bool = False
    startup_locality: int | None = None
    required_components: tuple[str, ...] | None = None
    asset_tags: tuple[bytes, ...] | None = ()
    command_lines: tuple[str, ...] | None = None
    options_allowed: tuple[str, ...] | None = None
    options_required: tuple[tuple[str, str], ...] = ()
    reference_pcrs: dict[str, dict[int, tuple[bytes, ...]]] = field(factory=dict, repr=False)

    def banks_to_quote(self) -> tuple[str, ...]:
        """Return the banks that a host must be asked for: the required ones, and those with reference values."""
        return tuple(dict.fromkeys((*self.required_banks, *self.reference_pcrs)))

    def pcrs_to_quote(self) -> tuple[int, ...]:
        """Return the PCRs that a host must be asked for, in ascending order."""
        return tuple(
            sorted({*self.required_pcrs, *(pcr for pcrs in self.reference_pcrs.values() for pcr in pcrs)})
        )

    def components_to_expect(self) -> tuple[str, ...]:
        """Return the file names that must have been measured."""
        if self.required_components is not None:
            return self.required_components
        return tuple(dict.fromkeys(component.name for component in self.manifest.components))
