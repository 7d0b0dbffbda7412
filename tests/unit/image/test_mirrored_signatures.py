"""An ECDSA signature has a second form, s turned into n - s: it makes no other certificate for those who revoke one."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sim.core.rng import Rng
from sim.image import der
from sim.image.certificate import load_certificate
from sim.image.chain import check_not_revoked
from sim.image.dbx import check_path_not_forbidden, forbid_certificate
from sim.image.efi_lists import ListEntry
from sim.image.pki import Pki
from sim.image.trust import SignatureError

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PKI = Pki.create(Rng(7), epoch=datetime(2026, 1, 1, tzinfo=UTC))


def mirrored(certificate: bytes) -> bytes:
    """Return a certificate with the other form of its issuer's signature."""
    body, algorithm, signature = der.elements(der.only(certificate, 0x30, "certificate"), "certificate")
    r, s = decode_dss_signature(signature[1][1:])
    other = der.tlv(3, b"\0" + encode_dss_signature(r, P256_ORDER - s))
    return der.tlv(0x30, body[2], algorithm[2], other)


def test_a_mirrored_certificate_is_other_bytes_that_its_issuer_signed():
    signer = PKI.signer("partner")
    twin = load_certificate(mirrored(signer.certificate_der))
    assert twin.der != signer.certificate_der
    assert twin.body == load_certificate(signer.certificate_der).body


def test_a_revoked_certificate_is_refused_in_both_forms():
    leaf = PKI.signer("partner").certificate_der
    revoked = PKI.trust.revoking([leaf]).revoked
    for form in (leaf, mirrored(leaf)):
        with pytest.raises(SignatureError, match="is revoked"):
            check_not_revoked((load_certificate(form),), revoked)
        check_not_revoked((load_certificate(form),), PKI.trust.revoked)


def test_a_certificate_that_stands_in_dbx_is_forbidden_in_both_forms():
    leaf = PKI.loader_signer.certificate_der
    for entry in (forbid_certificate(leaf), forbid_certificate(mirrored(leaf))):
        for form in (leaf, mirrored(leaf)):
            with pytest.raises(SignatureError, match="is revoked"):
                check_path_not_forbidden((load_certificate(form),), (entry,))
    junk = ListEntry(kind="certificate", data=b"no certificate")
    check_path_not_forbidden((load_certificate(leaf),), (junk,))
