"""The VMkernel of one boot: its start, from `BootInfo` to the open management interface.

`START` below is the order in which the kernel comes up, top to bottom, one line a step; each step is a method of the
same name.  After the last one the kernel only reacts: to timers of its scheduler and to management calls.

Models: random placement of the kernel image, per-CPU areas and stacks; the scheduler; the TPM driver; the saved configuration; the loading of
each signed module from the very bytes that were booted; user worlds; the closed interface.

A step that cannot be done ends in a purple screen: `Panic`, a log line, and a host that halts.  A module or an agent
that cannot be loaded is refused, and the start goes on.

Leaves out: storage and network stacks, DCUI and shell, core dumps.  Sources: the texts are modelled on
public vmkernel.log samples (of which `@BlueScreen` is what a panic leaves); the order is ours.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from sim.boot.bootinfo import BootInfo, BootModule
from sim.boot.context import printable
from sim.boot.txt_errors import describe_errorcode
from sim.core.facts import fact
from sim.core.procedure import Procedure
from sim.core.trace import record
from sim.core.units import KIB, MIB, format_bytes
from sim.errors import FormatError, SimBug, VmksimError
from sim.hw.board import Board
from sim.hw.mmu import Rights
from sim.image.acceptance import AcceptanceLevel
from sim.image.contents import kernel_modules
from sim.image.imgdb import DATABASE_FILE, VibRecord, read_database
from sim.image.trust import TrustStore
from sim.kernel.api import ManagementApi
from sim.kernel.bootbanks import note_good_boot
from sim.kernel.configuration import ConfigurationVault
from sim.kernel.execution import ProgramGate, check_places
from sim.kernel.interrupts import InterruptTable
from sim.kernel.layout import Layout, ReleaseProfile
from sim.kernel.loader import LoadRefused, ModuleLoader
from sim.kernel.machine_check import MachineCheckHandler
from sim.kernel.management import PRODUCT, Management
from sim.kernel.memory import KernelMemory
from sim.kernel.memory.options import MemOptions
from sim.kernel.module_signing import ImageModuleVerifier, ModuleOrigin
from sim.kernel.options import shown
from sim.kernel.perf import SAMPLE_EVERY_NS
from sim.kernel.sampling import CpuSampler
from sim.kernel.sched.fluid_engine import make_scheduler
from sim.kernel.sched.options import SchedOptions
from sim.kernel.tpm_driver import TpmDriver
from sim.kernel.userworld import UserWorld, UserWorlds, agents_in
from sim.kernel.vm import PowerState, VmManager

__all__ = ["START", "Panic", "VMkernel"]

KERNEL_STARTED = record("kernel.started", host=str, boot_id=str, modules=int, refused=int)
"""The management interface of a VMkernel has opened."""

KERNEL_PANIC = record("kernel.panic", host=str, boot_id=str, step=str, text=str)
"""A VMkernel showed its purple screen."""

KERNEL_FILE = "k.b00"
"""The boot module that is the VMkernel itself."""

_GUESS = "the order of magnitude of production kernels"
PER_CPU_BYTES = fact("kernel.percpu_bytes", 2 * MIB, unit="byte", source=_GUESS, kind="assumed")
STACK_BYTES = fact("kernel.stack_bytes", 64 * KIB, unit="byte", source=_GUESS, kind="assumed")
HEAP_BYTES = fact("kernel.heap_bytes", MIB, unit="byte", source=_GUESS, kind="assumed")

_DATA = Rights(write=True, user=False, execute=False)

START = (
    "announce",
    "read_image_database",
    "place_kernel",
    "set_up_processors",
    "start_scheduler",
    "load_tpm_driver",
    "unlock_configuration",
    "load_modules",
    "start_user_worlds",
    "open_management_interface",
)
"""The start of the VMkernel, in order: each name is a method below."""


class KernelImageError(VmksimError):
    """There is no image of the VMkernel to run."""


@attrs.frozen(kw_only=True)
class Panic:
    """Why a VMkernel stopped for good: the step of `START`, and what its purple screen says."""

    step: str
    text: str


class VMkernel:
    """The VMkernel of one boot.

    `board` is the machine, `boot` what the loader handed over, `trust` the keys against which modules are checked,
    `request_reboot` what the management call for a reboot triggers (a bound method), `sample_every_ns` how often CPU
    counters are sampled.
    """

    def __init__(
        self,
        board: Board,
        boot: BootInfo,
        trust: TrustStore,
        *,
        layout: ReleaseProfile,
        sched_options: SchedOptions,
        mem_options: MemOptions | None = None,
        shootdowns: bool = True,
        strict_symbols: bool = True,
        request_reboot: Callable[[], object],
        sample_every_ns: int = SAMPLE_EVERY_NS.value,
    ) -> None:
        self.board = board
        self.sim = board.sim
        self.boot = boot
        self.trust = trust
        self.request_reboot = request_reboot
        self.started_ns = 0
        self.resumes = 0
        self.refused: list[str] = []
        rng = self.sim.rng.child(board.spec.name).child(f"boot{board.boot_count}")
        self.layout = Layout(rng.stream("layout/kernel"), layout.kernel)
        self.memory = KernelMemory(self.sim, board.memory, processors=board.processors, everywhere=True)
        self._strict_symbols = strict_symbols
        board.processors.start(self.memory.space.control, shootdowns=shootdowns)
        self.verifier: ImageModuleVerifier
        self.loader: ModuleLoader
        self.scheduler = make_scheduler(self.sim, board.topology, sched_options)
        self.vms = VmManager(self.sim, board, self.scheduler, mem_options)
        self.interrupts = InterruptTable(self.sim, len(board.topology.pcpus))
        self.machine_checks = MachineCheckHandler(self.sim, board, self.vms, self._hardware_failed)
        self.sampler = CpuSampler(self.vms, sample_every_ns)
        self.tpm = TpmDriver(self.sim, board, boot.tpm_state)
        self.user_worlds = UserWorlds(
            self.sim, board.memory, self.scheduler, rng, layout.user, processors=board.processors
        )
        management = Management(self)
        self.vault = ConfigurationVault(board, boot, self.tpm, rng, management.forget_option)
        self.api = ManagementApi(self.sim, management.handlers())
        self._with_agents: list[BootModule] = []
        self._libraries: dict[str, bytes] = {}
        self._owners: dict[str, VibRecord] = {}
        self._procedure: Procedure | None = None
        self._on_started: Callable[[], object] | None = None
        self._on_panic: Callable[[Panic], object] | None = None
        self._step = ""

    def start(self, on_started: Callable[[], object], on_panic: Callable[[Panic], object]) -> None:
        """Run the steps of `START`, then call `on_started()`; `on_panic(panic)` if one of them cannot be done."""
        self._on_started = on_started
        self._on_panic = on_panic
        self._procedure = Procedure(self.sim.engine, self.board.meter, self._finish, self._panic)
        for step in START:
            self._procedure.then(self._run, step)
        self.machine_checks.begin()
        self._procedure.start()

    def stop(self, *, orderly: bool) -> None:
        """End everything that runs: VMs (powered off in order, or just cut), user worlds, the start itself."""
        if self._procedure is not None:
            self._procedure.stop()
        if orderly:
            self._log("Host is rebooting.")
        self.vms.power_off_all()
        if self.started_ns:
            self.sampler.stop()
        self.user_worlds.stop()
        self.machine_checks.end()

    # -- the steps of START

    def announce(self) -> None:
        """Say who starts, on what."""
        spec = self.board.spec
        pcpus = len(self.board.topology.pcpus)
        self._log(f"{PRODUCT} starting on {spec.name}, boot {self.boot.boot_id}")
        self._log(
            f"cpu: {pcpus} pCPUs at {spec.cpu.core_hz // 1_000_000} MHz; memory: {format_bytes(spec.memory_bytes)}"
        )
        txt = self.board.txt
        if txt.errorcode:
            for line in describe_errorcode(txt.errorcode):
                self._log(f"TXT: a launch has failed since power-on: {line.strip()}")
        for key, value in self.boot.kernel_options:
            self._log(f"boot option {key}={shown(key, value)}")

    def read_image_database(self) -> None:
        """Read which VIBs are installed and the acceptance level; without it no module can be verified."""
        level = AcceptanceLevel.PARTNER_SUPPORTED
        try:
            database = read_database(self.boot.module(DATABASE_FILE).data)
            level = database.level
            self._owners = {name: record_ for record_ in database.records for name in record_.files}
        except (FormatError, KeyError) as error:
            self._log(f"image database cannot be read, no module can be verified: {error}")
        self._log(f"host acceptance level: {level.title}")
        self.verifier = ImageModuleVerifier(self.sim, self.trust, level, self.board.meter)
        self.loader = ModuleLoader(
            self.sim, self.memory, self.layout, self.verifier, strict=self._strict_symbols
        )

    def place_kernel(self) -> None:
        """Map the kernel image at a random base, and give it a heap elsewhere."""
        if all(module.name != KERNEL_FILE for module in self.boot.modules):
            raise KernelImageError(f"{KERNEL_FILE} is not among the files that were booted")
        kernel = self.boot.module(KERNEL_FILE)
        placed = self.loader.load_kernel("vmkernel", kernel.content, vib=self._origin(kernel))
        self._log(f"vmkernel: {len(placed.segments)} segments, placed at random, W^X")
        self._map_area("heap", HEAP_BYTES.value, "kernel heap")

    def set_up_processors(self) -> None:
        """Give each pCPU its own area and a stack between guard pages."""
        for pcpu in self.board.topology.pcpus:
            self._map_area("percpu", PER_CPU_BYTES.value, f"pcpu{pcpu.index}")
            self._map_area("stack", STACK_BYTES.value, f"pcpu{pcpu.index} stack")
        self._log(
            f"cpu: {len(self.board.topology.pcpus)} per-CPU areas and stacks placed at random, not executable"
        )

    def start_scheduler(self) -> None:
        """Say how the scheduler is set; it runs from here on."""
        options = self.scheduler.options
        turns = "fluid" if options.engine == "fluid" else f"quantum {options.quantum_ns // 1_000_000} ms"
        self._log(f"CpuSched: {turns}, {len(self.scheduler.pcpus)} pCPUs")

    def load_tpm_driver(self) -> None:
        """Find the TPM, or say "Error loading TPM" and go on."""
        self.tpm.load()

    def unlock_configuration(self) -> None:
        """Have the TPM unseal the key of the saved configuration; a host whose state is another one stops here."""
        self.vault.unlock()

    def load_modules(self) -> None:
        """Queue one step for each file that was booted: the kernel modules in it are verified, placed and mapped."""
        if self._procedure is None:
            raise SimBug("the VMkernel loads modules at its start only")
        for boot_module in self.boot.modules:
            self._procedure.next(self._load_modules_of, boot_module)

    def start_user_worlds(self) -> None:
        """Start the agents (hostd, vpxa), each in an address space of its own."""
        for boot_module in self._with_agents:
            try:
                agents, libraries = agents_in(boot_module.content)
                identity = self.verifier.verify(
                    boot_module.name, boot_module.content, self._origin(boot_module)
                )
                check_places(identity, (*agents, *libraries))
                self._libraries.update(libraries)
                for path, program in agents.items():
                    self.user_worlds.start(path, program, libraries)
            except SimBug:
                raise
            except VmksimError as error:
                self._refuse(boot_module.name, str(error))

    def execute(self, path: str, program: bytes) -> UserWorld:
        """Start a program with the libraries of the image, as a shell on the host does; `path` is relative to the root.

        Only libraries of verified VIBs count: what the saved state holds is data.

        Errors: `ProgramRefused` under execInstalledOnly; a `VmksimError` when it cannot be mapped or runs already.
        """
        gate = ProgramGate(
            sim=self.sim,
            host=self.board.spec.name,
            boot=self.boot,
            verifier=self.verifier,
            origin=self._origin,
            enforced=self.vault.exec_installed_only,
        )
        gate.admit(path, program)
        if path.rpartition("/")[2] in self.user_worlds.running:
            raise VmksimError(f"{path} runs already")
        return self.user_worlds.start(path, program, self._libraries)

    def open_management_interface(self) -> None:
        """From here on management calls are answered, nothing else gets in, and CPU counters are sampled."""
        self.started_ns = self.sim.now
        self.sampler.start()
        self._log(f"{len(self.loader.modules())} modules loaded, {len(self.refused)} refused")
        if note_good_boot(self.board.disk.volume(self.boot.bank)):
            self._log(f"the update in {self.boot.bank} has booted well")
        self._log("Management interface open.")

    def quiesce(self) -> tuple[str, ...]:
        """Suspend every VM that runs, before S3; return their names."""
        running = tuple(vm.name for vm in self.vms.vms.values() if vm.state is PowerState.POWERED_ON)
        for name in running:
            self.vms.suspend(name)
        self._log(f"entering S3, {len(running)} virtual machines suspended")
        return running

    def go_on(self, names: tuple[str, ...], resumes: int) -> None:
        """Let the VMs go on that S3 has suspended; `resumes` counts how often this kernel came back."""
        self.resumes = resumes
        for name in names:
            self.vms.resume(name)
        self._log(f"resumed from S3, {len(names)} virtual machines go on")

    def check_invariants(self) -> None:
        """Raise `SimBug` unless layout, memory, loader, scheduler and VMs agree."""
        self.layout.check_invariants()
        self.memory.check_invariants()
        self.loader.check_invariants()
        self.scheduler.check_invariants()
        self.vms.check_invariants()
        self.user_worlds.check_invariants()

    # -- helpers

    def _finish(self) -> None:
        self._procedure = None
        self.sim.trace.emit(
            KERNEL_STARTED,
            self.board.spec.name,
            self.boot.boot_id,
            len(self.loader.modules()),
            len(self.refused),
        )
        if self._on_started is None:
            raise SimBug("a VMkernel has ended its start without having begun it")
        self._on_started()

    def _run(self, step: str) -> None:
        self._step = step
        getattr(self, step)()

    def _panic(self, error: VmksimError) -> None:
        """Show the purple screen and stop: a step of the start cannot be done, and nothing can go on without it."""
        if isinstance(error, SimBug) or self._on_panic is None:
            raise error
        panic = Panic(step=self._step, text=printable(str(error)))
        self.sim.trace.emit(KERNEL_PANIC, self.board.spec.name, self.boot.boot_id, panic.step, panic.text)
        self._log(f"@BlueScreen: {panic.step}: {panic.text}")
        self._on_panic(panic)

    def _hardware_failed(self, text: str) -> None:
        """Show the purple screen for a machine check in memory that the kernel cannot do without."""
        if self._procedure is not None:
            self._procedure.stop()
            self._procedure = None
        self._step = "machine check"
        self._panic(VmksimError(text))

    def _load_modules_of(self, boot_module: BootModule) -> None:
        try:
            modules = kernel_modules(boot_module.content)
            if agents_in(boot_module.content)[0]:
                self._with_agents.append(boot_module)
        except FormatError as error:
            self._refuse(boot_module.name, str(error))
            return
        for name, data in modules:
            try:
                self.loader.load(name, data, vib=self._origin(boot_module))
            except LoadRefused:
                self.refused.append(name)

    def _origin(self, boot_module: BootModule) -> ModuleOrigin | None:
        """Return the VIB record that owns a boot module; None when none does."""
        owner = self._owners.get(boot_module.name)
        if owner is None:
            return None
        return ModuleOrigin(
            vib_id=owner.descriptor.vib_id,
            descriptor_xml=owner.descriptor_xml,
            signature=owner.signature,
            content=boot_module.content,
        )

    def _map_area(self, kind: str, size_bytes: int, owner: str) -> None:
        base = self.layout.place(kind, size_bytes, owner)
        self.memory.map_segment(base, b"", _DATA, owner=owner, size_bytes=size_bytes)

    def _refuse(self, name: str, reason: str) -> None:
        self.refused.append(name)
        self._log(f"Mod: {name} refused: {reason}")

    def _log(self, text: str) -> None:
        self.sim.log("vmkernel", text)
