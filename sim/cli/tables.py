"""The commands that print the tables of the project: `keys` and `facts`.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

import click

from sim.cli.common import json_option, print_json


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
