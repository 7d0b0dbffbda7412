"""ClockSet and ClockRateAdjust.

Models: setting the clock ahead, and making time run faster or slower in the library's three steps.
Leaves out: how far the rate of a real oscillator is off.
Sources: TPM 2.0 Library part 3, chapter 29; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.core.facts import fact
from sim.tpm.constants import TPM_CC, TPM_CLOCK_ADJUST, TPM_RC
from sim.tpm.refusal import in_parameter

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS"]

CLOCK_MS_MAX = fact(
    "tpm.clock_ms_max", 0xFFFF_0000_0000_0000, unit="ms", source="TPM 2.0 Library part 3, 29.2.1", kind="spec"
).value
_REFERENCE = "TCG reference code, platform clock"
_STEPS = {
    0: 0,
    1: fact("tpm.clock_adjust_fine", 1, unit="steps", source=_REFERENCE, kind="inferred").value,
    2: fact("tpm.clock_adjust_medium", 30, unit="steps", source=_REFERENCE, kind="inferred").value,
    3: fact("tpm.clock_adjust_coarse", 300, unit="steps", source=_REFERENCE, kind="inferred").value,
}


def clock_set(tpm: Tpm, authority: int, new_time: int) -> tuple[Any, ...]:
    """Set the clock ahead."""
    now_ns = tpm.clock.now
    if new_time > CLOCK_MS_MAX or new_time < tpm.time.clock_ms(now_ns):
        raise in_parameter(TPM_RC.VALUE, 1)
    tpm.time.set_clock(now_ns, new_time)
    return ()


def clock_rate_adjust(tpm: Tpm, authority: int, rate_adjust: int) -> tuple[Any, ...]:
    """Change the rate of time and clock."""
    adjust = TPM_CLOCK_ADJUST(rate_adjust - 256 if rate_adjust & 0x80 else rate_adjust)
    steps = _STEPS[abs(adjust.value)]
    tpm.time.adjust_rate(tpm.clock.now, steps if adjust.value < 0 else -steps)
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.ClockRateAdjust.value: clock_rate_adjust,
    TPM_CC.ClockSet.value: clock_set,
}
"""The actions of this group, by command code."""
