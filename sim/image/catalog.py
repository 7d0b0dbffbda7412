"""The standard image: a small ESXi, complete from EFI loader to drivers, made from a seed.

Models one installed boot bank (esx-base, esx-update, drivers of several makers and levels, option files, image database,
saved state), the EFI system partition, and the manifest that the makers publish.  Equal arguments give equal bytes.

Leaves out most of ESXi: the number of drivers and the size of their code are parameters, to fit a demo or a benchmark.

Sources: load order and file names of a real ESXi 6.7 host's attestation report.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from sim.core.rng import Rng
from sim.core.units import KIB
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import OPTION_FILES, STATE_FILE, BootBank, config_settings, record_vib
from sim.image.bootcfg import CONFIG_FILE, BootConfig, format_boot_config
from sim.image.drivers import drivers
from sim.image.efi import build_efi
from sim.image.imgdb import DATABASE_FILE, ImageDatabase, write_database
from sim.image.manifest import ReferenceManifest
from sim.image.payload import gzip_stored
from sim.image.pki import LOADER_ROLE, Pki
from sim.image.recipes import ESX_BUILD, ESX_VERSION, Workshop
from sim.image.tar import TarEntry, with_parents, write_ustar
from sim.image.vib import Vib, write_vib

__all__ = ["LOADER_FOLDER", "Image", "standard_image"]

LOADER_FOLDER = "EFI/VMware"
"""Where the loaders lie on the EFI system partition."""

_LOADERS = ("safeboot64.efi", "mboot64.efi")
_KERNEL_FILE = "b.b00"


@attrs.frozen(kw_only=True)
class Image:
    """Everything that an installer would put on a host's disk, and what its makers publish."""

    name: str
    bank: BootBank
    esp: Mapping[str, bytes] = attrs.field(repr=False)
    vibs: tuple[Vib, ...] = attrs.field(repr=False)
    early_certificates: tuple[bytes, ...] = attrs.field(repr=False)
    """Certificates of the keys that sign early modules; a loader measures each it uses."""

    @property
    def manifest(self) -> ReferenceManifest:
        """What the makers publish about this image as it is now."""
        return ReferenceManifest.from_image(self)

    @property
    def archives(self) -> dict[str, bytes]:
        """The VIBs as archives, by file name; for a volume that keeps them."""
        return {f"{vib.vib_id}.vib": write_vib(vib) for vib in self.vibs}

    def with_bank(self, bank: BootBank) -> Image:
        """Return the image with another boot bank, say after an installation."""
        return attrs.evolve(self, bank=bank)


def standard_image(
    rng: Rng,
    pki: Pki,
    *,
    epoch: datetime,
    modules: int = 24,
    module_bytes: int = 16 * KIB,
    module_type: str = "shared",
    kernelopt: str = "",
    host_level: AcceptanceLevel = AcceptanceLevel.PARTNER_SUPPORTED,
) -> Image:
    """Make the image of `modules` drivers of `module_type` (see `MODULE_BUILDERS`), each with about `module_bytes` of code."""
    shop = Workshop(
        rng=rng.child("image"), pki=pki, epoch=epoch, module_bytes=module_bytes, module_type=module_type
    )
    esp = {f"{LOADER_FOLDER}/{name}": _loader(shop, name) for name in _LOADERS}
    chosen = drivers(modules)
    names = {driver.name for driver in chosen}
    vibs = [shop.base_vib(esp), shop.update_vib()]
    vibs += [shop.driver_vib(driver, driver.needs in names) for driver in chosen]
    return Image(
        name=f"ESXi-{ESX_VERSION}-{ESX_BUILD}-standard",
        bank=_bank(vibs, kernelopt, host_level),
        esp=esp,
        vibs=tuple(vibs),
        early_certificates=(pki.early_signers[0].key.certificate_der,),
    )


def _loader(shop: Workshop, name: str) -> bytes:
    code = shop.noise(f"loader/{name}", shop.module_bytes)
    return build_efi(
        code, shop.pki.signer(LOADER_ROLE), when=shop.epoch, data=f"{name} {ESX_VERSION}\0".encode()
    )


def _bank(vibs: list[Vib], kernelopt: str, level: AcceptanceLevel) -> BootBank:
    """Lay the VIBs out as a bank, in ESXi's order: kernel, options, early modules, drivers, database, state."""
    files = {name: gzip_stored(content) for name, content in _SYSTEM_CONTENT.items()}
    records = []
    for vib in vibs:
        record = record_vib(vib, files)
        records.append(record)
        files.update(zip(record.files, (payload.data for payload in vib.payloads), strict=True))
    owned = [name for record in records for name in record.files if name != _KERNEL_FILE]
    config = BootConfig(
        kernel=_KERNEL_FILE,
        modules=(*OPTION_FILES, *owned, DATABASE_FILE, STATE_FILE),
        kernelopt=kernelopt,
        build=f"{ESX_VERSION}-0.0.{ESX_BUILD}",
    )
    database = ImageDatabase(
        name=f"ESXi-{ESX_VERSION}-{ESX_BUILD}-standard",
        level=level,
        records=tuple(records),
        settings=config_settings(config),
    )
    files[DATABASE_FILE] = write_database(database)
    files[CONFIG_FILE] = format_boot_config(config)
    return BootBank(files=files)


_STATE = TarEntry(
    path="etc/vmware/esx.conf", data=b'/system/uuid = "simulated"\n/vmkernel/module = "default"\n'
)
_SYSTEM_CONTENT = {
    "jumpstrt.gz": b"jumpstart\n",
    "useropts.gz": b"\n",
    "features.gz": b"",
    STATE_FILE: write_ustar(with_parents([_STATE])),
}
"""Content of the files that no VIB owns; options as on a real host (one newline, nothing)."""
