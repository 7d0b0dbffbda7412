"""The campaign of mutated TPM commands, sampled: it must run, reach many commands, and be able to fail."""

import importlib.util
from pathlib import Path

import pytest

from sim.tpm.device import Tpm

SCRIPT = Path(__file__).with_name("tpm_mutations.py")


@pytest.fixture(scope="module")
def campaign():
    spec = importlib.util.spec_from_file_location("tpm_mutations_campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sampled_campaign_finds_nothing(campaign, capsys):
    status = campaign.main(["--count", "6000", "--seed", "3"])
    text = capsys.readouterr().out
    assert status == 0, text
    assert "6000 mutations: 0 findings" in text
    assert int(text.partition("commands that succeeded (")[2].partition(")")[0]) > 50


def test_a_device_that_crashes_fails_the_campaign(campaign, capsys, monkeypatch):
    def crash(_):
        raise KeyError("oops")

    monkeypatch.setattr(Tpm, "check_invariants", crash)
    assert campaign.main(["--count", "50"]) == 1
    assert "EXCEPTION KeyError" in capsys.readouterr().out


def test_a_refusal_that_changes_the_state_fails_the_campaign(campaign, capsys, monkeypatch):
    whole = Tpm.execute

    def careless(self, command, locality=0):
        self.nv_counter_max += 1
        return whole(self, command, locality)

    monkeypatch.setattr(Tpm, "execute", careless)
    assert campaign.main(["--count", "50"]) == 1
    assert "CHANGED BY A REFUSAL" in capsys.readouterr().out


def test_an_answer_out_of_form_fails_the_campaign(campaign, capsys, monkeypatch):
    whole = Tpm.execute
    monkeypatch.setattr(Tpm, "execute", lambda *arguments: whole(*arguments) + b"x")
    assert campaign.main(["--count", "50"]) == 1
    assert "MALFORMED ANSWER" in capsys.readouterr().out
