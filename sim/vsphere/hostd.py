"""The host agent: the closed management API of one host.

Models: the list of methods that a host offers, whole, in `METHODS`.  A call names a method of that list, carries a
session (but for login), and holds plain values; then it becomes a management call of the VMkernel.  Everything else
is refused with a fault, traced, and reaches nothing.  Each call costs time on the host.

Leaves out: SOAP, managed object references and tasks (every method answers at once); what the calls do, which is the
VMkernel's business.

Sources: VMware's vSphere Security guide (an interface limited to managing the host and its virtual machines);
vSphere Web Services API (method, privilege and fault names).  Attestation key and quote travel by methods of our
own, since those of vSphere are not public.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from attrs import frozen

from sim.core.context import Sim
from sim.core.facts import fact
from sim.core.procedure import CostMeter
from sim.core.trace import record
from sim.core.units import MS
from sim.errors import SimBug, VmksimError
from sim.kernel.api import ApiError
from sim.vsphere import faults
from sim.vsphere.access import ADMIN, Account, Session, Sessions
from sim.vsphere.values import check_plain, printable

__all__ = ["METHODS", "VPXUSER", "ApiMethod", "HostAgent", "ManagementInterface"]

API_CALL = record("api.call", host=str, user=str, method=str, outcome=str)
"""A call of the management API and how it ended: "ok", or the name of the fault."""

CALL_NS: Final = fact(
    "hostd.call_ns",
    2 * MS,
    unit="ns",
    source="a management call through hostd on an idle host",
    kind="assumed",
)

VPXUSER: Final = ("vpxuser", "simulated")
"""The account that vCenter uses on a host, and its password in this simulation."""

DEFAULT_ACCOUNTS: Final = (Account.make("root", "simulated", ADMIN), Account.make(*VPXUSER, ADMIN))
"""The accounts of a host nobody has configured."""


class ManagementInterface(Protocol):
    """The host's own side: a name and plain parameters in, a plain value out; ApiError for a refusal."""

    def call(self, name: str, params: Mapping[str, object] | None = None) -> Any:
        """Make one management call of the VMkernel."""


@frozen(kw_only=True)
class ApiMethod:
    """A method of the API: the management call behind it and the privilege that it needs."""

    name: str
    call: str
    privilege: str


def _method(name: str, call: str, privilege: str) -> tuple[str, ApiMethod]:
    return name, ApiMethod(name=name, call=call, privilege=privilege)


METHODS: Final[Mapping[str, ApiMethod]] = dict(
    (
        _method("RetrieveHostInfo", "host.info", "System.Read"),
        _method("QueryCounters", "host.counters", "System.Read"),
        _method("QueryOptions", "host.options", "System.Read"),
        _method("UpdateOptions", "host.set_option", "Host.Config.AdvancedConfig"),
        _method("QueryHostEncryption", "host.encryption", "System.Read"),
        _method("UpdateHostEncryption", "host.require", "Host.Config.AdvancedConfig"),
        _method("ListEncryptionRecoveryKeys", "host.recovery_key", "Host.Tpm.Unseal"),
        _method("RebootHost_Task", "host.reboot", "Host.Config.Maintenance"),
        _method("EnableCrypto", "host.enable_crypto", "Cryptographer.RegisterHost"),
        _method("RetrieveVirtualMachines", "vm.list", "System.View"),
        _method("PowerOnVM_Task", "vm.power_on", "VirtualMachine.Interact.PowerOn"),
        _method("PowerOffVM_Task", "vm.power_off", "VirtualMachine.Interact.PowerOff"),
        _method("SuspendVM_Task", "vm.suspend", "VirtualMachine.Interact.Suspend"),
        _method("ResumeVM_Task", "vm.resume", "VirtualMachine.Interact.PowerOn"),
        _method("ReconfigVM_Task", "vm.reconfigure", "VirtualMachine.Config.Resource"),
        _method("QueryAdvancedOptions", "host.advanced_options", "System.Read"),
        _method("UpdateAdvancedOption", "host.set_advanced_option", "Host.Config.AdvancedConfig"),
        _method("RetrieveResourcePools", "pool.list", "System.View"),
        _method("CreateResourcePool", "pool.create", "Resource.CreatePool"),
        _method("UpdateConfig", "pool.reconfigure", "Resource.EditPool"),
        _method("DestroyResourcePool", "pool.remove", "Resource.DeletePool"),
        _method("MoveIntoResourcePool", "vm.move", "Resource.AssignVMToPool"),
        _method("QueryModules", "module.list", "System.Read"),
        _method("FetchSoftwarePackages", "image.vibs", "System.Read"),
        _method("FetchImageDatabase", "image.database", "System.Read"),
        _method("HostImageConfigGetAcceptance", "image.acceptance", "System.Read"),
        _method("UpdateHostImageAcceptanceLevel", "image.set_acceptance", "Host.Config.Image"),
        _method("InstallVib_Task", "image.install", "Host.Config.Patch"),
        _method("UpdateImage_Task", "image.update", "Host.Config.Patch"),
        _method("QueryTpmState", "tpm.state", "System.Read"),
        _method("RetrieveTpmIdentity", "tpm.identity", "Host.Tpm.Read"),
        _method("ActivateTpmCredential", "tpm.activate", "Host.Tpm.Unseal"),
        _method("RetrieveTpmEventLog", "tpm.event_log", "Host.Tpm.Read"),
        _method("RetrieveTpmQuote", "tpm.quote", "Host.Tpm.Read"),
    )
)
"""Every method there is, besides Login and Logout."""


class HostAgent:
    """The management endpoint of a host; `host` is whatever takes management calls for it."""

    def __init__(
        self,
        sim: Sim,
        name: str,
        host: ManagementInterface,
        meter: CostMeter,
        *,
        accounts: Iterable[Account] = DEFAULT_ACCOUNTS,
    ) -> None:
        self.name = name
        self.meter = meter
        self._sim = sim
        self._host = host
        self._sessions = Sessions(sim.rng.child(name).stream("hostd/sessions"), accounts)

    def login(self, user: str, password: str) -> str:
        """Open a session and return its key; InvalidLogin when user or password is wrong."""
        self.meter.charge(CALL_NS.value, what="hostd")
        try:
            check_plain({"user": user, "password": password})
            if not isinstance(user, str) or not isinstance(password, str):
                raise faults.InvalidArgument("userName")
            session = self._sessions.login(user, password, self._sim.now)
        except faults.MethodFault as fault:
            self._trace(user, "Login", fault.wire_name)
            raise
        self._trace(user, "Login", "ok")
        return session.key

    def logout(self, session_key: str) -> None:
        """End a session."""
        self._sessions.logout(session_key)

    def call(self, method: str, params: Mapping[str, object] | None = None, *, session: str = "") -> Any:
        """Call a method of the API; raises a MethodFault for every refusal, and nothing has then changed."""
        self.meter.charge(CALL_NS.value, what="hostd")
        user = ""
        try:
            entry = _entry(method)
            opened = self._session(session)
            user = opened.account.user
            if not opened.account.role.grants(entry.privilege):
                raise faults.NoPermission(entry.privilege)
            given = {} if params is None else params
            check_plain(given)
            if not isinstance(given, Mapping):
                raise faults.InvalidArgument("parameters")
            answer = self._forward(entry, given)
        except faults.MethodFault as fault:
            self._trace(user, method, fault.wire_name)
            raise
        self._trace(user, method, "ok")
        return answer

    def restart(self) -> None:
        """Forget all sessions, as the agent does when its host boots."""
        self._sessions.clear()

    def _session(self, key: object) -> Session:
        return self._sessions.use(key if isinstance(key, str) else "", self._sim.now)

    def _forward(self, entry: ApiMethod, params: Mapping[str, object]) -> Any:
        try:
            return self._host.call(entry.call, params)
        except ApiError as error:
            raise _as_fault(error) from error
        except (faults.MethodFault, SimBug):
            raise
        except VmksimError as error:
            raise faults.PlatformConfigFault(str(error)) from error

    def _trace(self, user: object, method: object, outcome: str) -> None:
        self._sim.trace.emit(API_CALL, self.name, printable(user), printable(method), outcome)


def _entry(method: object) -> ApiMethod:
    if not isinstance(method, str) or method not in METHODS:
        raise faults.NotSupported(printable(method))
    return METHODS[method]


def _as_fault(error: ApiError) -> faults.MethodFault:
    """Put a refusal of the VMkernel into the fault that a client of the API expects."""
    match error.code:
        case "NotSupported":
            return faults.NotSupported(error.message)
        case "InvalidArgument":
            return faults.InvalidArgument(error.message)
        case "InvalidName":
            return faults.InvalidName(error.message)
        case "NotFound":
            return faults.NotFound()
        case "InvalidState" | "InvalidPowerState":
            return faults.InvalidState(error.message)
        case (
            "InsufficientResourcesFault"
            | "InsufficientCpuResourcesFault"
            | "InsufficientMemoryResourcesFault"
        ):
            return faults.InsufficientResourcesFault(error.message)
    return faults.PlatformConfigFault(error.message)
