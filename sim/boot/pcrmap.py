"""Which PCR takes which part of the boot: ESXi's classes of modules and its three generations of maps.

Models: the class of a module by its file name, and a map from class to PCR: for the boot loader of ESXi 6.7 and later
(PCRs 11-14), for a late launch of 6.7 with TXT (PCRs 17-22), and for a late launch as hosts of the TXT era had it, where
tboot is the launched code, 19 takes the modules and 20 the VMkernel.

Leaves out: TPM 1.2 itself, with which that era began; where it put the command line (here beside the VMkernel: assumed).

Sources: vmware/esx-boot, uefi/efiutils/tpm.c (class rule and PCRs 11-14); the attestation report of a real ESXi 6.7
host with TPM 2.0 and TXT (PCRs 17-21), in which PCRs 11-14 stay zero; Intel SecL's table for ESXi (the TXT era).  The two
tables of launches disagree on 19 and 20, so the map is a parameter.
"""

from __future__ import annotations

import enum

import attrs

__all__ = [
    "LATE_LAUNCH_MAP",
    "LOADER_MAP",
    "TXT_ERA_MAP",
    "ModuleClass",
    "PcrMap",
    "module_base_name",
    "module_class",
]

CORE_MODULES = frozenset({"b", "k", "s", "sb"})
UPDATE_MODULES = frozenset({"esxupdt"})
VERSIONED_MODULES = frozenset({"b", "k"})
"""Modules before whose own event the loader measures their version record."""


class ModuleClass(enum.Enum):
    """What a boot module is, as far as measuring goes."""

    UPDATE = "update"
    CORE = "core"
    STATIC = "static"
    OPTION = "option"


@attrs.frozen(kw_only=True)
class PcrMap:
    """One generation's assignment of boot components to PCRs, and the TPM locality that its measurer works at."""

    name: str
    locality: int
    update: int
    core: int
    static: int
    option: int
    command_line: int
    signer: int
    version: int
    asset_tag: int

    def module_pcr(self, name: str) -> int:
        """Return the PCR of the module file `name`."""
        pcr: int = getattr(self, module_class(name).value)
        return pcr


LOADER_MAP = PcrMap(
    name="esx-boot",
    locality=0,
    update=11,
    core=12,
    static=13,
    option=14,
    command_line=14,
    signer=14,
    version=13,
    asset_tag=14,
)

LATE_LAUNCH_MAP = PcrMap(
    name="late-launch",
    locality=2,
    update=19,
    core=19,
    static=20,
    option=21,
    command_line=21,
    signer=21,
    version=20,
    asset_tag=22,
)

TXT_ERA_MAP = PcrMap(
    name="txt-era",
    locality=2,
    update=19,
    core=20,
    static=19,
    option=19,
    command_line=20,
    signer=20,
    version=20,
    asset_tag=22,
)


def module_base_name(name: str) -> str:
    """Return the name by which a module is known: the file name without directory and extension."""
    file_name = name.rpartition("/")[2]
    base, dot, _ = file_name.rpartition(".")
    return base if dot else file_name


def module_class(name: str) -> ModuleClass:
    """Return the class of the module file `name`; names are case-sensitive."""
    if name.endswith(".gz"):
        return ModuleClass.OPTION
    base = module_base_name(name)
    if base in UPDATE_MODULES:
        return ModuleClass.UPDATE
    return ModuleClass.CORE if base in CORE_MODULES else ModuleClass.STATIC
