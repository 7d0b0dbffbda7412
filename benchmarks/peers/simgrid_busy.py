"""One run of SimGrid's Python API, for `bench_scheduler_peers`: runs in SimGrid's own virtual environment.

Arguments: cores, actors, executions.  One host with so many cores; each actor executes 10 ms of a core at a time, always
busy.  SimGrid shares cores fluidly, and solves the shares anew at every completion.  Prints a line of JSON: how many
executions ended, and the CPU seconds of the run alone.
"""

import json
import sys
from time import process_time

from simgrid import Engine, this_actor

SPEED = 1e9
EXECUTION = 1e7


class Worker:
    """An actor: executes again and again."""

    done = 0

    def __init__(self, first: float, executions: int) -> None:
        self.first = first
        self.executions = executions

    def __call__(self) -> None:
        """Be the actor."""
        this_actor.execute(EXECUTION * self.first)
        for _ in range(self.executions):
            this_actor.execute(EXECUTION)
            Worker.done += 1


def main(cores: int, actors: int, executions: int) -> None:
    """Run and print."""
    engine = Engine(["simgrid_busy", "--log=root.thresh:error"])
    zone = engine.netzone_root
    add = getattr(zone, "add_host", None) or zone.create_host
    host = add("host", SPEED)
    host.core_count = cores
    zone.seal()
    add_actor = getattr(host, "add_actor", None)
    for number in range(actors):
        worker = Worker((number + 1) / actors, executions // actors)
        if add_actor is not None:
            add_actor(f"actor{number}", worker)
        else:
            from simgrid import Actor

            Actor.create(f"actor{number}", host, worker)
    begin = process_time()
    engine.run()
    print(json.dumps({"decisions": Worker.done, "seconds": process_time() - begin}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
