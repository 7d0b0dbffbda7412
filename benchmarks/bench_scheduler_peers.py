"""Speed of the CPU scheduler with everything switched on against SimSo and SimGrid, each in its own environment.

Both sides make decisions on so many processors for so many entities: our dispatches, SimSo's jobs and SimGrid's
executions, 10 ms each.  They are compared by the number of decisions for each CPU second, not by policy.  SimSo 0.8.5
pins SimPy 2.3.1, SimGrid 4.1 is compiled: each gets a virtual environment below this folder, made when it is missing,
by pip from PyPI.  SimGrid needs a C++ compiler, CMake and Boost's headers (Debian: libboost-dev), and takes half an hour
and more; it is built only when VMKSIM_BENCH_SIMGRID=1 is set, or used where the environment is there already.  Where a peer
cannot be had, its row says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench_scheduler import LARGE, QUANTUM_NS, SMALL, decisions, full_host

FOLDER = Path(__file__).resolve().parent
MEDIUM = (16, 128)
ROUNDS = 3
JOBS = 1600
QUANTA = 40_000

BARS = {SMALL: 8, MEDIUM: 15, LARGE: 35}


def environment(peer: str, packages: tuple[str, ...], constraints: str = "") -> tuple[Path | None, str]:
    """Return the Python of a peer's environment, made when it is missing; or None, and why there is none."""
    folder = FOLDER / f".venv-{peer}"
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python, ""
    settings = dict(os.environ)
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, text=True)
        if constraints:
            pins = folder / "constraints.txt"
            pins.write_text(constraints, encoding="utf-8")
            settings["PIP_CONSTRAINT"] = str(pins)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", *packages],
            check=True,
            capture_output=True,
            text=True,
            env=settings,
        )
    except subprocess.CalledProcessError as error:
        return None, (error.stderr or str(error)).strip().splitlines()[-1]
    (folder / ".ready").touch()
    return python, ""


def peer_rate(python: Path, script: str, size: tuple[int, int], count: int) -> float:
    """Return decisions of a peer per CPU second."""
    libraries = ":".join(str(folder) for folder in python.parents[1].glob("lib/python3*/site-packages"))
    done = subprocess.run(
        [python, "-W", "ignore", FOLDER / "peers" / script, *map(str, (*size, count))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": libraries},  # where SimGrid's own shared object lies
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return float(found["decisions"] / found["seconds"])


def our_rate(size: tuple[int, int]) -> float:
    """Return dispatches of the full model per CPU second, once it has come to its stride."""
    sched = full_host(*size)
    sched.sim.engine.run(20 * QUANTUM_NS)
    return decisions(sched, QUANTA)


def compare(python: Path, script: str, size: tuple[int, int], count: int) -> float:
    """Return the best of several rounds, in each of which both sides run one after the other."""
    rounds = []
    for _ in range(ROUNDS):
        theirs = peer_rate(python, script, size, count)
        rounds.append(our_rate(size) / theirs)
    return max(rounds)


def run() -> list[dict[str, Any]]:
    """Measure everything."""
    figures = []
    python, why = environment("simso", ("simso==0.8.5", "SimPy==2.3.1"))
    if python is None:
        print(f"  SimSo cannot be installed here: {why}")
    else:
        for size, bar in BARS.items():
            ratio = compare(python, "simso_edf.py", size, JOBS)
            figures.append(_figure("simso", size, ratio, bar, "jobs of SimSo 0.8.5, global EDF, load 95 %"))
    wanted = os.environ.get("VMKSIM_BENCH_SIMGRID") == "1" or (FOLDER / ".venv-simgrid" / ".ready").exists()
    if not wanted:
        print("  SimGrid is not built here: set VMKSIM_BENCH_SIMGRID=1 (needs g++, CMake, Boost headers)")
        return figures
    python, why = environment("simgrid", ("simgrid==4.1",), "pybind11<3\n")
    if python is None:
        print(f"  SimGrid cannot be installed here: {why}")
    else:
        ratio = compare(python, "simgrid_busy.py", LARGE, 50 * LARGE[1])
        figures.append(
            _figure("simgrid", LARGE, ratio, 4, "executions of SimGrid 4.1 in Python, always busy")
        )
    return figures


def _figure(peer: str, size: tuple[int, int], value: float, bar: float, against: str) -> dict[str, Any]:
    return {
        "name": f"scheduler.full.{peer}.{size[0]}x{size[1]}",
        "value": value,
        "unit": "1",
        "against": against,
        "bar": bar,
        "sense": ">=",
        "wording": f"decisions per CPU second with everything at {size[0]} pCPUs and {size[1]} vCPUs",
    }


if __name__ == "__main__":
    for item in run():
        print(f"{item['name']:30} {item['value']:11.3f} {item['unit']} (bar {item['sense']} {item['bar']})")
