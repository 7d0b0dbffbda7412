"""The campaign of single faults, sampled: it must run, and it must be able to fail."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("image_faults.py")


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("image_faults_campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sampled_campaign_accepts_nothing_and_prints_counts(faults, capsys):
    assert faults.main(["--count", "1600"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "total: 1600 faults, 0 accepted, 0 escaped"
    assert sum("refused" in line for line in lines) == 16


def test_the_judge_of_lists_accepts_a_signer_that_is_on_none(faults):
    from sim.core.rng import Rng
    from sim.image.pki import Pki

    pki = Pki.create(Rng(1), epoch=faults.EPOCH)
    assert faults.ListJudge(pki)(faults.revoking(pki, 5)).level == "partner"


def test_a_verifier_that_accepts_everything_fails_the_campaign(faults, capsys, monkeypatch):
    monkeypatch.setattr(faults, "verify_detached", lambda *_: None)
    assert faults.main(["--count", "160"]) == 1
    assert "ACCEPTED" in capsys.readouterr().out


def test_a_verifier_that_crashes_fails_the_campaign(faults, capsys, monkeypatch):
    monkeypatch.setattr(faults, "read_bundle", lambda _: 1 // 0)
    assert faults.main(["--count", "160"]) == 1
    assert "ESCAPED" in capsys.readouterr().out
