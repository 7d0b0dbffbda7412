"""The memory management unit: walks, faults, and address spaces whose tables live in simulated frames."""

from sim.hw.mmu.many import Accesses, Translations, translate_many
from sim.hw.mmu.paging import ControlState, Permission, Rights
from sim.hw.mmu.space import AddressSpace, Mapping, MappingError
from sim.hw.mmu.walk import Access, GeneralProtection, Kind, PageFault, StackFault, Translation, walk

__all__ = [
    "Access",
    "Accesses",
    "AddressSpace",
    "ControlState",
    "GeneralProtection",
    "Kind",
    "Mapping",
    "MappingError",
    "PageFault",
    "Permission",
    "Rights",
    "StackFault",
    "Translation",
    "Translations",
    "translate_many",
    "walk",
]
