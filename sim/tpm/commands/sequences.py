"""HMAC_Start, HashSequenceStart, SequenceUpdate, SequenceComplete and EventSequenceComplete.

Models: sequences of each kind in transient slots.  Leaves out: sequences of PCR banks that are not implemented.
Sources: TPM 2.0 Library part 3, chapter 17; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sim.tpm.commands.pcrs import extend_pcr
from sim.tpm.commands.symmetric import mac_sequence
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC
from sim.tpm.pcr_log import plain_form
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.sequences import Sequence, SequenceObject, hash_ticket, loaded_sequence
from sim.tpm.wire import TPMT_HA

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS"]


def hash_sequence_start(tpm: Tpm, auth: bytes, hash_alg: int) -> tuple[Any, ...]:
    """Begin a hash sequence, or with the null algorithm an event sequence."""
    is_event = hash_alg == TPM_ALG.NULL
    return _load(tpm, Sequence.of_event() if is_event else Sequence.of_hash(hash_alg), auth)


def hmac_start(tpm: Tpm, key_handle: int, auth: bytes, hash_alg: int) -> tuple[Any, ...]:
    """Begin an HMAC (or CMAC) sequence with a loaded key."""
    return _load(tpm, mac_sequence(tpm, key_handle, hash_alg), auth)


def sequence_update(tpm: Tpm, handle: int, data: bytes) -> tuple[Any, ...]:
    """Add data to a sequence."""
    loaded = tpm.objects.get(handle)
    if not isinstance(loaded, SequenceObject):
        raise in_parameter(TPM_RC.MODE, 1)  # as measured: a handle that is blamed as a parameter
    tpm.objects[handle] = attrs.evolve(loaded, sequence=loaded.sequence.update(data))
    return ()


def sequence_complete(tpm: Tpm, handle: int, data: bytes, hierarchy: int) -> tuple[Any, ...]:
    """Add the last data, return the digest with its ticket (of an HMAC the code), and free the slot."""
    loaded = _sequence(tpm, handle, 1)
    if loaded.sequence.is_event:
        raise in_handle(TPM_RC.MODE, 1)
    sequence = loaded.sequence.update(data)
    (digest,) = sequence.digests()
    hash_alg = sequence.states[0].hash_alg
    del tpm.objects[handle]
    return (digest, hash_ticket(tpm, hierarchy, hash_alg, digest, safe=sequence.safe))


def event_sequence_complete(tpm: Tpm, pcr: int, handle: int, data: bytes) -> tuple[Any, ...]:
    """Add the last data of an event, extend a PCR with its digests, return them, and free the slot."""
    loaded = _sequence(tpm, handle, 2)
    if not loaded.sequence.is_event:
        raise in_handle(TPM_RC.MODE, 2)
    sequence = loaded.sequence.update(data)
    digests = tuple(
        TPMT_HA(hashAlg=state.hash_alg, digest=digest)
        for state, digest in zip(sequence.states, sequence.digests(), strict=True)
    )
    extend_pcr(tpm, pcr, digests, plain_form("EventSequenceComplete", tpm.locality))
    del tpm.objects[handle]
    return (digests,)


def _sequence(tpm: Tpm, handle: int, number: int) -> SequenceObject:
    loaded = tpm.objects.get(handle)
    if not isinstance(loaded, SequenceObject):
        raise in_handle(TPM_RC.MODE, number)
    return loaded


def _load(tpm: Tpm, sequence: Sequence, auth: bytes) -> tuple[Any, ...]:
    slot = tpm.free_slot()
    if slot is None:
        raise RefusedError(TPM_RC.OBJECT_MEMORY)
    tpm.objects[slot] = loaded_sequence(sequence, auth)
    return (slot,)


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.EventSequenceComplete.value: event_sequence_complete,
    TPM_CC.HMAC_Start.value: hmac_start,
    TPM_CC.HashSequenceStart.value: hash_sequence_start,
    TPM_CC.SequenceComplete.value: sequence_complete,
    TPM_CC.SequenceUpdate.value: sequence_update,
}
"""The actions of this group, by command code."""
