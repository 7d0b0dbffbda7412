"""How much of its memory a VM uses: the estimate from a few sampled pages.

Models: at the start of a period 100 pages are drawn at random, at its end those that were touched are counted; t of n
touched estimate the fraction t / n, with all the noise of so small a sample.  Of three moving averages (slow, fast,
and fast with the period that is still running) the largest counts, so that the estimate rises fast and falls slowly.

Leaves out: the cost of the minor faults by which ESX notices a touch (at most one for each sampled page).

Sources: Waldspurger, OSDI 2002, section 5.3; the weights of the averages are not public.
"""

from __future__ import annotations

from attrs import evolve, field, frozen, validators

from sim.errors import SimBug
from sim.kernel.memory.options import FAST_SHIFT, SLOW_SHIFT

__all__ = ["ONE", "Activity"]

ONE = 1 << 20
"""A fraction of 1."""


@frozen(kw_only=True)
class Activity:
    """The averages of one VM, as fractions of `ONE`; each new period moves an average by 1 / 2**shift of the way."""

    slow: int = field(default=0, validator=[validators.ge(0), validators.le(ONE)])
    fast: int = field(default=0, validator=[validators.ge(0), validators.le(ONE)])
    periods: int = 0

    def after(self, touched: int, sampled: int) -> Activity:
        """Return the averages after a period in which `touched` of `sampled` pages were; the first period sets them."""
        found = _fraction(touched, sampled)
        if not self.periods:
            return Activity(slow=found, fast=found, periods=1)
        return evolve(
            self,
            slow=_moved(self.slow, found, SLOW_SHIFT.value),
            fast=_moved(self.fast, found, FAST_SHIFT.value),
            periods=self.periods + 1,
        )

    def estimate(self, touched: int = 0, sampled: int = 0) -> int:
        """Return the estimate, a fraction of `ONE`, given what the running period has counted so far."""
        running = self.fast
        if sampled:
            running = _moved(self.fast, _fraction(touched, sampled), FAST_SHIFT.value)
        return max(self.slow, self.fast, running)

    def pages(self, configured: int, touched: int = 0, sampled: int = 0) -> int:
        """Return the estimate as a number of pages of a VM with `configured`, rounded up."""
        return -(-configured * self.estimate(touched, sampled) // ONE)


def _fraction(touched: int, sampled: int) -> int:
    if not 0 <= touched <= sampled or not sampled:
        raise SimBug(f"{touched} of {sampled} sampled pages were touched")
    return ONE * touched // sampled


def _moved(average: int, found: int, shift: int) -> int:
    """Move an average toward what was found, by at least 1, so that it gets there."""
    gap = found - average
    step = -(-abs(gap) >> shift)
    return average + step if gap > 0 else average - step
