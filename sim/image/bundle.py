"""Offline bundles: a depot of VIBs and image profiles in one zip file.

Models: index.xml (who publishes), vendor-index.xml (which metadata), metadata.zip (when it was made, image profiles, and a
copy of each descriptor with path, size and SHA-256 of the archive) and the VIBs below vib20/.  The reader takes
a bundle whole or not at all: every file is listed and there, each VIB has the size (this is known before any is unpacked)
and digest of the metadata and the descriptor that the metadata repeats, and nothing else is in it.  `DepotPolicy` bounds the age of the metadata.

**Metadata is not signed**, as in real bundles; VIBs are.  So an outdated copy of a depot is noticed by its age, and one
whose date was forged is not; nobody can make a VIB that `sim.image.install` would take.

Leaves out: bulletins, components, base images, and depots on a web server (`read_declared` is how a stream from one
is read: up to the size that was declared, and not a byte further).

Sources: layout from real offline bundles as described in public; element names inside index.xml, vendor-index.xml and
vmware.xml as remembered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from hashlib import sha256

import attrs

from sim.errors import FormatError, LimitError, VerificationError
from sim.image.boundedxml import Node, escape, parse_xml
from sim.image.boundedzip import ZipReader, read_zip, write_zip
from sim.image.profile import ImageProfile, parse_profile, write_profile
from sim.image.vib import Vib, read_vib, write_vib

__all__ = [
    "Depot",
    "DepotError",
    "DepotPolicy",
    "check_depot",
    "depot_of",
    "read_bundle",
    "read_declared",
    "write_bundle",
]

INDEX_BYTES_MAX = 1 << 20
METADATA_BYTES_MAX = 16 << 20
"""The largest metadata.zip, packed or not: four KiB for each VIB that a bundle can have."""
CHUNK_BYTES = 1 << 16

_WHAT = "offline bundle"
_INDEX, _VENDOR_INDEX, _METADATA = "index.xml", "vendor-index.xml", "metadata.zip"
_RESPONSE = "vmware.xml"
_VIB_FOLDER = "vib20"
_DEPOT_FIELDS = "relative-path", "packed-size", "checksum"


class DepotError(VerificationError):
    """A depot is not what its metadata says, or its metadata is too old."""


@attrs.frozen(kw_only=True)
class Depot:
    """What a bundle holds: its publisher, the time of its metadata, VIBs and image profiles."""

    vendor: str
    code: str
    made_at: datetime
    vibs: tuple[Vib, ...]
    profiles: tuple[ImageProfile, ...] = ()

    def profile(self, name: str) -> ImageProfile:
        """Return the image profile of that name; raises `DepotError` without one."""
        for profile in self.profiles:
            if profile.name == name:
                return profile
        raise DepotError("depot.profile", f"the depot holds no image profile {name[:80]!r}")


@attrs.frozen(kw_only=True)
class DepotPolicy:
    """How old metadata may be; None for no bound."""

    age_max: timedelta | None = None


def check_depot(depot: Depot, policy: DepotPolicy, now: datetime) -> None:
    """Demand metadata that is neither from the future nor older than the policy allows at the simulated time `now`."""
    if depot.made_at > now:
        raise DepotError("depot.future", f"metadata of {depot.made_at.isoformat()} is from the future")
    if policy.age_max is not None and now - depot.made_at > policy.age_max:
        days = (now - depot.made_at).days
        raise DepotError(
            "depot.age",
            f"metadata of {depot.made_at.isoformat()} is {days} days old, at most {policy.age_max.days} are allowed",
        )


def read_declared(read: Callable[[int], bytes], declared_bytes: int, bytes_max: int, what: str) -> bytes:
    """Return what a stream gives, which must end at its declared size; one byte beyond is asked for, never more.

    Errors: `LimitError` when more is declared than `bytes_max` or when the stream goes on, `FormatError` when it ends early.
    """
    if not 0 <= declared_bytes <= bytes_max:
        raise LimitError(what, "", f"declares {declared_bytes} bytes, at most {bytes_max} are read")
    parts: list[bytes] = []
    left = declared_bytes
    while left > 0:
        part = read(min(left, CHUNK_BYTES))
        if not part:
            raise FormatError(what, "", f"ends {left} bytes before its declared size")
        if len(part) > left:
            raise LimitError(what, "", f"gives more than the {declared_bytes} bytes that it declares")
        parts.append(part)
        left -= len(part)
    if read(1):
        raise LimitError(what, "", f"goes on after the {declared_bytes} bytes that it declares")
    return b"".join(parts)


def write_bundle(depot: Depot) -> bytes:
    """Return the bundle of a depot; equal depots give equal bytes."""
    archives = {_path(vib): write_vib(vib) for vib in depot.vibs}
    metadata = {_RESPONSE: _response(depot), _VENDOR_INDEX: _vendor_index()}
    for (path, data), vib in zip(archives.items(), depot.vibs, strict=True):
        metadata[f"vibs/{vib.vib_id}.xml"] = _copy(vib, path, data)
    for number, profile in enumerate(depot.profiles):
        metadata[f"profiles/{number:04d}.xml"] = write_profile(profile)
    return write_zip(
        {
            _INDEX: _index(depot),
            _VENDOR_INDEX: _vendor_index(),
            _METADATA: write_zip(metadata),
            **archives,
        }
    )


def read_bundle(data: bytes) -> Depot:
    """Return the depot in a bundle, whole; raises `FormatError` or `DepotError` and returns nothing otherwise."""
    files = ZipReader(data, _WHAT)
    vendor = _only(parse_xml(files.read(_INDEX, INDEX_BYTES_MAX), _INDEX), "vendor", _INDEX)
    index = files.read(_text(vendor, "indexfile", _INDEX), INDEX_BYTES_MAX)
    entry = _only(parse_xml(index, _VENDOR_INDEX), "metadata", _VENDOR_INDEX)
    url = _text(entry, "url", _VENDOR_INDEX)
    packed = files.read(url, METADATA_BYTES_MAX)
    metadata = read_zip(packed, _METADATA, content_bytes_max=METADATA_BYTES_MAX)
    if metadata.get(_VENDOR_INDEX) != index:
        raise DepotError("depot.index", f"{_VENDOR_INDEX} differs from the one in {_METADATA}")
    copies = {
        name: parse_xml(xml, name) for name, xml in sorted(metadata.items()) if name.startswith("vibs/")
    }
    _check_listed(files, metadata, copies, {_INDEX, _VENDOR_INDEX, url})
    depot = Depot(
        vendor=_text(vendor, "name", _INDEX),
        code=_text(vendor, "code", _INDEX),
        made_at=_time(parse_xml(_file(metadata, _RESPONSE), _RESPONSE)),
        vibs=tuple(_read_vib(name, copy, files) for name, copy in copies.items()),
        profiles=tuple(
            parse_profile(xml) for name, xml in sorted(metadata.items()) if name.startswith("profiles/")
        ),
    )
    _check_names(depot)
    return depot


def _check_listed(
    files: ZipReader, metadata: dict[str, bytes], copies: dict[str, Node], fixed: set[str]
) -> None:
    """Demand, before any VIB is unpacked, that it has the size of the metadata and that nothing is in no list."""
    listed = set()
    for name, copy in copies.items():
        path, size = _text(copy, "relative-path", name), _text(copy, "packed-size", name)
        found = files.sizes.get(path)
        if found is not None and size != str(found):
            raise DepotError("depot.size", f"{path} has {found} bytes, the metadata declares {size[:20]}")
        listed.add(path)
    unlisted = sorted(set(files.sizes) - fixed - listed)
    unlisted += sorted(
        name
        for name in metadata
        if name not in (_RESPONSE, _VENDOR_INDEX)
        and not name.startswith(("vibs/", "profiles/", "bulletins/"))
    )
    if unlisted:
        raise DepotError("depot.unlisted", f"{unlisted[0]} is in the bundle and in no list")


def _check_names(depot: Depot) -> None:
    """Demand that no id or name stands twice, and that profiles name VIBs that are there."""
    for names in ([vib.vib_id for vib in depot.vibs], [profile.name for profile in depot.profiles]):
        for name, count in Counter(names).items():
            if count > 1:
                raise DepotError("depot.twice", f"{name} stands twice in the metadata")
    known = {vib.vib_id for vib in depot.vibs}
    for profile in depot.profiles:
        for vib_id in profile.vib_ids:
            if vib_id not in known:
                raise DepotError(
                    "depot.profile", f"image profile {profile.name} names {vib_id}, which is not there"
                )


def _read_vib(name: str, copy: Node, files: ZipReader) -> Vib:
    path = _text(copy, "relative-path", name)
    data = files.read(path)
    digest = _text(_only(copy, "checksum", name), "checksum", name)
    if digest != sha256(data).hexdigest():
        raise DepotError("depot.digest", f"{path} has another SHA-256 than the metadata says")
    vib = read_vib(data)
    own = [child for child in copy.children if child.tag not in _DEPOT_FIELDS]
    if own != parse_xml(vib.descriptor_xml, path).children or path != _path(vib):
        raise DepotError("depot.descriptor", f"{name} is not the descriptor of {path}")
    return vib


def _path(vib: Vib) -> str:
    return f"{_VIB_FOLDER}/{vib.descriptor.name}/{vib.vib_id}.vib"


def _copy(vib: Vib, path: str, data: bytes) -> bytes:
    """Return the descriptor's copy for the metadata: the same elements, and three more at the end."""
    body, closing, _ = vib.descriptor_xml.rpartition(b"</vib>")
    fields = (
        f"<relative-path>{escape(path)}</relative-path><packed-size>{len(data)}</packed-size>"
        f"<checksum><checksum-type>sha-256</checksum-type><checksum>{sha256(data).hexdigest()}</checksum></checksum>"
    )
    return body + fields.encode() + closing


def _index(depot: Depot) -> bytes:
    return (
        f"<vendorList><vendor><name>{escape(depot.vendor)}</name><code>{escape(depot.code)}</code>"
        f"<indexfile>{_VENDOR_INDEX}</indexfile></vendor></vendorList>"
    ).encode()


def _vendor_index() -> bytes:
    return f"<metaList><metadata><url>{_METADATA}</url></metadata></metaList>".encode()


def _response(depot: Depot) -> bytes:
    return (
        f"<metadataResponse><version>3.0</version><timestamp>{depot.made_at.isoformat()}</timestamp></metadataResponse>"
    ).encode()


def _file(files: dict[str, bytes], name: str) -> bytes:
    if name not in files:
        raise FormatError(_WHAT, name[:60], "is missing")
    return files[name]


def _only(node: Node, tag: str, what: str) -> Node:
    found = node.named(tag)
    if len(found) != 1:
        raise FormatError(what, tag, f"stands {len(found)} times, expected once")
    return found[0]


def _text(node: Node, tag: str, what: str) -> str:
    return _only(node, tag, what).text.strip()


def _time(node: Node) -> datetime:
    text = _text(node, "timestamp", _RESPONSE)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise FormatError(_RESPONSE, "timestamp", f"{text[:40]!r} is not a time") from None
    if found.tzinfo is None:
        raise FormatError(_RESPONSE, "timestamp", "has no time zone")
    return found


def depot_of(
    vibs: Iterable[Vib], *, vendor: str, made_at: datetime, profiles: Iterable[ImageProfile] = ()
) -> Depot:
    """Return a depot of these VIBs, in the order of their ids."""
    return Depot(
        vendor=vendor,
        code=vendor.lower()[:3],
        made_at=made_at,
        vibs=tuple(sorted(vibs, key=lambda vib: vib.vib_id)),
        profiles=tuple(profiles),
    )
