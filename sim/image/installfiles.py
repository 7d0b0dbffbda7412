"""The rules of an installation about files: who may bring which path, who owns it, and whether the tree holds together.

Models: what a VIB brings is read from its payloads, of every kind, since a kernel opens each archive that it is given;
the descriptor's list must name exactly that.  Below VMwareAccepted a VIB writes to the places of its level alone, makes
no directory elsewhere but the plain parents of its files, and has no set-user-id files.  A path has one owner, but an
overlay may lie over another VIB's file if its level is at least the owner's.  The tree of the whole image is checked
(`sim.image.tree`), and what is wrong with it is refused even under force.

Leaves out: what a file does once it is there; links to places that the level may not write are allowed, files under them not.

Sources: VMware's documentation of the VIB format (file list, overlay); the path lists of `sim.image.pathrules`; what an
overlay may lie over, and the rules for directories and modes, are this project's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sim.errors import FormatError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import BootBank
from sim.image.contents import payload_entries
from sim.image.imgdb import VibRecord
from sim.image.install_error import InstallError
from sim.image.metadata import Descriptor
from sim.image.pathrules import PathRules
from sim.image.tar import EntryKind, TarEntry
from sim.image.tree import Node, Part, part_of, tree_problems
from sim.image.vib import Vib

__all__ = ["check_files", "check_places", "check_tree", "part_of_record", "part_of_vib"]

_PATHS_SHOWN_MAX = 5
_SET_ID = 0o6000
_PERMISSIONS = 0o7777
_PLAIN_DIRECTORY = 0o755


def part_of_vib(vib: Vib) -> Part:
    """Return what a VIB brings; a payload that is not what its kind says is refused."""
    payloads = [(payload.name, payload.kind, payload.data) for payload in vib.payloads]
    return _part(vib.descriptor, payloads, "VibFormatError")


def part_of_record(record: VibRecord, bank: BootBank) -> Part:
    """Return what an installed VIB brings; a bank whose files cannot be read takes no installation."""
    descriptor = record.descriptor
    payloads = [
        (entry.name, entry.kind, bank.files.get(name, b""))
        for entry, name in zip(descriptor.payloads, record.files, strict=True)
        if name in bank.files
    ]
    return _part(descriptor, payloads, "ProfileValidationError")


def _part(descriptor: Descriptor, payloads: Sequence[tuple[str, str, bytes]], check: str) -> Part:
    def opened() -> Iterator[tuple[TarEntry, ...]]:
        for name, kind, data in payloads:
            try:
                yield payload_entries(kind, data)
            except FormatError as error:
                text = f"VIB {descriptor.vib_id}: payload {name} cannot be read: {error}"
                raise InstallError(check, text) from error

    return part_of(descriptor, opened())


def check_places(part: Part, rules: PathRules) -> Iterator[InstallError]:
    """Demand that files, links and directories are those that the VIB's level may bring."""
    descriptor = part.descriptor
    level = descriptor.level
    if level >= AcceptanceLevel.VMWARE_ACCEPTED:
        return
    head = f"VIB {descriptor.vib_id} violates extensibility rule checks: acceptance level {level.xml_name}"
    refused = rules.refused(level, {*descriptor.files, *part.paths})
    if refused:
        text = f"{head} may not write {', '.join('/' + path for path in refused[:_PATHS_SHOWN_MAX])}"
        yield InstallError("VibValidationError", text)
    folders = {path[:at] for path in part.paths for at, sign in enumerate(path) if sign == "/"}
    for node in part.nodes:
        fault = _attribute_fault(node, folders, outside=bool(rules.refused(level, (node.path,))))
        if fault:
            yield InstallError("VibValidationError", f"{head} may not bring /{node.path} {fault}")


def _attribute_fault(node: Node, folders: set[str], *, outside: bool) -> str:
    """Return what a VIB of a low level may not do with this entry; nothing if it may."""
    if node.kind is EntryKind.SYMLINK:
        return ""
    if node.mode & _SET_ID:
        return f"with mode {node.mode & _PERMISSIONS:04o}: it sets user or group"
    if node.kind is EntryKind.DIRECTORY and outside:
        if node.path not in folders:
            return "as a directory that holds none of its files"
        if node.mode & 0o777 != _PLAIN_DIRECTORY or not node.root_owned:
            return f"as a directory with mode {node.mode & _PERMISSIONS:04o} or of another owner than root"
    return ""


def check_files(new: Iterable[Part], staying: Iterable[Part]) -> Iterator[InstallError]:
    """Demand that a VIB lists exactly the files it holds, and that a file has one owner, or an overlay that may be one."""
    owners: dict[str, Descriptor] = {}
    for part in staying:
        owners.update(dict.fromkeys((*part.descriptor.files, *part.paths), part.descriptor))
    for part in new:
        descriptor = part.descriptor
        listed, held = set(descriptor.files), set(part.paths)
        for path in sorted(held - listed)[:1]:
            text = f"VIB {descriptor.vib_id} holds {path}, which it does not list"
            yield InstallError("VibFormatError", text)
        for path in sorted(listed - held)[:1]:
            text = f"VIB {descriptor.vib_id} lists {path}, which it does not hold"
            yield InstallError("VibFormatError", text)
        for path in sorted(listed | held):
            owner = owners.get(path)
            if owner is not None and not _may_lie_over(descriptor, owner):
                text = f"File path {path} is claimed by the VIBs {owner.vib_id} and {descriptor.vib_id}"
                yield InstallError("ProfileValidationError", text)
            owners[path] = descriptor


def _may_lie_over(new: Descriptor, owner: Descriptor) -> bool:
    """Tell whether one of the two is an overlay, and the new one's level is not below the owner's."""
    return (new.overlay or owner.overlay) and new.level >= owner.level


def check_tree(parts: Iterable[Part]) -> None:
    """Raise `InstallError` for the first thing that is wrong with the tree of the whole image; no option allows it."""
    for problem in tree_problems(parts):
        raise InstallError("ProfileValidationError", problem)
