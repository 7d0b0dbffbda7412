"""What each command takes and gives: handles, parameters, results and attributes, declared once for both ends.

Models: the command tables of the library for the implemented commands; the device parses by them, the client builds
by them, and GetCapability reports them.
Leaves out: what the commands do (`sim.tpm.commands`).
Sources: TCG TPM 2.0 Library part 3; the attributes are equal to those that swtpm 0.7.1 reports.
"""

from __future__ import annotations

from collections.abc import Container

from attrs import field, frozen

from sim.tpm.codec import Codec, Number, codec_of
from sim.tpm.constants import PCR_COUNT, TPM_CC, TPM_RH
from sim.tpm.wire import (
    SESSION_HANDLES,
    TPM2B_ATTEST,
    TPM2B_CREATION_DATA,
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPM2B_EVENT,
    TPM2B_MAX_BUFFER,
    TPM2B_MAX_NV_BUFFER,
    TPM2B_NAME,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_SENSITIVE_DATA,
    TPMI_YES_NO,
    TPML_DIGEST,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMS_CAPABILITY_DATA,
    TPMS_TIME_INFO,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
    TPMT_TK_CREATION,
    UINT16,
    UINT32,
)

__all__ = ["COMMANDS", "CommandSpec", "Handle"]


class HandleSet:
    """Handles of several kinds: ranges and single values."""

    def __init__(self, *parts: Container[int]) -> None:
        self.parts = parts

    def __contains__(self, handle: object) -> bool:
        return any(handle in part for part in self.parts)


_NULL = frozenset({TPM_RH.NULL.value})
_PCR = range(PCR_COUNT)
_TRANSIENT = range(0x8000_0000, 0x8000_00FF)
_PERSISTENT = range(0x8100_0000, 0x8200_0000)
_NV = range(0x0100_0000, 0x0200_0000)
_HIERARCHY = frozenset(
    {TPM_RH.OWNER.value, TPM_RH.NULL.value, TPM_RH.ENDORSEMENT.value, TPM_RH.PLATFORM.value}
)
_NV_AUTH = frozenset({TPM_RH.OWNER.value, TPM_RH.PLATFORM.value})


@frozen(kw_only=True)
class Handle:
    """A handle of a command: which values its type allows, and whether it needs an authorisation."""

    allowed: Container[int]
    authorised: bool = False


@frozen(kw_only=True)
class CommandSpec:
    """One command; `parameters` and `results` are codecs in order, without the handles."""

    code: TPM_CC
    handles: tuple[Handle, ...] = ()
    parameters: tuple[Codec, ...] = ()
    results: tuple[Codec, ...] = ()
    returns_handle: bool = False
    changes_nv: bool = False
    sessions_allowed: bool = True
    authorised_count: int = field(init=False)

    @authorised_count.default
    def _count_authorised(self) -> int:
        return sum(handle.authorised for handle in self.handles)

    @property
    def attributes(self) -> int:
        """The command's TPMA_CC."""
        return self.code | self.changes_nv << 22 | len(self.handles) << 25 | self.returns_handle << 28


def _user(*allowed: Container[int]) -> Handle:
    return Handle(allowed=HandleSet(*allowed) if len(allowed) > 1 else allowed[0], authorised=True)


def _plain(*allowed: Container[int]) -> Handle:
    return Handle(allowed=HandleSet(*allowed) if len(allowed) > 1 else allowed[0])


_SPECS = (
    CommandSpec(
        code=TPM_CC.Startup,
        parameters=(Number("H", allowed=frozenset({0, 1})),),
        changes_nv=True,
        sessions_allowed=False,
    ),
    CommandSpec(code=TPM_CC.Shutdown, parameters=(Number("H", allowed=frozenset({0, 1})),), changes_nv=True),
    CommandSpec(code=TPM_CC.SelfTest, parameters=(TPMI_YES_NO,), changes_nv=True),
    CommandSpec(code=TPM_CC.GetTestResult, results=(TPM2B_MAX_BUFFER, UINT32)),
    CommandSpec(
        code=TPM_CC.GetCapability,
        parameters=(Number("I", allowed=range(0x0B)), UINT32, UINT32),
        results=(TPMI_YES_NO, codec_of(TPMS_CAPABILITY_DATA)),
    ),
    CommandSpec(code=TPM_CC.GetRandom, parameters=(UINT16,), results=(TPM2B_DIGEST,)),
    CommandSpec(code=TPM_CC.StirRandom, parameters=(TPM2B_SENSITIVE_DATA,), changes_nv=True),
    CommandSpec(
        code=TPM_CC.PCR_Read,
        parameters=(TPML_PCR_SELECTION,),
        results=(UINT32, TPML_PCR_SELECTION, TPML_DIGEST),
    ),
    CommandSpec(
        code=TPM_CC.PCR_Extend,
        handles=(_user(_PCR, _NULL),),
        parameters=(TPML_DIGEST_VALUES,),
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.PCR_Event,
        handles=(_user(_PCR, _NULL),),
        parameters=(TPM2B_EVENT,),
        results=(TPML_DIGEST_VALUES,),
        changes_nv=True,
    ),
    CommandSpec(code=TPM_CC.PCR_Reset, handles=(_user(_PCR),), changes_nv=True),
    CommandSpec(
        code=TPM_CC.CreatePrimary,
        handles=(_user(_HIERARCHY),),
        parameters=(TPM2B_SENSITIVE_CREATE, TPM2B_PUBLIC, TPM2B_DATA, TPML_PCR_SELECTION),
        returns_handle=True,
        results=(TPM2B_PUBLIC, TPM2B_CREATION_DATA, TPM2B_DIGEST, codec_of(TPMT_TK_CREATION), TPM2B_NAME),
    ),
    CommandSpec(
        code=TPM_CC.ReadPublic,
        handles=(_plain(_TRANSIENT, _PERSISTENT),),
        results=(TPM2B_PUBLIC, TPM2B_NAME, TPM2B_NAME),
    ),
    CommandSpec(
        code=TPM_CC.FlushContext, parameters=(Number("I", allowed=HandleSet(_TRANSIENT, SESSION_HANDLES)),)
    ),
    CommandSpec(
        code=TPM_CC.Quote,
        handles=(_user(_TRANSIENT, _PERSISTENT, _NULL),),
        parameters=(TPM2B_DATA, codec_of(TPMT_SIG_SCHEME), TPML_PCR_SELECTION),
        results=(TPM2B_ATTEST, codec_of(TPMT_SIGNATURE)),
    ),
    CommandSpec(code=TPM_CC.ReadClock, results=(codec_of(TPMS_TIME_INFO),)),
    CommandSpec(code=TPM_CC.NV_ReadPublic, handles=(_plain(_NV),), results=(TPM2B_NV_PUBLIC, TPM2B_NAME)),
    CommandSpec(
        code=TPM_CC.NV_Read,
        handles=(_user(_NV, _NV_AUTH), _plain(_NV)),
        parameters=(UINT16, UINT16),
        results=(TPM2B_MAX_NV_BUFFER,),
    ),
)

COMMANDS: dict[int, CommandSpec] = {
    spec.code.value: spec for spec in sorted(_SPECS, key=lambda spec: spec.code)
}
"""Every implemented command, by command code, in ascending order."""
