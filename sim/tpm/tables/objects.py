"""What the commands of the group "objects" take and give; see `sim.tpm.requests` for the form.

Leaves out: what the commands do (`sim.tpm.commands.objects`).  Source: TPM 2.0 Library part 3, chapters 12, 24 and 30.
"""

from __future__ import annotations

from sim.tpm.codec import Number, codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import HIERARCHY, PERSISTENT, TRANSIENT, CommandSpec, admin, plain, user
from sim.tpm.wire import (
    TPM2B_AUTH,
    TPM2B_CREATION_DATA,
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPM2B_NAME,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_SENSITIVE_DATA,
    TPML_PCR_SELECTION,
    TPMT_TK_CREATION,
)
from sim.tpm.wire.private import (
    TPM2B_PRIVATE,
    TPM2B_PUBLIC_EXTERNAL,
    TPM2B_SENSITIVE_OR_EMPTY,
    TPM2B_TEMPLATE,
    TPMT_PUBLIC_PARMS,
)

__all__ = ["SPECS"]

_CREATION = (TPM2B_SENSITIVE_CREATE, TPM2B_PUBLIC, TPM2B_DATA, TPML_PCR_SELECTION)
_CREATED = (TPM2B_CREATION_DATA, TPM2B_DIGEST, codec_of(TPMT_TK_CREATION))

SPECS = (
    CommandSpec(
        code=TPM_CC.CreatePrimary,
        handles=(user(HIERARCHY),),
        parameters=_CREATION,
        returns_handle=True,
        results=(TPM2B_PUBLIC, *_CREATED, TPM2B_NAME),
    ),
    CommandSpec(
        code=TPM_CC.Create,
        handles=(user(TRANSIENT, PERSISTENT),),
        parameters=_CREATION,
        results=(TPM2B_PRIVATE, TPM2B_PUBLIC, *_CREATED),
    ),
    CommandSpec(
        code=TPM_CC.CreateLoaded,
        handles=(user(TRANSIENT, PERSISTENT, HIERARCHY),),
        parameters=(TPM2B_SENSITIVE_CREATE, TPM2B_TEMPLATE),
        returns_handle=True,
        results=(TPM2B_PRIVATE, TPM2B_PUBLIC, TPM2B_NAME),
    ),
    CommandSpec(
        code=TPM_CC.Load,
        handles=(user(TRANSIENT, PERSISTENT),),
        parameters=(TPM2B_PRIVATE, TPM2B_PUBLIC),
        returns_handle=True,
        results=(TPM2B_NAME,),
    ),
    CommandSpec(
        code=TPM_CC.LoadExternal,
        parameters=(TPM2B_SENSITIVE_OR_EMPTY, TPM2B_PUBLIC_EXTERNAL, Number("I", allowed=HIERARCHY)),
        returns_handle=True,
        results=(TPM2B_NAME,),
    ),
    CommandSpec(
        code=TPM_CC.ReadPublic,
        handles=(plain(TRANSIENT, PERSISTENT),),
        results=(TPM2B_PUBLIC_EXTERNAL, TPM2B_NAME, TPM2B_NAME),
    ),
    CommandSpec(code=TPM_CC.Unseal, handles=(user(TRANSIENT, PERSISTENT),), results=(TPM2B_SENSITIVE_DATA,)),
    CommandSpec(
        code=TPM_CC.ObjectChangeAuth,
        handles=(admin(TRANSIENT, PERSISTENT), plain(TRANSIENT, PERSISTENT)),
        parameters=(TPM2B_AUTH,),
        results=(TPM2B_PRIVATE,),
    ),
    CommandSpec(code=TPM_CC.TestParms, parameters=(codec_of(TPMT_PUBLIC_PARMS),)),
)
