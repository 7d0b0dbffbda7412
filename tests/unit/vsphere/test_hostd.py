"""The closed management API: who may call, what is on the list, and that a refusal changes nothing and is traced."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.core.procedure import CostMeter
from sim.core.rng import Stream
from sim.core.units import SECOND
from sim.errors import SimBug, VerificationError
from sim.kernel.api import METHODS as KERNEL_METHODS
from sim.kernel.api import ApiError
from sim.vsphere import faults
from sim.vsphere.access import ADMIN, READ_ONLY, SESSION_IDLE_NS, SESSIONS_MAX, Account, Sessions
from sim.vsphere.hostd import METHODS, HostAgent
from sim.vsphere.values import check_plain, printable


class Recorder:
    """A host that notes the calls that reach it, and answers or raises as told."""

    def __init__(self):
        self.calls = []
        self.answer = "done"

    def call(self, name, params=None):
        self.calls.append((name, dict(params)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Desk:
    """An agent with an administrator and a reader, on a recorder."""

    def __init__(self):
        self.sim = Sim(seed=1)
        self.host = Recorder()
        accounts = [Account.make("root", "secret"), Account.make("reader", "secret", READ_ONLY)]
        self.agent = HostAgent(self.sim, "esx01", self.host, CostMeter(), accounts=accounts)

    def outcomes(self):
        return [(row["user"], row["method"], row["outcome"]) for row in self.sim.trace.select("api.call")]


@pytest.fixture
def desk():
    return Desk()


def test_a_session_reaches_the_host_and_every_call_is_traced(desk):
    session = desk.agent.login("root", "secret")
    assert desk.agent.call("PowerOffVM_Task", {"name": "web"}, session=session) == "done"
    assert desk.host.calls == [("vm.power_off", {"name": "web"})]
    assert desk.outcomes() == [("root", "Login", "ok"), ("root", "PowerOffVM_Task", "ok")]


def test_every_call_costs_time_on_the_host(desk):
    desk.agent.login("root", "secret")
    before = desk.agent.meter.pending_ns
    with pytest.raises(faults.NotAuthenticated):
        desk.agent.call("QueryModules")
    assert desk.agent.meter.pending_ns > before > 0


def test_the_list_covers_the_kernel_s_management_calls_and_no_more():
    assert {method.call for method in METHODS.values()} == set(KERNEL_METHODS)
    assert all(method.name == name and method.privilege for name, method in METHODS.items())


def test_without_a_session_no_method_reaches_the_host(desk):
    """D1."""
    for method in METHODS:
        for key in ("", "0" * 32, None, 7):
            with pytest.raises(faults.NotAuthenticated):
                desk.agent.call(method, {}, session=key)
    assert desk.host.calls == []
    assert {outcome for _, _, outcome in desk.outcomes()} == {"NotAuthenticated"}


def test_a_reader_may_read_and_nothing_else(desk):
    """D2."""
    session = desk.agent.login("reader", "secret")
    for name, method in METHODS.items():
        if method.privilege in {"System.Read", "System.View"}:
            desk.agent.call(name, {}, session=session)
        else:
            with pytest.raises(faults.NoPermission) as caught:
                desk.agent.call(name, {}, session=session)
            assert caught.value.privilege_id == method.privilege
    assert not any(KERNEL_METHODS[call].changes for call, _ in desk.host.calls)
    assert ("reader", "PowerOnVM_Task", "NoPermission") in desk.outcomes()


@pytest.mark.parametrize(
    "method",
    [
        "",
        "Shell",
        "host.info",
        "__class__",
        "call",
        "RetrieveHostInfo ",
        "\ud800",
        None,
        3,
        b"RetrieveHostInfo",
    ],
)
def test_anything_off_the_list_is_not_supported(desk, method):
    """D4."""
    session = desk.agent.login("root", "secret")
    with pytest.raises(faults.NotSupported):
        desk.agent.call(method, {}, session=session)
    assert desk.host.calls == []
    assert desk.outcomes()[-1][2] == "NotSupported"


@pytest.mark.parametrize("value", [
    float("nan"), 1.0, 2**63, -(2**63) - 1, "\ud800", "x" * 70_000, object(), {1: 2}, {"\udfff": 1}, {"a"}, [[[[[[[[[]]]]]]]]],
    [0] * 10_001, bytearray(b"x"),
])  # fmt: skip
def test_what_is_no_plain_value_is_an_invalid_argument(desk, value):
    """D3."""
    session = desk.agent.login("root", "secret")
    with pytest.raises(faults.InvalidArgument):
        desk.agent.call("UpdateOptions", {"key": value}, session=session)
    assert desk.host.calls == []


@pytest.mark.parametrize("params", [3, 0, "", "spec", [], [("spec", {})], b"", False])
def test_arguments_without_names_are_an_invalid_argument(desk, params):
    session = desk.agent.login("root", "secret")
    with pytest.raises(faults.InvalidArgument, match="parameters"):
        desk.agent.call("QueryModules", params, session=session)
    assert desk.host.calls == []
    assert desk.outcomes()[-1] == ("root", "QueryModules", "InvalidArgument")


@pytest.mark.parametrize("user", ["root", "nobody", "", "\ud800", None, 5])
def test_a_wrong_login_does_not_say_what_was_wrong(desk, user):
    with pytest.raises((faults.InvalidLogin, faults.InvalidArgument)) as caught:
        desk.agent.login(user, "wrong")
    assert "secret" not in str(caught.value)
    assert desk.outcomes()[-1][1:] in [("Login", "InvalidLogin"), ("Login", "InvalidArgument")]


@pytest.mark.parametrize(("code", "fault"), [
    ("NotSupported", "NotSupported"), ("InvalidArgument", "InvalidArgument"), ("InvalidName", "InvalidName"),
    ("NotFound", "NotFound"), ("InvalidState", "InvalidState"), ("InvalidPowerState", "InvalidState"),
    ("InsufficientCpuResourcesFault", "InsufficientResourcesFault"), ("AcceptanceConfigError", "PlatformConfigFault"),
])  # fmt: skip
def test_refusals_of_the_kernel_become_faults_of_the_api(desk, code, fault):
    session = desk.agent.login("root", "secret")
    desk.host.answer = ApiError(code, "the kernel's own words")
    with pytest.raises(faults.MethodFault) as caught:
        desk.agent.call("QueryModules", {}, session=session)
    assert caught.value.wire_name == fault
    assert desk.outcomes()[-1][2] == fault
    if fault not in {"NotFound"}:
        assert "the kernel's own words" in str(caught.value)


def test_other_errors_of_the_host_become_platform_faults_and_faults_pass(desk):
    session = desk.agent.login("root", "secret")
    desk.host.answer = VerificationError("check", "bad signature")
    with pytest.raises(faults.PlatformConfigFault, match="bad signature"):
        desk.agent.call("QueryModules", {}, session=session)
    desk.host.answer = faults.InvalidPowerState("poweredOn", "suspended")
    with pytest.raises(faults.InvalidPowerState, match="Suspended"):
        desk.agent.call("QueryModules", {}, session=session)


def test_a_bug_of_ours_is_no_fault_of_the_host(desk):
    session = desk.agent.login("root", "secret")
    desk.host.answer = SimBug("a broken promise")
    with pytest.raises(SimBug, match="broken promise"):
        desk.agent.call("QueryModules", {}, session=session)


def test_sessions_end_by_logout_by_restart_and_by_idling():
    desk = Desk()
    for end in ("logout", "restart", "idle"):
        session = desk.agent.login("root", "secret")
        desk.agent.call("QueryModules", {}, session=session)
        if end == "logout":
            desk.agent.logout(session)
        elif end == "restart":
            desk.agent.restart()
        else:
            desk.sim.engine.run(desk.sim.now + SESSION_IDLE_NS.value + 1)
        with pytest.raises(faults.NotAuthenticated):
            desk.agent.call("QueryModules", {}, session=session)


def test_a_session_in_use_does_not_idle(desk):
    session = desk.agent.login("root", "secret")
    for _ in range(4):
        desk.sim.engine.run(desk.sim.now + SESSION_IDLE_NS.value - SECOND)
        desk.agent.call("QueryModules", {}, session=session)


def test_the_number_of_sessions_is_limited():
    sessions = Sessions(Stream(b"x"), [Account.make("root", "secret")])
    keys = [sessions.login("root", "secret", 0).key for _ in range(SESSIONS_MAX)]
    assert len(set(keys)) == SESSIONS_MAX
    with pytest.raises(faults.InvalidLogin):
        sessions.login("root", "secret", 0)
    assert sessions.login("root", "secret", SESSION_IDLE_NS.value + 1)


def test_session_keys_come_from_the_seed():
    assert Desk().agent.login("root", "secret") == Desk().agent.login("root", "secret")


def test_a_password_does_not_stand_in_the_account_s_text():
    account = Account.make("root", "secret")
    assert "secret" not in repr(account)
    assert account.accepts("secret")
    assert not account.accepts("Secret")
    assert ADMIN.grants("Anything.At.All")
    assert READ_ONLY.grants("")


@pytest.mark.parametrize("fault", [
    faults.NotSupported("x"), faults.InvalidArgument("a.b"), faults.ManagedObjectNotFound("vm-1"), faults.NoPermission("P"),
    faults.NotAuthenticated(), faults.InvalidLogin(), faults.InvalidName("n"), faults.NotFound(), faults.InvalidState("why"),
    faults.InvalidPowerState("poweredOn", "poweredOn"), faults.InsufficientResourcesFault("cpu"), faults.HostConfigFault(),
    faults.PlatformConfigFault("text"), faults.HostConnectFault("esx", "why"), faults.AlreadyConnected("esx"),
])  # fmt: skip
def test_faults_have_their_wire_names_a_text_and_survive_pickling(fault):
    copy = pickle.loads(pickle.dumps(fault))
    assert (type(copy), copy.args, str(copy), copy.__dict__) == (
        type(fault),
        fault.args,
        str(fault),
        fault.__dict__,
    )
    assert fault.wire_name == type(fault).__name__
    assert str(fault)


def test_faults_say_what_clients_show():
    assert str(faults.InvalidPowerState("poweredOn", "poweredOn")) == (
        "The attempted operation cannot be performed in the current state (Powered on)."
    )
    assert (
        str(faults.HostConnectFault("esx01", "it is off"))
        == "Cannot contact the specified host (esx01): it is off."
    )
    assert isinstance(faults.NotAuthenticated(), faults.NoPermission)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_any_value_is_plain_or_an_invalid_argument(value):
    try:
        check_plain(value)
    except faults.InvalidArgument as fault:
        str(fault).encode()


@given(st.text(max_size=100) | st.integers() | st.binary(max_size=10))
def test_what_stands_in_a_trace_is_short_and_ascii(value):
    assert printable(value).isascii()


@given(st.text(max_size=20), st.dictionaries(st.text(max_size=5), PLAIN, max_size=3))
def test_no_call_raises_anything_but_a_fault(method, params):
    desk = Desk()
    session = desk.agent.login("root", "secret")
    with pytest.raises(faults.MethodFault):
        desk.agent.call(method, params, session=session)
    assert desk.host.calls == []


@pytest.mark.parametrize(
    "workload", [{"kind": "generator", "function": "os:abort"}, {"function": "os:abort"}]
)
def test_no_client_makes_the_host_run_a_python_function(world, workload):
    host = world().boot()
    session = host.agent.login("root", "simulated")
    spec = {"name": "a", "memory": "64MiB", "workload": workload}
    with pytest.raises(faults.InvalidArgument):
        host.agent.call("PowerOnVM_Task", {"spec": spec}, session=session)
    assert host.agent.call("RetrieveVirtualMachines", session=session) == []
