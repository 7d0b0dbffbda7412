"""Whatever bytes come, the TPM answers in form, refuses without a trace, and repeats itself exactly."""

import pickle
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.tpm.client import TpmClient
from sim.tpm.constants import HASH_BYTES, PCR_COUNT, TPM_CC, TPM_RH
from sim.tpm.device import Tpm
from sim.tpm.pcr import EXTEND_LOCALITIES, RESET_LOCALITIES
from sim.tpm.tables import COMMANDS
from sim.tpm.templates import ATTESTATION_KEY, SIGNING_KEY, STORAGE_PARENT
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_HA,
)

EMPTY_PASSWORD = bytes.fromhex("00000009400000090000000000")
HIDDEN = ("locality", "last_latency_ns", "da")


def fresh():
    tpm = Tpm(b"seed")
    tpm.init()
    TpmClient(tpm.execute).startup()
    return tpm


def state(tpm):
    return pickle.dumps({name: value for name, value in vars(tpm).items() if name not in HIDDEN})


def packet(code, body, tag):
    return struct.pack(">HII", tag, 10 + len(body), code) + body


HANDLES = st.sampled_from(
    [
        *range(PCR_COUNT),
        *TPM_RH,
        0x80000000,
        0x80000001,
        0x80000002,
        0x80000003,
        0x81000000,
        0x01C90000,
        0x02000000,
    ]
)
BANKS = st.sampled_from(sorted(HASH_BYTES))
DIGESTS = BANKS.flatmap(
    lambda bank: st.binary(min_size=HASH_BYTES[bank], max_size=HASH_BYTES[bank]).map(
        lambda digest: TPMT_HA(hashAlg=bank, digest=digest)
    )
)
SELECTIONS = st.lists(
    st.builds(TPMS_PCR_SELECTION.of, BANKS, st.sets(st.integers(0, PCR_COUNT - 1))), max_size=4
).map(tuple)
SECRETS = st.builds(
    TPMS_SENSITIVE_CREATE, userAuth=st.binary(max_size=40), data=st.sampled_from([b"", b"data"])
).map(TPM2B_SENSITIVE_CREATE.encode)
TEMPLATES = st.sampled_from([ATTESTATION_KEY, SIGNING_KEY, STORAGE_PARENT]).map(TPM2B_PUBLIC.encode)
SELECTED = SELECTIONS.map(COMMANDS[0x17E].parameters[0].encode)

PARAMETERS = {
    TPM_CC.PCR_Extend: st.lists(DIGESTS, max_size=4).map(tuple).map(COMMANDS[0x182].parameters[0].encode),
    TPM_CC.PCR_Read: SELECTED,
    TPM_CC.PCR_Event: st.binary(max_size=60).map(COMMANDS[0x13C].parameters[0].encode),
    TPM_CC.CreatePrimary: st.tuples(SECRETS, TEMPLATES, st.just(b"\0\0"), SELECTED).map(b"".join),
    TPM_CC.Quote: st.tuples(st.just(b"\0\5nonce\0\x10"), SELECTED).map(b"".join),
    TPM_CC.FlushContext: HANDLES.map(lambda handle: handle.to_bytes(4, "big")),
    TPM_CC.GetCapability: st.tuples(st.integers(0, 11), HANDLES, st.integers(0, 300)).map(
        lambda each: struct.pack(">III", *each)
    ),
}


@st.composite
def commands(draw):
    """A command that is right in form, most of the time with a fitting body."""
    spec = COMMANDS[draw(st.sampled_from(sorted(COMMANDS)))]
    body = b"".join(draw(HANDLES).to_bytes(4, "big") for _ in spec.handles)
    sessions = spec.authorised_count > 0 if draw(st.integers(0, 9)) else spec.authorised_count == 0
    if sessions:
        body += EMPTY_PASSWORD
    body += draw(PARAMETERS.get(spec.code, st.binary(max_size=4)))
    return packet(spec.code, body, 0x8002 if sessions else 0x8001)


@st.composite
def mutated(draw):
    """Such a command with a byte changed, cut off or added, its size field right again."""
    command = bytearray(draw(commands()))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(6, len(command)))
        change = draw(st.sampled_from(["set", "cut", "add"]))
        if change == "set" and at < len(command):
            command[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del command[max(at, 10) :]
        else:
            command += draw(st.binary(max_size=4))
    command[2:6] = len(command).to_bytes(4, "big")
    return bytes(command)


STEPS = st.lists(st.tuples(mutated(), st.integers(0, 4)), min_size=1, max_size=12)


def check_answer(response):
    tag, size, rc = struct.unpack_from(">HII", response)
    assert size == len(response) <= 4096
    assert tag == 0x8001 or (tag == 0x8002 and rc == 0)
    assert rc == 0 or len(response) == 10
    return rc


@settings(max_examples=300)
@given(STEPS)
def test_a_refused_command_changes_nothing_and_every_answer_is_in_form(steps):
    tpm = fresh()
    for command, locality in steps:
        before = state(tpm)
        if check_answer(tpm.execute(command, locality)):
            assert state(tpm) == before
        tpm.check_invariants()


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_get_an_answer(command, started):
    tpm = fresh() if started else Tpm(b"seed")
    check_answer(tpm.execute(command))


@given(STEPS)
def test_the_same_commands_give_the_same_answers_and_so_does_an_unpickled_copy(steps):
    first, second = fresh(), fresh()
    for command, locality in steps:
        answer = first.execute(command, locality)
        assert second.execute(command, locality) == answer
        second = pickle.loads(pickle.dumps(second))


@given(STEPS)
def test_pcrs_change_only_by_extend_event_and_reset_at_a_permitted_locality(steps):
    tpm = fresh()
    for command, locality in steps:
        before = {bank: list(values) for bank, values in tpm.pcrs.values.items()}
        tpm.execute(command, locality)
        changed = {
            pcr
            for bank, values in before.items()
            for pcr in range(PCR_COUNT)
            if tpm.pcrs.values[bank][pcr] != values[pcr]
        }
        if not changed:
            continue
        code = int.from_bytes(command[6:10], "big")
        assert changed == {int.from_bytes(command[10:14], "big")}
        table = {
            TPM_CC.PCR_Extend: EXTEND_LOCALITIES,
            TPM_CC.PCR_Event: EXTEND_LOCALITIES,
            TPM_CC.PCR_Reset: RESET_LOCALITIES,
        }
        assert all(table[code][pcr] >> locality & 1 for pcr in changed)


@given(STEPS)
def test_slots_are_conserved(steps):
    tpm = fresh()
    for command, locality in steps:
        before = len(tpm.objects)
        ok = not check_answer(tpm.execute(command, locality))
        code = int.from_bytes(command[6:10], "big")
        expected = {TPM_CC.CreatePrimary: 1, TPM_CC.FlushContext: -1}.get(code, 0) if ok else 0
        assert len(tpm.objects) - before == expected
