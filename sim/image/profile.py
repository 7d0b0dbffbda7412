"""Image profiles: a name, a vendor, an acceptance level, and the VIBs that make up an image.

Models: the profile as a value with one spelling in XML; putting it on a bank as one transaction, from VIBs of a depot
that are looked up by their ids, so that a profile can take no VIB that it does not name and miss none that it does.
The rules are those of `sim.image.install`.

Leaves out: bulletins, base images and components; a profile is not signed, its VIBs are.

Sources: VMware's documentation of image profiles; names of the XML's elements from depots, as remembered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

import attrs

from sim.errors import FormatError, LimitError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import BootBank
from sim.image.boundedxml import escape, parse_xml
from sim.image.imgdb import VIBS_MAX
from sim.image.install import PATH_RULES, InstallError, InstallResult, replace_all
from sim.image.pathrules import PathRules
from sim.image.trust import TrustStore
from sim.image.vib import Vib

__all__ = ["ImageProfile", "apply_profile", "parse_profile", "write_profile"]

_WHAT = "image profile"
_NAME = re.compile(r"[0-9A-Za-z_. ()-]{1,100}")
_VIB_ID = re.compile(r"[0-9A-Za-z_.-]{1,160}")


@attrs.frozen(kw_only=True)
class ImageProfile:
    """Name, vendor and level of an image, and the ids of its VIBs in order of installation."""

    name: str
    vendor: str
    level: AcceptanceLevel
    vib_ids: tuple[str, ...]


def parse_profile(data: bytes) -> ImageProfile:
    """Return the profile in the bytes of its XML, which must be spelled as `write_profile` does."""
    root = parse_xml(data, _WHAT)
    texts = {child.tag: child.text for child in root.children}
    vibs = root.named("viblist")
    found = ImageProfile(
        name=_matching("name", texts.get("name", ""), _NAME),
        vendor=_matching("creator", texts.get("creator", ""), _NAME),
        level=AcceptanceLevel.from_xml(texts.get("acceptance-level", "")),
        vib_ids=tuple(
            _matching("vib-id", node.text, _VIB_ID)
            for one in vibs
            for vib in one.children
            for node in vib.children
        ),
    )
    if len(found.vib_ids) > VIBS_MAX:
        raise LimitError(_WHAT, found.name, f"more than {VIBS_MAX} VIBs")
    if len(set(found.vib_ids)) != len(found.vib_ids):
        raise FormatError(_WHAT, found.name, "names a VIB twice")
    if write_profile(found) != data:
        raise FormatError(_WHAT, found.name, "holds more than a profile, or another spelling of one")
    return found


def write_profile(profile: ImageProfile) -> bytes:
    """Return the one spelling of a profile."""
    vibs = "".join(f"<vib><vib-id>{escape(vib_id)}</vib-id></vib>" for vib_id in profile.vib_ids)
    return (
        f"<imageprofile><name>{escape(profile.name)}</name><creator>{escape(profile.vendor)}</creator>"
        f"<acceptance-level>{profile.level.xml_name}</acceptance-level><viblist>{vibs}</viblist></imageprofile>"
    ).encode()


def apply_profile(
    bank: BootBank,
    profile: ImageProfile,
    available: Iterable[Vib],
    trust: TrustStore,
    now: datetime,
    *,
    downgrades: bool = False,
    vendor_changes: bool = False,
    removals: bool = False,
    paths: PathRules = PATH_RULES,
) -> InstallResult:
    """Return the bank with exactly the profile's VIBs in it, or raise `InstallError`; the old bank is not touched."""
    by_id = {vib.vib_id: vib for vib in available}
    missing = [vib_id for vib_id in profile.vib_ids if vib_id not in by_id]
    if missing:
        text = f"Image profile {profile.name} names VIB {missing[0]}, which no depot holds"
        raise InstallError("NoMatchError", text)
    return replace_all(
        bank,
        [by_id[vib_id] for vib_id in profile.vib_ids],
        profile.level,
        trust,
        now,
        name=profile.name,
        downgrades=downgrades,
        vendor_changes=vendor_changes,
        removals=removals,
        paths=paths,
    )


def _matching(where: str, text: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(text):
        raise FormatError(_WHAT, where, f"{text[:40]!r} is not a name")
    return text
