"""MakeCredential and ActivateCredential: a secret that only the TPM with both keys can open.

Models: the wrap of a credential with a shared seed and the name of the certified key.
Leaves out: certificates of keys, which the party outside judges.
Sources: TPM 2.0 Library part 3, 12.5 and 12.6; part 1, chapter 24; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.codec import WireError
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CC, TPM_RC, TPMA_OBJECT
from sim.tpm.entities import object_at
from sim.tpm.keys import LoadedObject
from sim.tpm.protection import CREDENTIAL, open_secret, share_secret, storage_wrapper
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.wire import TPM2B_DIGEST

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "activate_credential", "make_credential"]

_BLOB, _SECRET = 1, 2


def make_credential(tpm: Tpm, handle: int, credential: bytes, object_name: bytes) -> tuple[Any, ...]:
    """Wrap a credential for the owner of a storage key, good only together with the object of that name."""
    key = _need_decrypter(tpm, handle, 1)
    if len(credential) > HASH_BYTES.get(key.public.nameAlg, 0):
        raise in_parameter(TPM_RC.SIZE, 1)
    try:
        seed, secret = share_secret(key.public, CREDENTIAL, tpm.random)
    except WireError as wrong:
        raise RefusedError(wrong.rc) from None
    wrapper = storage_wrapper(key.public, seed, has_vector=False)
    return (wrapper.wrap(object_name, TPM2B_DIGEST.encode(credential)), secret)


def activate_credential(
    tpm: Tpm, activate_handle: int, key_handle: int, blob: bytes, secret: bytes
) -> tuple[Any, ...]:
    """Return the credential that was made for both loaded keys."""
    activated = object_at(tpm, activate_handle)
    key = _need_decrypter(tpm, key_handle, 2)
    if activated.is_sequence:
        raise in_handle(TPM_RC.TYPE, 1)
    try:
        seed = open_secret(key, CREDENTIAL, secret)
    except WireError as wrong:
        raise in_parameter(wrong.rc, _SECRET) from None
    try:
        content = storage_wrapper(key.public, seed, has_vector=False).unwrap(activated.name, blob)
        credential, after = TPM2B_DIGEST.decode(content, 0, len(content))
    except WireError as wrong:
        raise in_parameter(wrong.rc, _BLOB) from None
    if after != len(content):
        raise in_parameter(TPM_RC.SIZE, _BLOB)
    return (credential,)


def _need_decrypter(tpm: Tpm, handle: int, number: int) -> LoadedObject:
    key: LoadedObject = object_at(tpm, handle)
    if key.is_sequence or key.public.type not in (TPM_ALG.RSA, TPM_ALG.ECC):
        raise in_handle(TPM_RC.TYPE, number)
    both = TPMA_OBJECT.restricted | TPMA_OBJECT.decrypt
    if key.attributes & both != both:
        raise in_handle(TPM_RC.TYPE, number)
    return key


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.ActivateCredential.value: activate_credential,
    TPM_CC.MakeCredential.value: make_credential,
}
"""The actions of this group, by command code."""
