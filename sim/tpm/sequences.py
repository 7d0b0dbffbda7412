"""Hash, HMAC, CMAC and event sequences: objects in transient slots that hash long data piece by piece.

Models: one state per hash, the rule about data that begins like the TPM's own structures, and hash tickets.
Leaves out: the commands (`sim.tpm.commands.sequences`).
Sources: TPM 2.0 Library part 1, chapter 32; part 3, chapters 15 and 17; RFC 2104.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_GENERATED_VALUE, TPM_RH, TPM_ST, TPMA_OBJECT
from sim.tpm.crypto.cmac import CmacState
from sim.tpm.crypto.midstate import HashState, block_bytes
from sim.tpm.hashing import hash_bytes
from sim.tpm.keys import LoadedObject
from sim.tpm.tickets import hashcheck_digest
from sim.tpm.wire import TPMT_PUBLIC, TPMT_SYM_DEF_OBJECT
from sim.tpm.wire.tickets import TPMT_TK_HASHCHECK

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["Sequence", "SequenceObject", "hash_ticket", "is_safe", "loaded_sequence"]

_GENERATED = TPM_GENERATED_VALUE.to_bytes(4, "big")
_NULL = TPM_ALG.NULL.value
_INNER, _OUTER = 0x36, 0x5C
_PUBLIC = TPMT_PUBLIC(
    type=_NULL,
    nameAlg=_NULL,
    objectAttributes=int(TPMA_OBJECT.userWithAuth | TPMA_OBJECT.noDA),
    authPolicy=b"",
    parameters=TPMT_SYM_DEF_OBJECT(algorithm=_NULL, keyBits=None, mode=None),
    unique=b"",
)


@frozen(kw_only=True)
class Sequence:
    """Digests under way; with a key it is an HMAC, with several states an event sequence."""

    states: tuple[HashState | CmacState, ...]
    key: bytes | None = None
    started: bool = False
    safe: bool = False
    """Whether the first piece shows that the data is no structure of the TPM's own."""

    @classmethod
    def of_hash(cls, hash_alg: int) -> Sequence:
        """Begin a hash sequence."""
        return cls(states=(HashState(hash_alg=hash_alg),))

    @classmethod
    def of_event(cls) -> Sequence:
        """Begin an event sequence, with every implemented hash."""
        return cls(states=tuple(HashState(hash_alg=alg) for alg in HASH_BYTES), started=True)

    @classmethod
    def of_hmac(cls, hash_alg: int, key: bytes) -> Sequence:
        """Begin an HMAC sequence."""
        size = block_bytes(hash_alg)
        padded = (hash_bytes(hash_alg, key) if len(key) > size else key).ljust(size, b"\0")
        inner = HashState(hash_alg=hash_alg).update(bytes(octet ^ _INNER for octet in padded))
        return cls(states=(inner,), key=padded, started=True)

    @classmethod
    def of_cmac(cls, algorithm: int, key: bytes) -> Sequence:
        """Begin a CMAC sequence."""
        return cls(states=(CmacState(algorithm=algorithm, key=key),), started=True)

    @property
    def is_event(self) -> bool:
        """Whether it ends in PCRs."""
        return len(self.states) > 1

    def update(self, data: bytes) -> Sequence:
        """Return the sequence after more data."""
        states = tuple(state.update(data) for state in self.states)
        if self.started:
            return evolve(self, states=states)
        return evolve(self, states=states, started=True, safe=len(data) >= len(_GENERATED) and is_safe(data))

    def digests(self) -> tuple[bytes, ...]:
        """Return the digest of each state (of an HMAC the code)."""
        if self.key is None:
            return tuple(state.digest() for state in self.states)
        outer = bytes(octet ^ _OUTER for octet in self.key)
        return tuple(
            hash_bytes(state.hash_alg, outer + state.digest())
            for state in self.states
            if isinstance(state, HashState)
        )


@frozen(kw_only=True)
class SequenceObject(LoadedObject):
    """A sequence in a transient slot: an object without a name whose type is null."""

    sequence: Sequence

    def compact(self) -> SequenceObject:
        """Return the same with as few bytes waiting as possible, for a context."""
        states = tuple(state.compact() for state in self.sequence.states)
        return evolve(self, sequence=evolve(self.sequence, states=states))


def loaded_sequence(sequence: Sequence, auth: bytes) -> SequenceObject:
    """Return the object of a new sequence."""
    return SequenceObject(
        public=_PUBLIC,
        name=b"",
        qualified_name=b"",
        hierarchy=TPM_RH.NULL.value,
        auth=auth.rstrip(b"\0"),
        private=b"",
        sequence=sequence,
    )


def is_safe(data: bytes) -> bool:
    """Tell that data does not begin like a structure of the TPM's own."""
    return not data.startswith(_GENERATED)


def hash_ticket(tpm: Tpm, hierarchy: int, hash_alg: int, digest: bytes, *, safe: bool) -> TPMT_TK_HASHCHECK:
    """Return the proof that this TPM made `digest`; an empty one in the null hierarchy or for unsafe data."""
    tag = TPM_ST.HASHCHECK.value
    if hierarchy == TPM_RH.NULL or not safe:
        return TPMT_TK_HASHCHECK(tag=tag, hierarchy=TPM_RH.NULL.value, digest=b"")
    return TPMT_TK_HASHCHECK(
        tag=tag, hierarchy=hierarchy, digest=hashcheck_digest(tpm, hierarchy, hash_alg, digest)
    )
