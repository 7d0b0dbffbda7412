"""Each attack succeeds with its defence off, fails with it on, and as often as its formula says."""

from fractions import Fraction
from math import comb

import pytest
from attrs import evolve

from sim.core.rng import Rng
from sim.errors import ScenarioError
from sim.kernel.layout import RELEASES
from sim.kernel.layout.spec import LayoutSpec
from sim.labs.attacks import (
    ATTACKS,
    Setting,
    attack_named,
    guessing,
    run_attack,
    setting_off,
    setting_on,
    setting_under,
)
from sim.labs.attacks.binomial import mean_agrees, rate_agrees
from sim.labs.attacks.victim import FUNCTION_OFFSET, Victim

# What the first attempt sees, off and on, where chance plays no part: the verdicts of the attack table.
SEEN = {
    "code-injection-stack": ("granted", "#PF 21"),
    "code-injection-heap": ("granted", "#PF 21"),
    "text-overwrite": ("#PF 7, then granted", "#PF 7"),
    "jit-write-then-execute": ("request granted", "request refused"),
    "ret2usr": ("granted", "#PF 17"),
    "user-pointer-read": ("granted", "#PF 1"),
    "user-pointer-write": ("granted", "#PF 3"),
    "wp-off": ("granted, flagged", "#PF 3"),
    "stale-tlb": ("granted before, granted after", "granted before, #PF 7 after"),
}
# Probability of success, off and on, with the lab's 64 bases (1,024 for the defended heap).
CHANCES = {
    "return-to-libc": (Fraction(1), Fraction(1, 64)),
    "rop": (Fraction(1), Fraction(1, 64)),
    "brute-force-fork": (Fraction(1), Fraction(3, 64)),
    "brute-force-exec": (Fraction(1), 1 - Fraction(63, 64) ** 3),
    "leak-then-rop": (Fraction(1), Fraction(1, 64)),
    "partial-overwrite": (Fraction(1, 16), Fraction(1, 4096)),
    "heap-spray": (Fraction(16, 64), Fraction(16, 1024)),
    "page-sharing": (Fraction(1), Fraction(1, 2)),
}
TRIALS = {"brute-force-exec": 150, "partial-overwrite": 400, "return-to-libc": 1500, "heap-spray": 400}


def test_every_attack_is_in_one_of_the_two_tables():
    assert sorted([*SEEN, *CHANCES]) == sorted(ATTACKS)


@pytest.mark.parametrize("name", SEEN)
def test_an_attack_on_rights_always_succeeds_without_its_defence_and_never_with_it(name):
    attack = ATTACKS[name]
    off = run_attack(attack, setting_off(attack), trials=5)
    on = run_attack(attack, setting_on(attack), trials=5)
    assert (off.successes, on.successes) == (5, 0)
    assert (off.seen, on.seen) == SEEN[name]
    assert off.agrees
    assert on.agrees


@pytest.mark.parametrize("name", CHANCES)
def test_an_attack_on_chance_succeeds_as_often_as_its_formula_says(name):
    attack = ATTACKS[name]
    for setting, chance in zip((setting_off(attack), setting_on(attack)), CHANCES[name], strict=True):
        assert attack.expected(setting) == chance
        result = run_attack(attack, setting, trials=TRIALS.get(name, 200), seed=1)
        assert result.agrees, result
        assert result.measured == Fraction(result.successes, result.trials)


def test_a_forking_server_takes_half_of_the_places_and_one_that_is_started_again_all_of_them():
    fork, again = ATTACKS["brute-force-fork"], ATTACKS["brute-force-exec"]
    off = run_attack(fork, setting_off(fork), trials=300, seed=2)
    assert off.tries_expected == Fraction(65, 2)
    assert 28 < off.tries_mean < 37
    anew = run_attack(again, setting_off(again), trials=150, seed=2)
    assert anew.tries_expected == 64
    assert 50 < anew.tries_mean < 80
    assert off.tries_mean < anew.tries_mean


def test_a_forking_server_never_needs_more_tries_than_places():
    attack = ATTACKS["brute-force-fork"]
    tries = [attack.attempt(setting_off(attack), Rng(9).child(str(number))).tries for number in range(200)]
    assert max(tries) <= 64
    assert min(tries) >= 1


def test_the_comparison_notices_a_wrong_formula():
    attack = ATTACKS["heap-spray"]
    wrong = evolve(attack, expected=lambda setting: Fraction(1, 2))
    assert not run_attack(wrong, setting_off(attack), trials=400).agrees
    fork = ATTACKS["brute-force-fork"]
    wrong = evolve(fork, tries_expected=lambda setting: Fraction(setting.library_slots))
    assert not run_attack(wrong, setting_off(fork), trials=400).agrees
    again = ATTACKS["brute-force-exec"]
    wrong = evolve(again, tries_expected=lambda setting: Fraction(setting.library_slots, 2))
    assert not run_attack(wrong, setting_off(again), trials=150).agrees


@pytest.mark.parametrize(("width", "chance"), [(1, Fraction(1)), (2, Fraction(1, 16)), (3, Fraction(1, 64))])
def test_a_partial_overwrite_has_the_unknown_bits_of_its_bytes_against_it(monkeypatch, width, chance):
    monkeypatch.setattr(guessing, "OVERWRITTEN_BYTES", width)
    attack = ATTACKS["partial-overwrite"]
    result = run_attack(attack, setting_off(attack), trials=150)
    assert result.expected == chance  # 8 b - 12 bits, and never more than the 6 of the base
    assert result.agrees


def test_a_leaked_return_address_gives_the_first_library_away():
    victim = Victim(Rng(1).stream("x"), RELEASES["linux-6.x"].user)
    leaked = victim.read_pointer(victim.call_through_stack())
    assert leaked is not None
    assert leaked & ~0xFFF == victim.bases[0] + 0x1000
    assert victim.calls_function(victim.bases[0] + FUNCTION_OFFSET)
    assert not victim.calls_function(victim.bases[0] + FUNCTION_OFFSET + 1)
    assert victim.read_pointer(1 << 46) is None
    before = list(victim.bases)
    victim.exec()
    assert victim.bases != before
    assert not victim.calls_function(before[0] + FUNCTION_OFFSET)


def test_stock_linux_is_open_to_what_its_mprotect_grants_and_to_a_leak():
    release = RELEASES["linux-6.x"]
    outcomes = {
        name: run_attack(ATTACKS[name], setting_under(ATTACKS[name], release), trials=10)
        for name in (
            "text-overwrite",
            "jit-write-then-execute",
            "leak-then-rop",
            "rop",
            "code-injection-heap",
        )
    }
    assert {name: result.successes for name, result in outcomes.items()} == {
        "text-overwrite": 10,
        "jit-write-then-execute": 10,
        "leak-then-rop": 10,
        "rop": 0,
        "code-injection-heap": 0,
    }
    assert outcomes["rop"].expected == Fraction(1, 1 << 28)


@pytest.mark.parametrize("profile", RELEASES)
def test_every_attack_ends_as_expected_under_every_profile(profile):
    for attack in ATTACKS.values():
        result = run_attack(attack, setting_under(attack, RELEASES[profile]), trials=3)
        assert result.agrees, result


def test_more_places_and_fewer_pages_make_a_spray_rarer():
    attack = ATTACKS["heap-spray"]
    release = LayoutSpec(profile="esxi-8.x", exe_bits=0, heap_bits=4).release()
    chances = [
        attack.expected(Setting(release=release, defended=False, spray_pages=pages)) for pages in (1, 4, 8)
    ]
    assert chances == [Fraction(1, 16), Fraction(4, 16), Fraction(8, 16)]


def test_same_seed_same_result_and_an_unknown_attack_is_refused():
    attack = ATTACKS["rop"]
    assert run_attack(attack, setting_on(attack), trials=50, seed=3) == run_attack(
        attack, setting_on(attack), trials=50, seed=3
    )
    assert attack_named("rop") is attack
    with pytest.raises(ScenarioError, match="one of code-injection-stack"):
        attack_named("rowhammer")


@pytest.mark.parametrize("probability", [Fraction(1, 64), Fraction(1, 2), Fraction(9, 10)])
def test_the_interval_is_that_of_the_exact_binomial_tails(probability):
    trials = 60
    for count in range(trials + 1):
        point = [
            comb(trials, number) * probability**number * (1 - probability) ** (trials - number)
            for number in range(trials + 1)
        ]
        tails = (sum(point[: count + 1]), sum(point[count:]))
        assert rate_agrees(count, trials, probability) == (min(tails) * 2 * 10**9 >= 1)


def test_certainty_agrees_with_nothing_but_itself():
    assert rate_agrees(10, 10, Fraction(1))
    assert not rate_agrees(9, 10, Fraction(1))
    assert rate_agrees(0, 10, Fraction(0))
    assert not rate_agrees(1, 10, Fraction(0))
    assert mean_agrees(650, 20, Fraction(65, 2), 63)
    assert not mean_agrees(12_800, 200, Fraction(65, 2), 63)
