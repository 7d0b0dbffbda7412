"""The campaign of fuzzed event logs, sampled: it must run, and it must be able to fail."""

import importlib.util
from pathlib import Path

import attrs
import pytest

from sim.errors import LimitError

SCRIPT = Path(__file__).with_name("log_mutants.py")


@pytest.fixture(scope="module")
def campaign():
    spec = importlib.util.spec_from_file_location("log_mutants_campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def logs(campaign):
    return campaign.boot_logs()


@pytest.fixture
def sampled(campaign, logs, monkeypatch):
    monkeypatch.setattr(campaign, "all_subjects", lambda: logs)
    return lambda count: campaign.main(["--count", str(count), "--jobs", "0"])


def test_the_logs_that_mutants_are_made_of_differ_in_shape_and_are_good(campaign, logs):
    assert len(set(logs.values())) == len(logs) == 10
    for data in logs.values():
        assert campaign.judge(data, every_bank=True, padded=False) == "replayed"


def test_whole_verdicts_get_past_the_quote_and_no_log_is_left_without_one(campaign, logs):
    witness = campaign.the_witness()
    seen = {}
    for name, data in logs.items():
        for banks in campaign.BANK_SETS:
            assert (
                campaign.judge(data, every_bank=True, padded=False, whole=witness, banks=banks) == "replayed"
            )
            evidence = witness.evidence(campaign.parse(data), data, banks)
            reasons = witness.appraise(evidence).reasons
            seen[name, banks] = {reason.code for reason in reasons}
            alone = witness.appraise_files(evidence, with_values=False)
            assert alone.accepted or alone.reasons
    assert "component_unknown" in seen["boot/locality3", (campaign.SHA256,)], "judged to the very end"
    assert {"log_banks"} in seen.values()


@pytest.mark.parametrize("stage", ["check_banks", "check_covered"])
def test_a_verifier_that_crashes_fails_the_campaign(campaign, sampled, capsys, monkeypatch, stage):
    monkeypatch.setattr(f"sim.attest.event_log.{stage}", lambda *_: {}[stage])
    assert sampled(300) == 1
    assert f"KeyError: '{stage}'" in capsys.readouterr().out


def test_the_sampled_campaign_finds_nothing_and_counts_every_mutant(sampled, capsys):
    assert sampled(1600) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("total: 1600 mutants, ")
    assert lines[-2].endswith(" 0 findings")
    counts = [int(word) for word in lines[-2].replace(",", "").split() if word.isdigit()]
    assert counts[0] == sum(counts[1:])
    assert min(counts[1:3]) > 100, "both replayed and refused logs are needed"


def test_the_same_mutants_come_in_any_order_of_chunks(campaign, logs):
    witness = campaign.the_witness()
    one = campaign.chunk(logs, witness, 1, 2000, 50)
    campaign.chunk(logs, witness, 1, 0, 50)
    assert campaign.chunk(logs, witness, 1, 2000, 50)[:2] == one[:2]


def test_a_parser_that_crashes_fails_the_campaign(campaign, sampled, capsys, monkeypatch):
    monkeypatch.setattr(campaign, "replay", lambda log: 1 // (len(log.events) % 2))
    assert sampled(60) == 1
    assert "FINDING mutant" in capsys.readouterr().out


def test_a_parser_that_passes_over_an_event_fails_the_campaign(campaign, sampled, capsys, monkeypatch):
    real = campaign.parse

    def forgetful(data, **options):
        log = real(data, **options)
        return attrs.evolve(log, events=log.events[:-1])

    monkeypatch.setattr(campaign, "parse", forgetful)
    assert sampled(60) == 1
    assert "are not all of its bytes" in capsys.readouterr().out


def test_a_process_that_takes_too_much_memory_fails_the_campaign(campaign, capsys):
    outcomes = campaign.Counter(replayed=5)
    limit = campaign.RSS_BYTES_MAX
    assert campaign.report(outcomes, [], limit - 1, judged_apart=True) == 0
    assert campaign.report(outcomes, [], limit, judged_apart=True) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_limit_is_a_refusal_with_its_reason(campaign, monkeypatch):
    def limit(*_arguments, **_options):
        raise LimitError("event log", "record 3, offset 0x10", "event size 77 passes the limit of 5")

    monkeypatch.setattr(campaign, "parse", limit)
    assert campaign.judge(b"x", every_bank=False, padded=False) == (
        "refused: event size # passes the limit of #"
    )
