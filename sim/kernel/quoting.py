"""The host's own side of attestation: endorsement key, attestation key, credential, quote, by TPM commands alone.

Models: the endorsement key of the TCG's P-256 template with its certificate in NV memory; the attestation key as a
primary of the endorsement hierarchy of the host's own template, which nobody has certified; the opening of a credential
that was made for both; a quote over the verifier's nonce, and the PCR values read beside it.  Keys and sessions are
flushed before each call ends, so that nothing is kept in the TPM between two calls.

Leaves out: any judgement; RSA endorsement keys.  Sources: TPM 2.0 Library part 3 (TPM2_ActivateCredential, TPM2_Quote);
TCG EK Credential Profile 2.3 (template, NV index, and the policy of the endorsement key: PolicySecret of the hierarchy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from sim.core.rng import Stream
from sim.kernel.api import ApiError
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_SE
from sim.tpm.manufacture import EK_ECC_CERTIFICATE_INDEX
from sim.tpm.templates import ATTESTATION_KEY, EK_ECC
from sim.tpm.wire import TPMS_ECC_POINT

__all__ = ["BANKS", "NONCE_BYTES_MAX", "PCR_COUNT", "Attestor"]

PCR_COUNT = 24
NONCE_BYTES_MAX = 64
BANKS: Mapping[str, TPM_ALG] = {
    "sha1": TPM_ALG.SHA1,
    "sha256": TPM_ALG.SHA256,
    "sha384": TPM_ALG.SHA384,
    "sha512": TPM_ALG.SHA512,
}


_NO_SUCH_INDEX = TPM_RC.HANDLE | 0x100
"""What TPM2_NV_ReadPublic answers where the manufacturer left no certificate: HANDLE, of handle 1."""


HOST_ATTESTATION_KEY: Final = attrs.evolve(
    ATTESTATION_KEY, unique=TPMS_ECC_POINT(x=b"host attestation key", y=b"")
)
"""The template of the key that quotes: `unique` makes it another one than the key that the TPM's maker certifies."""

CREDENTIAL_BYTES_MAX = 132
"""The longest TPMS_ID_OBJECT: an HMAC and a secret of the longest hash, each with its size."""
ENCRYPTED_SECRET_BYTES_MAX = 384

_FORMAT_ONE, _OF_PARAMETER = 0x080, 0x040


class Attestor:
    """Answers what a verifier asks of the TPM behind `client`; the nonces of its sessions come from `chance`."""

    def __init__(self, client: TpmClient, chance: Stream) -> None:
        self._client = client
        self._sessions = SessionClient(client.transmit, chance, client.locality)

    def identity(self) -> dict[str, Any]:
        """Return `ek_public` and `ak_public` (TPM2B_PUBLIC), and `ek_certificate_der` (empty when there is none)."""
        handle, ek_public, _ = self._client.create_primary(EK_ECC)
        self._client.flush(handle)
        handle, ak_public, _ = self._client.create_primary(HOST_ATTESTATION_KEY)
        self._client.flush(handle)
        return {
            "ek_public": ek_public,
            "ek_certificate_der": self._ek_certificate(),
            "ak_public": ak_public,
        }

    def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """Return the secret in a credential (TPMS_ID_OBJECT) that was made for both keys of this TPM.

        Errors: `ApiError` InvalidArgument when it was made for other keys, or for nobody.
        """
        if len(credential_blob) > CREDENTIAL_BYTES_MAX or len(encrypted_secret) > ENCRYPTED_SECRET_BYTES_MAX:
            raise ApiError("InvalidArgument", "no credential is that long")
        ek, _, _ = self._client.create_primary(EK_ECC)
        try:
            ak, _, _ = self._client.create_primary(HOST_ATTESTATION_KEY)
            try:
                return self._open(ak, ek, credential_blob, encrypted_secret)
            finally:
                self._client.flush(ak)
        finally:
            self._client.flush(ek)

    def quote(self, nonce: bytes, banks: Sequence[object], pcrs: Sequence[object]) -> dict[str, Any]:
        """Return `attest`, `signature` and `pcr_values` {bank: {PCR: value}}.

        Errors: `ApiError` when banks, PCRs or nonce cannot be.
        """
        if not 0 < len(nonce) <= NONCE_BYTES_MAX:
            raise ApiError("InvalidArgument", f"a nonce has 1 to {NONCE_BYTES_MAX} bytes, got {len(nonce)}")
        selection = _selection(banks, pcrs)
        handle, _, _ = self._client.create_primary(HOST_ATTESTATION_KEY)
        try:
            attest, signature = self._client.quote(handle, nonce, selection)
            values = self._client.pcr_read(selection)
        finally:
            self._client.flush(handle)
        return {
            "attest": attest,
            "signature": signature,
            "pcr_values": {name: dict(values[bank]) for name, bank in BANKS.items() if bank in selection},
        }

    def _ek_certificate(self) -> bytes:
        try:
            return self._client.nv_read(EK_ECC_CERTIFICATE_INDEX)
        except TpmError as error:
            if error.rc != _NO_SUCH_INDEX:
                raise
            return b""

    def _open(self, ak: int, ek: int, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """Satisfy the endorsement key's policy and activate the credential."""
        session = self._sessions.start(TPM_SE.POLICY)
        try:
            self._sessions.call(
                TPM_CC.PolicySecret,
                (TPM_RH.ENDORSEMENT, session.handle),
                b"",
                b"",
                b"",
                0,
                auths=[password()],
            )
            (secret,) = self._sessions.call(
                TPM_CC.ActivateCredential,
                (ak, ek),
                credential_blob,
                encrypted_secret,
                auths=[password(), Auth(session=session)],
            )
        except TpmError as error:
            if error.rc & (_FORMAT_ONE | _OF_PARAMETER) == _FORMAT_ONE | _OF_PARAMETER:
                raise ApiError(
                    "InvalidArgument", f"the credential is not for this TPM's keys: {error}"
                ) from error
            raise
        finally:
            self._client.flush(session.handle)
        assert isinstance(secret, bytes)
        return secret


def _selection(banks: Sequence[object], pcrs: Sequence[object]) -> dict[int, tuple[int, ...]]:
    for bank in banks:
        if not isinstance(bank, str) or bank not in BANKS:
            raise ApiError("InvalidArgument", f"a bank is one of {', '.join(BANKS)}")
    numbers = []
    for pcr in pcrs:
        if isinstance(pcr, bool) or not isinstance(pcr, int) or not 0 <= pcr < PCR_COUNT:
            raise ApiError("InvalidArgument", f"a PCR is an integer from 0 to {PCR_COUNT - 1}")
        numbers.append(pcr)
    if not banks or not numbers:
        raise ApiError("InvalidArgument", "a quote covers at least one PCR of one bank")
    return {BANKS[str(bank)]: tuple(sorted(dict.fromkeys(numbers))) for bank in dict.fromkeys(banks)}
