"""The single-bit campaign, sampled: it must run, and it must be able to fail."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bitflips.py")


@pytest.fixture(scope="module")
def bitflips():
    spec = importlib.util.spec_from_file_location("bitflips_campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sampled_campaign_accepts_nothing_and_prints_counts(bitflips, capsys):
    assert bitflips.main(["--stride", "1009"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("boot bank: ") and "0 accepted, 0 escaped" in line for line in lines)
    assert lines[-1].startswith("total: 1")


def test_the_bits_of_signature_files_are_counted_by_themselves(bitflips, capsys):
    assert bitflips.main(["--stride", "211", "--part", "signature file"]) == 0
    lines = capsys.readouterr().out.splitlines()
    count = int(lines[-2].split()[2])
    assert lines[-2] == (f"signature files: {count} single-bit changes in 6 archives, 0 accepted, 0 uncaught")
    assert count * 211 >= 50_000
    assert lines[-1] == f"total: {count} changes, 0 accepted, 0 escaped"


def test_a_verifier_that_accepts_everything_fails_the_campaign(bitflips, capsys, monkeypatch):
    monkeypatch.setattr(bitflips, "verify_vib", lambda *_: None)
    monkeypatch.setattr(bitflips, "read_vib", lambda data: data)
    assert bitflips.main(["--stride", "2003"]) == 1
    assert "ACCEPTED at bit" in capsys.readouterr().out


def test_a_verifier_that_crashes_fails_the_campaign(bitflips, capsys, monkeypatch):
    def crash(*_arguments):
        raise KeyError("oops")

    monkeypatch.setattr(bitflips, "verify_module", crash)
    assert bitflips.main(["--stride", "2003"]) == 1
    assert "ESCAPED at bit" in capsys.readouterr().out
