"""Sessions: what a TPM remembers between the commands of one conversation, and the table that holds them.

Models: HMAC, policy and trial sessions with their keys, nonces and policy state; the slots for loaded sessions, the
handles for active ones, and the counter that tells a saved context from an outdated copy of it.
Leaves out: how a session authorises (`sim.tpm.authorization`), and how a context is encrypted.
Sources: TPM 2.0 Library part 1, chapters 15 and 19, and 30.4 on session contexts; limits measured on swtpm 0.7.1.
"""

from __future__ import annotations

from attrs import define, field

from sim.core.facts import fact
from sim.tpm.constants import HASH_BYTES, TPM_HT, TPM_RC, TPM_RH, TPM_SE
from sim.tpm.crypto.kdf import kdf_a
from sim.tpm.refusal import RefusedError
from sim.tpm.wire.session import TPMT_SYM_DEF

__all__ = ["ACTIVE_MAX", "LOADED_MAX", "PolicyState", "Session", "SessionTable", "session_key"]

ACTIVE_MAX = fact(
    "tpm.sessions_active_max",
    64,
    unit="sessions",
    source="swtpm 0.7.1, property ACTIVE_SESSIONS_MAX",
    kind="measured",
).value
LOADED_MAX = fact(
    "tpm.sessions_loaded_max",
    3,
    unit="sessions",
    source="swtpm 0.7.1, property HR_LOADED_MIN",
    kind="measured",
).value
_GAP_MASK = 0xFFFF
_INDEX_MASK = 0xFFFFFF


@define(kw_only=True)
class PolicyState:
    """What policy commands have established in a session, and what the authorised command must still meet."""

    digest: bytes
    command_code: int = 0
    cp_hash: bytes = b""
    name_hash: bytes = b""
    template_hash: bytes = b""
    locality: int = 0
    timeout_ms: int | None = None
    timeout_boot: int = 0
    pcr_counter: int | None = None
    needs_auth_value: bool = False
    needs_password: bool = False
    needs_presence: bool = False
    nv_written: bool | None = None


@define(kw_only=True)
class Session:
    """One session; `key` is empty when it is neither salted nor bound."""

    handle: int
    kind: TPM_SE
    auth_hash: int
    symmetric: TPMT_SYM_DEF
    key: bytes
    nonce_tpm: bytes
    bound_to: bytes | None = None
    """For a bound HMAC session, what identifies the entity with its authorisation value at that time."""
    bound_guarded: bool = False
    bound_lockout: bool = False
    audit_digest: bytes | None = None
    start_ms: int = 0
    policy: PolicyState = field()

    @policy.default
    def _no_policy(self) -> PolicyState:
        return PolicyState(digest=bytes(HASH_BYTES[self.auth_hash]))

    @property
    def is_policy(self) -> bool:
        """Whether this is a policy session, trial sessions included."""
        return self.kind is not TPM_SE.HMAC

    @property
    def is_trial(self) -> bool:
        """Whether this session only computes a policy digest."""
        return self.kind is TPM_SE.TRIAL

    def restart_policy(self, now_ms: int) -> None:
        """Forget every policy assertion, as PolicyRestart does and as each use does."""
        self.policy = PolicyState(digest=bytes(HASH_BYTES[self.auth_hash]))
        self.start_ms = now_ms


class SessionTable:
    """All active sessions: the loaded ones, and for saved ones the sequence number of the only valid context."""

    def __init__(self) -> None:
        self.loaded: dict[int, Session] = {}
        self.saved: dict[int, int] = {}
        self.counter = LOADED_MAX
        self.exclusive = TPM_RH.NULL.value
        """The audit session that no other command has interrupted (the null handle: none)."""

    def new_handle(self, kind: TPM_SE) -> int:
        """Return the handle that a new session will have; refuse where there is no room."""
        if len(self.loaded) >= LOADED_MAX:
            raise RefusedError(TPM_RC.SESSION_MEMORY)
        if self.saved and len(self.loaded) == LOADED_MAX - 1:
            self._need_gap()
        taken = {handle & _INDEX_MASK for handle in (*self.loaded, *self.saved)}
        for index in range(ACTIVE_MAX):
            if index not in taken:
                prefix = TPM_HT.HMAC_SESSION if kind is TPM_SE.HMAC else TPM_HT.POLICY_SESSION
                return prefix << 24 | index
        raise RefusedError(TPM_RC.SESSION_HANDLES)

    def add(self, session: Session) -> None:
        """Load a new session under the handle that `new_handle` gave."""
        self.loaded[session.handle] = session

    def is_active(self, handle: int) -> bool:
        """Whether a session is loaded or saved; its number counts alone, as swtpm has it, not its type."""
        return self._active(handle) is not None

    def is_loaded_otherwise(self, handle: int) -> bool:
        """Whether a loaded session has the number of `handle` but is of the other type."""
        return any((each ^ handle) & _INDEX_MASK == 0 and each != handle for each in self.loaded)

    def _active(self, handle: int) -> int | None:
        if handle >> 24 not in (TPM_HT.HMAC_SESSION, TPM_HT.POLICY_SESSION):
            return None
        active = (*self.loaded, *self.saved)
        return next((each for each in active if each & _INDEX_MASK == handle & _INDEX_MASK), None)

    def flush(self, handle: int) -> None:
        """End a session, loaded or saved, by its number."""
        handle = self._active(handle) or handle
        self.loaded.pop(handle, None)
        self.saved.pop(handle, None)
        if self.exclusive == handle:
            self.exclusive = TPM_RH.NULL.value

    def save(self, handle: int) -> tuple[Session, int]:
        """Take a session out of its slot; return it with the sequence number of its context."""
        self._need_gap()
        self.counter += 1
        if not self.counter & _GAP_MASK:
            self.counter += 1
        self.saved[handle] = self.counter
        return self.loaded.pop(handle), self.counter

    def may_load(self, handle: int, sequence: int) -> bool:
        """Whether a saved context is the newest of its session."""
        return self.saved.get(handle) == sequence

    def load(self, session: Session) -> None:
        """Put a saved session back into a slot."""
        if len(self.loaded) >= LOADED_MAX:
            raise RefusedError(TPM_RC.SESSION_MEMORY)
        oldest = min(self.saved.values())
        last_slot = len(self.loaded) == LOADED_MAX - 1
        if last_slot and self.saved[session.handle] != oldest and self._gap_is_full():
            raise RefusedError(TPM_RC.CONTEXT_GAP)
        del self.saved[session.handle]
        self.loaded[session.handle] = session

    def power_on(self) -> None:
        """Lose what was loaded, as _TPM_Init does."""
        self.loaded.clear()
        self.exclusive = TPM_RH.NULL.value

    def reset(self) -> None:
        """Begin anew after a TPM reset: saved contexts are void too."""
        self.power_on()
        self.saved.clear()
        self.counter = LOADED_MAX

    def check_invariants(self) -> None:
        """Assert what must always hold."""
        assert len(self.loaded) <= LOADED_MAX
        indices = [handle & _INDEX_MASK for handle in (*self.loaded, *self.saved)]
        assert len(set(indices)) == len(indices) <= ACTIVE_MAX
        for handle, session in self.loaded.items():
            assert session.handle == handle
            assert handle >> 24 == (TPM_HT.POLICY_SESSION if session.is_policy else TPM_HT.HMAC_SESSION)

    def _need_gap(self) -> None:
        if self._gap_is_full():
            raise RefusedError(TPM_RC.CONTEXT_GAP)

    def _gap_is_full(self) -> bool:
        return bool(self.saved) and self.counter + 1 - min(self.saved.values()) >= _GAP_MASK


def session_key(auth_hash: int, secret: bytes, nonce_tpm: bytes, nonce_caller: bytes) -> bytes:
    """Derive the key of a bound or salted session; `secret` is the entity's authorisation value and the salt."""
    return kdf_a(auth_hash, secret, b"ATH", nonce_tpm + nonce_caller, HASH_BYTES[auth_hash] * 8)
