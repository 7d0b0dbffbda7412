"""Boot modules in memory, and the ESXi events that measure them.

Models: which PCR takes which module, option file, version record, signer, command line and asset tag, each as one
tagged event, under a given map; a module's digest is over its content after unpacking: one zero byte if that is empty, but nothing for an
option file.

Leaves out: when they are measured, which is up to the boot loader and the late launch; the boot security options,
which the VMkernel itself extends.

Sources: vmware/esx-boot, uefi/efiutils/tpm.c (tags, PCRs, digests); the report of a real host, whose empty option
file has the digest of nothing.
"""

from __future__ import annotations

from sim.boot.loaded import Digests, LoadedModule
from sim.boot.measure import Measurer
from sim.boot.pcrmap import ModuleClass, PcrMap, module_class
from sim.tpm.eventlog import EV
from sim.tpm.tagged import EsxTag, encode_tagged

__all__ = ["ModuleMeasurer"]

EMPTY_MODULE = b"\0"
"""What is measured for a module without content."""


class ModuleMeasurer:
    """Measures what ESXi measures, into the PCRs of one map and at its locality."""

    def __init__(self, measurer: Measurer, pcr_map: PcrMap) -> None:
        self._measurer = measurer
        self._map = pcr_map

    def module(self, module: LoadedModule, *, pcr: int | None = None, locality: int | None = None) -> None:
        """Measure a module or option file: the digest is over its content, the event says its name.

        `pcr` and `locality` override the map's, for what somebody else measures on the map's behalf.
        """
        if not self._measurer.active:
            return
        is_option = module_class(module.name) is ModuleClass.OPTION
        if not module.digests:
            empty = b"" if is_option else EMPTY_MODULE
            module.digests = self._measurer.digests(module.content or empty)
        tag = EsxTag.BOOT_OPT if is_option else EsxTag.MOD
        self._put(
            self._map.module_pcr(module.name) if pcr is None else pcr,
            tag,
            module.name.encode() + b"\0",
            name=module.name,
            digests=module.digests,
            locality=locality,
        )

    def version(self, module: LoadedModule, record: bytes) -> None:
        """Measure the version record of a core module, with its file name."""
        body = record + module.name.encode() + b"\0"
        self._put(self._map.version, EsxTag.VERSION, body, name=f"version of {module.name}")

    def signer(self, key_id: str, certificate_der: bytes) -> None:
        """Measure the certificate of a key that signed an early module."""
        self._put(self._map.signer, EsxTag.SIGNER, certificate_der, name=f"signer {key_id}")

    def command_line(self, text: str) -> None:
        """Measure the kernel's file name and options."""
        self._put(self._map.command_line, EsxTag.CMD_OPT, text.encode(), name="command line")

    def asset_tag(self, data: bytes) -> None:
        """Measure the owner's asset tag."""
        self._put(self._map.asset_tag, EsxTag.TAG, data, name="asset tag")

    def _put(
        self,
        pcr: int,
        tag: EsxTag,
        body: bytes,
        *,
        name: str,
        digests: Digests | None = None,
        locality: int | None = None,
    ) -> None:
        self._measurer.measure(
            pcr,
            EV.EVENT_TAG,
            encode_tagged(tag, body),
            name=name,
            over=body,
            digests=digests,
            locality=self._map.locality if locality is None else locality,
        )
