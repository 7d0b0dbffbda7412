"""The reference manifest: what the makers of an image publish, so that a verifier can judge what was measured.

Models the digests that a boot loader measures for each component (of the content after unpacking), the VIB it comes
from, the order in which a boot loads them, which versions of VIBs are one release, the certificates of the early-module
signers, the Authenticode digests of the EFI loaders, and what makers of servers publish (`sim.image.platform`).  It
holds digests only, so it can be handed to anybody, as JSON too.

A component of no VIB has empty VIB fields, as in the attestation report of a real host.  SHA-1 is left out on
purpose: such a digest proves nothing today.

Leaves out a signature over the manifest and its age; both are the verifier's policy.

Sources: HostTpmSoftwareComponentEventDetails of the vSphere API (fields); vmware/esx-boot (what is digested).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sim.errors import FormatError
from sim.image.bootbank import BootBank
from sim.image.bootcfg import CONFIG_FILE
from sim.image.boundedjson import parse_json
from sim.image.imgdb import DATABASE_FILE, VibRecord
from sim.image.payload import content_of
from sim.image.pe import authenticode_digest
from sim.image.platform import ReferencePlatform, platform_from_plain, platform_to_plain

if TYPE_CHECKING:
    from sim.image.catalog import Image

__all__ = [
    "DIGESTS",
    "MANIFEST_BYTES_MAX",
    "ReferenceComponent",
    "ReferenceLoader",
    "ReferenceManifest",
    "measured_digests",
]

DIGESTS = ("sha256", "sha384", "sha512")
"""The digests that a manifest gives, by their names in hashlib."""

MANIFEST_BYTES_MAX = 32 << 20
MANIFEST_VALUES_MAX = 400_000

_WHAT = "reference manifest"


@attrs.frozen(kw_only=True)
class ReferenceComponent:
    """A published file of a boot bank: its name there, its digests (one of each kind), and the VIB it comes from."""

    name: str
    digests: tuple[bytes, ...] = attrs.field(repr=False)
    vib_name: str = ""
    vib_version: str = ""
    vib_vendor: str = ""
    level: str = ""


@attrs.frozen(kw_only=True)
class ReferenceLoader:
    """A published EFI loader: its path and its Authenticode digests."""

    name: str
    digests: tuple[bytes, ...] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ReferenceManifest:
    """Everything published about one image, or about several after `merged`."""

    components: tuple[ReferenceComponent, ...] = ()
    loaders: tuple[ReferenceLoader, ...] = ()
    signers: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    orders: tuple[tuple[str, ...], ...] = attrs.field(default=(), repr=False)
    """The order in which a boot loads its files, for each published bank."""
    releases: tuple[tuple[tuple[str, str], ...], ...] = attrs.field(default=(), repr=False)
    """For each published bank: name and version of the VIBs with a file in it, name and SHA-256 of the database."""
    platforms: tuple[ReferencePlatform, ...] = ()
    """What makers of servers publish of their models."""
    _by_digest: dict[bytes, tuple[ReferenceComponent, ...]] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        index: dict[bytes, tuple[ReferenceComponent, ...]] = {}
        for component in self.components:
            for digest in component.digests:
                index[digest] = (*index.get(digest, ()), component)
        object.__setattr__(self, "_by_digest", index)

    @classmethod
    def from_image(cls, image: Image) -> ReferenceManifest:
        """Return what the makers of an image publish about it."""
        return cls.from_bank(image.bank, image.esp, image.early_certificates)

    @classmethod
    def from_bank(
        cls, bank: BootBank, loaders: Mapping[str, bytes], signers: Iterable[bytes] = ()
    ) -> ReferenceManifest:
        """Return the manifest of a boot bank's files, of EFI loaders (path to bytes) and of signer certificates."""
        owners = {name: record for record in bank.database.records for name in record.files}
        return cls(
            components=tuple(
                _component(name, bank.files[name], owners.get(name))
                for name in sorted(bank.files)
                if name != CONFIG_FILE
            ),
            loaders=tuple(
                ReferenceLoader(name=name, digests=tuple(authenticode_digest(data, kind) for kind in DIGESTS))
                for name, data in sorted(loaders.items())
            ),
            signers=tuple(signers),
            orders=(bank.config.load_order,) if CONFIG_FILE in bank.files else (),
            releases=(_release(bank),),
        )

    def with_digest(self, digest: bytes) -> tuple[ReferenceComponent, ...]:
        """Return the components that are published with this digest."""
        return self._by_digest.get(digest, ())

    def named(self, name: str) -> tuple[ReferenceComponent, ...]:
        """Return the components published under a file name."""
        return tuple(component for component in self.components if component.name == name)

    def merged(self, other: ReferenceManifest) -> ReferenceManifest:
        """Return both manifests as one, without repetitions."""
        return ReferenceManifest(
            components=tuple(dict.fromkeys(self.components + other.components)),
            loaders=tuple(dict.fromkeys(self.loaders + other.loaders)),
            signers=tuple(dict.fromkeys(self.signers + other.signers)),
            orders=tuple(dict.fromkeys(self.orders + other.orders)),
            releases=tuple(dict.fromkeys(self.releases + other.releases)),
            platforms=tuple(dict.fromkeys(self.platforms + other.platforms)),
        )

    def to_json(self) -> str:
        """Return the manifest as JSON, in one spelling."""
        document = {
            "components": [_plain(component) for component in self.components],
            "loaders": [_plain(loader) for loader in self.loaders],
            "signers": [signer.hex() for signer in self.signers],
            "orders": [list(order) for order in self.orders],
            "releases": [[list(vib) for vib in release] for release in self.releases],
            "platforms": [platform_to_plain(platform) for platform in self.platforms],
        }
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ReferenceManifest:
        """Return the manifest in a JSON text; `FormatError` if it is none.

        `orders`, `releases` and `platforms` may be missing.
        """
        document = parse_json(text, _WHAT, size_max=MANIFEST_BYTES_MAX, values_max=MANIFEST_VALUES_MAX)
        absent: dict[str, list[object]] = {key: [] for key in ("orders", "releases", "platforms")}
        document = absent | document if isinstance(document, dict) else document
        fields = _only(document, ("components", "loaders", "signers", *absent), "root")
        return cls(
            components=tuple(
                ReferenceComponent(**_strings(item, _COMPONENT_TEXTS, f"component {number}"))
                for number, item in enumerate(_list(fields["components"], "components"))
            ),
            loaders=tuple(
                ReferenceLoader(**_strings(item, ("name",), f"loader {number}"))
                for number, item in enumerate(_list(fields["loaders"], "loaders"))
            ),
            signers=tuple(_bytes(item, "signers") for item in _list(fields["signers"], "signers")),
            orders=tuple(_names(item, "orders") for item in _list(fields["orders"], "orders")),
            releases=tuple(
                tuple(_pair(vib) for vib in _list(item, "releases"))
                for item in _list(fields["releases"], "releases")
            ),
            platforms=tuple(
                platform_from_plain(item, f"platform {number}")
                for number, item in enumerate(_list(fields["platforms"], "platforms"))
            ),
        )


def measured_digests(name: str, data: bytes) -> tuple[bytes, ...]:
    """Return what a boot loader measures for a stored file: digests of what it unpacks to.

    An empty module counts as one zero byte; an empty option file (.gz) as nothing.
    """
    content = content_of(data)
    if not content and not name.endswith(".gz"):
        content = b"\0"
    return tuple(hashlib.new(digest, content).digest() for digest in DIGESTS)


_COMPONENT_TEXTS = ("name", "vib_name", "vib_version", "vib_vendor", "level")


def _component(name: str, data: bytes, owner: VibRecord | None) -> ReferenceComponent:
    digests = measured_digests(name, data)
    if owner is None:
        return ReferenceComponent(name=name, digests=digests)
    vib = owner.descriptor
    return ReferenceComponent(
        name=name,
        digests=digests,
        vib_name=vib.name,
        vib_version=vib.version,
        vib_vendor=vib.vendor,
        level=vib.level.title,
    )


def _release(bank: BootBank) -> tuple[tuple[str, str], ...]:
    vibs = [record.descriptor for record in bank.database.records if record.files]
    database = measured_digests(DATABASE_FILE, bank.files[DATABASE_FILE])[0]
    return (*sorted((vib.name, vib.version) for vib in vibs), (DATABASE_FILE, database.hex()))


def _plain(item: ReferenceComponent | ReferenceLoader) -> dict[str, object]:
    return {**attrs.asdict(item), "digests": [digest.hex() for digest in item.digests]}


def _only(value: object, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(keys):
        raise FormatError(_WHAT, where, f"is not an object of {', '.join(keys)}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(_WHAT, where, "is not a list")
    return value


def _strings(value: object, texts: tuple[str, ...], where: str) -> dict[str, Any]:
    fields = _only(value, (*texts, "digests"), where)
    for key in texts:
        if not isinstance(fields[key], str):
            raise FormatError(_WHAT, where, f"{key} is not a text")
    return {**fields, "digests": tuple(_bytes(item, where) for item in _list(fields["digests"], where))}


def _names(value: object, where: str) -> tuple[str, ...]:
    names = _list(value, where)
    if not all(isinstance(name, str) for name in names):
        raise FormatError(_WHAT, where, "hold something that is not a name")
    return tuple(names)


def _pair(value: object) -> tuple[str, str]:
    names = _names(value, "releases")
    if len(names) != 2:
        raise FormatError(_WHAT, "releases", "hold something that is not a name and a version")
    return names[0], names[1]


def _bytes(value: object, where: str) -> bytes:
    try:
        return bytes.fromhex(value if isinstance(value, str) else "?")
    except ValueError:
        raise FormatError(_WHAT, where, "holds something that is not hex") from None
