"""The policy commands that need no key and no secret: PCRs, locality, NV, clock, commands, hashes, alternatives.

Models: each assertion's effect on the policy digest, and in a real session its check or the condition that it leaves
for the authorised command.
Leaves out: assertions by signature, secret, ticket or authorisation of another policy (`policy_signers`).
Sources: TPM 2.0 Library part 3, chapter 23; part 1, 19.7; digests equal to those of swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.commands.nvram import need_readable
from sim.tpm.commands.pcrs import present_pcrs
from sim.tpm.constants import HASH_BYTES, TPM_CC, TPM_EO, TPM_RC
from sim.tpm.hashing import hash_bytes
from sim.tpm.policy import extend_policy
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import TPML_PCR_SELECTION, TPMS_PCR_SELECTION

if TYPE_CHECKING:
    from sim.tpm.device import Tpm
    from sim.tpm.sessions import Session

__all__ = ["ACTIONS"]

_OR_BRANCHES_MIN = 2
_EXTENDED_LOCALITY = 32
_TIME_BYTES = 25
_OPERAND, _OFFSET = 1, 2


def policy_or(tpm: Tpm, handle: int, branches: tuple[bytes, ...]) -> tuple[Any, ...]:
    """Replace the digest by that of a list of alternatives, one of which must be met."""
    session = tpm.sessions.loaded[handle]
    if len(branches) < _OR_BRANCHES_MIN:
        raise in_parameter(TPM_RC.SIZE, 1)
    if not session.is_trial and session.policy.digest not in branches:
        raise in_parameter(TPM_RC.VALUE, 1)
    session.policy.digest = bytes(HASH_BYTES[session.auth_hash])
    extend_policy(session, TPM_CC.PolicyOR, *branches)
    return ()


def policy_pcr(
    tpm: Tpm, handle: int, expected: bytes, selection: tuple[TPMS_PCR_SELECTION, ...]
) -> tuple[Any, ...]:
    """Demand that the selected PCRs have their present values, and that none changes until the use."""
    session = tpm.sessions.loaded[handle]
    present = [(each.hash, present_pcrs(tpm, each)) for each in selection]
    digest = tpm.pcrs.digest(session.auth_hash, present)
    if session.is_trial:
        digest = expected or digest
    else:
        counter = session.policy.pcr_counter
        if counter is not None and counter != tpm.pcrs.update_counter:
            raise RefusedError(TPM_RC.PCR_CHANGED)
        if expected and expected != digest:
            raise in_parameter(TPM_RC.VALUE, 1)
        session.policy.pcr_counter = tpm.pcrs.update_counter
    chosen = tuple(TPMS_PCR_SELECTION.of(bank, pcrs) for bank, pcrs in present)
    extend_policy(session, TPM_CC.PolicyPCR, TPML_PCR_SELECTION.encode(chosen), digest)
    return ()


def policy_locality(tpm: Tpm, handle: int, locality: int) -> tuple[Any, ...]:
    """Allow only certain localities: a set of 0 to 4, or one from 32 on."""
    session = tpm.sessions.loaded[handle]
    before = session.policy.locality
    if not locality:
        raise in_parameter(TPM_RC.RANGE, 1)
    left = locality
    if before:
        extended = max(before, locality) >= _EXTENDED_LOCALITY
        left = (locality if locality == before else 0) if extended else locality & before
        if not left:
            raise in_parameter(TPM_RC.RANGE, 1)
    session.policy.locality = left
    extend_policy(session, TPM_CC.PolicyLocality, bytes([locality]))
    return ()


def policy_nv(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm, authority: int, nv_index: int, handle: int, operand: bytes, offset: int, operation: int
) -> tuple[Any, ...]:
    """Demand a relation between part of an index and an operand."""
    session = tpm.sessions.loaded[handle]
    index = tpm.nv[nv_index]
    if not session.is_trial:
        content = need_readable(tpm, authority, nv_index).content
        assert content is not None
        if offset > index.public.dataSize:
            raise in_parameter(TPM_RC.VALUE, _OFFSET)
        if offset + len(operand) > index.public.dataSize:
            raise in_parameter(TPM_RC.SIZE, _OPERAND)
        _need_relation(content[offset : offset + len(operand)], operand, operation)
    arguments = _arguments(session, operand, offset, operation)
    extend_policy(session, TPM_CC.PolicyNV, arguments, index.name)
    return ()


def policy_counter_timer(
    tpm: Tpm, handle: int, operand: bytes, offset: int, operation: int
) -> tuple[Any, ...]:
    """Demand a relation between part of the time information and an operand."""
    session = tpm.sessions.loaded[handle]
    if offset > _TIME_BYTES:
        raise in_parameter(TPM_RC.VALUE, _OFFSET)
    if offset + len(operand) > _TIME_BYTES:
        raise RefusedError(TPM_RC.RANGE)
    if not session.is_trial:
        info = tpm.time.time_info(tpm.clock.now).encode()
        _need_relation(info[offset : offset + len(operand)], operand, operation)
    extend_policy(session, TPM_CC.PolicyCounterTimer, _arguments(session, operand, offset, operation))
    return ()


def _arguments(session: Session, operand: bytes, offset: int, operation: int) -> bytes:
    described = operand + offset.to_bytes(2, "big") + operation.to_bytes(2, "big")
    return hash_bytes(session.auth_hash, described)


def _need_relation(have: bytes, want: bytes, operation: int) -> None:
    """Refuse unless `have operation want` holds; both have one length."""
    unsigned = int.from_bytes(have, "big"), int.from_bytes(want, "big")
    signed = int.from_bytes(have, "big", signed=True), int.from_bytes(want, "big", signed=True)
    holds = {
        TPM_EO.EQ: have == want,
        TPM_EO.NEQ: have != want,
        TPM_EO.SIGNED_GT: signed[0] > signed[1],
        TPM_EO.UNSIGNED_GT: unsigned[0] > unsigned[1],
        TPM_EO.SIGNED_LT: signed[0] < signed[1],
        TPM_EO.UNSIGNED_LT: unsigned[0] < unsigned[1],
        TPM_EO.SIGNED_GE: signed[0] >= signed[1],
        TPM_EO.UNSIGNED_GE: unsigned[0] >= unsigned[1],
        TPM_EO.SIGNED_LE: signed[0] <= signed[1],
        TPM_EO.UNSIGNED_LE: unsigned[0] <= unsigned[1],
        TPM_EO.BITSET: unsigned[0] & unsigned[1] == unsigned[1],
        TPM_EO.BITCLEAR: unsigned[0] & unsigned[1] == 0,
    }
    if not holds[TPM_EO(operation)]:
        raise RefusedError(TPM_RC.POLICY)


def policy_command_code(tpm: Tpm, handle: int, code: int) -> tuple[Any, ...]:
    """Allow only one command."""
    session = tpm.sessions.loaded[handle]
    if session.policy.command_code not in (0, code):
        raise in_parameter(TPM_RC.VALUE, 1)
    if code not in COMMANDS:
        raise in_parameter(TPM_RC.POLICY_CC, 1)
    session.policy.command_code = code
    extend_policy(session, TPM_CC.PolicyCommandCode, code.to_bytes(4, "big"))
    return ()


def policy_physical_presence(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Demand that somebody is present at the machine."""
    session = tpm.sessions.loaded[handle]
    session.policy.needs_presence = True
    extend_policy(session, TPM_CC.PolicyPhysicalPresence)
    return ()


def policy_cp_hash(tpm: Tpm, handle: int, cp_hash: bytes) -> tuple[Any, ...]:
    """Allow only one command with its very handles and parameters."""
    session = tpm.sessions.loaded[handle]
    policy = session.policy
    _need_digest_size(session, cp_hash)
    if policy.name_hash or policy.template_hash or policy.cp_hash not in (b"", cp_hash):
        raise RefusedError(TPM_RC.CPHASH)
    policy.cp_hash = cp_hash
    extend_policy(session, TPM_CC.PolicyCpHash, cp_hash)
    return ()


def policy_name_hash(tpm: Tpm, handle: int, name_hash: bytes) -> tuple[Any, ...]:
    """Allow only commands on certain entities."""
    session = tpm.sessions.loaded[handle]
    _need_digest_size(session, name_hash)
    _need_no_hash(session)
    session.policy.name_hash = name_hash
    extend_policy(session, TPM_CC.PolicyNameHash, name_hash)
    return ()


def policy_template(tpm: Tpm, handle: int, template_hash: bytes) -> tuple[Any, ...]:
    """Allow only creation from one template."""
    session = tpm.sessions.loaded[handle]
    policy = session.policy
    if policy.cp_hash or policy.name_hash:
        raise RefusedError(TPM_RC.CPHASH)
    if policy.template_hash not in (b"", template_hash):
        raise in_parameter(TPM_RC.VALUE, 1)
    _need_digest_size(session, template_hash)
    policy.template_hash = template_hash
    extend_policy(session, TPM_CC.PolicyTemplate, template_hash)
    return ()


def policy_duplication_select(
    tpm: Tpm, handle: int, object_name: bytes, parent_name: bytes, include_object: int
) -> tuple[Any, ...]:
    """Allow only duplication to one new parent, of one object or of any."""
    session = tpm.sessions.loaded[handle]
    _need_no_hash(session)
    if session.policy.command_code:
        raise RefusedError(TPM_RC.COMMAND_CODE)
    session.policy.name_hash = hash_bytes(session.auth_hash, object_name + parent_name)
    session.policy.command_code = TPM_CC.Duplicate.value
    named = object_name if include_object else b""
    extend_policy(session, TPM_CC.PolicyDuplicationSelect, named, parent_name, bytes([include_object]))
    return ()


def _need_digest_size(session: Session, digest: bytes) -> None:
    if len(digest) != HASH_BYTES[session.auth_hash]:
        raise in_parameter(TPM_RC.SIZE, 1)


def _need_no_hash(session: Session) -> None:
    policy = session.policy
    if policy.cp_hash or policy.name_hash or policy.template_hash:
        raise RefusedError(TPM_RC.CPHASH)


def policy_auth_value(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Demand the entity's authorisation value, as part of the HMAC key."""
    session = tpm.sessions.loaded[handle]
    session.policy.needs_auth_value, session.policy.needs_password = True, False
    extend_policy(session, TPM_CC.PolicyAuthValue)
    return ()


def policy_password(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Demand the entity's authorisation value in the clear; the digest is that of PolicyAuthValue."""
    session = tpm.sessions.loaded[handle]
    session.policy.needs_auth_value, session.policy.needs_password = False, True
    extend_policy(session, TPM_CC.PolicyAuthValue)
    return ()


def policy_get_digest(tpm: Tpm, handle: int) -> tuple[Any, ...]:
    """Return the policy digest so far."""
    return (tpm.sessions.loaded[handle].policy.digest,)


def policy_nv_written(tpm: Tpm, handle: int, written: int) -> tuple[Any, ...]:
    """Demand that the index was written, or that it never was."""
    session = tpm.sessions.loaded[handle]
    if session.policy.nv_written not in (None, bool(written)):
        raise in_parameter(TPM_RC.VALUE, 1)
    session.policy.nv_written = bool(written)
    extend_policy(session, TPM_CC.PolicyNvWritten, bytes([written]))
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.PolicyAuthValue.value: policy_auth_value,
    TPM_CC.PolicyCommandCode.value: policy_command_code,
    TPM_CC.PolicyCounterTimer.value: policy_counter_timer,
    TPM_CC.PolicyCpHash.value: policy_cp_hash,
    TPM_CC.PolicyDuplicationSelect.value: policy_duplication_select,
    TPM_CC.PolicyGetDigest.value: policy_get_digest,
    TPM_CC.PolicyLocality.value: policy_locality,
    TPM_CC.PolicyNV.value: policy_nv,
    TPM_CC.PolicyNameHash.value: policy_name_hash,
    TPM_CC.PolicyNvWritten.value: policy_nv_written,
    TPM_CC.PolicyOR.value: policy_or,
    TPM_CC.PolicyPCR.value: policy_pcr,
    TPM_CC.PolicyPassword.value: policy_password,
    TPM_CC.PolicyPhysicalPresence.value: policy_physical_presence,
    TPM_CC.PolicyTemplate.value: policy_template,
}
"""The actions of this group, by command code."""
