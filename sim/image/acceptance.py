"""Acceptance levels: who made, tested and signed a VIB, and which of them a host takes.

Models the four levels in their strict order, their three spellings (esxcli's title, the descriptor's word, the API's
value) and the one rule between a host and a VIB: each VIB's level must be at least the host's.

Leaves out who may sign at which level (`sim.image.vib`) and the paths a level may write.

Sources: VMware, "Acceptance Levels for Hosts and VIBs" (vSphere documentation); values of the API's
HostImageAcceptanceLevel.
"""

from __future__ import annotations

from enum import IntEnum

from sim.errors import FormatError

__all__ = ["AcceptanceLevel"]


class AcceptanceLevel(IntEnum):
    """One of ESXi's four levels of trust in a VIB; greater means more trusted."""

    COMMUNITY_SUPPORTED = 0
    PARTNER_SUPPORTED = 1
    VMWARE_ACCEPTED = 2
    VMWARE_CERTIFIED = 3

    @property
    def title(self) -> str:
        """The name that esxcli prints, such as PartnerSupported."""
        return _TITLES[self]

    @property
    def xml_name(self) -> str:
        """The word in descriptor.xml, such as partner."""
        return _XML_NAMES[self]

    @property
    def api_name(self) -> str:
        """The value in the management API, such as vmware_certified."""
        return _API_NAMES[self]

    def allowed_on(self, host_level: AcceptanceLevel) -> bool:
        """Tell whether a VIB of this level may be on a host of `host_level`."""
        return self >= host_level

    @classmethod
    def from_title(cls, text: str) -> AcceptanceLevel:
        """Return the level that esxcli calls `text`; upper and lower case differ."""
        return _lookup(_TITLES, text)

    @classmethod
    def from_xml(cls, text: str) -> AcceptanceLevel:
        """Return the level that a descriptor calls `text`."""
        return _lookup(_XML_NAMES, text)


def _lookup(names: dict[AcceptanceLevel, str], text: str) -> AcceptanceLevel:
    for level, name in names.items():
        if name == text:
            return level
    raise FormatError("acceptance level", "", f"{text[:40]!r} is not one of {', '.join(names.values())}")


_TITLES = {
    AcceptanceLevel.COMMUNITY_SUPPORTED: "CommunitySupported",
    AcceptanceLevel.PARTNER_SUPPORTED: "PartnerSupported",
    AcceptanceLevel.VMWARE_ACCEPTED: "VMwareAccepted",
    AcceptanceLevel.VMWARE_CERTIFIED: "VMwareCertified",
}
_XML_NAMES = {
    AcceptanceLevel.COMMUNITY_SUPPORTED: "community",
    AcceptanceLevel.PARTNER_SUPPORTED: "partner",
    AcceptanceLevel.VMWARE_ACCEPTED: "accepted",
    AcceptanceLevel.VMWARE_CERTIFIED: "certified",
}
_API_NAMES = {
    AcceptanceLevel.COMMUNITY_SUPPORTED: "community",
    AcceptanceLevel.PARTNER_SUPPORTED: "partner",
    AcceptanceLevel.VMWARE_ACCEPTED: "vmware_accepted",
    AcceptanceLevel.VMWARE_CERTIFIED: "vmware_certified",
}
