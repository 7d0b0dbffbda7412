"""The commands about memory: `layout` prints where things lie, `paxtest` and `attack` what that and the rights stop.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from pathlib import Path

import click

from sim.cli.common import EXIT_NOT_AS_WANTED, SEEDS, about, json_option, print_json, seed_option

__all__ = ["attack", "layout", "paxtest"]

_profile_option = click.option(
    "--profile", help="How a release places things, such as esxi-8.x or linux-6.x."
)


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path), required=False)
@_profile_option
@seed_option
@json_option
@click.option("--user", metavar="PROGRAM", help="Only this process: a user world of SCENARIO, such as hostd.")
def layout(
    scenario: Path | None, *, profile: str | None, seed: int | None, as_json: bool, user: str | None
) -> None:
    """Print the address map of the host of SCENARIO after its boot, or of a typical one, and the entropy of each row."""
    from sim.report.console import print_sections
    from sim.report.layout import layout_plain, layout_sections
    from sim.scenario.addressmaps import chosen_release, maps_of_profile, maps_of_scenario, with_profile
    from sim.scenario.load import load_scenario

    if scenario is None:
        maps = maps_of_profile(chosen_release(profile), seed or 0, user=user)
    else:
        with about(scenario):
            maps = maps_of_scenario(with_profile(load_scenario(scenario), profile), seed, user=user)
    if as_json:
        print_json(layout_plain(maps))
    else:
        print_sections(layout_sections(maps))


@click.command()
@_profile_option
@click.option(
    "--mode", default="blackhat", show_default=True, help="kiddie or blackhat, as paxtest has them."
)
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Decides every address.")
@click.option("--runs", type=int, help="Executions for each randomization row (default: paxtest's 1500).")
@click.option("--et-exec", is_flag=True, help="Link the programs of the ET_EXEC rows to fixed addresses.")
@json_option
def paxtest(
    *, profile: str | None, mode: str, seed: int, runs: int | None, et_exec: bool, as_json: bool
) -> None:
    """Print the rows of paxtest for a simulated process under a profile."""
    from sim.labs.paxtest import RUNS
    from sim.labs.paxtest import paxtest as run_paxtest
    from sim.report.console import print_sections
    from sim.report.paxtest import paxtest_section
    from sim.scenario.addressmaps import chosen_release

    release = chosen_release(profile)
    rows = run_paxtest(
        release, mode=mode, seed=seed, runs=RUNS.value if runs is None else runs, et_exec=et_exec
    )
    pairs = [(row.name, row.answer) for row in rows]
    if as_json:
        print_json(dict(pairs))
    else:
        print_sections(
            [paxtest_section(pairs, title=f"Mode: {mode}, profile {release.name}: {release.title}")]
        )


@click.command()
@click.argument("name", required=False)
@_profile_option
@click.option("--seeds", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Attempts.")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Decides all of them.")
@json_option
def attack(name: str | None, *, profile: str | None, seeds: int, seed: int, as_json: bool) -> int:
    """Run the attack NAME, or all, and compare how often they succeed with the formula.

    Without --profile each is run with its defence off and on, in a lab with 6 bits of randomness; with it, against that
    profile as it is. The exit status is 1 if a rate is not what the formula says.
    """
    from sim.labs.attacks import table_rows
    from sim.report.attack import attack_plain, attack_sections
    from sim.report.console import print_sections
    from sim.scenario.addressmaps import chosen_release

    release = chosen_release(profile) if profile is not None else None
    rows = table_rows(name, release, trials=seeds, seed=seed)
    if as_json:
        print_json([attack_plain(row) for row in rows])
    else:
        where = release.title if release is not None else "lab with 6 bits"
        print_sections(attack_sections(rows, title=f"Attacks, {where}, {seeds} attempts each"))
    return 0 if all(row["agrees"] for row in rows) else EXIT_NOT_AS_WANTED
