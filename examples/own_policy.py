"""Who pays when the VM that has had least CPU always goes first?  A policy of one's own, beside three that ship."""

from pathlib import Path

from sim.kernel.sched.policy import Policy


class LeastServed(Policy):
    """Of the worlds that are ready, the one with the least run time since it was made; shares do not count."""

    name = "leastserved"

    def attach(self, host):
        super().attach(host)
        self.ready = {}

    def enqueue(self, world, now_ns):
        self.ready[world.world_id] = world

    def dequeue(self, world):
        del self.ready[world.world_id]

    def pick(self, pcpu, now_ns):
        able = [world for world in self.ready.values() if world.may_run_on(pcpu)]
        if not able:
            return None
        return self.ready.pop(min((world.run_ns, world.world_id) for world in able)[1])

    def queued(self):
        return len(self.ready)


if __name__ == "__main__":
    from sim import load_scenario
    from sim.report.compare import compare_sections
    from sim.report.table import plain_section
    from sim.scenario.comparison import Candidate, candidates, compare_policies

    scenario = load_scenario(Path(__file__).with_suffix(".toml"), allow_code=True)
    own = Candidate(label="leastserved", policy=scenario.sched.policy)
    for section in compare_sections(
        list(compare_policies(scenario, [own, *candidates(["esxi", "eevdf", "gang"])]))
    ):
        print("\n".join(plain_section(section)))
