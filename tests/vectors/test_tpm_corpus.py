"""Hostile commands that once fuzzed another TPM: no exception, a well-formed answer, nothing changed by a refusal."""

import json
import pickle
import struct

import pytest

from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.tables import COMMANDS

COMMANDS_IN_CORPUS = 313
AGREEING_IMPLEMENTED = 89


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


def state(tpm):
    hidden = ("locality", "last_latency_ns", "da")
    return pickle.dumps({name: value for name, value in vars(tpm).items() if name not in hidden})


def makes_an_unimplemented_object(case):
    """Whether the case creates an RSA, keyed hash or symmetric primary: the first word of its template."""
    if int(case["cc"], 16) != TPM_CC.CreatePrimary:
        return False
    body = bytes.fromhex(case["command"])[27:]  # header, hierarchy, one empty password session
    sensitive_size = int.from_bytes(body[:2], "big")
    return int.from_bytes(body[4 + sensitive_size : 6 + sensitive_size], "big") in (
        TPM_ALG.RSA,
        TPM_ALG.SYMCIPHER,
    )


def test_every_command_gets_a_well_formed_answer_and_a_refusal_changes_nothing(corpus):
    refused = 0
    for case in corpus:
        tpm = started()
        before = state(tpm)
        if answer(tpm, bytes.fromhex(case["command"])):
            refused += 1
            assert state(tpm) == before, case["id"]
        tpm.check_invariants()

    assert len(corpus) == COMMANDS_IN_CORPUS
    assert refused > 200


def test_the_same_holds_when_all_run_on_one_device(corpus):
    tpm = started()
    for case in corpus:
        before = state(tpm)
        if answer(tpm, bytes.fromhex(case["command"])):
            assert state(tpm) == before, case["id"]
    tpm.check_invariants()


def test_implemented_commands_agree_with_swtpm_but_for_object_types_that_are_left_out(corpus):
    agreeing, differing = 0, []
    for case in corpus:
        if case["cc"] is None or case["swtpm_rc"] is None or int(case["cc"], 16) not in COMMANDS:
            continue
        if answer(started(), bytes.fromhex(case["command"])) == int(case["swtpm_rc"], 16):
            agreeing += 1
        else:
            differing.append(case)

    assert agreeing == AGREEING_IMPLEMENTED
    assert [case["id"] for case in differing if not makes_an_unimplemented_object(case)] == []


def test_commands_that_are_left_out_say_so(corpus):
    for case in corpus:
        if case["kind"] == "framed" and int(case["cc"], 16) not in COMMANDS:
            assert answer(started(), bytes.fromhex(case["command"])) == TPM_RC.COMMAND_CODE
