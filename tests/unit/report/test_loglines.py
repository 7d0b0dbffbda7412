from sim.core.context import Sim
from sim.report.loglines import log_lines


def test_kernel_lines_carry_cpu_and_world_and_others_their_source():
    sim = Sim()
    sim.log("mboot", "Loading /k.b00")
    sim.engine.run(9_404_999_999)
    sim.log("vmkernel", "Loading module ionic_en ...", cpu=3, world=1001390391)
    assert list(log_lines(sim.trace.sink(), "2020-04-30T00:55:00+00:00")) == [
        "2020-04-30T00:55:00.000Z mboot: Loading /k.b00",
        "2020-04-30T00:55:09.404Z cpu3:1001390391)Loading module ionic_en ...",
    ]


def test_an_epoch_of_another_zone_is_shown_as_utc():
    sim = Sim()
    sim.log("vmkernel", "x")
    (line,) = log_lines(sim.trace.sink(), "2026-01-01T02:00:00+02:00")
    assert line.startswith("2026-01-01T00:00:00.000Z ")


def test_a_trace_without_a_log_has_no_lines():
    assert list(log_lines(Sim().trace.sink(), "2026-01-01T00:00:00+00:00")) == []
