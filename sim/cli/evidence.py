"""The commands `vmksim eventlog ...` and `vmksim tpmreport ...`: replay what machines measured.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from pathlib import Path

import click

from sim.cli.common import EXIT_NOT_AS_WANTED, about, print_json


@click.group()
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

    with about(file):
        log = parse(read_input(file, str(file)), allow_padding=allow_padding)
        values = replay(log)
    if as_json:
        print_json(_named_banks(values))
    else:
        print_sections(event_log_sections(log, _named_banks(values)))


@click.group()
def tpmreport() -> None:
    """TPM attestation reports of ESXi hosts (HostTpmAttestationReport, as JSON or SOAP)."""


@tpmreport.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of each PCR as JSON.")
def tpmreport_replay(file: Path, *, as_json: bool) -> int:
    """Replay the events of the report FILE against its PCR values; exit status 1 if it does not explain itself."""
    from sim.attest.esxi_report import read_report, replay_report, verify_report
    from sim.attest.verdict import AttestationError
    from sim.report.console import print_sections
    from sim.report.evidence import tpm_report_plain, tpm_report_sections
    from sim.scenario.inputs import read_input

    with about(file):
        report = read_report(read_input(file, str(file)))
    refusal = ""
    try:
        outcome = verify_report(report)
    except AttestationError as error:
        outcome, refusal = replay_report(report), error.message
    if as_json:
        print_json(tpm_report_plain(outcome, refusal))
    else:
        print_sections(tpm_report_sections(outcome, refusal))
    return EXIT_NOT_AS_WANTED if refusal else 0


def _named_banks(values: dict[int, dict[int, bytes]]) -> dict[str, dict[str, str]]:
    """Return {bank: {pcr: hex}} in the order of the banks' names."""
    from sim.tpm.eventlog import BANK_NAMES

    names = {algorithm: name for name, algorithm in BANK_NAMES.items()}
    return {
        names[algorithm]: {str(pcr): value.hex() for pcr, value in sorted(pcrs.items())}
        for algorithm, pcrs in values.items()
    }
