"""NV_ReadPublic and NV_Read.

Models: reading of ordinary indices with the owner's, the platform's or the index's own authorisation.
Leaves out: all commands that define, write or lock.
Sources: TPM 2.0 Library part 3, chapter 31; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.constants import TPM_CC, TPM_RC, TPM_RH, TPMA_NV
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.wire import NV_BUFFER_BYTES_MAX

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "nv_read", "nv_read_public"]


def nv_read_public(tpm: Tpm, nv_index: int) -> tuple[Any, ...]:
    """Return the public area and the name of an index."""
    index = tpm.nv[nv_index]
    return (index.public, index.name)


def nv_read(tpm: Tpm, auth_handle: int, nv_index: int, size: int, offset: int) -> tuple[Any, ...]:
    """Return `size` bytes of an index from `offset`."""
    index = tpm.nv[nv_index]
    attributes = index.public.attributes
    if auth_handle == TPM_RH.OWNER:
        allowed = bool(attributes & TPMA_NV.OWNERREAD)
    elif auth_handle == TPM_RH.PLATFORM:
        allowed = bool(attributes & TPMA_NV.PPREAD)
    else:
        allowed = auth_handle == nv_index
    if not allowed:
        raise RefusedError(TPM_RC.NV_AUTHORIZATION)
    if attributes & TPMA_NV.READLOCKED:
        raise RefusedError(TPM_RC.NV_LOCKED)
    if index.content is None:
        raise RefusedError(TPM_RC.NV_UNINITIALIZED)
    if size > NV_BUFFER_BYTES_MAX:
        raise in_parameter(TPM_RC.VALUE, 1)
    if offset > index.public.dataSize:
        raise in_parameter(TPM_RC.VALUE, 2)
    if offset + size > index.public.dataSize:
        raise RefusedError(TPM_RC.NV_RANGE)
    return (index.content[offset : offset + size],)


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.NV_Read.value: nv_read,
    TPM_CC.NV_ReadPublic.value: nv_read_public,
}
"""The actions of this group, by command code."""
