"""Every cell of the PCR x locality tables, and the starts and launches, as measured on swtpm 0.7.1."""

import json
from hashlib import sha256

import pytest

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import PCR_COUNT, TPM_ALG, TPM_PT, TPM_SU
from sim.tpm.device import Tpm

SHA256 = TPM_ALG.SHA256.value
LOCALITIES = range(5)


@pytest.fixture(scope="module")
def measured(vectors):
    return json.loads((vectors / "tpm_pcr_locality.json").read_text())


@pytest.fixture(scope="module")
def golden(vectors):
    return json.loads((vectors / "tpm_golden.json").read_text())


def started(locality=0):
    tpm = Tpm(b"seed")
    tpm.init()
    client = TpmClient(tpm.execute)
    client.at_locality(locality).startup()
    return tpm, client


def code_of(call, *arguments):
    try:
        call(*arguments)
    except TpmError as error:
        return error.rc
    return 0


def read(client, pcr):
    return client.pcr_read({SHA256: (pcr,)})[SHA256][pcr].hex()


def launch(tpm, data):
    tpm.hash_start()
    tpm.hash_data(data)
    tpm.hash_end()


def short(value):
    return f"{value[:2]}..{value[-2:]}"


def test_all_240_cells_of_extend_and_reset(measured):
    tpm, client = started()
    cells = 0
    for pcr in range(PCR_COUNT):
        for locality in LOCALITIES:
            at = client.at_locality(locality)
            before = read(client, pcr)
            extend = code_of(at.pcr_extend, pcr, {SHA256: b"\x01" * 32})
            assert extend == measured["extend"][str(pcr)][locality], ("extend", pcr, locality)
            assert (read(client, pcr) == before) == bool(extend)
            before = read(client, pcr)
            reset = code_of(at.pcr_reset, pcr)
            assert reset == measured["reset"][str(pcr)][locality], ("reset", pcr, locality)
            assert read(client, pcr) == (before if reset else "00" * 32)
            cells += 2
    tpm.check_invariants()

    assert cells == 240


def test_the_two_measurements_agree_with_each_other_and_with_the_start_values(measured, golden):
    _, client = started()
    for pcr in range(PCR_COUNT):
        value = read(client, pcr)
        assert short(value) == measured["initial"][str(pcr)]
        assert value[:8] == golden["after_startup_clear"][str(pcr)]
        for table in ("extend", "reset"):
            assert [int(code, 16) for code in golden[table][str(pcr)]] == measured[table][str(pcr)]


@pytest.mark.parametrize("locality", LOCALITIES)
def test_startup_at_each_locality(measured, locality):
    rc, value = measured[f"startup_locality_{locality}"]
    tpm = Tpm(b"seed")
    tpm.init()
    client = TpmClient(tpm.execute)

    assert code_of(client.at_locality(locality).startup) == rc
    if value is not None:
        assert short(read(client, 0)) == value


def test_a_launch_changes_what_it_changed_there(measured, golden):
    """The two measurements hashed different data: "ABC" and "abc"."""
    tpm, client = started()
    before = {pcr: read(client, pcr) for pcr in range(PCR_COUNT)}
    launch(tpm, b"ABC")
    changed = {str(pcr): read(client, pcr) for pcr in before if read(client, pcr) != before[pcr]}

    assert changed.keys() == measured["drtm_changed"].keys()
    for pcr, (old, new) in measured["drtm_changed"].items():
        assert short(before[int(pcr)]) == old
        assert new in (changed[pcr][:16], short(changed[pcr]))
    launch(tpm, b"abc")
    assert [read(client, pcr)[:8] for pcr in range(17, 23)] == [
        golden["after_drtm"][str(pcr)] for pcr in range(17, 23)
    ]
    assert tpm.established


def test_an_h_crtm_gives_the_value_that_was_computed_there(measured):
    tpm = Tpm(b"seed")
    tpm.init()
    launch(tpm, b"crtm")
    client = TpmClient(tpm.execute)
    client.startup()

    assert measured["hcrtm_pcr0_is_H(0..04||H(data))"]
    assert read(client, 0) == sha256(bytes(31) + b"\x04" + sha256(b"crtm").digest()).hexdigest()


def test_a_resume_keeps_and_resets_the_same_pcrs(measured, golden):
    tpm, client = started()
    launch(tpm, b"ABC")
    for pcr in (*range(17), 23):
        client.pcr_extend(pcr, {SHA256: b"\x01" * 32})
    before = {pcr: read(client, pcr) for pcr in range(PCR_COUNT)}
    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.STATE)

    kept = [pcr for pcr in before if read(client, pcr) == before[pcr]]
    assert kept == measured["resume_preserved"] == golden["resume_kept"]
    for pcr, value in measured["resume_reset"].items():
        assert short(read(client, int(pcr))) == value
        assert read(client, int(pcr))[:8] == golden["resume_vals"][pcr]


def test_the_counters_follow_the_same_story(golden):
    """Reset, launch and resume, restart, then power lost: [resetCount, restartCount, safe] each time."""
    tpm, client = started()

    def counters():
        info = client.read_clock().clockInfo
        return [info.resetCount, info.restartCount, info.safe]

    assert counters() == golden["clock1"][2:]
    launch(tpm, b"ABC")
    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.STATE)
    assert counters() == golden["clock2"][2:]
    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.CLEAR)
    assert counters() == golden["clock3_restart"][2:]
    tpm.init()
    assert code_of(client.startup, TPM_SU.STATE) == int(golden["unorderly_startup_state_rc"], 16)
    assert code_of(client.startup) == int(golden["then_clear"], 16)
    assert counters() == golden["clock4_unorderly"][2:]


def test_single_codes_and_values(golden):
    tpm = Tpm(b"seed")
    tpm.init()
    client = TpmClient(tpm.execute)
    assert code_of(client.properties, TPM_PT.REVISION) == int(golden["before_startup_rc"], 16)
    client.at_locality(3).startup()
    assert read(client, 0) == golden["pcr0_startup_locality3"]
    assert code_of(client.startup) == int(golden["second_startup_rc"], 16)

    def raw(command):
        return int.from_bytes(tpm.execute(bytes.fromhex(command))[6:10], "big")

    assert raw("80010000000a0000ffff") == int(golden["unknown_cc_rc"], 16)
    assert raw("80030000000a00000181") == int(golden["bad_tag_rc"], 16)
