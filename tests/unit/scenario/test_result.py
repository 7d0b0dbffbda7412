import json

import pytest
from attrs import evolve

from sim.errors import FormatError
from sim.scenario.result import (
    EVENT_LOG_FILE,
    RESULT_FILE,
    AttestationResult,
    BootResult,
    CpuRow,
    ExpectationResult,
    ModuleRow,
    PcpuRow,
    ReasonRow,
    RunResult,
    read_result,
    write_result,
)

RESULT = RunResult(
    scenario_id="ab" * 32,
    name="demo",
    seed=7,
    version="0.1",
    digest="cd" * 32,
    records=12,
    epoch="2026-01-01T00:00:00+00:00",
    simulated_ns=10**10,
    boot=BootResult(
        state="ok",
        host="esx01",
        boots=1,
        secure_boot=True,
        tpm="enabled",
        drtm=False,
        started_ns=0,
        finished_ns=9 * 10**9,
    ),
    pcrs={"sha256": {"0": "00" * 32, "17": "ff" * 32}},
    event_log_file=EVENT_LOG_FILE,
    event_log=b"\x00\x01",
    modules=(
        ModuleRow(
            id=1,
            name="nvme",
            file="nvme.v00",
            vib="V_bootbank_nvme_1",
            version="1",
            base=0x418000000000,
            size_bytes=4096,
            provider="VMware",
            acceptance_level="VMwareCertified",
            signed_status="verified",
        ),
    ),
    vms=(
        CpuRow(
            name="web",
            powered_on=True,
            vcpus=1,
            worlds=2,
            shares_per_vcpu=1000,
            reservation_hz=0,
            limit_hz=None,
            alive_ns=10**9,
            used_ns=300000000,
            run_ns=333_333_333,
            ready_ns=600_000_000,
            costop_ns=0,
            max_limited_ns=0,
            wait_ns=66_666_667,
            idle_ns=66_666_667,
        ),
    ),
    pcpus=(PcpuRow(index=0, busy_ns=3, switch_ns=1, idle_ns=1),),
    attestation=AttestationResult(
        status="notAccepted",
        message="m",
        reasons=(ReasonRow(code="c", message="m", component="nvme"),),
        time_ns=5,
    ),
    metrics={"a": {"kind": "counter", "count": 1}},
    expectation=ExpectationResult(met=False, differences=("d",)),
)


def test_a_result_survives_its_files(tmp_path):
    write_result(RESULT, tmp_path)
    assert read_result(tmp_path) == RESULT
    assert sorted(path.name for path in tmp_path.iterdir()) == [EVENT_LOG_FILE, RESULT_FILE]


def test_the_json_is_canonical_and_names_the_event_log_instead_of_holding_it():
    text = RESULT.to_json()
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, indent=1) + "\n"
    assert data["event_log_file"] == EVENT_LOG_FILE
    assert "event_log" not in data


def test_a_result_without_event_log_writes_no_such_file(tmp_path):
    write_result(evolve(RESULT, event_log_file=None, event_log=b""), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RESULT_FILE]
    assert read_result(tmp_path).event_log == b""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"schema": 1}',
        '{"schema": 2}',
        '{"schema": 2, "event_log_file": "../../etc/passwd"}',
    ],
)
def test_what_is_not_a_result_is_a_format_error(tmp_path, text):
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(FormatError, match="result"):
        read_result(tmp_path)


def test_a_folder_without_result_is_a_format_error(tmp_path):
    with pytest.raises(FormatError):
        read_result(tmp_path)
