"""Attacks on the management interface, one test each; `threats.py` says how a row is made."""

import random
from types import MappingProxyType

import pytest

from sim.core.units import SECOND
from sim.errors import ScenarioError
from sim.kernel.api import METHODS as KERNEL_METHODS
from sim.kernel.api import ApiError
from sim.scenario.entry import simulate
from sim.scenario.load import parse_scenario
from sim.vsphere import faults
from sim.vsphere.access import ADMIN, READ_ONLY, SESSION_IDLE_NS, Account
from sim.vsphere.hostd import METHODS, HostAgent

from .measure import cases, state_hash
from .threats import threat

VM = MappingProxyType({"name": "web", "memory": "64MiB", "vcpus": 1, "pool": "", "encrypted": False})
ALLOCATION = MappingProxyType({"shares": 500, "reservation": 0, "limit": "1GHz", "affinity": []})
POOL = MappingProxyType({"name": "lab", "parent": "", "shares": 4000, "reservation": 0})
CREDENTIAL = MappingProxyType({"credential_blob": b"blob", "encrypted_secret": b"secret"})

WELL_FORMED = {
    "UpdateOptions": {"key": "execInstalledOnly", "value": "FALSE"},
    "UpdateHostEncryption": {"secure_boot": False, "exec_installed_only": False},
    "EnableCrypto": CREDENTIAL,
    "PowerOnVM_Task": {"spec": VM},
    "PowerOffVM_Task": {"name": "web"},
    "SuspendVM_Task": {"name": "web"},
    "ResumeVM_Task": {"name": "web"},
    "ReconfigVM_Task": {"name": "web", "cpu": ALLOCATION, "vcpus": 2},
    "UpdateAdvancedOption": {"key": "Cpu.Quantum", "value": 100},
    "CreateResourcePool": {"spec": POOL},
    "UpdateConfig": {"spec": POOL},
    "DestroyResourcePool": {"name": "lab"},
    "MoveIntoResourcePool": {"name": "web", "pool": ""},
    "UpdateHostImageAcceptanceLevel": {"level": "PartnerSupported"},
    "InstallVib_Task": {
        "archive": b"!<arch>\n",
        "force": False,
        "no_sig_check": False,
        "allow_downgrades": False,
        "allow_vendor_change": False,
    },
    "UpdateImage_Task": {
        "bundle": b"PK",
        "profile": "p",
        "allow_downgrades": False,
        "allow_vendor_change": False,
        "ok_to_remove": False,
    },
    "ActivateTpmCredential": CREDENTIAL,
    "RetrieveTpmQuote": {"nonce": bytes(20), "banks": ["sha256"], "pcrs": [0, 7]},
}
"""Arguments of the right form for every method that takes some."""


def well_formed(method):
    """Return arguments of the right form, as the plain values that travel."""
    return {
        key: dict(value) if isinstance(value, MappingProxyType) else value
        for key, value in WELL_FORMED.get(method, {}).items()
    }


DEEP = [[[[[[[[[]]]]]]]]]
NOT_PLAIN = (
    float("nan"),
    1.5,
    float("inf"),
    2**63,
    -(2**63) - 1,
    "\ud800",
    "x\udfff",
    DEEP,
    {1: 2},
    object(),
)
OTHER_TYPES = (None, True, -1, 0, "", "text", b"bytes", [], {}, [-1], {"x": -1})


@pytest.fixture
def desk(machinery):
    """A running host whose agent knows an administrator and a reader."""
    return Desk(machinery)


class Desk:
    """A running host, and two who may log in at it."""

    def __init__(self, machinery):
        self.host = machinery.host
        self.sim = machinery.sim
        accounts = [Account.make("root", "secret", ADMIN), Account.make("reader", "secret", READ_ONLY)]
        self.agent = HostAgent(self.sim, self.host.name, self.host, self.host.board.meter, accounts=accounts)
        self.host.call("vm.power_on", {"spec": dict(VM, name="first")})

    def refused(self, method, params, session):
        """Call, demand a fault, and return its name."""
        with pytest.raises(faults.MethodFault) as caught:
            self.agent.call(method, params, session=session)
        assert "Traceback" not in str(caught.value)
        return caught.value.wire_name

    def audit(self):
        return [(row["user"], row["method"], row["outcome"]) for row in self.sim.trace.select("api.call")]


def test_the_well_formed_arguments_are_those_of_the_list():
    for name, method in METHODS.items():
        parameters = KERNEL_METHODS[method.call].parameters
        assert set(WELL_FORMED.get(name, {})) == {one.name for one in parameters}


@threat(
    "D1",
    threat="a method of the interface is called by somebody who has not logged in, or no longer",
    stopped_by="the session is looked up before anything else of a call (`sim.vsphere.hostd`)",
    evidence="NotAuthenticated for every method, with the call in the trace; the state of the host is as before",
    not_covered="a stolen session key, which is as good as a password; XML on the wire: calls are values here",
    anchor="keylime CVE-2026-1709, CVE-2021-21972",
)
def test_d1_no_method_answers_without_a_session(desk):
    ended = desk.agent.login("root", "secret")
    desk.agent.logout(ended)
    elsewhere = HostAgent(desk.sim, "esx99", desk.host, desk.host.board.meter).login("root", "simulated")
    idle = desk.agent.login("root", "secret")
    desk.sim.engine.run(desk.sim.now + SESSION_IDLE_NS.value + 1)
    before = state_hash(desk.host)
    for method in METHODS:
        for key in ("", "0" * 32, ended, elsewhere, idle, idle.upper() + " ", None, True, b"", ["root"]):
            assert desk.refused(method, well_formed(method), key) == "NotAuthenticated"
        assert desk.audit()[-1] == ("", method, "NotAuthenticated")
    assert state_hash(desk.host) == before
    for password in ("", "Secret", "secret "):
        with pytest.raises(faults.InvalidLogin):
            desk.agent.login("root", password)


@threat(
    "D2",
    threat="a user who may only read changes the host",
    stopped_by="the privilege of every method, asked before its arguments are looked at (`sim.vsphere.access`)",
    evidence="NoPermission with the privilege that lacks, an entry with user, method and outcome; nothing has changed",
    not_covered="an administrator's account given to a group that anybody can make, as in the incident: no directory here",
    anchor="CVE-2024-37085",
)
def test_d2_a_reader_changes_nothing(desk):
    session = desk.agent.login("reader", "secret")
    changing = [name for name, method in METHODS.items() if KERNEL_METHODS[method.call].changes]
    assert len(changing) >= 17
    before = state_hash(desk.host)
    for method in changing:
        with pytest.raises(faults.NoPermission) as caught:
            desk.agent.call(method, well_formed(method), session=session)
        assert caught.value.privilege_id == METHODS[method].privilege
        assert not READ_ONLY.grants(METHODS[method].privilege)
        assert desk.audit()[-1] == ("reader", method, "NoPermission")
    desk.sim.engine.run(desk.sim.now)
    assert state_hash(desk.host) == before
    assert [vm["name"] for vm in desk.agent.call("RetrieveVirtualMachines", session=session)] == ["first"]


def malformed(arguments):
    """Yield every argument list in which one thing is wrong: missing, too much, of another type, or no plain value."""
    yield {**arguments, "extra": 1}
    for name, value in arguments.items():
        yield {key: kept for key, kept in arguments.items() if key != name}
        for wrong in (*NOT_PLAIN, *(one for one in OTHER_TYPES if type(one) is not type(value))):
            yield {**arguments, name: wrong}
        if isinstance(value, dict):
            yield from ({**arguments, name: table} for table in malformed_table(value))


def malformed_table(table):
    """Yield the tables in which one thing is wrong; what may be left out, or be of another kind too, is right."""
    yield {**table, "extra": 1}
    yield {**table, "nam": "x"}
    for name in table:
        for wrong in (*NOT_PLAIN, -1, [-1], {"x": -1}, b"bytes"):
            yield {**table, name: wrong}


@threat(
    "D3",
    threat="fields missing, extra, of a wrong type, not a number, negative, too large, or no valid text",
    stopped_by="plain values alone (`sim.vsphere.values`), and the exact types of the list (`sim.kernel.api`)",
    evidence="InvalidArgument for each; nothing has changed; no other exception in random requests, 1,500 of them by"
    " default and 50,000 with VMKSIM_CATALOGUE=whole",
    not_covered="parsing of XML or JSON, which is not modelled on this side of the interface",
    anchor="fuzzing of management agents",
)
def test_d3_malformed_arguments_are_refused_and_change_nothing(desk):
    session = desk.agent.login("root", "secret")
    tried = 0
    before = state_hash(desk.host)
    for method in WELL_FORMED:
        arguments = well_formed(method)
        optional = {one.name for one in KERNEL_METHODS[METHODS[method].call].parameters if not one.required}
        for params in malformed(arguments):
            if set(arguments) - set(params) <= optional and set(params) < set(arguments):
                continue
            assert desk.refused(method, params, session) == "InvalidArgument", (method, params)
            tried += 1
        assert state_hash(desk.host) == before, method
    for params in (3, "spec", [("spec", {})], [1], object()):
        assert desk.refused("QueryModules", params, session) == "InvalidArgument"
    assert tried > 600
    random_requests(desk, session, cases(1_500, 50_000))


def random_requests(desk, session, count):
    """Make requests that are sound or wrong in one thing; only faults and answers may come of them."""
    chance = random.Random(7)
    names = [*METHODS, "Shell", "__init__", "vm.power_on", ""]
    outcomes = {}
    for number in range(count):
        method = chance.choice(names)
        params = well_formed(method)
        if chance.random() < 0.8:
            params = chance.choice([*malformed(params)])
        try:
            desk.agent.call(method, params, session=session)
            outcome = "ok"
        except faults.MethodFault as fault:
            outcome = fault.wire_name
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if number % 500 == 499:
            desk.sim.engine.run(desk.sim.now + 60 * SECOND)
            desk.host.check_invariants()
            desk.agent.restart()
            session = desk.agent.login("root", "secret")
    assert outcomes["InvalidArgument"] > count // 3
    assert outcomes["ok"] > count // 20
    assert outcomes["NotSupported"] > count // 50
    assert set(outcomes) <= {
        "ok",
        "InvalidArgument",
        "NotSupported",
        "InvalidState",
        "NotFound",
        "PlatformConfigFault",
    }


def methods_of_kernel_objects(host):
    """Yield the names under which a client might ask for what is inside: each public name of each part, and paths to it."""
    kernel = host.kernel
    parts = {
        "": kernel,
        "vms": kernel.vms,
        "scheduler": kernel.scheduler,
        "memory": kernel.memory,
        "loader": kernel.loader,
        "vault": kernel.vault,
        "board": kernel.board,
        "user_worlds": kernel.user_worlds,
    }
    for part, value in parts.items():
        for name in dir(value):
            if not name.startswith("_"):
                yield name
                yield f"{part}.{name}" if part else f"vmkernel.{name}"
    yield from (
        "__class__",
        "__init__",
        "__dict__",
        "_kernel.execute",
        "host.kernel.execute",
        "vm.power_on.__globals__",
    )


def parts_of(value):
    """Yield a value and all that it holds."""
    yield value
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from parts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from parts_of(item)


def spoil(value):
    """Change a value at every place where it can be changed."""
    for part in [*parts_of(value)]:
        if isinstance(part, (dict, list)):
            part.clear()


@threat(
    "D4",
    threat="a client reaches a method of a kernel object, past the list of management calls",
    stopped_by="the two closed lists (`sim.vsphere.hostd`, `sim.kernel.api`); answers and arguments are plain values",
    evidence="NotSupported for every public name inside; answers hold no object, and a spoilt answer spoils nothing;"
    " InvalidArgument for a workload that is code",
    not_covered="Python code in the simulator's own process, such as a script that runs a Simulation or a policy that"
    " --allow-code lets in: it holds every object, and Python has no walls",
    anchor="interfaces that grew past their list",
)
def test_d4_nothing_inside_is_reached_past_the_list(desk):
    session = desk.agent.login("root", "secret")
    before = state_hash(desk.host)
    names = sorted({*methods_of_kernel_objects(desk.host)} - set(METHODS) - set(KERNEL_METHODS))
    assert len(names) > 200
    for name in names:
        assert desk.refused(name, {}, session) == "NotSupported"
        with pytest.raises(ApiError, match="not part of the management interface"):
            desk.host.call(name)
    for function in ("os:abort", "sim.scenario.run:boot_only"):
        spec = {**VM, "workload": {"kind": "generator", "function": function}}
        assert desk.refused("PowerOnVM_Task", {"spec": spec}, session) == "InvalidArgument"
        with pytest.raises(ScenarioError, match="runs no code"):
            parse_scenario(
                f"[[vms]]\nname = 'a'\nworkload = {{ kind = 'generator', function = '{function}' }}"
            )
    assert state_hash(desk.host) == before
    for method in METHODS:
        if method not in WELL_FORMED and not KERNEL_METHODS[METHODS[method].call].changes:
            answer = desk.agent.call(method, session=session)
            assert {type(part) for part in parts_of(answer)} <= {
                dict,
                list,
                str,
                int,
                bool,
                bytes,
                type(None),
            }
            spoil(desk.agent.call(method, session=session))
            assert desk.agent.call(method, session=session) == answer, method
    desk.host.check_invariants()


@threat(
    "D5",
    threat="somebody asks for the attestation of a host that has not booted yet, and takes what comes for a verdict",
    stopped_by="no report but of a boot: the agent answers for a running host alone, and a host enters the inventory"
    " with its first attestation (`sim.vsphere.vcenter`)",
    evidence="InvalidState that says off or booting; HostAddFailedEvent and no entry; N/A: not attested in the result",
    not_covered="a verdict of an earlier boot, which stays until the host is attested anew and carries its time (B25)",
    anchor="attestation services that start as trusted",
)
def test_d5_before_the_first_boot_nothing_is_attested(world):
    site = world()
    session = site.agent.login("root", "simulated")
    for method in ("QueryTpmState", "RetrieveTpmQuote", "RetrieveTpmEventLog", "RetrieveTpmIdentity"):
        with pytest.raises(faults.InvalidState, match="host esx01 is off, not running"):
            site.agent.call(
                method, {"nonce": bytes(20)} if method == "RetrieveTpmQuote" else {}, session=session
            )
    site.vcenter.add_host(site.agent, on_error=site.errors.append)
    site.run()
    assert site.vcenter.hosts() == ()
    assert "host esx01 is off, not running" in str(site.errors[0])
    assert site.event_types() == ["HostAddFailedEvent"]
    with pytest.raises(faults.NotFound):
        site.vcenter.host("esx01")
    entry = site.add()
    assert entry.tpm_attestation.status == "accepted"


@pytest.mark.parametrize(
    ("vcenter", "why"),
    [("", "there is no vCenter"), ("[vcenter]", "the host is not in the inventory")],
    ids=["no vCenter", "refused boot"],
)
def test_d5_a_result_without_an_attestation_says_so(vcenter, why):
    flipped = "kind = 'flip_bit'\ntarget = 'loader'\nbyte = 900"
    text = f"duration = '2s'\n[image]\nmodules = 2\nmodule_size = '2KiB'\n[[faults]]\n{flipped}\n{vcenter}\n"
    result = simulate(parse_scenario(text))
    assert result.boot.state == "refused"
    assert (result.attestation.status, result.attestation.message) == ("N/A", f"not attested: {why}")
