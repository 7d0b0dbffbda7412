"""Question: which promise does my own scheduling policy break, and what is the smallest scenario that shows it?

The policy runs the world that has had the least CPU time for its shares.  That is fair, until somebody sleeps.
The search tries random hosts for each invariant and shrinks the first that fails.
"""

from fractions import Fraction

from sim.kernel.sched.policy import Policy
from sim.testing import find_scheduling_violation


class LeastServed(Policy):
    """CPU time over shares decides, since the world was made."""

    name = "leastserved"

    def attach(self, host):
        super().attach(host)
        self.waiting = []

    def enqueue(self, world, now_ns):
        world.note = Fraction(0) if world.note is None else world.note
        self.waiting.append(world)

    def dequeue(self, world):
        self.waiting.remove(world)

    def pick(self, pcpu, now_ns):
        able = [world for world in self.waiting if world.may_run_on(pcpu)]
        if not able:
            return None
        first = min(able, key=lambda world: world.note)
        self.waiting.remove(first)
        return first

    def charge(self, world, ran_ns):
        world.note = (world.note or 0) + Fraction(ran_ns, world.weight)

    def queued(self):
        return len(self.waiting)


for number in (1, 2, 5, 15, 18, 6, 14):
    found = find_scheduling_violation(LeastServed, number, examples=25)
    if found is None:
        print(f"P{number}: nothing found")
    else:
        print(f"P{number} is broken by this scenario:\n\n{found}")
