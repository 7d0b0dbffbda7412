"""From areas to a slot: creating, loading and placing objects; what the object commands share.

Models: slots, the checks of loading, names, and the inheritance of hierarchy and stClear.
Leaves out: the commands themselves.
Sources: TPM 2.0 Library part 1, 16 (names) and 30 (contexts); part 3, chapter 12; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from sim.tpm.codec import WireError
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_RC, TPMA_OBJECT
from sim.tpm.creation import Secrets
from sim.tpm.hashing import algorithm_of_name
from sim.tpm.keys import LoadedObject, name_of, qualified_name
from sim.tpm.object_rules import check_attributes, check_pair, check_schemes
from sim.tpm.protection import decode_sensitive, encode_sensitive, storage_wrapper
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.wire import TPMT_PUBLIC
from sim.tpm.wire.private import TPMT_SENSITIVE

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = [
    "check_load",
    "fitting_auth",
    "need_slot",
    "new_object",
    "place_external",
    "private_area",
    "read_private_area",
]


def need_slot(tpm: Tpm) -> int:
    """Return the handle of a free slot; refuse where there is none."""
    slot = tpm.free_slot()
    if slot is None:
        raise RefusedError(TPM_RC.OBJECT_MEMORY)
    return slot


def fitting_auth(auth: bytes, name_alg: int, number: int) -> bytes:
    """Return an authorisation value without trailing zeros; refuse one longer than a digest of the name algorithm."""
    auth = auth.rstrip(b"\0")
    if len(auth) > HASH_BYTES.get(name_alg, 0):
        raise in_parameter(TPM_RC.SIZE, number)
    return auth


def new_object(
    secrets: Secrets, auth: bytes, *, hierarchy: int, parent: LoadedObject | None = None
) -> LoadedObject:
    """Return an object under `parent`, or a primary of a hierarchy."""
    public = secrets.public
    name = name_of(public)
    above = parent.qualified_name if parent is not None else hierarchy.to_bytes(4, "big")
    return LoadedObject(
        public=public,
        name=name,
        qualified_name=qualified_name(above, name),
        hierarchy=hierarchy,
        auth=auth,
        private=secrets.private,
        seed_value=secrets.seed_value,
        until_startup=bool(public.objectAttributes & TPMA_OBJECT.stClear)
        or (parent is not None and parent.until_startup),
    )


def place_external(public: TPMT_PUBLIC, sensitive: TPMT_SENSITIVE | None, hierarchy: int) -> LoadedObject:
    """Return an object from outside, with or without its sensitive area."""
    seed_value = sensitive.seedValue if sensitive is not None else b""
    private = sensitive.sensitive if sensitive is not None else b""
    auth = sensitive.authValue.rstrip(b"\0") if sensitive is not None else b""
    made = new_object(
        Secrets(public=public, private=private, seed_value=seed_value), auth, hierarchy=hierarchy
    )
    return attrs.evolve(made, qualified_name=made.name, external=True, public_only=sensitive is None)


def check_load(
    parent: LoadedObject | None,
    public: TPMT_PUBLIC,
    sensitive: TPMT_SENSITIVE | None,
    blame_public: int,
    blame_sensitive: int,
) -> None:
    """Refuse what cannot be loaded; a parent with fixedTPM vouches for the key values."""
    if sensitive is None or public.nameAlg == TPM_ALG.NULL:
        check_schemes(None, public, blame_public)
    else:
        if len(sensitive.seedValue) > HASH_BYTES[public.nameAlg]:
            raise in_parameter(TPM_RC.KEY_SIZE, blame_sensitive)
        check_attributes(parent, public, blame_public)
    if parent is None or not parent.attributes & TPMA_OBJECT.fixedTPM:
        check_pair(public, sensitive, blame_public, blame_sensitive)


def private_area(tpm: Tpm, parent: LoadedObject, name: bytes, sensitive: TPMT_SENSITIVE) -> bytes:
    """Return the sensitive area of a child, wrapped under its parent."""
    wrapper = storage_wrapper(parent.public, parent.seed_value, has_vector=True)
    return wrapper.wrap(name, encode_sensitive(sensitive, algorithm_of_name(name)), tpm.random)


def read_private_area(parent: LoadedObject, name: bytes, private: bytes, number: int) -> TPMT_SENSITIVE:
    """Return the sensitive area that was wrapped under a parent; refuse, blaming parameter `number`, any other."""
    wrapper = storage_wrapper(parent.public, parent.seed_value, has_vector=True)
    try:
        return decode_sensitive(wrapper.unwrap(name, private))
    except WireError as wrong:
        raise in_parameter(wrong.rc, number) from None
