"""The chain of a signature: every rule refuses what breaks it, and nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from sim.core.rng import Stream
from sim.image import der
from sim.image.certificate import CERTIFICATE_BYTES_MAX, CODE_SIGNING, load_certificate
from sim.image.cms import sign_detached, verify_detached
from sim.image.issue import AUTHORITY_USAGE, CertificateSpec, Identity, Signer, issue
from sim.image.trust import IssuerLevel, SignatureError, TrustStore

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
SERVER_AUTH, ANY_USAGE = "1.3.6.1.5.5.7.3.1", "2.5.29.37.0"

LEAF = CertificateSpec(
    organization="Intel",
    common_name="leaf",
    not_before=EPOCH - timedelta(days=1),
    not_after=EPOCH + timedelta(days=30),
)
AUTHORITY = attrs.evolve(
    LEAF,
    organization="VMware",
    common_name="issuer",
    is_authority=True,
    path_length=0,
    key_usage=AUTHORITY_USAGE,
    extended_usages=(),
)
ROOT = attrs.evolve(AUTHORITY, common_name="root", path_length=None)


@attrs.frozen(kw_only=True)
class World:
    """A root, an issuer, a leaf, and the trust in the root."""

    root: Identity
    issuer: Identity
    signer: Signer
    trust: TrustStore

    def sign(self, data: bytes = b"data", when: datetime = EPOCH) -> bytes:
        return sign_detached(data, self.signer, when)


def world(
    *,
    root: CertificateSpec = ROOT,
    issuer: CertificateSpec = AUTHORITY,
    leaf: CertificateSpec = LEAF,
    seed: bytes = b"",
    algorithm: str = "ec-p256",
) -> World:
    root_id = issue(root, source=Stream(seed + b"root"), algorithm=algorithm)
    issuer_id = issue(issuer, source=Stream(seed + b"issuer"), issuer=root_id, algorithm=algorithm)
    leaf_id = issue(leaf, source=Stream(seed + b"leaf"), issuer=issuer_id, algorithm=algorithm)
    return World(
        root=root_id,
        issuer=issuer_id,
        signer=signer_of(leaf_id, issuer_id.certificate_der),
        trust=TrustStore(
            roots=(root_id.certificate_der,),
            issuers=(IssuerLevel(certificate_der=issuer_id.certificate_der, level="partner"),),
        ),
    )


def signer_of(identity: Identity, *chain: bytes) -> Signer:
    return Signer(
        certificate_der=identity.certificate_der,
        private_key_der=identity.private_key_der,
        provider="Intel",
        level="partner",
        chain=chain,
    )


def refused(check: str, verify: Callable[[], object]) -> str:
    with pytest.raises(SignatureError) as refusal:
        verify()
    assert refusal.value.check == check, str(refusal.value)
    return str(refusal.value)


def test_a_good_signature_tells_provider_level_and_time() -> None:
    good = world()
    identity = verify_detached(b"data", good.sign(when=EPOCH + timedelta(seconds=5)), good.trust, EPOCH)
    assert (identity.provider, identity.level, identity.issuer) == ("Intel", "partner", "issuer")
    assert identity.signed_at == EPOCH + timedelta(seconds=5)
    assert identity.certificate_der == good.signer.certificate_der
    assert identity.serial == load_certificate(good.signer.certificate_der).serial


@pytest.mark.parametrize("algorithm", ["ec-p384", "rsa-2048"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_other_key_types_and_digests_verify_too(algorithm: str, digest: str) -> None:
    good = world(algorithm=algorithm)
    signer = attrs.evolve(good.signer, digest=digest)
    assert verify_detached(b"x", sign_detached(b"x", signer, EPOCH), good.trust, EPOCH).level == "partner"


def test_signing_twice_gives_the_same_bytes() -> None:
    assert world().sign() == world().sign()


def test_other_data_is_refused_by_its_digest() -> None:
    good = world()
    refused("message-digest", lambda: verify_detached(b"other", good.sign(), good.trust, EPOCH))


def test_a_root_of_the_same_name_but_another_key_is_no_root() -> None:
    good, other = world(), world(seed=b"other")
    assert (
        load_certificate(good.root.certificate_der).subject
        == load_certificate(other.root.certificate_der).subject
    )
    refused("chain", lambda: verify_detached(b"data", other.sign(), good.trust, EPOCH))


def test_two_roots_of_one_name_are_told_apart_by_their_keys() -> None:
    good, other = world(), world(seed=b"other")
    both = attrs.evolve(good.trust, roots=other.trust.roots + good.trust.roots)
    assert verify_detached(b"data", good.sign(), both, EPOCH).level == "partner"


def test_an_expired_signer_is_refused_after_and_accepted_at_its_last_second() -> None:
    good = world()
    end = LEAF.not_after
    assert verify_detached(b"data", good.sign(), good.trust, end).level == "partner"
    message = refused(
        "validity", lambda: verify_detached(b"data", good.sign(), good.trust, end + timedelta(seconds=1))
    )
    assert "leaf expired at 2025-01-31T00:00:00+00:00" in message


def test_a_clock_before_the_certificates_begin_is_refused() -> None:
    good = world()
    assert verify_detached(b"data", good.sign(), good.trust, LEAF.not_before).level == "partner"
    early = LEAF.not_before - timedelta(seconds=1)
    refused("validity", lambda: verify_detached(b"data", good.sign(), good.trust, early))


def test_an_expired_root_or_issuer_ends_the_trust() -> None:
    short = EPOCH + timedelta(days=2)
    for changed in (
        world(root=attrs.evolve(ROOT, not_after=short)),
        world(issuer=attrs.evolve(AUTHORITY, not_after=short)),
    ):
        verify_detached(b"data", changed.sign(), changed.trust, short)
        late = short + timedelta(seconds=1)
        refused(
            "validity",
            lambda changed=changed, late=late: verify_detached(b"data", changed.sign(), changed.trust, late),
        )


def test_a_signing_time_outside_the_signers_validity_is_refused() -> None:
    good = world()
    for when in (LEAF.not_before - timedelta(seconds=1), LEAF.not_after + timedelta(seconds=1)):
        signature = good.sign(when=when)
        refused(
            "signing-time", lambda signature=signature: verify_detached(b"data", signature, good.trust, EPOCH)
        )


@pytest.mark.parametrize(
    "usages",
    [(), (SERVER_AUTH,), (ANY_USAGE,), (CODE_SIGNING, SERVER_AUTH), (CODE_SIGNING, ANY_USAGE)],
)
def test_a_leaf_that_is_not_for_code_signing_alone_is_refused(usages: tuple[str, ...]) -> None:
    bad = world(leaf=attrs.evolve(LEAF, extended_usages=usages))
    refused("extended-key-usage", lambda: verify_detached(b"data", bad.sign(), bad.trust, EPOCH))


@pytest.mark.parametrize("usages", [(), ("key_encipherment",), ("content_commitment",)])
def test_a_leaf_whose_key_usage_lacks_signatures_is_refused(usages: tuple[str, ...]) -> None:
    bad = world(leaf=attrs.evolve(LEAF, key_usage=usages))
    refused("key-usage", lambda: verify_detached(b"data", bad.sign(), bad.trust, EPOCH))


@pytest.mark.parametrize(
    "changes",
    [
        {"is_authority": True},
        {"key_usage": ("digital_signature", "key_cert_sign")},
        {"key_usage": ("digital_signature", "crl_sign")},
    ],
)
def test_an_authority_does_not_sign_modules_itself(changes: dict[str, object]) -> None:
    bad = world(leaf=attrs.evolve(LEAF, **changes))
    refused("basic-constraints", lambda: verify_detached(b"data", bad.sign(), bad.trust, EPOCH))


def test_a_code_signer_used_as_an_authority_is_refused() -> None:
    good = world(root=attrs.evolve(ROOT, path_length=None))
    forged = issue(LEAF, source=Stream(b"forged"), issuer=good.signer)
    signer = signer_of(forged, good.signer.certificate_der, good.issuer.certificate_der)
    refused(
        "basic-constraints",
        lambda: verify_detached(b"x", sign_detached(b"x", signer, EPOCH), good.trust, EPOCH),
    )


@pytest.mark.parametrize(("usage", "check"), [((), "key-usage"), (("crl_sign",), "key-usage")])
def test_an_authority_must_be_allowed_to_sign_certificates(usage: tuple[str, ...], check: str) -> None:
    bad = world(issuer=attrs.evolve(AUTHORITY, key_usage=usage))
    refused(check, lambda: verify_detached(b"data", bad.sign(), bad.trust, EPOCH))


def test_an_authority_for_servers_issues_no_code_signers() -> None:
    bad = world(issuer=attrs.evolve(AUTHORITY, extended_usages=(SERVER_AUTH,)))
    refused("extended-key-usage", lambda: verify_detached(b"data", bad.sign(), bad.trust, EPOCH))
    good = world(issuer=attrs.evolve(AUTHORITY, extended_usages=(SERVER_AUTH, CODE_SIGNING)))
    assert verify_detached(b"data", good.sign(), good.trust, EPOCH).level == "partner"


def test_an_authority_below_one_that_allows_none_is_refused() -> None:
    good = world()
    below = issue(attrs.evolve(AUTHORITY, common_name="below"), source=Stream(b"below"), issuer=good.issuer)
    leaf = issue(LEAF, source=Stream(b"low leaf"), issuer=below)
    signer = signer_of(leaf, below.certificate_der, good.issuer.certificate_der)
    refused(
        "path-length", lambda: verify_detached(b"x", sign_detached(b"x", signer, EPOCH), good.trust, EPOCH)
    )


def test_a_chain_longer_than_the_limit_is_refused() -> None:
    spec = attrs.evolve(AUTHORITY, path_length=None)
    identities = [issue(spec, source=Stream(b"0"))]
    for depth in range(1, 6):
        named = attrs.evolve(spec, common_name=f"issuer {depth}")
        identities.append(issue(named, source=Stream(b"%d" % depth), issuer=identities[-1]))
    leaf = issue(LEAF, source=Stream(b"deep leaf"), issuer=identities[-1])
    signer = signer_of(leaf, *(identity.certificate_der for identity in identities[1:]))
    trust = TrustStore(
        roots=(identities[0].certificate_der,),
        issuers=(IssuerLevel(certificate_der=identities[-1].certificate_der, level="certified"),),
    )
    refused("chain", lambda: verify_detached(b"x", sign_detached(b"x", signer, EPOCH), trust, EPOCH))


def test_an_issuer_without_a_level_is_refused_though_its_chain_is_good() -> None:
    good = world()
    nobody = attrs.evolve(good.trust, issuers=())
    refused("issuer-level", lambda: verify_detached(b"data", good.sign(), nobody, EPOCH))


def test_a_pinned_signer_certificate_gives_no_level() -> None:
    good = world()
    trust = attrs.evolve(good.trust, roots=(good.signer.certificate_der,))
    signer = attrs.evolve(good.signer, chain=())
    refused("issuer-level", lambda: verify_detached(b"x", sign_detached(b"x", signer, EPOCH), trust, EPOCH))


def test_an_issuer_pinned_as_root_needs_no_root_above() -> None:
    good = world()
    trust = attrs.evolve(good.trust, roots=(good.issuer.certificate_der,))
    signer = attrs.evolve(good.signer, chain=())
    assert verify_detached(b"x", sign_detached(b"x", signer, EPOCH), trust, EPOCH).level == "partner"


def test_a_certificate_without_a_part_in_the_chain_is_refused() -> None:
    good = world()
    for extra in (good.root.certificate_der, world(seed=b"other").issuer.certificate_der):
        signer = attrs.evolve(good.signer, chain=(*good.signer.chain, extra))
        signature = sign_detached(b"x", signer, EPOCH)
        refused(
            "unused-certificate",
            lambda signature=signature: verify_detached(b"x", signature, good.trust, EPOCH),
        )


def test_a_certificate_twice_or_out_of_order_is_refused() -> None:
    good = world()
    signer = attrs.evolve(good.signer, chain=(*good.signer.chain, good.signer.certificate_der))
    refused(
        "certificates", lambda: verify_detached(b"x", sign_detached(b"x", signer, EPOCH), good.trust, EPOCH)
    )
    signature = good.sign()
    one, other = sorted((good.signer.certificate_der, good.issuer.certificate_der))
    swapped = signature.replace(one + other, other + one)
    assert swapped != signature
    refused("certificates", lambda: verify_detached(b"data", swapped, good.trust, EPOCH))


def test_a_missing_issuer_means_no_path() -> None:
    good = world()
    signer = attrs.evolve(good.signer, chain=())
    refused("chain", lambda: verify_detached(b"x", sign_detached(b"x", signer, EPOCH), good.trust, EPOCH))


@pytest.mark.parametrize("who", ["root", "issuer", "signer"])
def test_revoking_any_certificate_of_the_chain_refuses(who: str) -> None:
    good = world()
    trust = good.trust.revoking([getattr(good, who).certificate_der])
    refused("revoked", lambda: verify_detached(b"data", good.sign(), trust, EPOCH))


def test_a_critical_extension_that_nobody_understands_is_refused() -> None:
    policy = ("2.5.29.30", True, der.tlv(der.SEQUENCE))
    bad = world(leaf=attrs.evolve(LEAF, extra=(policy,)))
    assert "2.5.29.30" in refused(
        "critical-extension", lambda: verify_detached(b"data", bad.sign(), bad.trust, EPOCH)
    )
    harmless = ("2.5.29.32", False, b"\x05\x00")
    good = world(leaf=attrs.evolve(LEAF, extra=(harmless,)))
    assert verify_detached(b"data", good.sign(), good.trust, EPOCH).level == "partner"


def test_a_certificate_too_long_is_refused_before_it_is_read() -> None:
    refused("certificate", lambda: load_certificate(bytes(CERTIFICATE_BYTES_MAX + 1)))


def test_chains_are_remembered_by_bytes_but_time_and_data_are_always_checked() -> None:
    good = world()
    signature = good.sign()
    for _ in range(2):
        verify_detached(b"data", signature, good.trust, EPOCH)
    refused("message-digest", lambda: verify_detached(b"datb", signature, good.trust, EPOCH))
    refused("validity", lambda: verify_detached(b"data", signature, good.trust, EPOCH + timedelta(days=300)))
    stranger = world(seed=b"other").trust
    refused("chain", lambda: verify_detached(b"data", signature, stranger, EPOCH))
