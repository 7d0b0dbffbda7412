"""The attestation key's certificate, which ties the key in a quote to a TPM that a known vendor made.

Models: a strictly read certificate, issued by one of the pinned vendor roots, valid at the (simulated) time of the
appraisal, for signing and not for issuing.  Rules of reading and of chains are those of `sim.image`.

Leaves out: intermediate authorities, CRLs, and the proof by credential activation that goes with an EK certificate
alone: here the vendor certifies the attestation key itself, as an IAK.

Sources: RFC 5280, section 6.1; TCG, "TPM 2.0 Keys for Device Identity and Attestation" 1.0 (initial attestation key).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sim.attest.verdict import AttestationError
from sim.image.certificate import Certificate, load_certificate
from sim.image.chain import check_authority, check_path_length, check_validity, find_path
from sim.image.trust import SignatureError

__all__ = ["check_ak_certificate"]

CHECK: Final = "ak_certificate"


def check_ak_certificate(
    certificate_der: bytes, vendor_roots: tuple[bytes, ...], now: datetime
) -> Certificate:
    """Return the certificate if a pinned vendor root issued it for signing; AttestationError otherwise."""
    if not certificate_der:
        raise AttestationError(CHECK, "the attestation key has no certificate")
    try:
        leaf = load_certificate(certificate_der)
        path = find_path(leaf, [leaf], vendor_roots)
        for below, authority in enumerate(path[1:]):
            check_authority(authority)
            check_path_length(authority, below)
        check_validity(path, now)
    except SignatureError as error:
        raise AttestationError(
            CHECK,
            f"the attestation key's certificate is not from a known TPM vendor: {error}",
            evidence=f"{error.check}, certificate of {len(certificate_der)} bytes",
        ) from error
    if leaf.is_ca or leaf.key_cert_sign or not leaf.digital_signature or len(path) == 1:
        raise AttestationError(CHECK, "the attestation key's certificate is not that of a signing key")
    return leaf
