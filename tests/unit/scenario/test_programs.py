"""Programs that a scenario starts: what is written, where the bytes come from, and what comes of them."""

import pytest
from attrs import evolve

from sim.core.units import SECOND
from sim.errors import ScenarioError
from sim.scenario.load import load_scenario, parse_scenario
from sim.scenario.run import Simulation, boot_only

HEAD = """
duration = "3s"
[host]
memory = "1GiB"
[image]
modules = 2
module_size = "1KiB"
"""
SHELL = "[[programs]]\npath = 'bin/sh'\nat = '1s'\n"
COPY = "[[programs]]\npath = 'tmp/implant'\ncopy_of = 'bin/sh'\nat = '2s'\n"
ON = "[options]\nexecInstalledOnly = true\n"


def run(text, **changes):
    simulation = Simulation(evolve(parse_scenario(HEAD + text), **changes))
    return simulation, simulation.finish()


def outcomes(simulation):
    return [
        (row["path"], row["outcome"], row["check"]) for row in simulation.sim.trace.select("exec.program")
    ]


def steps(simulation):
    return [(row["what"], row["detail"]) for row in simulation.sim.trace.select("scenario.step")]


def test_an_installed_program_runs_and_a_copy_of_it_is_refused_at_their_times():
    simulation, result = run(ON + SHELL + COPY)
    assert outcomes(simulation) == [
        ("bin/sh", "installed", ""),
        ("tmp/implant", "refused", "exec.not-installed"),
    ]
    times = [
        row["time_ns"] - simulation.first_ready_ns for row in simulation.sim.trace.select("exec.program")
    ]
    assert [time // SECOND for time in times] == [1, 2]
    assert sorted(simulation.host.kernel.user_worlds.running) == ["hostd", "sh", "vpxa"]
    assert steps(simulation)[:2] == [("run program", "bin/sh"), ("run program", "tmp/implant")]
    assert steps(simulation)[2][0] == "program refused"
    (difference,) = result.expectation.differences
    assert difference.startswith("program tmp/implant was refused: ")
    assert "tmp/implant: no installed VIB holds it" in difference
    simulation.check_invariants()


def test_without_the_option_both_run_and_the_log_says_which_is_not_installed():
    simulation, result = run(SHELL + COPY)
    assert outcomes(simulation) == [
        ("bin/sh", "installed", ""),
        ("tmp/implant", "allowed", "exec.not-installed"),
    ]
    assert {"sh", "implant"} <= set(simulation.host.kernel.user_worlds.running)
    assert result.expectation.met


def test_what_should_be_refused_is_part_of_what_is_expected():
    _, result = run(ON + COPY + "[expect]\nprograms_refused = ['tmp/implant']\n")
    assert result.expectation.met
    _, result = run(ON + SHELL + "[expect]\nprograms_refused = ['bin/sh']\n")
    assert result.expectation.differences == ("program bin/sh was not refused",)


def test_bytes_from_a_file_are_judged_by_what_is_installed_and_decide_the_id(tmp_path):
    path = tmp_path / "s.toml"
    ids = []
    for data in (b"\x7fELF once", b"\x7fELF twice"):
        (tmp_path / "tool").write_bytes(data)
        path.write_text(HEAD + ON + "[[programs]]\npath = 'bin/sh'\nfile = 'tool'\nat = '1s'\n")
        ids.append(load_scenario(path).id)
    assert ids[0] != ids[1]
    simulation = Simulation(load_scenario(path))
    simulation.finish()
    assert outcomes(simulation) == [("bin/sh", "refused", "exec.bytes")]


def test_what_is_no_program_at_all_is_a_refusal_too(tmp_path):
    (tmp_path / "tool").write_bytes(b"#!/bin/sh\n")
    scenario = parse_scenario(
        HEAD + "[[programs]]\npath = 'tmp/x'\nfile = 'tool'\nat = '1s'\n", folder=tmp_path
    )
    simulation = Simulation(scenario)
    (difference,) = simulation.finish().expectation.differences
    assert outcomes(simulation) == [("tmp/x", "allowed", "exec.not-installed")]
    assert difference.startswith("program tmp/x was refused: ELF")


def test_a_program_that_runs_is_not_started_again():
    _, result = run(SHELL + SHELL)
    assert result.expectation.differences == ("program bin/sh was refused: bin/sh runs already",)


def test_a_host_that_does_not_run_starts_nothing():
    simulation, _ = run(SHELL + "[[faults]]\nkind = 'reboot'\nat = '500ms'\n")
    assert outcomes(simulation) == []
    assert simulation.refused_programs == [("bin/sh", "host esx01 is booting")]


def test_a_checkpoint_between_two_programs_changes_nothing(tmp_path):
    simulation, result = run(ON + SHELL + COPY)
    again = Simulation(simulation.scenario)
    again.run(simulation.first_ready_ns + SECOND + SECOND // 2)
    again.save(tmp_path / "c")
    assert Simulation.restore(tmp_path / "c").finish() == result


def test_a_boot_alone_runs_no_program():
    cut = boot_only(parse_scenario(HEAD + ON + COPY + "[expect]\nprograms_refused = ['tmp/implant']\n"))
    assert (cut.programs, cut.expect.programs_refused) == ((), ())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[[programs]]\npath = 'bin/sh'\n", "programs[0].at"),
        ("[[programs]]\nat = '1s'\n", "programs[0].path"),
        ("[[programs]]\npath = '/bin/sh'\nat = '1s'\n", "programs[0].path"),
        ("[[programs]]\npath = 'bin/../sh'\nat = '1s'\n", "programs[0].path"),
        ("[[programs]]\npath = ''\nat = '1s'\n", "programs[0].path"),
        ("[[programs]]\npath = 'bin/sh'\nat = '4s'\n", "programs"),
        ("[[programs]]\npath = 'bin/sh'\nat = '1s'\ncopy_of = '../sh'\n", "programs[0].copy_of"),
        ("[[programs]]\npath = 'bin/sh'\nat = '1s'\nfile = 3\n", "programs[0].file"),
        ("[[programs]]\npath = 'bin/sh'\nat = '1s'\nfile = 'none'\n", "programs[0].file"),
        ("[[programs]]\npath = 'bin/sh'\nat = '1s'\nfile = '/dev/zero'\n", "programs[0].file"),
        ("programs = 3\n", "programs"),
    ],
)
def test_a_program_that_makes_no_sense_is_refused_at_its_key(text, where):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text + HEAD if text.startswith("programs =") else HEAD + text, "s.toml")
    assert caught.value.path == f"s.toml: {where}"


def test_bytes_come_from_the_image_or_from_a_file_not_from_both(tmp_path):
    (tmp_path / "tool").write_bytes(b"\x7fELF")
    text = HEAD + "[[programs]]\npath = 'bin/x'\nat = '1s'\nfile = 'tool'\ncopy_of = 'bin/sh'\n"
    with pytest.raises(ScenarioError, match="either copy_of or file"):
        parse_scenario(text, folder=tmp_path)


@pytest.mark.parametrize(
    ("program", "where", "near"),
    [
        ("path = 'bin/shh'", "programs[0].path", "bin/sh"),
        ("path = 'tmp/x'\ncopy_of = 'bin/hotsd'", "programs[0].copy_of", "bin/hostd"),
        ("path = 'etc/profile'", "programs[0].path", None),
    ],
)
def test_a_program_that_is_not_installed_has_no_bytes_of_its_own(program, where, near):
    with pytest.raises(ScenarioError) as caught:
        run(f"[[programs]]\n{program}\nat = '1s'\n")
    assert caught.value.path == where
    assert near is None or caught.value.nearest == near
