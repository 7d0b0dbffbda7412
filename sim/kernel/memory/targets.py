"""Who gets how much memory: min-funding revocation with the idle-memory tax, as one exact division.

Models: the equilibrium of "take from the VM that pays the fewest shares a page".  An idle page costs k = 1 / (1 - tax)
times an active one, so a VM with target P and active memory A pays for g(P) = P up to A, and A + k (P - A) above.  There
is one level L with g(P) = L x shares for every VM that is at none of its bounds, and targets add up to the capacity.
All in integers: L is the largest multiple of 2**-30 at which the targets fit, each rounded down.  The fewer pages than
VMs that are left over stay free, so that no order of VMs decides anything, and a VM with more shares or more active
memory never gets less.

Two implementations that agree on everything: `IdleTaxPolicy`, which reads like the definition, and `targets_of`, for
thousands of VMs at once.

Leaves out: the progressive tax of newer releases (not public), resource pools, NUMA.

Sources: Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002, sections 5.1 to 5.3; the closed form is
inferred from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen, validators

from sim.kernel.memory.options import IDLE_TAX_PERCENT
from sim.kernel.memory.protocol import Claim

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pages = npt.NDArray[np.int64]

__all__ = ["IdleTaxPolicy", "targets_of"]

_BITS = 30
_MASK = (1 << _BITS) - 1


@frozen(kw_only=True)
class IdleTaxPolicy:
    """Our policy; `tax_percent` from 0 (pure shares) to 99."""

    tax_percent: int = field(default=IDLE_TAX_PERCENT.value, validator=[validators.ge(0), validators.le(99)])

    def targets(self, capacity: int, claims: Sequence[Claim]) -> tuple[int, ...]:
        """Divide `capacity` pages; with enough for all everybody gets its ceiling, with too little its floor."""
        if sum(claim.ceiling for claim in claims) <= capacity:
            return tuple(claim.ceiling for claim in claims)
        high = 1 + max(self._level_of_ceiling(claim) for claim in claims)
        low = 0
        while high - low > 1:
            level = (low + high) // 2
            if sum(self._target(claim, level) for claim in claims) <= capacity:
                low = level
            else:
                high = level
        return tuple(self._target(claim, low) for claim in claims)

    def _target(self, claim: Claim, level: int) -> int:
        """Return what a claim gets at a level: the rest of its payment above its active memory buys taxed pages."""
        paid = level * claim.shares >> _BITS
        pages = paid
        if paid > claim.active:
            pages = claim.active + (paid - claim.active) * (100 - self.tax_percent) // 100
        return max(claim.floor, min(claim.ceiling, pages))

    def _level_of_ceiling(self, claim: Claim) -> int:
        """Return a level at which the claim is at its ceiling."""
        paid = claim.active + -(-claim.ceiling * 100 // (100 - self.tax_percent))
        return -(-(paid << _BITS) // claim.shares)


def targets_of(
    capacity: int,
    shares: Pages,
    active: Pages,
    floor: Pages,
    ceiling: Pages,
    *,
    tax_percent: int,
    hint: int = 0,
) -> tuple[Pages, int]:
    """Return the targets of `IdleTaxPolicy` for arrays, and their level; `hint` is a level that may be near.

    The hint decides how long the search takes, never its outcome.
    """
    import numpy as np

    if int(ceiling.sum()) <= capacity:
        return ceiling.copy(), hint
    keep = 100 - tax_percent
    whole_max = (active + -(-ceiling * 100 // keep)) // shares + 1  # beyond it a VM is at its ceiling anyway

    def at(level: int) -> Pages:
        whole = np.minimum(level >> _BITS, whole_max)
        idle = whole * shares
        idle += (level & _MASK) * shares >> _BITS
        idle -= active
        pages: Pages = np.where(idle > 0, idle * keep // 100, idle)
        pages += active
        np.minimum(pages, ceiling, out=pages)
        np.maximum(pages, floor, out=pages)
        return pages

    level = _search(lambda level: int(at(level).sum()), capacity, hint, (int(whole_max.max()) + 1) << _BITS)
    return at(level), level


def _search(total: Callable[[int], int], capacity: int, hint: int, high: int) -> int:
    """Return a level whose targets are those of the highest level at which they fit; `high` is one at which they do not.

    Interpolation and halving take turns.  Targets only grow with the level, so levels of one total are equal.
    """
    low, below, above = 0, total(0), total(high)
    guess, halve = (hint if 0 < hint < high else high // 2), False
    while high - low > 1 and below < capacity and above - below > 1:
        found = total(guess)
        if found <= capacity:
            low, below = guess, found
        else:
            high, above = guess, found
        halve = not halve
        if halve:
            guess = low + (high - low) * (2 * (capacity - below) + 1) // (2 * (above - below) + 1)
        else:
            guess = (low + high) // 2
        guess = max(low + 1, min(high - 1, guess))
    return low
