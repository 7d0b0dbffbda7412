"""vCPUs that wait for swap: what bringing swapped pages in costs the guests that touch them.

Models: after each poll of the memory scheduler, the time that its guests' pages needed from swap is shared out among the vCPUs of
the VM that run then, since whoever touches memory runs; each waits that long (WAIT_SWAP, `%SWPWT`), but not beyond the next poll.
If none runs, the time is kept for the next poll.

Leaves out: that a guest which waits touches less (touches have rates of their own); what would last beyond a poll, and what a suspension
or another allocation cuts short, is dropped; waits of recorded demand in the fluid engine.

Sources: that a vCPU waits while its page comes from swap, esxtop's %SWPWT; the division among vCPUs is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.kernel.sched.fluid_world import FluidWorld
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.kernel.vm import Vm, VmManager
    from sim.kernel.world import World

__all__ = ["SwapWaits"]


class SwapWaits:
    """Blocks the vCPUs of managed VMs; `poll` is called after each poll of the memory scheduler."""

    def __init__(self, manager: VmManager) -> None:
        self._manager = manager
        self._until_ns: dict[int, int] = {}  # world -> the end of its present wait

    def poll(self) -> None:
        """Let those wait whose guests have brought pages in."""
        manager = self._manager
        if manager.mem is None:
            return
        for guest in manager.mem.guests.values():
            if guest.swap_wait_ns and self._block(manager.vms[guest.name], guest.swap_wait_ns):
                guest.swap_wait_ns = 0

    def _block(self, vm: Vm, wait_ns: int) -> bool:
        """Share a wait out among the vCPUs that run, the first of which take the remainder; False: none runs."""
        now_ns, most_ns = self._manager.sim.now, self._manager.mem_options.poll_ns - 1
        running = [world for world in vm.vcpus if _can_wait(world, now_ns)]
        if not running:
            return False
        each_ns, rest = divmod(wait_ns, len(running))
        for index, world in enumerate(running):
            ns = min(each_ns + (index < rest), most_ns)
            if ns and _can_wait(world, now_ns):  # those before it may have had it stopped
                self._until_ns[world.world_id] = now_ns + ns
                self._manager.scheduler.block(world)
                self._manager.sim.engine.after(ns, self._end, world)
        return True

    def _end(self, world: World) -> None:
        """End a wait, unless the world has been suspended or ended since."""
        if self._until_ns.get(world.world_id) != self._manager.sim.now:
            return
        del self._until_ns[world.world_id]
        if world.state is WorldState.WAIT_SWAP:
            self._manager.scheduler.unblock(world)


def _can_wait(world: World, now_ns: int) -> bool:
    """Whether a world runs and can stand still: a recorded demand in the fluid engine flows on."""
    flows_on = isinstance(world, FluidWorld) and world.inflow is not None
    return world.state is WorldState.RUN and world.since_ns <= now_ns and not flows_on
