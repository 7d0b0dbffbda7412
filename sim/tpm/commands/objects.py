"""CreatePrimary, Create, CreateLoaded, Load, LoadExternal, ReadPublic, Unseal, ObjectChangeAuth and TestParms.

Models: objects of all four types as primaries, children and derived objects, with the checks of the library in its
order; creation data and tickets.
Leaves out: persistent objects, contexts, duplication and credentials, which are groups of their own.
Sources: TPM 2.0 Library part 3, chapters 12, 24 and 29; part 1, chapters 25 to 28; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sim.tpm.commands.pcrs import present_pcrs
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_ST, TPMA_OBJECT
from sim.tpm.creation import CreationError, DrawnSource, Secrets, Source, make_secrets, primary_source
from sim.tpm.derived import derived_source, read_template
from sim.tpm.entities import object_at
from sim.tpm.hashing import hash_bytes
from sim.tpm.keys import LoadedObject, name_of, qualified_name
from sim.tpm.loading import (
    check_load,
    fitting_auth,
    need_slot,
    new_object,
    place_external,
    private_area,
    read_private_area,
)
from sim.tpm.object_rules import check_creation
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.wire import (
    TPMS_CREATION_DATA,
    TPMS_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_TK_CREATION,
)
from sim.tpm.wire.private import TPMT_PUBLIC_PARMS, TPMT_SENSITIVE

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = [
    "ACTIONS",
    "create",
    "create_loaded",
    "create_primary",
    "creation_ticket",
    "load",
    "load_external",
    "object_change_auth",
    "read_public",
    "selected_pcrs",
    "test_parms",
    "unseal",
]

_SENSITIVE, _TEMPLATE = 1, 2
_PRIVATE, _PUBLIC = 1, 2
_HIERARCHY = 3
_PARENT_KINDS = (0x80, 0x81)
_REFUSALS = {"size": TPM_RC.SIZE, "key size": TPM_RC.KEY_SIZE, "key": TPM_RC.KEY, "range": TPM_RC.RANGE}


def create_primary(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    hierarchy: int,
    sensitive: TPMS_SENSITIVE_CREATE,
    template: TPMT_PUBLIC,
    outside_info: bytes,
    creation_pcrs: tuple[TPMS_PCR_SELECTION, ...],
) -> tuple[Any, ...]:
    """Make the primary that belongs to the hierarchy's seed, the template and the sensitive data, and load it."""
    slot = need_slot(tpm)
    check_creation(None, template, len(sensitive.data), _TEMPLATE)
    auth = fitting_auth(sensitive.userAuth, template.nameAlg, _SENSITIVE)
    source = primary_source(tpm.hierarchy(hierarchy).seed, template, sensitive.data)
    made = new_object(_secrets(template, sensitive.data, source), auth, hierarchy=hierarchy)
    creation = _creation_data(tpm, None, hierarchy, made, outside_info, creation_pcrs)
    tpm.objects[slot] = made
    return (slot, made.public, *_proof(tpm, made, creation), made.name)


def create(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    parent_handle: int,
    sensitive: TPMS_SENSITIVE_CREATE,
    template: TPMT_PUBLIC,
    outside_info: bytes,
    creation_pcrs: tuple[TPMS_PCR_SELECTION, ...],
) -> tuple[Any, ...]:
    """Make an object under a storage parent and return it wrapped; it is not loaded."""
    parent = _need_parent(tpm, parent_handle)
    if parent.is_derivation_parent:
        raise in_handle(TPM_RC.TYPE, 1)
    need_slot(tpm)
    check_creation(parent, template, len(sensitive.data), _TEMPLATE)
    auth = fitting_auth(sensitive.userAuth, template.nameAlg, _SENSITIVE)
    made = new_object(
        _secrets(template, sensitive.data, DrawnSource(tpm.random)),
        auth,
        hierarchy=parent.hierarchy,
        parent=parent,
    )
    creation = _creation_data(tpm, parent, parent.hierarchy, made, outside_info, creation_pcrs)
    private = private_area(tpm, parent, made.name, made.sensitive)
    return (private, made.public, *_proof(tpm, made, creation))


def create_loaded(
    tpm: Tpm, parent_handle: int, sensitive: TPMS_SENSITIVE_CREATE, template_bytes: bytes
) -> tuple[Any, ...]:
    """Make a primary, a child or a derived object, and load it."""
    parent = _need_parent(tpm, parent_handle) if parent_handle >> 24 in _PARENT_KINDS else None
    slot = need_slot(tpm)
    derived = parent is not None and parent.is_derivation_parent
    template, label = read_template(template_bytes, sensitive.data, derived=derived, number=_TEMPLATE)
    auth = fitting_auth(sensitive.userAuth, template.nameAlg, _SENSITIVE)
    check_creation(parent, template, len(sensitive.data), _TEMPLATE)
    if parent is None:
        source: Source = primary_source(tpm.hierarchy(parent_handle).seed, template, sensitive.data)
    elif label is not None:
        source = derived_source(parent, label)
    else:
        source = DrawnSource(tpm.random)
    hierarchy = parent.hierarchy if parent is not None else parent_handle
    secrets = _secrets(template, b"" if derived else sensitive.data, source)
    made = new_object(secrets, auth, hierarchy=hierarchy, parent=parent)
    private = b""
    if parent is not None and not derived:
        private = private_area(tpm, parent, made.name, made.sensitive)
    tpm.objects[slot] = made
    return (slot, private, made.public, made.name)


def _need_parent(tpm: Tpm, handle: int) -> LoadedObject:
    parent: LoadedObject = object_at(tpm, handle)
    if parent.is_sequence or not parent.is_parent or parent.public_only:
        raise in_handle(TPM_RC.TYPE, 1)
    return parent


def _secrets(template: TPMT_PUBLIC, data: bytes, source: Source) -> Secrets:
    try:
        return make_secrets(template, data, source)
    except CreationError as wrong:
        raise RefusedError(_REFUSALS[wrong.what]) from None


def _creation_data(  # noqa: PLR0917 - what the structure holds
    tpm: Tpm,
    parent: LoadedObject | None,
    hierarchy: int,
    made: LoadedObject,
    outside_info: bytes,
    creation_pcrs: tuple[TPMS_PCR_SELECTION, ...],
) -> TPMS_CREATION_DATA:
    handle = hierarchy.to_bytes(4, "big")
    pcr_select, pcr_digest = selected_pcrs(tpm, made.public.nameAlg, creation_pcrs)
    return TPMS_CREATION_DATA(
        pcrSelect=pcr_select,
        pcrDigest=pcr_digest,
        locality=1 << tpm.locality,
        parentNameAlg=parent.public.nameAlg if parent is not None else TPM_ALG.NULL.value,
        parentName=parent.name if parent is not None else handle,
        parentQualifiedName=parent.qualified_name if parent is not None else handle,
        outsideInfo=outside_info,
    )


def _proof(
    tpm: Tpm, made: LoadedObject, creation: TPMS_CREATION_DATA
) -> tuple[TPMS_CREATION_DATA, bytes, TPMT_TK_CREATION]:
    creation_hash = hash_bytes(made.public.nameAlg, creation.encode())
    return creation, creation_hash, creation_ticket(tpm, made.hierarchy, made.name, creation_hash)


def creation_ticket(tpm: Tpm, hierarchy: int, name: bytes, creation_hash: bytes) -> TPMT_TK_CREATION:
    """Return the proof that this TPM made an object with that creation data."""
    message = TPM_ST.CREATION.to_bytes(2, "big") + name + creation_hash
    digest = hmac.digest(tpm.hierarchy(hierarchy).proof, message, "sha512")
    return TPMT_TK_CREATION(tag=TPM_ST.CREATION.value, hierarchy=hierarchy, digest=digest)


def selected_pcrs(
    tpm: Tpm, hash_alg: int, selection: tuple[TPMS_PCR_SELECTION, ...]
) -> tuple[tuple[TPMS_PCR_SELECTION, ...], bytes]:
    """Return the part of the selection that exists, and the digest over its values."""
    present = [(each.hash, present_pcrs(tpm, each)) for each in selection]
    return tuple(TPMS_PCR_SELECTION.of(bank, pcrs) for bank, pcrs in present), tpm.pcrs.digest(
        hash_alg, present
    )


def load(tpm: Tpm, parent_handle: int, private: bytes, public: TPMT_PUBLIC) -> tuple[Any, ...]:
    """Load an object that was wrapped under a parent."""
    slot = need_slot(tpm)
    if not private:
        raise in_parameter(TPM_RC.SIZE, _PRIVATE)
    parent = _need_parent(tpm, parent_handle)
    if parent.is_derivation_parent:
        raise in_handle(TPM_RC.TYPE, 1)
    sensitive = read_private_area(parent, name_of(public), private, _PRIVATE)
    check_load(parent, public, sensitive, _PUBLIC, _PRIVATE)
    secrets = Secrets(public=public, private=sensitive.sensitive, seed_value=sensitive.seedValue)
    auth = sensitive.authValue.rstrip(b"\0")
    made = new_object(secrets, auth, hierarchy=parent.hierarchy, parent=parent)
    tpm.objects[slot] = made
    return (slot, made.name)


def load_external(
    tpm: Tpm, sensitive: TPMT_SENSITIVE | None, public: TPMT_PUBLIC, hierarchy: int
) -> tuple[Any, ...]:
    """Load a public key, or an object in the clear that no TPM protects."""
    slot = need_slot(tpm)
    if hierarchy != TPM_RH.NULL and not tpm.hierarchies[hierarchy].enabled:
        raise in_parameter(TPM_RC.HIERARCHY, _HIERARCHY)
    if sensitive is not None:
        if hierarchy != TPM_RH.NULL:
            raise in_parameter(TPM_RC.HIERARCHY, _HIERARCHY)
        bound = TPMA_OBJECT.fixedTPM | TPMA_OBJECT.fixedParent | TPMA_OBJECT.restricted
        if public.objectAttributes & bound:
            raise in_parameter(TPM_RC.ATTRIBUTES, _PUBLIC)
    check_load(None, public, sensitive, _PUBLIC, _PRIVATE)
    made = place_external(public, sensitive, hierarchy)
    tpm.objects[slot] = made
    return (slot, made.name)


def read_public(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Return the public area, the name and the qualified name of an object."""
    loaded = object_at(tpm, handle)
    if loaded.is_sequence:
        raise RefusedError(TPM_RC.SEQUENCE)
    return (loaded.public, loaded.name, loaded.qualified_name)


def unseal(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Return the data of a sealed object."""
    loaded = object_at(tpm, handle)
    if loaded.is_sequence or loaded.public.type != TPM_ALG.KEYEDHASH:
        raise in_handle(TPM_RC.TYPE, 1)
    if loaded.attributes & (TPMA_OBJECT.sign | TPMA_OBJECT.decrypt | TPMA_OBJECT.restricted):
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    return (loaded.private,)


def object_change_auth(tpm: Tpm, handle: int, parent_handle: int, new_auth: bytes) -> tuple[Any, ...]:
    """Return the object's sensitive area with another authorisation value; what is loaded stays as it is."""
    loaded = object_at(tpm, handle)
    if loaded.is_sequence:
        raise in_handle(TPM_RC.TYPE, 1)
    auth = fitting_auth(new_auth, loaded.public.nameAlg, 1)
    parent = object_at(tpm, parent_handle)
    if parent.is_sequence or qualified_name(parent.qualified_name, loaded.name) != loaded.qualified_name:
        raise in_handle(TPM_RC.TYPE, 2)
    sensitive = attrs.evolve(loaded.sensitive, authValue=auth)
    return (private_area(tpm, parent, loaded.name, sensitive),)


def test_parms(tpm: Tpm, parameters: TPMT_PUBLIC_PARMS) -> tuple[Any, ...]:
    """Accept the parameters of an object type: what is not implemented was refused when they were read."""
    del tpm, parameters
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.Create.value: create,
    TPM_CC.CreateLoaded.value: create_loaded,
    TPM_CC.CreatePrimary.value: create_primary,
    TPM_CC.Load.value: load,
    TPM_CC.LoadExternal.value: load_external,
    TPM_CC.ObjectChangeAuth.value: object_change_auth,
    TPM_CC.ReadPublic.value: read_public,
    TPM_CC.TestParms.value: test_parms,
    TPM_CC.Unseal.value: unseal,
}
"""The actions of this group, by command code."""
