"""The memory that the kernel manages: its own address space and those of the user worlds."""

from sim.kernel.memory.kernel_memory import KernelMemory, RightsRefused, Segment

__all__ = ["KernelMemory", "RightsRefused", "Segment"]
