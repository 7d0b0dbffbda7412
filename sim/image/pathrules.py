"""Which files a VIB may bring, by its acceptance level.

Models: lists of places, each a folder (ending in "/") or one file.  CommunitySupported VIBs may write to the first list,
PartnerSupported ones to the second too, higher levels anywhere.  What counts is what a VIB lists and what its payloads
hold, links included.  The lists are a parameter: the published ones end with "and a few more".

Leaves out: what VMware's own schema says beyond that; it is not public.

Sources: the path lists of a third party's page on VIBs (aznot.com); the refusal's words as remembered.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from sim.core.facts import fact
from sim.image.acceptance import AcceptanceLevel

__all__ = ["COMMUNITY_PATHS", "PARTNER_PATHS", "PathRules"]

_SOURCE = "aznot.com, paths by acceptance level (third party)"
COMMUNITY_PATHS = fact(
    "image.community_paths",
    "opt/ usr/lib/vmware/ etc/vmware/shutdown/ etc/vmware/pciid/ etc/vmware/vm-support/ etc/vmware/firewall/ "
    "etc/vmware/service/ etc/vmware/driver.map.d/",
    unit="paths",
    source=_SOURCE,
    kind="inferred",
)
PARTNER_PATHS = fact(
    "image.partner_paths",
    "etc/vmware/vmware.lic etc/vmware/support etc/vmware/support/ etc/vmware/oem.xml etc/vmware/backup.conf "
    "customLinks.xml etc/init.d/ etc/vmware/default.map.d/",
    unit="paths",
    source=f"{_SOURCE}; default.map.d from the file lists of partners' drivers",
    kind="inferred",
)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@attrs.frozen(kw_only=True)
class PathRules:
    """The places that each level below VMwareAccepted may write to; `partner` is in addition to `community`."""

    community: tuple[str, ...] = _split(COMMUNITY_PATHS.value)
    partner: tuple[str, ...] = _split(PARTNER_PATHS.value)

    def refused(self, level: AcceptanceLevel, paths: Iterable[str]) -> tuple[str, ...]:
        """Return those of the paths (relative to the root) that a VIB of this level may not bring, sorted."""
        if level >= AcceptanceLevel.VMWARE_ACCEPTED:
            return ()
        places = self.community
        if level is AcceptanceLevel.PARTNER_SUPPORTED:
            places += self.partner
        return tuple(sorted(path for path in set(paths) if not any(_is_in(path, place) for place in places)))


def _is_in(path: str, place: str) -> bool:
    return path.startswith(place) if place.endswith("/") else path == place
