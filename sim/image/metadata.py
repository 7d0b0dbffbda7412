"""The records of a descriptor: identity of a VIB, relations, install options, payloads and their checksums.

Models the fields that a VIB's descriptor.xml holds, as values; `sim.image.descriptor` reads and writes them as XML.
Leaves out the extra fields of a depot's copy (relative path, packed size, checksum of the whole archive).

Sources: descriptors of real VIBs; VMware's documentation of the VIB format for limits and words.
"""

from __future__ import annotations

from datetime import UTC, datetime

import attrs

from sim.image.acceptance import AcceptanceLevel

__all__ = ["OPERATORS", "Checksum", "Descriptor", "PayloadEntry", "Platform", "Relation"]

OPERATORS = ("<<", "<=", "=", ">=", ">>")
"""The bounds that a relation may put on a version."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Relation:
    """A name that a VIB needs, excludes, replaces or provides, with an optional bound on its version."""

    name: str
    operator: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.in_(OPERATORS))
    )
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {self.version}" if self.operator else self.name


@attrs.frozen(kw_only=True)
class Platform:
    """A product that a VIB is made for."""

    product_line: str
    version: str = ""
    locale: str = ""


@attrs.frozen(kw_only=True)
class Checksum:
    """A digest of a payload file as stored, or of its content when `process` is "gunzip"."""

    algorithm: str
    digest: bytes
    process: str = ""

    @property
    def label(self) -> str:
        """How a report names it, such as "sha-1 gunzip"."""
        return f"{self.algorithm} {self.process}".strip()

    @property
    def check(self) -> str:
        """The name of the check that compares it."""
        return f"payload.{self.label.replace(' ', '.')}"


@attrs.frozen(kw_only=True)
class PayloadEntry:
    """What the descriptor says of one payload file."""

    name: str
    kind: str
    size: int
    checksums: tuple[Checksum, ...]

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of the file as stored; every entry that was read has one."""
        return next(c.digest for c in self.checksums if c.algorithm == "sha-256" and not c.process)


@attrs.frozen(kw_only=True)
class Descriptor:
    """The fields of one descriptor.xml; `unknown` lists the paths of elements and @attributes that nobody here understands."""

    name: str
    version: str
    vendor: str
    level: AcceptanceLevel
    payloads: tuple[PayloadEntry, ...] = ()
    kind: str = "bootbank"
    summary: str = ""
    description: str = ""
    release_date: datetime = _EPOCH
    urls: tuple[tuple[str, str], ...] = ()
    depends: tuple[Relation, ...] = ()
    conflicts: tuple[Relation, ...] = ()
    replaces: tuple[Relation, ...] = ()
    provides: tuple[Relation, ...] = ()
    compatible_with: tuple[Relation, ...] = ()
    software_tags: tuple[str, ...] = ()
    maintenance_mode: bool = False
    platforms: tuple[Platform, ...] = ()
    files: tuple[str, ...] = ()
    live_install_allowed: bool = False
    live_remove_allowed: bool = False
    cimom_restart: bool = False
    stateless_ready: bool = True
    overlay: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def vib_id(self) -> str:
        """The identity that esxcli prints: vendor, type, name and version."""
        return f"{self.vendor}_{self.kind}_{self.name}_{self.version}"

    def payload(self, name: str) -> PayloadEntry | None:
        """Return the payload entry of that name."""
        return next((entry for entry in self.payloads if entry.name == name), None)
