"""The software side of a TPM: builds commands, sends them through any door, and reads the responses.

Models: what a driver or a boot loader does, with empty-password authorisations.  Leaves out: sessions, retries,
resource management.
Source: TCG TPM 2.0 Library part 3; the layouts come from `sim.tpm.requests`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sim.errors import FormatError, VmksimError
from sim.tpm.constants import TPM_ALG, TPM_CAP, TPM_CC, TPM_RH, TPM_ST, TPM_SU, rc_name
from sim.tpm.requests import CommandSpec
from sim.tpm.tables import COMMANDS
from sim.tpm.templates import ATTESTATION_KEY
from sim.tpm.wire import (
    NV_BUFFER_BYTES_MAX,
    TPM2B_PUBLIC,
    TPMS_AUTH_COMMAND,
    TPMS_CAPABILITY_DATA,
    TPMS_NV_PUBLIC,
    TPMS_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMS_TIME_INFO,
    TPMT_HA,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    UINT32,
)

__all__ = ["PrimaryKey", "TpmClient", "TpmError", "selection_of"]

_HEADER = struct.Struct(">HII")
_HEADER_BYTES = _HEADER.size
_NO_SESSIONS = TPM_ST.NO_SESSIONS.value
_SESSIONS = TPM_ST.SESSIONS.value
_EMPTY_PASSWORD = TPMS_AUTH_COMMAND(
    sessionHandle=TPM_RH.PW.value, nonce=b"", sessionAttributes=0, hmac=b""
).encode()
_KEYS_OWN_SCHEME = TPMT_SIG_SCHEME(scheme=TPM_ALG.NULL.value, details=None)
_RANDOM_CHUNK_MAX = 64

Selection = Mapping[int, Iterable[int]]
"""PCRs by bank."""


class TpmError(VmksimError):
    """The TPM refused a command: `rc` is its response code, `command` the command's name."""

    def __init__(self, rc: int, command: str) -> None:
        super().__init__(rc, command)
        self.rc = rc
        self.command = command

    def __str__(self) -> str:
        return f"TPM2_{self.command}: {rc_name(self.rc)}"


PrimaryKey = tuple[int, bytes, bytes]
"""Handle, public area as TPM2B_PUBLIC, and name of a created primary."""


def selection_of(selection: Selection) -> tuple[TPMS_PCR_SELECTION, ...]:
    """Return a PCR selection in the form of the wire."""
    return tuple(TPMS_PCR_SELECTION.of(bank, pcrs) for bank, pcrs in selection.items())


class TpmClient:
    """Talks to a TPM through `transmit(command, locality=...)`, always at one `locality`."""

    def __init__(self, transmit: Callable[..., bytes], locality: int = 0) -> None:
        self.transmit = transmit
        self.locality = locality

    def at_locality(self, locality: int) -> TpmClient:
        """Return a client for the same TPM at another locality."""
        return TpmClient(self.transmit, locality)

    def startup(self, startup_type: TPM_SU = TPM_SU.CLEAR) -> None:
        """Start the TPM after a reset."""
        self._call(TPM_CC.Startup, (), int(startup_type))

    def shutdown(self, shutdown_type: TPM_SU = TPM_SU.CLEAR) -> None:
        """Tell the TPM that power is about to go."""
        self._call(TPM_CC.Shutdown, (), int(shutdown_type))

    def self_test(self, *, full: bool = True) -> None:
        """Run the self-tests."""
        self._call(TPM_CC.SelfTest, (), int(full))

    def test_result(self) -> int:
        """Return the response code of the self-tests."""
        return int(self._call(TPM_CC.GetTestResult, ())[1])

    def pcr_extend(self, pcr: int, digests: Mapping[int, bytes]) -> None:
        """Extend a PCR with a digest per bank."""
        values = tuple(TPMT_HA(hashAlg=int(bank), digest=digest) for bank, digest in digests.items())
        self._call(TPM_CC.PCR_Extend, (pcr,), values)

    def pcr_event(self, pcr: int, data: bytes) -> dict[int, bytes]:
        """Let the TPM hash up to 1,024 bytes into a PCR; return the digests by bank."""
        (digests,) = self._call(TPM_CC.PCR_Event, (pcr,), data)
        return {each.hashAlg: each.digest for each in digests}

    def pcr_reset(self, pcr: int) -> None:
        """Reset a PCR."""
        self._call(TPM_CC.PCR_Reset, (pcr,))

    def pcr_read(self, selection: Selection) -> dict[int, dict[int, bytes]]:
        """Return {bank: {pcr: value}} of the selected PCRs, in as many commands as that takes."""
        missing = {int(bank): sorted(set(pcrs)) for bank, pcrs in selection.items()}
        values: dict[int, dict[int, bytes]] = {bank: {} for bank in missing}
        while any(missing.values()):
            _, answered, digests = self._call(TPM_CC.PCR_Read, (), selection_of(missing))
            named = [(each.hash, pcr) for each in answered for pcr in each.pcrs]
            if len(named) != len(digests) or any(pcr not in missing.get(bank, ()) for bank, pcr in named):
                raise _garbled("PCR_Read", "values of other PCRs than were asked for")
            for (bank, pcr), digest in zip(named, digests, strict=True):
                values[bank][pcr] = digest
            if not digests:
                break
            missing = {
                bank: [pcr for pcr in pcrs if pcr not in values[bank]] for bank, pcrs in missing.items()
            }
        return values

    def create_primary(
        self, template: TPMT_PUBLIC, hierarchy: int = TPM_RH.ENDORSEMENT, auth: bytes = b""
    ) -> PrimaryKey:
        """Create and load the primary of a template; return its handle, public area and name."""
        secrets = TPMS_SENSITIVE_CREATE(userAuth=auth, data=b"")
        results = self._call(TPM_CC.CreatePrimary, (int(hierarchy),), secrets, template, b"", ())
        return results[0], TPM2B_PUBLIC.encode(results[1]), results[5]

    def create_primary_ak(self) -> PrimaryKey:
        """Create the attestation key: the one whose certificate the manufacturer put into NV."""
        return self.create_primary(ATTESTATION_KEY)

    def read_public(self, handle: int) -> tuple[bytes, bytes, bytes]:
        """Return public area (TPM2B_PUBLIC), name and qualified name of a loaded object."""
        public, name, qualified = self._call(TPM_CC.ReadPublic, (handle,))
        return TPM2B_PUBLIC.encode(public), name, qualified

    def quote(self, handle: int, nonce: bytes, selection: Selection) -> tuple[bytes, bytes]:
        """Return the attested structure (TPMS_ATTEST) and its signature (TPMT_SIGNATURE), as bytes."""
        attest, signature = self._call(
            TPM_CC.Quote, (handle,), nonce, _KEYS_OWN_SCHEME, selection_of(selection)
        )
        return attest, signature.encode()

    def flush(self, handle: int) -> None:
        """Free the slot of a loaded object."""
        self._call(TPM_CC.FlushContext, (), handle)

    def read_clock(self) -> TPMS_TIME_INFO:
        """Return time, clock and counters."""
        (time_info,) = self._call(TPM_CC.ReadClock, ())
        assert isinstance(time_info, TPMS_TIME_INFO)
        return time_info

    def get_capability(self, capability: TPM_CAP, first: int = 0, count: int = 1024) -> tuple[Any, ...]:
        """Return up to `count` entries of a capability group, in as many commands as that takes."""
        more, data = self._call(TPM_CC.GetCapability, (), int(capability), first, count)
        assert isinstance(data, TPMS_CAPABILITY_DATA)
        entries = data.data
        while more and entries and len(entries) < count:
            following = _key(capability, entries[-1]) + 1
            more, data = self._call(
                TPM_CC.GetCapability, (), int(capability), following, count - len(entries)
            )
            entries += data.data
        return entries

    def properties(self, first: int, count: int = 1024) -> dict[int, int]:
        """Return up to `count` properties from `first` (TPM_PT) on."""
        return {
            each.property: each.value for each in self.get_capability(TPM_CAP.TPM_PROPERTIES, first, count)
        }

    def allocated_banks(self) -> tuple[int, ...]:
        """Return the algorithms of the allocated PCR banks."""
        return tuple(each.hash for each in self.get_capability(TPM_CAP.PCRS) if each.pcrs)

    def get_random(self, count: int) -> bytes:
        """Return `count` random bytes."""
        drawn = b""
        while len(drawn) < count:
            (chunk,) = self._call(TPM_CC.GetRandom, (), min(count - len(drawn), _RANDOM_CHUNK_MAX))
            drawn += chunk
        return drawn

    def stir_random(self, data: bytes) -> None:
        """Mix up to 128 bytes into the TPM's generator."""
        self._call(TPM_CC.StirRandom, (), data)

    def nv_read_public(self, index: int) -> TPMS_NV_PUBLIC:
        """Return the public area of an NV index."""
        public = self._call(TPM_CC.NV_ReadPublic, (index,))[0]
        assert isinstance(public, TPMS_NV_PUBLIC)
        return public

    def nv_read(self, index: int) -> bytes:
        """Return the whole content of an NV index, read with its own empty authorisation."""
        size = self.nv_read_public(index).dataSize
        content = b""
        while len(content) < size:
            asked = min(size - len(content), NV_BUFFER_BYTES_MAX)
            (chunk,) = self._call(TPM_CC.NV_Read, (index, index), asked, len(content))
            if not 0 < len(chunk) <= asked:
                raise _garbled("NV_Read", f"{len(chunk)} bytes where {asked} were asked for")
            content += chunk
        return content

    def _call(self, code: TPM_CC, handles: tuple[int, ...], *parameters: Any) -> tuple[Any, ...]:
        """Send one command and return its results, the handle first where there is one."""
        spec = COMMANDS[code]
        response = self.transmit(_build(spec, handles, parameters), locality=self.locality)
        return _parse(spec, response)


_KEY_FIELDS = {
    TPM_CAP.ALGS: "alg",
    TPM_CAP.TPM_PROPERTIES: "property",
    TPM_CAP.PCR_PROPERTIES: "tag",
    TPM_CAP.AUTH_POLICIES: "handle",
}
_COMMAND_INDEX_MASK = 0xFFFF


def _garbled(command: str, message: str) -> FormatError:
    return FormatError("TPM response", command, message)


def _key(capability: int, entry: Any) -> int:
    """Return the number by which an entry of a capability group is found."""
    if capability in _KEY_FIELDS:
        return int(getattr(entry, _KEY_FIELDS[TPM_CAP(capability)]))
    return int(entry) & _COMMAND_INDEX_MASK if capability == TPM_CAP.COMMANDS else int(entry)


def _build(spec: CommandSpec, handles: tuple[int, ...], parameters: tuple[Any, ...]) -> bytes:
    parts = [spec.handle_packer.pack(*handles)]
    tag = _NO_SESSIONS
    if spec.authorised_count:
        tag = _SESSIONS
        sessions = _EMPTY_PASSWORD * spec.authorised_count
        parts += (UINT32.encode(len(sessions)), sessions)
    parts += [codec.encode(value) for codec, value in zip(spec.parameters, parameters, strict=True)]
    body = b"".join(parts)
    return _HEADER.pack(tag, _HEADER_BYTES + len(body), spec.number) + body


def _parse(spec: CommandSpec, response: bytes) -> tuple[Any, ...]:
    if len(response) < _HEADER_BYTES:
        raise _unread(spec, "header", f"{len(response)} bytes, want at least {_HEADER_BYTES}")
    tag, size, rc = _HEADER.unpack_from(response)
    if size != len(response):
        raise _unread(spec, "header", f"size {size}, but there are {len(response)} bytes")
    if rc:
        raise TpmError(rc, spec.code.name)
    at = _HEADER_BYTES
    results: list[Any] = []
    if spec.returns_handle:
        handle, at = UINT32.decode(response, at, size)
        results.append(handle)
    end = size
    if tag == _SESSIONS:
        length, at = UINT32.decode(response, at, size)
        end = at + length
        if end > size:
            raise _unread(spec, "parameter size", f"{length} bytes pass the end")
    for codec in spec.results:
        value, at = codec.decode(response, at, end)
        results.append(value)
    if at != end:
        raise _unread(spec, "parameters", f"{end - at} bytes are left over")
    return tuple(results)


def _unread(spec: CommandSpec, where: str, message: str) -> FormatError:
    return FormatError(f"response to TPM2_{spec.code.name}", where, message)
