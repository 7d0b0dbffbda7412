"""Hostile commands that once fuzzed another TPM: no exception, a well-formed answer, nothing changed by a refusal."""

import json
import pickle
import struct

import pytest

from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.tables import COMMANDS

COMMANDS_IN_CORPUS = 313


@pytest.fixture(scope="module")
def corpus(vectors):
    lines = (vectors / "tpm_corpus.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    return [each for each in cases if each["command"] is not None]


def started():
    tpm = Tpm(b"seed")
    tpm.init()
    TpmClient(tpm.execute).startup()
    return tpm


def answer(tpm, command):
    response = tpm.execute(command)
    tag, size, rc = struct.unpack_from(">HII", response)
    assert size == len(response)
    assert tag == (0x8001 if rc else tag)
    assert tag in (0x8001, 0x8002)
    return rc


COUNTED = ("used", "failed_tries", "healed_ms", "lockout_usable", "lockout_failed_ms")
"""What a failed authorisation, and no other refusal, may change: it is counted, with the time, and as a use."""
FORMAT_ONE_WITHOUT_PLACE = 0x0BF


def state(tpm, rc):
    """Return all that a refusal with this code must leave alone."""
    counts = rc & 0x080 and rc & FORMAT_ONE_WITHOUT_PLACE == TPM_RC.AUTH_FAIL
    guard = {name: value for name, value in vars(tpm.da).items() if not (counts and name in COUNTED)}
    kept = {
        name: value for name, value in vars(tpm).items() if name not in ("locality", "last_latency_ns", "da")
    }
    return pickle.dumps({**kept, "da": guard})


def unchanged(tpm, command):
    """Run a command; return its code, and tell whether a refusal has left the TPM as it was."""
    before = pickle.loads(pickle.dumps(tpm))
    rc = answer(tpm, command)
    if not rc:
        return rc, True
    tries = tpm.da.failed_tries - before.da.failed_tries
    return rc, state(tpm, rc) == state(before, rc) and tries in (0, 1)


def test_every_command_gets_a_well_formed_answer_and_a_refusal_changes_nothing(corpus):
    refused = 0
    for case in corpus:
        tpm = started()
        rc, kept = unchanged(tpm, bytes.fromhex(case["command"]))
        refused += rc != 0
        assert kept, case["id"]
        tpm.check_invariants()

    assert len(corpus) == COMMANDS_IN_CORPUS
    assert refused > 190


def test_the_same_holds_when_all_run_on_one_device(corpus):
    tpm = started()
    for case in corpus:
        assert unchanged(tpm, bytes.fromhex(case["command"]))[1], case["id"]
    tpm.check_invariants()


def test_every_command_gets_the_code_that_swtpm_gave(corpus):
    differing = [
        (case["id"], case["swtpm_rc"], hex(code))
        for case in corpus
        if case["swtpm_rc"] is not None
        and (code := answer(started(), bytes.fromhex(case["command"]))) != int(case["swtpm_rc"], 16)
    ]
    assert differing == []


def test_what_is_left_out_says_so(corpus):
    left_out = {int(case["cc"], 16) for case in corpus if case["kind"] == "framed"} - set(COMMANDS)
    for case in corpus:
        if case["kind"] == "framed" and int(case["cc"], 16) in left_out:
            assert answer(started(), bytes.fromhex(case["command"])) == TPM_RC.COMMAND_CODE
