"""The checks that make a quote a TPM's own statement, by the attestation key, about this nonce and these PCRs.

Models: the signature, the magic and type that only a TPM writes, the qualified name that ties the whole public area to
the statement, the nonce, the clock, and the PCR values that the statement covers.  Each check raises AttestationError.

Leaves out: firmwareVersion, for which no published list exists here.  The keys themselves are the business of
`sim.attest.keys`.

Sources: TPM 2.0 Library 1.59, part 1 chapters 16 (names), 31.2 (quotes) and 36.3 (clock), part 2 chapter 10.12;
CVE-2024-29038 (magic not checked), CVE-2024-29039 (selection not compared).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sim.attest.keys import name_of
from sim.attest.verdict import AttestationError, ClockState
from sim.core.facts import fact
from sim.image.algorithms import PublicKey, verify, verify_pss
from sim.tpm.constants import TPM_ALG, TPM_GENERATED_VALUE, TPM_RH, TPM_ST
from sim.tpm.hashing import bank_name
from sim.tpm.wire import (
    TPMS_ATTEST,
    TPMS_QUOTE_INFO,
    TPMS_SIGNATURE_ECC,
    TPMS_SIGNATURE_RSA,
    TPMT_SIGNATURE,
)

__all__ = [
    "check_clock",
    "check_magic_and_type",
    "check_nonce",
    "check_pcr_digest",
    "check_pcr_selection",
    "check_qualified_signer",
    "check_reference_coverage",
    "check_signature",
    "primary_of",
    "read_attest",
    "read_signature",
]

CLOCK_LAG_MS: Final = fact(
    "attest.clock_lag_ms",
    1 << 22,
    unit="ms",
    source="TPM 2.0 Library part 1, 36.3.2: most that Clock may fall back after an unorderly shutdown",
    kind="spec",
)


def read_attest(data: bytes) -> TPMS_ATTEST:
    """Read a TPMS_ATTEST that fills `data`; FormatError otherwise."""
    return TPMS_ATTEST.decode(data)


def read_signature(data: bytes) -> TPMT_SIGNATURE:
    """Read a TPMT_SIGNATURE that fills `data`; FormatError otherwise."""
    return TPMT_SIGNATURE.decode(data)


# ---------------------------------------------------------------- the statement


def check_signature(
    key: PublicKey,
    attest: bytes,
    signature: TPMT_SIGNATURE,
    digests: tuple[str, ...] = ("sha256",),
    *,
    pss: bool = False,
) -> str:
    """Demand that the attestation key signed exactly these bytes with one of `digests`; return which.

    `pss` allows an RSA key to sign by RSAPSS too, with a salt of any length.
    """
    value = signature.signature
    digest = bank_name(getattr(value, "hash", 0))
    if digest not in digests:
        raise AttestationError("signature", "the quote is not signed over SHA-256")
    if isinstance(key, ec.EllipticCurvePublicKey):
        kind, raw = TPM_ALG.ECDSA, _ecdsa_der(value)
    else:
        kind, raw = TPM_ALG.RSASSA, value.sig if isinstance(value, TPMS_SIGNATURE_RSA) else b""
    if pss and signature.sigAlg == TPM_ALG.RSAPSS and isinstance(key, rsa.RSAPublicKey):
        good = verify_pss(key, raw, attest, digest)
    else:
        good = signature.sigAlg == kind and verify(key, raw, attest, digest)
    if not good:
        raise AttestationError("signature", "the signature of the quote is not by the attestation key")
    return digest


def _ecdsa_der(value: object) -> bytes:
    if not isinstance(value, TPMS_SIGNATURE_ECC):
        return b""
    return encode_dss_signature(
        int.from_bytes(value.signatureR, "big"), int.from_bytes(value.signatureS, "big")
    )


def check_magic_and_type(attest: TPMS_ATTEST) -> TPMS_QUOTE_INFO:
    """Demand a structure that a TPM made itself, and made as a quote; return what it attests."""
    if attest.magic != TPM_GENERATED_VALUE:
        raise AttestationError(
            "magic", "the quote was not made by a TPM", evidence=f"magic 0x{attest.magic:08x}"
        )
    if attest.type != TPM_ST.ATTEST_QUOTE or not isinstance(attest.attested, TPMS_QUOTE_INFO):
        raise AttestationError(
            "attest_type", "what the TPM signed is not a quote", evidence=f"type 0x{attest.type:04x}"
        )
    return attest.attested


def primary_of(attest: TPMS_ATTEST, public_area: bytes) -> str:
    """Return the hierarchy as whose primary key, with this TPM2B_PUBLIC, the quote names its signer; "" if of none."""
    for hierarchy in (TPM_RH.ENDORSEMENT, TPM_RH.OWNER, TPM_RH.PLATFORM, TPM_RH.NULL):
        if attest.qualifiedSigner == _qualified_name(hierarchy, public_area):
            return hierarchy.name.lower()
    return ""


def _qualified_name(hierarchy: TPM_RH, public_area: bytes) -> bytes:
    digest = hashlib.sha256(hierarchy.to_bytes(4, "big") + name_of(public_area)).digest()
    return TPM_ALG.SHA256.to_bytes(2, "big") + digest


def check_qualified_signer(attest: TPMS_ATTEST, public_area: bytes) -> None:
    """Demand that the signer's qualified name is that of a primary key with exactly this public area.

    `public_area` is the TPM2B_PUBLIC.  Only the endorsement hierarchy will do: its counters are not obfuscated.
    """
    if attest.qualifiedSigner != _qualified_name(TPM_RH.ENDORSEMENT, public_area):
        raise AttestationError(
            "qualified_signer",
            "the quote names another key than the one offered",
            evidence=f"qualifiedSigner {attest.qualifiedSigner.hex()}",
        )


NONCE_BYTES_MIN: Final = 16

RESTARTS_OF_RESUME: Final = 2
"""How often a resume with a late launch raises restartCount: by Startup, and by the hash sequence."""


def check_nonce(attest: TPMS_ATTEST, nonce: bytes, bytes_min: int = NONCE_BYTES_MIN) -> None:
    """Demand the nonce of this appraisal; a quote with any other was made for somebody else, or before."""
    if len(nonce) < bytes_min:
        raise AttestationError("nonce", f"a nonce of {len(nonce)} bytes is too short to be fresh")
    if not hmac.compare_digest(attest.extraData, nonce):
        raise AttestationError(
            "nonce", "the quote does not answer this nonce", evidence=f"extraData {attest.extraData.hex()}"
        )


def check_clock(
    attest: TPMS_ATTEST, last: ClockState | None, *, rebooted: bool | None = None, resumes: int = 0
) -> ClockState:
    """Demand that the TPM's counters and clock went on since `last`; return them.

    `rebooted` is what the inventory knows of the host since then (None: nothing).  A TPM that was reset while its
    host was not has empty PCRs, into which any boot can be replayed; a TPM that was not reset while its host was
    still shows the boot before.  Each of the `resumes` that are known restarts the TPM once, and a second time where
    the host launches anew; any other restart of a running host is one in which PCRs may have begun anew.
    """
    info = attest.clockInfo
    now = ClockState(
        clock=info.clock, reset_count=info.resetCount, restart_count=info.restartCount, safe=bool(info.safe)
    )
    if last is None:
        return now
    evidence = f"last {last}, now {now}"
    before, after = (last.reset_count, last.restart_count), (now.reset_count, now.restart_count)
    if after < before:
        raise AttestationError("clock", "the TPM's reset counters went back", evidence=evidence)
    lag_ms = CLOCK_LAG_MS.value if not now.safe and now.reset_count > last.reset_count else 0
    if now.clock + lag_ms < last.clock:
        raise AttestationError("clock", "the TPM's clock went back", evidence=evidence)
    if rebooted is False and now.reset_count != last.reset_count:
        raise AttestationError("tpm_reset", "the TPM was reset while its host was not", evidence=evidence)
    restarts = now.restart_count - last.restart_count
    if rebooted is False and restarts not in {resumes, resumes * RESTARTS_OF_RESUME}:
        raise AttestationError(
            "tpm_restart",
            f"the TPM was restarted {restarts} times while its host resumed {resumes} times",
            evidence=evidence,
        )
    if rebooted is True and after == before:
        raise AttestationError(
            "tpm_reset", "the host was rebooted and its TPM was not reset", evidence=evidence
        )
    return now


# ---------------------------------------------------------------- the PCRs


def check_pcr_selection(
    info: TPMS_QUOTE_INFO,
    values: Mapping[str, Mapping[int, bytes]],
    required_banks: tuple[str, ...],
    required_pcrs: tuple[int, ...],
) -> None:
    """Demand that the values offered are exactly those attested, and that all required ones are among them."""
    attested: dict[str, tuple[int, ...]] = {}
    for selection in info.pcrSelect:
        bank = bank_name(selection.hash)
        if bank in attested:
            raise AttestationError("pcr_selection", f"the quote selects the bank {bank} twice")
        attested[bank] = selection.pcrs
    for bank in required_banks:
        missing = sorted(set(required_pcrs) - set(attested.get(bank, ())))
        if missing:
            raise AttestationError(
                "pcr_coverage", f"the quote does not cover PCR {_numbers(missing)} of the {bank} bank"
            )
    offered = {bank: tuple(sorted(pcrs)) for bank, pcrs in values.items() if pcrs}
    if offered != {bank: pcrs for bank, pcrs in attested.items() if pcrs}:
        raise AttestationError("pcr_selection", "the PCR values offered are not those that the quote covers")


def check_reference_coverage(
    values: Mapping[str, Mapping[int, bytes]], references: Mapping[str, Mapping[int, tuple[bytes, ...]]]
) -> None:
    """Demand that every PCR with a reference value is among those offered: one that is not proves nothing."""
    for bank, pcrs in references.items():
        missing = sorted(set(pcrs) - set(values.get(bank, ())))
        if missing:
            raise AttestationError(
                "pcr_coverage",
                f"the quote does not cover PCR {_numbers(missing)} of the {bank} bank, which has a reference value",
            )


def check_pcr_digest(
    info: TPMS_QUOTE_INFO, values: Mapping[str, Mapping[int, bytes]], digest: str = "sha256"
) -> None:
    """Demand that the attested digest (of the signature's hash) is over the offered values, in the attested order."""
    state = hashlib.new(digest)
    for selection in info.pcrSelect:
        bank = values.get(bank_name(selection.hash), {})
        for pcr in selection.pcrs:
            state.update(bank.get(pcr, b""))
    if not hmac.compare_digest(state.digest(), info.pcrDigest):
        raise AttestationError(
            "pcr_digest",
            "the PCR values offered are not the quoted ones",
            evidence=f"pcrDigest {info.pcrDigest.hex()}",
        )


def _numbers(pcrs: list[int]) -> str:
    return ", ".join(str(pcr) for pcr in pcrs)
