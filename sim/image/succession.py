"""Who may take the place of an installed VIB: nothing older, and nobody else.

Models: a VIB takes another's place under the same name or by `replaces`.  Either way it must not be older, also than a
version that was removed (the image database remembers the versions that are gone).  It must come from the same vendor,
be signed by the same provider and stand at the same acceptance level or a higher one: the name of a VIB is not signed
for by anybody in particular, so a partner's key must not be enough to bring a newer version of VMware's base.

Leaves out: a provider of the old VIB whose signature does not verify any more; only vendor and level count then.  What
vendor name a provider may write into a descriptor that replaces nothing.

Sources: VMware's documentation of the VIB format (replaces) and of --allow-downgrades; the rules on vendor and provider,
and the option that sets them aside, are this project's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sim.errors import FormatError, VerificationError
from sim.image.imgdb import VIBS_MAX, ImageDatabase, VibRecord
from sim.image.install_error import InstallError
from sim.image.metadata import Descriptor
from sim.image.trust import TrustStore
from sim.image.versions import satisfies, version_key
from sim.image.vib import Vib, verify_record

__all__ = ["DOWNGRADE", "VENDOR_CHANGE", "check_succession", "replaces", "versions_gone"]

DOWNGRADE = "DowngradeError"
VENDOR_CHANGE = "VendorChangeError"


def replaces(new: Descriptor, old: Descriptor) -> bool:
    """Tell whether a VIB takes the place of another one."""
    return new.name == old.name or any(satisfies(old, relation) for relation in new.replaces)


def check_succession(
    new: Sequence[Vib],
    leaving: Iterable[VibRecord],
    database: ImageDatabase,
    trust: TrustStore,
    now: datetime,
) -> Iterator[InstallError]:
    """Yield what is wrong with the new VIBs as successors of those that leave or are gone already."""
    for record in leaving:
        for vib in new:
            if replaces(vib.descriptor, record.descriptor):
                if _is_older(vib, record.descriptor.version):
                    text = f"VIB {vib.vib_id} is older than the installed {record.descriptor.vib_id}"
                    yield InstallError(DOWNGRADE, text)
                yield from _check_maker(vib, record, trust, now)
    gone = dict(database.gone)
    for vib in new:
        names = dict.fromkeys((vib.descriptor.name, *(relation.name for relation in vib.descriptor.replaces)))
        for name in names:
            if name in gone and _is_older(vib, gone[name]):
                text = f"VIB {vib.vib_id} is older than {name} {gone[name]}, which was installed once"
                yield InstallError(DOWNGRADE, text)


def versions_gone(
    database: ImageDatabase, leaving: Iterable[VibRecord], names: Iterable[str]
) -> tuple[tuple[str, str], ...]:
    """Return name and version of the VIBs that are no longer installed, once those that leave are gone.

    `names` are those that stay or come: an installed version needs no remembering.
    """
    gone = dict(database.gone)
    for record in leaving:
        gone[record.descriptor.name] = record.descriptor.version
    installed = set(names)
    kept = tuple((name, version) for name, version in sorted(gone.items()) if name not in installed)
    if len(kept) > VIBS_MAX:
        raise InstallError("ProfileValidationError", f"more than {VIBS_MAX} VIBs have been removed")
    return kept


def _is_older(vib: Vib, version: str) -> bool:
    return version_key(vib.descriptor.version) < version_key(version)


def _check_maker(vib: Vib, record: VibRecord, trust: TrustStore, now: datetime) -> Iterator[InstallError]:
    new, old = vib.descriptor, record.descriptor
    head = f"VIB {new.vib_id} cannot take the place of {old.vib_id}: it"
    if new.vendor != old.vendor:
        yield InstallError(VENDOR_CHANGE, f"{head} is of vendor {new.vendor}, not {old.vendor}")
    if new.level < old.level:
        yield InstallError(VENDOR_CHANGE, f"{head} is {new.level.title}, not {old.level.title}")
    came = _provider(vib.descriptor_xml, vib.signature, new, trust, now)
    was = _provider(record.descriptor_xml, record.signature, old, trust, now)
    if was is not None and came is not None and came != was:
        yield InstallError(VENDOR_CHANGE, f"{head} is signed by {came}, not by {was}")


def _provider(
    descriptor_xml: bytes, signature: bytes, descriptor: Descriptor, trust: TrustStore, now: datetime
) -> str | None:
    """Return who signed, or None for nobody; a bad signature of the new VIB is refused by another rule."""
    try:
        return verify_record(descriptor_xml, signature, trust, now, descriptor=descriptor).provider
    except (VerificationError, FormatError):
        return None
