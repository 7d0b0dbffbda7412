"""What the commands of the group "contexts" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import Number, codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import NV_AUTH, PERSISTENT, TRANSIENT, CommandSpec, HandleSet, plain, user
from sim.tpm.wire import SESSION_HANDLES
from sim.tpm.wire.private import TPMS_CONTEXT

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(
        code=TPM_CC.EvictControl,
        handles=(user(NV_AUTH), plain(TRANSIENT, PERSISTENT)),
        parameters=(Number("I", allowed=PERSISTENT),),
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.ContextLoad,
        parameters=(codec_of(TPMS_CONTEXT),),
        returns_handle=True,
        sessions_allowed=False,
    ),
    CommandSpec(
        code=TPM_CC.ContextSave,
        handles=(plain(TRANSIENT, SESSION_HANDLES),),
        results=(codec_of(TPMS_CONTEXT),),
        sessions_allowed=False,
    ),
    CommandSpec(
        code=TPM_CC.FlushContext,
        parameters=(Number("I", allowed=HandleSet(TRANSIENT, SESSION_HANDLES)),),
        sessions_allowed=False,
    ),
)
