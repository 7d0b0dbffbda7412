import pickle
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise

import pytest
from cryptography import x509

from sim.core.rng import Rng, Stream
from sim.image.certificate import load_certificate
from sim.image.chain import check_path, find_path
from sim.image.cms import sign_detached, verify_detached
from sim.image.issue import CertificateSpec, issue, make_private_key
from sim.image.pki import PROVIDERS, Pki
from sim.image.trust import EarlyKey, IssuerLevel, SignatureError

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.create(Rng(7), epoch=EPOCH)


def test_one_seed_gives_one_pki_and_another_seed_another(pki: Pki) -> None:
    assert Pki.create(Rng(7), epoch=EPOCH) == pki
    assert Pki.create(Rng(8), epoch=EPOCH).root != pki.root


def test_the_root_certificate_of_seed_7_never_changes(pki: Pki) -> None:
    assert sha256(pki.root.certificate_der).hexdigest() == (
        "2ed2a22c030cceec6abf7ef206446edcfa188daf65991442199275db7615f9f4"
    )


def test_asking_for_another_provider_moves_no_other_certificate(pki: Pki) -> None:
    first, second = Pki.create(Rng(7), epoch=EPOCH), Pki.create(Rng(7), epoch=EPOCH)
    early = [first.signer("partner", name) for name in ("Emulex", "QLogic")]
    late = [second.signer("partner", name) for name in ("QLogic", "Emulex")]
    assert early == late[::-1]
    assert first.signer("partner", "QLogic") == early[1]
    assert first == pki


@pytest.mark.parametrize(
    ("level", "provider"), [(level, name) for level, names in PROVIDERS.items() for name in names]
)
def test_the_issuer_of_a_signer_decides_its_level(pki: Pki, level: str, provider: str) -> None:
    signature = sign_detached(b"data", pki.signer(level, provider), EPOCH)
    identity = verify_detached(b"data", signature, pki.trust, EPOCH)
    assert (identity.level, identity.provider) == (level, provider)


def test_a_pki_and_its_trust_store_survive_pickling_and_still_sign(pki: Pki) -> None:
    copy = pickle.loads(pickle.dumps(pki))
    assert copy == pki
    assert hash(copy.trust) == hash(pki.trust)
    assert sign_detached(b"x", copy.signer("accepted"), EPOCH) == sign_detached(
        b"x", pki.signer("accepted"), EPOCH
    )


def test_serial_numbers_are_positive_and_distinct(pki: Pki) -> None:
    identities = [
        pki.root,
        *pki.authorities.values(),
        *pki.signers,
        pki.loader_signer,
        pki.key_exchange,
        pki.platform,
    ]
    serials = [load_certificate(identity.certificate_der).serial for identity in identities]
    assert len(set(serials)) == len(serials)
    assert all(2**126 <= serial < 2**127 for serial in serials)


def test_every_certificate_is_valid_at_the_epoch_and_years_later(pki: Pki) -> None:
    for identity in (
        pki.root,
        *pki.authorities.values(),
        *pki.signers,
        pki.loader_signer,
        pki.uefi_authority,
    ):
        certificate = load_certificate(identity.certificate_der)
        assert certificate.not_before < EPOCH < EPOCH + timedelta(days=4 * 365) < certificate.not_after


def test_our_reader_and_the_library_read_the_same_certificate(pki: Pki) -> None:
    data = pki.authorities["partner"].certificate_der
    ours, theirs = load_certificate(data), x509.load_der_x509_certificate(data)
    constraints = theirs.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert ours.serial == theirs.serial_number
    assert ours.subject == theirs.subject.public_bytes()
    assert ours.issuer == theirs.issuer.public_bytes()
    assert (ours.not_before, ours.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    assert (ours.is_ca, ours.path_length) == (constraints.ca, constraints.path_length) == (True, 0)
    assert ours.body == theirs.tbs_certificate_bytes
    assert ours.signature == theirs.signature
    assert ours.fingerprint == sha256(data).digest()


def test_the_library_accepts_each_signature_in_the_chain(pki: Pki) -> None:
    signer = pki.signer("certified")
    chain = [
        x509.load_der_x509_certificate(data)
        for data in (signer.certificate_der, *signer.chain, *pki.trust.roots)
    ]
    for subject, issuer in pairwise(chain):
        subject.verify_directly_issued_by(issuer)


def test_private_keys_are_never_shown(pki: Pki) -> None:
    shown = repr(pki)
    assert pki.root.private_key_der.hex() not in shown
    assert "private_key" not in shown


def test_an_unknown_role_or_key_algorithm_is_an_error(pki: Pki) -> None:
    with pytest.raises(ValueError, match="unknown role 'community'"):
        pki.signer("community")
    with pytest.raises(ValueError, match="unknown key algorithm 'ed25519'"):
        make_private_key(Stream(b"x"), "ed25519")


def test_early_keys_have_ids_of_sixteen_characters(pki: Pki) -> None:
    assert all(len(key.key_id) == 16 and key.schema == 3 for key in pki.trust.early_keys)
    for key_id in ("short", "x" * 17, "bad\nid__________", "ümlaut__________"):
        with pytest.raises(ValueError, match="16 printable ASCII"):
            EarlyKey(key_id=key_id, schema=3, certificate_der=b"")


def test_only_the_three_signed_levels_can_be_pinned() -> None:
    with pytest.raises(ValueError, match="level"):
        IssuerLevel(certificate_der=b"", level="community")


def test_rsa_identities_chain_like_ec_ones_and_are_repeatable() -> None:
    spec = CertificateSpec(
        organization="VMware",
        common_name="root",
        not_before=EPOCH,
        not_after=EPOCH + timedelta(days=1),
        is_authority=True,
        key_usage=("key_cert_sign",),
        extended_usages=(),
    )
    root = issue(spec, source=Stream(b"rsa root"), algorithm="rsa-2048")
    assert root == issue(spec, source=Stream(b"rsa root"), algorithm="rsa-2048")
    leaf_spec = CertificateSpec(
        organization="Intel",
        common_name="leaf",
        not_before=EPOCH,
        not_after=EPOCH + timedelta(days=1),
        digest="sha384",
    )
    leaf = load_certificate(
        issue(leaf_spec, source=Stream(b"leaf"), issuer=root, algorithm="ec-p384").certificate_der
    )
    path = find_path(leaf, [leaf], (root.certificate_der,))
    check_path(path)
    assert [certificate.title for certificate in path] == ["leaf", "root"]


def test_revoking_adds_to_the_store_and_changes_nothing_else(pki: Pki) -> None:
    signer = pki.signer("partner")
    revoked = pki.trust.revoking([signer.certificate_der])
    signature = sign_detached(b"data", signer, EPOCH)
    verify_detached(b"data", signature, pki.trust, EPOCH)
    with pytest.raises(SignatureError) as refusal:
        verify_detached(b"data", signature, revoked, EPOCH)
    assert refusal.value.check == "revoked"
    assert (revoked.roots, revoked.issuers) == (pki.trust.roots, pki.trust.issuers)
