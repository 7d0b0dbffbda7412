"""Time and clock of a TPM, and its counters of resets and restarts.

Models: `time` (ms since the last _TPM_Init), `clock` (ms that goes on over power cycles), the `safe` flag (False while
the clock may lie before a value that was already given out), resetCount and restartCount.  While the TPM has power,
the clock is a function of simulated time alone.
Leaves out: drift, and time while the machine is off.
Sources: TPM 2.0 Library part 1, chapter 36; part 3, Startup; every transition was measured on swtpm 0.7.1.
"""

from __future__ import annotations

from sim.core.facts import fact
from sim.tpm.wire import TPMS_CLOCK_INFO, TPMS_TIME_INFO

__all__ = ["Timekeeper"]

CLOCK_UPDATE_MS = fact(
    "tpm.clock_update_ms", 4096, unit="ms", source="swtpm 0.7.1, property CLOCK_UPDATE", kind="measured"
)
RATE_NOMINAL = fact(
    "tpm.clock_rate_nominal",
    30_000,
    unit="steps",
    source="TCG reference code, platform clock",
    kind="inferred",
).value
RATE_CHANGE_MAX = fact(
    "tpm.clock_rate_change_max",
    5_000,
    unit="steps",
    source="TCG reference code, platform clock",
    kind="inferred",
).value
_NS_PER_MS = 1_000_000


class Timekeeper:
    """The clock and the counters; all methods take the simulated time `now_ns`."""

    def __init__(self) -> None:
        self.init_ns = 0
        self.rate = RATE_NOMINAL
        self._anchor = (0, 0)
        self.base_clock_ms = 0
        self.safe_at_start = True
        self.reset_count = 0
        self.restart_count = 0

    def time_ms(self, now_ns: int) -> int:
        """Return the ms since the last _TPM_Init."""
        return self._time_ns(now_ns) // _NS_PER_MS

    def _time_ns(self, now_ns: int) -> int:
        """Return the time in ns of the TPM's own oscillator, rounded down."""
        since_ns, time_ns = self._anchor
        return time_ns + max(0, now_ns - since_ns) * RATE_NOMINAL // self.rate

    def clock_ms(self, now_ns: int) -> int:
        """Return the clock in ms."""
        return self.base_clock_ms + self.time_ms(now_ns)

    def power_on(self, now_ns: int, *, orderly: bool) -> None:
        """Apply _TPM_Init: time restarts; after an unorderly stop the clock falls back to its last saved value."""
        clock_ms = self.clock_ms(now_ns)
        if not orderly:
            clock_ms = max(self.base_clock_ms, clock_ms - clock_ms % CLOCK_UPDATE_MS.value)
            self.safe_at_start = False
        else:
            self.safe_at_start = self.is_safe(now_ns)
        self.base_clock_ms = clock_ms
        self.init_ns = now_ns
        self._anchor = (now_ns, 0)

    def set_clock(self, now_ns: int, clock_ms: int) -> None:
        """Set the clock ahead."""
        interval_ms = CLOCK_UPDATE_MS.value
        safe = self.is_safe(now_ns) or clock_ms // interval_ms > self.base_clock_ms // interval_ms
        self.base_clock_ms = clock_ms - self.time_ms(now_ns)
        self.safe_at_start = safe

    def adjust_rate(self, now_ns: int, steps: int) -> None:
        """Make time run slower by `steps` (negative: faster) from now on, within limits."""
        self._anchor = (now_ns, self._time_ns(now_ns))
        self.rate = max(
            RATE_NOMINAL - RATE_CHANGE_MAX, min(RATE_NOMINAL + RATE_CHANGE_MAX, self.rate + steps)
        )

    def clear(self, now_ns: int) -> None:
        """Apply Clear: the clock and both counters begin at 0 again."""
        self.base_clock_ms = -self.time_ms(now_ns)
        self.safe_at_start = True
        self.reset_count = 0
        self.restart_count = 0

    def is_safe(self, now_ns: int) -> bool:
        """Tell whether the clock is surely ahead of every value reported before."""
        interval_ms = CLOCK_UPDATE_MS.value
        return self.safe_at_start or self.clock_ms(now_ns) // interval_ms > self.base_clock_ms // interval_ms

    def clock_info(self, now_ns: int) -> TPMS_CLOCK_INFO:
        """Return the clock and the counters as they stand in attestations."""
        return TPMS_CLOCK_INFO(
            clock=self.clock_ms(now_ns),
            resetCount=self.reset_count,
            restartCount=self.restart_count,
            safe=int(self.is_safe(now_ns)),
        )

    def time_info(self, now_ns: int) -> TPMS_TIME_INFO:
        """Return time, clock and counters as ReadClock gives them."""
        return TPMS_TIME_INFO(time=self.time_ms(now_ns), clockInfo=self.clock_info(now_ns))
