"""How the parts of the simulated image are made: kernel modules, driver VIBs, the base and update VIBs.

Models what ESXi's own VIBs hold in kind: ELF modules with imports of the kernel's interface, archives of files, early
modules with signature trailers, a boot loader package; every byte of code comes from a named stream of the seed, so
that a change to one part moves no other.

Leaves out what the code does: it is noise that returns zero.

Sources: component names of a real ESXi 6.7 attestation report; names of the public vmkapi interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import shake_256

import attrs

from sim.core.rng import Rng
from sim.image.acceptance import AcceptanceLevel
from sim.image.cms import sign_detached
from sim.image.descriptor_writer import write_descriptor
from sim.image.drivers import Driver
from sim.image.elf import MODULE_BUILDERS, Export, ModuleSpec, Pointer, build_module
from sim.image.metadata import Descriptor, Platform, Relation
from sim.image.payload import describe_payload, gzip_stored
from sim.image.pki import Pki
from sim.image.tar import EntryKind, TarEntry, with_parents, write_ustar
from sim.image.trailer import sign_module
from sim.image.vib import Payload, Vib
from sim.image.vtar import write_vtar

__all__ = ["EARLY_ARCHIVES", "ESX_BUILD", "ESX_VERSION", "KERNEL_INTERFACE", "Workshop"]

ESX_VERSION = "8.0.2"
ESX_BUILD = "22380479"

KERNEL_INTERFACE = (
    "vmk_ModuleRegister", "vmk_ModuleUnregister", "vmk_DriverRegister", "vmk_DriverUnregister", "vmk_HeapCreate",
    "vmk_HeapAlloc", "vmk_HeapFree", "vmk_HeapDestroy", "vmk_SpinlockCreate", "vmk_SpinlockLock",
    "vmk_SpinlockUnlock", "vmk_IntrRegister", "vmk_IntrEnable", "vmk_WorldCreate", "vmk_WorldWait", "vmk_LogMessage",
    "vmk_DMAEngineCreate", "vmk_PCIMapIOResource", "vmk_UplinkRegister", "vmk_ScsiRegisterAdapter",
    "vmk_TimerSchedule", "vmk_MgmtInit",
)  # fmt: skip
"""Functions that the VMkernel exports to modules."""

EARLY_ARCHIVES = ("s", "sb", "esxupdt")
"""Archives that the boot loader wants signed like its ELF modules."""

_KERNEL_PARTS = (
    ("b", "vmkBoot"),
    ("k", "vmkernel"),
    ("chardevs", "chardevs"),
    ("user", "user"),
    ("procfs", "procfs"),
)
_RELEASE = f"0.0.{ESX_BUILD}"
_RETURN_ZERO = b"\x31\xc0\xc3"  # xor eax, eax; ret
_IMPORTS_PER_DRIVER = 6
_LIBRARY_FOLDER = "lib64/"
_ELF_FOLDERS = ("bin/", "sbin/", _LIBRARY_FOLDER)
_C_LIBRARY, _C_FUNCTIONS = "libc.so.6", ("malloc", "free", "read", "write", "exit")
_SLOT = 16


@attrs.frozen(kw_only=True)
class Workshop:
    """Makes modules and VIBs for one world: its streams, its keys, the release date, the size of a module's code.

    Drivers are of `module_type`: shared objects, or relocatable objects as on a real host.
    """

    rng: Rng
    pki: Pki
    epoch: datetime
    module_bytes: int
    module_type: str = attrs.field(default="shared", validator=attrs.validators.in_(MODULE_BUILDERS))

    def base_vib(self, loaders: Mapping[str, bytes]) -> Vib:
        """Return esx-base: the VMkernel, its early modules, the system's files, and the boot loader package."""
        entries = [TarEntry(path=path.lower(), data=data) for path, data in sorted(loaders.items())]
        payloads = [
            *(
                Payload(name=name, kind="boot", data=gzip_stored(self._kernel_part(module)))
                for name, module in _KERNEL_PARTS
            ),
            Payload(
                name="uc_intel",
                kind="boot",
                data=gzip_stored(self.noise("microcode", self.module_bytes // 4)),
            ),
            self._archive(
                "sb", ("usr/lib/vmware/secureboot/bin/secureBoot.py", "usr/lib/vmware/secureboot/keys.pem")
            ),
            self._archive(
                "s", ("bin/hostd", "bin/vpxa", "bin/sh", "sbin/init", "etc/profile", "lib64/libc.so.6")
            ),
            self._archive("vmx", ("bin/vmx", "bin/vmx-debug")),
            self._archive("vim", ("usr/lib/vmware/hostd/vmodl.xml",)),
            Payload(name="btldr", kind="bootloader", data=gzip_stored(write_ustar(with_parents(entries)))),
        ]
        spec = self._system_spec("esx-base", "ESXi base system", f"{ESX_VERSION}-{_RELEASE}")
        return self.vib(spec, payloads, "VMware")

    def update_vib(self) -> Vib:
        """Return esx-update: the tools that install VIBs."""
        payload = self._archive("esxupdt", ("usr/lib/vmware/esximage/esximage.py", "bin/esxupdate"))
        spec = self._system_spec("esx-update", "ESXi update tools", f"{ESX_VERSION}-{_RELEASE}")
        return self.vib(spec, [payload], "VMware")

    def driver_vib(self, driver: Driver, with_need: bool) -> Vib:  # noqa: FBT001 - the second of two
        """Return a driver's VIB: its module and the map from device ids to it."""
        needed = driver.needs if with_need else None
        module = self._driver_module(driver, needed)
        table = self.noise(f"{driver.name}/ids", 8).hex()
        files = [
            TarEntry(path=f"usr/lib/vmware/vmkmod/{driver.module}", data=module, mode=0o555),
            TarEntry(
                path=f"etc/vmware/default.map.d/{driver.module}.map",
                data=f"regtype=native,bus=pci,id={table[:8]}{table[8:16]},driver={driver.module}\n".encode(),
            ),
        ]
        base = Relation(name="esx-base", operator=">=", version=ESX_VERSION)
        spec = Descriptor(
            name=driver.name,
            version=f"{driver.version}-1vmw.802.0.0.{ESX_BUILD}",
            vendor=driver.vendor,
            level=AcceptanceLevel.from_xml(driver.level),
            summary=f"{driver.module} driver",
            description=f"Driver {driver.module} by {driver.provider}",
            release_date=self.epoch,
            depends=(base, *((Relation(name=needed),) if needed else ())),
            software_tags=("driver", "module"),
            maintenance_mode=True,
            platforms=(Platform(product_line="embeddedEsx", version="8.*"),),
            files=_file_paths(files),
        )
        data = gzip_stored(write_vtar(with_parents(files)))
        return self.vib(spec, [Payload(name=driver.name[:8], kind="vgz", data=data)], driver.provider)

    def vib(self, spec: Descriptor, payloads: Iterable[Payload], provider: str) -> Vib:
        """Return a VIB signed by a provider at the level that the spec names; community VIBs stay unsigned."""
        files = tuple(payloads)
        entries = tuple(describe_payload(file.name, file.kind, file.data) for file in files)
        descriptor_xml = write_descriptor(attrs.evolve(spec, payloads=entries))
        signature = b""
        if spec.level is not AcceptanceLevel.COMMUNITY_SUPPORTED:
            signer = self.pki.signer(spec.level.xml_name, provider)
            signature = sign_detached(descriptor_xml, signer, self.epoch)
        return Vib(descriptor_xml=descriptor_xml, signature=signature, payloads=files)

    def _system_spec(self, name: str, summary: str, version: str) -> Descriptor:
        return Descriptor(
            name=name,
            version=version,
            vendor="VMware",
            level=AcceptanceLevel.VMWARE_CERTIFIED,
            summary=summary,
            description=f"{summary}, build {ESX_BUILD}",
            release_date=self.epoch,
        )

    def _kernel_part(self, module: str) -> bytes:
        kernel = module == "vmkernel"
        spec = ModuleSpec(
            name=module,
            version=f"{ESX_VERSION}-{_RELEASE}",
            license="VMware",
            provider="VMware",
            text=self._code(module, 2 * self.module_bytes if kernel else self.module_bytes),
            rodata=f"VMware ESXi {ESX_VERSION} build-{ESX_BUILD}\0".encode(),
            data=bytes(64),
            bss_bytes=4096,
            exports=_exports(KERNEL_INTERFACE) if kernel else _exports(("init_module",)),
            imports=() if module in ("vmkernel", "vmkBoot") else KERNEL_INTERFACE[:_IMPORTS_PER_DRIVER],
            version_record=f"{module} {ESX_VERSION} {ESX_BUILD}\0".encode(),
        )
        return sign_module(build_module(spec), self.pki.early_signers[0])

    def _driver_module(self, driver: Driver, needed: str | None) -> bytes:
        draws = self.rng.stream(f"{driver.name}/layout")
        imports = draws.shuffled(KERNEL_INTERFACE[2:])[: _IMPORTS_PER_DRIVER - 1]
        attach = f"{needed.replace('-', '_')}_Attach" if needed else None
        return MODULE_BUILDERS[self.module_type](
            ModuleSpec(
                name=driver.module,
                version=f"{driver.version}-1vmw",
                license=driver.license,
                provider=driver.provider,
                text=self._code(driver.name, self.module_bytes),
                rodata=f"{driver.module} {driver.version}\0".encode(),
                data=self.noise(f"{driver.name}/data", 256),
                bss_bytes=512,
                exports=_exports(("init_module", "cleanup_module", f"{driver.module}_Attach")),
                imports=("vmk_ModuleRegister", *imports, *((attach,) if attach else ())),
                pointers=(Pointer(offset=0, area="text"), Pointer(offset=8, area="rodata")),
            )
        )

    def _archive(self, name: str, paths: tuple[str, ...]) -> Payload:
        size = max(256, self.module_bytes // len(paths))
        entries = [
            TarEntry(path=path, data=self._system_file(name, path, size), mode=0o555, kind=EntryKind.FILE)
            for path in paths
        ]
        content = write_vtar(with_parents(entries))
        if name in EARLY_ARCHIVES:
            content = sign_module(content, self.pki.early_signers[0])
        return Payload(name=name, kind="vgz", data=gzip_stored(content))

    def _system_file(self, archive: str, path: str, size: int) -> bytes:
        """Return a file of the system: an ELF image for a program or a library, seeded noise for anything else."""
        if not path.startswith(_ELF_FOLDERS):
            return self.noise(f"{archive}/{path}", size)
        file = path.rpartition("/")[2]
        name = file.partition(".")[0]
        library = path.startswith(_LIBRARY_FOLDER)
        return build_module(
            ModuleSpec(
                name=name,
                soname=file if library else "",
                needed=() if library else (_C_LIBRARY,),
                imports=() if library else _C_FUNCTIONS,
                version=ESX_VERSION,
                license="VMware",
                provider="VMware",
                text=self._code(f"{archive}/{path}", size),
                rodata=f"{name} {ESX_VERSION}\0".encode(),
                data=self.noise(f"{archive}/{path}/data", 64),
                bss_bytes=256,
                exports=_exports(_C_FUNCTIONS if library else ("_start",)),
                pointers=(Pointer(offset=0, area="text"), Pointer(offset=8, area="rodata")),
            )
        )

    def _code(self, label: str, size: int) -> bytes:
        """Return code that begins with functions that return zero, one at each export's offset."""
        entry = _RETURN_ZERO.ljust(_SLOT, b"\xcc")
        return entry * len(KERNEL_INTERFACE) + self.noise(f"{label}/code", size)

    def noise(self, label: str, size: int) -> bytes:
        """Return seeded random bytes for a label."""
        return shake_256(self.rng.stream(label).bytes(32)).digest(size)


def _exports(names: tuple[str, ...]) -> tuple[Export, ...]:
    return tuple(Export(name=name, offset=number * _SLOT, size_bytes=3) for number, name in enumerate(names))


def _file_paths(entries: Iterable[TarEntry]) -> tuple[str, ...]:
    return tuple(sorted(entry.path for entry in entries if entry.kind is EntryKind.FILE))
