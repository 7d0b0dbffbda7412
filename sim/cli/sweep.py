"""The command `sweep`: one scenario with many seeds, each run in a process of its own.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from pathlib import Path

import click

from sim.cli.common import EXIT_NOT_AS_WANTED, about, code_option, json_option, print_json, scenario_argument


@click.command()
@scenario_argument
@click.option("--seeds", default="0-7", show_default=True, help="Seeds and ranges of seeds, such as 1-8,20.")
@click.option("--workers", type=int, default=1, show_default=True, help="How many runs go on at a time.")
@click.option("--memory", help="The most memory that a run may take, such as 4GiB.")
@json_option
@code_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the outcomes into this CSV file too.")
def sweep(
    scenario: Path,
    seeds: str,
    workers: int,
    memory: str | None,
    *,
    as_json: bool,
    allow_code: bool,
    out: Path | None,
) -> int:
    """Run SCENARIO once for each seed; one run that dies takes no other with it.

    The exit status is 0 only if all runs ended as the scenario expects.
    """
    from sim.report.console import print_sections
    from sim.report.sweep import sweep_csv, sweep_section
    from sim.scenario.load import load_scenario
    from sim.scenario.result import write_atomically
    from sim.sweep.executor import run_sweep
    from sim.sweep.points import outcome_row, parse_seeds, seed_points

    points = seed_points(load_scenario(scenario, allow_code=allow_code), parse_seeds(seeds))
    with about(scenario):
        outcomes = run_sweep(points, workers=workers, memory_bytes_max=_memory(memory))
    rows = [outcome_row(outcome) for outcome in outcomes]
    if out is not None:
        write_atomically(out, sweep_csv(rows).encode())
    if as_json:
        print_json(rows)
    else:
        print_sections([sweep_section(rows, str(scenario))])
    return 0 if all(outcome.met for outcome in outcomes) else EXIT_NOT_AS_WANTED


def _memory(text: str | None) -> int:
    from sim.core.units import parse_bytes
    from sim.errors import ScenarioError

    try:
        return 0 if text is None else parse_bytes(text)
    except ValueError as error:
        raise ScenarioError("--memory", "wrong value", got=text, wanted=str(error)) from None
