"""Reports about VIBs and boot banks: what is in them, and who they are from.

Models nothing.  Leaves out the checks themselves, which `sim.image` makes.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.image.bankcheck import BankReport
from sim.image.bundle import Depot
from sim.image.inspection import BankInspection, InspectedPayload, VibInspection
from sim.image.metadata import Descriptor
from sim.image.vib import VibIdentity
from sim.report.table import Column, Section, Table

__all__ = ["bank_check_sections", "bank_sections", "depot_sections", "identity_section", "vib_sections"]


def vib_sections(found: VibInspection) -> Iterator[Section]:
    """Yield descriptor, members, payload files and checksums of a VIB."""
    yield Section(title=found.descriptor.vib_id, lines=tuple(_descriptor_lines(found.descriptor)))
    members = tuple((name, str(size)) for name, size in found.members)
    yield Section(title="Members", table=_table(("NAME", "SIZE"), members, right=(1,)))
    for payload in found.payloads:
        yield _payload_section(payload)
    yield _problems(found.problems, "every checksum holds; who it is from is what `image verify` says")


def bank_sections(found: BankInspection) -> Iterator[Section]:
    """Yield profile, load order and VIBs of a boot bank."""
    config = found.config
    lines = (
        f"acceptance level: {found.level}",
        f"kernel: {config.kernel}   options: {config.kernelopt or '-'}   updated: {config.updated}",
        f"{len(config.load_order)} files in load order",
    )
    yield Section(title=found.name, lines=lines)
    rows = tuple(
        (vib.descriptor.name, vib.descriptor.version, vib.descriptor.vendor, vib.descriptor.level.title)
        + (str(vib.signature_bytes), " ".join(file.name for file in vib.files))
        for vib in found.vibs
    )
    headings = ("VIB", "VERSION", "VENDOR", "ACCEPTANCE LEVEL", "SIGNATURE BYTES", "FILES")
    yield Section(title="Installed VIBs", table=_table(headings, rows, right=(4,)))
    unowned = tuple((file.name, str(file.size), str(file.content_bytes)) for file in found.unowned)
    table = _table(("FILE", "STORED", "UNPACKED"), unowned, right=(1, 2))
    yield Section(title="Files of no VIB", table=table)
    yield _problems(found.problems, "every file has the digest that its descriptor names")


def depot_sections(depot: Depot) -> Iterator[Section]:
    """Yield publisher, VIBs and image profiles of a depot."""
    yield Section(
        title=f"Depot of {depot.vendor}",
        lines=(f"metadata of {depot.made_at.isoformat()}, signed by nobody",),
    )
    rows = tuple((vib.vib_id, vib.descriptor.level.title, str(len(vib.signature))) for vib in depot.vibs)
    yield Section(
        title="VIBs", table=_table(("VIB", "ACCEPTANCE LEVEL", "SIGNATURE BYTES"), rows, right=(2,))
    )
    profiles = tuple((one.name, one.vendor, one.level.title, str(len(one.vib_ids))) for one in depot.profiles)
    headings = ("IMAGE PROFILE", "VENDOR", "ACCEPTANCE LEVEL", "VIBS")
    yield Section(title="Image profiles", table=_table(headings, profiles, right=(3,)))


def identity_section(identity: VibIdentity) -> Section:
    """Return who a verified VIB is from."""
    provider = identity.provider or "nobody: it is unsigned"
    return Section(
        title=identity.vib_id,
        lines=(f"acceptance level: {identity.level.title}", f"signed by: {provider}"),
        mood="good" if identity.signer is not None else "plain",
    )


def bank_check_sections(report: BankReport) -> Iterator[Section]:
    """Yield what the Secure Boot VIB verifier found in a boot bank."""
    rows = tuple(
        (
            vib.descriptor.name,
            vib.descriptor.version,
            vib.descriptor.level.title,
            "refused" if vib.identity is None else vib.identity.provider or "nobody",
        )
        for vib in report.vibs
    )
    yield Section(title="VIBs", table=_table(("VIB", "VERSION", "ACCEPTANCE LEVEL", "SIGNED BY"), rows))
    lines = tuple(failure.message for failure in report.failures)
    yield _problems((*lines, report.message) if lines else (), f"all {len(rows)} VIBs verified")


def _descriptor_lines(descriptor: Descriptor) -> Iterator[str]:
    yield f"name: {descriptor.name}   version: {descriptor.version}   vendor: {descriptor.vendor}"
    yield f"acceptance level: {descriptor.level.title}"
    if descriptor.summary:
        yield f"summary: {descriptor.summary}"
    for title, relations in (
        ("depends on", descriptor.depends),
        ("conflicts with", descriptor.conflicts),
        ("replaces", descriptor.replaces),
        ("provides", descriptor.provides),
    ):
        if relations:
            yield f"{title}: {', '.join(map(str, relations))}"


def _payload_section(payload: InspectedPayload) -> Section:
    lines = (
        f"type {payload.kind}, {payload.size} bytes stored, {payload.content_bytes} unpacked",
        *(f"{label}: {'holds' if holds else 'WRONG'}" for label, holds in payload.checksums),
    )
    rows = tuple((f"{entry.mode:04o}", str(entry.size), entry.path) for entry in payload.files)
    table = _table(("MODE", "SIZE", "FILE"), rows, right=(1,)) if rows else None
    return Section(title=f"Payload {payload.name}", lines=lines, table=table)


def _problems(problems: tuple[str, ...], good: str) -> Section:
    if not problems:
        return Section(title="Verdict", lines=(good,), mood="good")
    return Section(title="Problems", lines=problems, mood="bad")


def _table(
    headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...], right: tuple[int, ...] = ()
) -> Table:
    columns = tuple(Column(name, right=number in right) for number, name in enumerate(headings))
    return Table(columns=columns, rows=rows)
