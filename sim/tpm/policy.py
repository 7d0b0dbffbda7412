"""How assertions change a policy digest, for policy commands and for anybody who computes a policy beforehand.

Models: the chain of digests, and the two-step form of assertions that name an entity and a reference.
Leaves out: checks.
Source: TPM 2.0 Library part 3, 23.2 "Policy commands".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.tpm.constants import TPM_CC
from sim.tpm.hashing import hash_bytes

if TYPE_CHECKING:
    from sim.tpm.sessions import Session

__all__ = ["extend_policy", "extend_policy_named"]


def extend_policy(session: Session, code: TPM_CC, *parts: bytes) -> None:
    """Enter an assertion: its command code and its arguments."""
    message = session.policy.digest + code.to_bytes(4, "big") + b"".join(parts)
    session.policy.digest = hash_bytes(session.auth_hash, message)


def extend_policy_named(session: Session, code: TPM_CC, name: bytes, policy_ref: bytes) -> None:
    """Enter an assertion by an entity, with the caller's reference in a second step."""
    extend_policy(session, code, name)
    session.policy.digest = hash_bytes(session.auth_hash, session.policy.digest + policy_ref)
