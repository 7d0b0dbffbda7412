"""One host's hardware put together, with its power switch.

Models: the parts of `sim.hw` on one board; power-on, reset, suspend to memory and power-off, and what each does to
memory, TPM, TXT registers and disk; the cost meter through which every part charges simulated time to whoever runs on the host.

Leaves out: power supplies, sensors, the baseboard management controller, and what the firmware runs at power-on
(`sim.boot`).
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.core.context import Sim
from sim.core.procedure import CostMeter
from sim.core.trace import record
from sim.errors import SimBug
from sim.hw.disk import Disk
from sim.hw.firmware import FirmwareSettings
from sim.hw.memory import Extent, PhysicalMemory
from sim.hw.nic import Nic
from sim.hw.patrol import PatrolScrubber
from sim.hw.processors import Processors
from sim.hw.spec import HostSpec
from sim.hw.topology import Topology
from sim.hw.tpm_slot import TpmDevice, TpmSlot
from sim.hw.txt import TxtRegisters

BOARD_POWER = record("hw.power", host=str, change=str, boot_count=int)

LOW_MEMORY_OWNER = "firmware"
_LOW_MEMORY_FRAMES = 512


class Board:
    """A host's hardware: `power_on`, `reset`, `suspend`, `resume` and `power_off` alone change its power state."""

    def __init__(self, sim: Sim, spec: HostSpec, tpm_device: TpmDevice | None = None) -> None:
        if spec.tpm_present != (tpm_device is not None):
            message = f"host {spec.name}: the spec says tpm_present={spec.tpm_present}, the board got {tpm_device!r}"
            raise SimBug(message)
        self.sim = sim
        self.spec = spec
        self.meter = CostMeter()
        self.topology = Topology.of(spec.cpu)
        self.memory = PhysicalMemory(spec.memory_bytes, nodes=self.topology.nodes)
        self.processors = Processors(sim, self.memory, len(self.topology.pcpus), spec.cpu.core_hz)
        self.patrol = PatrolScrubber(sim, self.memory, spec.patrol_scrub_ns)
        self.disk = Disk(self.meter, spec.disk)
        host_rng = sim.rng.child(spec.name)
        self.nic = Nic(spec.nic, host_rng.stream("nic0"))
        self.firmware = FirmwareSettings(spec.firmware, sim.rng.child("firmware"), host_rng)
        self.tpm: TpmSlot | None = None
        if tpm_device is not None:
            self.tpm = TpmSlot(tpm_device, self.meter, sim, enabled=spec.firmware.tpm_enabled)
        self.txt = TxtRegisters(production=not spec.firmware.debug_chipset)
        self.powered = False
        self.asleep = False
        """Whether it is in S3: memory alone has power."""
        self.boot_count = 0
        self.low_memory: tuple[Extent, ...] = ()

    def power_on(self) -> None:
        """Apply power: memory holds zeros, the TPM gets _TPM_Init, the setup switches take effect."""
        if self.powered:
            message = f"host {self.spec.name} is already powered on"
            raise SimBug(message)
        self.powered = True
        self.memory.power_cycle()
        self.txt.power_cycle()
        self._start("power on")

    def reset(self) -> None:
        """Reset the platform: all frames become free, though their bytes stay until handed over; disk is kept."""
        if not self.powered:
            message = f"host {self.spec.name} is powered off and cannot be reset"
            raise SimBug(message)
        self.processors.reset()
        self.memory.release_all()
        self.txt.reset()
        self._start("reset")

    def suspend(self) -> None:
        """Enter S3: memory keeps its bytes and owners, everything else loses power."""
        if not self.powered or self.asleep:
            message = f"host {self.spec.name} is not awake and cannot be suspended"
            raise SimBug(message)
        self.asleep = True
        self.sim.trace.emit(BOARD_POWER, self.spec.name, "suspend", self.boot_count)

    def resume(self) -> None:
        """Leave S3: the TPM gets _TPM_Init, the TXT registers forget the launch but not an error."""
        if not self.asleep:
            message = f"host {self.spec.name} is not in S3 and cannot be resumed"
            raise SimBug(message)
        self.asleep = False
        self.meter.take()
        self.txt.reset()
        if self.tpm is not None:
            self.tpm.power_cycle()
        self.sim.trace.emit(BOARD_POWER, self.spec.name, "resume", self.boot_count)

    def power_off(self) -> None:
        """Remove power: memory loses its bytes; disk, firmware settings and the TPM's NV memory stay."""
        if not self.powered:
            message = f"host {self.spec.name} is already powered off"
            raise SimBug(message)
        self.powered = self.asleep = False
        self.low_memory = ()
        self.processors.reset()
        self.memory.power_cycle()
        self.sim.trace.emit(BOARD_POWER, self.spec.name, "power off", self.boot_count)

    def flip_memory_bits(self, pa: int, bits: Iterable[int]) -> None:
        """Let cells fail: flip bits, 0 to 63 of the data and 64 to 71 of the code, of the memory word around `pa`.

        Whoever reads the word first meets them: an access (`PhysicalMemory.read`), or the patrol scrubber.
        """
        self.memory.errors.inject(pa, bits)
        self.patrol.expect(pa)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless every part keeps its invariants."""
        self.memory.check_invariants()
        self.processors.check_invariants()
        for volume in self.disk.volumes():
            volume.check_invariants()

    def _start(self, change: str) -> None:
        self.boot_count += 1
        self.asleep = False
        self.meter.take()
        self.low_memory = self.memory.allocate(_LOW_MEMORY_FRAMES, LOW_MEMORY_OWNER, contiguous=True)
        if self.tpm is not None:
            self.tpm.enabled = self.firmware.tpm_enabled
            self.tpm.power_cycle()
        self.sim.trace.emit(BOARD_POWER, self.spec.name, change, self.boot_count)
