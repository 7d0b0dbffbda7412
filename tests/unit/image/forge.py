"""A signature whose every field can be set wrong, the world that it is made in, and what is said of it there."""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import attrs
import pytest

from sim.core.rng import Rng
from sim.image import der
from sim.image.algorithms import digest_identifier, signature_identifier
from sim.image.certificate import load_certificate
from sim.image.cms import sign_detached, verify_detached
from sim.image.issue import Identity
from sim.image.pki import Pki
from sim.image.signed_data import DATA
from sim.image.trust import SignatureError, TrustStore

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
WORLD = Pki.create(Rng(3), epoch=EPOCH)
SIGNER = WORLD.signer("partner")
LEAF = load_certificate(SIGNER.certificate_der)
CONTENT = b"<vib/>"
GOOD = sign_detached(CONTENT, SIGNER, EPOCH)

SHA256 = digest_identifier("sha256")
SHA1 = der.tlv(der.SEQUENCE, der.encode_oid("1.3.14.3.2.26"))
MD5 = der.tlv(der.SEQUENCE, der.encode_oid("1.2.840.113549.2.5"), der.tlv(der.NULL))
ECDSA_SHA1 = der.tlv(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.1"))
MD5_RSA = der.tlv(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.4"), der.tlv(der.NULL))
EC_KEY = der.tlv(der.SEQUENCE, der.encode_oid("1.2.840.10045.2.1"))
V1, V3 = der.encode_integer(1), der.encode_integer(3)
BAG = der.encode_set_of((SIGNER.certificate_der, *SIGNER.chain), 0xA0)
SOME_OID = der.encode_oid("1.2.3.4")


def attribute(kind: str, *values: bytes) -> bytes:
    return der.tlv(der.SEQUENCE, der.encode_oid(f"1.2.840.113549.1.9.{kind}"), der.encode_set_of(values))


def digest_attribute(content: bytes = CONTENT) -> bytes:
    return attribute("4", der.tlv(der.OCTET_STRING, sha256(content).digest()))


TYPE, DIGEST, TIME = attribute("3", DATA), digest_attribute(), attribute("5", der.encode_time(EPOCH))


@attrs.frozen(kw_only=True)
class Forge:
    """Every field of a signature, each to be set wrong; the signature over the attributes is always good."""

    attributes: tuple[bytes, ...] = (TYPE, DIGEST, TIME)
    sorted_attributes: bool = True
    version: bytes = V1
    digests: bytes = der.encode_set_of((SHA256,))
    content: bytes = der.tlv(der.SEQUENCE, DATA)
    bag: bytes = BAG
    crls: bytes = b""
    signer_version: bytes = V1
    signer_id: bytes = LEAF.signer_id
    digest: bytes = SHA256
    algorithm: bytes = signature_identifier("ec", "sha256")
    signature_tag: int = der.OCTET_STRING
    unsigned: bytes = b""
    signers: int = 1
    outer_type: bytes = der.encode_oid("1.2.840.113549.1.7.2")
    identity: Identity = SIGNER
    trailing: bytes = b""

    def build(self) -> bytes:
        members = sorted(self.attributes) if self.sorted_attributes else self.attributes
        signature = self.identity.sign(der.tlv(der.SET, *members))
        info = der.tlv(
            der.SEQUENCE,
            self.signer_version,
            self.signer_id,
            self.digest,
            der.tlv(0xA0, *members) if members else b"",
            self.algorithm,
            der.tlv(self.signature_tag, signature),
            self.unsigned,
        )
        infos = der.tlv(der.SET, *[info] * self.signers)
        body = der.tlv(der.SEQUENCE, self.version, self.digests, self.content, self.bag, self.crls, infos)
        return der.tlv(der.SEQUENCE, self.outer_type, der.tlv(0xA0, body)) + self.trailing


def refused(verify: Callable[..., object], *arguments: object) -> tuple[str, str]:
    """Return name and words of a refusal."""
    with pytest.raises(SignatureError) as caught:
        verify(*arguments)
    return (caught.value.check, caught.value.message)


def judged(
    signature: bytes, content: bytes = CONTENT, trust: TrustStore = WORLD.trust, now: datetime = EPOCH
) -> tuple[str, str]:
    """Return name and words with which a signature over `content` is refused."""
    return refused(verify_detached, content, signature, trust, now)
