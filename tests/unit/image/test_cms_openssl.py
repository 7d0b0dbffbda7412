"""The openssl program as a peer: it verifies what we sign, and we verify what it signs."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sim.core.rng import Stream
from sim.image.cms import sign_detached, verify_detached
from sim.image.issue import AUTHORITY_USAGE, CertificateSpec, Identity, Signer, issue
from sim.image.trust import IssuerLevel, SignatureError, TrustStore

pytestmark = pytest.mark.client

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
LONG_AGO, FAR_AHEAD = EPOCH - timedelta(days=400), datetime(2049, 1, 1, tzinfo=UTC)
CONTENT = b"descriptor\r\n" * 9


class Peer:
    """A PKI written to files, and the openssl program that works on them."""

    def __init__(self, program: str, folder: Path, algorithm: str) -> None:
        self.program, self.folder = program, folder
        authority = {"is_authority": True, "key_usage": AUTHORITY_USAGE, "extended_usages": ()}
        root = self._issue("root", None, algorithm, **authority)
        issuer = self._issue("issuer", root, algorithm, **authority)
        leaf = self._issue("leaf", issuer, algorithm)
        self.signer = Signer(
            certificate_der=leaf.certificate_der,
            private_key_der=leaf.private_key_der,
            provider="Intel",
            level="accepted",
            chain=(issuer.certificate_der,),
        )
        self.trust = TrustStore(
            roots=(root.certificate_der,),
            issuers=(IssuerLevel(certificate_der=issuer.certificate_der, level="accepted"),),
        )
        (folder / "data").write_bytes(CONTENT)
        both = (folder / "issuer.pem").read_bytes() + (folder / "root.pem").read_bytes()
        (folder / "both.pem").write_bytes(both)

    def _issue(self, name: str, issuer: Identity | None, algorithm: str, **fields: object) -> Identity:
        spec = CertificateSpec(
            organization="Intel", common_name=name, not_before=LONG_AGO, not_after=FAR_AHEAD, **fields
        )
        identity = issue(spec, source=Stream(name.encode()), issuer=issuer, algorithm=algorithm)
        certificate = x509.load_der_x509_certificate(identity.certificate_der)
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        key = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(key)
        return identity

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.program, *arguments], cwd=self.folder, capture_output=True, timeout=60)

    def verifies(self, signature: bytes) -> bool:
        (self.folder / "signature").write_bytes(signature)
        when = str(int(EPOCH.timestamp()))
        return (
            self.run(
                *("cms", "-verify", "-binary", "-inform", "DER", "-in", "signature", "-content", "data"),
                *("-CAfile", "root.pem", "-purpose", "any", "-attime", when, "-out", "out"),
            ).returncode
            == 0
        )

    def signs(self, *options: str) -> bytes:
        done = self.run(
            *(
                "cms",
                "-sign",
                "-binary",
                "-outform",
                "DER",
                "-in",
                "data",
                "-signer",
                "leaf.pem",
                "-inkey",
                "leaf.key",
            ),
            *("-certfile", "issuer.pem", "-out", "made", *options),
        )
        assert done.returncode == 0, done.stderr.decode()
        return (self.folder / "made").read_bytes()


@pytest.fixture(scope="module", params=["ec-p256", "rsa-2048"])
def peer(
    request: pytest.FixtureRequest, program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Peer:
    return Peer(program("openssl"), tmp_path_factory.mktemp("openssl"), request.param)


def test_openssl_verifies_what_we_sign(peer: Peer) -> None:
    signature = sign_detached(CONTENT, peer.signer, EPOCH)
    assert peer.verifies(signature)
    other = sign_detached(CONTENT + b"!", peer.signer, EPOCH)
    assert not peer.verifies(other)


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_we_verify_what_openssl_signs(peer: Peer, digest: str) -> None:
    signature = peer.signs("-md", digest)
    now = datetime.now(tz=UTC)
    identity = verify_detached(CONTENT, signature, peer.trust, now)
    assert (identity.provider, identity.level) == ("Intel", "accepted")
    with pytest.raises(SignatureError) as refusal:
        verify_detached(CONTENT + b"!", signature, peer.trust, now)
    assert refusal.value.check == "message-digest"


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (("-md", "sha1"), "digest-algorithm"),
        (("-nodetach",), "embedded-content"),
        (("-noattr",), "structure"),
        (("-keyid",), "version"),
        (("-nocerts",), "signer-id"),
        (("-md", "sha256", "-certfile", "both.pem"), "unused-certificate"),
    ],
)
def test_what_openssl_signs_outside_the_profile_is_refused(
    peer: Peer, options: tuple[str, ...], check: str
) -> None:
    signature = peer.signs(*options)
    with pytest.raises(SignatureError) as refusal:
        verify_detached(CONTENT, signature, peer.trust, datetime.now(tz=UTC))
    assert refusal.value.check == check


def test_a_certificate_signed_with_sha1_is_refused(peer: Peer) -> None:
    made = peer.run(
        *(
            "req",
            "-x509",
            "-new",
            "-key",
            "leaf.key",
            "-sha1",
            "-subj",
            "/O=Intel/CN=old",
            "-out",
            "old.pem",
            "-days",
            "9",
        )
    )
    assert made.returncode == 0, made.stderr.decode()
    done = peer.run(
        *(
            "cms",
            "-sign",
            "-binary",
            "-outform",
            "DER",
            "-in",
            "data",
            "-signer",
            "old.pem",
            "-inkey",
            "leaf.key",
            "-out",
            "made",
        )
    )
    assert done.returncode == 0, done.stderr.decode()
    with pytest.raises(SignatureError) as refusal:
        verify_detached(CONTENT, (peer.folder / "made").read_bytes(), peer.trust, datetime.now(tz=UTC))
    assert refusal.value.check == "certificate-algorithm"


def test_a_key_of_1024_bits_is_refused(peer: Peer) -> None:
    made = peer.run(
        *(
            "req",
            "-x509",
            "-newkey",
            "rsa:1024",
            "-noenc",
            "-keyout",
            "weak.key",
            "-out",
            "weak.pem",
            "-subj",
            "/CN=weak",
        )
    )
    assert made.returncode == 0, made.stderr.decode()
    done = peer.run(
        *(
            "cms",
            "-sign",
            "-binary",
            "-outform",
            "DER",
            "-in",
            "data",
            "-signer",
            "weak.pem",
            "-inkey",
            "weak.key",
            "-out",
            "made",
        )
    )
    assert done.returncode == 0, done.stderr.decode()
    with pytest.raises(SignatureError) as refusal:
        verify_detached(CONTENT, (peer.folder / "made").read_bytes(), peer.trust, datetime.now(tz=UTC))
    assert refusal.value.check == "key"
    assert "1024 bits" in str(refusal.value)
