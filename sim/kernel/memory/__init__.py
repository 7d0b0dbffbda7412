"""The memory that the kernel manages: its own address space, those of the user worlds, and that of virtual machines.

The names below are imported when they are first used, so that describing a VM's memory (`spec`, `options`) loads no page
tables.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.kernel.memory.kernel_memory import KernelMemory, RightsRefused, Segment

__all__ = ["KernelMemory", "RightsRefused", "Segment"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("sim.kernel.memory.kernel_memory"), name)
