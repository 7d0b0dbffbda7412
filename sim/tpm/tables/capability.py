"""What the commands of the group "capability" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import Number, codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import CommandSpec
from sim.tpm.wire import TPMI_YES_NO, TPMS_CAPABILITY_DATA, UINT32

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(
        code=TPM_CC.GetCapability,
        parameters=(Number("I", allowed=range(0x0B)), UINT32, UINT32),
        results=(TPMI_YES_NO, codec_of(TPMS_CAPABILITY_DATA)),
    ),
)
