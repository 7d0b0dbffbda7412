"""How long `import sim` takes, against importing three of the libraries that it stands on."""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 9
FLOOR = "import simpy, numpy, cryptography"
CANDIDATES = (
    ("import sim", "import sim"),
    ("import of the names of the five lines", "from sim import Scenario, simulate"),
)


def seconds(statement: str) -> float:
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def run() -> list[dict[str, object]]:
    statements = [FLOOR, *(statement for _, statement in CANDIDATES)]
    samples: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(ROUNDS):
        for statement in statements:
            samples[statement].append(seconds(statement))
    floor = statistics.median(samples[FLOOR])
    return [
        {
            "name": name,
            "value": statistics.median(samples[statement]) / floor,
            "unit": "x",
            "against": FLOOR,
            "bar": 1.3,
            "sense": "<=",
            "wording": "import time of `sim` against importing simpy + numpy + cryptography (aim: within 1.3x)",
        }
        for name, statement in CANDIDATES
    ]
