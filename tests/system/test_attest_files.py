"""`vmksim attest` on quotes that tpm2-tools made: accepted, and refused where tpm2_checkquote 5.4 would not look."""

import json
from pathlib import Path

import pytest

from sim.scenario.load import load_scenario
from sim.scenario.run import Simulation, boot_only
from sim.tpm.wire import TPMS_ATTEST

pytestmark = pytest.mark.client

ROOT = Path(__file__).resolve().parents[2]
NONCE = "00112233445566778899"
PCRS = "0,1,2,3,4,5,6,7,11,12,13,14"


@pytest.fixture(scope="module")
def booted():
    """The TPM and the event log of a simulated host that has booted."""
    simulation = Simulation(boot_only(load_scenario(ROOT / "examples" / "demo.toml")))
    simulation.run()
    return simulation.host.board.tpm.device, simulation.finish().event_log


@pytest.fixture
def device(booted):
    return booted[0]


@pytest.fixture
def quoted(tools, booted):
    """tpm2-tools in whose folder lie quote, signature, keys, PCR values and event log of the booted host."""
    tools.frugal = True
    tools.write("boot.log", booted[1])
    tools("createek -Q -c ek.ctx -G ecc -u ek.pub")
    tools("createak -Q -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pem -f pem -n ak.name")
    tools("readpublic -Q -c ak.ctx -o ak.tss -f tss")
    tools(f"quote -Q -c ak.ctx -l sha256:{PCRS} -q {NONCE} -m quote -s signature -o pcrs -g sha256")
    return tools


@pytest.fixture
def attest(quoted, vmksim, tmp_path):
    """A function that runs `vmksim attest` on files of the folder."""

    def run(files, *options):
        paths = [tmp_path / name for name in files.split()]
        return vmksim("attest", *paths, *options)

    return run


@pytest.mark.parametrize("key", ["ak.pem", "ak.tss"])
def test_a_quote_by_tpm2_tools_is_accepted_with_its_log(attest, key):
    status, out, _ = attest(
        f"quote signature {key} pcrs boot.log", "--nonce", NONCE, "--secure-boot", "--json"
    )
    found = json.loads(out)
    assert (status, found["status"], found["reasons"]) == (0, "accepted", [])
    assert found["log"]["system"] == "esxi"
    assert any("bare public key" in text for text in found["unchecked"]) == (key == "ak.pem")


def test_the_report_tells_what_is_proven_and_what_is_not(attest):
    status, out, _ = attest("quote signature ak.pem")
    assert status == 0
    assert "the quote may be an old one" in out
    assert "no PCR values" in out


def test_an_old_quote_is_refused_by_status_1(attest):
    status, out, _ = attest("quote signature ak.tss pcrs", "--nonce", "aa" * 10)
    assert status == 1
    assert "notAccepted" in out
    assert "does not answer this nonce" in out


def test_values_beside_the_attested_ones_are_refused_where_checkquote_accepts_them(attest, quoted, tmp_path):
    data = bytearray((tmp_path / "pcrs").read_bytes())
    assert data[7] == 0xFF  # PCR 0 to 7 of the first selection
    data[7], data[9] = 0xFF & ~0x80, data[9] | 0x80  # claim PCR 23 where PCR 7 was attested
    (tmp_path / "forged").write_bytes(data)
    quoted(f"checkquote -Q -u ak.pem -m quote -s signature -f forged -q {NONCE} -g sha256")
    status, out, _ = attest("quote signature ak.pem forged", "--nonce", NONCE)
    assert status == 1
    assert "pcr_selection" in out


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ("quote signature", (), "--key: is missing"),
        ("quote quote signature ak.pem", (), "second file for --quote"),
        ("quote signature ak.pem", ("--nonce", "xyz"), "--nonce"),
        ("quote signature ak.pem nowhere", (), "cannot read"),
        ("quote signature ak.pem ak.name", (), "neither quote"),
    ],
)
def test_a_wrong_call_is_one_line_with_status_2(attest, files, options, said):
    status, out, error = attest(files, *options)
    assert (status, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1


def test_tpm2_checkquote_accepts_the_evidence_that_a_run_leaves(tools, vmksim, tmp_path):
    vmksim("run", ROOT / "examples" / "demo.toml", "--out", tmp_path)
    nonce = TPMS_ATTEST.decode((tmp_path / "quote.bin").read_bytes()).extraData.hex()
    check = f"checkquote -Q -u ak.pub -m quote.bin -s quote.sig -f pcrs.bin -q {nonce} -g sha256"
    tools(check)
    (tmp_path / "pcrs.bin").write_bytes(
        (tmp_path / "pcrs.bin").read_bytes().replace(b"\xff" * 32, bytes(32), 1)
    )
    tools(check, fails=True)
