"""The NV commands: define, delete, read, write and lock indices of every type.

Models: ordinary, counter, bit field, extend and PIN indices with the authority of owner, platform or the index, and
all locks.
Leaves out: wear of the memory, and time that writing takes beyond the profile's latency.
Sources: TPM 2.0 Library part 3, chapter 31; part 1, chapter 37; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sim.tpm.constants import HASH_BYTES, TPM_CC, TPM_NT, TPM_RC, TPM_RH, TPMA_NV
from sim.tpm.hashing import hash_bytes
from sim.tpm.nv import NvIndex, check_room, forget_counter
from sim.tpm.nv_rules import check_definition, index_type
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.wire import NV_BUFFER_BYTES_MAX, TPMS_NV_PUBLIC

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "need_readable", "read_range"]

_INDEX = 2
_COUNTER_MASK = 0xFFFFFFFFFFFFFFFF
_WRITTEN_BY_WRITE = frozenset({TPM_NT.ORDINARY.value, TPM_NT.PIN_FAIL.value, TPM_NT.PIN_PASS.value})


def nv_define_space(tpm: Tpm, authority: int, auth: bytes, public: TPMS_NV_PUBLIC) -> tuple[Any, ...]:
    """Define an index."""
    auth = auth.rstrip(b"\0")
    check_definition(authority, auth, public, platform_nv_enabled=tpm.platform_nv_enabled)
    if public.nvIndex in tpm.nv:
        raise RefusedError(TPM_RC.NV_DEFINED)
    check_room(tpm.nv, len(tpm.persistent), public)
    tpm.nv[public.nvIndex] = NvIndex(public=public, content=None, auth=auth)
    return ()


def nv_undefine_space(tpm: Tpm, authority: int, nv_index: int) -> tuple[Any, ...]:
    """Delete an index with the owner's or the platform's authority."""
    attributes = tpm.nv[nv_index].public.attributes
    if attributes & TPMA_NV.POLICY_DELETE:
        raise in_handle(TPM_RC.ATTRIBUTES, _INDEX)
    if authority == TPM_RH.OWNER and attributes & TPMA_NV.PLATFORMCREATE:
        raise RefusedError(TPM_RC.NV_AUTHORIZATION)
    _delete(tpm, nv_index)
    return ()


def nv_undefine_space_special(tpm: Tpm, nv_index: int, platform: int) -> tuple[Any, ...]:
    """Delete an index that only its own policy may delete."""
    if not tpm.nv[nv_index].public.attributes & TPMA_NV.POLICY_DELETE:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    _delete(tpm, nv_index)
    return ()


def nv_read_public(tpm: Tpm, nv_index: int) -> tuple[Any, ...]:
    """Return the public area and the name of an index."""
    index = tpm.nv[nv_index]
    return (index.public, index.name)


def nv_write(tpm: Tpm, authority: int, nv_index: int, data: bytes, offset: int) -> tuple[Any, ...]:
    """Write part of an ordinary or PIN index; what was never written holds FF (in RAM: 00)."""
    index = _writable(tpm, authority, nv_index)
    size = index.public.dataSize
    if index_type(index.public.attributes) not in _WRITTEN_BY_WRITE:
        raise RefusedError(TPM_RC.ATTRIBUTES)
    if offset > size:
        raise in_parameter(TPM_RC.VALUE, 2)
    if len(data) > size - offset or (index.public.attributes & TPMA_NV.WRITEALL and len(data) < size):
        raise RefusedError(TPM_RC.NV_RANGE)
    fill = b"\0" if index.public.attributes & TPMA_NV.ORDERLY else b"\xff"
    before = index.content if index.content is not None else fill * size
    _store(tpm, index, before[:offset] + data + before[offset + len(data) :])
    return ()


def nv_increment(tpm: Tpm, authority: int, nv_index: int) -> tuple[Any, ...]:
    """Add one to a counter; a new counter starts above every value that any counter ever had."""
    index = _typed(tpm, authority, nv_index, TPM_NT.COUNTER)
    before = tpm.nv_counter_max if index.content is None else int.from_bytes(index.content, "big")
    _store(tpm, index, ((before + 1) & _COUNTER_MASK).to_bytes(8, "big"))
    return ()


def nv_extend(tpm: Tpm, authority: int, nv_index: int, data: bytes) -> tuple[Any, ...]:
    """Set an extend index to the digest of its old content and the data."""
    index = _typed(tpm, authority, nv_index, TPM_NT.EXTEND)
    before = index.content if index.content is not None else bytes(index.public.dataSize)
    _store(tpm, index, hash_bytes(index.public.nameAlg, before + data))
    return ()


def nv_set_bits(tpm: Tpm, authority: int, nv_index: int, bits: int) -> tuple[Any, ...]:
    """Set bits of a bit field."""
    index = _typed(tpm, authority, nv_index, TPM_NT.BITS)
    before = 0 if index.content is None else int.from_bytes(index.content, "big")
    _store(tpm, index, (before | bits).to_bytes(8, "big"))
    return ()


def nv_write_lock(tpm: Tpm, authority: int, nv_index: int) -> tuple[Any, ...]:
    """Refuse further writing: for ever, or until the next Startup(CLEAR)."""
    index = tpm.nv[nv_index]
    attributes = index.public.attributes
    if not attributes & TPMA_NV.WRITELOCKED:
        _need_authority(authority, nv_index, attributes, TPMA_NV.OWNERWRITE, TPMA_NV.PPWRITE)
        if not attributes & (TPMA_NV.WRITEDEFINE | TPMA_NV.WRITE_STCLEAR):
            raise in_handle(TPM_RC.ATTRIBUTES, _INDEX)
        _set_attributes(tpm, index, attributes | TPMA_NV.WRITELOCKED)
    return ()


def nv_global_write_lock(tpm: Tpm, authority: int) -> tuple[Any, ...]:
    """Lock every index that asked for it when it was defined."""
    for index in list(tpm.nv.values()):
        if index.public.attributes & TPMA_NV.GLOBALLOCK:
            _set_attributes(tpm, index, index.public.attributes | TPMA_NV.WRITELOCKED)
    return ()


def nv_read(tpm: Tpm, authority: int, nv_index: int, size: int, offset: int) -> tuple[Any, ...]:
    """Return `size` bytes of an index from `offset`."""
    index = need_readable(tpm, authority, nv_index)
    return (read_range(index, size, offset, 1),)


def read_range(index: NvIndex, size: int, offset: int, first: int) -> bytes:
    """Return part of an index's content; `first` is the number of the parameter `size`, and `offset` follows it."""
    if size > NV_BUFFER_BYTES_MAX:
        raise in_parameter(TPM_RC.VALUE, first)
    if offset > index.public.dataSize:
        raise in_parameter(TPM_RC.VALUE, first + 1)
    if offset + size > index.public.dataSize:
        raise RefusedError(TPM_RC.NV_RANGE)
    assert index.content is not None
    return index.content[offset : offset + size]


def nv_read_lock(tpm: Tpm, authority: int, nv_index: int) -> tuple[Any, ...]:
    """Refuse further reading until the next Startup(CLEAR)."""
    index = tpm.nv[nv_index]
    attributes = index.public.attributes
    if not attributes & TPMA_NV.READLOCKED:
        _need_authority(authority, nv_index, attributes, TPMA_NV.OWNERREAD, TPMA_NV.PPREAD)
        if not attributes & TPMA_NV.READ_STCLEAR:
            raise in_handle(TPM_RC.ATTRIBUTES, _INDEX)
        _set_attributes(tpm, index, attributes | TPMA_NV.READLOCKED)
    return ()


def nv_change_auth(tpm: Tpm, nv_index: int, new_auth: bytes) -> tuple[Any, ...]:
    """Give an index another authorisation value."""
    index = tpm.nv[nv_index]
    new_auth = new_auth.rstrip(b"\0")
    if len(new_auth) > HASH_BYTES[index.public.nameAlg]:
        raise in_parameter(TPM_RC.SIZE, 1)
    tpm.nv[nv_index] = attrs.evolve(index, auth=new_auth)
    return ()


def need_readable(tpm: Tpm, authority: int, nv_index: int) -> NvIndex:
    """Return an index that `authority` may read now."""
    index = tpm.nv[nv_index]
    attributes = index.public.attributes
    if attributes & TPMA_NV.READLOCKED:
        raise RefusedError(TPM_RC.NV_LOCKED)
    _need_authority(authority, nv_index, attributes, TPMA_NV.OWNERREAD, TPMA_NV.PPREAD)
    if index.content is None:
        raise RefusedError(TPM_RC.NV_UNINITIALIZED)
    return index


def _writable(tpm: Tpm, authority: int, nv_index: int) -> NvIndex:
    index = tpm.nv[nv_index]
    attributes = index.public.attributes
    if attributes & TPMA_NV.WRITELOCKED:
        raise RefusedError(TPM_RC.NV_LOCKED)
    _need_authority(authority, nv_index, attributes, TPMA_NV.OWNERWRITE, TPMA_NV.PPWRITE)
    return index


def _typed(tpm: Tpm, authority: int, nv_index: int, kind: TPM_NT) -> NvIndex:
    index = _writable(tpm, authority, nv_index)
    if index_type(index.public.attributes) != kind:
        raise in_handle(TPM_RC.ATTRIBUTES, _INDEX)
    return index


def _need_authority(
    authority: int, nv_index: int, attributes: int, owner: TPMA_NV, platform: TPMA_NV
) -> None:
    """Refuse an authority that the attributes of the index do not name."""
    if authority == TPM_RH.OWNER:
        allowed = bool(attributes & owner)
    elif authority == TPM_RH.PLATFORM:
        allowed = bool(attributes & platform)
    else:
        allowed = authority == nv_index
    if not allowed:
        raise RefusedError(TPM_RC.NV_AUTHORIZATION)


def _store(tpm: Tpm, index: NvIndex, content: bytes) -> None:
    public = attrs.evolve(index.public, attributes=index.public.attributes | TPMA_NV.WRITTEN)
    tpm.nv[public.nvIndex] = attrs.evolve(index, public=public, content=content)
    if public.attributes & TPMA_NV.ORDERLY:
        tpm.shutdown_type = None


def _set_attributes(tpm: Tpm, index: NvIndex, attributes: int) -> None:
    public = attrs.evolve(index.public, attributes=int(attributes))
    tpm.nv[public.nvIndex] = attrs.evolve(index, public=public)
    if attributes & TPMA_NV.ORDERLY:
        tpm.shutdown_type = None


def _delete(tpm: Tpm, nv_index: int) -> None:
    tpm.nv_counter_max = forget_counter(tpm.nv[nv_index], tpm.nv_counter_max)
    del tpm.nv[nv_index]


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.NV_ChangeAuth.value: nv_change_auth,
    TPM_CC.NV_DefineSpace.value: nv_define_space,
    TPM_CC.NV_Extend.value: nv_extend,
    TPM_CC.NV_GlobalWriteLock.value: nv_global_write_lock,
    TPM_CC.NV_Increment.value: nv_increment,
    TPM_CC.NV_Read.value: nv_read,
    TPM_CC.NV_ReadLock.value: nv_read_lock,
    TPM_CC.NV_ReadPublic.value: nv_read_public,
    TPM_CC.NV_SetBits.value: nv_set_bits,
    TPM_CC.NV_UndefineSpace.value: nv_undefine_space,
    TPM_CC.NV_UndefineSpaceSpecial.value: nv_undefine_space_special,
    TPM_CC.NV_Write.value: nv_write,
    TPM_CC.NV_WriteLock.value: nv_write_lock,
}
"""The actions of this group, by command code."""
