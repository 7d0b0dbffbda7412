"""Builds and judges the chain from a signer's certificate to a pinned one.

Models: a path through the certificates that came with a signature, ending at the first pinned certificate; the rules
for the signer (code signing and nothing else, no authority), for each authority above it (basic constraints, key
usage, path length) and for the bag (every certificate in it must be part of the path).  Each rule is a function of
its own that raises SignatureError with its name.

Leaves out: cross certificates with several possible paths (the first that verifies is taken); OCSP.  Revocation
lists are judged by `sim.image.crl`.

Sources: RFC 5280, section 6.1, in the parts that have a say here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from sim.image.certificate import CODE_SIGNING, Certificate, load_certificate
from sim.image.trust import SignatureError

__all__ = ["PATH_CERTIFICATES_MAX", "check_path", "check_validity", "find_path", "named_signer"]

PATH_CERTIFICATES_MAX = 5
"""Signer, at most three authorities, and the pinned certificate."""

Path = tuple[Certificate, ...]


def named_signer(bag: Sequence[Certificate], signer_id: bytes) -> Certificate:
    """Return the certificate that issuer and serial number name."""
    for certificate in bag:
        if certificate.signer_id == signer_id:
            return certificate
    raise SignatureError("signer-id", "the signer's certificate is not in the signature")


def find_path(leaf: Certificate, bag: Sequence[Certificate], pinned: Sequence[bytes]) -> Path:
    """Return the path from the signer's certificate to a pinned one, both included.

    Raises SignatureError "chain" without such a path, "unused-certificate" for a bag with more than the path.
    """
    anchors = [load_certificate(data) for data in pinned]
    path = [leaf]
    rest = list(bag)
    rest.remove(leaf)
    while path[-1].der not in pinned:
        anchor = _issuer_of(path[-1], anchors)
        if anchor is not None:
            path.append(anchor)
            break
        issuer = _issuer_of(path[-1], rest)
        if issuer is None or len(path) == PATH_CERTIFICATES_MAX - 1:
            raise SignatureError(
                "chain", f"no path from {leaf.title} to a trusted root (stopped at {path[-1].title})"
            )
        rest.remove(issuer)
        path.append(issuer)
    if rest:
        raise SignatureError(
            "unused-certificate", f"the certificate of {rest[0].title} has no part in the chain"
        )
    return tuple(path)


def check_path(path: Path, revoked: Sequence[bytes] = ()) -> None:
    """Apply every rule that does not depend on the time."""
    check_signer(path[0])
    for below, authority in enumerate(path[1:]):
        check_authority(authority)
        check_path_length(authority, below)
    check_not_revoked(path, revoked)


def check_signer(leaf: Certificate) -> None:
    """Demand that the signer may sign code and may do nothing else."""
    if leaf.is_ca or leaf.key_cert_sign or leaf.crl_sign:
        raise SignatureError(
            "basic-constraints", f"{leaf.title} is an authority and must not sign modules itself"
        )
    if not leaf.digital_signature:
        raise SignatureError("key-usage", f"the key usage of {leaf.title} does not allow digital signatures")
    if leaf.extended_usages != (CODE_SIGNING,):
        shown = ", ".join(leaf.extended_usages) or "none"
        raise SignatureError(
            "extended-key-usage", f"{leaf.title} is not for code signing alone (usages: {shown})"
        )


def check_authority(authority: Certificate) -> None:
    """Demand that an authority is marked as one, may sign certificates, and may issue code signers."""
    if not authority.is_ca:
        raise SignatureError("basic-constraints", f"{authority.title} is used as an authority and is none")
    if not authority.key_cert_sign:
        raise SignatureError(
            "key-usage", f"the key usage of {authority.title} does not allow signing certificates"
        )
    if authority.extended_usages and CODE_SIGNING not in authority.extended_usages:
        raise SignatureError("extended-key-usage", f"{authority.title} may not issue code signers")


def check_path_length(authority: Certificate, below: int) -> None:
    """Demand that no more authorities stand below this one than it allows."""
    if authority.path_length is not None and below > authority.path_length:
        raise SignatureError(
            "path-length",
            f"{authority.title} allows {authority.path_length} authorities below it, there are {below}",
        )


def check_not_revoked(path: Path, revoked: Sequence[bytes]) -> None:
    """Demand that no certificate of the path is on the list of SHA-256 digests, whole or without its signature.

    The digest without it counts too, as anybody can write an ECDSA signature another way.
    """
    for certificate in path if revoked else ():
        if certificate.fingerprint in revoked or sha256(certificate.body).digest() in revoked:
            raise SignatureError("revoked", f"the certificate of {certificate.title} is revoked")


def check_validity(path: Path, now: datetime) -> None:
    """Demand that every certificate of the path is valid at the (simulated) time `now`, both ends included."""
    for certificate in path:
        if now < certificate.not_before:
            begins = certificate.not_before.isoformat()
            raise SignatureError(
                "validity", f"the certificate of {certificate.title} is not valid before {begins}"
            )
        if now > certificate.not_after:
            ended = certificate.not_after.isoformat()
            raise SignatureError("validity", f"the certificate of {certificate.title} expired at {ended}")


def _issuer_of(subject: Certificate, candidates: Sequence[Certificate]) -> Certificate | None:
    for candidate in candidates:
        if subject.is_issued_by(candidate):
            return candidate
    return None
