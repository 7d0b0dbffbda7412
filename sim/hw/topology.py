"""Lays out the logical processors of a host: which share a core, a last-level cache, a NUMA node, a package.

Models: ESXi's numbering, in which the threads of a core are neighbours and the cores of a node are consecutive; one
last-level cache for each NUMA node, or several, each shared by so many consecutive cores.

Leaves out: a cache shared by several nodes, asymmetric packages, distances between nodes beyond "same" or not.
"""

from __future__ import annotations

from attrs import frozen

from sim.hw.spec import CpuSpec


@frozen(kw_only=True)
class Pcpu:
    """One logical processor and its place in the hierarchy; all numbers count over the whole host."""

    index: int
    thread: int
    core: int
    llc: int
    node: int
    package: int


@frozen(kw_only=True)
class Topology:
    """All logical processors of a host, in ESXi's numbering."""

    pcpus: tuple[Pcpu, ...]
    nodes: int
    threads_per_core: int
    core_hz: int

    @classmethod
    def of(cls, spec: CpuSpec) -> Topology:
        """Return the topology that `spec` declares."""
        pcpus = []
        sharers = spec.cores_per_llc or spec.cores_per_node
        for index in range(spec.pcpus):
            core, thread = divmod(index, spec.threads_per_core)
            node = core // spec.cores_per_node
            package = node // spec.nodes_per_package
            llc = core // sharers
            pcpus.append(Pcpu(index=index, thread=thread, core=core, llc=llc, node=node, package=package))
        return cls(
            pcpus=tuple(pcpus), nodes=spec.nodes, threads_per_core=spec.threads_per_core, core_hz=spec.core_hz
        )

    @property
    def llcs(self) -> int:
        """The number of last-level caches."""
        return self.pcpus[-1].llc + 1

    def siblings(self, index: int) -> tuple[int, ...]:
        """Return the other logical processors on the same core as processor `index`."""
        first = index - index % self.threads_per_core
        return tuple(other for other in range(first, first + self.threads_per_core) if other != index)

    def of_node(self, node: int) -> tuple[Pcpu, ...]:
        """Return the logical processors of NUMA node `node`."""
        return tuple(pcpu for pcpu in self.pcpus if pcpu.node == node)
