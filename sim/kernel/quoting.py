"""The host's own side of attestation: attestation key, quote and PCR values, taken from the TPM by commands alone.

Models: the attestation key as the fixed primary of the endorsement hierarchy, its certificate in NV memory, a quote
over the verifier's nonce, and the PCR values read beside it.  Nothing is kept in the TPM between two calls.

Leaves out: any judgement.  Sources: TPM 2.0 Library part 3 (TPM2_Quote); TCG "TPM 2.0 Keys for Device Identity and
Attestation" (initial attestation key and its certificate).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.kernel.api import ApiError
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_RC
from sim.tpm.manufacture import IAK_CERTIFICATE_INDEX

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


class Attestor:
    """Answers what a verifier asks of the TPM behind `client`."""

    def __init__(self, client: TpmClient) -> None:
        self._client = client

    def identity(self) -> dict[str, Any]:
        """Return `ak_public` (TPM2B_PUBLIC) and `ak_certificate_der`."""
        handle, public, _ = self._client.create_primary_ak()
        self._client.flush(handle)
        try:
            certificate = self._client.nv_read(IAK_CERTIFICATE_INDEX)
        except TpmError as error:
            if error.rc != _NO_SUCH_INDEX:
                raise
            certificate = b""
        return {"ak_public": public, "ak_certificate_der": certificate}

    def quote(self, nonce: bytes, banks: Sequence[object], pcrs: Sequence[object]) -> dict[str, Any]:
        """Return `attest`, `signature` and `pcr_values` {bank: {PCR: value}}.

        Errors: `ApiError` when banks, PCRs or nonce cannot be.
        """
        if not 0 < len(nonce) <= NONCE_BYTES_MAX:
            raise ApiError("InvalidArgument", f"a nonce has 1 to {NONCE_BYTES_MAX} bytes, got {len(nonce)}")
        selection = _selection(banks, pcrs)
        handle, _, _ = self._client.create_primary_ak()
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
