"""Quote, Certify, CertifyCreation, GetTime, NV_Certify and ReadClock.

Models: attestations with every signing scheme of the keys.
Leaves out: audits, which `sim.tpm.commands.auditing` signs, and X.509 certification.
Sources: TPM 2.0 Library part 3, chapters 18, 29.1 and 31.16; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.attesting import signed_attestation, signer_at
from sim.tpm.commands.nvram import need_readable, read_range
from sim.tpm.commands.objects import creation_ticket, selected_pcrs
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_ST
from sim.tpm.entities import object_at
from sim.tpm.hashing import hash_bytes
from sim.tpm.refusal import in_parameter
from sim.tpm.wire import (
    TPMS_CERTIFY_INFO,
    TPMS_CREATION_INFO,
    TPMS_NV_CERTIFY_INFO,
    TPMS_NV_DIGEST_CERTIFY_INFO,
    TPMS_PCR_SELECTION,
    TPMS_QUOTE_INFO,
    TPMS_TIME_ATTEST_INFO,
    TPMT_SIG_SCHEME,
    TPMT_TK_CREATION,
)

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "quote", "read_clock"]


def quote(
    tpm: Tpm,
    sign_handle: int,
    qualifying_data: bytes,
    in_scheme: TPMT_SIG_SCHEME,
    selection: tuple[TPMS_PCR_SELECTION, ...],
) -> tuple[Any, ...]:
    """Sign the digest of the selected PCRs together with the caller's data, the clock and the counters."""
    signer = signer_at(tpm, sign_handle, in_scheme, 1, 2)
    if signer.hash_alg == TPM_ALG.NULL:
        raise in_parameter(TPM_RC.SCHEME, 2)
    pcr_select, pcr_digest = selected_pcrs(tpm, signer.hash_alg, selection)
    attested = TPMS_QUOTE_INFO(pcrSelect=pcr_select, pcrDigest=pcr_digest)
    return signed_attestation(tpm, signer, TPM_ST.ATTEST_QUOTE, qualifying_data, attested)


def certify(
    tpm: Tpm, object_handle: int, sign_handle: int, qualifying_data: bytes, in_scheme: TPMT_SIG_SCHEME
) -> tuple[Any, ...]:
    """Sign the name and the qualified name of a loaded object."""
    signer = signer_at(tpm, sign_handle, in_scheme, 2, 2)
    certified = object_at(tpm, object_handle)
    qualified_name = b"" if signer.anonymous else certified.qualified_name
    attested = TPMS_CERTIFY_INFO(name=certified.name, qualifiedName=qualified_name)
    return signed_attestation(tpm, signer, TPM_ST.ATTEST_CERTIFY, qualifying_data, attested)


def certify_creation(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    sign_handle: int,
    object_handle: int,
    qualifying_data: bytes,
    creation_hash: bytes,
    in_scheme: TPMT_SIG_SCHEME,
    ticket: TPMT_TK_CREATION,
) -> tuple[Any, ...]:
    """Sign that this TPM created an object with that creation data, which the ticket proves."""
    certified = object_at(tpm, object_handle)
    signer = signer_at(tpm, sign_handle, in_scheme, 1, 3)
    if ticket != creation_ticket(tpm, ticket.hierarchy, certified.name, creation_hash):
        raise in_parameter(TPM_RC.TICKET, 4)
    attested = TPMS_CREATION_INFO(objectName=certified.name, creationHash=creation_hash)
    return signed_attestation(tpm, signer, TPM_ST.ATTEST_CREATION, qualifying_data, attested)


def get_time(
    tpm: Tpm, privacy_admin: int, sign_handle: int, qualifying_data: bytes, in_scheme: TPMT_SIG_SCHEME
) -> tuple[Any, ...]:
    """Sign time, clock and counters as they are."""
    signer = signer_at(tpm, sign_handle, in_scheme, 2, 2)
    attested = TPMS_TIME_ATTEST_INFO(
        time=tpm.time.time_info(tpm.clock.now), firmwareVersion=tpm.profile.firmware_version
    )
    return signed_attestation(tpm, signer, TPM_ST.ATTEST_TIME, qualifying_data, attested)


def nv_certify(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    sign_handle: int,
    authority: int,
    nv_index: int,
    qualifying_data: bytes,
    in_scheme: TPMT_SIG_SCHEME,
    size: int,
    offset: int,
) -> tuple[Any, ...]:
    """Sign part of the content of an NV index, or with size and offset 0 the digest of all of it."""
    signer = signer_at(tpm, sign_handle, in_scheme, 1, 2)
    index = need_readable(tpm, authority, nv_index)
    if size == 0 and offset == 0:
        assert index.content is not None
        digest = b"" if signer.loaded is None else hash_bytes(signer.hash_alg, index.content)
        whole = TPMS_NV_DIGEST_CERTIFY_INFO(indexName=index.name, nvDigest=digest)
        return signed_attestation(tpm, signer, TPM_ST.ATTEST_NV_DIGEST, qualifying_data, whole)
    content = read_range(index, size, offset, 3)
    part = TPMS_NV_CERTIFY_INFO(indexName=index.name, offset=offset, nvContents=content)
    return signed_attestation(tpm, signer, TPM_ST.ATTEST_NV, qualifying_data, part)


def read_clock(tpm: Tpm) -> tuple[Any, ...]:
    """Return time, clock and counters."""
    return (tpm.time.time_info(tpm.clock.now),)


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.Certify.value: certify,
    TPM_CC.CertifyCreation.value: certify_creation,
    TPM_CC.GetTime.value: get_time,
    TPM_CC.NV_Certify.value: nv_certify,
    TPM_CC.Quote.value: quote,
    TPM_CC.ReadClock.value: read_clock,
}
"""The actions of this group, by command code."""
