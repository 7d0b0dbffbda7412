"""What a world does next: its workload's steps, as bursts, sleeps and waits at gates.

Models: steps that take no time are taken at once, up to a limit; a wait at a gate is a sleep without an end, or a burst
without one if the workload spins.  Leaves out how a burst gets its CPU (`scheduler`).

Sources: none, a design of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.errors import ScenarioError
from sim.kernel.workload import FOREVER_NS, Enter, Run, Wait
from sim.kernel.world import World, WorldState

__all__ = ["STEPS_MAX", "next_burst", "open_gate", "sleep"]

STEPS_MAX = 1000
"""The most steps without length that a workload may give in a row."""


def next_burst(world: World, now_ns: int) -> bool:
    """Ask the workload for its next step; True: it wants CPU, False: it sleeps and its timer is set."""
    step = world.workload.next(now_ns)
    if step.__class__ is Run:  # the hot path
        if step.ns > 0:
            world.remaining_ns = step.ns
            return True
    elif step.__class__ is Wait and 0 < step.ns < FOREVER_NS:
        world.remaining_ns = 0
        world.interrupt_ns = step.interrupt_ns
        world.timer.arm(now_ns + step.ns)
        return False
    for _ in range(STEPS_MAX):
        if isinstance(step, Run):
            world.remaining_ns = step.ns
        elif isinstance(step, Wait):
            world.remaining_ns = 0
            world.interrupt_ns = step.interrupt_ns
            if step.ns:
                sleep(world, step.ns, now_ns)
                return False
        elif isinstance(step, Enter):
            woken = step.gate.enter(world)
            if woken is None:
                world.spinning = step.spin
                world.remaining_ns = FOREVER_NS if step.spin else 0
                return step.spin
            open_gate(woken, now_ns)
        else:
            open_gate(step.gate.leave(world), now_ns)
        if world.remaining_ns > 0:
            return True
        step = world.workload.next(now_ns)
    raise ScenarioError("workload", f"{world.name} gave {STEPS_MAX} steps of no length in a row")


def open_gate(worlds: Iterable[World], now_ns: int) -> None:
    """Let worlds go on that have waited at a gate; one that spins sees it a nanosecond later."""
    for world in worlds:
        if world.spinning:
            world.spinning = False
            world.sched.end_spin(world, now_ns)
        elif world.state is WorldState.ENDED:
            continue
        elif world.state is WorldState.WAIT_VM:
            world.sleep_left_ns = 0
        else:
            world.timer.arm(now_ns)


def sleep(world: World, ns: int, now_ns: int) -> None:
    """Set the timer that ends a sleep, if it has an end."""
    if ns < FOREVER_NS:
        world.timer.arm(now_ns + ns)
