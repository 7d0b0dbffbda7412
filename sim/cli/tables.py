"""The commands that print the tables of the project: `keys`, `facts`, `options` and `fixtures`.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

import click

from sim.cli.common import EXIT_NOT_AS_WANTED, json_option, print_json


@click.command()
def keys() -> None:
    """Print every key that a scenario file may have, with the kind of its value and its default."""
    from sim.report.console import print_sections
    from sim.report.keys import keys_section

    print_sections([keys_section()])


@click.command()
@json_option
@click.option("--kind", help="Only facts of this kind: spec, vendor, measured, inferred or assumed.")
def facts(*, as_json: bool, kind: str | None) -> None:
    """Print every number from outside the project with its unit, source and kind."""
    from sim.core.structure import plain
    from sim.report.console import print_sections
    from sim.report.facts import facts_section, select_facts

    chosen = select_facts(kind)
    if as_json:
        print_json([plain(fact) for fact in chosen])
    else:
        print_sections([facts_section(chosen)])


@click.command()
@click.option("--release", default="8.0", show_default=True, help="Whose defaults, e.g. 6.0 or 7.0U3.")
def options(release: str) -> None:
    """Print ESXi's advanced options of scheduling with default, range and meaning."""
    from sim.report.console import print_sections
    from sim.report.sched_options import options_section

    print_sections([options_section(release)])


@click.command()
def fixtures() -> None:
    """Run published examples of CPU and disk scheduling and print what they say beside what the model gives."""
    from sim.labs.cpu_fixtures import run_fixtures
    from sim.labs.disk_fixtures import run_disk_fixtures
    from sim.labs.policy_fixtures import run_policy_fixtures
    from sim.report.console import print_sections
    from sim.report.fixtures import fixtures_section

    rows = [*run_fixtures(), *run_policy_fixtures(), *run_disk_fixtures()]
    print_sections([fixtures_section(rows)])
    if not all(row.met for row in rows):
        raise SystemExit(EXIT_NOT_AS_WANTED)
