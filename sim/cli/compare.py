"""The command `compare`: one scenario under several scheduling policies, side by side.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.cli.common import about, code_option, json_option, print_json, scenario_argument, seed_option
from sim.errors import ScenarioError

if TYPE_CHECKING:
    from sim.scenario.comparison import Candidate

DEFAULT = "esxi,roundrobin,lottery,stride,eevdf,credit,gang"


@click.command()
@scenario_argument
@click.option(
    "--policies",
    default=DEFAULT,
    show_default=True,
    help="Names of policies, or FILE.py:Class for one of your own, which then runs.",
)
@seed_option
@json_option
@code_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures into this CSV file too.")
def compare(
    scenario: Path, policies: str, seed: int | None, *, as_json: bool, allow_code: bool, out: Path | None
) -> None:
    """Run SCENARIO under each policy, and show side by side what each virtual machine got."""
    from sim.core.structure import plain
    from sim.report.compare import compare_csv, compare_sections
    from sim.report.console import print_sections
    from sim.scenario.comparison import compare_policies
    from sim.scenario.load import load_scenario
    from sim.scenario.result import write_atomically

    chosen = _chosen(policies)
    with about(scenario):
        runs = list(compare_policies(load_scenario(scenario, allow_code=allow_code), chosen, seed))
    if out is not None:
        write_atomically(out, compare_csv(runs).encode())
    if as_json:
        print_json([plain(run) for run in runs])
    else:
        print_sections(compare_sections(runs))


def _chosen(text: str) -> list[Candidate]:
    """Return the policies of a list with commas; files are looked for from the present folder on."""
    from attrs import evolve

    from sim.scenario.comparison import candidates
    from sim.scenario.load import read_policy

    found = candidates([name.strip() for name in text.split(",")])
    for index, one in enumerate(found):
        path, _, class_name = one.label.rpartition(":")
        if path.endswith(".py"):
            if not class_name.isidentifier():
                raise ScenarioError("--policies", "wrong value", got=one.label, wanted="FILE.py:Class")
            policy, source = read_policy(Path(path), class_name, "--policies")
            found[index] = evolve(one, policy=policy, source=source)
    return found
