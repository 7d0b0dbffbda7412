"""How often performance counters are sampled, and for how long samples are kept.

Apart from `sim.kernel.sampling`, so that describing a machine does not load the scheduler.  Source: the vSphere API's
real-time statistics.
"""

from __future__ import annotations

from sim.core.facts import fact
from sim.core.units import SECOND

__all__ = ["SAMPLES_KEPT", "SAMPLE_EVERY_NS"]

_API = "vSphere API, PerformanceManager: real-time statistics"
SAMPLE_EVERY_NS = fact("perf.sample_every_ns", 20 * SECOND, unit="ns", source=_API, kind="vendor")
SAMPLES_KEPT = fact("perf.samples_kept", 180, unit="1", source=_API + ", one hour of them", kind="vendor")
