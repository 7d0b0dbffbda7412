"""vmkernel-sim: a deterministic full-system simulator of the VMkernel.

The public names below are all that a script needs; each is imported when it is first used, so that `import sim` is
quick.  Everything else is reached by its module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sim._version import __version__

if TYPE_CHECKING:
    from sim.errors import FormatError, ScenarioError, SimBug, VerificationError, VmksimError
    from sim.scenario.entry import simulate
    from sim.scenario.load import load_scenario
    from sim.scenario.result import RunResult
    from sim.scenario.run import Simulation
    from sim.scenario.spec import Scenario

__all__ = [
    "FormatError",
    "RunResult",
    "Scenario",
    "ScenarioError",
    "SimBug",
    "Simulation",
    "VerificationError",
    "VmksimError",
    "__version__",
    "load_scenario",
    "simulate",
]

_HOMES = {
    "FormatError": "sim.errors",
    "RunResult": "sim.scenario.result",
    "Scenario": "sim.scenario.spec",
    "ScenarioError": "sim.errors",
    "SimBug": "sim.errors",
    "Simulation": "sim.scenario.run",
    "VerificationError": "sim.errors",
    "VmksimError": "sim.errors",
    "load_scenario": "sim.scenario.load",
    "simulate": "sim.scenario.entry",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
