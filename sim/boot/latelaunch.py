"""The late launch: a second, dynamic root of trust that does not depend on the firmware's.

Models: GETSEC[SENTER] as seen from the TPM.  The processor authenticates the SINIT module and streams it into the TPM
at locality 4, which clears PCRs 17-22 and extends 17; SINIT, at locality 3, extends what it found into 17 (details)
and 18 (authorities), the launched kernel among it; the launched code, at locality 2, measures command line, options
and modules under the map of the late launch.

Leaves out: the launch control policy beyond its default ("any"), the heap tables, DMA protection, the other
processors, AMD's SKINIT, S3.

Sources: Intel TXT MLE Developer's Guide (order of the extends in details/authorities mode; tboot 1.10.5, txt/txt.h,
for the event types); the attestation report of a real ESXi 6.7 host with TXT: nine events in PCR 17, the kernel b the
eighth of them, six in PCR 18; its digests at the places of the S-CRTM status (u32 1), of the OS capabilities (u32
0x221), of policy control (u32 0) and of policy details, STM and authorities (one zero byte) are those of this module.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable

from sim.boot.acm import AcmError, build_acm, chipset_key_digest, public_key_of, verify_acm
from sim.boot.context import BootContext
from sim.boot.costs import charge_signatures
from sim.boot.loaded import LoadedModule
from sim.boot.mboot import read_asset_tag
from sim.boot.measure import MeasureError, Measurer, hash_sequence
from sim.boot.modules import ModuleMeasurer
from sim.boot.pcrmap import ModuleClass, module_class
from sim.core.facts import fact
from sim.core.units import MS
from sim.hw.board import Board

__all__ = ["LateLaunch", "LaunchEvent", "sinit_module"]

STAGE = "tboot"
SINIT_VOLUME = "SINIT"
CRTM_VOLUME = "SEC-PEI"
ACM_LOCALITY = 3
DETAILS_PCR = 17
AUTHORITIES_PCR = 18

SENTER_NS = fact(
    "boot.senter", 120 * MS, unit="ns", source="rendezvous of processors and SINIT's checks", kind="assumed"
)
OS_CAPABILITIES = fact(
    "boot.txt_os_capabilities",
    0x221,
    unit="bits",
    source="its SHA-256 is in the report of a real host",
    kind="measured",
)

SENTER_FLAGS = struct.pack("<I", 0)
SCRTM_STATUS = struct.pack("<I", 1)
POLICY_CONTROL = struct.pack("<I", 0)
NO_POLICY = b"\0"
NV_INFO = struct.pack(">IHI", 0x01C10106, 0x000B, 0)
"""Stands for the public area of the policy's NV index; the real bytes differ from platform to platform."""


class LaunchEvent(enum.IntEnum):
    """Event types of a TXT launch."""

    HASH_START = 0x402
    BIOSAC_REG_DATA = 0x40A
    CPU_SCRTM_STAT = 0x40B
    LCP_CONTROL_HASH = 0x40C
    STM_HASH = 0x40E
    OSSINITDATA_CAP_HASH = 0x40F
    SINIT_PUBKEY_HASH = 0x410
    LCP_DETAILS_HASH = 0x412
    LCP_AUTHORITIES_HASH = 0x413
    NV_INFO_HASH = 0x414


class LateLaunch:
    """The launch of one boot; `launch` is a step that queues the others."""

    def __init__(self, context: BootContext, measurer: Measurer) -> None:
        self._context = context
        self._measurer = measurer
        self._modules = ModuleMeasurer(measurer, context.policy.late_launch_map)
        self._acm = b""
        self.done = False
        """Whether the launch took place."""

    def launch(self) -> None:
        """Execute SENTER if a late launch was decided on; stop the boot when the processor refuses SINIT."""
        if not self._context.late_launch:
            return
        self._acm = sinit_module(self._context.board)
        self._context.meter.charge(SENTER_NS.value, what="late launch")
        charge_signatures(self._context.meter, 1)
        try:
            verify_acm(self._acm, chipset_key_digest(self._context.sim.rng))
        except AcmError as error:
            self._say(f"TXT.ERRORCODE {error.code:#x}: {error}")
            raise self._context.stop(STAGE, SINIT_VOLUME, f"TXT reset: {error}") from error
        self._stream_into_tpm(self._acm + SENTER_FLAGS)
        self.done = True
        self._say("SENTER done: measured launch")
        for step in (self.measure_details, self.measure_authorities, self.measure_options):
            self._context.procedure.next(step)
        for module in self._context.loaded[1:]:
            if module_class(module.name) is not ModuleClass.OPTION:
                self._context.procedure.next(self.measure_module, module)
        self._context.procedure.next(self.measure_asset_tag)

    def measure_details(self) -> None:
        """PCR 17, after the hash sequence: what SINIT found, and the kernel that it launches."""
        kernel = self._context.loaded[0]
        code = self._context.board.firmware.volumes[CRTM_VOLUME]
        startup = struct.pack("<I", len(code)) + b"".join(list(self._measurer.digests(code).values())[:1])
        self._extend(DETAILS_PCR, LaunchEvent.BIOSAC_REG_DATA, startup)
        self._extend(DETAILS_PCR, LaunchEvent.CPU_SCRTM_STAT, SCRTM_STATUS)
        self._extend(DETAILS_PCR, LaunchEvent.LCP_CONTROL_HASH, POLICY_CONTROL)
        self._extend(DETAILS_PCR, LaunchEvent.LCP_DETAILS_HASH, NO_POLICY)
        self._extend(DETAILS_PCR, LaunchEvent.STM_HASH, NO_POLICY)
        self._extend(DETAILS_PCR, LaunchEvent.OSSINITDATA_CAP_HASH, struct.pack("<I", OS_CAPABILITIES.value))
        self._mandatory(self._modules.module, kernel, pcr=DETAILS_PCR, locality=ACM_LOCALITY)
        self._extend(DETAILS_PCR, LaunchEvent.NV_INFO_HASH, NV_INFO)

    def measure_authorities(self) -> None:
        """PCR 18: whose keys and policies made the launch possible."""
        self._extend(AUTHORITIES_PCR, LaunchEvent.SINIT_PUBKEY_HASH, public_key_of(self._acm))
        self._extend(AUTHORITIES_PCR, LaunchEvent.CPU_SCRTM_STAT, SCRTM_STATUS)
        self._extend(
            AUTHORITIES_PCR, LaunchEvent.OSSINITDATA_CAP_HASH, struct.pack("<I", OS_CAPABILITIES.value)
        )
        self._extend(AUTHORITIES_PCR, LaunchEvent.LCP_CONTROL_HASH, POLICY_CONTROL)
        self._extend(AUTHORITIES_PCR, LaunchEvent.LCP_AUTHORITIES_HASH, NO_POLICY)
        self._extend(AUTHORITIES_PCR, LaunchEvent.NV_INFO_HASH, NV_INFO)

    def measure_options(self) -> None:
        """PCR 21: the command line and the option files."""
        self._mandatory(self._modules.command_line, self._context.command_line)
        for module in self._context.loaded[1:]:
            if module_class(module.name) is ModuleClass.OPTION:
                self.measure_module(module)

    def measure_module(self, module: LoadedModule) -> None:
        """PCR 19, 20 or 21: one module."""
        self._mandatory(self._modules.module, module)

    def measure_asset_tag(self) -> None:
        """PCR 22: the owner's asset tag, if there is one."""
        tag = read_asset_tag(self._context)
        if tag:
            self._mandatory(self._modules.asset_tag, tag)

    def _stream_into_tpm(self, data: bytes) -> None:
        """Drive the hash sequence of locality 4, which only this instruction can."""
        slot = self._context.board.tpm
        assert slot is not None, "a late launch is decided on only where there is a TPM"
        hash_sequence(slot, self._context.meter, data)
        digests = self._measurer.digests(data)
        self._measurer.log(DETAILS_PCR, LaunchEvent.HASH_START, SENTER_FLAGS, digests, name=SINIT_VOLUME)

    def _extend(self, pcr: int, kind: LaunchEvent, data: bytes) -> None:
        self._mandatory(self._measurer.measure, pcr, kind, data, name=kind.name, locality=ACM_LOCALITY)

    def _mandatory(self, measure: Callable[..., None], *arguments: object, **options: object) -> None:
        """Measure, or stop the boot: a launch that cannot be proven must not go on."""
        try:
            measure(*arguments, **options)
        except MeasureError as error:
            raise self._context.stop(STAGE, "TPM", f"TXT reset: {error}") from error

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)


def sinit_module(board: Board) -> bytes:
    """Return the board's SINIT module, which its maker puts into the firmware's flash."""
    volumes = board.firmware.volumes
    if SINIT_VOLUME not in volumes:
        volumes[SINIT_VOLUME] = build_acm(board.sim.rng)
    return volumes[SINIT_VOLUME]
