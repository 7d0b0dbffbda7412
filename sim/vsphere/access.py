"""Who may call what: accounts, roles with their privileges, and sessions of the host agent.

Models: password accounts, vSphere's privilege names, sessions with an idle limit and a limit on their number.  A role
is a set of privileges; there are no implied ones.

Leaves out: directories, lockdown mode, tickets, per-object permissions.  Passwords are kept as salted SHA-256, which
is enough for a simulation and not for anything else.

Sources: vSphere Web Services API (privilege names); the idle limit of 30 minutes is the default of
`Config.HostAgent.vmacore.soap.sessionTimeout`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from attrs import evolve, field, frozen

from sim.core.facts import fact
from sim.core.rng import Stream
from sim.core.units import SECOND
from sim.vsphere.faults import InvalidLogin, NotAuthenticated

__all__ = ["ADMIN", "READ_ONLY", "Account", "Role", "Session", "Sessions"]

SESSION_IDLE_NS: Final = fact(
    "hostd.session_idle_ns",
    30 * 60 * SECOND,
    unit="ns",
    source="ESXi default of Config.HostAgent.vmacore.soap.sessionTimeout (30 minutes)",
    kind="vendor",
)
SESSIONS_MAX: Final = 500
KEY_BYTES: Final = 16


@frozen(kw_only=True)
class Role:
    """A named set of privileges; `everything` stands for all of them."""

    name: str
    privileges: frozenset[str] = frozenset()
    everything: bool = False

    def grants(self, privilege: str) -> bool:
        """Tell whether this role holds `privilege`; every session may do what needs none."""
        return self.everything or not privilege or privilege in self.privileges


ADMIN: Final = Role(name="Admin", everything=True)
READ_ONLY: Final = Role(
    name="ReadOnly", privileges=frozenset({"System.Read", "System.View", "System.Anonymous"})
)


@frozen(kw_only=True)
class Account:
    """A user of the host: name, role, and the salted digest of the password."""

    user: str
    role: Role
    digest: bytes = field(repr=False)

    @classmethod
    def make(cls, user: str, password: str, role: Role = ADMIN) -> Account:
        """Make an account from its password in clear."""
        return cls(user=user, role=role, digest=_digest(user, password))

    def accepts(self, password: str) -> bool:
        """Tell whether this is the password."""
        return hmac.compare_digest(self.digest, _digest(self.user, password))


def _digest(user: str, password: str) -> bytes:
    return sha256(
        user.encode(errors="surrogatepass") + b"\0" + password.encode(errors="surrogatepass")
    ).digest()


@frozen(kw_only=True)
class Session:
    """An open session: its key, whose it is, and when it was last used."""

    key: str
    account: Account
    last_used_ns: int


class Sessions:
    """The sessions of one host agent; their keys come from a stream of the host."""

    def __init__(self, stream: Stream, accounts: Iterable[Account]) -> None:
        self._stream = stream
        self._accounts = {account.user: account for account in accounts}
        self._open: dict[str, Session] = {}

    def login(self, user: str, password: str, now_ns: int) -> Session:
        """Open a session; InvalidLogin when user or password is wrong or the limit of sessions is reached."""
        account = self._accounts.get(user)
        if account is None or not account.accepts(password):
            raise InvalidLogin
        self._drop_idle(now_ns)
        if len(self._open) >= SESSIONS_MAX:
            raise InvalidLogin
        session = Session(key=self._stream.bytes(KEY_BYTES).hex(), account=account, last_used_ns=now_ns)
        self._open[session.key] = session
        return session

    def use(self, key: str, now_ns: int) -> Session:
        """Return the session of that key and renew it; NotAuthenticated when there is none."""
        self._drop_idle(now_ns)
        session = self._open.get(key)
        if session is None:
            raise NotAuthenticated
        session = evolve(session, last_used_ns=now_ns)
        self._open[key] = session
        return session

    def logout(self, key: str) -> None:
        """End a session; ending one that is not open does nothing."""
        self._open.pop(key, None)

    def clear(self) -> None:
        """End all sessions, as a restart of the agent does."""
        self._open.clear()

    def _drop_idle(self, now_ns: int) -> None:
        oldest = now_ns - SESSION_IDLE_NS.value
        self._open = {key: session for key, session in self._open.items() if session.last_used_ns >= oldest}
