"""What the commands of the group "clock" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import Number
from sim.tpm.constants import TPM_CC, TPM_CLOCK_ADJUST
from sim.tpm.requests import NV_AUTH, CommandSpec, user
from sim.tpm.wire import UINT64

__all__ = ["SPECS"]

_ADJUST = Number("B", allowed=frozenset(each & 0xFF for each in TPM_CLOCK_ADJUST))

SPECS = (
    CommandSpec(code=TPM_CC.ClockSet, handles=(user(NV_AUTH),), parameters=(UINT64,), changes_nv=True),
    CommandSpec(code=TPM_CC.ClockRateAdjust, handles=(user(NV_AUTH),), parameters=(_ADJUST,)),
)
