"""The late launch: a second, dynamic root of trust that does not depend on the firmware's.

Models: what tboot does before GETSEC[SENTER] (it shows and heeds the error registers, checks SINIT against the
platform, and follows its policy where there can be no launch); SENTER as seen from the TPM: the processor authenticates
SINIT and streams it into the TPM at locality 4, which clears PCRs 17-22 and extends 17; SINIT judges the launch control
policy and, at locality 3, extends what it found and the launched code; the launched code, at locality 2, measures
command line, options and modules under the map of its generation.  What SINIT or the processor refuses leaves
TXT.ERRORCODE and resets the platform: a boot that finds it there cannot launch until power is cut.

Leaves out: the heap tables, DMA protection, the other processors, AMD's SKINIT; which code an ESXi host launches is
known for 6.7 only (b is measured as the launched code there).

Sources: Intel TXT MLE Developer's Guide; tboot 1.10.5, txt/txt.c, txt/errors.c, common/policy.c (order, texts, policy
actions); `sim.boot.launchforms` for what is measured.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence

from sim.boot.acm import (
    Acm,
    AcmError,
    AcmMismatch,
    authenticate,
    build_acm,
    check_not_revoked,
    check_platform,
    chipset_key_digest,
    public_key_of,
    read_acm,
)
from sim.boot.context import BootContext, BootError
from sim.boot.costs import charge_signatures
from sim.boot.launchforms import DETAILS_PCR, LaunchEvent, LaunchInputs, LaunchRecord, records
from sim.boot.launchpolicy import OWNER_INDEX, SUPPLIER_INDEX
from sim.boot.lcpcheck import LaunchRefused, PolicyMatch, evaluate_policy
from sim.boot.loaded import LoadedModule
from sim.boot.mboot import read_asset_tag
from sim.boot.measure import MeasureError, Measurer, hash_sequence
from sim.boot.modules import ModuleMeasurer
from sim.boot.pcrmap import LOADER_MAP, ModuleClass, PcrMap, module_class
from sim.boot.txt_errors import SinitError, describe_errorcode, sinit_errorcode
from sim.core.facts import fact
from sim.core.trace import record
from sim.core.units import MS
from sim.errors import FormatError, VerificationError
from sim.hw.board import Board
from sim.hw.disk import DiskError
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_RC
from sim.tpm.eventlog import TcgEvent
from sim.tpm.wire import TPMS_NV_PUBLIC

__all__ = ["LAUNCHER_FILE", "LAUNCH_VOLUME", "POLICY_FILE", "LateLaunch", "LaunchEvent", "sinit_module"]

TXT_LAUNCH = record("boot.launch", host=str, outcome=str, errorcode=int, text=str)
"""A late launch was "done", "refused" before SENTER, or ended in a "txt reset" with an error code."""

STAGE = "tboot"
SINIT_VOLUME = "SINIT"
CRTM_VOLUME = "SEC-PEI"
LAUNCH_VOLUME = "esp"
"""Where launcher and policy data lie: no VIB owns them, and Secure Boot lets nothing unowned lie in a boot bank."""
LAUNCHER_FILE = "EFI/VMware/tboot.b00"
POLICY_FILE = "EFI/VMware/lcp.data"
ACM_LOCALITY = 3

SENTER_NS = fact(
    "boot.senter", 120 * MS, unit="ns", source="rendezvous of processors and SINIT's checks", kind="assumed"
)

SENTER_FLAGS = struct.pack("<I", 0)
NV_INFO = struct.pack(">IHI", 0x01C10106, 0x000B, 0)
"""Stands for the public area of the policy's NV index where there is none."""

_RC_NO_INDEX = 0x18B
"""TPM_RC_HANDLE for the first handle: what NV_ReadPublic answers of an index that is not defined."""


class LateLaunch:
    """The launch of one boot, or of one resume; `prepare` and `launch` are steps, and the latter queues the others.

    `launcher` is tboot as it lies in memory, if it does already.
    """

    def __init__(self, context: BootContext, measurer: Measurer, launcher: bytes = b"") -> None:
        self._context = context
        self._measurer = measurer
        self._spec = context.policy.launch
        self._txt = context.board.txt
        self._modules = ModuleMeasurer(measurer, self._spec.pcr_map)
        self._acm = b""
        self.launcher = launcher
        """tboot, where that is what is launched."""
        self._txt.public_key = chipset_key_digest()
        self.done = False
        """Whether the launch took place."""

    @property
    def pcr_map(self) -> PcrMap:
        """The map that was used."""
        return self._spec.pcr_map if self.done else LOADER_MAP

    # ------------------------------------------------------------ before SENTER: tboot's own checks

    def prepare(self) -> None:
        """Do what tboot does before it asks for a launch; where none is possible, follow the policy."""
        if not self._context.late_launch:
            return
        for line in describe_errorcode(self._txt.errorcode):
            self._say(line)
        self._say(f"TXT.ESTS: {self._txt.ests:#x}")
        if self._txt.senter_disabled:
            self._cannot("TXT", f"TXT_RESET.STS is set and SENTER is disabled ({self._txt.ests:#04x})")
            return
        acm = sinit_module(self._context.board)
        if not acm:
            self._cannot(SINIT_VOLUME, "no SINIT AC module found")
            return
        try:
            check_platform(read_acm(acm), self._txt.didvid, production=self._txt.production)
        except (AcmError, AcmMismatch) as error:
            self._cannot(SINIT_VOLUME, str(error))
            return
        self._acm = acm
        self._txt.note_sinit(len(acm))
        if self._spec.own_launcher and not self.launcher:
            self.launcher = self._read_launcher()

    def _cannot(self, component: str, reason: str) -> None:
        """Follow the policy where there can be no launch: go on without one, or stop."""
        self._note("refused", reason)
        action = self._spec.on_failure
        if action == "continue":
            self._say(f"{reason}: policy action continue, no measured launch")
            self._context.late_launch = False
            return
        raise self._context.stop(STAGE, component, f"policy action {action}: {reason}")

    def _read_launcher(self) -> bytes:
        try:
            return self._context.board.disk.volume(LAUNCH_VOLUME).read(LAUNCHER_FILE)
        except DiskError as error:
            raise self._context.stop(
                STAGE, LAUNCHER_FILE, f"Error loading {LAUNCHER_FILE}: {error}"
            ) from error

    # ------------------------------------------------------------ SENTER, and SINIT

    def launch(self) -> None:
        """Execute SENTER if a late launch was decided on, and measure what was booted; a refusal resets the platform."""
        if not self._context.late_launch:
            return
        self._senter()
        self._context.procedure.next(self.measure_options)
        for module in self._context.loaded[0 if self._spec.own_launcher else 1 :]:
            if module_class(module.name) is not ModuleClass.OPTION:
                self._context.procedure.next(self.measure_module, module)
        self._context.procedure.next(self.measure_asset_tag)

    def relaunch(self, kept: Sequence[TcgEvent]) -> None:
        """Execute SENTER after S3, and extend once more what the launched code has kept of its measurements."""
        if not self._context.late_launch:
            return
        self._senter()
        for event in kept:
            self._context.procedure.next(self._extend_again, event)

    def _senter(self) -> None:
        """Let the processor authenticate SINIT, and SINIT judge and measure the launch."""
        self._context.meter.charge(SENTER_NS.value, what="late launch")
        charge_signatures(self._context.meter, 1)
        try:
            authenticate(self._acm, chipset_key_digest())
        except AcmError as error:
            raise self._txt_reset(SINIT_VOLUME, error.code, str(error)) from error
        self._stream_into_tpm(self._acm + SENTER_FLAGS)
        inputs = self._judge(read_acm(self._acm))
        for one in records(inputs, details=self._spec.details):
            self._context.procedure.next(self._measure_record, one)
        self._context.procedure.next(self._begin_measured)

    def _judge(self, acm: Acm) -> LaunchInputs:
        """Do what SINIT does first: see whether it is revoked, and whether the policy allows this launch."""
        try:
            check_not_revoked(acm, self._txt.svn_min)
        except VerificationError as error:
            raise self._refused(SINIT_VOLUME, SinitError.REVOKED, str(error)) from error
        code = self._context.board.firmware.volumes[CRTM_VOLUME]
        return LaunchInputs(
            bios=struct.pack("<I", len(code)) + next(iter(self._measurer.digests(code).values())),
            public_key=public_key_of(self._acm),
            policy=self._policy(acm),
            nv_info=self._nv_info(),
        )

    def _policy(self, acm: Acm) -> PolicyMatch:
        volume = self._context.board.disk.volume(LAUNCH_VOLUME)
        data = volume.read(POLICY_FILE) if volume.exists(POLICY_FILE) else b""
        try:
            return evaluate_policy(
                owner=self._policy_index(OWNER_INDEX.value),
                supplier=self._policy_index(SUPPLIER_INDEX.value),
                data=data,
                acm=acm,
                mle_digest=hashlib.sha256(self._mle()).digest(),
                read_pcrs=self._read_pcrs,
            )
        except LaunchRefused as error:
            raise self._refused("launch control policy", error.error, str(error)) from error

    def _mle(self) -> bytes:
        """Return the code that is launched."""
        return self.launcher if self._spec.own_launcher else self._context.loaded[0].content

    def _read_pcrs(self, pcrs: tuple[int, ...]) -> list[bytes]:
        try:
            values = self._client().pcr_read({TPM_ALG.SHA256: pcrs})[TPM_ALG.SHA256]
        except (TpmError, FormatError) as error:
            raise self._refused("TPM", SinitError.TPM, f"PCRs cannot be read: {error}") from error
        return [values[pcr] for pcr in pcrs]

    def _policy_index(self, index: int) -> bytes:
        """Return a policy from NV; empty if the index is not defined or was never written, and for no other reason."""
        try:
            return self._client().nv_read(index)
        except TpmError as error:
            if error.rc in (_RC_NO_INDEX, TPM_RC.NV_UNINITIALIZED):
                return b""
            raise self._refused("TPM", SinitError.TPM, f"the policy cannot be read: {error}") from error
        except FormatError as error:
            raise self._refused("TPM", SinitError.TPM, f"the policy cannot be read: {error}") from error

    def _nv_info(self) -> bytes:
        """Return the public area of the policy's index, or what stands for it."""
        try:
            return TPMS_NV_PUBLIC.encode(self._client().nv_read_public(OWNER_INDEX.value))
        except TpmError as error:
            if error.rc == _RC_NO_INDEX:
                return NV_INFO
            raise self._refused("TPM", SinitError.TPM, f"the policy cannot be read: {error}") from error

    def _client(self) -> TpmClient:
        slot = self._context.board.tpm
        assert slot is not None, "a late launch is decided on only where there is a TPM"
        return TpmClient(slot.transmit, locality=ACM_LOCALITY)

    def _stream_into_tpm(self, data: bytes) -> None:
        """Drive the hash sequence of locality 4, which only this instruction can."""
        slot = self._context.board.tpm
        assert slot is not None, "a late launch is decided on only where there is a TPM"
        hash_sequence(slot, self._context.meter, data)
        digests = self._measurer.digests(data)
        self._measurer.log(DETAILS_PCR, LaunchEvent.HASH_START, SENTER_FLAGS, digests, name=SINIT_VOLUME)

    def _measure_record(self, one: LaunchRecord) -> None:
        """Extend one thing into PCR 17 or 18; on a host of 6.7 the launched code is told as the module that it is."""
        if one.is_mle and self._spec.details and not self._spec.own_launcher:
            kernel = self._context.loaded[0]
            self._mandatory(self._modules.module, kernel, pcr=one.pcr, locality=one.locality)
            return
        over = self._mle() if one.is_mle else one.data
        self._mandatory(
            self._measurer.measure,
            one.pcr,
            one.kind,
            one.data,
            name=one.kind.name,
            over=over,
            locality=one.locality,
        )

    # ------------------------------------------------------------ the launched code

    def _begin_measured(self) -> None:
        self.done = True
        self._txt.note_launch()
        self._note("done", self._spec.generation)
        self._say("SENTER done: measured launch")

    def measure_options(self) -> None:
        """Measure the command line and the option files."""
        self._mandatory(self._modules.command_line, self._context.command_line)
        for module in self._context.loaded[1:]:
            if module_class(module.name) is ModuleClass.OPTION:
                self.measure_module(module)

    def measure_module(self, module: LoadedModule) -> None:
        """Measure one module into the PCR of its class."""
        self._mandatory(self._modules.module, module)

    def measure_asset_tag(self) -> None:
        """PCR 22: the owner's asset tag, if there is one."""
        tag = read_asset_tag(self._context)
        if tag:
            self._mandatory(self._modules.asset_tag, tag)

    def _extend_again(self, event: TcgEvent) -> None:
        self._mandatory(
            self._measurer.measure,
            event.pcr,
            event.type,
            event.data,
            name="kept measurement",
            digests=dict(event.digests),
            locality=self._spec.pcr_map.locality,
        )

    # ------------------------------------------------------------ refusals

    def _mandatory(self, measure: Callable[..., None], *arguments: object, **options: object) -> None:
        """Measure, or reset the platform: a launch that cannot be proven must not go on."""
        try:
            measure(*arguments, **options)
        except MeasureError as error:
            raise self._refused("TPM", SinitError.TPM, str(error)) from error

    def _refused(self, component: str, error: SinitError, message: str) -> BootError:
        return self._txt_reset(component, sinit_errorcode(error), message)

    def _txt_reset(self, component: str, code: int, message: str) -> BootError:
        """Leave the error code and reset the platform; unless the policy says otherwise, that is where it ends."""
        self._txt.note_error(code)
        for line in describe_errorcode(code):
            self._say(line)
        self._note("txt reset", message, code)
        resets = self._spec.on_failure != "reset"
        return self._context.stop(STAGE, component, f"TXT reset: {message}", resets=resets)

    def _note(self, outcome: str, text: str, code: int = 0) -> None:
        board = self._context.board
        board.sim.trace.emit(TXT_LAUNCH, board.spec.name, outcome, code, text)

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)


def sinit_module(board: Board) -> bytes:
    """Return the board's SINIT module, which its maker puts into the firmware's flash; empty if it was taken out."""
    volumes = board.firmware.volumes
    if SINIT_VOLUME not in volumes:
        volumes[SINIT_VOLUME] = build_acm(board.sim.rng)
    return volumes[SINIT_VOLUME]
