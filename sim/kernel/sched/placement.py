"""Which idle pCPU a world goes to: bit masks of idle processors at each level of the topology.

Models: a preference for the pCPU where the world ran last, then for a core whose threads are all idle, near that
pCPU (same last-level cache, then same NUMA node), then for any idle thread, near likewise.

Only pCPUs that the world's affinity allows are looked at.

Leaves out: load of neighbours and NUMA home nodes.

Source: the aims (balance, cache state, no contention between threads) are ESXi's; weights and order are not public
and our choice.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.errors import SimBug
from sim.hw.topology import Topology

__all__ = ["IdleMasks", "bits"]


class IdleMasks:
    """The idle pCPUs of a host as bits, and the choice among them."""

    __slots__ = ("_core", "_near", "idle", "whole")

    def __init__(self, topology: Topology) -> None:
        pcpus = topology.pcpus
        self._core = tuple(_mask(other.index for other in pcpus if other.core == each.core) for each in pcpus)
        by_llc = {each.llc: _mask(other.index for other in pcpus if other.llc == each.llc) for each in pcpus}
        by_node = {
            each.node: _mask(other.index for other in pcpus if other.node == each.node) for each in pcpus
        }
        self._near = tuple((1 << each.index, by_llc[each.llc], by_node[each.node], -1) for each in pcpus)
        self.idle = 0
        self.whole = 0  # pCPUs on cores of which all threads are idle

    def set_idle(self, index: int) -> None:
        """Processor `index` has nothing to run."""
        self.idle |= 1 << index
        core = self._core[index]
        if self.idle & core == core:
            self.whole |= core

    def set_busy(self, index: int) -> None:
        """Processor `index` runs a world."""
        self.idle &= ~(1 << index)
        self.whole &= ~self._core[index]

    def choose(self, last: int, allowed: int = -1) -> int:
        """Return the best idle pCPU of those `allowed` for a world that ran on `last`; -1 when all are busy."""
        idle = self.idle & allowed
        if not idle:
            return -1
        for candidates in (self.whole & idle, idle) if self.whole & idle else (idle,):
            for near in self._near[last]:
                found = candidates & near
                if found:
                    return (found & -found).bit_length() - 1
        raise SimBug("an idle pCPU was not found")

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the mask of whole cores follows from the mask of idle pCPUs."""
        whole = 0
        for core in self._core:
            if self.idle & core == core:
                whole |= core
        if whole != self.whole:
            raise SimBug(f"idle cores {self.whole:#x} do not follow from idle pCPUs {self.idle:#x}")


def bits(pcpus: Iterable[int]) -> int:
    """Return pCPU numbers as bits."""
    return _mask(pcpus)


def _mask(indexes: Iterable[int]) -> int:
    mask = 0
    for index in indexes:
        mask |= 1 << index
    return mask
