"""What was booted: measured components against the published ones.

Models: the manifest is looked up by digest, never by name.  A digest that nobody published is a changed component if
the manifest knows its name, an unexpected one if not; a known digest under another's name is a swapped file; what
the manifest demands and nobody measured is missing; components of a PCR were loaded in the published order, and came
in one release: nobody published an old driver among newer ones, though each of them was.  Signers and the command line
have rules of their own.

Leaves out: a whole older release, which was published too (a policy engine's least versions are for that); rules that
survive an update without a new manifest (by signer), and sealing.

Sources: go-attestation, "Event log disclosure" (event data are not evidence); vmware/esx-boot (what is measured);
Intel SecL's rules for ESXi hosts (which components a flavour demands).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sim.attest.esx_events import Measurement
from sim.attest.verdict import AttestationError, Component
from sim.errors import FormatError
from sim.image.manifest import ReferenceManifest
from sim.tpm.tagged import EsxTag

__all__ = [
    "check_asset_tags",
    "check_boot_options",
    "check_command_line",
    "check_component",
    "check_kernel",
    "check_load_order",
    "check_once",
    "check_present",
    "check_release",
    "check_signer",
    "check_versions",
    "read_command_line",
]

OPTION_SUFFIX: Final = ".gz"
VERSIONED: Final = frozenset({b"b", b"k"})
"""The modules whose version record the loader measures before the module itself."""


def check_component(measurement: Measurement, algorithm: int, manifest: ReferenceManifest) -> Component:
    """Return the published component that a module or option file is; AttestationError names it otherwise."""
    digest = measurement.digests.get(algorithm, b"")
    published = manifest.with_digest(digest)
    name = measurement.title
    for component in published:
        if _is_named(component.name, name):
            return Component(
                name=component.name,
                pcr=measurement.pcr,
                digest=digest,
                vib_name=component.vib_name,
                vib_version=component.vib_version,
                vib_vendor=component.vib_vendor,
                level=component.level,
            )
    evidence = f"PCR {measurement.pcr}, digest {digest.hex()}"
    if published:
        raise AttestationError(
            "component_name",
            f"component {name} is in truth {published[0].name}",
            component=name,
            evidence=evidence,
        )
    for component in manifest.components:
        if _is_named(component.name, name):
            vib = f" of {component.vib_name}" if component.vib_name else ""
            raise AttestationError(
                "component_digest",
                f"component {component.name}{vib} is not as its vendor published it",
                component=component.name,
                evidence=evidence,
            )
    raise AttestationError(
        "component_unknown", f"component {name} is not known to any vendor", component=name, evidence=evidence
    )


def _is_named(file_name: str, title: str) -> bool:
    """Tell whether an event's title means this file; the loader leaves the extension out for some modules."""
    return title in {file_name, file_name.partition(".")[0]}


def check_once(components: Iterable[Component]) -> None:
    """Demand that no published component was measured twice, under whatever name."""
    seen: set[str] = set()
    for component in components:
        if component.name in seen:
            raise AttestationError(
                "component_twice", f"component {component.name} was measured twice", component=component.name
            )
        seen.add(component.name)


def check_load_order(components: Sequence[Component], orders: Sequence[Sequence[str]]) -> None:
    """Demand that modules, and option files, of each PCR were measured in the order of a published bank.

    Only banks that know the most of the components count; the order between PCRs is in no value, and is not judged.
    """
    names = [component.name for component in components]
    known = [len(set(order).intersection(names)) for order in orders]
    best = [order for order, count in zip(orders, known, strict=True) if count == max(known)]
    misplaced = [_misplaced(components, order) for order in best]
    if misplaced and all(misplaced):
        first = misplaced[0]
        assert first is not None
        raise AttestationError(
            "component_order",
            f"component {first.name} was not loaded at its place in the published order",
            component=first.name,
            evidence=f"PCR {first.pcr}",
        )


def _misplaced(components: Iterable[Component], order: Sequence[str]) -> Component | None:
    """Return the first component that stands behind one which the order has later, in its PCR and of its kind."""
    places = {name: place for place, name in enumerate(order)}
    reached: dict[tuple[int, bool], int] = {}
    for component in components:
        place = places.get(component.name)
        if place is None:
            continue
        line = component.pcr, component.name.endswith(OPTION_SUFFIX)
        if place < reached.get(line, place):
            return component
        reached[line] = place
    return None


def check_release(components: Iterable[Component], manifest: ReferenceManifest) -> None:
    """Demand that image database and VIBs are those of one published bank; the file that fits no bank is named.

    A file that is the same in several versions is of each of them, and one that no bank has is not judged here.
    """
    known = {name for release in manifest.releases for name, _ in release}
    parts = [(component, _parts_of(component, manifest)) for component in components]
    judged = [(component, of) for component, of in parts if known.intersection(name for name, _ in of)]
    strays = [
        ([component for component, of in judged if not of & set(release)], dict(release))
        for release in manifest.releases
    ]
    if not strays or not all(found for found, _ in strays):
        return
    (component, *_), release = min(strays, key=lambda each: (len(each[0]), not each[0][0].vib_name))
    where = f"{component.vib_name} {component.vib_version}" if component.vib_name else "another release"
    published = release.get(component.vib_name, "none")
    beside = f", published beside the others is {published}" if component.vib_name else " than the others"
    raise AttestationError(
        "release_mix",
        f"component {component.name} is of {where}{beside}",
        component=component.name,
        evidence=f"PCR {component.pcr}, digest {component.digest.hex()}",
    )


def _parts_of(component: Component, manifest: ReferenceManifest) -> set[tuple[str, str]]:
    """Return name and version of each VIB in which this very file is published; for no VIB, its own name and digest."""
    return {
        (one.vib_name, one.vib_version) if one.vib_name else (one.name, component.digest.hex())
        for one in manifest.with_digest(component.digest)
        if one.name == component.name
    }


def check_kernel(command_line: str, orders: Sequence[Sequence[str]]) -> None:
    """Demand that the file which the command line names as the kernel is the first of a published bank."""
    name = command_line.partition(" ")[0]
    if orders and name not in {order[0] for order in orders if order}:
        raise AttestationError(
            "kernel_name",
            f"{name[:60]!r} was booted as the kernel, which no published bank does",
            component="command line",
            evidence=command_line,
        )


def check_versions(measurements: Sequence[Measurement]) -> None:
    """Demand that each version record stands directly before the module b or k that it is about, once.

    The digest of a version record is over free text, so a record in any other place could be another file, disguised.
    """
    for measurement, following in zip(measurements, [*measurements[1:], None], strict=True):
        if measurement.tag is not EsxTag.VERSION:
            continue
        module = following.body if following and following.tag is EsxTag.MOD else b""
        versioned = module.partition(b".")[0] in VERSIONED
        if not versioned or not measurement.body.endswith(module + b"\0"):
            raise AttestationError(
                "version_record",
                "a version record was measured that belongs to no module",
                component=measurement.title,
            )


def check_asset_tags(measurements: Iterable[Measurement], allowed: tuple[bytes, ...] | None) -> None:
    """Demand that at most one asset tag was measured, and an allowed one."""
    tags = [measurement for measurement in measurements if measurement.tag is EsxTag.TAG]
    if len(tags) > 1:
        raise AttestationError("asset_tag", f"{len(tags)} asset tags were measured where one may be")
    if tags and allowed is not None and tags[0].body not in allowed:
        raise AttestationError("asset_tag", f"the asset tag {tags[0].title!r} is not an allowed one")


def check_present(name: str, measurements: Iterable[Measurement], manifest: ReferenceManifest) -> None:
    """Demand that the component `name` was measured, whatever its digest."""
    if any(_is_named(name, measurement.title) for measurement in measurements):
        return
    vibs = [component.vib_name for component in manifest.named(name) if component.vib_name]
    vib = f" of {vibs[0]}" if vibs else ""
    raise AttestationError("component_missing", f"component {name}{vib} was not booted", component=name)


def check_signer(measurement: Measurement, manifest: ReferenceManifest) -> None:
    """Demand that a signer's certificate is one that the manifest lists."""
    if measurement.body not in manifest.signers:
        raise AttestationError(
            "signer",
            "something was booted that an unknown signer signed",
            component="signer",
            evidence=f"certificate of {len(measurement.body)} bytes",
        )


def read_command_line(measurements: Iterable[Measurement]) -> str:
    """Return the one command line that was measured, `file name options`."""
    lines = [measurement.body for measurement in measurements if measurement.tag is EsxTag.CMD_OPT]
    if len(lines) != 1:
        raise AttestationError("command_line", f"{len(lines)} command lines were measured where one must be")
    try:
        text = lines[0].decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError("command line", f"byte {error.start}", "not ASCII") from error
    if not text.isprintable():
        raise FormatError("command line", "", "characters that cannot be printed")
    return text


def check_command_line(text: str, known: Sequence[str] | None) -> None:
    """Demand one of the known command lines, if the policy knows any."""
    if known is not None and text not in known:
        raise AttestationError(
            "command_line",
            f"the command line {text[:80]!r} is not a known one",
            component="command line",
            evidence=text,
        )


def check_boot_options(text: str, allowed: Sequence[str] | None, required: Sequence[tuple[str, str]]) -> None:
    """Demand that the options of a command line are allowed ones, and that the required ones stand there."""
    pairs = [word.partition("=") for word in text.split(" ")[1:] if word]
    options = {name: value for name, _, value in pairs}
    surplus = [name for name in options if allowed is not None and name not in allowed]
    missing = [f"{name}={value}" for name, value in required if options.get(name) != value]
    if surplus or missing:
        what = f"{surplus[0][:60]} is not allowed" if surplus else f"{missing[0]} is missing"
        raise AttestationError(
            "boot_option", f"the boot option {what}", component="command line", evidence=text
        )
