"""Duplicate, Rewrap and Import: objects that move to another parent, here or in another TPM.

Models: inner wraps with the caller's key, outer wraps with a shared seed, and the refusals of the library in its order.
Leaves out: nothing of these three commands.
Sources: TPM 2.0 Library part 3, chapter 13; part 1, 23.3; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.codec import WireError
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPMA_OBJECT
from sim.tpm.entities import object_at
from sim.tpm.keys import LoadedObject, name_of
from sim.tpm.loading import check_load, private_area
from sim.tpm.protection import (
    DUPLICATION,
    Wrapper,
    decode_sensitive,
    encode_sensitive,
    inner_unwrap,
    inner_wrap,
    open_secret,
    share_secret,
    storage_wrapper,
)
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.wire import TPMT_PUBLIC, TPMT_SYM_DEF_OBJECT

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "duplicate", "import_object", "rewrap"]

_NULL = TPM_RH.NULL.value


def duplicate(
    tpm: Tpm, handle: int, new_parent_handle: int, key: bytes, symmetric: TPMT_SYM_DEF_OBJECT
) -> tuple[Any, ...]:
    """Return an object's sensitive area, wrapped for another parent and, if asked for, with the caller's key."""
    loaded = object_at(tpm, handle)
    if loaded.is_sequence or loaded.attributes & TPMA_OBJECT.fixedParent:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    if loaded.public.nameAlg == TPM_ALG.NULL:
        raise in_handle(TPM_RC.TYPE, 1)
    parent = None if new_parent_handle == _NULL else _need_storage(tpm, new_parent_handle, 2)
    if loaded.attributes & TPMA_OBJECT.encryptedDuplication:
        if symmetric.algorithm == TPM_ALG.NULL:
            raise in_parameter(TPM_RC.SYMMETRIC, 2)
        if parent is None:
            raise in_handle(TPM_RC.HIERARCHY, 2)
    size = (symmetric.keyBits or 0) // 8
    if key and len(key) != size:
        raise in_parameter(TPM_RC.SIZE, 1)
    wrapper, secret = _wrapper_for(tpm, parent)
    key_out = b""
    content = encode_sensitive(loaded.sensitive, loaded.public.nameAlg)
    if symmetric.algorithm != TPM_ALG.NULL:
        if not key:
            key = key_out = tpm.random.bytes(size)
        content = inner_wrap(symmetric, key, loaded.name, content)
    return (key_out, wrapper.wrap(loaded.name, content) if wrapper else content, secret)


def _need_storage(tpm: Tpm, handle: int, number: int) -> LoadedObject:
    parent: LoadedObject = object_at(tpm, handle)
    if parent.is_sequence or not parent.is_storage_parent:
        raise in_handle(TPM_RC.TYPE, number)
    return parent


def _wrapper_for(tpm: Tpm, parent: LoadedObject | None) -> tuple[Wrapper | None, bytes]:
    """Return the outer wrap for a new parent and the encrypted seed; without parent there is neither."""
    if parent is None:
        return None, b""
    if parent.public.type not in (TPM_ALG.RSA, TPM_ALG.ECC):
        raise in_handle(TPM_RC.TYPE, 2)
    try:
        seed, secret = share_secret(parent.public, DUPLICATION, tpm.random)
    except WireError as wrong:
        raise RefusedError(wrong.rc) from None
    return storage_wrapper(parent.public, seed, has_vector=False), secret


def rewrap(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm, old_parent: int, new_parent: int, private: bytes, name: bytes, secret: bytes
) -> tuple[Any, ...]:
    """Take the outer wrap for one parent off and put that for another on; the inner wrap stays."""
    if bool(secret) != (old_parent != _NULL):
        raise in_handle(TPM_RC.HANDLE, 1)
    content = private
    if old_parent != _NULL:
        parent = _need_storage(tpm, old_parent, 1)
        if parent.public.type not in (TPM_ALG.RSA, TPM_ALG.ECC):
            raise in_handle(TPM_RC.TYPE, 1)
        try:
            seed = open_secret(parent, DUPLICATION, secret)
        except WireError:
            raise in_parameter(TPM_RC.VALUE, 3) from None
        content = _unwrap(parent, seed, name, private, 1)
    after = None if new_parent == _NULL else _need_storage(tpm, new_parent, 2)
    wrapper, new_secret = _wrapper_for(tpm, after)
    return (wrapper.wrap(name, content) if wrapper else content, new_secret)


def _unwrap(parent: LoadedObject, seed: bytes, name: bytes, private: bytes, number: int) -> bytes:
    try:
        return storage_wrapper(parent.public, seed, has_vector=False).unwrap(name, private)
    except WireError as wrong:
        raise in_parameter(wrong.rc, number) from None


def import_object(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    parent_handle: int,
    key: bytes,
    public: TPMT_PUBLIC,
    private: bytes,
    secret: bytes,
    symmetric: TPMT_SYM_DEF_OBJECT,
) -> tuple[Any, ...]:
    """Return a duplicated object wrapped under a parent of this TPM, so that it can be loaded."""
    if public.objectAttributes & (TPMA_OBJECT.fixedTPM | TPMA_OBJECT.fixedParent):
        raise in_parameter(TPM_RC.ATTRIBUTES, 2)
    parent = _need_storage(tpm, parent_handle, 1)
    if len(key) != (symmetric.keyBits or 0) // 8:
        raise in_parameter(TPM_RC.SIZE, 1)
    if secret and parent.public.type not in (TPM_ALG.RSA, TPM_ALG.ECC):
        raise in_handle(TPM_RC.TYPE, 1)
    if public.objectAttributes & TPMA_OBJECT.encryptedDuplication and not secret:
        raise in_parameter(TPM_RC.ATTRIBUTES, 4)
    if public.objectAttributes & TPMA_OBJECT.encryptedDuplication and symmetric.algorithm == TPM_ALG.NULL:
        raise in_parameter(TPM_RC.ATTRIBUTES, 1)
    name = name_of(public)
    content = private
    if secret:
        try:
            seed = open_secret(parent, DUPLICATION, secret)
        except WireError as wrong:
            raise in_parameter(wrong.rc, 4) from None
        content = _unwrap(parent, seed, name, private, 3)
    try:
        if symmetric.algorithm != TPM_ALG.NULL:
            content = inner_unwrap(symmetric, key, name, content)
        sensitive = decode_sensitive(content)
    except WireError as wrong:
        raise in_parameter(wrong.rc, 3) from None
    if parent.attributes & TPMA_OBJECT.fixedTPM:
        check_load(None, public, sensitive, 2, 3)
    return (private_area(tpm, parent, name, sensitive),)


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.Duplicate.value: duplicate,
    TPM_CC.Import.value: import_object,
    TPM_CC.Rewrap.value: rewrap,
}
"""The actions of this group, by command code."""
