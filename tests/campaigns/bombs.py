"""Inputs that want a parser to spend memory or time: each parser of untrusted bytes with those that fit its format.

`BOMBS` is a table of the parser's name, what the bomb is, how it is made, and the parser.  `bomb_costs.defuse` gives one to
its parser and returns what it cost; the test beside this module asserts it, `benchmarks/bench_bombs.py` shows the seconds.
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from sim.attest import esxi_report, event_log, evidence, keys, offline, quote, uefi
from sim.core.context import EPOCH
from sim.errors import FormatError
from sim.image import (
    crl,
    der,
    efi,
    elf,
    elf_build,
    imgdb,
    inspection,
    manifest,
    pe,
    profile,
    tar,
    trailer,
    vib,
)
from sim.image.acceptance import AcceptanceLevel
from sim.image.ar import read_ar
from sim.image.bootcfg import parse_boot_config
from sim.image.boundedxml import parse_xml
from sim.image.boundedzip import read_zip
from sim.image.bundle import read_bundle
from sim.image.certificate import load_certificate
from sim.image.cms import verify_detached
from sim.image.descriptor import parse_descriptor
from sim.image.descriptor_writer import write_descriptor
from sim.image.efi_lists import parse_signature_lists
from sim.image.metadata import Checksum, Descriptor, PayloadEntry
from sim.image.payload import CONTENT_BYTES_MAX, content_of, gunzip, gzip_stored
from sim.image.vtar import read_vtar
from sim.tpm.eventlog import parse
from sim.tpm.tagged import decode_tagged

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bomb_costs import Bomb
from bombs_of_many import (
    BANK_BOMBS,
    BUNDLE_BOMBS,
    MIB,
    PKI,
    VIB_BOMBS,
    boot_from,
    host,
    inspect_files,
    install_into,
    packed,
)

__all__ = ["BOMBS"]

MANY = 1_000_000


# -- how bombs are made


@lru_cache(maxsize=8)
def endless() -> bytes:
    """A gzip member that goes on without an end, and says that it is small."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = squeeze.compress(bytes(400 * MIB)) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    return body + bytes(4) + (1000).to_bytes(4, "little")


@lru_cache(maxsize=8)
def zipped(count: int, size: int) -> bytes:
    """A zip archive of files that unpack to zeros."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"f{number}", (1980, 1, 1, 0, 0, 0)), bytes(size))
    return target.getvalue()


@lru_cache(maxsize=8)
def zip_of_many() -> bytes:
    """A zip archive with more entries than an archive may have."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(20_000):
            archive.writestr(zipfile.ZipInfo(f"f{number}", (1980, 1, 1, 0, 0, 0)), b"")
    return target.getvalue()


def laughs() -> bytes:
    """The XML of a billion laughs."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE v [<!ENTITY l0 "lol">{entities}]><v>&l9;</v>'.encode()


XML_BOMBS: dict[str, Callable[[], bytes]] = {
    "a billion laughs": laughs,
    "an entity repeated": lambda: (
        b'<!DOCTYPE v [<!ENTITY a "' + b"a" * MIB + b'">]><v>' + b"&a;" * 5000 + b"</v>"
    ),
    "a file of the host": lambda: b'<!DOCTYPE v [<!ENTITY a SYSTEM "file:///dev/zero">]><v>&a;</v>',
    "deep nesting": lambda: b"<v>" * MANY + b"</v>" * MANY,
    "a million elements": lambda: b"<v>" + b"<a/>" * MANY + b"</v>",
    "a million attributes": lambda: b"<v " + b" ".join(b'a%d=""' % n for n in range(500_000)) + b"/>",
    "nothing but text": lambda: b"<v>" + b"a" * (64 * MIB) + b"</v>",
    "text in pieces": lambda: b"<v>" + b"&#65;" * MANY + b"</v>",
    "a tag without end": lambda: b"<" + b"a" * (8 * MIB - 10),
}

JSON_BOMBS: dict[str, Callable[[], bytes]] = {
    "deep nesting": lambda: b"[" * MANY + b"]" * MANY,
    "deep objects": lambda: b'{"a":' * MANY + b"1" + b"}" * MANY,
    "a million lists": lambda: b'{"a":[' + b"[]," * (2 * MANY) + b"0]}",
    "a million keys": lambda: b"{" + b",".join(b'"%d":0' % n for n in range(500_000)) + b"}",
    "a long number": lambda: b'{"a":' + b"9" * (4 * MIB) + b"}",
    "a long text": lambda: b'{"a":"' + b"a" * (33 * MIB) + b'"}',
}


def nested(depth: int) -> bytes:
    """DER that is nested, each length in its shortest form; from the inside out in one buffer."""
    parts = []
    size = 0
    for _ in range(depth):
        head = der.tlv(der.SEQUENCE, b"") if size == 0 else b"\x30" + _length(size)
        parts.append(head)
        size += len(head)
    return b"".join(reversed(parts))


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes((size,))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


DER_BOMBS: dict[str, Callable[[], bytes]] = {
    "deep nesting": lambda: nested(2000),
    "deep nesting, too long": lambda: nested(100_000),
    "a huge length": lambda: b"\x30\x84\xff\xff\xff\xff" + bytes(100),
    "a length of many bytes": lambda: b"\x30\xff" + b"\xff" * 127,
    "many elements": lambda: der.tlv(der.SEQUENCE, b"\x05\x00" * 30_000),
    "many elements, too long": lambda: der.tlv(der.SEQUENCE, b"\x05\x00" * MANY),
    "a long number": lambda: der.tlv(der.SEQUENCE, der.tlv(der.INTEGER, b"\x7f" * 8000)),
}


@lru_cache(maxsize=8)
def tar_of(count: int, *, size: str = "0") -> bytes:
    """A tar archive of files that say they have a size."""
    good = tar.write_ustar([tar.TarEntry(path="usr/lib/x", data=b"")])[:512]
    parts = []
    for number in range(count):
        block = bytearray(good)
        block[:100] = f"f{number}".encode().ljust(100, b"\0")
        block[124:136] = size.rjust(11, "0").encode() + b"\0"
        block[148:156] = b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
        parts.append(bytes(block))
    return b"".join(parts) + bytes(1024)


TAR_BOMBS: dict[str, Callable[[], bytes]] = {
    "a file of 8 GiB": lambda: tar_of(1, size="77777777777"),
    "100,000 entries": lambda: tar_of(100_000),
    "nothing but zeros": lambda: bytes(32 * MIB) + b"\1",
    "junk": lambda: b"\xa5" * (8 * MIB),
}


def vtar_of(count: int) -> bytes:
    """A vtar archive of files that all want the same bytes."""
    words = struct.pack("<4I", 512 * (count + 1), 0, 0, 0)
    head = tar.write_header(tar.TarEntry(path="a", data=bytes(512)), b"visor  \0", words)
    return head * count + bytes(512) + bytes(512)


def spoilt(data: bytes, layout: str, *places: tuple[int, int]) -> bytes:
    """Numbers of a file, set to others."""
    changed = bytearray(data)
    for at, value in places:
        struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def module() -> bytes:
    """A good ELF module."""
    return elf_build.build_module(elf_build.ModuleSpec(name="bomb", version="1"))


ELF_BOMBS: dict[str, Callable[[], bytes]] = {
    "65,535 program headers": lambda: spoilt(module(), "<H", (56, 0xFFFF)),
    "65,535 sections": lambda: spoilt(module(), "<H", (60, 0xFFFF)),
    "a segment of 2**60 bytes": lambda: spoilt(module(), "<Q", (64 + 40, 1 << 60)),
    "a segment of 2**60 bytes in the file": lambda: spoilt(module(), "<Q", (64 + 32, 1 << 60)),
    "a header table far away": lambda: spoilt(module(), "<Q", (32, 1 << 62), (40, 1 << 62)),
    "too long": lambda: module().ljust(65 * MIB, b"\0"),
}


def efi_image() -> bytes:
    """A good signed EFI image."""
    return efi.build_efi(bytes(256), PKI.signer("loader"), when=EPOCH)


def pe_at(image: bytes) -> int:
    """Where the PE header of an image is."""
    return int(struct.unpack_from("<I", image, 0x3C)[0])


PE_BOMBS: dict[str, Callable[[], bytes]] = {
    "65,535 sections": lambda: spoilt(efi_image(), "<H", (pe_at(efi_image()) + 6, 0xFFFF)),
    "a header far away": lambda: spoilt(efi_image(), "<I", (0x3C, 0xFFFFFFF0)),
    "4 billion directories": lambda: spoilt(efi_image(), "<I", (pe_at(efi_image()) + 24 + 108, 0xFFFFFFFF)),
    "a signature of 4 GiB": lambda: spoilt(efi_image(), "<I", (pe_at(efi_image()) + 24 + 148, 0xFFFFFFF8)),
    "too long": lambda: efi_image().ljust(65 * MIB, b"\0"),
}


def signature_list(size: int, entry: int, count: int = 1) -> bytes:
    """Lists of a signature variable that state these sizes."""
    return (bytes(16) + struct.pack("<3I", size, 0, entry)) * count


LIST_BOMBS: dict[str, Callable[[], bytes]] = {
    "a list of no bytes": lambda: signature_list(0, 48),
    "entries of no bytes": lambda: signature_list(28, 0),
    "a list of 4 GiB": lambda: signature_list(0xFFFFFFFF, 48),
    "a million entries": lambda: signature_list(28 + 17 * 60_000, 17) + bytes(17 * 60_000),
    "too long": lambda: bytes(2 * MIB),
}


def log_head(count: int = 1, *, pcr: int = 0) -> bytes:
    """The first record of an event log, of one SHA-1 bank, with this number of banks."""
    data = (
        b"Spec ID Event03\0" + struct.pack("<I4BI", 0, 0, 2, 0, 2, count) + struct.pack("<2H", 4, 20) + b"\0"
    )
    return struct.pack("<II20sI", pcr, 3, bytes(20), len(data)) + data


def log_record(*, count: int = 1, size: int = 0, bank: int = 4) -> bytes:
    """A record that states this number of digests and size of data."""
    return struct.pack("<IIIH20sI", 0, 1, count, bank, bytes(20), size)


LOG_BOMBS: dict[str, Callable[[], bytes]] = {
    "4 billion banks": lambda: log_head(0xFFFFFFFF),
    "4 billion digests": lambda: log_head() + log_record(count=0xFFFFFFFF),
    "3 GiB of data": lambda: log_head() + log_record(size=3 << 30),
    "100,000 events": lambda: log_head() + log_record() * 100_000,
    "too long": lambda: log_head() + bytes(17 * MIB),
    "nothing but zeros": lambda: bytes(16 * MIB),
    "vendor data beyond its record": lambda: log_head()[:-1] + b"\xff",
}


def vib_of(kind: str) -> bytes:
    """A VIB whose one payload is a bomb; its descriptor fits."""
    payload = {
        "declared": lambda: packed(1000, declared=0xFFFFFFFF),
        "lying": lambda: packed(100 * MIB, declared=1000),
        "huge": lambda: packed(300 * MIB),
    }[kind]()
    sums = (
        Checksum(algorithm="sha-256", digest=sha256(payload).digest()),
        Checksum(algorithm="sha-256", digest=bytes(32), process="gunzip"),
    )
    entry = PayloadEntry(name="net", kind="vgz", size=len(payload), checksums=sums)
    text = write_descriptor(
        Descriptor(
            name="net-bomb",
            version="1.0-1",
            vendor="Example",
            level=AcceptanceLevel.COMMUNITY_SUPPORTED,
            payloads=(entry,),
        )
    )
    files = (vib.Payload(name="net", kind="vgz", data=payload),)
    return vib.write_vib(vib.Vib(descriptor_xml=text, signature=b"", payloads=files))


def ar_of(count: int, size: int = 0) -> bytes:
    """An ar archive of members that say they have a size."""
    head = (
        b"a".ljust(16)
        + b"0".ljust(12)
        + b"0".ljust(6) * 2
        + b"0".ljust(8)
        + str(size).encode().ljust(10)
        + b"`\n"
    )
    return b"!<arch>\n" + head * count


def bootcfg(count: int) -> bytes:
    """A boot.cfg that names so many modules."""
    return b"bootstate=0\nkernel=b.b00\nmodules=" + b" --- ".join(b"m%d" % n for n in range(count)) + b"\n"


def rows(
    parser: str,
    read: Callable[..., Any],
    bombs: dict[str, Callable[[], bytes]],
    prepare: Callable[[], Any] | None = None,
) -> list[Bomb]:
    """Give one parser each of some bombs."""
    return [
        Bomb(parser=parser, kind=kind, make=make, read=read, prepare=prepare) for kind, make in bombs.items()
    ]


GZIP_BOMBS: dict[str, Callable[[], bytes]] = {
    "300 MiB of zeros": lambda: packed(300 * MIB),
    "4 GiB declared": lambda: packed(1000, declared=0xFFFFFFFF),
    "300 MiB declared as 1000 bytes": lambda: packed(300 * MIB, declared=1000),
    "more than the most that may be declared": lambda: packed(
        CONTENT_BYTES_MAX + MIB, declared=CONTENT_BYTES_MAX
    ),
    "another member behind the first": lambda: packed(1000) + packed(300 * MIB),
    "without end": endless,
}
GZIP_IN_GZIP = {"an archive of 100,000 entries": lambda: gzip_stored(tar_of(100_000))}


def image_rows() -> list[Bomb]:
    """All rows of `sim.image`."""
    now, trust = EPOCH, PKI.trust
    return [
        *rows("gzip", gunzip, GZIP_BOMBS),
        *rows("payload", content_of, GZIP_BOMBS),
        *rows("image database", imgdb.read_database, GZIP_BOMBS | GZIP_IN_GZIP),
        *rows("tar", tar.read_ustar, TAR_BOMBS),
        *rows(
            "vtar",
            read_vtar,
            {"junk": TAR_BOMBS["junk"]} | {"30,000 files of the same bytes": lambda: vtar_of(30_000)},
        ),
        *rows(
            "ar",
            read_ar,
            {"a member of 10 GB": lambda: ar_of(1, 9_999_999_999), "100,000 members": lambda: ar_of(100_000)},
        ),
        *rows(
            "VIB",
            vib.read_vib,
            {f"payload {kind}": (lambda kind=kind: vib_of(kind)) for kind in ("declared", "lying", "huge")},  # type: ignore[misc]
        ),
        *rows("VIB of many", vib.read_vib, VIB_BOMBS),
        *rows("bundle of many", read_bundle, BUNDLE_BOMBS),
        *rows("bank inspection", inspect_files, BANK_BOMBS),
        *rows("installation into a bank", install_into, BANK_BOMBS),
        *rows("boot", boot_from, BANK_BOMBS, host),
        *rows(
            "VIB inspection",
            lambda data: needs_problem(inspection.inspect_vib(data)),
            {"payload lying": lambda: vib_of("lying")},
        ),
        *rows("XML", lambda data: parse_xml(data, "test"), XML_BOMBS),
        *rows("descriptor", parse_descriptor, XML_BOMBS),
        *rows("profile", profile.parse_profile, XML_BOMBS),
        *rows("zip", read_zip, ZIP_BOMBS),
        *rows("bundle", read_bundle, ZIP_BOMBS),
        *rows("signature", lambda data: verify_detached(b"", data, trust, now), DER_BOMBS),
        *rows("certificate", load_certificate, DER_BOMBS),
        *rows("revocation list", crl.load_crl, DER_BOMBS),
        *rows("DER", lambda data: der.check_canonical(data, "test"), DER_BOMBS),
        *rows("ELF", elf.read_module, ELF_BOMBS),
        *rows("PE", pe.read_pe, PE_BOMBS),
        *rows("EFI image", lambda data: efi.verify_efi(data, PKI.uefi_db, (), now), PE_BOMBS),
        *rows("signature variable", parse_signature_lists, LIST_BOMBS),
        *rows(
            "boot.cfg",
            parse_boot_config,
            {
                "10,000 modules": lambda: bootcfg(10_000),
                "a long line": lambda: b"kernelopt=" + b"a" * 60_000,
                "too long": lambda: b"\n" * MIB,
            },
        ),
        *rows(
            "early module",
            lambda data: trailer.verify_module(data, trust.early_keys),
            {"a signature of 4 GiB": lambda: bytes(100) + struct.pack("<II", 0xFFFFFFFF, trailer.MAGIC)},
        ),
        *rows("manifest", lambda data: manifest.ReferenceManifest.from_json(data.decode()), JSON_BOMBS),
    ]


ZIP_BOMBS: dict[str, Callable[[], bytes]] = {
    "ten files of 64 MiB": lambda: zipped(10, 64 * MIB),
    "20,000 entries": zip_of_many,
    "not a zip": lambda: b"PK\3\4" + bytes(32 * MIB),
}


def needs_problem(found: inspection.VibInspection) -> None:
    """Turn a problem that an inspection lists into a refusal."""
    if found.problems:
        raise FormatError("VIB", "", str(found.problems[0]))


def attest_rows() -> list[Bomb]:
    """All rows of `sim.attest` and of the TPM's event log."""
    small = {
        "a huge size": lambda: b"\xff" * 64,
        "junk": lambda: b"\xa5" * (16 * MIB),
        "zeros": lambda: bytes(16 * MIB),
    }
    pcrs = {
        "4 billion selections": lambda: b"\xff" * 1000,
        "many lists": lambda: bytes(132) + struct.pack("<I", 0xFFFFFFFF) + bytes(4 * MIB),
    }
    return [
        *rows("event log", parse, LOG_BOMBS),
        *rows("event log of evidence", event_log.read_event_log, LOG_BOMBS),
        *rows(
            "tagged event",
            decode_tagged,
            {"4 GiB stated": lambda: b"\xff" * 8, "too long": lambda: bytes(16 * MIB)},
        ),
        *rows(
            "UEFI variable",
            uefi.read_variable,
            {
                "a huge name": lambda: bytes(16) + b"\xff" * 16,
                "a huge value": lambda: bytes(24) + b"\xff" * 8,
            },
        ),
        *rows("evidence", evidence.evidence_from_json, JSON_BOMBS),
        *rows("report", esxi_report.read_report, JSON_BOMBS | XML_BOMBS),
        *rows("quote", quote.read_attest, small),
        *rows("quote's signature", quote.read_signature, small),
        *rows("TPM key", keys.read_public, small),
        *rows(
            "key file",
            offline.read_key,
            small
            | {
                "deep DER": lambda: nested(100_000),
                "PEM of 16 MiB": lambda: (
                    b"-----BEGIN PUBLIC KEY-----\n" + b"A" * (16 * MIB) + b"\n-----END PUBLIC KEY-----\n"
                ),
            },
        ),
        *rows("PCR values", offline.read_pcr_file, small | pcrs),
        *rows("any file", offline.recognise, small | {"4 billion digests": LOG_BOMBS["4 billion digests"]}),
    ]


BOMBS = (*image_rows(), *attest_rows())
