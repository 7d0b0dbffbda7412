"""One run of SimSo's global EDF, for `bench_scheduler_peers`: runs in SimSo's own virtual environment.

Arguments: processors, tasks, jobs.  Every job is 10 ms long, and the processors are loaded to 95 %.  Prints a line of
JSON: how many jobs ended, and the CPU seconds of the run alone.
"""

import contextlib
import io
import json
import sys
from time import process_time

from simso.configuration import Configuration
from simso.core import Model

JOB_MS = 10.0
LOAD = 0.95


def main(processors: int, tasks: int, jobs: int) -> None:
    """Run and print."""
    period_ms = JOB_MS * tasks / (LOAD * processors)
    configuration = Configuration()
    configuration.etm = "wcet"
    configuration.duration = int(period_ms * jobs / tasks * configuration.cycles_per_ms)
    for number in range(tasks):
        configuration.add_task(
            name=f"T{number}",
            identifier=number + 1,
            period=period_ms,
            activation_date=period_ms * number / tasks,
            wcet=JOB_MS,
            deadline=period_ms,
        )
    for number in range(processors):
        configuration.add_processor(name=f"P{number}", identifier=number + 1)
    configuration.scheduler_info.clas = "simso.schedulers.EDF"
    configuration.check_all()
    model = Model(configuration)
    with contextlib.redirect_stdout(io.StringIO()):
        begin = process_time()
        model.run_model()
        seconds = process_time() - begin
    ended = sum(job.end_date is not None for task in model.results.tasks.values() for job in task.jobs)
    print(json.dumps({"decisions": ended, "seconds": seconds}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
