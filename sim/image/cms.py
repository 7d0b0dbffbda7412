"""Detached CMS signatures: how a VIB's descriptor is signed, and the strict check of such a signature.

Models: `sig.pkcs7` as a CMS SignedData without content; a signer whose chain ends in a pinned root at the simulated
time; the acceptance level as the meaning of the authority that issued the signer's certificate.  The verdict on a
chain is remembered by the bytes of its certificates; data, time and signature are checked every time.

Leaves out: the exact attributes and chain of VMware's own signatures, which no public sample shows.  An unused
certificate in the bag is refused, the root among them: nothing rides along in a signature file.

Sources: RFC 5652, section 5; RFC 5280, section 6.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from attrs import field, frozen

from sim.image.certificate import Certificate
from sim.image.chain import check_path, check_validity, find_path, named_signer
from sim.image.crl import check_revocation
from sim.image.issue import Signer
from sim.image.signed_data import (
    DATA,
    SignedData,
    build_signed_data,
    check_signer,
    parse_signed_data,
    read_bag,
)
from sim.image.trust import SignatureError, TrustStore

__all__ = ["SignatureError", "SignerIdentity", "sign_detached", "verify_detached"]


@frozen(kw_only=True, slots=False)  # one is made for each file: this is the faster kind
class SignerIdentity:
    """Who signed, as the chain proves it: provider, acceptance level, and the certificate itself."""

    provider: str
    level: str
    certificate_der: bytes = field(repr=False)
    issuer: str
    serial: int
    signed_at: datetime


def sign_detached(data: bytes, signer: Signer, when: datetime) -> bytes:
    """Sign `data` at the simulated time `when`; the signature carries the certificates up to the root, without it."""
    return build_signed_data(signer, when, content=data)


def verify_detached(data: bytes, signature: bytes, trust: TrustStore, now: datetime) -> SignerIdentity:
    """Return who signed `data`; raises SignatureError whose `check` names the rule that refused."""
    signed = parse_signed_data(signature)
    check_detached(signed)
    path, level = _judge_chain(signed.bag, signed.signer_id, trust)
    check_validity(path, now)
    check_revocation(path, trust.crls, trust.revocation, now)
    signed_at = check_signer(signed, data, path[0])
    return SignerIdentity(
        provider=path[0].organization,
        level=level,
        certificate_der=path[0].der,
        issuer=path[1].title,
        serial=path[0].serial,
        signed_at=signed_at,
    )


def check_detached(signed: SignedData) -> None:
    """Demand plain data as the content type, and no content inside."""
    if signed.content_type != DATA:
        raise SignatureError("content-type", "the signature is over something else than plain data")
    if signed.content is not None:
        raise SignatureError("embedded-content", "the signature carries content of its own")


@lru_cache(maxsize=512)
def _judge_chain(bag: bytes, signer_id: bytes, trust: TrustStore) -> tuple[tuple[Certificate, ...], str]:
    """Return path and acceptance level; everything about a chain that depends neither on time nor on data."""
    certificates = read_bag(bag)
    path = find_path(named_signer(certificates, signer_id), certificates, trust.roots)
    check_path(path, trust.revoked)
    level = trust.level_of(path[1].der) if len(path) > 1 else None
    if level is None:
        raise SignatureError("issuer-level", f"the issuer of {path[0].title} stands for no acceptance level")
    return path, level
