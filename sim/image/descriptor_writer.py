"""descriptor.xml, written in one spelling.

Models the order of fields and the absence of white space that real VIBs show: reading a real descriptor and writing
it again gives the same bytes.  Leaves out elements that the reader did not know.

Sources: descriptors of real VIBs.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.image.boundedxml import escape
from sim.image.metadata import Checksum, Descriptor, PayloadEntry, Platform, Relation

__all__ = ["write_descriptor"]


def write_descriptor(descriptor: Descriptor) -> bytes:
    """Return the one spelling of a descriptor: fields in order, no white space, as real VIBs have it."""
    d = descriptor
    relations = (
        ("depends", d.depends),
        ("conflicts", d.conflicts),
        ("replaces", d.replaces),
        ("provides", d.provides),
        ("compatibleWith", d.compatible_with),
    )
    flags = (
        ("live-install-allowed", d.live_install_allowed),
        ("live-remove-allowed", d.live_remove_allowed),
        ("cimom-restart", d.cimom_restart),
        ("stateless-ready", d.stateless_ready),
        ("overlay", d.overlay),
    )
    requires = [_leaf("maintenance-mode", _word(d.maintenance_mode)), *map(_write_platform, d.platforms)]
    fields = [
        _leaf("type", d.kind),
        _leaf("name", d.name),
        _leaf("version", d.version),
        _leaf("vendor", d.vendor),
        _leaf("summary", d.summary),
        _leaf("description", d.description),
        _leaf("release-date", d.release_date.isoformat()),
        _group("urls", (f'<url key="{escape(key)}">{escape(url)}</url>' for key, url in d.urls)),
        _group("relationships", (_group(tag, map(_write_relation, items)) for tag, items in relations)),
        _group("software-tags", (_leaf("tag", tag) for tag in d.software_tags)),
        _group("system-requires", requires),
        _group("file-list", (_leaf("file", path) for path in d.files)),
        _leaf("acceptance-level", d.level.xml_name),
        *(_leaf(tag, _word(value)) for tag, value in flags),
        _group("payloads", map(_write_payload, d.payloads)),
    ]
    return f'<vib version="5.0">{"".join(fields)}</vib>'.encode()


def _word(flag: bool) -> str:  # noqa: FBT001 - it spells one
    return "true" if flag else "false"


def _leaf(tag: str, text: str) -> str:
    return f"<{tag}>{escape(text)}</{tag}>" if text else f"<{tag}/>"


def _group(tag: str, items: Iterable[str]) -> str:
    inner = "".join(items)
    return f"<{tag}>{inner}</{tag}>" if inner else f"<{tag}/>"


def _write_relation(relation: Relation) -> str:
    bound = ""
    if relation.operator is not None and relation.version is not None:
        bound = f' relation="{escape(relation.operator)}" version="{escape(relation.version)}"'
    return f'<constraint name="{escape(relation.name)}"{bound}/>'


def _write_platform(platform: Platform) -> str:
    names = (
        ("productLineID", platform.product_line),
        ("version", platform.version),
        ("locale", platform.locale),
    )
    attributes = " ".join(f'{name}="{escape(text)}"' for name, text in names)
    return f"<softwarePlatform {attributes}/>"


def _write_payload(entry: PayloadEntry) -> str:
    checksums = "".join(map(_write_checksum, entry.checksums))
    head = f'name="{escape(entry.name)}" type="{entry.kind}" size="{entry.size}"'
    return f"<payload {head}>{checksums}</payload>"


def _write_checksum(checksum: Checksum) -> str:
    process = f' verify-process="{checksum.process}"' if checksum.process else ""
    return f'<checksum checksum-type="{checksum.algorithm}"{process}>{checksum.digest.hex()}</checksum>'
