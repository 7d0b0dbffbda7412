"""What rows of the catalogue measure with: how many cases to try, and whether anything of a host has changed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle

from sim.core.procedure import CostMeter
from sim.core.trace import Trace

WHOLE = os.environ.get("VMKSIM_CATALOGUE") == "whole"
"""Whether each row tries as many cases as it claims for a campaign: VMKSIM_CATALOGUE=whole."""


def cases(default: int, whole: int) -> int:
    """Return how many cases a row tries: few in the everyday run, all in the campaign."""
    return whole if WHOLE else default


class _StatePickler(pickle.Pickler):
    def persistent_id(self, value: object) -> str | None:
        return type(value).__name__ if isinstance(value, (Trace, CostMeter)) else None


def state_hash(host: object) -> str:
    """Return a digest of all that a host is: memory, disk, TPM, VMs, queue of events; not of trace and time charged.

    The trace grows by the record of every refusal, which is wanted, and each call costs time.
    """
    stream = io.BytesIO()
    _StatePickler(stream, 5).dump(host)
    return hashlib.sha256(stream.getvalue()).hexdigest()
