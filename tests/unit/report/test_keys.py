"""The table of scenario keys: each has a meaning, and each meaning a key."""

from sim.report.key_meanings import MEANINGS, meaning_of
from sim.report.keys import keys_section, scenario_keys


def test_every_key_has_one_line_of_meaning_and_there_is_none_without_a_key():
    keys = [key for key, _, _ in scenario_keys()]
    assert {key for key in keys if "vcpu_workloads[]." not in key} == set(MEANINGS)
    for key in keys:
        assert 5 <= len(meaning_of(key)) <= 120, key
        assert meaning_of(key)[-1] != ".", key


def test_the_table_shows_the_meanings():
    rows = {row[0]: row[3] for row in keys_section().table.rows}
    assert "skew" in rows["sched.costop"]
    assert rows["vms[].vcpu_workloads[].spin"] == rows["vms[].workload.spin"]
