"""Startup, Shutdown and self-tests.

Models: TPM reset, restart and resume with their localities; what a shutdown promises; self-tests.
Leaves out: what a failed self-test leads to (`sim.tpm.failure`).
Sources: TPM 2.0 Library part 3, chapters 9 and 10; part 1, chapter 12; measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.algorithms import TESTABLE, TESTED_WITH
from sim.tpm.commands.hierarchies import start_authorizations
from sim.tpm.constants import TPM_CC, TPM_RC, TPM_RH, TPM_SU
from sim.tpm.nv import started_index
from sim.tpm.refusal import RefusedError, in_parameter

if TYPE_CHECKING:
    from sim.tpm.device import StartState, Tpm

__all__ = ["ACTIONS", "get_test_result", "self_test", "shutdown", "startup"]

_STARTUP_LOCALITIES = (0, 3)


def startup(tpm: Tpm, startup_type: int) -> tuple[Any, ...]:
    """Start the TPM after _TPM_Init, afresh (CLEAR) or as it was shut down (STATE)."""
    if tpm.locality not in _STARTUP_LOCALITIES:
        raise RefusedError(TPM_RC.LOCALITY)
    state = tpm.new_start_state()
    orderly = tpm.shutdown_type is not None
    if startup_type == TPM_SU.STATE:
        _need_resumable(tpm, state)
        tpm.time.restart_count += 1
        tpm.pcrs.resume()
    else:
        if tpm.shutdown_type == TPM_SU.STATE:
            tpm.time.restart_count += 1
        else:
            tpm.time.reset_count += 1
            tpm.time.restart_count = 0
            tpm.reset_epoch = tpm.boot_number
            tpm.pcrs.update_counter = 0
        tpm.pcrs.start(locality=tpm.locality, h_crtm=tpm.h_crtm)
        tpm.clear_epoch = tpm.boot_number
        tpm.start_state = state
        secret = tpm.hierarchy(TPM_RH.NULL).proof + tpm.time.restart_count.to_bytes(4, "big")
        tpm.commits.restart(secret)
        restart = tpm.shutdown_type == TPM_SU.STATE
        tpm.nv = {
            handle: started_index(index, orderly=orderly, restart=restart) for handle, index in tpm.nv.items()
        }
    start_authorizations(
        tpm,
        resume=startup_type == TPM_SU.STATE,
        restart=tpm.shutdown_type == TPM_SU.STATE,
        orderly=orderly,
    )
    tpm.started = True
    tpm.started_orderly = orderly
    tpm.shutdown_type = None
    tpm.h_crtm = None
    return ()


def _need_resumable(tpm: Tpm, state: StartState) -> None:
    before = tpm.start_state
    if tpm.shutdown_type != TPM_SU.STATE or before is None or before.h_crtm != state.h_crtm:
        raise in_parameter(TPM_RC.VALUE, 1)
    if before.locality != state.locality:
        raise RefusedError(TPM_RC.LOCALITY)


def shutdown(tpm: Tpm, shutdown_type: int) -> tuple[Any, ...]:
    """Prepare for loss of power; a later change of saved state undoes it."""
    if shutdown_type == TPM_SU.STATE and tpm.pcrs.pending is not None:
        raise in_parameter(TPM_RC.TYPE, 1)
    tpm.shutdown_type = TPM_SU(shutdown_type)
    return ()


def self_test(tpm: Tpm, full_test: int) -> tuple[Any, ...]:
    """Test everything, or what was not tested yet."""
    tpm.untested = ()
    return ()


def incremental_self_test(tpm: Tpm, algorithms: tuple[int, ...]) -> tuple[Any, ...]:
    """Test some algorithms; return those that are still untested."""
    if any(each not in TESTABLE for each in algorithms):
        raise in_parameter(TPM_RC.VALUE, 1)
    tested = {*algorithms, *(TESTED_WITH[each] for each in algorithms if each in TESTED_WITH)}
    tpm.untested = tuple(each for each in tpm.untested if each not in tested)
    return (tpm.untested,)


def get_test_result(tpm: Tpm) -> tuple[Any, ...]:
    """Return the manufacturer's data about the tests (none) and their result."""
    return (b"", TPM_RC.SUCCESS.value)


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.IncrementalSelfTest.value: incremental_self_test,
    TPM_CC.GetTestResult.value: get_test_result,
    TPM_CC.SelfTest.value: self_test,
    TPM_CC.Shutdown.value: shutdown,
    TPM_CC.Startup.value: startup,
}
"""The actions of this group, by command code."""
