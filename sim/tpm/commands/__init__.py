"""The actions of the commands, a group a module; the table below is the whole list.

An action takes the device, the handles and the parameters in the order of `sim.tpm.requests`, checks everything that
may refuse it before it changes anything, and returns the results in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.tpm.commands.attestation import quote, read_clock
from sim.tpm.commands.capability import get_capability
from sim.tpm.commands.chance import get_random, stir_random
from sim.tpm.commands.nvram import nv_read, nv_read_public
from sim.tpm.commands.objects import create_primary, flush_context, read_public
from sim.tpm.commands.pcrs import pcr_event, pcr_extend, pcr_read, pcr_reset
from sim.tpm.commands.startup import get_test_result, self_test, shutdown, startup
from sim.tpm.constants import TPM_CC

__all__ = ["ACTIONS"]

ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.CreatePrimary.value: create_primary,
    TPM_CC.FlushContext.value: flush_context,
    TPM_CC.GetCapability.value: get_capability,
    TPM_CC.GetRandom.value: get_random,
    TPM_CC.GetTestResult.value: get_test_result,
    TPM_CC.NV_Read.value: nv_read,
    TPM_CC.NV_ReadPublic.value: nv_read_public,
    TPM_CC.PCR_Event.value: pcr_event,
    TPM_CC.PCR_Extend.value: pcr_extend,
    TPM_CC.PCR_Read.value: pcr_read,
    TPM_CC.PCR_Reset.value: pcr_reset,
    TPM_CC.Quote.value: quote,
    TPM_CC.ReadClock.value: read_clock,
    TPM_CC.ReadPublic.value: read_public,
    TPM_CC.SelfTest.value: self_test,
    TPM_CC.Shutdown.value: shutdown,
    TPM_CC.Startup.value: startup,
    TPM_CC.StirRandom.value: stir_random,
}
"""Every action, by command code."""
