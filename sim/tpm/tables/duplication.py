"""What the commands of the group "duplication" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import NULL, PERSISTENT, TRANSIENT, CommandSpec, dup, plain, user
from sim.tpm.wire import TPM2B_DATA, TPM2B_NAME, TPM2B_PUBLIC, TPMT_SYM_DEF_OBJECT
from sim.tpm.wire.private import TPM2B_ENCRYPTED_SECRET, TPM2B_PRIVATE

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(
        code=TPM_CC.Duplicate,
        handles=(dup(TRANSIENT, PERSISTENT), plain(TRANSIENT, PERSISTENT, NULL)),
        parameters=(TPM2B_DATA, codec_of(TPMT_SYM_DEF_OBJECT)),
        results=(TPM2B_DATA, TPM2B_PRIVATE, TPM2B_ENCRYPTED_SECRET),
    ),
    CommandSpec(
        code=TPM_CC.Rewrap,
        handles=(user(TRANSIENT, PERSISTENT, NULL), plain(TRANSIENT, PERSISTENT, NULL)),
        parameters=(TPM2B_PRIVATE, TPM2B_NAME, TPM2B_ENCRYPTED_SECRET),
        results=(TPM2B_PRIVATE, TPM2B_ENCRYPTED_SECRET),
    ),
    CommandSpec(
        code=TPM_CC.Import,
        handles=(user(TRANSIENT, PERSISTENT),),
        parameters=(
            TPM2B_DATA,
            TPM2B_PUBLIC,
            TPM2B_PRIVATE,
            TPM2B_ENCRYPTED_SECRET,
            codec_of(TPMT_SYM_DEF_OBJECT),
        ),
        results=(TPM2B_PRIVATE,),
    ),
)
