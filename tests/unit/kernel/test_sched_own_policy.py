"""A policy in a user's own file: named by its content, run once, and refused in one line when it is wrong."""

import pickle
import sys
import traceback

import pytest

from sim.core.context import Sim
from sim.core.structure import FieldError
from sim.core.units import MS
from sim.errors import ScenarioError
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.own_policy import MODULE_PREFIX, install, module_name
from sim.kernel.sched.policy import make_policy
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy

SOURCE = b"""
from sim.kernel.sched.policies.round_robin import RoundRobin

RUNS = []
RUNS.append(1)

class Last(RoundRobin):
    name = "last"

    def pick(self, pcpu, now_ns):
        for world in reversed(self._queue.values()):
            if world.may_run_on(pcpu):
                self.dequeue(world)
                return world
        return None

class Broken(Last):
    def pick(self, pcpu, now_ns):
        return 1 // 0

class Refusing(Last):
    def __init__(self):
        raise ValueError("no")

NUMBER = 5
"""


def host(policy, cpus=1):
    topology = Topology.of(CpuSpec(cores_per_node=cpus))
    sched = Scheduler(Sim(), topology, SchedOptions(quantum_ns=MS, policy=policy))
    worlds = [sched.add(f"w{index}", Busy()) for index in range(3)]
    for world in worlds:
        sched.allocate(world, shares=1000)
        sched.begin(world)
    return sched, worlds


def test_a_source_becomes_a_module_named_by_its_content_and_runs_once():
    name = install(SOURCE, "mine.py")
    assert name == module_name(SOURCE) == install(SOURCE, "elsewhere/other.py")
    assert name.startswith(MODULE_PREFIX)
    assert sys.modules[name].RUNS == [1]
    assert module_name(SOURCE + b"#") != name


def test_it_schedules_and_pickles_like_a_policy_that_ships():
    sched, worlds = host(f"{install(SOURCE, 'mine.py')}:Last")
    sched.sim.engine.run(10 * MS)
    assert sched.policy.name == "last"
    assert worlds[0].run_ns == 0 or worlds[1].run_ns == 0, "who came last goes on"
    copy = pickle.loads(pickle.dumps(sched))
    copy.sim.engine.run(20 * MS)
    sched.sim.engine.run(20 * MS)
    assert copy.sim.trace.digest() == sched.sim.trace.digest()


def test_a_traceback_shows_file_and_line_of_the_policy():
    sched, _ = host(f"{install(SOURCE, 'mine.py')}:Broken")
    with pytest.raises(ZeroDivisionError) as caught:
        sched.sim.engine.run(10 * MS)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno, last.name) == ("mine.py", 19, "pick")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (b"def", "SyntaxError"),
        (b"import no_such_module_anywhere", "ModuleNotFoundError"),
        (b"raise SystemExit(3)", "SystemExit"),
        (b"\xff\xfe", "UnicodeDecodeError"),
        (b"x = 1\0", "mine.py"),
    ],
)
def test_a_source_that_does_not_run_is_refused_and_leaves_no_module(source, why):
    with pytest.raises(ScenarioError, match=why) as caught:
        install(source, "mine.py")
    assert caught.value.path == "sched.policy"
    assert module_name(source) not in sys.modules


@pytest.mark.parametrize(
    ("attribute", "why"),
    [("NUMBER", "is not a Policy"), ("Missing", "cannot be found"), ("Refusing", "cannot be found: no")],
)
def test_what_is_no_policy_is_refused(attribute, why):
    with pytest.raises(ScenarioError, match=why):
        make_policy(f"{install(SOURCE, 'mine.py')}:{attribute}")


def test_a_module_that_was_never_installed_is_not_found():
    with pytest.raises(ScenarioError, match="cannot be found"):
        make_policy(f"{module_name(b'never')}:Last")


@pytest.mark.parametrize("name", ["./mine.py:Last", "/mine.py:Last", "../mine.py:Last", "a/b:C"])
def test_options_cannot_name_a_file(name):
    """Only the reader of a person's own scenario turns a file into a module; whatever else sets options cannot."""
    with pytest.raises(FieldError, match="or module:Class"):
        SchedOptions(policy=name)
