"""What the commands share: options, exit statuses, naming the file in an error, and the simulation at work.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.errors import FormatError, ScenarioError, VerificationError

if TYPE_CHECKING:
    from sim.scenario.run import Simulation

EXIT_NOT_AS_WANTED = 1
EXIT_BAD_INPUT = 2
EXIT_BUG = 3
EXIT_INTERRUPTED = 130

running: list[Simulation] = []
"""The simulation at work, for the report of a bug."""

SEEDS = click.IntRange(0, 2**63 - 1)

scenario_argument = click.argument("scenario", type=click.Path(path_type=Path))
seed_option = click.option("--seed", type=SEEDS, help="Use this seed instead of the scenario's.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a report.")
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write result.json, the event log and the trace into this folder.",
)
code_option = click.option(
    "--allow-code", is_flag=True, help="Let SCENARIO name Python code, policies and workloads, and run it."
)
log_option = click.option("--all-log-lines", is_flag=True, help="Print the whole log, not only its two ends.")


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Begin the errors of what is done with a file with its name, unless they are about an option."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{path}: {error.what}", error.where, error.message) from None
    except VerificationError as error:
        raise VerificationError(error.check, f"{path}: {error.message}") from None
    except ScenarioError as error:
        if error.path == str(path) or error.path.startswith("--"):
            raise
        where = f"{path}: {error.path}" if error.path else str(path)
        raise ScenarioError(
            where, error.message, got=error.got, wanted=error.wanted, nearest=error.nearest
        ) from None


def print_json(data: object) -> None:
    """Print JSON that a script can read, keys in order."""
    click.echo(json.dumps(data, sort_keys=True, indent=1))
