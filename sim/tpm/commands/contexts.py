"""ContextSave, ContextLoad, FlushContext and EvictControl: what comes into a slot, leaves it, and stays.

Models: saving and loading of objects, sequences and sessions; flushing; persistent objects with the ranges of owner
and platform.
Leaves out: the limit of NV memory shared between indices and objects.
Sources: TPM 2.0 Library part 3, chapter 28; part 1, chapters 30 and 37; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.core.facts import fact
from sim.tpm.codec import WireError
from sim.tpm.constants import TPM_CC, TPM_HT, TPM_RC, TPM_RH
from sim.tpm.contexts import ContextBinding, open_context, seal_context
from sim.tpm.entities import PLATFORM_PERSISTENT, object_at
from sim.tpm.loading import need_slot
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.sequences import SequenceObject
from sim.tpm.sessions import Session
from sim.tpm.wire.private import TPM2B_CONTEXT_DATA, TPMS_CONTEXT

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "PERSISTENT_MAX", "context_load", "context_save", "evict_control", "flush_context"]

PERSISTENT_MAX = fact(
    "tpm.persistent_objects_max",
    65,
    unit="objects",
    source="swtpm 0.7.1, property HR_PERSISTENT_AVAIL of a fresh TPM",
    kind="measured",
).value
_OBJECT, _SEQUENCE, _OBJECT_UNTIL_STARTUP = 0x8000_0000, 0x8000_0001, 0x8000_0002
_NULL = TPM_RH.NULL.value


def context_save(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Return the context of a loaded object, sequence or session; a session leaves its slot."""
    if handle >> 24 == TPM_HT.TRANSIENT:
        return (_save_object(tpm, handle),)
    session, sequence = tpm.sessions.save(handle)
    blob = _seal(tpm, _NULL, handle, sequence, session)
    return (TPMS_CONTEXT(sequence=sequence, savedHandle=handle, hierarchy=_NULL, contextBlob=blob),)


def _save_object(tpm: Tpm, handle: int) -> TPMS_CONTEXT:
    loaded = tpm.objects[handle]
    saved_handle, hierarchy = _SEQUENCE, _NULL
    if not loaded.is_sequence:
        saved_handle = _OBJECT_UNTIL_STARTUP if loaded.until_startup else _OBJECT
        hierarchy = loaded.hierarchy
    if isinstance(loaded, SequenceObject):
        loaded = loaded.compact()
    sequence = tpm.object_contexts + 1
    blob = _seal(tpm, hierarchy, saved_handle, sequence, loaded)
    tpm.object_contexts = sequence
    return TPMS_CONTEXT(sequence=sequence, savedHandle=saved_handle, hierarchy=hierarchy, contextBlob=blob)


def _seal(tpm: Tpm, hierarchy: int, handle: int, sequence: int, value: Any) -> bytes:
    blob = seal_context(tpm.hierarchy(hierarchy).proof, _binding(tpm, handle, sequence), value)
    if len(blob) > TPM2B_CONTEXT_DATA.size_max:
        raise RefusedError(TPM_RC.OBJECT_MEMORY)
    return blob


def _binding(tpm: Tpm, handle: int, sequence: int) -> ContextBinding:
    epoch = tpm.clear_epoch if handle == _OBJECT_UNTIL_STARTUP else tpm.reset_epoch
    return ContextBinding(sequence=sequence, handle=handle, epoch=epoch)


def context_load(tpm: Tpm, context: TPMS_CONTEXT) -> tuple[Any, ...]:
    """Load a saved context; return the handle, which for an object may be another than before."""
    handle, hierarchy = context.savedHandle, context.hierarchy
    is_session = handle >> 24 != TPM_HT.TRANSIENT
    try:
        value = open_context(
            tpm.hierarchy(hierarchy).proof, _binding(tpm, handle, context.sequence), context.contextBlob
        )
    except WireError as wrong:
        raise RefusedError(wrong.rc) from None
    if value is None:
        raise in_parameter(TPM_RC.INTEGRITY, 1)
    if is_session:
        assert isinstance(value, Session)
        if not tpm.sessions.may_load(handle, context.sequence):
            raise in_parameter(TPM_RC.HANDLE, 1)
        tpm.sessions.load(value)
        return (handle,)
    if hierarchy != _NULL and not tpm.hierarchies[hierarchy].enabled:
        raise in_parameter(TPM_RC.HIERARCHY, 1)
    slot = need_slot(tpm)
    tpm.objects[slot] = value
    return (slot,)


def flush_context(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Free the slot of a loaded object, or end a session."""
    if tpm.sessions.is_active(handle):
        tpm.sessions.flush(handle)
        return ()
    if handle not in tpm.objects:
        in_range = handle >> 24 != TPM_HT.TRANSIENT or handle & 0xFFFFFF < tpm.profile.transient_slots
        raise in_parameter(TPM_RC.HANDLE if in_range else TPM_RC.VALUE, 1)
    del tpm.objects[handle]
    return ()


def evict_control(tpm: Tpm, auth: int, handle: int, persistent: int) -> tuple[Any, ...]:
    """Make an object persistent under a handle, or delete a persistent object."""
    loaded = object_at(tpm, handle)
    is_persistent = handle >> 24 == TPM_HT.PERSISTENT
    if loaded.is_sequence or loaded.until_startup or loaded.public_only:
        raise in_handle(TPM_RC.ATTRIBUTES, 2)
    if loaded.external or loaded.hierarchy == _NULL:
        raise in_handle(TPM_RC.ATTRIBUTES, 2)
    if is_persistent and handle != persistent:
        raise in_handle(TPM_RC.HANDLE, 2)
    of_platform = loaded.hierarchy == TPM_RH.PLATFORM
    if (auth == TPM_RH.PLATFORM) != of_platform and not (auth == TPM_RH.PLATFORM and is_persistent):
        raise in_handle(TPM_RC.HIERARCHY, 2)
    if is_persistent:
        del tpm.persistent[persistent]
        return ()
    if (persistent >= PLATFORM_PERSISTENT) != of_platform:
        raise in_parameter(TPM_RC.RANGE, 1)
    if persistent in tpm.persistent:
        raise RefusedError(TPM_RC.NV_DEFINED)
    if len(tpm.persistent) >= PERSISTENT_MAX:
        raise RefusedError(TPM_RC.NV_SPACE)
    tpm.persistent[persistent] = loaded
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.ContextLoad.value: context_load,
    TPM_CC.ContextSave.value: context_save,
    TPM_CC.EvictControl.value: evict_control,
    TPM_CC.FlushContext.value: flush_context,
}
"""The actions of this group, by command code."""
