"""The commands `vmksim tpm ...`: serve a TPM to real clients, and show what is in a saved one.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sim.tpm.device import Tpm
    from sim.tpm.fault_spec import Fault

__all__ = ["tpm"]


@click.group()
def tpm() -> None:
    """Serve a TPM 2.0 on its own over TCP, or inspect what it saved."""


@tpm.command("serve")
@click.option(
    "--port", type=click.IntRange(0, 65534), default=2321, show_default=True, help="Command port; 0 = any."
)
@click.option(
    "--ctrl-port",
    type=click.IntRange(1, 65535),
    help="Control port (default: the one after the command port).",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every key and number."
)
@click.option(
    "--state",
    "state_file",
    type=click.Path(path_type=Path),
    help="Keep the TPM in this file; one that exists brings its own seed, make and slots.",
)
@click.option(
    "--event-log",
    type=click.Path(path_type=Path),
    help="Write the event log beside the PCRs into this file too.",
)
@click.option("--profile", default="software", show_default=True, help="Make of TPM.")
@click.option("--transient-slots", type=click.IntRange(3, 254), help="Slots for loaded objects.")
@click.option("--protocol", type=click.Choice(["auto", "swtpm", "mssim"]), default="auto", show_default=True)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="COMMAND=KIND",
    help="Let commands go wrong: PCR_Extend#3=fail:0x101, Quote=delay:2s, NV_Write=power_loss:1, *#9-=drop, ...",
)
@click.option("--trace", is_flag=True, help="Print each command in plain words.")
def serve(
    *,
    state_file: Path | None,
    event_log: Path | None,
    port: int,
    ctrl_port: int | None,
    protocol: str,
    faults: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve a TPM on loopback until SIGTERM or SIGINT, to clients of swtpm and of the reference simulator.

    Clients: TPM2TOOLS_TCTI=swtpm:host=127.0.0.1,port=PORT, or mssim:host=127.0.0.1,port=PORT.

    A fault is COMMAND[@HANDLE][#FIRST[-[LAST]]]=KIND[:VALUE]: the kinds are fail:RC, delay:TIME, retry, drop, lose_answer
    and power_loss:WRITES; COMMAND may be * for any; HANDLE is the number of a PCR or the index of an NV command.
    """
    from sim.tpm.fault_spec import parse_fault
    from sim.tpm.faults import FaultyTpm
    from sim.tpm.server.listener import TpmServer
    from sim.tpm.server.platform import Platform
    from sim.tpm.state import save, write_whole

    plan = tuple(parse_fault(each, "--fault") for each in faults)
    device = _device(state_file, options)

    def keep(changed: Tpm) -> None:
        if state_file is not None:
            save(changed, state_file)
        if event_log is not None:
            write_whole(event_log, changed.event_log)

    platform = Platform(
        device,
        faults=FaultyTpm(device, plan, on_fault=_print_fault if options["trace"] else None) if plan else None,
        on_write=keep,
        on_command=_print_words if options["trace"] else None,
    )
    server = TpmServer(platform, port=port, control_port=ctrl_port, protocol=protocol)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_stop())
    server.start()
    click.echo(f"listening on 127.0.0.1: commands {server.port}, control {server.control_port}")
    server.wait()
    server.stop()
    keep(device)


def _device(state_file: Path | None, options: dict[str, Any]) -> Tpm:
    """Load the TPM from its file, or make a new one."""
    import attrs

    from sim.core.rng import Rng
    from sim.tpm.device import Tpm
    from sim.tpm.makes import profile_named
    from sim.tpm.state import load

    if state_file is not None and state_file.exists():
        return load(state_file)
    profile = profile_named(options["profile"])
    if options["transient_slots"] is not None:
        profile = attrs.evolve(profile, transient_slots=options["transient_slots"])
    return Tpm(Rng(options["seed"]).stream("tpm"), profile)


def _print_words(command: bytes, response: bytes, locality: int) -> None:
    from sim.tpm.words import in_words

    click.echo(in_words(command, response, locality))


def _print_fault(fault: Fault, command: bytes) -> None:
    from sim.tpm.fault_spec import command_name

    click.echo(f"fault: {fault.kind} hits {command_name(int.from_bytes(command[6:10], 'big'))}")


@tpm.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--raw", is_flag=True, help="Print every value, secrets too, by its path.")
@click.option(
    "--event-log", type=click.Path(path_type=Path), help="Write the event log beside the PCRs into this file."
)
@click.option("--against", type=click.Path(path_type=Path), help="Print what differs from this older file.")
def inspect(file: Path, *, raw: bool, event_log: Path | None, against: Path | None) -> None:
    """Show the TPM that is saved in FILE; exit status 2 names what is wrong with a damaged file.

    The event log is one that `vmksim eventlog replay` and tpm2_eventlog read.
    """
    from sim.report.console import print_sections
    from sim.report.tpm import tpm_sections
    from sim.tpm.state import load, state_diff, state_lines, write_whole

    device = load(file)
    if event_log is not None:
        write_whole(event_log, device.event_log)
    if against is not None:
        for path, (old, new) in state_diff(load(against), device).items():
            click.echo(f"{path}: {old} -> {new}")
    elif raw:
        for path, value in state_lines(device).items():
            click.echo(f"{path} = {value}")
    else:
        print_sections(tpm_sections(device))
