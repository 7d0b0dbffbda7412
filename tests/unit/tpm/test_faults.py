"""Faults of a TPM: each kind does what it says, at the occurrences it names, and the state stays whole."""

import struct

import pytest

from sim.core.structure import structure
from sim.errors import FormatError, ScenarioError
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_SU
from sim.tpm.fault_spec import OCCURRENCES_MAX, command_code, command_name, parse_fault
from sim.tpm.faults import Fault, FaultyTpm
from sim.tpm.state import LOST_WITH_POWER, fork, snapshot, state_diff

SHA256 = TPM_ALG.SHA256.value
EXTEND = TPM_CC.PCR_Extend.value
SHUTDOWN = bytes.fromhex("80010000000c000001450000")
CLEAR = bytes.fromhex("80020000001b000001264000000a00000009400000090000000000")


def extend(faulty):
    TpmClient(faulty.execute).pcr_extend(7, {SHA256: b"x" * 32})


def test_a_command_fails_at_the_occurrences_named(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="fail", command="PCR_Extend", first=2, count=2),))
    extend(faulty)
    before = snapshot(tpm)
    for _ in range(2):
        with pytest.raises(TpmError) as failed:
            extend(faulty)
        assert failed.value.rc == TPM_RC.FAILURE
    assert snapshot(tpm) == before
    extend(faulty)


def test_a_retry_is_asked_for_without_effect(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="retry", command="PCR_Extend"),))
    before = snapshot(tpm)
    with pytest.raises(TpmError) as failed:
        extend(faulty)
    assert failed.value.rc == TPM_RC.RETRY
    assert snapshot(tpm) == before
    extend(faulty)


def test_a_delay_takes_simulated_time_only(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="delay", command="PCR_Extend", delay_ns=5_000),))
    extend(faulty)
    assert faulty.last_latency_ns == tpm.profile.latencies_ns[EXTEND] + 5_000
    extend(faulty)
    assert faulty.last_latency_ns == tpm.profile.latencies_ns[EXTEND]


@pytest.mark.parametrize(("kind", "runs"), [("drop", False), ("lose_answer", True)])
def test_a_lost_command_has_no_effect_and_a_lost_answer_has(tpm, kind, runs):
    faulty = FaultyTpm(tpm, (Fault(kind=kind, command="Shutdown"),))
    assert faulty.execute(SHUTDOWN) == b""
    assert (tpm.shutdown_type is not None) == runs


def test_a_fault_without_a_command_hits_any(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="fail", first=2),))
    extend(faulty)
    assert int.from_bytes(faulty.execute(SHUTDOWN)[6:10], "big") == TPM_RC.FAILURE


@pytest.mark.parametrize("writes", range(8))
def test_power_goes_between_two_writes_of_one_command(tpm, writes):
    reference = fork(tpm)
    faulty = FaultyTpm(tpm, (Fault(kind="power_loss", command="Clear", writes=writes),))
    before = fork(tpm)
    assert faulty.execute(CLEAR) == b""
    assert not tpm.started
    tpm.check_invariants()
    TpmClient(faulty.execute).startup()
    changed = {path for path in state_diff(before, tpm) if path.startswith("hierarchies")}
    reference.execute(CLEAR)
    complete = {path for path in state_diff(before, reference) if path.startswith("hierarchies")}
    assert changed <= complete
    if writes == 0:
        assert not changed


def test_the_hash_sequence_passes_through(tpm):
    faulty = FaultyTpm(tpm)
    faulty.init()
    faulty.hash_start()
    faulty.hash_data(b"code")
    faulty.hash_end()
    assert faulty.last_latency_ns > 0
    assert tpm.established


@pytest.mark.parametrize(
    ("kind", "code", "waited_ns"), [("drop", "PCR_Extend", 750), ("lose_answer", "Shutdown", 2_000)]
)
def test_who_is_not_answered_waits_as_long_as_linux_does(tpm, kind, code, waited_ns):
    faulty = FaultyTpm(tpm, (Fault(kind=kind, command=code),))
    command = SHUTDOWN if code == "Shutdown" else bytes.fromhex("80020000000a00000182")
    assert faulty.execute(command) == b""
    assert faulty.last_latency_ns == waited_ns * 1_000_000


def test_a_fault_may_ask_for_a_handle(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="fail", command="PCR_Extend", handle=8, first=2),))
    client = TpmClient(faulty.execute)
    for pcr in (7, 8, 7, 7):
        client.pcr_extend(pcr, {SHA256: b"x" * 32})
    with pytest.raises(TpmError):
        client.pcr_extend(8, {SHA256: b"x" * 32})
    assert faulty.execute(bytes.fromhex("80020000000a00000182")) != b""
    assert faulty.execute(b"short")[6:10] != bytes(4)
    assert faulty.occurrences == [2]


def test_the_first_fault_of_the_plan_counts_and_each_counts_for_itself(tpm):
    plan = (
        Fault(kind="fail", rc="RETRY", command="PCR_Extend", first=2),
        Fault(kind="fail", rc=0x101, first=2, count=2),
    )
    hits = []
    faulty = FaultyTpm(tpm, plan, on_fault=lambda fault, command: hits.append((fault.rc, command[6:10])))
    extend(faulty)
    codes = []
    for _ in range(2):
        with pytest.raises(TpmError) as failed:
            extend(faulty)
        codes.append(failed.value.rc)
    extend(faulty)
    assert codes == [TPM_RC.RETRY, TPM_RC.FAILURE]
    assert hits == [("RETRY", EXTEND.to_bytes(4, "big")), (0x101, EXTEND.to_bytes(4, "big"))]


def define(index):
    public = struct.pack(">IHI", index, SHA256, 0x00040004 | 0x02000000) + bytes(2) + struct.pack(">H", 8)
    return packet(TPM_CC.NV_DefineSpace, (0x40000001,), bytes(2) + struct.pack(">H", len(public)) + public)


def write(index, data):
    return packet(TPM_CC.NV_Write, (index, index), struct.pack(">H", len(data)) + data + bytes(2))


def packet(code, handles, parameters):
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    body += bytes.fromhex("00000009400000090000000000") + parameters
    return struct.pack(">HII", 0x8002, 10 + len(body), code) + body


@pytest.mark.parametrize("writes", [0, 1, 2, 9])
def test_power_that_goes_between_two_nv_writes_leaves_the_last_good_content(tpm, writes):
    index = 0x01500001
    faulty = FaultyTpm(tpm, (Fault(kind="power_loss", command="NV_Write", first=2, writes=writes),))
    assert faulty.execute(define(index))[6:10] == bytes(4)
    assert faulty.execute(write(index, b"old good"))[6:10] == bytes(4)
    assert faulty.execute(write(index, b"new data")) == b""
    assert not tpm.started
    TpmClient(faulty.execute).startup()
    assert tpm.nv[index].content == (b"old good" if writes == 0 else b"new data")
    assert faulty.execute(write(index, b"newest!!"))[6:10] == bytes(4)


@pytest.mark.parametrize("writes", range(4))
def test_no_resume_finds_an_extend_that_came_after_the_shutdown(tpm, writes):
    client = TpmClient(tpm.execute)
    client.pcr_extend(7, {SHA256: b"x" * 32})
    client.shutdown(TPM_SU.STATE)
    before = tpm.pcrs.values[SHA256][7]
    faulty = FaultyTpm(tpm, (Fault(kind="power_loss", command="PCR_Extend", writes=writes),))
    with pytest.raises(FormatError):
        extend(faulty)
    try:
        client.startup(TPM_SU.STATE)
    except TpmError:
        client.startup()
        before = bytes(32)
    assert tpm.pcrs.values[SHA256][7] == before


def test_what_is_lost_with_the_power_names_attributes_of_a_tpm(tpm):
    assert set(vars(tpm)) >= LOST_WITH_POWER


@pytest.mark.parametrize(
    ("keys", "path", "nearest"),
    [
        ({"kind": "strange"}, "kind", None),
        ({"kind": "fial"}, "kind", "fail"),
        ({"kind": "fail", "first": 0}, "first", None),
        ({"kind": "fail", "count": 0}, "count", None),
        ({"kind": "fail", "command": "PCR_Extned"}, "command", "PCR_Extend"),
        ({"kind": "fail", "command": "TPM2_Qoute"}, "command", "Quote"),
        ({"kind": "fail", "rc": 0}, "rc", None),
        ({"kind": "fail", "rc": "TPM_RC_FALURE"}, "rc", "FAILURE"),
        ({"kind": "fail", "rc": "SUCCESS"}, "rc", None),
        ({"kind": "fail", "handle": -1}, "handle", None),
        ({"kind": "delay"}, "delay", None),
        ({"kind": "retry", "delay": "1s"}, "delay", None),
        ({"kind": "retry", "rc": 5}, "rc", None),
        ({"kind": "drop", "writes": 1}, "writes", None),
        ({"kind": "power_loss", "writes": -1}, "writes", None),
        ({"kind": "fail", "comand": "Quote"}, "comand", "command"),
    ],
)
def test_a_plan_is_checked_at_its_key(keys, path, nearest):
    with pytest.raises(ScenarioError) as caught:
        structure(keys, Fault)
    assert (caught.value.path, caught.value.nearest) == (path, nearest)


def test_commands_and_codes_have_names():
    assert command_code("TPM2_PCR_Extend") == command_code("PCR_Extend") == EXTEND
    assert command_name(EXTEND) == "PCR_Extend"
    assert command_name(0x999) == "0x999"
    assert Fault(kind="fail", rc="TPM_RC_RETRY").rc_value == TPM_RC.RETRY
    assert Fault(kind="fail").rc_value == TPM_RC.FAILURE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("PCR_Extend=retry", Fault(kind="retry", command="PCR_Extend")),
        ("PCR_Extend#3=fail:0x101", Fault(kind="fail", command="PCR_Extend", first=3, rc=0x101)),
        (
            "TPM2_Quote#2-4=fail:TPM_RC_RETRY",
            Fault(kind="fail", command="TPM2_Quote", first=2, count=3, rc="TPM_RC_RETRY"),
        ),
        ("Quote=delay:200ms", Fault(kind="delay", command="Quote", delay_ns=200_000_000)),
        ("Quote=delay:7", Fault(kind="delay", command="Quote", delay_ns=7)),
        ("*#9-=drop", Fault(kind="drop", first=9, count=OCCURRENCES_MAX - 8)),
        ("PCR_Extend@12#2=lose_answer", Fault(kind="lose_answer", command="PCR_Extend", handle=12, first=2)),
        (
            "NV_Write@0x1500001=power_loss:1",
            Fault(kind="power_loss", command="NV_Write", handle=0x1500001, writes=1),
        ),
    ],
)
def test_a_fault_is_read_from_one_word(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "--fault"),
        ("PCR_Extend", "--fault"),
        ("PCR_Extend#x=fail", "--fault"),
        ("PCR_Extend=retry:1", "--fault"),
        ("PCR_Extend#3-2=fail", "--fault.count"),
        ("PCR_Extend=delay:soon", "--fault.delay"),
        ("PCR_Extend=power_loss:x", "--fault.writes"),
        ("PCR_Extend=fail:x", "--fault.rc"),
        ("Extend=fail", "--fault.command"),
    ],
)
def test_a_wrong_word_is_refused_at_its_place(text, path):
    with pytest.raises(ScenarioError) as caught:
        parse_fault(text, "--fault")
    assert caught.value.path == path
