"""The command `vmksim attest`: the verifier alone, on files from anywhere.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sim.cli.common import EXIT_NOT_AS_WANTED, about, print_json
from sim.errors import ScenarioError

_FIELDS = {
    "attest": "--quote",
    "signature": "--signature",
    "key": "--key",
    "pcr_file": "--pcrs",
    "log": "--log",
}


def _file_option(name: str, parameter: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, parameter, type=click.Path(path_type=Path), help=text)


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@_file_option("--quote", "attest", "TPMS_ATTEST, as tpm2_quote -m writes it.")
@_file_option("--signature", "signature", "TPMT_SIGNATURE, as tpm2_quote -s writes it.")
@_file_option("--key", "key", "Attestation key: PEM, DER or TPM2B_PUBLIC.")
@_file_option("--pcrs", "pcr_file", "PCR values, as tpm2_quote -o writes them.")
@_file_option("--log", "log", "TCG event log of any machine.")
@click.option("--nonce", help="What the quote must answer, as hex.")
@click.option("--secure-boot", is_flag=True, help="Refuse unless the log proves that Secure Boot was on.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def attest(
    *, files: tuple[Path, ...], nonce: str | None, secure_boot: bool, as_json: bool, **named: Path | None
) -> int:
    """Judge a quote with its signature and key, and the PCR values and the event log if they are given.

    FILES are recognised by their content; an option says what a file is.  Exit status 1 if something is refused.
    """
    from sim.attest.offline import Files, appraise_files
    from sim.report.attest import verdict_plain, verdict_sections
    from sim.report.console import print_sections

    contents = _contents(files, named)
    missing = [_FIELDS[name] for name in ("attest", "signature", "key") if name not in contents]
    if missing:
        raise ScenarioError(
            missing[0], "is missing", wanted="a quote, its signature and the key that made it"
        )
    verdict = appraise_files(Files(**contents, nonce=_nonce(nonce)), require_secure_boot=secure_boot)
    if as_json:
        print_json(verdict_plain(verdict))
    else:
        print_sections(verdict_sections(verdict))
    return 0 if verdict.accepted else EXIT_NOT_AS_WANTED


def _contents(files: tuple[Path, ...], named: dict[str, Path | None]) -> dict[str, bytes]:
    """Read every file once, and tell what each is."""
    from sim.attest.offline import recognise
    from sim.scenario.inputs import read_input

    contents = {name: read_input(path, _FIELDS[name]) for name, path in named.items() if path is not None}
    for path in files:
        with about(path):
            data = read_input(path, str(path))
            name = recognise(data)
        if name in contents:
            raise ScenarioError(str(path), f"is a second file for {_FIELDS[name]}", wanted="one of each kind")
        contents[name] = data
    return contents


def _nonce(text: str | None) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise ScenarioError("--nonce", "wrong value", got=text, wanted="bytes as hex, such as 00ff") from None
