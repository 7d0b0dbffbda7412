"""What a verifier holds: pinned roots, what their issuers mean, early-module keys, and what was revoked.

Models: trust by certificate bytes.  A signature counts only if its chain ends in a certificate that is byte for byte
one of `roots`, and the certificate that issued the signer's own decides the acceptance level.  Subject names decide
nothing.  Values only, so a store can be pickled, compared and printed.

A revoked certificate is listed by its SHA-256, or by the revocation list (CRL) of its issuer.

Leaves out: fetching and updating of any of this; OCSP.

Sources: none for the contents of a real ESXi trust store; this arrangement is this project's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import attrs
from attrs import field, frozen, validators

from sim.errors import VerificationError

__all__ = [
    "KEY_ID_BYTES",
    "LEVELS",
    "EarlyKey",
    "IssuerLevel",
    "RevocationPolicy",
    "SignatureError",
    "TrustStore",
]

LEVELS = ("partner", "accepted", "certified")
"""The acceptance levels that a signature can give, lowest first; no signature means community."""

KEY_ID_BYTES = 16


class SignatureError(VerificationError):
    """A signature is refused; `check` names the rule that refused it."""


def _key_id_is_ascii(_instance: object, _attribute: object, value: str) -> None:
    if len(value) != KEY_ID_BYTES or not value.isascii() or not value.isprintable():
        raise ValueError(f"a key id is {KEY_ID_BYTES} printable ASCII characters, got {value!r}")


@frozen(kw_only=True)
class IssuerLevel:
    """A certificate authority whose signers give modules the named acceptance level."""

    certificate_der: bytes
    level: str = field(validator=validators.in_(LEVELS))


@frozen(kw_only=True)
class EarlyKey:
    """A public key that the boot loader knows: id, the trailer schema it signs with, and its certificate.

    `authority_der` is the certificate of whoever issued that one, and may revoke it; empty for one that issued itself.
    """

    key_id: str = field(validator=_key_id_is_ascii)
    schema: int = field(validator=validators.in_((1, 2, 3, 4)))
    certificate_der: bytes = field(repr=False)
    authority_der: bytes = field(default=b"", repr=False)


@frozen(kw_only=True)
class RevocationPolicy:
    """What revocation lists mean where they are silent.

    `stale`: a list past its nextUpdate refuses all that its issuer signed ("refuse"), or is used still ("use").
    `missing`: an authority without list is taken ("allow") or refused ("refuse").
    """

    stale: str = field(default="refuse", validator=validators.in_(("refuse", "use")))
    missing: str = field(default="allow", validator=validators.in_(("allow", "refuse")))


@frozen(kw_only=True, cache_hash=True)
class TrustStore:
    """Pinned roots, issuers with their levels, early-module keys, and what is revoked.

    `revoked` holds SHA-256 digests of certificates, whole or of their TBSCertificate, `crls` revocation lists in DER, which count under `revocation`.
    """

    roots: tuple[bytes, ...] = field(repr=False)
    issuers: tuple[IssuerLevel, ...] = field(repr=False)
    early_keys: tuple[EarlyKey, ...] = field(default=())
    revoked: tuple[bytes, ...] = field(default=())
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    revocation: RevocationPolicy = RevocationPolicy()

    def level_of(self, issuer_der: bytes) -> str | None:
        """Return the acceptance level that this issuing certificate stands for, or None."""
        for issuer in self.issuers:
            if issuer.certificate_der == issuer_der:
                return issuer.level
        return None

    def revoking(self, certificates: Iterable[bytes]) -> TrustStore:
        """Return a store that refuses these certificates (DER) too, however their issuer's signature is written."""
        from sim.image.certificate import load_certificate

        given = tuple(certificates)
        added = tuple(sha256(each).digest() for each in given)
        added += tuple(sha256(load_certificate(each).body).digest() for each in given)
        return attrs.evolve(self, revoked=self.revoked + added)

    def with_crls(self, crls: Iterable[bytes], policy: RevocationPolicy | None = None) -> TrustStore:
        """Return a store that holds these revocation lists (DER) too, under another policy if one is given."""
        return attrs.evolve(
            self,
            crls=self.crls + tuple(crls),
            revocation=policy if policy is not None else self.revocation,
        )
