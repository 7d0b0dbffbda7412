"""A small part of the campaign over scheduling invariants, and that the campaign notices, and goes on where it stopped."""

import importlib.util
import json
from pathlib import Path

import pytest

from sim.kernel.sched import siblings
from sim.kernel.sched.policies.round_robin import RoundRobin
from sim.testing.scheduling import seeded_plan
from sim.testing.scheduling_checks import CHECKS, judge

SPEC = importlib.util.spec_from_file_location(
    "sched_campaign", Path(__file__).with_name("sched_scenarios.py")
)
sched_scenarios = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sched_scenarios)
main, scenario = sched_scenarios.main, sched_scenarios.scenario


@pytest.mark.parametrize("number", CHECKS)
def test_esxi_model_keeps_every_invariant_in_random_scenarios(number):
    for seed in range(12):
        assert scenario(seed, [number]) == {}


@pytest.mark.parametrize("seed", [103, 259, 306, 460, 584])
def test_skew_is_bounded_where_switching_worlds_takes_time(seed):
    assert scenario(seed, [9]) == {}


@pytest.mark.parametrize("seed", [43, 101, 207])
def test_a_vm_of_two_vcpus_gets_no_more_than_two_vms_of_one(seed):
    assert scenario(seed, [16]) == {}


@pytest.mark.parametrize("seed", [1590, 1941, 6773, 7861])
def test_a_turn_is_not_cut_while_its_world_is_switched_in(seed):
    assert scenario(seed, [10, 18]) == {}


def test_siblings_are_looked_at_in_time_when_another_leads():
    judge(seeded_plan("any", 5594), numbers=(2,))


@pytest.mark.parametrize("wide_from", [2, 12])
def test_one_that_wakes_is_level_with_a_sibling_that_is_switched_in(monkeypatch, wide_from):
    monkeypatch.setattr(siblings, "WIDE_VCPUS_MIN", wide_from)  # both ways to know who is the slowest
    assert scenario(7965, [9]) == {}


def test_those_who_wait_for_a_limit_do_not_depend_on_the_order_in_which_worlds_were_made():
    assert scenario(5677, [11]) == {}


def test_campaign_notices_a_policy_without_shares():
    broken = [scenario(seed, [3, 8, 17], RoundRobin) for seed in range(10)]
    assert {number for each in broken for number in each} == {3, 8, 17}


def test_campaign_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    state = tmp_path / "state.json"
    assert main(["--count", "50", "--only", "15", "--state", str(state)]) == 0
    assert json.loads(state.read_text())["done"] == [[0, 50]]
    monkeypatch.setattr(sched_scenarios, "scenario", lambda *_: {15: "planted"})
    assert main(["--count", "60", "--only", "15", "--state", str(state)]) == 1
    assert "total: 60 scenarios, 10 violations" in capsys.readouterr().out


@pytest.mark.parametrize("seed", [10, 11, 14, 35, 2334, 7678])
def test_options_that_change_under_running_worlds_ask_not_who_was_made_first(seed):
    assert scenario(seed, [11]) == {}


@pytest.mark.parametrize("seed", [50, 91, 132])
def test_periods_at_which_worlds_leave_shared_cores_scale_with_all_times(seed):
    assert scenario(seed, [12]) == {}


def test_verdicts_on_other_code_count_for_nothing(tmp_path, capsys, monkeypatch):
    state = tmp_path / "state.json"
    assert main(["--count", "50", "--only", "15", "--state", str(state)]) == 0
    monkeypatch.setattr(sched_scenarios, "scenario", lambda *_: {15: "planted"})
    monkeypatch.setattr(sched_scenarios, "digest_of_sources", lambda: "of other code")
    assert main(["--count", "50", "--only", "15", "--state", str(state)]) == 1
    assert "50 scenarios, 0 judged before\n" in capsys.readouterr().out.partition("total")[2]


def test_digest_of_sources_changes_with_each_module_and_with_the_campaign(tmp_path):
    package, campaign = tmp_path / "package", tmp_path / "campaign.py"
    (package / "inner").mkdir(parents=True)
    files = [package / "__init__.py", package / "inner" / "module.py", campaign]
    for path in files:
        path.write_text("a = 1\n")
    seen = {sched_scenarios.digest_of_sources(package, campaign)}
    assert sched_scenarios.digest_of_sources(package, campaign) in seen
    for path in files:
        path.write_text("a = 2\n")
        seen.add(sched_scenarios.digest_of_sources(package, campaign))
    files[1].rename(package / "module.py")
    seen.add(sched_scenarios.digest_of_sources(package, campaign))
    assert len(seen) == 5
    assert sched_scenarios.digest_of_sources() == sched_scenarios.digest_of_sources()
