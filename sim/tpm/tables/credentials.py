"""What the commands of the group "credentials" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.constants import TPM_CC
from sim.tpm.requests import PERSISTENT, TRANSIENT, CommandSpec, admin, plain, user
from sim.tpm.wire import TPM2B_DIGEST, TPM2B_NAME
from sim.tpm.wire.private import TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(
        code=TPM_CC.ActivateCredential,
        handles=(admin(TRANSIENT, PERSISTENT), user(TRANSIENT, PERSISTENT)),
        parameters=(TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET),
        results=(TPM2B_DIGEST,),
    ),
    CommandSpec(
        code=TPM_CC.MakeCredential,
        handles=(plain(TRANSIENT, PERSISTENT),),
        parameters=(TPM2B_DIGEST, TPM2B_NAME),
        results=(TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET),
    ),
)
