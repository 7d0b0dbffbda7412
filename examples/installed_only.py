"""Does execInstalledOnly stop a program that nobody installed, and what does a host without it do?  See the table."""

from pathlib import Path

from attrs import evolve

from sim import Scenario, Simulation

PROGRAMS = Scenario.load(Path(__file__).with_name("programs.toml"))


def run(*, enforced):
    """Yield what the kernel said of each program: path, outcome, and the check that it failed."""
    scenario = evolve(PROGRAMS, options={"execInstalledOnly": enforced})
    simulation = Simulation(scenario)
    simulation.finish()
    running = simulation.host.kernel.user_worlds.running
    for row in simulation.sim.trace.select("exec.program"):
        runs = row["path"].rpartition("/")[2] in running
        yield row["path"], row["outcome"], row["check"] or "-", "runs" if runs else "does not run"


print("execInstalledOnly  program      outcome    check               afterwards")
for enforced in (True, False):
    for path, outcome, check, after in run(enforced=enforced):
        print(f"{'on' if enforced else 'off':<18} {path:<12} {outcome:<10} {check:<19} {after}")
