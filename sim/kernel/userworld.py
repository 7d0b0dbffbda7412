"""User worlds: the agents that run beside the VMs, each in an address space of its own, at random addresses.

Models: the program and the libraries it needs, linked and mapped from verified bytes with each segment's own rights;
heap and stacks (of a second thread too), never executable; a vDSO; arguments on the main stack; random bases by the
profile of the release; a world in the scheduler's books.

Leaves out: what the agents do (they wait; the management interface is called from outside), system calls, and
sharing of library frames between worlds.

Sources: VMware's security guide for ESXi, "Memory Hardening" (user-mode applications and libraries at random,
non-predictable addresses); the windows are those of `sim.kernel.layout` and marked assumed there.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from sim.core.context import Sim
from sim.core.facts import fact
from sim.core.rng import Rng
from sim.core.trace import record
from sim.core.units import KIB, MIB
from sim.errors import SimBug, VmksimError
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Rights
from sim.hw.processors import Processors
from sim.image.contents import open_archive
from sim.kernel.layout import VDSO_BYTES, Layout, LayoutProfile, Place, process_places, user_profile
from sim.kernel.memory import KernelMemory
from sim.kernel.program_loading import load_program
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Idle
from sim.kernel.world import World

__all__ = ["AGENTS", "LIBRARIES", "UserWorld", "UserWorlds", "agents_in"]

USER_WORLD = record("userworld.started", world=int, name=str, program=int, library=int, heap=int, stack=int)
"""A user world started: bases of its regions (library 0 when it has none)."""

AGENTS = ("bin/hostd", "bin/vpxa")
"""The programs that are started at boot, by their path in the image."""

LIBRARIES = ("lib64/libc.so.6",)
"""The libraries that agents may need, by their path in the image."""

_GUESS = "the order of magnitude of small server processes"
HEAP_BYTES = fact("userworld.heap_bytes", MIB, unit="byte", source=_GUESS, kind="assumed")
STACK_BYTES = fact("userworld.stack_bytes", 256 * KIB, unit="byte", source=_GUESS, kind="assumed")
SHARES = fact(
    "userworld.shares", 1000, unit="1", source="those of one vCPU at the normal level", kind="assumed"
)
_ELF_MAGIC = b"\x7fELF"
_DATA = Rights(write=True, user=True, execute=False)
_TEXT = Rights(user=True, execute=True)
_RETURN = b"\xc3"


@frozen(kw_only=True)
class UserWorld:
    """A running agent: its world, its layout and its memory."""

    name: str
    world: World
    layout: Layout
    memory: KernelMemory
    places: tuple[Place, ...] = ()
    """Heap start, stack pointer and arguments, whose addresses have draws of their own."""


def agents_in(content: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the agents and the libraries (path to ELF bytes) that an unpacked payload holds.

    Errors: `FormatError` when the payload is a broken archive.
    """
    files = {entry.path: entry.data for entry in open_archive(content) if entry.data.startswith(_ELF_MAGIC)}
    return (
        {path: files[path] for path in AGENTS if path in files},
        {path: files[path] for path in LIBRARIES if path in files},
    )


class UserWorlds:
    """The user worlds of one boot."""

    def __init__(
        self,
        sim: Sim,
        memory: PhysicalMemory,
        scheduler: Scheduler,
        rng: Rng,
        profile: LayoutProfile | None = None,
        *,
        processors: Processors | None = None,
    ) -> None:
        self._sim = sim
        self._memory = memory
        self._scheduler = scheduler
        self._rng = rng
        self._profile = profile if profile is not None else user_profile()
        self._processors = processors
        self.running: dict[str, UserWorld] = {}

    def start(self, path: str, program: bytes, libraries: Mapping[str, bytes]) -> UserWorld:
        """Map an agent whose bytes were verified, with its libraries, and start its world.

        Errors: `FormatError` or another `VmksimError` when a file cannot be mapped; what was mapped is freed then.
        """
        name = path.rpartition("/")[2]
        layout = Layout(self._rng.stream(f"layout/user/{name}"), self._profile)
        memory = KernelMemory(self._sim, self._memory, name=f"user:{name}", processors=self._processors)
        try:
            bases = self._map_all(layout, memory, name, program, libraries)
        except VmksimError:
            for segment in memory.segments():
                memory.unmap_segment(segment.base, used=False)
            memory.space.destroy()
            raise
        world = self._scheduler.add(name, Idle(), kind="user")
        self._scheduler.allocate(world, shares=SHARES.value)
        self._scheduler.begin(world)
        started = self.running[name] = UserWorld(
            name=name,
            world=world,
            layout=layout,
            memory=memory,
            places=_put_arguments(layout, memory, bases, path),
        )
        self._sim.trace.emit(
            USER_WORLD,
            world.world_id,
            name,
            bases["exe"],
            bases.get("library", 0),
            bases["heap"],
            bases["stack"],
        )
        self._sim.log("vmkernel", f"User: started {name}, placed at random, W^X", world=world.world_id)
        return started

    def end(self, name: str) -> None:
        """End one world; its frames and tables are free when every processor has forgotten them."""
        user_world = self.running.pop(name)
        self._scheduler.end(user_world.world)
        memory = user_world.memory
        memory.unmap_segments([segment.base for segment in memory.segments()], done=memory.space.destroy)

    def stop(self) -> None:
        """End all worlds at the end of the host; their memory goes with the platform reset."""
        for user_world in self.running.values():
            self._scheduler.end(user_world.world)
        self.running.clear()

    def check_invariants(self) -> None:
        """Raise `SimBug` unless each world's layout and memory are whole and no two worlds share a frame."""
        owned: dict[int, str] = {}
        for user_world in self.running.values():
            user_world.layout.check_invariants()
            user_world.memory.check_invariants()
            for segment in user_world.memory.segments():
                for extent in segment.extents:
                    for mpn in extent.mpns():
                        if owned.setdefault(mpn, user_world.name) != user_world.name:
                            raise SimBug(f"frame {mpn:#x} is mapped by {owned[mpn]} and {user_world.name}")

    def _map_all(
        self, layout: Layout, memory: KernelMemory, name: str, program: bytes, libraries: Mapping[str, bytes]
    ) -> dict[str, int]:
        """Map program, libraries, heap and stack; return their bases."""
        linked = load_program(layout, name, program, libraries)
        for one in linked:
            for part in one.segments:
                rights = evolve(part.rights, user=True)
                memory.map_segment(
                    part.base, part.data, rights, owner=memory.name, size_bytes=part.size_bytes
                )
        bases = {kind: one.base for kind, one in zip(("exe", "library"), linked, strict=False)}
        for kind, size_bytes in (
            ("heap", HEAP_BYTES.value),
            ("stack", STACK_BYTES.value),
            ("thread-stack", STACK_BYTES.value),
        ):
            bases[kind] = layout.place(kind, size_bytes, name)
            memory.map_segment(bases[kind], b"", _DATA, owner=f"user:{name}", size_bytes=size_bytes)
        vdso = layout.place("vdso", VDSO_BYTES.value, name)
        memory.map_segment(vdso, _RETURN, _TEXT, owner=f"user:{name}", size_bytes=VDSO_BYTES.value)
        return bases


def _put_arguments(
    layout: Layout, memory: KernelMemory, bases: Mapping[str, int], path: str
) -> tuple[Place, ...]:
    """Draw where heap and stack begin within their pages, and write the program's path as its first argument."""
    places = process_places(layout, layout.region(bases["heap"]), layout.region(bases["stack"]))
    arguments = places[-1].address
    if memory.space.store(arguments, path.encode() + b"\0", user=True) is not None:
        raise SimBug(f"the arguments of {path} cannot be written at {arguments:#x}")
    return places
