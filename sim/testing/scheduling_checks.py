"""The 18 invariants of CPU scheduling, as checks of any policy.

| number | claim | function | plans |
|---|---|---|---|
| P1 | time conservation | `check_time_conservation` | any |
| P2 | work conservation | `check_work_conservation` | crowd |
| P3 | lag | `check_lag` | busy |
| P4 | reservation | `check_reservation` | mixed |
| P5 | limit | `check_limit` | any |
| P6 | no starvation | `check_no_starvation` | busy |
| P7 | monotone | `check_monotone` | busy |
| P8 | hierarchical isolation | `check_pool_isolation` | pools |
| P9 | skew | `check_skew` | any |
| P10 | charge | `check_charge` | any |
| P11 | determinism | `check_schedule_determinism` | any |
| P12 | scaling | `check_scaling` | steady |
| P13 | idle irrelevance | `check_idle_irrelevance` | plain |
| P14 | bounded sleep credit | `check_sleep_credit` | sleep |
| P15 | legal transitions | `check_transitions` | any |
| P16 | splitting and growing | `check_split_and_growth` | busy |
| P17 | fluid cross-check | `check_fluid` | bounded |
| P18 | audit | `check_audit` | any |

Each raises `SchedulingViolation`, whose text names world, time and figures, and is otherwise silent.  `judge` plays
plans and applies the checks by number, `find_scheduling_violation` searches for a plan that breaks one and shrinks it.

Leaves out: policies whose aim is another one; say which numbers yours promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from attrs import field, frozen
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.configuration import set_hypothesis_home_dir, storage_directory
from hypothesis.errors import NoSuchExample

from sim.errors import VmksimError
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.testing.scheduling import sched_plans
from sim.testing.scheduling_books import (
    check_audit,
    check_charge,
    check_limit,
    check_skew,
    check_time_conservation,
    check_transitions,
)
from sim.testing.scheduling_host import MakePolicy, TestHost, play
from sim.testing.scheduling_idle import check_work_conservation
from sim.testing.scheduling_plan import SchedPlan
from sim.testing.scheduling_runs import (
    check_idle_irrelevance,
    check_monotone,
    check_pool_isolation,
    check_scaling,
    check_schedule_determinism,
    check_split_and_growth,
)
from sim.testing.scheduling_shares import (
    check_fluid,
    check_lag,
    check_no_starvation,
    check_reservation,
    check_sleep_credit,
)
from sim.testing.scheduling_violation import NAMES, SchedulingViolation

__all__ = ["CHECKS", "Check", "SchedulingFinding", "find_scheduling_violation", "judge"]


@frozen(kw_only=True)
class Check:
    """One invariant: the family of plans it is meant for, and a function of a host, or of a plan and a policy."""

    number: int
    family: str
    of_host: Callable[[TestHost], None] | None = field(default=None)
    of_runs: Callable[[SchedPlan, MakePolicy], None] | None = field(default=None)

    @property
    def name(self) -> str:
        """The claim in short."""
        return NAMES[self.number]


CHECKS = {
    check.number: check
    for check in (
        Check(number=1, family="any", of_host=check_time_conservation),
        Check(number=2, family="crowd", of_host=check_work_conservation),
        Check(number=3, family="busy", of_host=check_lag),
        Check(number=4, family="mixed", of_host=check_reservation),
        Check(number=5, family="any", of_host=check_limit),
        Check(number=6, family="busy", of_host=check_no_starvation),
        Check(number=7, family="busy", of_runs=check_monotone),
        Check(number=8, family="pools", of_runs=check_pool_isolation),
        Check(number=9, family="any", of_host=check_skew),
        Check(number=10, family="any", of_host=check_charge),
        Check(number=11, family="any", of_runs=check_schedule_determinism),
        Check(number=12, family="steady", of_runs=check_scaling),
        Check(number=13, family="plain", of_runs=check_idle_irrelevance),
        Check(number=14, family="sleep", of_host=check_sleep_credit),
        Check(number=15, family="any", of_host=check_transitions),
        Check(number=16, family="busy", of_runs=check_split_and_growth),
        Check(number=17, family="bounded", of_host=check_fluid),
        Check(number=18, family="any", of_host=check_audit),
    )
}
"""The invariants by number."""


def judge(plan: SchedPlan, make: MakePolicy = EsxiPolicy, *, numbers: Iterable[int] = CHECKS) -> None:
    """Play a plan under a policy and apply those of the checks that are meant for it; raises `SchedulingViolation`."""
    host: TestHost | None = None
    for number in numbers:
        check = CHECKS[number]
        if check.of_host is not None:
            host = play(plan, make) if host is None else host
            check.of_host(host)
        elif check.of_runs is not None:
            check.of_runs(plan, make)


@frozen(kw_only=True)
class SchedulingFinding:
    """A broken invariant, and the smallest plan found that breaks it."""

    violation: SchedulingViolation
    plan: SchedPlan

    def __str__(self) -> str:
        return f"{self.plan}\n{self.violation}"


def find_scheduling_violation(
    make: MakePolicy, number: int, *, examples: int = 200
) -> SchedulingFinding | None:
    """Search for a plan under which a policy breaks an invariant, and shrink it; the same search every time.

    Errors of the policy itself pass through.  None is no proof.
    """

    def broken(plan: SchedPlan) -> bool:
        try:
            judge(plan, make, numbers=(number,))
        except SchedulingViolation as violation:
            return violation.number == number
        return False

    plan_of_search = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        with _files_elsewhere():
            smallest = find(sched_plans(CHECKS[number].family), broken, settings=plan_of_search)
    except NoSuchExample:
        return None
    try:
        judge(smallest, make, numbers=(number,))
    except SchedulingViolation as violation:
        return SchedulingFinding(violation=violation, plan=smallest)
    raise VmksimError(f"P{number} was broken once and is not any more: the policy is not deterministic")


@contextmanager
def _files_elsewhere() -> Iterator[None]:
    """Let Hypothesis keep its files where they vanish, instead of the folder in which a script happens to run."""
    before = storage_directory("examples", intent_to_write=False).path.parent
    with TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(before)
