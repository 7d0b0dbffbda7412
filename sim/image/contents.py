"""What is inside a payload: the files that a vgz or tgz unpacks to, and the kernel modules among them.

Models the step from a stored payload file to the files that appear in the host's file system: unpack, take off the
signature trailer of an early module, read the archive.  Leaves out mounting: a real host keeps the archive in memory
and reads through it.

Sources: as for `sim.image.vtar`, `sim.image.tar` and `sim.image.trailer`.
"""

from __future__ import annotations

from functools import partial

from sim.image.payload import content_of
from sim.image.recent import Recent
from sim.image.tar import EntryKind, TarEntry, read_ustar
from sim.image.trailer import split_trailer
from sim.image.vib import Vib
from sim.image.vtar import is_vtar, read_vtar

__all__ = [
    "MODULE_FOLDER",
    "kernel_modules",
    "open_archive",
    "paths_of",
    "payload_entries",
    "without_trailer",
]

MODULE_FOLDER = "usr/lib/vmware/vmkmod/"
"""Where the kernel modules of a host lie."""

RECENT_MAX = 4
"""Payloads of which it is remembered what is inside."""

_ARCHIVES = {"vgz": read_vtar, "tgz": read_ustar, "bootloader": read_ustar}
_USTAR_MAGIC = b"ustar"


@partial(Recent, count_max=RECENT_MAX)
def open_archive(content: bytes) -> tuple[TarEntry, ...]:
    """Return the entries of an unpacked module that is an archive (a trailer is passed over), or nothing for others.

    The last few are remembered: loader, verifier and kernel open the same payload one after another.
    """
    if is_vtar(content):
        return read_vtar(without_trailer(content))
    if content[257:262] == _USTAR_MAGIC:
        return read_ustar(without_trailer(content))
    return ()


@partial(Recent, count_max=RECENT_MAX)
def kernel_modules(content: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return name and bytes of each kernel module in an unpacked archive, in order."""
    return tuple(
        (entry.path.removeprefix(MODULE_FOLDER), entry.data)
        for entry in open_archive(content)
        if entry.kind is EntryKind.FILE and entry.path.startswith(MODULE_FOLDER)
    )


def payload_entries(kind: str, data: bytes) -> tuple[TarEntry, ...]:
    """Return the entries of a payload file as stored, whatever its kind: a kernel opens every archive that it finds.

    Errors: `FormatError` for a broken archive, and for a vgz, tgz or bootloader payload that is not the archive of its kind.
    """
    content = content_of(data)
    read = _ARCHIVES.get(kind)
    if read is None or is_vtar(content) is (read is read_vtar):
        entries = open_archive(content)
        if entries or read is None:
            return entries
    return read(without_trailer(content))


def paths_of(vib: Vib) -> tuple[str, ...]:
    """Return the path of every file and link in the payloads of a VIB, sorted."""
    return tuple(
        sorted(
            entry.path
            for payload in vib.payloads
            for entry in payload_entries(payload.kind, payload.data)
            if entry.kind is not EntryKind.DIRECTORY
        )
    )


def without_trailer(content: bytes) -> bytes:
    """Return the module without its signature trailer, which is not checked here; as it is if there is none."""
    trailer = split_trailer(content)
    return trailer.payload if trailer is not None else content
