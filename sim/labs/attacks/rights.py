"""Attacks on what memory may be written and executed: injected code, overwritten text, a page that turns to code.

Models: a process of the profile, in which the attacker can already write where the program can.

Leaves out: how the program was made to write and jump.  Sources: Intel SDM volume 3A, 4.6 and 4.7 (rights, error code);
PaX MPROTECT (no page gains the executable right).
"""

from __future__ import annotations

from fractions import Fraction

from sim.core.rng import Rng
from sim.labs.attacks.attack import Attack, Setting, Trial, in_words
from sim.labs.process import EVERYTHING, RET, TEXT, LabProcess

__all__ = ["RIGHTS_ATTACKS"]

SHELLCODE = b"\x90\x90" + RET


def _inject(setting: Setting, rng: Rng, part: str) -> Trial:
    """Write code and jump there."""
    process = LabProcess(setting.release, rng.stream("exec"))
    process.store(process.segments[part], SHELLCODE)
    fetched = process.fetch(process.segments[part], len(SHELLCODE))
    return Trial(success=fetched == SHELLCODE, seen=in_words(fetched))


def inject_on_stack(setting: Setting, rng: Rng) -> Trial:
    """Put code on the stack and return to it."""
    return _inject(setting, rng, "stack")


def inject_on_heap(setting: Setting, rng: Rng) -> Trial:
    """Put code on the heap and call it."""
    return _inject(setting, rng, "heap")


def overwrite_text(setting: Setting, rng: Rng) -> Trial:
    """Replace the program's code: at once, or after asking for the right."""
    process = LabProcess(setting.release, rng.stream("exec"))
    text = process.segments["text"]
    seen = in_words(process.store(text, SHELLCODE))
    if process.mprotect(text, EVERYTHING):
        seen += f", then {in_words(process.store(text, SHELLCODE))}"
    return Trial(success=process.runs(text, SHELLCODE), seen=seen)


def turn_data_to_code(setting: Setting, rng: Rng) -> Trial:
    """Write code into an anonymous page, as a just-in-time compiler does, and ask for the page to be executable."""
    process = LabProcess(setting.release, rng.stream("exec"))
    page = process.segments["mapping"]
    process.store(page, SHELLCODE)
    granted = process.mprotect(page, TEXT)
    return Trial(
        success=granted and process.runs(page, SHELLCODE),
        seen="request granted" if granted else "request refused",
    )


def _without_nx(setting: Setting) -> Fraction:
    return Fraction(0 if setting.release.protection.nx else 1)


def _without_w_xor_x(setting: Setting) -> Fraction:
    return Fraction(0 if setting.release.protection.wx_refused else 1)


RIGHTS_ATTACKS = (
    Attack(
        name="code-injection-stack",
        needs="a stack that executes",
        stopped_by="NX",
        attempt=inject_on_stack,
        expected=_without_nx,
    ),
    Attack(
        name="code-injection-heap",
        needs="a heap that executes",
        stopped_by="NX",
        attempt=inject_on_heap,
        expected=_without_nx,
    ),
    Attack(
        name="text-overwrite",
        needs="text that becomes writable",
        stopped_by="R/W=0 and W^X",
        attempt=overwrite_text,
        expected=_without_w_xor_x,
    ),
    Attack(
        name="jit-write-then-execute",
        needs="a page that turns from W to X",
        stopped_by="W^X for good",
        attempt=turn_data_to_code,
        expected=_without_w_xor_x,
    ),
)
