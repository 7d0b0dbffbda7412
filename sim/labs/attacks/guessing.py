"""Attacks on addresses: guess one, try many, learn one, overwrite part of one, or fill so much that a guess hits.

Models: an attacker who knows the program and the profile, and lays a copy out for himself; services that fork (and keep
their layout over a crash) or are started again; an administrator who leaves a service down after some crashes.

Leaves out: time; a try is a try.  Sources: Shacham et al., "On the effectiveness of address-space randomization", CCS
2004 (K tries against a service that is laid out anew, (K+1)/2 against one that is not).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import gcd

from attrs import evolve

from sim.core.rng import Rng
from sim.core.units import GIB, PAGE_BYTES
from sim.errors import SimBug
from sim.kernel.layout import Draw, Layout, LayoutProfile, Offset, Window
from sim.kernel.layout.space import draws_of
from sim.labs.attacks.attack import Attack, Setting, Trial, in_words
from sim.labs.attacks.victim import FUNCTION_OFFSET, LIBRARY_BYTES, RETURN_OFFSET, Victim
from sim.labs.process import LabProcess

__all__ = ["GUESSING_ATTACKS"]

OVERWRITTEN_BYTES = 2
SPRAY = b"sprayed!"
APART_BASE = 0x0800_0000_0000
"""Where a defended system puts its second library: no profile uses these addresses."""

APART_SLOTS_MAX = 1 << 20


def return_to_libc(setting: Setting, rng: Rng) -> Trial:
    """Return to system() where it is in the attacker's own copy."""
    victim = Victim(rng.stream("victim"), setting.release.user)
    guess = _own_base(setting, rng) + FUNCTION_OFFSET
    return _guessed(success=victim.calls_function(guess))


def rop(setting: Setting, rng: Rng) -> Trial:
    """Run a chain of gadgets counted from a guessed library base."""
    victim = Victim(rng.stream("victim"), setting.release.user)
    return _guessed(success=victim.follows_chain(_own_base(setting, rng)))


def brute_force_fork(setting: Setting, rng: Rng) -> Trial:
    """Try one base after the other against children of a server that forks: the layout never changes."""
    victim = Victim(rng.stream("victim"), setting.release.user)
    guesses = _candidates(setting, rng)
    for tries, base in enumerate(guesses, 1):
        if victim.follows_chain(base):
            return Trial(success=True, seen="found", tries=tries)
        if tries == _tries_allowed(setting):
            break
    return Trial(success=False, seen="service down", tries=tries)


def brute_force_exec(setting: Setting, rng: Rng) -> Trial:
    """Try against a server that is started again, and laid out anew, after each crash."""
    victim = Victim(rng.stream("victim"), setting.release.user)
    base = _own_base(setting, rng)
    tries = 1
    while not victim.follows_chain(base):
        if tries == (setting.crashes_max if setting.defended else 0):
            return Trial(success=False, seen="service down", tries=tries)
        tries += 1
        victim.exec()
    return Trial(success=True, seen="found", tries=tries)


def leak_then_rop(setting: Setting, rng: Rng) -> Trial:
    """Read a return address off the stack; run a chain in the other library at its distance in the attacker's own copy.

    A defended system gives each library a base of its own: the leak says nothing about it, and the best is to guess.
    """
    profile, kinds = setting.release.user, ("library", "library")
    if setting.defended:
        profile, kinds = _with_a_window_apart(setting), ("library", "apart")
    victim = Victim(rng.stream("victim"), profile, kinds)
    own = Victim(rng.stream("attacker"), profile, kinds)
    leaked = victim.read_pointer(victim.call_through_stack())
    if leaked is None:
        raise SimBug("the leak read nothing")
    base = leaked - RETURN_OFFSET + own.bases[1] - own.bases[0]
    return _guessed(success=victim.follows_chain(own.bases[1] if setting.defended else base, library=1))


def partial_overwrite(setting: Setting, rng: Rng) -> Trial:
    """Overwrite the low two bytes of a saved pointer with those of the target in the attacker's own copy.

    The target is a library's, at a known offset in its page; a defended one lies at a random multiple of 16 bytes.
    """
    process = LabProcess(setting.release, rng.stream("victim"))
    own = LabProcess(setting.release, rng.stream("attacker"))
    target, copy = _target(process, setting), _target(own, setting)
    saved = process.segments["data"]
    process.store(saved, (target ^ 1).to_bytes(8, "little"))
    process.store(saved, copy.to_bytes(8, "little")[:OVERWRITTEN_BYTES])
    return _guessed(success=process.load(saved, 8) == target.to_bytes(8, "little"))


def heap_spray(setting: Setting, rng: Rng) -> Trial:
    """Fill pages of the heap, and use an address in the middle of where heaps may begin."""
    process = LabProcess(setting.release, rng.stream("victim"))
    heap = process.map.heap
    for page in range(_sprayed_bytes(setting) // PAGE_BYTES):
        process.store(heap.base + page * PAGE_BYTES, SPRAY)
    window = setting.release.user.window("heap")
    lowest = process.map.exe.end + window.guard_bytes if window.follows else window.base
    found = process.load(lowest + setting.heap_slots // 2 * window.offsets[0].step_bytes, len(SPRAY))
    return Trial(success=found == SPRAY, seen=in_words(found))


def _guessed(*, success: bool) -> Trial:
    return Trial(success=success, seen="right" if success else "wrong")


def _own_base(setting: Setting, rng: Rng) -> int:
    """Lay the program out as the attacker does for himself, and return where the library came to lie."""
    return Layout(rng.stream("attacker"), setting.release.user).place("library", LIBRARY_BYTES)


def _candidates(setting: Setting, rng: Rng) -> Iterator[int]:
    """Return every base that a library may have, once each, from a random one on."""
    window = setting.release.user.window("library")
    offset = window.offsets[0]
    first = rng.stream("attacker").below(offset.slots)
    for number in range(offset.slots):
        top = window.end - (first + number) % offset.slots * offset.step_bytes
        yield (top - LIBRARY_BYTES) // window.align_bytes * window.align_bytes


def _with_a_window_apart(setting: Setting) -> LayoutProfile:
    profile = setting.release.user
    slots = _slots_apart(setting)
    window = Window(
        kind="apart",
        base=APART_BASE,
        span_bytes=slots * PAGE_BYTES + GIB,
        method="down",
        offsets=(Offset(name="base", slots=slots),),
    )
    return evolve(profile, windows=(*profile.windows, window))


def _slots_apart(setting: Setting) -> int:
    return min(setting.library_slots, APART_SLOTS_MAX)


def _target(process: LabProcess, setting: Setting) -> int:
    if setting.defended:
        return process.map.stack_pointer.address
    return process.segments["library.text"] + FUNCTION_OFFSET


def _sprayed_bytes(setting: Setting) -> int:
    return setting.spray_pages * PAGE_BYTES


def _one_in_k(setting: Setting) -> Fraction:
    return Fraction(1, setting.library_slots)


def _chance_forking(setting: Setting) -> Fraction:
    return min(Fraction(1), Fraction(_tries_allowed(setting), setting.library_slots))


def _chance_exec(setting: Setting) -> Fraction:
    if not setting.defended:
        return Fraction(1)
    return 1 - (1 - _one_in_k(setting)) ** setting.crashes_max


def _tries_allowed(setting: Setting) -> int:
    return setting.crashes_max if setting.defended else setting.library_slots


def _tries_forking(setting: Setting) -> Fraction | None:
    return None if setting.defended else Fraction(setting.library_slots + 1, 2)


def _tries_exec(setting: Setting) -> Fraction | None:
    return None if setting.defended else Fraction(setting.library_slots)


def _chance_after_leak(setting: Setting) -> Fraction:
    return Fraction(1, _slots_apart(setting)) if setting.defended else Fraction(1)


def _chance_partial(setting: Setting) -> Fraction:
    """Return one in the values that the overwritten bits may have, above those that are known."""
    profile = setting.release.user
    if not setting.defended:
        return _one_in_values(draws_of("library", profile.window("library").offsets))
    stack = draws_of("stack", profile.window("stack").offsets)
    return _one_in_values((*stack, *draws_of("stack pointer", profile.stack_pointer)))


def _one_in_values(draws: tuple[Draw, ...]) -> Fraction:
    """Return the probability that two sums of these uniform draws agree in the overwritten bytes."""
    size = 1 << 8 * OVERWRITTEN_BYTES
    chances = {0: Fraction(1)}
    for draw in draws:
        values = min(draw.spread.slots, size // gcd(size, draw.step_bytes))
        if draw.spread.slots % values:
            raise SimBug(
                f"{draw.spread.slots} slots are not a whole number of rounds through {values} values"
            )
        summed: dict[int, Fraction] = {}
        for at, chance in chances.items():
            for value in range(values):
                place = (at + value * draw.step_bytes) % size
                summed[place] = summed.get(place, Fraction(0)) + chance / values
        chances = summed
    return sum((chance * chance for chance in chances.values()), Fraction(0))


def _chance_spray(setting: Setting) -> Fraction:
    step = setting.release.user.window("heap").offsets[0].step_bytes
    slots = min(setting.heap_slots // 2 + 1, -(-_sprayed_bytes(setting) // step))
    return Fraction(slots, setting.heap_slots)


GUESSING_ATTACKS = (
    Attack(
        name="return-to-libc",
        needs="the library's base",
        stopped_by="random placement",
        attempt=return_to_libc,
        expected=_one_in_k,
    ),
    Attack(
        name="rop",
        needs="the library's base",
        stopped_by="random placement",
        attempt=rop,
        expected=_one_in_k,
    ),
    Attack(
        name="brute-force-fork",
        needs="the same layout after each crash",
        stopped_by="a limit on crashes, or exec",
        attempt=brute_force_fork,
        expected=_chance_forking,
        tries_expected=_tries_forking,
        without_repeats=True,
        off="reduced",
    ),
    Attack(
        name="brute-force-exec",
        needs="a service that comes back",
        stopped_by="a limit on crashes",
        attempt=brute_force_exec,
        expected=_chance_exec,
        tries_expected=_tries_exec,
        off="reduced",
    ),
    Attack(
        name="leak-then-rop",
        needs="one pointer",
        stopped_by="a base for each library",
        attempt=leak_then_rop,
        expected=_chance_after_leak,
        off="reduced",
        only_in_lab=True,
    ),
    Attack(
        name="partial-overwrite",
        needs="the low two bytes of a pointer",
        stopped_by="alignment finer than a page",
        attempt=partial_overwrite,
        expected=_chance_partial,
        off="reduced",
        only_in_lab=True,
    ),
    Attack(
        name="heap-spray",
        needs="room for many pages",
        stopped_by="more places",
        attempt=heap_spray,
        expected=_chance_spray,
        off="reduced",
    ),
)
