"""Which files a VIB may bring, by its acceptance level.

Models: lists of places, each a folder (ending in "/") or one file.  CommunitySupported VIBs may write to the first list,
PartnerSupported ones to the second too, higher levels anywhere.  What counts is what a VIB lists and what its payloads
hold, links included.  The lists are a parameter: the published ones end with "and a few more".

Leaves out: what VMware's own schema says beyond that; it is not public.

Sources: the path lists of a third party's page on VIBs (aznot.com); the refusal's words as remembered.  That
a widespread community VIB keeps its configuration in a folder of its own below etc/, and that its makers tell people to
install it with force, fits the list.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from sim.image.acceptance import AcceptanceLevel

__all__ = ["ANYWHERE", "COMMUNITY_PATHS", "PARTNER_PATHS", "PathRules"]

COMMUNITY_PATHS = (
    "opt/",
    "usr/lib/vmware/",
    "etc/vmware/shutdown/",
    "etc/vmware/pciid/",
    "etc/vmware/vm-support/",
    "etc/vmware/firewall/",
    "etc/vmware/service/",
    "etc/vmware/driver.map.d/",
)
PARTNER_PATHS = (
    "etc/vmware/vmware.lic",
    "etc/vmware/support",
    "etc/vmware/support/",
    "etc/vmware/oem.xml",
    "etc/vmware/backup.conf",
    "customLinks.xml",
    "etc/init.d/",
    "etc/vmware/default.map.d/",
)
"""The last one from the file lists of partners' drivers, the others from the page."""


@attrs.frozen(kw_only=True)
class PathRules:
    """The places that each level below VMwareAccepted may write to; `partner` is in addition to `community`."""

    community: tuple[str, ...] = COMMUNITY_PATHS
    partner: tuple[str, ...] = PARTNER_PATHS

    def refused(self, level: AcceptanceLevel, paths: Iterable[str]) -> tuple[str, ...]:
        """Return those of the paths (relative to the root) that a VIB of this level may not bring, sorted."""
        if level >= AcceptanceLevel.VMWARE_ACCEPTED:
            return ()
        places = self.community
        if level is AcceptanceLevel.PARTNER_SUPPORTED:
            places += self.partner
        outside = {path for path in paths if not any(_is_in(path, place) for place in places)}
        return tuple(sorted(outside))


def _is_in(path: str, place: str) -> bool:
    return path.startswith(place) if place.endswith("/") or not place else path == place


ANYWHERE = PathRules(community=("",), partner=())
"""No rule at all: for an image that somebody put together without esxcli."""
