"""The scenarios that are played on swtpm where it is installed, against what swtpm 0.7.1 answered when asked here.

Written by the tests of the scenarios (`VMKSIM_RECORD=1 python -m pytest tests/vectors -k swtpm`), one line a step.
"""

import pytest

from . import (
    test_tpm_swtpm_hierarchies,
    test_tpm_swtpm_policies,
    test_tpm_swtpm_sessions,
    test_tpm_swtpm_tickets,
)
from .swtpm_scenario import RECORDS, compare_with_record

MODULES = (
    *(test_tpm_swtpm_sessions, test_tpm_swtpm_policies),
    *(test_tpm_swtpm_hierarchies, test_tpm_swtpm_tickets),
)
SCENARIOS = {name: scenario for module in MODULES for name, scenario in module.SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_step_answers_as_swtpm_did(name):
    differing, steps = compare_with_record(SCENARIOS[name], name)

    assert differing == []
    assert steps > 4


def test_every_record_belongs_to_a_scenario():
    assert {path.stem for path in RECORDS.iterdir()} == set(SCENARIOS)
