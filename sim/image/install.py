"""Installing VIBs into a boot bank, as `esxcli software vib install` does it.

Models the rules in front of an installation: signature and checksums, the host's acceptance level, dependencies,
conflicts, replacement of the same VIB, and the files (`sim.image.installfiles`): the paths that a level may write, one
owner for each file, a tree that holds together.  All VIBs of a call
are installed or none: the result is a new bank, and the old one is never touched.

There is no way back to an older version of a VIB that is or was installed, signed as it may be, unless `downgrades=True`
says so, as esxcli's --allow-downgrades does: an old signature stays valid, and the faults that a newer version mended
come back.  Nobody else may take a VIB's place, unless `vendor_changes=True` says so (`sim.image.succession`).

`force=True` turns signature, level, dependency, version and ownership refusals into warnings, each of which the result
repeats, as on a real host; `no_sig_check=True` does so for signature and level alone, as esxcli's --no-sig-check does.
Wrong checksums and a tree that does not hold together are refused even then.  The next boot with Secure Boot on refuses what came in that way.  Every rule that
an option set aside is in the result as a `Waiver`, for whoever keeps the books.

Leaves out live installation.  Whole image profiles are `sim.image.profile`, depots `sim.image.bundle`.

Sources: VMware's documentation of esxcli (options of software vib install and software profile update); refusal texts from published sessions of real hosts, those of dependencies
and conflicts as remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import attrs

from sim.errors import FormatError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import STATE_FILE, BootBank, check_bank_contents, config_settings, record_vib
from sim.image.bootcfg import CONFIG_FILE, BootConfig, format_boot_config
from sim.image.imgdb import DATABASE_FILE, VibRecord, write_database
from sim.image.install_error import InstallError
from sim.image.installfiles import check_files, check_places, check_tree, part_of_record, part_of_vib
from sim.image.metadata import Descriptor
from sim.image.pathrules import PathRules
from sim.image.payload import PayloadError
from sim.image.succession import DOWNGRADE, VENDOR_CHANGE, check_succession, replaces, versions_gone
from sim.image.trust import TrustStore
from sim.image.versions import satisfies
from sim.image.vib import Vib, verify_vib

__all__ = [
    "PATH_RULES",
    "InstallError",
    "InstallResult",
    "Waiver",
    "install",
    "remove",
    "replace_all",
    "set_acceptance",
]

PATH_RULES = PathRules()
"""The published rules of the paths that each level may write."""

FORCE, NO_SIG_CHECK, ALLOW_DOWNGRADES = "force", "no-sig-check", "allow-downgrades"
"""The options that set rules aside, in esxcli's spelling."""

ALLOW_VENDOR_CHANGE = "allow-vendor-change"
"""One more, which esxcli does not have: another vendor or provider, or a lower level, may take a VIB's place."""

_SIGNATURE_RULES = ("AcceptanceConfigError", "VibSignatureError")
_ADVICE = "To change the host acceptance level, use the 'esxcli software acceptance set' command."


@attrs.frozen(kw_only=True)
class Waiver:
    """A rule that was set aside: by which option, esxcli's name of the rule, and what it would have said."""

    option: str
    rule: str
    text: str


@attrs.frozen(kw_only=True)
class InstallResult:
    """The new bank, the ids of the VIBs that came, went and were there already, and the rules that were set aside."""

    bank: BootBank
    installed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What esxcli prints of rules that were set aside; a change that was asked for by name is none."""
        asked_for = (ALLOW_DOWNGRADES, ALLOW_VENDOR_CHANGE)
        return tuple(one.text for one in self.waivers if one.option not in asked_for)


def install(
    bank: BootBank,
    vibs: Vib | Sequence[Vib],
    host_level: AcceptanceLevel,
    trust: TrustStore,
    now: datetime,
    *,
    force: bool = False,
    no_sig_check: bool = False,
    downgrades: bool = False,
    vendor_changes: bool = False,
    paths: PathRules = PATH_RULES,
) -> InstallResult:
    """Return the bank with the VIBs in it; the first broken rule that no option sets aside raises `InstallError`."""
    check_bank_contents(bank.files.values())
    wanted = [vibs] if isinstance(vibs, Vib) else list(vibs)
    database = bank.database
    skipped = [vib for vib in wanted if _is_installed(vib, database.records)]
    new = [vib for vib in wanted if vib not in skipped]
    refusals = [refusal for vib in new for refusal in _check_vib(vib, host_level, trust, now)]
    leaving = [record for record in database.records if _is_replaced(record, new)]
    staying = [record for record in database.records if record not in leaving]
    parts = [part_of_vib(vib) for vib in new]
    refusals += [refusal for part in parts for refusal in check_places(part, paths)]
    refusals += check_succession(new, leaving, database, trust, now)
    refusals += _check_image([*(r.descriptor for r in staying), *(vib.descriptor for vib in new)])
    below = [part_of_record(record, bank) for record in (staying if new else ())]
    refusals += check_files(parts, below)
    check_tree([*below, *parts])
    waivers = _waived(
        refusals,
        force=force,
        no_sig_check=no_sig_check,
        downgrades=downgrades,
        vendor_changes=vendor_changes,
    )
    return InstallResult(
        bank=_rebuilt(bank, new, leaving) if new else bank,
        installed=tuple(vib.vib_id for vib in new),
        removed=tuple(record.descriptor.vib_id for record in leaving),
        skipped=tuple(vib.vib_id for vib in skipped),
        waivers=waivers,
    )


def remove(bank: BootBank, name: str, *, force: bool = False) -> InstallResult:
    """Return the bank without the VIB of that name, which no other may depend on."""
    record = bank.database.record(name)
    if record is None:
        raise InstallError("NoMatchError", f"No VIB matching VIB search specification '{name}'.")
    refusals = list(_check_image([r.descriptor for r in bank.database.records if r != record]))
    return InstallResult(
        bank=_rebuilt(bank, [], [record]),
        removed=(record.descriptor.vib_id,),
        waivers=_waived(refusals, force=force),
    )


def replace_all(
    bank: BootBank,
    vibs: Sequence[Vib],
    level: AcceptanceLevel,
    trust: TrustStore,
    now: datetime,
    *,
    name: str,
    downgrades: bool = False,
    vendor_changes: bool = False,
    removals: bool = False,
    paths: PathRules = PATH_RULES,
) -> InstallResult:
    """Return the bank with exactly these VIBs in it and the profile's name and level, or raise `InstallError`.

    A VIB that would go without a successor of its name needs `removals`, an older version `downgrades`.
    """
    check_bank_contents(bank.files.values())
    database = bank.database
    new = [vib for vib in vibs if not _is_installed(vib, database.records)]
    kept = {vib.descriptor_xml for vib in vibs if vib not in new}
    leaving = [record for record in database.records if record.descriptor_xml not in kept]
    refusals = [refusal for vib in vibs for refusal in _check_vib(vib, level, trust, now)]
    parts = [part_of_vib(vib) for vib in vibs]
    refusals += [refusal for part in parts for refusal in check_places(part, paths)]
    refusals += check_succession(new, leaving, database, trust, now)
    refusals += _check_image([vib.descriptor for vib in vibs])
    below = [part_of_record(record, bank) for record in database.records if record not in leaving]
    added = [part for vib, part in zip(vibs, parts, strict=True) if vib in new]
    refusals += check_files(added, below)
    check_tree([*below, *added])
    refusals += [] if removals else _check_removals(vibs, leaving)
    waivers = _waived(refusals, downgrades=downgrades, vendor_changes=vendor_changes)
    renamed = bank.with_files({DATABASE_FILE: write_database(attrs.evolve(database, name=name, level=level))})
    return InstallResult(
        bank=_rebuilt(renamed, new, leaving),
        installed=tuple(vib.vib_id for vib in new),
        removed=tuple(record.descriptor.vib_id for record in leaving),
        skipped=tuple(vib.vib_id for vib in vibs if vib not in new),
        waivers=waivers,
    )


def set_acceptance(bank: BootBank, level: AcceptanceLevel) -> BootBank:
    """Return the bank with another host acceptance level, which every installed VIB must meet."""
    database = bank.database
    for record in database.records:
        for refusal in _check_level(record.descriptor, level):
            raise refusal
    return bank.with_files({DATABASE_FILE: write_database(attrs.evolve(database, level=level))})


def _waived(
    refusals: Iterable[InstallError],
    *,
    force: bool = False,
    no_sig_check: bool = False,
    downgrades: bool = False,
    vendor_changes: bool = False,
) -> tuple[Waiver, ...]:
    """Return which option set aside each broken rule; the first that none does is raised."""
    waivers = []
    for refusal in refusals:
        if downgrades and refusal.check == DOWNGRADE:
            option = ALLOW_DOWNGRADES
        elif vendor_changes and refusal.check == VENDOR_CHANGE:
            option = ALLOW_VENDOR_CHANGE
        elif no_sig_check and refusal.check in _SIGNATURE_RULES:
            option = NO_SIG_CHECK
        elif force:
            option = FORCE
        else:
            raise refusal
        waivers.append(Waiver(option=option, rule=refusal.check, text=str(refusal)))
    return tuple(waivers)


def _check_vib(
    vib: Vib, host_level: AcceptanceLevel, trust: TrustStore, now: datetime
) -> Iterator[InstallError]:
    yield from _check_level(vib.descriptor, host_level)
    try:
        verify_vib(vib, trust, now)
    except PayloadError as error:
        raise InstallError("VibPayloadError", str(error)) from error
    except (VerificationError, FormatError) as error:
        yield InstallError("VibSignatureError", f"Could not verify VIB {vib.vib_id}: {error}")


def _check_level(descriptor: Descriptor, host_level: AcceptanceLevel) -> Iterator[InstallError]:
    if not descriptor.level.allowed_on(host_level):
        text = (
            f"VIB {descriptor.vib_id}'s acceptance level is {descriptor.level.xml_name}, which is not compliant "
            f"with the ImageProfile acceptance level {host_level.xml_name}\n{_ADVICE}"
        )
        yield InstallError("AcceptanceConfigError", text)


def _is_installed(vib: Vib, records: Iterable[VibRecord]) -> bool:
    return any(record.descriptor_xml == vib.descriptor_xml for record in records)


def _is_replaced(record: VibRecord, new: Iterable[Vib]) -> bool:
    return any(replaces(vib.descriptor, record.descriptor) for vib in new)


def _check_removals(vibs: Sequence[Vib], leaving: Iterable[VibRecord]) -> Iterator[InstallError]:
    names = {vib.descriptor.name for vib in vibs}
    for record in leaving:
        old = record.descriptor
        if old.name not in names and not _is_replaced(record, vibs):
            text = f"You attempted to install an image profile which would have resulted in the removal of VIBs {old.vib_id}"
            yield InstallError("ProfileVibRemoval", text)


def _check_image(descriptors: Sequence[Descriptor]) -> Iterator[InstallError]:
    """Demand that all depends are met, that no conflict is, and that each name stands once."""
    names = [descriptor.name for descriptor in descriptors]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield InstallError("DependencyError", f"More than one VIB named {name} in the ImageProfile")
    for descriptor in descriptors:
        others = [other for other in descriptors if other is not descriptor]
        for relation in descriptor.depends:
            if not any(satisfies(other, relation) for other in others):
                text = f"VIB {descriptor.vib_id} requires {relation}, but the requirement cannot be satisfied"
                yield InstallError("DependencyError", f"{text} within the ImageProfile.")
        for relation in descriptor.conflicts:
            for other in others:
                if satisfies(other, relation):
                    text = f"VIB {descriptor.vib_id} conflicts with VIB {other.vib_id}"
                    yield InstallError("DependencyError", text)


def _rebuilt(bank: BootBank, new: Sequence[Vib], leaving: Sequence[VibRecord]) -> BootBank:
    database = bank.database
    gone = {name for record in leaving for name in record.files}
    added: dict[str, bytes] = {}
    records = [record for record in database.records if record not in leaving]
    for vib in new:
        record = record_vib(vib, (bank.files.keys() - gone) | added.keys())
        records.append(record)
        added.update(zip(record.files, (payload.data for payload in vib.payloads), strict=True))
    config = _reordered(bank.config, gone, tuple(added))
    database = attrs.evolve(
        database,
        records=tuple(records),
        settings=config_settings(config),
        gone=versions_gone(database, leaving, (record.descriptor.name for record in records)),
    )
    changed = {CONFIG_FILE: format_boot_config(config), DATABASE_FILE: write_database(database)}
    return bank.with_files({**added, **changed}, removed=gone)


def _reordered(config: BootConfig, gone: set[str], added: tuple[str, ...]) -> BootConfig:
    """Put new modules behind the others but before the image database and the saved state."""
    kept = [name for name in config.modules if name not in gone]
    last = [name for name in (DATABASE_FILE, STATE_FILE) if name in kept]
    modules = [name for name in kept if name not in last] + list(added) + last
    return attrs.evolve(config, modules=tuple(modules), updated=config.updated + 1)
