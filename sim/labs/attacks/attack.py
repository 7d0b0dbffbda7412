"""What an attack is, against what it is tried, and how its rate is measured.

Models: a setting (a release's profile, and the kernel's own defences on or off), one attempt against it with a stream
of its own, and the comparison of many attempts with a formula.

Leaves out: what an attacker does after success.  Sources: the attacks name theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from attrs import field, frozen

from sim.core.rng import Rng
from sim.hw.mmu import GeneralProtection, PageFault
from sim.kernel.layout import ReleaseProfile
from sim.labs.attacks.binomial import mean_agrees, rate_agrees

__all__ = ["Attack", "AttackResult", "Setting", "Trial", "in_words", "run_attack"]


@frozen(kw_only=True)
class Setting:
    """What is attacked: processes placed by `release`, and whether the defence that the attack is about is on.

    `crashes_max` is after how many crashes a defended service stays down; `spray_pages` is what a spray may fill.
    """

    release: ReleaseProfile
    defended: bool
    crashes_max: int = 3
    spray_pages: int = 16

    @property
    def library_slots(self) -> int:
        """The number of bases that a library may have."""
        return self.release.user.window("library").offsets[0].slots

    @property
    def heap_slots(self) -> int:
        """The number of bases that a heap may have behind the program."""
        return self.release.user.window("heap").offsets[0].slots


@frozen(kw_only=True)
class Trial:
    """How one attempt ended: whether it got what it wanted, after how many tries, and what was seen."""

    success: bool
    seen: str
    tries: int = 1


@frozen(kw_only=True)
class Attack:
    """A row of the table: what it needs, what stops it, one attempt, and the probability that the attempt succeeds.

    With `tries_expected` attempts go on until they succeed, and the mean number of tries is compared too: among at
    most `places` of them without repeats, or, where that is None, each with the same chance.
    """

    name: str
    needs: str
    stopped_by: str
    attempt: Callable[[Setting, Rng], Trial] = field(repr=False)
    expected: Callable[[Setting], Fraction] = field(repr=False)
    tries_expected: Callable[[Setting], Fraction | None] | None = field(default=None, repr=False)
    without_repeats: bool = False
    off: str = "nothing"
    """What is attacked when the defence is off: "nothing" is the profile `none`, "reduced" the lab's with few bits."""
    only_in_lab: bool = False
    """Whether no profile has the defence, so that it is off under each of them."""


@frozen(kw_only=True)
class AttackResult:
    """Many attempts at once; `seen` is what the first one saw, `agrees` that the formula explains the count."""

    name: str
    defended: bool
    trials: int
    successes: int
    seen: str
    expected: Fraction
    tries_mean: Fraction | None
    tries_expected: Fraction | None
    agrees: bool

    @property
    def measured(self) -> Fraction:
        """The share of attempts that succeeded."""
        return Fraction(self.successes, self.trials)


def run_attack(attack: Attack, setting: Setting, *, trials: int, seed: int = 0) -> AttackResult:
    """Try an attack `trials` times, each time against a system of its own, and compare with its formula."""
    rng = Rng(seed).child(f"attack/{attack.name}/{'on' if setting.defended else 'off'}")
    outcomes = [attack.attempt(setting, rng.child(str(number))) for number in range(trials)]
    successes = sum(outcome.success for outcome in outcomes)
    tries = sum(outcome.tries for outcome in outcomes)
    expected = attack.expected(setting)
    wanted = attack.tries_expected(setting) if attack.tries_expected is not None else None
    agrees = rate_agrees(successes, trials, expected)
    if wanted is not None and attack.without_repeats:
        agrees = agrees and mean_agrees(tries, trials, wanted, setting.library_slots - 1)
    elif wanted is not None:
        agrees = agrees and rate_agrees(successes, tries, 1 / wanted)
    return AttackResult(
        name=attack.name,
        defended=setting.defended,
        trials=trials,
        successes=successes,
        seen=outcomes[0].seen,
        expected=expected,
        tries_mean=Fraction(tries, trials) if wanted is not None else None,
        tries_expected=wanted,
        agrees=agrees,
    )


def in_words(outcome: object) -> str:
    """Say how an access ended: "#PF 21", "#GP" or "granted"."""
    if isinstance(outcome, PageFault):
        return f"#PF {outcome.error_code}"
    return "#GP" if isinstance(outcome, GeneralProtection) else "granted"
