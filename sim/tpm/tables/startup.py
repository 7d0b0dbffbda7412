"""What the commands of the group "startup" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import ListOf, Number
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import CommandSpec
from sim.tpm.wire import TPM2B_MAX_BUFFER, TPMI_YES_NO, UINT16, UINT32

__all__ = ["SPECS"]

_ALGORITHMS_MAX = 64

SPECS = (
    CommandSpec(
        code=TPM_CC.Startup,
        parameters=(Number("H", allowed=frozenset({0, 1})),),
        changes_nv=True,
        sessions_allowed=False,
    ),
    CommandSpec(code=TPM_CC.Shutdown, parameters=(Number("H", allowed=frozenset({0, 1})),), changes_nv=True),
    CommandSpec(code=TPM_CC.SelfTest, parameters=(TPMI_YES_NO,), changes_nv=True),
    CommandSpec(
        code=TPM_CC.IncrementalSelfTest,
        parameters=(ListOf(UINT16, _ALGORITHMS_MAX),),
        results=(ListOf(UINT16, _ALGORITHMS_MAX),),
        changes_nv=True,
    ),
    CommandSpec(code=TPM_CC.GetTestResult, results=(TPM2B_MAX_BUFFER, UINT32)),
)
