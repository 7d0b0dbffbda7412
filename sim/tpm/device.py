"""The TPM as a device: bytes in, bytes out, at a locality.

Models: one command at a time; _TPM_Init; the hash sequence that only hardware at locality 4 drives (H-CRTM before
Startup, late launch after it); hierarchies with their seeds; transient slots; the simulated time of each command.
Any bytes get a well-formed response, and a refused command changes nothing.
Leaves out: HMAC and policy sessions, child objects, persistent objects, dictionary-attack logic, failure mode, and
all commands that `sim.tpm.requests` does not list: these answer TPM_RC_COMMAND_CODE.
Sources: TCG TPM 2.0 Library parts 1 and 3; PC Client Platform TPM Profile; details measured on swtpm 0.7.1.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from sim.core.rng import Stream
from sim.errors import SimBug
from sim.tpm.algorithms import UNTESTED
from sim.tpm.auditing import CommandAudit
from sim.tpm.commits import Commits
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RH, TPM_SU
from sim.tpm.dictionary_attack import DictionaryAttack
from sim.tpm.dispatch import run_command
from sim.tpm.keys import LoadedObject, kdf_a
from sim.tpm.nv import NvIndex
from sim.tpm.pcr import PcrBanks
from sim.tpm.profile import TpmProfile
from sim.tpm.sessions import SessionTable
from sim.tpm.timekeeping import Timekeeper
from sim.tpm.words import in_words

__all__ = ["Clock", "Hierarchy", "StoppedClock", "Tpm"]

SEED_BYTES = 64
TRANSIENT_FIRST = 0x8000_0000
HASH_SEQUENCE_BYTES_MAX = 256 * 1024 * 1024


class Clock(Protocol):
    """Where the device reads simulated time; an engine is one."""

    @property
    def now(self) -> int:
        """Simulated time, ns."""


class StoppedClock:
    """A clock that moves only when its `now` is set; what a TPM has until it is put into a machine."""

    def __init__(self) -> None:
        self.now = 0


@frozen(kw_only=True)
class Hierarchy:
    """A hierarchy: the seed of its primaries, the proof of its tickets, and what authorises its use."""

    seed: bytes
    proof: bytes
    auth: bytes = b""
    policy: bytes = b""
    policy_alg: int = TPM_ALG.NULL.value
    enabled: bool = True


@frozen(kw_only=True)
class StartState:
    """How the TPM was started: a resume must find the same."""

    locality: int
    h_crtm: bool


class Tpm:
    """A TPM 2.0; `seed` (bytes, or a stream to draw from) decides its seeds and its random numbers.

    `clock` may be replaced by any object with `now` in ns, such as the engine of a simulation.  The whole device
    pickles, clock included.
    """

    def __init__(
        self, seed: bytes | Stream, profile: TpmProfile | None = None, clock: Clock | None = None
    ) -> None:
        stream = seed if isinstance(seed, Stream) else Stream(seed)
        self.profile = profile if profile is not None else TpmProfile()
        self.clock: Clock = clock if clock is not None else StoppedClock()
        self.pcrs = PcrBanks(self.profile.banks, self.profile.event_log_bytes_max)
        self.time = Timekeeper()
        self.hierarchies = {
            handle.value: Hierarchy(seed=stream.bytes(SEED_BYTES), proof=stream.bytes(SEED_BYTES))
            for handle in (TPM_RH.ENDORSEMENT, TPM_RH.OWNER, TPM_RH.PLATFORM)
        }
        self.hierarchies[TPM_RH.LOCKOUT.value] = Hierarchy(seed=b"", proof=b"")
        self._null_root = stream.bytes(SEED_BYTES)
        self.random = Stream(stream.bytes(SEED_BYTES))
        self.objects: dict[int, LoadedObject] = {}
        self.persistent: dict[int, LoadedObject] = {}
        self.borrowed_slots: list[int] = []
        """Slots that hold persistent objects while a command uses them."""
        self.object_contexts = 0
        self.reset_epoch = 0
        self.clear_epoch = 0
        self.nv: dict[int, NvIndex] = {}
        self.nv_counter_max = 0
        self.commits = Commits()
        self.sessions = SessionTable()
        self.da = DictionaryAttack()
        self.command_audit = CommandAudit()
        self.platform_nv_enabled = True
        self.clear_disabled = False
        self.physical_presence = False
        self.presence_commands: tuple[int, ...] = (TPM_CC.PP_Commands.value,)
        self.boot_number = 0
        self.algorithm_set = 0
        self.untested: tuple[int, ...] = UNTESTED
        self.failed = False
        self.started = False
        self.start_state: StartState | None = None
        self.shutdown_type: TPM_SU | None = TPM_SU.CLEAR
        self.started_orderly = True
        self.established = False
        self.h_crtm: bytes | None = None
        self.locality = 0
        self.last_latency_ns = 0
        self._hash_sequence: bytearray | None = None

    def execute(self, command: bytes, locality: int = 0) -> bytes:
        """Run one command at `locality` (0 to 4) and return the response; `last_latency_ns` says how long it took."""
        if not 0 <= locality <= 4:
            raise SimBug(f"there is no locality {locality}")
        self.locality = locality
        self._hash_sequence = None
        return run_command(self, command)

    def in_words(self, command: bytes, response: bytes, locality: int) -> str:
        """Return a line of plain words about a command and its response."""
        return in_words(command, response, locality)

    @property
    def event_log(self) -> bytes:
        """The log that is kept beside the PCRs, in the crypto-agile form; replaying it gives their values.

        `pcrs.log.truncated` says that it passed the profile's `event_log_bytes_max` and lacks the newest events.
        """
        return self.pcrs.log.to_bytes()

    def describe_event(self, pcr: int, event_type: int, data: bytes) -> bool:
        """Give the newest event of that log a type and data; False when it is no event of `pcr`, or was not kept."""
        return self.pcrs.log.describe(pcr, event_type, data)

    def init(self) -> None:
        """Apply _TPM_Init, which power-on and platform reset signal: Startup must come next."""
        self.time.power_on(self.clock.now, orderly=self.shutdown_type is not None)
        self.started = False
        self.failed = False
        self.untested = UNTESTED
        self.boot_number += 1
        self.sessions.power_on()
        self.objects.clear()
        self.h_crtm = None
        self._hash_sequence = None

    def enter_failure_mode(self) -> None:
        """Make a self-test fail: until the next `init` only the two commands of failure mode work."""
        self.failed = True

    def hash_start(self) -> None:
        """Begin the hash sequence; any command ends it without effect."""
        self._hash_sequence = bytearray()
        self.last_latency_ns = self.profile.other_latency_ns

    def hash_data(self, data: bytes) -> None:
        """Add bytes to the hash sequence; without `hash_start` they are lost."""
        if self._hash_sequence is not None:
            if len(self._hash_sequence) + len(data) > HASH_SEQUENCE_BYTES_MAX:
                raise SimBug(f"a hash sequence passes {HASH_SEQUENCE_BYTES_MAX} bytes")
            self._hash_sequence += data
        self.last_latency_ns = self.profile.hash_byte_ns * len(data)

    def hash_end(self) -> None:
        """End the hash sequence: before Startup it is the H-CRTM of PCR 0, after it a launch into PCR 17."""
        sequence, self._hash_sequence = self._hash_sequence, None
        self.last_latency_ns = self.profile.other_latency_ns
        if sequence is None:
            return
        self.established = True
        if self.started:
            self.pcrs.launch(bytes(sequence))
            self.time.restart_count += 1
            self.shutdown_type = None
        else:
            self.h_crtm = bytes(sequence)

    def hierarchy(self, handle: int) -> Hierarchy:
        """Return a hierarchy; the null hierarchy has other secrets after each TPM reset."""
        if handle != TPM_RH.NULL:
            return self.hierarchies[handle]
        resets = self.reset_epoch.to_bytes(4, "big")
        secrets = kdf_a(TPM_ALG.SHA512, self._null_root, b"NULL", resets, 2 * SEED_BYTES * 8)
        return Hierarchy(seed=secrets[:SEED_BYTES], proof=secrets[SEED_BYTES:])

    def new_start_state(self) -> StartState:
        """Return how the Startup that runs now starts the TPM; after an H-CRTM its locality does not matter."""
        h_crtm = self.h_crtm is not None
        return StartState(locality=0 if h_crtm else self.locality, h_crtm=h_crtm)

    def free_slot(self) -> int | None:
        """Return the handle of a free transient slot, or None."""
        for slot in range(TRANSIENT_FIRST, TRANSIENT_FIRST + self.profile.transient_slots):
            if slot not in self.objects and slot not in self.borrowed_slots:
                return slot
        return None

    def provision_nv(self, index: NvIndex) -> None:
        """Put an index into NV, as its manufacturer does."""
        self.nv[index.public.nvIndex] = index

    def check_invariants(self) -> None:
        """Assert what must always hold."""
        self.pcrs.check_invariants()
        self.sessions.check_invariants()
        assert len(self.objects) <= self.profile.transient_slots
        assert all(TRANSIENT_FIRST <= handle < TRANSIENT_FIRST + 255 for handle in self.objects)
        assert self.start_state is not None or not self.started
