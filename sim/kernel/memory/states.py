"""The reclamation states: how much memory should be free, and what is done when less is.

Models: minFree by its sliding scale; the states of 5.x (high, soft, hard, low) and of 6.0 and later (with clear), with
hysteresis; what each state permits.  All pure functions.

A lower state is entered when free memory drops below that state's threshold, and left when it exceeds the threshold of
the next higher one by the hysteresis.  So a host at 255 % of minFree is "clear" if it has been below 100 %, as a host
was seen to be.

Leaves out: an administrator's own minFree; the 300 % that one source gives for high.

Sources: Denneman 2011 and yellow-bricks 2013, 2015 (scale and thresholds); Waldspurger, OSDI 2002, section 6.3
(direction of the transitions).
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from sim.core.facts import fact
from sim.core.units import GIB
from sim.errors import SimBug
from sim.kernel.memory.options import MemOptions

__all__ = ["Actions", "MemState", "actions_of", "breaks_large", "min_free", "next_state", "states_of"]

_SCALE = "Denneman 2011, yellow-bricks 2013: sliding scale of minFree over managed memory"
_STATES = "yellow-bricks: thresholds in percent of minFree"

MIN_FREE_FIRST = fact("mem.min_free.to_4_gib", 6, unit="percent", source=_SCALE, kind="vendor")
MIN_FREE_SECOND = fact("mem.min_free.to_12_gib", 4, unit="percent", source=_SCALE, kind="vendor")
MIN_FREE_THIRD = fact("mem.min_free.to_28_gib", 2, unit="percent", source=_SCALE, kind="vendor")
MIN_FREE_REST = fact("mem.min_free.above", 1, unit="percent", source=_SCALE, kind="vendor")
HIGH_60 = fact("mem.state.high", 400, unit="percent of minFree", source=_STATES, kind="vendor")
HIGH_5X = fact("mem.state.high_5x", 100, unit="percent of minFree", source=_STATES, kind="vendor")
CLEAR = fact("mem.state.clear", 100, unit="percent of minFree", source=_STATES, kind="vendor")
SOFT = fact("mem.state.soft", 64, unit="percent of minFree", source=_STATES, kind="vendor")
HARD = fact("mem.state.hard", 32, unit="percent of minFree", source=_STATES, kind="vendor")
LOW = fact("mem.state.low", 16, unit="percent of minFree", source=_STATES, kind="vendor")


class MemState(StrEnum):
    """The state of a host's memory, as esxtop shows it."""

    HIGH = "high"
    CLEAR = "clear"
    SOFT = "soft"
    HARD = "hard"
    LOW = "low"


_STATES_60 = (
    (MemState.HIGH, HIGH_60.value),
    (MemState.CLEAR, CLEAR.value),
    (MemState.SOFT, SOFT.value),
    (MemState.HARD, HARD.value),
    (MemState.LOW, LOW.value),
)
_STATES_5X = (
    (MemState.HIGH, HIGH_5X.value),
    (MemState.SOFT, SOFT.value),
    (MemState.HARD, HARD.value),
    (MemState.LOW, LOW.value),
)
_SCALE_STEPS = (
    (4 * GIB, MIN_FREE_FIRST.value),
    (12 * GIB, MIN_FREE_SECOND.value),
    (28 * GIB, MIN_FREE_THIRD.value),
)


@frozen(kw_only=True)
class Actions:
    """What a state lets the VMkernel do to VMs; periodic sharing goes on in every state."""

    share_now: bool = False
    balloon: bool = False
    compress: bool = False
    swap: bool = False
    block: bool = False


_ACTIONS = {
    MemState.HIGH: Actions(),
    MemState.CLEAR: Actions(share_now=True),
    MemState.SOFT: Actions(share_now=True, balloon=True),
    MemState.HARD: Actions(share_now=True, compress=True, swap=True),
    MemState.LOW: Actions(compress=True, swap=True, block=True),
}


def min_free(managed_bytes: int) -> int:
    """Return the bytes that should be free on a host with `managed_bytes`: 6, 4, 2 and 1 % of its parts, rounded down."""
    hundredfold = below = 0
    for end, percent in _SCALE_STEPS:
        hundredfold += max(0, min(managed_bytes, end) - below) * percent
        below = end
    return (hundredfold + max(0, managed_bytes - below) * MIN_FREE_REST.value) // 100


def states_of(release: str) -> tuple[tuple[MemState, int], ...]:
    """Return the states of a release from the highest to the lowest, with their thresholds in percent of minFree."""
    return _STATES_5X if release == "5.x" else _STATES_60


def next_state(previous: MemState, free: int, minimum: int, options: MemOptions) -> MemState:
    """Return the state that follows `previous` when `free` (in the unit of `minimum`, minFree) is free."""
    states = states_of(options.release)
    at = next((index for index, (state, _) in enumerate(states) if state is previous), None)
    if at is None:
        raise SimBug(f"release {options.release} has no state {previous}")
    lowest = max(
        (index for index in range(1, len(states)) if free * 100 < states[index][1] * minimum), default=0
    )
    if lowest > at:
        return states[lowest][0]
    while at > lowest and free * 100 > (states[at - 1][1] + options.hysteresis_percent) * minimum:
        at -= 1
    return states[at][0]


def actions_of(state: MemState) -> Actions:
    """Return what a state permits."""
    return _ACTIONS[state]


def breaks_large(free: int, minimum: int, release: str) -> bool:
    """Tell whether large pages are broken: below the high threshold, whatever the state."""
    return free * 100 < states_of(release)[0][1] * minimum
