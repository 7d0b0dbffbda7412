"""All 18 scheduling invariants on random scenarios for the ESXi model.

Run `python tests/campaigns/sched_scenarios.py` (10,000 scenarios, about fifty minutes of one core) or add `--count N`.  A scenario is
a number: it gives one plan of each family of `sim.testing.scheduling`, and each invariant judges the plan of its family.
`--state FILE` keeps how far the campaign has come and goes on from there, as long as neither the sources of `sim` nor
the campaign have changed: verdicts on other code count for nothing.  `--jobs N` uses N processes.  The exit status is 0
only if no invariant was broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from time import process_time

import sim
from sim.errors import SimBug
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.testing.scheduling import seeded_plan
from sim.testing.scheduling_checks import CHECKS
from sim.testing.scheduling_host import MakePolicy, TestHost, play
from sim.testing.scheduling_violation import NAMES, SchedulingViolation

CHUNK = 50
COUNT = 10_000
SHOWN = 3

Chunk = tuple[int, int, dict[int, list[tuple[int, str]]], float]


def digest_of_sources(package: Path = Path(sim.__file__).parent, campaign: Path = Path(__file__)) -> str:
    """Return a SHA-256 over the names and contents of a package's modules, and over the campaign's own."""
    digest = sha256()
    for path in [*sorted(package.rglob("*.py")), campaign]:
        name = path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def scenario(seed: int, numbers: Sequence[int], make: MakePolicy = EsxiPolicy) -> dict[int, str]:
    """Judge one scenario; return what is broken, by invariant.  0 stands for a defect that the model itself reports."""
    broken: dict[int, str] = {}
    hosts: dict[str, TestHost] = {}
    for number in numbers:
        check = CHECKS[number]
        plan = seeded_plan(check.family, seed)
        try:
            if check.of_runs is not None:
                check.of_runs(plan, make)
            elif check.of_host is not None:
                if check.family not in hosts:
                    hosts[check.family] = play(plan, make)
                check.of_host(hosts[check.family])
        except SchedulingViolation as violation:
            broken[violation.number] = violation.text
        except SimBug as bug:
            broken[0] = str(bug)
    return broken


def chunk(first: int, count: int, numbers: Sequence[int]) -> Chunk:
    """Judge some scenarios; return where they begin, their number, what is broken in which, and CPU seconds."""
    begin = process_time()
    found: dict[int, list[tuple[int, str]]] = {}
    for seed in range(first, first + count):
        for number, text in scenario(seed, numbers).items():
            found.setdefault(number, []).append((seed, text))
    return first, count, found, process_time() - begin


def chunks(todo: Sequence[int], count: int, numbers: Sequence[int], jobs: int) -> Iterator[Chunk]:
    """Judge chunks, in this process or in several; results come in order."""
    if jobs == 1:
        for first in todo:
            yield chunk(first, min(CHUNK, count - first), numbers)
        return
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(chunk, first, min(CHUNK, count - first), numbers) for first in todo]
        for each in waiting:
            yield each.result()


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign, print its counts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="invariants, such as 3,17 (default: all)")
    parser.add_argument("--state", type=Path, help="a file that keeps what has been done")
    options = parser.parse_args(arguments)
    numbers = [int(number) for number in options.only.split(",") if number] or list(CHECKS)
    key = f"{numbers} {digest_of_sources()}"
    state = {"key": key, "done": [], "seconds": 0.0, "broken": {}}
    if options.state is not None and options.state.exists():
        before = json.loads(options.state.read_text(encoding="utf-8"))
        state = before if before["key"] == key else state
    done = {tuple(each) for each in state["done"]}
    firsts = range(0, options.count, CHUNK)
    todo = [first for first in firsts if (first, min(CHUNK, options.count - first)) not in done]
    print(
        f"{options.count} scenarios, {options.count - len(todo) * CHUNK if todo else options.count} judged before"
    )
    for first, size, found, seconds in chunks(todo, options.count, numbers, options.jobs):
        state["done"].append((first, size))
        state["seconds"] += seconds
        for number, cases in found.items():
            state["broken"].setdefault(str(number), []).extend(cases)
        if options.state is not None:
            options.state.write_text(json.dumps(state) + "\n", encoding="utf-8")
    return report(state, options.count, numbers)


def report(state: dict[str, object], count: int, numbers: Sequence[int]) -> int:
    """Print a line for each invariant and the whole; return the exit status."""
    broken: dict[str, list[tuple[int, str]]] = state["broken"]  # type: ignore[assignment]
    total = 0
    for number in (*numbers, 0):
        cases = [case for case in broken.get(str(number), []) if case[0] < count]
        total += len(cases)
        name = f"P{number} {NAMES[number]}" if number else "the model's own checks"
        print(f"  {name:28} {count} scenarios, {len(cases)} violations")
        for seed, text in cases[:SHOWN]:
            print(f"    scenario {seed}: {text}")
    print(f"total: {count} scenarios, {total} violations, {state['seconds']:.0f} CPU seconds")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
