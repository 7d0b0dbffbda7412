import pytest
from attrs import evolve

from sim.core.context import Sim
from sim.report.run_report import (
    attestation_section,
    boot_section,
    cpu_section,
    expectation_section,
    log_section,
    module_section,
    pcr_section,
    run_sections,
)
from sim.scenario.result import (
    AttestationResult,
    BootResult,
    CpuRow,
    ExpectationResult,
    ModuleRow,
    PcpuRow,
    ReasonRow,
    RunResult,
)

ZERO, ONES = "00" * 32, "ff" * 32
RESULT = RunResult(
    scenario_id="ab",
    name="demo",
    seed=7,
    version="0.1",
    digest="cd",
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
        finished_ns=9_300_000_000,
    ),
    pcrs={"sha1": {}, "sha256": {"0": "ab" * 32, "1": ZERO, "2": ZERO, "9": ZERO, "17": ONES, "18": ONES}},
    modules=(
        ModuleRow(
            id=1,
            name="nvme",
            file="nvme.v00",
            vib="v",
            version="1",
            base=0x418000000000,
            size_bytes=8192,
            provider="",
            acceptance_level="CommunitySupported",
            signed_status="Unsigned",
        ),
    ),
    modules_refused=("evil",),
    vms=(
        CpuRow(
            name="web",
            powered_on=True,
            vcpus=2,
            worlds=3,
            shares_per_vcpu=1000,
            reservation_hz=500_000_000,
            limit_hz=None,
            alive_ns=3_000_000_000,
            used_ns=1_200_000_000,
            run_ns=1_000_000_000,
            ready_ns=500_000_000,
            max_limited_ns=500_000_000,
            costop_ns=0,
            idle_ns=6_000_000_000,
            wait_ns=7_000_000_000,
        ),
    ),
    pcpus=(PcpuRow(index=0, busy_ns=3, switch_ns=1, idle_ns=4),),
    attestation=AttestationResult(status="accepted"),
    expectation=ExpectationResult(met=True),
)


def test_neighbouring_pcrs_of_equal_value_share_a_line():
    section = pcr_section(RESULT)
    assert section.table is not None
    assert section.table.rows == (
        ("0", "ab" * 32),
        ("1-2", ZERO),
        ("9", ZERO),
        ("17-18", ONES),
    )
    assert section.notes == ("also in result.json: sha1",)


def test_the_cpu_table_keeps_the_identities_of_esxtop():
    section = cpu_section(RESULT)
    assert section.table is not None
    names = [column.name for column in section.table.columns]
    row = dict(zip(names, section.table.rows[0], strict=True))
    assert row["SHARES"] == "2000"
    assert (row["RES MHz"], row["LIM MHz"]) == ("500", "-")
    assert (row["%RUN"], row["%RDY"], row["%MLMTD"]) == ("33.33", "33.33", "16.67")
    assert row["%USED"] == "40.00"
    total = sum(float(row[name]) for name in ("%RUN", "%RDY", "%WAIT", "%CSTP"))
    assert total == pytest.approx(300, abs=0.05)
    assert section.notes == ("1 pCPUs, 37.50 % busy on average",)


def test_the_module_table_shows_who_vouches_and_what_was_refused():
    section = module_section(RESULT)
    assert section.table is not None
    assert section.table.rows[0][3:] == ("0x0000418000000000", "8 KiB", "-", "CommunitySupported", "Unsigned")
    assert section.notes == ("refused: evil",)


def test_the_boot_says_how_long_it_took_or_what_refused_it():
    assert boot_section(RESULT).lines[0] == "ok, in 9.3 s of simulated time"
    boot = evolve(RESULT.boot, state="refused", stage="secureboot", component="x.v00", message="no")
    section = boot_section(evolve(RESULT, boot=boot))
    assert section.lines[:2] == ("refused at secureboot: x.v00", "no")
    assert section.mood == "bad"


def test_a_boot_that_still_goes_on_is_not_called_refused():
    boot = evolve(RESULT.boot, state="booting", boots=2)
    assert boot_section(evolve(RESULT, boot=boot)).lines[0] == "booting when the run ended"


def test_the_verdict_lists_its_reasons():
    verdict = AttestationResult(
        status="notAccepted",
        message="a; b",
        reasons=(ReasonRow(code="x", message="a"), ReasonRow(code="y", message="b")),
    )
    section = attestation_section(evolve(RESULT, attestation=verdict))
    assert section.lines == ("notAccepted: a; b", "  x: a", "  y: b")


def test_an_expectation_that_was_not_met_says_in_what():
    outcome = evolve(RESULT, expectation=ExpectationResult(met=False, differences=("boot: no",)))
    assert expectation_section(outcome).lines == ("not met:", "boot: no")


def test_a_long_log_keeps_its_ends_and_every_line_of_trouble():
    sim = Sim()
    for number in range(100):
        sim.log("vmkernel", f"Error in line {number}" if number == 50 else f"line {number}")
    lines = log_section(RESULT, sim.trace.sink(), 10).lines
    texts = [line.rpartition(")")[2] for line in lines]
    assert texts == [
        *(f"line {number}" for number in range(6)),
        "  ... 44 more lines ...",
        "Error in line 50",
        "  ... 45 more lines ...",
        *(f"line {number}" for number in range(96, 100)),
    ]
    assert len(log_section(RESULT, sim.trace.sink(), None).lines) == 100


def test_without_a_trace_the_report_has_everything_but_the_log():
    titles = [section.title for section in run_sections(RESULT, None)]
    assert titles == ["Boot", "PCRs", "Modules", "CPU", "Attestation", "Expectation"]
