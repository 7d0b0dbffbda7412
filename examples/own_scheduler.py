"""Which promise does a scheduling policy of my own break, and in which smallest scenario?  Search, and shrink it.

The policy runs the world that has had the least CPU time for its shares.  That is fair, until somebody sleeps.  The
search tries random hosts for some of the 18 invariants, and shrinks the first that fails (docs/testing-schedulers.md).
"""

from fractions import Fraction

from sim.kernel.sched.policies.round_robin import RoundRobin
from sim.testing import find_scheduling_violation


class LeastServed(RoundRobin):
    """CPU time over shares decides, since the world was made."""

    name = "leastserved"

    def pick(self, pcpu, now_ns):
        """Take the world that has had the least."""
        able = [world for world in self._queue.values() if world.may_run_on(pcpu)]
        if not able:
            return None
        first = min(able, key=lambda world: world.note or 0)
        self.dequeue(first)
        return first

    def charge(self, world, ran_ns):
        """Add what it has run."""
        world.note = (world.note or 0) + Fraction(ran_ns, world.weight)


for number in (1, 2, 5, 15, 18, 6, 14):
    found = find_scheduling_violation(LeastServed, number, examples=25)
    if found is None:
        print(f"P{number}: nothing found")
    else:
        print(f"P{number} is broken by this scenario:\n\n{found}")
