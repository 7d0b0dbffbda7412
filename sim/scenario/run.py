"""Running a scenario: power on, boot, virtual machines, faults, vCenter, and the result at the end.

Models the operator: what a person would do to the host at which time.  All that the host does is its own.  A
`Simulation` pickles at any event, and goes on in another process to the same digest.

Leaves out: several hosts.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from sim.core.context import Sim
from sim.core.procedure import Procedure
from sim.core.trace import record
from sim.core.units import MS, SECOND, format_ns
from sim.errors import ScenarioError, SimBug
from sim.kernel.api import ApiError
from sim.kernel.host import Host, HostState
from sim.scenario.build import Machinery, build
from sim.scenario.calls import CallSpec
from sim.scenario.checkpoint import read_checkpoint, write_checkpoint
from sim.scenario.collect import collect
from sim.scenario.entry import simulate
from sim.scenario.faults import FaultSpec
from sim.scenario.make_call import make_call
from sim.scenario.plaintable import plain_table
from sim.scenario.programs import ProgramSpec
from sim.scenario.result import CallRow, RunResult
from sim.scenario.spec import SEED_MAX, ExpectSpec, Scenario
from sim.scenario.start_program import start_program
from sim.scenario.strike_interrupts import strike_interrupts
from sim.scenario.strike_launch import strike_board, strike_tpm_reset
from sim.scenario.strike_memory import alter_memory, strike_memory
from sim.scenario.strike_module import strike_module
from sim.scenario.strike_processors import strike_processor
from sim.scenario.strike_revoke import strike_revoke
from sim.vsphere.faults import HostConnectFault, NoCompatibleHost
from sim.vsphere.inventory import HostEntry

__all__ = ["RunResult", "Simulation", "boot_only", "simulate"]

SCENARIO_STEP = record("scenario.step", what=str, detail=str)
"""The operator did something."""

BOOT_NS_GUESS = 20 * SECOND
"""What progress shows as the length of a boot before its end is known."""

VERDICT_LOOK_NS = MS
"""How long after a verdict has reached its greatest age vCenter looks at it."""

BOOT_NS_MAX = 24 * 3600 * SECOND
"""A boot that takes longer than a simulated day never ends."""


class _Pause(Exception):  # noqa: N818 - no error: it ends `engine.run` at an event
    """The first boot has ended, so that the end of the run is known."""


def boot_only(scenario: Scenario) -> Scenario:
    """Return the scenario cut down to its first boot, with what it expects of that."""
    faults = tuple(fault for fault in scenario.faults if fault.at_ns is None)
    expect = scenario.expect
    if expect.boot == "ok":
        expect = ExpectSpec(boot="ok")
    return evolve(
        scenario,
        duration_ns=0,
        vms=(),
        faults=faults,
        programs=(),
        calls=(),
        vcenter=None,
        expect=evolve(expect, attestation=None, vms_refused=(), programs_refused=(), quarantined=None),
    )


class Simulation:
    """A scenario that runs: `run(until_ns)` as often as wanted, then `finish()`.

    `first_ready_ns` is when the first boot ended, and None until then; the end of the run is `duration` later, or at
    once if that boot was refused.
    """

    def __init__(self, scenario: Scenario, seed: int | None = None) -> None:
        self.scenario = scenario
        self.seed = scenario.seed if seed is None else seed
        if not 0 <= self.seed <= SEED_MAX:
            raise ScenarioError(
                "seed", "wrong value", got=self.seed, wanted=f"an integer from 0 to {SEED_MAX}"
            )
        self.machinery: Machinery = build(scenario, self.seed)
        self.first_ready_ns: int | None = None
        self.refused_vms: list[tuple[str, str]] = []
        self.refused_programs: list[tuple[str, str]] = []
        self.calls: list[CallRow] = []
        self._known_end_ns: int | None = None
        self._wanted_in_vcenter = False
        self._slept = False
        self._attestation: Procedure | None = None
        self.host.watchers.append(self._host_changed)
        self.host.power_on()

    @property
    def sim(self) -> Sim:
        """Engine, trace, chance and metrics."""
        return self.machinery.sim

    @property
    def host(self) -> Host:
        """The host."""
        return self.machinery.host

    @property
    def end_ns(self) -> int:
        """When the run ends (while the first boot lasts: a guess), ns."""
        if self._known_end_ns is not None:
            return self._known_end_ns
        return BOOT_NS_GUESS + self.scenario.duration_ns

    @property
    def finished(self) -> bool:
        """Whether the end has been reached."""
        return self._known_end_ns is not None and self.sim.now >= self._known_end_ns

    @property
    def phase(self) -> str:
        """What is going on, in a few words."""
        if self._known_end_ns is None:
            return f"booting {self.host.name}"
        return f"running {format_ns(self.scenario.duration_ns)}"

    def run(self, until_ns: int | None = None) -> None:
        """Run every event up to and including `until_ns` (simulated time), but not beyond the end of the run."""
        while not self.finished:
            bound_ns = BOOT_NS_MAX if self._known_end_ns is None else self._known_end_ns
            if until_ns is not None:
                bound_ns = min(bound_ns, max(until_ns, self.sim.now))
            try:
                self.sim.engine.run(bound_ns)
            except _Pause:
                continue
            if until_ns is not None and self.sim.now >= until_ns:
                return
            if self._known_end_ns is None:
                raise SimBug(f"the boot did not end within {format_ns(BOOT_NS_MAX)}")

    def advance(self, slices: int) -> None:
        """Run one of about `slices` equal parts of the whole; for showing progress."""
        self.run(self.sim.now + max(1, self.end_ns // slices))

    def finish(self) -> RunResult:
        """Run to the end if need be, and return the result."""
        self.run()
        return collect(self)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, from which `restore` goes on bit for bit."""
        write_checkpoint(self, Path(path), self.scenario.policy_file)

    @staticmethod
    def restore(path: str | Path) -> Simulation:
        """Read a checkpoint of this version of the simulator.  It is a pickle: restore only files that you trust.

        Errors: `CheckpointError`.
        """
        found = read_checkpoint(Path(path))
        assert isinstance(found, Simulation)
        return found

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the host keeps its invariants."""
        self.host.check_invariants()

    def _host_changed(self, host: Host) -> None:
        """Watch the host: start its virtual machines after every boot, and the clock of the scenario at the first."""
        if host.state is HostState.BOOTING:
            self._slept = False
            self.machinery.agent.restart()  # the agent runs on the host: its sessions end with it
        if host.state is HostState.HALTED and self._known_end_ns is None:
            self._known_end_ns = self.sim.now
            self.sim.engine.after(0, _pause)
        elif host.state is HostState.HALTED:
            self._lose_host()
        elif host.state is HostState.SUSPENDED:
            self._slept = True
            self._lose_host("suspended")
        elif host.state is HostState.RUNNING and self._slept:
            self._slept = False
            self._attest()
        elif host.state is HostState.RUNNING:
            first = self._known_end_ns is None
            if first:
                self._start_clock()
            self._start_vms()
            self._attest()
            if first:
                self.sim.engine.after(0, _pause)

    def _lose_host(self, why: str = "") -> None:
        """Let vCenter notice that a host of its inventory did not come up again, or sleeps."""
        vcenter, agent = self.machinery.vcenter, self.machinery.agent
        if vcenter is not None and any(entry.name == agent.name for entry in vcenter.hosts()):
            failure = self.host.failure
            vcenter.lose(agent, HostConnectFault(agent.name, failure.message if failure is not None else why))

    def _start_clock(self) -> None:
        now_ns = self.first_ready_ns = self.sim.now
        self._known_end_ns = now_ns + self.scenario.duration_ns
        for number, fault in enumerate(self.scenario.faults):
            if fault.at_ns is not None:
                self.sim.engine.at(now_ns + fault.at_ns, self._strike, fault, number)
        for number, program in enumerate(self.scenario.programs):
            self.sim.engine.at(now_ns + program.at_ns, self._start_program, program, number)
        for number, call in enumerate(self.scenario.calls):
            self.sim.engine.at(now_ns + call.at_ns, self._call, call, number)
        if self.scenario.vcenter is not None:
            self.sim.engine.at(now_ns + self.scenario.vcenter.add_host_ns, self._add_host)

    def _start_vms(self) -> None:
        """Make the resource pools, and power the virtual machines on unless vCenter is to place them."""
        for pool in self.scenario.pools:
            try:
                self.host.call("pool.create", {"spec": plain_table(pool)})
            except ApiError as error:
                self._note("resource pool refused", f"{pool.name}: {error.message}")
        if self.scenario.vcenter is not None and self.scenario.vcenter.place_vms:
            return
        for spec in self.scenario.virtual_machines():
            try:
                self.host.call("vm.power_on", {"spec": plain_table(spec.without_code())})
            except ApiError as error:
                self._refused(spec.name, error.message)

    def _attested_after_boot(self, entry: HostEntry) -> None:
        """Go on after the first attestation of a boot."""
        self._attested(entry)
        if self.scenario.vcenter is not None and self.scenario.vcenter.place_vms:
            self._place_vms()

    def _attested(self, entry: HostEntry) -> None:
        """Let vCenter look again when the verdict of this attestation is too old, if verdicts may be."""
        age_ns = self.scenario.vcenter.verdict_age_max_ns if self.scenario.vcenter is not None else None
        if age_ns is not None and entry.tpm_attestation is not None:
            self.sim.engine.after(age_ns + VERDICT_LOOK_NS, self._look_at_verdict)

    def _look_at_verdict(self) -> None:
        """Ask whether the host's verdict still holds; a newer one does."""
        vcenter = self.machinery.vcenter
        assert vcenter is not None
        if self.host.state is HostState.RUNNING:
            stale = vcenter.check_freshness(self.host.name)
            if stale:
                self._note("verdict is stale", stale)

    def _place_vms(self) -> None:
        """Let vCenter place the virtual machines, after an attestation."""
        vcenter = self.machinery.vcenter
        assert vcenter is not None
        for spec in self.scenario.virtual_machines():
            try:
                vcenter.place_vm(plain_table(spec.without_code()))
            except NoCompatibleHost as error:
                self._refused(spec.name, str(error))

    def _refused(self, name: str, why: str) -> None:
        self.refused_vms.append((name, why))
        self._note("virtual machine refused", f"{name}: {why}")

    def _start_program(self, program: ProgramSpec, number: int) -> None:
        self._note("run program", program.path)
        why = start_program(program, number, self.host)
        if why:
            self.refused_programs.append((program.path, why))
            self._note("program refused", f"{program.path}: {why}")

    def _call(self, call: CallSpec, number: int) -> None:
        self._note("management call", call.method)
        self.calls.append(make_call(call, number, self.host))

    def _strike(self, fault: FaultSpec, number: int) -> None:
        host = self.host
        if fault.kind == "memory_error":
            strike_memory(fault, number, host)
        elif fault.kind == "alter_memory":
            alter_memory(fault, number, host)
        elif fault.kind == "unload_module":
            strike_module(fault, number, host)
        elif fault.kind == "stray_interrupts":
            strike_interrupts(fault, number, host)
        elif fault.kind == "tpm_reset":
            strike_tpm_reset(fault, host)
        elif fault.kind == "revoke":
            strike_revoke(fault, number, host, self.machinery.pki)
        elif fault.strikes_processor:
            strike_processor(fault, host)
        elif fault.kind == "suspend":
            self._suspend(fault.sleep_ns or 0)
        elif fault.kind in {"reboot", "power_cycle"}:
            self._note(fault.kind.replace("_", " "), host.name)
            self._stop_attestation()
            if fault.kind == "power_cycle":
                host.power_off()
                host.power_on()
            else:
                host.reboot()
        else:
            strike_board(fault, number, host.board, self.scenario.launch)

    def _suspend(self, sleep_ns: int) -> None:
        """Suspend the host to memory, and wake it when it has slept long enough."""
        self._stop_attestation()
        try:
            self.host.suspend()
        except ApiError as error:
            self._note("suspend refused", error.message)
            return
        self._note("suspend", self.host.name)
        if self.host.state is HostState.SUSPENDED:
            self.sim.engine.after(sleep_ns, self._wake, self.host.board.boot_count)

    def _wake(self, boot_count: int) -> None:
        """Wake the host, unless it was reset while it slept."""
        if self.host.state is HostState.SUSPENDED and self.host.board.boot_count == boot_count:
            self._note("wake", self.host.name)
            self.host.resume()

    def _attest_again(self) -> None:
        """Attest a host of the inventory that runs, and come back after the interval."""
        spec, vcenter = self.scenario.vcenter, self.machinery.vcenter
        if spec is None or spec.attest_every_ns is None or vcenter is None:
            raise SimBug("an attestation is repeated that nobody asked for")
        known = any(entry.name == self.host.name for entry in vcenter.hosts())
        if known and self.host.state is HostState.RUNNING:
            self._note("attest again", self.host.name)
            self._attestation = vcenter.reconnect_host(self.host.name, on_done=self._attested)
        self.sim.engine.after(spec.attest_every_ns, self._attest_again)

    def _add_host(self) -> None:
        self._wanted_in_vcenter = True
        spec = self.scenario.vcenter
        if spec is not None and spec.attest_every_ns is not None:
            self.sim.engine.after(spec.attest_every_ns, self._attest_again)
        if self.host.state is HostState.RUNNING:
            self._attest()

    def _attest(self) -> None:
        """Add the host to vCenter, or attest it anew if it is there: it has booted again."""
        vcenter, agent = self.machinery.vcenter, self.machinery.agent
        if vcenter is None or not self._wanted_in_vcenter:
            return
        done = self._attested_after_boot
        if any(entry.name == agent.name for entry in vcenter.hosts()):
            self._attestation = vcenter.on_host_rebooted(agent.name, on_done=done)
        else:
            self._note("add host", agent.name)
            self._attestation = vcenter.add_host(agent, on_done=done)

    def _stop_attestation(self) -> None:
        """Cut an attestation short: the host it talks to goes down."""
        if self._attestation is not None:
            self._attestation.stop()
            self._attestation = None

    def _note(self, what: str, detail: str) -> None:
        self.sim.trace.emit(SCENARIO_STEP, what, detail)


def _pause() -> None:
    raise _Pause
