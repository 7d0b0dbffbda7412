"""The commands that run a simulation and tell of it: `run`, `boot`, `resume` and `report`.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.cli.common import (
    EXIT_NOT_AS_WANTED,
    about,
    code_option,
    json_option,
    log_option,
    out_option,
    running,
    scenario_argument,
    seed_option,
)
from sim.cli.views import view_options, write_views
from sim.errors import ScenarioError

if TYPE_CHECKING:
    from sim.scenario.run import Simulation
    from sim.scenario.spec import Scenario

SLICES = 50
LOG_LINES_SHOWN = 60


@click.command()
@scenario_argument
@seed_option
@json_option
@out_option
@log_option
@code_option
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write a checkpoint into this file, and stop there."
)
@click.option("--save-at", default="0s", help="When: simulated time since power-on, such as 15s.")
@click.option(
    "--engine",
    type=click.Choice(["quantum", "fluid"]),
    help="Share CPU time in turns, or as the fluid ideal, instead of what sched.engine says.",
)
def run(
    scenario: Path,
    seed: int | None,
    *,
    engine: str | None,
    save: Path | None,
    save_at: str,
    as_json: bool,
    out: Path | None,
    all_log_lines: bool,
    allow_code: bool,
) -> int:
    """Boot the host of SCENARIO, run its virtual machines, add it to vCenter, and report.

    The exit status is 0 only if all ended as the scenario expects.
    """
    from sim.scenario.load import load_scenario

    loaded = load_scenario(scenario, allow_code=allow_code)
    if engine is not None:
        loaded = _with_engine(loaded, engine)
    from sim.scenario.run import Simulation

    with about(scenario):
        simulation = Simulation(loaded, seed=seed)
    if save is not None:
        running.append(simulation)
        simulation.run(_moment_ns(save_at))
        simulation.save(save)
        click.echo(f"{save}: saved at {simulation.sim.now} ns of simulated time")
        return 0
    return _drive(simulation, as_json=as_json, out=out, all_log_lines=all_log_lines)


def _with_engine(scenario: Scenario, engine: str) -> Scenario:
    """Return the scenario with another engine.  Errors: `ScenarioError` when it has what that does not know."""
    from attrs import evolve

    from sim.core.structure import FieldError

    try:
        return evolve(scenario, sched=evolve(scenario.sched, engine=engine))
    except FieldError as error:
        raise ScenarioError(
            "--engine", f"{engine} does not fit", got=error.got, wanted=error.wanted
        ) from None


@click.command()
@scenario_argument
@seed_option
@json_option
@out_option
@log_option
def boot(scenario: Path, seed: int | None, *, as_json: bool, out: Path | None, all_log_lines: bool) -> int:
    """Boot the host of SCENARIO and stop: no virtual machines, no vCenter."""
    from sim.scenario.load import load_scenario
    from sim.scenario.run import Simulation, boot_only

    loaded = boot_only(load_scenario(scenario))
    with about(scenario):
        simulation = Simulation(loaded, seed=seed)
    return _drive(simulation, as_json=as_json, out=out, all_log_lines=all_log_lines)


def _moment_ns(text: str) -> int:
    from sim.core.units import parse_ns

    try:
        return parse_ns(text)
    except ValueError as error:
        raise ScenarioError("--save-at", "wrong value", got=text, wanted=str(error)) from None


def _drive(simulation: Simulation, *, as_json: bool, out: Path | None, all_log_lines: bool) -> int:
    """Run a simulation to its end with a progress line, write and print its outcome, return the exit status."""
    from sim.report.console import Progress, print_sections
    from sim.report.run_report import run_sections
    from sim.scenario.output import make_folder, write_outcome

    if out is not None:
        make_folder(out)
    running.append(simulation)
    with Progress(f"booting {simulation.scenario.host.name}") as progress:
        while not simulation.finished:
            simulation.advance(SLICES)
            progress.update(simulation.phase, simulation.sim.now, simulation.end_ns)
    result = simulation.finish()
    if out is not None:
        write_outcome(result, simulation.sim.trace, out)
    if as_json:
        click.echo(result.to_json(), nl=False)
    else:
        lines_max = None if all_log_lines else LOG_LINES_SHOWN
        print_sections(run_sections(result, simulation.sim.trace.sink(), log_lines_max=lines_max))
    return 0 if result.expectation.met else EXIT_NOT_AS_WANTED


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@log_option
@view_options
def report(folder: Path, *, as_json: bool, all_log_lines: bool, **views: Any) -> None:
    """Print the report of an earlier run from the files in FOLDER, or make views of its CPU schedule."""
    from sim.core.tracefile import read_trace
    from sim.report.console import print_sections
    from sim.report.run_report import run_sections
    from sim.scenario.result import TRACE_FILE, read_result

    result = read_result(folder)
    if write_views(folder, result, **views):
        return
    if as_json:
        click.echo(result.to_json(), nl=False)
        return
    trace_path = folder / TRACE_FILE
    sink = read_trace(trace_path) if trace_path.exists() else None
    print_sections(run_sections(result, sink, log_lines_max=None if all_log_lines else LOG_LINES_SHOWN))


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@json_option
@out_option
@log_option
def resume(checkpoint: Path, *, as_json: bool, out: Path | None, all_log_lines: bool) -> int:
    """Go on from CHECKPOINT, which `run --save` wrote; restore only files that you trust."""
    from sim.scenario.run import Simulation

    return _drive(Simulation.restore(checkpoint), as_json=as_json, out=out, all_log_lines=all_log_lines)
