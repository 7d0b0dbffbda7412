"""CreatePrimary, ReadPublic and FlushContext.

Models: P-256 primaries for signing (restricted or not), for key agreement and as storage parents, with the checks of
a template in the library's order.
Leaves out: other object types and curves, children, persistent objects, contexts.
Sources: TPM 2.0 Library part 3, chapters 12, 24, 28; part 1, chapters 25 to 27; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.commands.pcrs import present_pcrs
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CC, TPM_ECC, TPM_HT, TPM_RC, TPM_ST, TPMA_OBJECT
from sim.tpm.creation import derive_primary
from sim.tpm.hashing import hash_bytes
from sim.tpm.keys import LoadedObject, name_of, qualified_name
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.wire import (
    TPMS_CREATION_DATA,
    TPMS_ECC_PARMS,
    TPMS_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_TK_CREATION,
)

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "create_primary", "flush_context", "read_public", "selected_pcrs"]

_TEMPLATE = 2
_SENSITIVE = 1


def create_primary(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    hierarchy: int,
    sensitive: TPMS_SENSITIVE_CREATE,
    template: TPMT_PUBLIC,
    outside_info: bytes,
    creation_pcrs: tuple[TPMS_PCR_SELECTION, ...],
) -> tuple[Any, ...]:
    """Make the primary that belongs to the hierarchy's seed, the template and the sensitive data, and load it."""
    slot = tpm.free_slot()
    if slot is None:
        raise RefusedError(TPM_RC.OBJECT_MEMORY)
    _check_template(template)
    auth = sensitive.userAuth.rstrip(b"\0")
    if len(auth) > HASH_BYTES[template.nameAlg]:
        raise in_parameter(TPM_RC.SIZE, _SENSITIVE)
    secrets = tpm.hierarchy(hierarchy)
    public, private = derive_primary(secrets.seed, template, sensitive.data)
    name = name_of(public)
    handle = hierarchy.to_bytes(4, "big")
    pcr_select, pcr_digest = selected_pcrs(tpm, public.nameAlg, creation_pcrs)
    creation = TPMS_CREATION_DATA(
        pcrSelect=pcr_select,
        pcrDigest=pcr_digest,
        locality=1 << tpm.locality,
        parentNameAlg=TPM_ALG.NULL.value,
        parentName=handle,
        parentQualifiedName=handle,
        outsideInfo=outside_info,
    )
    creation_hash = hash_bytes(public.nameAlg, creation.encode())
    tpm.objects[slot] = LoadedObject(
        public=public,
        name=name,
        qualified_name=qualified_name(handle, name),
        hierarchy=hierarchy,
        auth=auth,
        private=private,
    )
    return (
        slot,
        public,
        creation,
        creation_hash,
        _ticket(hierarchy, secrets.proof, name, creation_hash),
        name,
    )


def _ticket(hierarchy: int, proof: bytes, name: bytes, creation_hash: bytes) -> TPMT_TK_CREATION:
    message = TPM_ST.CREATION.to_bytes(2, "big") + name + creation_hash
    return TPMT_TK_CREATION(
        tag=TPM_ST.CREATION.value, hierarchy=hierarchy, digest=hmac.digest(proof, message, "sha512")
    )


def _check_template(template: TPMT_PUBLIC) -> None:
    """Refuse a template that describes no possible P-256 primary."""
    parameters = template.parameters
    if template.type != TPM_ALG.ECC or not isinstance(parameters, TPMS_ECC_PARMS):
        raise in_parameter(TPM_RC.TYPE, _TEMPLATE)
    if parameters.scheme.scheme not in (TPM_ALG.ECDSA, TPM_ALG.ECDH, TPM_ALG.NULL):
        raise in_parameter(TPM_RC.SCHEME, _TEMPLATE)
    if parameters.curveID != TPM_ECC.NIST_P256:
        raise in_parameter(TPM_RC.CURVE, _TEMPLATE)
    if template.authPolicy and len(template.authPolicy) != HASH_BYTES[template.nameAlg]:
        raise in_parameter(TPM_RC.SIZE, _TEMPLATE)
    _check_attributes(template.objectAttributes)
    _check_use(template.objectAttributes, parameters)


def _check_attributes(attributes: int) -> None:
    def has(flag: TPMA_OBJECT) -> bool:
        return bool(attributes & flag)

    sign, decrypt = has(TPMA_OBJECT.sign), has(TPMA_OBJECT.decrypt)
    wrong = (
        not has(TPMA_OBJECT.sensitiveDataOrigin)
        or has(TPMA_OBJECT.fixedTPM) != has(TPMA_OBJECT.fixedParent)
        or (has(TPMA_OBJECT.encryptedDuplication) and has(TPMA_OBJECT.fixedTPM))
        or (not sign and not decrypt)
        or (has(TPMA_OBJECT.restricted) and sign and decrypt)
        or (has(TPMA_OBJECT.x509sign) and not sign)
    )
    if wrong:
        raise in_parameter(TPM_RC.ATTRIBUTES, _TEMPLATE)


def _check_use(attributes: int, parameters: TPMS_ECC_PARMS) -> None:
    """Refuse a scheme, key derivation or symmetric algorithm that does not fit what the key is for."""
    restricted = bool(attributes & TPMA_OBJECT.restricted)
    sign, decrypt = bool(attributes & TPMA_OBJECT.sign), bool(attributes & TPMA_OBJECT.decrypt)
    scheme = parameters.scheme.scheme
    if (sign and decrypt) or (restricted and decrypt):
        allowed: tuple[int, ...] = (TPM_ALG.NULL,)
    elif sign:
        allowed = (TPM_ALG.ECDSA,) if restricted else (TPM_ALG.ECDSA, TPM_ALG.NULL)
    else:
        allowed = (TPM_ALG.ECDH, TPM_ALG.NULL)
    if scheme not in allowed:
        raise in_parameter(TPM_RC.SCHEME, _TEMPLATE)
    is_parent, has_symmetric = restricted and decrypt, parameters.symmetric.algorithm != TPM_ALG.NULL
    if has_symmetric and not is_parent:
        raise in_parameter(TPM_RC.SYMMETRIC, _TEMPLATE)
    if parameters.kdf.scheme != TPM_ALG.NULL:
        raise in_parameter(TPM_RC.KDF, _TEMPLATE)
    if is_parent and not has_symmetric:
        raise in_parameter(TPM_RC.SYMMETRIC, _TEMPLATE)


def selected_pcrs(
    tpm: Tpm, hash_alg: int, selection: tuple[TPMS_PCR_SELECTION, ...]
) -> tuple[tuple[TPMS_PCR_SELECTION, ...], bytes]:
    """Return the part of the selection that exists, and the digest over its values."""
    present = [(each.hash, present_pcrs(tpm, each)) for each in selection]
    return tuple(TPMS_PCR_SELECTION.of(bank, pcrs) for bank, pcrs in present), tpm.pcrs.digest(
        hash_alg, present
    )


def read_public(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Return the public area, the name and the qualified name of a loaded object."""
    loaded = tpm.objects[handle]
    return (loaded.public, loaded.name, loaded.qualified_name)


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


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.CreatePrimary.value: create_primary,
    TPM_CC.FlushContext.value: flush_context,
    TPM_CC.ReadPublic.value: read_public,
}
"""The actions of this group, by command code."""
