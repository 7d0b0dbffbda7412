"""Run every benchmark of this folder and print its figures as ratios against a named peer or floor.

Each module `bench_*.py` has a function `run()` that returns a list of dicts with name, value, unit, against, bar, sense
(">=" or "<=") and wording; both sides of a ratio are measured in this one run.  `python benchmarks/run.py NAME...`
runs only the named modules.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"


def main(names: list[str]) -> int:
    sys.path.insert(0, str(FOLDER))
    modules = names or sorted(path.stem for path in FOLDER.glob("bench_*.py"))
    results = []
    for module in modules:
        print(f"{module} ...", flush=True)
        for figure in importlib.import_module(module).run():
            met = (
                figure["value"] >= figure["bar"]
                if figure["sense"] == ">="
                else figure["value"] <= figure["bar"]
            )
            verdict = "met" if met else "NOT MET"
            print(
                f"  {figure['name']}: {figure['value']:.3f} {figure['unit']} against {figure['against']}"
                f" (bar {figure['sense']} {figure['bar']}: {verdict})",
                flush=True,
            )
            results.append(figure)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{len(results)} figures written to {RESULTS.relative_to(FOLDER.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
