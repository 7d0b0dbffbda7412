"""The one function of most scripts: run a scenario to its end.

Apart from `sim.scenario.run`, so that `from sim import simulate` does not load the whole machine; the first call does.
Models nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.scenario.result import RunResult
    from sim.scenario.spec import Scenario

__all__ = ["simulate"]


def simulate(scenario: Scenario, seed: int | None = None, *, out: str | Path | None = None) -> RunResult:
    """Run a scenario to its end and return the result; with `out`, write result, event log and trace there too."""
    from sim.scenario.output import make_folder, write_outcome
    from sim.scenario.run import Simulation

    folder = Path(out) if out is not None else None
    if folder is not None:
        make_folder(folder)
    simulation = Simulation(scenario, seed=seed)
    simulation.run()
    result = simulation.finish()
    if folder is not None:
        write_outcome(result, simulation.sim.trace, folder)
    return result
