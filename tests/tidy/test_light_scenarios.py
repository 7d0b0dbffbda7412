"""Reading a scenario loads no machine: specs name what they describe without importing it."""

import subprocess
import sys

HEAVY = (
    "cryptography",
    "numpy",
    "sim.attest",
    "sim.tpm.device",
    "sim.vsphere",
    "sim.hw.mmu",
    "sim.kernel.vmkernel",
)


def test_the_names_of_a_scenario_load_neither_machine_nor_cryptography():
    code = f"import sys; from sim import Scenario; Scenario; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_actions_and_pcrs_of_a_scenario_are_those_of_the_engines():
    from sim.attest.engines.seal import DEFAULT_PCRS
    from sim.scenario.policies import _ACTIONS, SEAL_PCRS
    from sim.vsphere.engagement import Action

    assert tuple(action.value for action in Action) == _ACTIONS
    assert DEFAULT_PCRS == SEAL_PCRS
