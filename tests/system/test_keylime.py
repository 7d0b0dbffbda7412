"""keylime's own verifier and measured-boot engine judge a simulated host: the good boot passes, each bad one does not."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from sim.attest.offline import write_pcr_file
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation, boot_only
from sim.tpm.eventlog import EventLogWriter, event_type_name, parse
from sim.tpm.hashing import BANK_NAMES
from tests.conftest import absent

pytestmark = pytest.mark.client

ROOT = Path(__file__).resolve().parents[2]
NONCE = b"0123456789abcdefghij"
PCRS = [*range(8), 11, 12, 13, 14]
LISTED = ("EV_EVENT_TAG", "EV_EFI_BOOT_SERVICES_APPLICATION")
SCENARIO = """
[image]
modules = 4
module_size = "2KiB"
[host]
memory = "2GiB"
"""
TAMPERED = """
[host.firmware]
secure_boot = false
[[faults]]
kind = "flip_bit"
target = "vib/vmkusb"
unpacked = true
"""


@pytest.fixture(scope="module")
def keylime(tmp_path_factory):
    """A function that lets keylime judge the evidence in a folder, and returns its lines."""
    python = Path(os.environ.get("VMKSIM_KEYLIME_PYTHON", ROOT / ".venv-keylime" / "bin" / "python"))
    if not python.exists():
        absent("an environment with keylime (.venv-keylime, or the Python named by VMKSIM_KEYLIME_PYTHON)")

    folder = tmp_path_factory.mktemp("keylime")
    (folder / "gpg.py").touch()  # it is only for signed policies of IMA, and on no package index
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "KEYLIME_VERIFIER_MEASURED_BOOT_POLICY_NAME": "simulated-host",
        "KEYLIME_VERIFIER_MEASURED_BOOT_EVALUATE": "always",
    }

    def judge(folder):
        command = [python, Path(__file__).with_name("keylime_judge.py"), folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stdout, done.stderr[-2000:]
        return done.stdout.splitlines()

    return judge


def boot(text, folder):
    """Boot a host and leave its evidence over the nonce in a folder; return its event log."""
    simulation = Simulation(boot_only(parse_scenario(text)))
    simulation.run()
    host = simulation.host
    quote = host.call("tpm.quote", {"nonce": NONCE, "banks": ["sha256"], "pcrs": PCRS})
    for name, data in {
        "quote.bin": quote["attest"],
        "quote.sig": quote["signature"],
        "pcrs.bin": write_pcr_file(quote["pcr_values"]),
        "ak.pub": host.call("tpm.identity")["ak_public"],
        "eventlog.bin": host.boot.event_log,
        "nonce": NONCE,
    }.items():
        (folder / name).write_bytes(data)
    return parse(host.boot.event_log)


def kind(event):
    return (event.pcr, event_type_name(event.type))


def write_policy(folder, log, left_out=()):
    """List the digests of all loaders and modules of a log but some, and let the rest of the firmware be."""
    kinds = sorted({kind(event) for event in log.events})
    listed = [each for each in kinds if each[1] in LISTED]
    sha256 = BANK_NAMES["sha256"]
    digests = {
        event.digests[sha256].hex()
        for event in log.events
        if kind(event) in listed and not any(name in event.data for name in left_out)
    }
    free = [each for each in kinds if each not in listed] + [(0, "EV_NO_ACTION")]
    policy = {"listed": listed, "free": free, "digests": sorted(digests)}
    (folder / "policy.json").write_text(json.dumps(policy))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    log = boot(SCENARIO, folder)
    write_policy(folder, log)
    return folder, log


@pytest.fixture
def copied(good, tmp_path):
    """A copy of the good evidence, to be spoiled."""
    for path in good[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_the_good_boot_is_accepted(keylime, good):
    assert keylime(good[0]) == ["accepted"]


def test_a_flipped_bit_in_a_driver_is_refused_by_the_policy_of_the_good_boot(keylime, good, tmp_path):
    boot(SCENARIO + TAMPERED, tmp_path)
    (tmp_path / "policy.json").write_bytes((good[0] / "policy.json").read_bytes())
    *found, verdict = keylime(tmp_path)
    assert verdict == "refused"
    assert any("measured_boot" in line for line in found)


def test_a_kernel_that_is_not_listed_is_refused(keylime, good, copied):
    write_policy(copied, good[1], left_out=[b"k.b00"])
    *found, verdict = keylime(copied)
    assert verdict == "refused"
    assert any("measured_boot" in line for line in found)


def test_a_log_without_its_last_event_is_refused(keylime, good, copied):
    writer = EventLogWriter(good[1].banks)
    for event in good[1].events[:-1]:
        writer.append(event.pcr, event.type, event.digests, event.data)
    (copied / "eventlog.bin").write_bytes(writer.to_bytes())
    assert keylime(copied)[-1] == "refused"


def test_a_quote_over_another_nonce_is_refused(keylime, copied):
    (copied / "nonce").write_bytes(b"another nonce of the same size"[:20])
    *found, verdict = keylime(copied)
    assert verdict == "refused"
    assert any("nonce" in line for line in found)
