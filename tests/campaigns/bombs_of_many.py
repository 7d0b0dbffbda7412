"""Bombs of many members: VIBs of many payloads, bundles of many VIBs, boot banks of many modules, and who reads them.

No single member passes a limit; what they unpack to together does.  The metadata of the bundles and the checksums of the
VIBs fit what unpacks, so that only what is declared in total can refuse them early.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha1, sha256
from typing import Any

import attrs

from sim.core.context import EPOCH
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.image import bootbank, boundedzip, catalog, inspection, install, vib
from sim.image.acceptance import AcceptanceLevel
from sim.image.descriptor_writer import write_descriptor
from sim.image.metadata import Checksum, Descriptor, PayloadEntry
from sim.image.pki import Pki
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario

MIB = 1 << 20
PKI = Pki.create(Rng(1), epoch=EPOCH)


@lru_cache(maxsize=8)
def packed(size: int, *, declared: int | None = None) -> bytes:
    """Zeros packed by gzip, perhaps with another size in the trailer than they have."""
    data = gzip.compress(bytes(size), 9, mtime=0)
    return data if declared is None else data[:-4] + declared.to_bytes(4, "little")


@lru_cache(maxsize=8)
def vib_of_many(count: int, size: int) -> bytes:
    """A VIB of payloads that all unpack to zeros, its checksums good but for the very last."""
    payload = packed(size)
    content = bytes(size)
    good = (
        Checksum(algorithm="sha-256", digest=sha256(payload).digest()),
        Checksum(algorithm="sha-256", digest=sha256(content).digest(), process="gunzip"),
        Checksum(algorithm="sha-1", digest=sha1(content).digest(), process="gunzip"),
    )
    bad = attrs.evolve(good[-1], digest=bytes(20))
    entries = [
        PayloadEntry(
            name=f"p{number}",
            kind="boot",
            size=len(payload),
            checksums=good if number < count - 1 else (*good[:2], bad),
        )
        for number in range(count)
    ]
    text = write_descriptor(
        Descriptor(
            name="many",
            version="1.0-1",
            vendor="Example",
            level=AcceptanceLevel.COMMUNITY_SUPPORTED,
            payloads=tuple(entries),
        )
    )
    files = tuple(vib.Payload(name=entry.name, kind="boot", data=payload) for entry in entries)
    return vib.write_vib(vib.Vib(descriptor_xml=text, signature=b"", payloads=files))


VIB_BOMBS: dict[str, Callable[[], bytes]] = {
    "four payloads of 63 MiB": lambda: vib_of_many(4, 63 * MIB),
    "sixty payloads of 4 MiB": lambda: vib_of_many(60, 4 * MIB),
    "four payloads of 4 MiB, the last checksum wrong": lambda: vib_of_many(4, 4 * MIB),
}


@lru_cache(maxsize=8)
def bundle_of_zeros(count: int, size: int) -> bytes:
    """A bundle whose metadata lists each file, by its size and its digest, as a VIB; what unpacks are zeros."""
    digest = sha256(bytes(size)).hexdigest()
    names = [f"vib20/x{number}.vib" for number in range(count)]
    metadata = {
        "vendor-index.xml": VENDOR_INDEX,
        "vmware.xml": b"<metadataResponse><timestamp>2024-01-01T00:00:00+00:00</timestamp></metadataResponse>",
    }
    for number, name in enumerate(names):
        metadata[f"vibs/{number:04d}.xml"] = (
            f"<vib><relative-path>{name}</relative-path><packed-size>{size}</packed-size><checksum>"
            f"<checksum-type>sha-256</checksum-type><checksum>{digest}</checksum></checksum></vib>"
        ).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, data in (
            ("index.xml", INDEX),
            ("vendor-index.xml", VENDOR_INDEX),
            ("metadata.zip", boundedzip.write_zip(metadata)),
        ):
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), data)
        for name in names:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as stream:
                for start in range(0, size, MIB):
                    stream.write(bytes(min(MIB, size - start)))
    return target.getvalue()


INDEX = b"<vendorList><vendor><name>Example</name><code>EX</code><indexfile>vendor-index.xml</indexfile></vendor></vendorList>"
VENDOR_INDEX = b"<metaList><metadata><url>metadata.zip</url></metadata></metaList>"

BUNDLE_BOMBS: dict[str, Callable[[], bytes]] = {
    "one VIB of 500 MiB": lambda: bundle_of_zeros(1, 500 * MIB),
    "eight VIBs of 60 MiB": lambda: bundle_of_zeros(8, 60 * MIB),
    "2,000 VIBs of 200 KiB": lambda: bundle_of_zeros(2000, 200 << 10),
    "fifteen VIBs of 1 MiB": lambda: bundle_of_zeros(15, MIB),
}


@lru_cache(maxsize=1)
def small_image() -> catalog.Image:
    """A good image of one driver."""
    return catalog.standard_image(Rng(1), PKI, epoch=EPOCH, modules=1, module_bytes=512)


def bank_of_many(count: int, size: int) -> bytes:
    """A boot bank, its files in one archive, whose boot.cfg loads many modules that unpack to zeros."""
    bank = small_image().bank
    names = tuple(f"bomb{number}.v00" for number in range(count))
    config = attrs.evolve(bank.config, modules=(*bank.config.modules, *names))
    full = bank.with_config(config).with_files(dict.fromkeys(names, packed(size)))
    return boundedzip.write_zip(full.files)


def inspect_files(data: bytes) -> None:
    """Look at a bank as `vmksim image` does."""
    inspection.inspect_bank(boundedzip.read_zip(data))


def install_into(data: bytes) -> None:
    """Install a VIB into a bank."""
    image = small_image()
    bank = bootbank.BootBank(files=boundedzip.read_zip(data))
    install.install(bank, image.vibs[-1], AcceptanceLevel.PARTNER_SUPPORTED, PKI.trust, EPOCH)


def host() -> Any:
    """A host that was never switched on."""
    return build(Scenario(image=ImageSpec(modules=1, module_size_bytes=1024)), 1)


def boot_from(data: bytes, machinery: Any) -> None:
    """Boot a host whose boot bank holds these files."""
    machinery.host.board.disk.volume("bootbank").copy_from(boundedzip.read_zip(data).items())
    machinery.host.power_on()
    machinery.sim.engine.run(60 * 10**9)
    if machinery.host.failure is not None:
        raise FormatError("boot bank", machinery.host.failure.component, machinery.host.failure.message)


BANK_BOMBS: dict[str, Callable[[], bytes]] = {
    "eight modules of 63 MiB": lambda: bank_of_many(8, 63 * MIB),
    "two hundred modules of 1 MiB": lambda: bank_of_many(200, MIB),
}
