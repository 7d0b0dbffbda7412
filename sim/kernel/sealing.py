"""A secret sealed to PCRs by a TPM: made, kept as two blobs outside the TPM, and taken out again.

Models: a storage primary of the owner hierarchy, made anew for each use and flushed after it; the secret as a keyed
hash object whose only way of use is PolicyPCR over chosen PCRs of the SHA-256 bank, and on demand PolicyLocality; sessions salted to the primary, so
that neither sealing nor unsealing shows the secret on the TPM's bus.  Whatever is loaded or begun is flushed, on
failure too.

Leaves out: a storage primary kept in NV, a hierarchy whose owner has set a password, signed policies that an update
could follow.

Sources: TPM 2.0 Library part 1, "Sealed Data" and "PolicyPCR"; part 3, TPM2_Create, TPM2_Load, TPM2_Unseal;
TCG TPM 2.0 Provisioning Guidance (attributes of the storage root key).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from attrs import evolve, frozen

from sim.core.rng import Stream
from sim.errors import FormatError, VmksimError
from sim.hw.tpm_slot import TpmSlotError
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import (
    AES_128_CFB,
    Auth,
    ClientSession,
    ResponseForgedError,
    SessionClient,
    password,
)
from sim.tpm.codec import SizedBytes
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RH, TPM_SE, TPMA_OBJECT, TPMA_SESSION
from sim.tpm.crypto.ecc import CURVES, is_on_curve
from sim.tpm.templates import STORAGE_PARENT
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPML_PCR_SELECTION,
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
)

__all__ = ["SEALING_ERRORS", "SealedSecret", "Sealer"]

SEALING_ERRORS = (TpmError, TpmSlotError, FormatError, ResponseForgedError)
"""What is raised for a TPM that refuses, is not there, or answers nonsense."""

_PRIVATE_BYTES_MAX = 1024
_MAGIC = b"sealed key 1\n"
_WHAT = "sealed key"
_PRIVATE = SizedBytes(_PRIVATE_BYTES_MAX)
_CONTINUE = TPMA_SESSION.continueSession.value
_PARENT = evolve(STORAGE_PARENT, objectAttributes=STORAGE_PARENT.objectAttributes | TPMA_OBJECT.noDA.value)
"""Free of dictionary-attack protection, as the TCG's storage root key is: else a few resets lock the host out."""

_TEMPLATE = TPMT_PUBLIC(
    type=TPM_ALG.KEYEDHASH.value,
    nameAlg=TPM_ALG.SHA256.value,
    objectAttributes=int(TPMA_OBJECT.fixedTPM | TPMA_OBJECT.fixedParent | TPMA_OBJECT.noDA),
    authPolicy=b"",
    parameters=TPMT_KEYEDHASH_SCHEME(scheme=TPM_ALG.NULL.value, details=None),
    unique=b"",
)
"""Without userWithAuth: nothing but the policy opens it."""


@frozen(kw_only=True)
class SealedSecret:
    """What is stored of a sealed secret: the PCRs of its policy, and the object's two areas."""

    pcrs: tuple[int, ...]
    public: TPMT_PUBLIC
    private: bytes

    def to_bytes(self) -> bytes:
        """Return the bytes to store."""
        selection = TPML_PCR_SELECTION.encode(_selection(self.pcrs))
        return _MAGIC + selection + TPM2B_PUBLIC.encode(self.public) + _PRIVATE.encode(self.private)

    @classmethod
    def from_bytes(cls, data: bytes) -> SealedSecret:
        """Read what `to_bytes` wrote; `FormatError` for anything else."""
        if not data.startswith(_MAGIC):
            raise FormatError(_WHAT, "offset 0", "the mark of a sealed key is missing")
        selection, at = TPML_PCR_SELECTION.decode(data, len(_MAGIC), len(data))
        public, at = TPM2B_PUBLIC.decode(data, at, len(data))
        private, at = _PRIVATE.decode(data, at, len(data))
        if at != len(data):
            raise FormatError(_WHAT, f"offset {at}", f"{len(data) - at} bytes are left over")
        if len(selection) != 1 or selection[0].hash != TPM_ALG.SHA256:
            raise FormatError(_WHAT, "selection", "want PCRs of the SHA-256 bank alone")
        return cls(pcrs=tuple(selection[0].pcrs), public=public, private=private)


class Sealer:
    """Seals and unseals through `transmit(command, locality=...)`; nonces and salts come from `chance`.

    With `only_there` a secret comes out at `locality` alone.  Errors of both: `SEALING_ERRORS`.
    """

    def __init__(
        self, transmit: Callable[..., bytes], chance: Stream, locality: int = 0, *, only_there: bool = False
    ) -> None:
        self._transmit = transmit
        self._chance = chance
        self._locality = locality
        self._only_there = only_there

    def seal(self, secret: bytes, pcrs: Iterable[int]) -> SealedSecret:
        """Seal a secret to the present values of `pcrs`, and see that it can be taken out again."""
        chosen = tuple(sorted(pcrs))
        with self._visit() as visit:
            policy = visit.policy_digest(chosen)
            parent, session = visit.begin(TPM_SE.HMAC)
            private, public, *_ = visit.client.call(
                TPM_CC.Create,
                (parent,),
                TPMS_SENSITIVE_CREATE(userAuth=b"", data=secret),
                evolve(_TEMPLATE, authPolicy=policy),
                b"",
                (),
                auths=[Auth(session=session, attributes=_CONTINUE | TPMA_SESSION.decrypt.value)],
            )
        sealed = SealedSecret(pcrs=chosen, public=public, private=private)
        if self.unseal(sealed) != secret:
            raise FormatError(_WHAT, "TPM2_Unseal", "another secret comes out than was sealed")
        return sealed

    def unseal(self, sealed: SealedSecret) -> bytes:
        """Return the secret, if the PCRs are as they were when it was sealed, in the same TPM."""
        with self._visit() as visit:
            parent, session = visit.begin(TPM_SE.POLICY)
            visit.fulfil(session.handle, sealed.pcrs)
            loaded, _ = visit.client.call(
                TPM_CC.Load, (parent,), sealed.private, sealed.public, auths=[password()]
            )
            visit.handles.append(loaded)
            auth = Auth(session=session, attributes=_CONTINUE | TPMA_SESSION.encrypt.value)
            (secret,) = visit.client.call(TPM_CC.Unseal, (loaded,), auths=[auth])
        return bytes(secret)

    def _visit(self) -> _Visit:
        locality = self._locality if self._only_there else None
        return _Visit(SessionClient(self._transmit, self._chance, self._locality), locality)


class _Visit:
    """Some commands in a row, after which the TPM holds nothing of ours."""

    def __init__(self, client: SessionClient, locality: int | None) -> None:
        self.client = client
        self.locality = locality
        self.handles: list[int] = []

    def __enter__(self) -> _Visit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        failed: VmksimError | None = None
        for handle in reversed(self.handles):
            try:
                self.client.call(TPM_CC.FlushContext, (), handle)
            except SEALING_ERRORS as problem:  # the other handles are to be flushed all the same
                failed = failed or problem
        if failed is not None and error is None:
            raise failed

    def begin(self, kind: TPM_SE) -> tuple[int, ClientSession]:
        """Make the storage primary, and a session salted to it; return the primary's handle and the session."""
        results = self.client.call(
            TPM_CC.CreatePrimary,
            (TPM_RH.OWNER,),
            TPMS_SENSITIVE_CREATE(userAuth=b"", data=b""),
            _PARENT,
            b"",
            (),
        )
        parent, public = results[0], results[1]
        self.handles.append(parent)
        _check_parent(public)
        session = self.client.start(kind, symmetric=AES_128_CFB, salt_key=(parent, public))
        self.handles.append(session.handle)
        return parent, session

    def fulfil(self, session: int, pcrs: tuple[int, ...]) -> None:
        """Make the assertions of the policy in a session."""
        if self.locality is not None:
            self.client.call(TPM_CC.PolicyLocality, (session,), 1 << self.locality)
        self.client.call(TPM_CC.PolicyPCR, (session,), b"", _selection(pcrs))

    def policy_digest(self, pcrs: tuple[int, ...]) -> bytes:
        """Let the TPM say which policy the present values of the PCRs fulfil."""
        trial = self.client.start(TPM_SE.TRIAL)
        self.handles.append(trial.handle)
        self.fulfil(trial.handle, pcrs)
        digest: bytes = self.client.call(TPM_CC.PolicyGetDigest, (trial.handle,))[0]
        return digest


def _selection(pcrs: Iterable[int]) -> tuple[TPMS_PCR_SELECTION, ...]:
    return (TPMS_PCR_SELECTION.of(TPM_ALG.SHA256.value, pcrs),)


def _check_parent(public: Any) -> None:
    """Raise `FormatError` unless a public area is what the template asks for, with a point of its curve."""
    unique = public.unique
    if isinstance(unique, TPMS_ECC_POINT) and evolve(public, unique=_PARENT.unique) == _PARENT:
        assert isinstance(_PARENT.parameters, TPMS_ECC_PARMS)
        curve = CURVES[_PARENT.parameters.curveID]
        if is_on_curve(curve, (int.from_bytes(unique.x, "big"), int.from_bytes(unique.y, "big"))):
            return
    raise FormatError("TPM response", "CreatePrimary", "another key than the template asks for")
