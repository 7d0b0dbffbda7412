"""What a handle stands for, as far as authorisation is concerned.

Models: one view of hierarchies, the lockout, PCRs, NV indices and loaded or persistent objects: name, authorisation
value, policy, and protection against guessing; and whether a handle names anything at all.
Leaves out: what can be done with the entity.
Sources: TPM 2.0 Library part 1, chapters 15, 16 and 19; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from sim.tpm.constants import TPM_ALG, TPM_HT, TPM_RC, TPM_RH, TPMA_NV, TPMA_OBJECT
from sim.tpm.pcr import AUTH_PCRS
from sim.tpm.refusal import RefusedError, in_handle

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["Entity", "entity_of", "name_of_handle", "need_present", "object_at"]

_NO_POLICY = TPM_ALG.NULL.value
_SWITCHED = frozenset({TPM_RH.OWNER.value, TPM_RH.ENDORSEMENT.value, TPM_RH.PLATFORM.value})
_SESSION_KINDS = (TPM_HT.HMAC_SESSION, TPM_HT.POLICY_SESSION)
PLATFORM_PERSISTENT = 0x8180_0000
"""The first persistent handle that is the platform's; those before are the owner's."""
_OBJECT_KINDS = (TPM_HT.TRANSIENT, TPM_HT.PERSISTENT)


@frozen(kw_only=True)
class Entity:
    """The authorisation side of whatever a handle names; `attributes` are TPMA_OBJECT or TPMA_NV bits."""

    handle: int
    name: bytes
    auth: bytes = b""
    policy: bytes = b""
    policy_alg: int = _NO_POLICY
    guarded: bool = False
    """Whether failed authorisations count against guessing."""
    attributes: int = 0
    has_secret: bool = True
    """Whether it can be authorised at all: not an object of which only the public area is loaded."""

    @property
    def kind(self) -> int:
        """The type of the handle (TPM_HT)."""
        return self.handle >> 24


def entity_of(tpm: Tpm, handle: int) -> Entity:
    """Return the entity of a handle that `need_present` found."""
    kind = handle >> 24
    if kind in _OBJECT_KINDS:
        return _object_entity(handle, object_at(tpm, handle))
    if kind == TPM_HT.NV_INDEX:
        return _nv_entity(tpm, handle)
    name = handle.to_bytes(4, "big")
    hierarchy = tpm.hierarchies.get(handle)
    if hierarchy is None:
        if handle in AUTH_PCRS:
            pcrs = tpm.pcrs
            return Entity(
                handle=handle, name=name, auth=pcrs.auth, policy=pcrs.policy, policy_alg=pcrs.policy_alg
            )
        return Entity(handle=handle, name=name)
    return Entity(
        handle=handle,
        name=name,
        auth=hierarchy.auth,
        policy=hierarchy.policy,
        policy_alg=hierarchy.policy_alg,
        guarded=handle == TPM_RH.LOCKOUT,
    )


def object_at(tpm: Tpm, handle: int) -> Any:
    """Return the loaded or persistent object that a handle names."""
    return tpm.objects[handle] if handle >> 24 == TPM_HT.TRANSIENT else tpm.persistent[handle]


def name_of_handle(tpm: Tpm, handle: int) -> bytes:
    """Return the name that enters cpHash and nameHash: of objects and indices their Name, else the handle."""
    kind = handle >> 24
    if kind in _OBJECT_KINDS:
        name: bytes = object_at(tpm, handle).name
        return name
    if kind == TPM_HT.NV_INDEX:
        return tpm.nv[handle].name
    return handle.to_bytes(4, "big")


def need_present(tpm: Tpm, handle: int, number: int) -> None:
    """Refuse a handle that names nothing, or something in a hierarchy that is switched off."""
    kind = handle >> 24
    if kind == TPM_HT.TRANSIENT:
        if handle not in tpm.objects:
            raise RefusedError(TPM_RC.REFERENCE_H0 + number - 1)
    elif kind == TPM_HT.PERSISTENT:
        _need_persistent(tpm, handle, number)
    elif kind == TPM_HT.NV_INDEX:
        index = tpm.nv.get(handle)
        if index is None or not _index_is_on(tpm, index.public.attributes):
            raise in_handle(TPM_RC.HANDLE, number)
    elif kind in _SESSION_KINDS:
        if handle not in tpm.sessions.loaded:
            if tpm.sessions.is_loaded_otherwise(handle):
                raise in_handle(TPM_RC.HANDLE, number)
            raise RefusedError(TPM_RC.REFERENCE_H0 + number - 1)
    elif handle in _SWITCHED and not tpm.hierarchies[handle].enabled:
        raise in_handle(TPM_RC.HIERARCHY, number)


def _need_persistent(tpm: Tpm, handle: int, number: int) -> None:
    """Refuse a persistent object that is not there; while it is used, it takes a transient slot."""
    ruler = TPM_RH.PLATFORM if handle >= PLATFORM_PERSISTENT else TPM_RH.OWNER
    if not tpm.hierarchies[ruler].enabled:
        raise in_handle(TPM_RC.HANDLE, number)
    slot = tpm.free_slot()  # into which the object comes while it is used
    if slot is None:
        raise RefusedError(TPM_RC.OBJECT_MEMORY)
    tpm.borrowed_slots.append(slot)
    kept = tpm.persistent.get(handle)
    if kept is None or not _is_on(tpm, kept.hierarchy):
        raise in_handle(TPM_RC.HANDLE, number)


def _is_on(tpm: Tpm, hierarchy: int) -> bool:
    found = tpm.hierarchies.get(hierarchy)
    return found is None or found.enabled


def _index_is_on(tpm: Tpm, attributes: int) -> bool:
    if attributes & TPMA_NV.PLATFORMCREATE:
        return tpm.platform_nv_enabled
    return tpm.hierarchies[TPM_RH.OWNER].enabled


def _object_entity(handle: int, loaded: Any) -> Entity:
    public = getattr(loaded, "public", None)
    if public is None:  # a hash or HMAC sequence has an authorisation value and nothing else
        return Entity(handle=handle, name=loaded.name, auth=loaded.auth, attributes=TPMA_OBJECT.userWithAuth)
    return Entity(
        handle=handle,
        name=loaded.name,
        auth=loaded.auth,
        policy=public.authPolicy,
        policy_alg=public.nameAlg,
        guarded=not public.objectAttributes & TPMA_OBJECT.noDA,
        attributes=public.objectAttributes,
        has_secret=not loaded.public_only,
    )


def _nv_entity(tpm: Tpm, handle: int) -> Entity:
    index = tpm.nv[handle]
    public = index.public
    return Entity(
        handle=handle,
        name=index.name,
        auth=index.auth,
        policy=public.authPolicy,
        policy_alg=public.nameAlg,
        guarded=not public.attributes & TPMA_NV.NO_DA,
        attributes=public.attributes,
    )
