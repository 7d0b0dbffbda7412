"""Audit: digests over commands and responses, of one session or of chosen commands of the whole TPM.

Models: the list of audited commands with counter and digest, and the digest and exclusiveness of an audit session.
Leaves out: signing the digests (`sim.tpm.commands.auditing`).
Sources: TPM 2.0 Library part 1, chapters 19.7 and 31; part 3, chapter 21; defaults measured on swtpm 0.7.1.
"""

from __future__ import annotations

from sim.tpm.authorization import Request
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CC, TPM_RH, TPMA_SESSION
from sim.tpm.hashing import hash_bytes

__all__ = ["CommandAudit", "audit_command", "audit_session"]


class CommandAudit:
    """Which commands are audited, how often a digest was begun, and the running digest (empty: none yet)."""

    def __init__(self) -> None:
        self.hash_alg = TPM_ALG.SHA512.value
        self.commands: tuple[int, ...] = (TPM_CC.SetCommandCodeAuditStatus.value,)
        self.counter = 0
        self.digest = b""

    def set_commands(self, add: tuple[int, ...], remove: tuple[int, ...]) -> None:
        """Add commands to the list and take others away; one of them stays for ever."""
        kept = (set(self.commands) | set(add)) - set(remove)
        kept.add(TPM_CC.SetCommandCodeAuditStatus.value)
        self.commands = tuple(sorted(kept))

    def begin_anew(self, hash_alg: int | None = None) -> None:
        """End the running digest, which the next audited command then begins again."""
        self.digest = b""
        if hash_alg is not None:
            self.hash_alg = hash_alg


def audit_command(audit: CommandAudit, cp_hash: bytes, rp_hash: bytes) -> None:
    """Enter an audited command that succeeded."""
    if not audit.digest:
        audit.counter += 1
        audit.digest = bytes(HASH_BYTES[audit.hash_alg])
    audit.digest = hash_bytes(audit.hash_alg, audit.digest + cp_hash + rp_hash)


def audit_session(request: Request, rp_hash: bytes) -> None:
    """Enter a command that succeeded under an audit session; a first or reset session becomes exclusive."""
    use = request.audit
    assert use is not None
    assert use.session is not None
    session, table = use.session, request.tpm.sessions
    if session.audit_digest is None or use.area.sessionAttributes & TPMA_SESSION.auditReset:
        session.audit_digest = bytes(HASH_BYTES[session.auth_hash])
        table.exclusive = session.handle
    elif table.exclusive != session.handle:
        table.exclusive = TPM_RH.NULL.value
    digest = session.audit_digest + request.cp_hash(session.auth_hash) + rp_hash
    session.audit_digest = hash_bytes(session.auth_hash, digest)
