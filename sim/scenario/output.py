"""Writing the outcome of a run into a folder: result, event log and trace, each whole or not at all.

Models nothing.  Leaves out reading: `sim.scenario.result.read_result` and `sim.core.tracefile.read_trace` do that.
"""

from __future__ import annotations

from pathlib import Path

from sim.core.trace import Trace
from sim.core.tracefile import write_trace
from sim.errors import ScenarioError
from sim.scenario.result import TRACE_FILE, RunResult, write_result

__all__ = ["make_folder", "write_outcome"]


def make_folder(folder: Path) -> None:
    """Make the output folder, before a long run starts.

    Errors: `ScenarioError` when it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ScenarioError("--out", f"cannot write into {str(folder)!r}: {error.strerror}") from None


def write_outcome(result: RunResult, trace: Trace, folder: Path) -> None:
    """Write `result.json`, `eventlog.bin` and the trace into an existing folder.

    Errors: `ScenarioError` when the disk refuses.
    """
    try:
        write_trace(trace, folder / TRACE_FILE)
        write_result(result, folder)
    except OSError as error:
        raise ScenarioError("--out", f"cannot write into {str(folder)!r}: {error.strerror}") from None
