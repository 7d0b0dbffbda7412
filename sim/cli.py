"""The command `vmksim`: thin wrappers around the library, heavy imports inside the commands.

Exit status: 0 as expected, 1 the run or check did not end as wanted, 2 bad input, 3 a bug of ours, 130 interrupted.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sim._version import __version__
from sim.cli_tpm import tpm
from sim.errors import CheckpointError, FormatError, ScenarioError, SimBug, VerificationError, VmksimError

if TYPE_CHECKING:
    from sim.scenario.run import Simulation

__all__ = ["cli", "main"]

EXIT_NOT_AS_WANTED = 1
EXIT_BAD_INPUT = 2
EXIT_BUG = 3
EXIT_INTERRUPTED = 130

SLICES = 50
LOG_LINES_SHOWN = 60

_running: list[Simulation] = []
"""The simulation at work, for the report of a bug."""


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


@contextmanager
def _about(path: Path) -> Iterator[None]:
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


def _leave(text: str, status: int) -> NoReturn:
    from sim.report.console import printable

    click.echo(f"vmksim: {printable(text)}", err=True)
    sys.exit(status)


def _report_bug(error: BaseException) -> NoReturn:
    """Print what a bug report needs: error, version, seed, time, last records, and the command that replays it."""
    import traceback

    click.echo(f"vmksim: this is our bug, not yours: {type(error).__name__}: {error}", err=True)
    if not isinstance(error, SimBug):
        for frame in traceback.extract_tb(error.__traceback__)[-3:]:
            click.echo(f"  in {Path(frame.filename).name}:{frame.lineno} {frame.name}", err=True)
    click.echo(f"  version {__version__}, Python {sys.version.split()[0]}", err=True)
    if _running:
        simulation = _running[-1]
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


cli.add_command(tpm)

_SEEDS = click.IntRange(0, 2**63 - 1)

_scenario_argument = click.argument("scenario", type=click.Path(path_type=Path))
_seed_option = click.option("--seed", type=_SEEDS, help="Use this seed instead of the scenario's.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a report.")
_out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write result.json, the event log and the trace into this folder.",
)
_log_option = click.option(
    "--all-log-lines", is_flag=True, help="Print the whole log, not only its two ends."
)


@cli.command()
@_scenario_argument
@_seed_option
@_json_option
@_out_option
@_log_option
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write a checkpoint into this file, and stop there."
)
@click.option("--save-at", default="0s", help="When: simulated time since power-on, such as 15s.")
def run(
    scenario: Path,
    seed: int | None,
    *,
    save: Path | None,
    save_at: str,
    as_json: bool,
    out: Path | None,
    all_log_lines: bool,
) -> int:
    """Boot the host of SCENARIO, run its virtual machines, add it to vCenter, and report.

    The exit status is 0 only if all ended as the scenario expects.
    """
    from sim.scenario.load import load_scenario

    loaded = load_scenario(scenario)
    from sim.scenario.run import Simulation

    with _about(scenario):
        simulation = Simulation(loaded, seed=seed)
    if save is not None:
        _running.append(simulation)
        simulation.run(_moment_ns(save_at))
        simulation.save(save)
        click.echo(f"{save}: saved at {simulation.sim.now} ns of simulated time")
        return 0
    return _drive(simulation, as_json=as_json, out=out, all_log_lines=all_log_lines)


@cli.command()
@_scenario_argument
@_seed_option
@_json_option
@_out_option
@_log_option
def boot(scenario: Path, seed: int | None, *, as_json: bool, out: Path | None, all_log_lines: bool) -> int:
    """Boot the host of SCENARIO and stop: no virtual machines, no vCenter."""
    from sim.scenario.load import load_scenario
    from sim.scenario.run import Simulation, boot_only

    loaded = boot_only(load_scenario(scenario))
    with _about(scenario):
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
    _running.append(simulation)
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


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_json_option
@_log_option
def report(folder: Path, *, as_json: bool, all_log_lines: bool) -> None:
    """Print the report of an earlier run from the files in FOLDER."""
    from sim.core.tracefile import read_trace
    from sim.report.console import print_sections
    from sim.report.run_report import run_sections
    from sim.scenario.result import TRACE_FILE, read_result

    result = read_result(folder)
    if as_json:
        click.echo(result.to_json(), nl=False)
        return
    trace_path = folder / TRACE_FILE
    sink = read_trace(trace_path) if trace_path.exists() else None
    print_sections(run_sections(result, sink, log_lines_max=None if all_log_lines else LOG_LINES_SHOWN))


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@_json_option
@_out_option
@_log_option
def resume(checkpoint: Path, *, as_json: bool, out: Path | None, all_log_lines: bool) -> int:
    """Go on from CHECKPOINT, which `run --save` wrote; restore only files that you trust."""
    from sim.scenario.run import Simulation

    return _drive(Simulation.restore(checkpoint), as_json=as_json, out=out, all_log_lines=all_log_lines)


@cli.group()
def image() -> None:
    """Signed VIBs and boot banks.

    Keys and roots are PEM files, or those of the simulated world with --seed.
    """


_signing_options = (
    click.option("--seed", type=_SEEDS, help="Sign with the makers of the world with this seed."),
    click.option(
        "--provider",
        help="Which maker of that world signs (default: the first of the level; an unknown one joins it).",
    ),
    click.option("--key", type=click.Path(path_type=Path), help="Unencrypted PEM key."),
    click.option("--certs", type=click.Path(path_type=Path), help="PEM certificates: the key's own first."),
)
_level_option = click.option("--level", default=None, help="Acceptance level, such as PartnerSupported.")
_time_option = click.option(
    "--time", "moment", help="Calendar time of the action, ISO 8601 (default: 2026-01-01, as worlds begin)."
)
_target_option = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The file to write."
)


def _signing(command: Any) -> Any:
    for option in reversed(_signing_options):
        command = option(command)
    return command


@image.command("build")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True)
@click.option("--version", "vib_version", required=True, help='Such as "1.0-1".')
@click.option("--vendor", required=True)
@click.option("--summary", default="", help="One line.")
@click.option(
    "--module", is_flag=True, help="FOLDER is one ELF file: make it the kernel module of that name."
)
@_level_option
@_signing
@_time_option
@_target_option
def image_build(folder: Path, *, moment: str | None, out: Path, level: str | None, **options: Any) -> None:
    """Pack the files below FOLDER into a VIB; above CommunitySupported it is signed too."""
    from sim.scenario.imagework import build_vib_file

    identity = build_vib_file(folder, out, level=level, moment=moment, **options)
    click.echo(f"{out}: {identity}")


@image.command("bank")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--modules", type=click.IntRange(1, 400), default=24, help="How many drivers.")
@click.option("--seed", type=_SEEDS, default=0, help="The world whose makers sign.")
def image_bank(folder: Path, modules: int, seed: int) -> None:
    """Write the boot bank of the standard image into FOLDER."""
    from sim.scenario.imagework import write_bank

    click.echo(f"{folder}: {write_bank(folder, modules, seed)} files")


@image.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@_level_option
@_signing
@_time_option
@_target_option
def image_sign(file: Path, *, moment: str | None, out: Path, level: str | None, **options: Any) -> None:
    """Sign the VIB in FILE anew, at another level if one is given."""
    from sim.scenario.imagework import sign_vib_file

    with _about(file):
        identity = sign_vib_file(file, out, level=level, moment=moment, **options)
    click.echo(f"{out}: {identity}")


@image.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@_json_option
def image_inspect(path: Path, *, as_json: bool) -> int:
    """Show what is in the VIB file or the boot bank folder PATH; exit status 1 if a checksum is wrong."""
    from sim.core.structure import plain
    from sim.image.inspection import VibInspection
    from sim.report.console import print_sections
    from sim.report.image import bank_sections, vib_sections
    from sim.scenario.imagework import inspect_path

    with _about(path):
        found = inspect_path(path)
    if as_json:
        _print_json(plain(found))
    else:
        print_sections(vib_sections(found) if isinstance(found, VibInspection) else bank_sections(found))
    return EXIT_NOT_AS_WANTED if found.problems else 0


@image.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seed", type=_SEEDS, help="Trust the makers of the world with this seed.")
@click.option("--roots", type=click.Path(path_type=Path), help="Trust these PEM root certificates.")
@click.option("--issuer", "issuers", multiple=True, help="LEVEL=FILE: who signs for a level (with --roots).")
@_time_option
def image_verify(
    path: Path, *, seed: int | None, roots: Path | None, issuers: tuple[str, ...], moment: str | None
) -> int:
    """Check the signature of the VIB file, or everything in the boot bank folder, PATH; exit status 1 if refused."""
    from sim.image.bankcheck import BankReport
    from sim.report.console import print_sections
    from sim.report.image import bank_check_sections, identity_section
    from sim.scenario.imagework import verify_path

    with _about(path):
        found = verify_path(path, seed=seed, roots=roots, issuers=issuers, moment=moment)
    if isinstance(found, BankReport):
        print_sections(bank_check_sections(found))
        return 0 if found.ok else EXIT_NOT_AS_WANTED
    print_sections([identity_section(found)])
    return 0


@cli.group()
def eventlog() -> None:
    """TCG event logs, of any machine."""


@eventlog.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print {bank: {pcr: hex}}.")
@click.option("--allow-padding", is_flag=True, help="Accept 0x00 or 0xFF bytes after the last event.")
def eventlog_replay(file: Path, *, as_json: bool, allow_padding: bool) -> None:
    """Replay the event log FILE and print the PCR values that it leads to."""
    from sim.report.console import print_sections
    from sim.report.evidence import event_log_sections
    from sim.scenario.inputs import read_input
    from sim.tpm.eventlog import parse, replay

    with _about(file):
        log = parse(read_input(file, str(file)), allow_padding=allow_padding)
        values = replay(log)
    if as_json:
        _print_json(_named_banks(values))
    else:
        print_sections(event_log_sections(log, _named_banks(values)))


@cli.group()
def tpmreport() -> None:
    """TPM attestation reports of ESXi hosts (HostTpmAttestationReport, as JSON or SOAP)."""


@tpmreport.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of each PCR as JSON.")
def tpmreport_replay(file: Path, *, as_json: bool) -> int:
    """Replay the events of the report FILE against its PCR values; exit status 1 if one does not match."""
    from sim.attest.esxi_report import read_report, replay_report
    from sim.report.console import print_sections
    from sim.report.evidence import tpm_report_plain, tpm_report_sections
    from sim.scenario.inputs import read_input

    with _about(file):
        outcome = replay_report(read_report(read_input(file, str(file))))
    if as_json:
        _print_json(tpm_report_plain(outcome))
    else:
        print_sections(tpm_report_sections(outcome))
    return EXIT_NOT_AS_WANTED if outcome.mismatches else 0


@cli.command()
def keys() -> None:
    """Print every key that a scenario file may have, with the kind of its value and its default."""
    from sim.report.console import print_sections
    from sim.report.keys import keys_section

    print_sections([keys_section()])


@cli.command()
@_json_option
@click.option("--kind", help="Only facts of this kind: spec, vendor, measured, inferred or assumed.")
def facts(*, as_json: bool, kind: str | None) -> None:
    """Print every number from outside the project with its unit, source and kind."""
    from sim.core.structure import plain
    from sim.report.console import print_sections
    from sim.report.facts import facts_section, select_facts

    chosen = select_facts(kind)
    if as_json:
        _print_json([plain(fact) for fact in chosen])
    else:
        print_sections([facts_section(chosen)])


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, sort_keys=True, indent=1))


def _named_banks(values: dict[int, dict[int, bytes]]) -> dict[str, dict[str, str]]:
    """Return {bank: {pcr: hex}} in the order of the banks' names."""
    from sim.tpm.eventlog import BANK_NAMES

    names = {algorithm: name for name, algorithm in BANK_NAMES.items()}
    return {
        names[algorithm]: {str(pcr): value.hex() for pcr, value in sorted(pcrs.items())}
        for algorithm, pcrs in values.items()
    }
