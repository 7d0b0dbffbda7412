"""Tickets: proofs that this TPM itself did something, good only here.

Models: tickets of verified signatures, of authorisations with an end, and of digests that do not begin as attested
structures do; all under the proof of a hierarchy, so that Clear and a new seed void them.
Leaves out: tickets of creation, which stand where objects are made.
Source: TPM 2.0 Library part 2, 10.7 "Tickets".  The digests are this TPM's own affair.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from sim.tpm.constants import TPM_ST

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["auth_digest", "hashcheck_digest", "verified_digest"]


def verified_digest(tpm: Tpm, hierarchy: int, digest: bytes, key_name: bytes) -> bytes:
    """Return the digest of the ticket of a verified signature over `digest` by the key of that name."""
    return _mac(tpm, hierarchy, TPM_ST.VERIFIED, digest, key_name)


def hashcheck_digest(tpm: Tpm, hierarchy: int, hash_alg: int, digest: bytes) -> bytes:
    """Return the digest of the ticket that lets a restricted key sign `digest`."""
    return _mac(tpm, hierarchy, TPM_ST.HASHCHECK, hash_alg.to_bytes(2, "big"), digest)


def auth_digest(  # noqa: PLR0917 - what the ticket covers
    tpm: Tpm, tag: int, hierarchy: int, timeout: bytes, cp_hash: bytes, policy_ref: bytes, name: bytes
) -> bytes:
    """Return the digest of the ticket of an authorisation; it holds until the TPM's time starts anew."""
    epoch = tpm.boot_number.to_bytes(4, "big")
    return _mac(tpm, hierarchy, tag, timeout, epoch, _sized(cp_hash), _sized(policy_ref), name)


def _mac(tpm: Tpm, hierarchy: int, tag: int, *parts: bytes) -> bytes:
    return hmac.digest(tpm.hierarchy(hierarchy).proof, tag.to_bytes(2, "big") + b"".join(parts), "sha512")


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part
