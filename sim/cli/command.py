"""The entry of the command `vmksim`: its groups, and how every call ends.

Exit status: 0 as expected, 1 the run or check did not end as wanted, 2 bad input, 3 a bug of ours, 130 interrupted.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import NoReturn

import click

from sim._version import __version__
from sim.cli.attest import attest
from sim.cli.common import EXIT_BAD_INPUT, EXIT_BUG, EXIT_INTERRUPTED, EXIT_NOT_AS_WANTED, running
from sim.cli.compare import compare
from sim.cli.evidence import eventlog, tpmreport
from sim.cli.image import image
from sim.cli.memory import attack, layout, paxtest
from sim.cli.runs import boot, report, resume, run
from sim.cli.sweep import sweep
from sim.cli.tables import facts, fixtures, keys, options
from sim.cli.tpm import tpm
from sim.errors import CheckpointError, FormatError, ScenarioError, SimBug, VmksimError

__all__ = ["cli", "main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command; every ending has its exit status and at most one line on standard error."""
    if sys.stdout is None:
        _leave("standard output is closed", EXIT_BAD_INPUT)
    try:
        status = cli.main(arguments, prog_name="vmksim", standalone_mode=False)
    except click.exceptions.Abort:
        _leave("interrupted", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_BAD_INPUT)
    except click.ClickException as error:
        _leave(_usage(error), EXIT_BAD_INPUT)
    except (ScenarioError, FormatError, CheckpointError) as error:
        _leave(str(error), EXIT_BAD_INPUT)
    except SimBug as error:
        _report_bug(error)
    except VmksimError as error:
        _leave(str(error), EXIT_NOT_AS_WANTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_NOT_AS_WANTED)
    except KeyboardInterrupt:
        _leave("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        _leave(f"{error.filename or 'standard output'}: {error.strerror or error}", EXIT_BAD_INPUT)
    except Exception as error:
        _report_bug(error)
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: click.ClickException) -> str:
    """Return what was wrong with a call and how to see what is right, in one line."""
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text} (see '{context.command_path} --help')" if context is not None else text


def _leave(text: str, status: int) -> NoReturn:
    from sim.report.console import printable

    click.echo(f"vmksim: {printable(text)}", err=True)
    sys.exit(status)


def _report_bug(error: BaseException) -> NoReturn:
    """Print what a bug report needs: error, version, seed, time, last records, and the command that replays it."""
    import traceback

    from sim.kernel.sched.own_policy import MODULE_PREFIX

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = any(str(frame.f_globals.get("__name__")).startswith(MODULE_PREFIX) for frame in frames)
    whose = "an error in your policy" if own else "this is our bug, not yours"
    click.echo(f"vmksim: {whose}: {type(error).__name__}: {error}", err=True)
    if not isinstance(error, SimBug):
        for frame in traceback.extract_tb(error.__traceback__)[-3:]:
            click.echo(f"  in {Path(frame.filename).name}:{frame.lineno} {frame.name}", err=True)
    click.echo(f"  version {__version__}, Python {sys.version.split()[0]}", err=True)
    if running:
        simulation = running[-1]
        click.echo(
            f"  seed {simulation.seed}, simulated time {simulation.sim.now} ns, last records:", err=True
        )
        for line in simulation.sim.trace.tail(10):
            click.echo(f"    {line[:200]}", err=True)
    click.echo(f"  replay: {shlex.join(['vmksim', *sys.argv[1:]])}", err=True)
    sys.exit(EXIT_BUG)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vmksim")
def cli() -> None:
    """Simulate a VMkernel host: measured boot, signed modules, virtual machines, attestation."""


for _command in (
    run,
    boot,
    resume,
    report,
    attest,
    compare,
    sweep,
    image,
    tpm,
    eventlog,
    tpmreport,
    layout,
    paxtest,
    attack,
    keys,
    facts,
    options,
    fixtures,
):
    cli.add_command(_command)
