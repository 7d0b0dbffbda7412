import struct
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import Rng, Stream
from sim.errors import FormatError
from sim.image.bitflips import flip_bits
from sim.image.certificate import load_certificate
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.issue import CertificateSpec, issue
from sim.image.pki import EarlySigner, Pki
from sim.image.trailer import (
    MAGIC,
    SCHEMAS,
    sign_module,
    split_trailer,
    verify_early_module,
    verify_module,
)
from sim.image.trust import EarlyKey, RevocationPolicy, SignatureError

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
PKI = Pki.create(Rng(5), epoch=EPOCH)
SIGNER = PKI.early_signers[0]
KEYS = PKI.trust.early_keys
MODULE = b"\x7fELF" + bytes(range(60))
SIGNED = sign_module(MODULE, SIGNER)


def check_of(data: bytes, keys: tuple[EarlyKey, ...] = KEYS) -> str:
    with pytest.raises(SignatureError) as refusal:
        verify_module(data, keys)
    return refusal.value.check


def test_a_signed_module_verifies_and_gives_its_payload_and_key() -> None:
    signature = verify_module(SIGNED, KEYS)
    assert signature.payload == MODULE
    assert (signature.key_id, signature.schema) == (SIGNER.key.key_id, 3)
    assert signature.certificate_der == SIGNER.identity.certificate_der


def test_the_trailer_has_the_documented_layout() -> None:
    signature_bytes, magic = struct.unpack("<II", SIGNED[-8:])
    assert magic == 0x1ABE11ED
    signature = SIGNED[-8 - signature_bytes : -8]
    assert signature[:16].decode("ascii") == SIGNER.key.key_id
    assert MODULE + struct.pack("<I", 3) + signature + SIGNED[-8:] == SIGNED


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_each_schema_signs_and_verifies(schema: int) -> None:
    kind, digest = SCHEMAS[schema]
    algorithm = "rsa-2048" if kind == "rsa" else "ec-p384" if digest == "sha384" else "ec-p256"
    spec = CertificateSpec(
        organization="VMware", common_name="k", not_before=EPOCH, not_after=EPOCH + timedelta(days=9)
    )
    identity = issue(spec, source=Stream(b"early " + kind.encode()), algorithm=algorithm)
    key = EarlyKey(key_id="a_key_of_16_char", schema=schema, certificate_der=identity.certificate_der)
    signed = sign_module(MODULE, EarlySigner(key=key, identity=identity))
    assert verify_module(signed, (key,)).schema == schema
    other = attrs.evolve(key, schema=schema % 4 + 1)
    assert check_of(signed, (other,)) == "schema"


def test_a_module_without_the_magic_is_unsigned() -> None:
    assert check_of(MODULE) == "no-signature"
    assert check_of(SIGNED[:-4] + b"\0\0\0\0") == "no-signature"
    assert split_trailer(MODULE) is None
    assert split_trailer(b"") is None


def test_an_unknown_key_id_is_refused() -> None:
    assert check_of(SIGNED, KEYS[1:]) == "key-id"


def test_a_key_that_only_shares_the_id_is_refused() -> None:
    impostor = attrs.evolve(KEYS[1], key_id=KEYS[0].key_id)
    assert check_of(SIGNED, (impostor,)) == "signature"


def test_a_key_of_another_type_is_refused() -> None:
    assert check_of(SIGNED[:-4] + SIGNED[-4:], (attrs.evolve(KEYS[0], schema=1),)) == "schema"
    relabelled = MODULE + struct.pack("<I", 1) + SIGNED[len(MODULE) + 4 :]
    assert check_of(relabelled, (attrs.evolve(KEYS[0], schema=1),)) == "signature"


@pytest.mark.parametrize("length", [0, 16, 17, 2**10, 2**31, 2**32 - 1, len(SIGNED)])
def test_a_wrong_signature_length_is_refused(length: int) -> None:
    assert check_of(SIGNED[:-8] + struct.pack("<II", length, MAGIC)) in ("trailer-format", "key-id")


@pytest.mark.parametrize(
    "data",
    [struct.pack("<I", MAGIC), struct.pack("<II", 20, MAGIC), bytes(3) + struct.pack("<II", 17, MAGIC)],
)
def test_a_trailer_without_a_module_before_it_is_refused(data: bytes) -> None:
    assert check_of(data) == "trailer-format"


def test_no_single_bit_of_a_signed_module_can_change() -> None:
    report = flip_bits(SIGNED, lambda data: verify_module(data, KEYS))
    assert (report.accepted, report.escaped) == ((), ())
    assert report.tried == 8 * len(SIGNED)


def test_no_truncated_module_is_accepted() -> None:
    for length in range(len(SIGNED)):
        check_of(SIGNED[:length])


@given(st.binary(max_size=80), st.integers(0, 200))
def test_junk_before_the_magic_is_refused_with_a_format_error_only(data: bytes, length: int) -> None:
    try:
        split_trailer(data + struct.pack("<II", length, MAGIC))
    except FormatError:
        return
    assert 16 < length <= len(data) - 4


DAY = timedelta(days=1)
SERIAL = load_certificate(SIGNER.identity.certificate_der).serial


def list_of(*serials: int, issuer=PKI.early_authority, **fields) -> bytes:
    times = {"this_update": EPOCH - DAY, "next_update": EPOCH + DAY}
    return issue_crl(CrlSpec(serials=serials, **times, **fields), issuer)


def early(*crls: bytes, now: datetime = EPOCH, trust=PKI.trust, **policy: str) -> str:
    """The check that refuses the module, or "" when the loader takes it."""
    try:
        verify_early_module(SIGNED, trust.with_crls(crls, RevocationPolicy(**policy)), now)
    except SignatureError as error:
        return error.check
    return ""


def test_a_key_on_the_list_of_its_authority_is_revoked_and_another_is_not() -> None:
    other = load_certificate(PKI.early_signers[1].identity.certificate_der).serial
    assert early() == ""
    assert early(list_of(other)) == ""
    assert early(list_of(other, SERIAL)) == "revoked"


@pytest.mark.parametrize("who", [SIGNER.identity, PKI.early_authority])
def test_the_digest_of_a_key_s_certificate_or_authority_revokes_it(who) -> None:
    assert early(trust=PKI.trust.revoking([who.certificate_der])) == "revoked"


def test_a_key_s_list_counts_under_the_policy_of_the_trust_store() -> None:
    late = EPOCH + 2 * DAY
    assert early(list_of(), now=late) == "crl-validity"
    assert early(list_of(), now=late, stale="use") == ""
    assert early(list_of(SERIAL), now=late, stale="use") == "revoked"
    assert early(list_of(), now=EPOCH - 2 * DAY) == "crl-validity"
    assert early(missing="refuse") == "crl-missing"
    assert early(list_of(), missing="refuse") == ""


def test_another_authority_s_list_says_nothing_of_a_key_unless_it_lies() -> None:
    assert early(list_of(SERIAL, issuer=PKI.authorities["certified"])) == ""
    namesake = Pki.create(Rng(6), epoch=EPOCH).early_authority
    assert early(list_of(issuer=namesake)) == "crl-signature"


def test_a_key_of_no_authority_is_taken_unless_every_key_must_have_a_list() -> None:
    alone = attrs.evolve(SIGNER.key, authority_der=b"")
    trust = attrs.evolve(PKI.trust, early_keys=(alone,))
    assert early(list_of(SERIAL), trust=trust) == ""
    assert early(trust=trust, missing="refuse") == "crl-missing"
    assert early(trust=trust.revoking([alone.certificate_der])) == "revoked"


def test_an_authority_must_have_issued_the_key_that_it_answers_for() -> None:
    foreign = attrs.evolve(SIGNER.key, authority_der=PKI.root.certificate_der)
    assert early(trust=attrs.evolve(PKI.trust, early_keys=(foreign,))) == "chain"


def test_a_forged_module_is_refused_before_anybody_asks_for_lists() -> None:
    with pytest.raises(SignatureError) as refusal:
        verify_early_module(b"module", PKI.trust.with_crls([list_of(SERIAL)]), EPOCH)
    assert refusal.value.check == "no-signature"
