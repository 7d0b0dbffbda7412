"""tpm2-tools read the event log of a simulated boot, and check a quote of the booted machine's TPM against it."""

import re
from pathlib import Path

import pytest

from sim.scenario.load import load_scenario
from sim.scenario.run import Simulation, boot_only
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import event_type_name, parse

pytestmark = pytest.mark.client

ROOT = Path(__file__).resolve().parents[2]
NONCE = "00112233445566778899"
MEASURED = (0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14)


@pytest.fixture(scope="module")
def booted():
    """A simulated host that has booted, and the event log of that boot."""
    simulation = Simulation(boot_only(load_scenario(ROOT / "examples" / "demo.toml")))
    simulation.run()
    return simulation.host.board.tpm.device, simulation.finish().event_log


@pytest.fixture
def device(booted):
    """The TPM of the booted host."""
    return booted[0]


def replayed(tools, bank):
    """Return {pcr: value} as tpm2_eventlog replays the log for a bank."""
    text = tools("eventlog boot.log").partition("\npcrs:")[2]
    part = re.split(r"\n  (?=sha)", text)
    (found,) = [each for each in part if each.strip().startswith(f"{bank}:")]
    return {int(pcr): bytes.fromhex(value) for pcr, value in re.findall(r"(\d+)\s*: 0x([0-9a-f]+)", found)}


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
def test_the_log_of_a_simulated_boot_replays_to_the_pcrs_of_its_tpm(tools, booted, bank):
    device, log = booted
    values = device.pcrs.values[TPM_ALG[bank.upper()].value]
    tools.write("boot.log", log)
    if f"{bank}:" not in tools("eventlog boot.log"):
        pytest.fail(f"the log has no {bank} bank")
    found = replayed(tools, bank)
    assert {pcr: values[pcr] for pcr in found} == found
    assert set(found) >= {0, 4, 7, 12, 13}


def test_the_events_of_a_simulated_boot_have_the_names_that_tpm2_eventlog_gives_them(tools, booted):
    tools.write("boot.log", booted[1])
    printed = re.findall(r"PCRIndex: (\d+)\n  EventType: (\w+)", tools("eventlog boot.log"))
    ours = [(str(event.pcr), event_type_name(event.type)) for event in parse(booted[1]).events]
    assert printed == [("0", "EV_NO_ACTION"), *ours]
    assert {"EV_CPU_MICROCODE", "EV_EFI_HANDOFF_TABLES"} <= {name for _, name in ours}


def test_a_quote_of_the_booted_host_agrees_with_its_log(tools, booted):
    tools.frugal = True
    tools.write("boot.log", booted[1])
    tools("createek -Q -c ek.ctx -G ecc -u ek.pub")
    tools("createak -Q -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pub -f pem -n ak.name")
    pcrs = ",".join(map(str, MEASURED))
    tools(f"quote -Q -c ak.ctx -l sha256:{pcrs} -q {NONCE} -m quote -s signature -o pcrs -g sha256")
    tools(f"checkquote -Q -u ak.pub -m quote -s signature -f pcrs -q {NONCE} -g sha256 -e boot.log")


def test_the_factory_certificate_is_readable(tools):
    tools("nvread -Q -C 0x1c90000 -o certificate.der 0x1c90000")
    assert b"TPM" in tools.run("openssl x509 -inform DER -in certificate.der -noout -subject")
