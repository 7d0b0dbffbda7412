"""Do the invariants catch schedulers that are known to be wrong?  Four of them, and what is said of each."""

from fractions import Fraction

from sim.kernel.sched.cosched_narrow import NarrowGroup
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.kernel.sched.policies.lottery import Lottery
from sim.testing.plain_stride import PlainStride
from sim.testing.scheduling import seeded_plan
from sim.testing.scheduling_checks import judge
from sim.testing.scheduling_plan import Action, Load, SchedPlan, VmPlan
from sim.testing.scheduling_violation import SchedulingViolation


class RawWeights(PlainStride):
    def readjust(self):
        self.weights = {number: Fraction(world.weight) for number, world in self.competing.items()}


class TickCharging(PlainStride):
    def charge(self, world, ran_ns):  # a whole tick for whoever runs at the tick
        tick_ns, now_ns = self.host.options.quantum_ns, self.host.sim.now
        if now_ns % tick_ns == 0 or ran_ns >= tick_ns:
            ticks = now_ns // tick_ns - (now_ns - ran_ns) // tick_ns
            self.times[world.world_id] += ticks * tick_ns / self.weights[world.world_id]


def show(title, number, make, plan):
    try:
        judge(plan, make, numbers=(number,))
        print(f"{title}: nothing found")
    except SchedulingViolation as violation:
        print(f"{title}:\n  {violation}")


late = [Action(time_us=ms * 1000, what=what, who=2) for ms, what in ((0, "suspend"), (500, "resume"))]
heavy = [VmPlan(name=name, shares=n) for name, n in (("light", 1), ("heavy", 10), ("late", 1))]
robbers = [VmPlan(name=n, loads=(Load(kind="onoff", run_us=4100, wait_us=50),)) for n in ("one", "other")]
show("lottery", 3, Lottery, SchedPlan(vms=(VmPlan(name="busy"), VmPlan(name="other")), span_ms=1000))
show("raw weights", 6, RawWeights, SchedPlan(cores=2, span_ms=1000, vms=(*heavy,), actions=(*late,)))
show("ticks", 6, TickCharging, SchedPlan(vms=(VmPlan(name="busy"), *robbers), span_ms=400))
NarrowGroup.stopped = lambda self, world, begun, now: setattr(
    world, "progress", max(now, begun) - world.progress
)
show("skew", 9, EsxiPolicy, seeded_plan("any", 0))  # siblings of one that stops are not looked at again
