"""Primaries, quotes and what they prove."""

from hashlib import sha256

import attrs
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_GENERATED_VALUE, TPM_RC, TPM_RH, TPM_ST, TPMA_OBJECT
from sim.tpm.device import Tpm
from sim.tpm.keys import kdf_a, name_of
from sim.tpm.profile import TpmProfile
from sim.tpm.tables import COMMANDS
from sim.tpm.templates import ATTESTATION_KEY, SIGNING_KEY, STORAGE_PARENT
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPMS_ATTEST,
    TPMS_ECC_POINT,
    TPMS_PCR_SELECTION,
    TPMS_SCHEME_HASH,
    TPMS_SENSITIVE_CREATE,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
)

SHA256 = TPM_ALG.SHA256.value


def refused(call, *arguments, **options):
    with pytest.raises(TpmError) as caught:
        call(*arguments, **options)
    return caught.value.rc


def public_key(public):
    area, _ = TPM2B_PUBLIC.decode(public, 0, len(public))
    x, y = (int.from_bytes(value, "big") for value in (area.unique.x, area.unique.y))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def verify(public, attest, signature):
    content = TPMT_SIGNATURE.decode(signature)
    assert content.sigAlg == TPM_ALG.ECDSA
    r, s = (int.from_bytes(v, "big") for v in (content.signature.signatureR, content.signature.signatureS))
    hash_algorithm = {TPM_ALG.SHA256: hashes.SHA256(), TPM_ALG.SHA384: hashes.SHA384()}[
        content.signature.hash
    ]
    public_key(public).verify(encode_dss_signature(r, s), attest, ec.ECDSA(hash_algorithm))


def test_a_quote_is_signed_by_the_key_and_says_what_was_asked(client):
    client.pcr_extend(11, {SHA256: b"\x07" * 32})
    handle, public, name = client.create_primary_ak()
    attest, signature = client.quote(handle, b"a fresh nonce", {SHA256: (0, 11)})

    verify(public, attest, signature)
    content = TPMS_ATTEST.decode(attest)
    values = client.pcr_read({SHA256: (0, 11)})[SHA256]
    assert content.magic == TPM_GENERATED_VALUE
    assert content.type == TPM_ST.ATTEST_QUOTE
    assert content.extraData == b"a fresh nonce"
    assert content.attested.pcrSelect == (TPMS_PCR_SELECTION.of(SHA256, (0, 11)),)
    assert content.attested.pcrDigest == sha256(values[0] + values[11]).digest()
    assert content.clockInfo.resetCount == 1
    expected = sha256(TPM_RH.ENDORSEMENT.to_bytes(4, "big") + name).digest()
    assert content.qualifiedSigner == b"\x00\x0b" + expected


def test_a_changed_quote_does_not_verify(client):
    handle, public, _ = client.create_primary_ak()
    attest, signature = client.quote(handle, b"nonce", {SHA256: (0,)})

    with pytest.raises(InvalidSignature):
        verify(public, attest[:-1] + bytes([attest[-1] ^ 1]), signature)


def test_a_quote_over_several_banks_hashes_them_in_the_order_of_the_selection(client):
    handle, _, _ = client.create_primary_ak()
    attest, _ = client.quote(handle, b"", {TPM_ALG.SHA1.value: (17,), SHA256: (17, 0)})

    content = TPMS_ATTEST.decode(attest)
    assert content.attested.pcrDigest == sha256(b"\xff" * 20 + bytes(32) + b"\xff" * 32).digest()


def test_the_name_is_the_digest_of_the_public_area(client):
    handle, public, name = client.create_primary_ak()
    area, _ = TPM2B_PUBLIC.decode(public, 0, len(public))

    assert name == b"\x00\x0b" + sha256(area.encode()).digest() == name_of(area)
    assert client.read_public(handle) == (public, name, client.read_public(handle)[2])


def test_a_primary_depends_on_hierarchy_template_and_sensitive_data_alone(tpm, client):
    def created(template=ATTESTATION_KEY, hierarchy=TPM_RH.ENDORSEMENT, auth=b""):
        handle, public, _ = client.create_primary(template, hierarchy, auth)
        client.flush(handle)
        return public

    first = created()
    assert created() == first
    assert created(auth=b"password") == first  # the authorisation value is no part of the derivation
    client.shutdown()
    tpm.init()
    client.startup()
    assert created() == first
    others = [
        created(hierarchy=TPM_RH.OWNER),
        created(hierarchy=TPM_RH.PLATFORM),
        created(hierarchy=TPM_RH.NULL),
        created(SIGNING_KEY),
        created(attrs.evolve(ATTESTATION_KEY, unique=TPMS_ECC_POINT(x=b"1", y=b""))),
    ]
    assert len({public_key(each).public_numbers() for each in [first, *others]}) == 6


def test_the_null_hierarchy_has_other_keys_after_each_reset(tpm, client):
    def created():
        handle, public, _ = client.create_primary(ATTESTATION_KEY, TPM_RH.NULL)
        client.flush(handle)
        return public

    first = created()
    assert created() == first
    tpm.init()
    client.startup()
    assert created() != first


def test_transient_slots_are_limited_and_come_back_when_flushed(client):
    handles = [
        client.create_primary(template)[0] for template in (ATTESTATION_KEY, SIGNING_KEY, STORAGE_PARENT)
    ]

    assert handles == [0x80000000, 0x80000001, 0x80000002]
    assert refused(client.create_primary_ak) == TPM_RC.OBJECT_MEMORY
    client.flush(handles[1])
    assert client.create_primary_ak()[0] == handles[1]


def test_the_number_of_slots_belongs_to_the_profile():
    tpm = Tpm(b"seed", TpmProfile(transient_slots=5))
    tpm.init()
    client = TpmClient(tpm.execute)
    client.startup()

    assert [client.create_primary_ak()[0] - 0x80000000 for _ in range(5)] == [0, 1, 2, 3, 4]
    assert refused(client.create_primary_ak) == TPM_RC.OBJECT_MEMORY


def parameters(template, **changes):
    return attrs.evolve(template, parameters=attrs.evolve(template.parameters, **changes))


ECDSA_SHA1 = TPMT_ECC_SCHEME(scheme=TPM_ALG.ECDSA, details=TPMS_SCHEME_HASH(hashAlg=TPM_ALG.SHA1))
ECDH = TPMT_ECC_SCHEME(scheme=TPM_ALG.ECDH, details=TPMS_SCHEME_HASH(hashAlg=SHA256))
KDF2 = TPMT_KDF_SCHEME(scheme=TPM_ALG.KDF2, details=TPMS_SCHEME_HASH(hashAlg=SHA256))
AES = STORAGE_PARENT.parameters.symmetric
BASE = ATTESTATION_KEY.objectAttributes


def attributes(template, value):
    return attrs.evolve(template, objectAttributes=int(value))


@pytest.mark.parametrize(
    ("template", "rc"),
    [
        (attributes(ATTESTATION_KEY, BASE & ~TPMA_OBJECT.fixedTPM), 0x2C2),
        (attributes(ATTESTATION_KEY, BASE & ~TPMA_OBJECT.fixedParent), 0x2C2),
        (attributes(ATTESTATION_KEY, BASE & ~TPMA_OBJECT.sensitiveDataOrigin), 0x2C2),
        (attributes(ATTESTATION_KEY, BASE & ~TPMA_OBJECT.sign), 0x2C2),
        (attributes(ATTESTATION_KEY, BASE | TPMA_OBJECT.decrypt), 0x2C2),
        (attributes(ATTESTATION_KEY, BASE | TPMA_OBJECT.encryptedDuplication), 0x2C2),
        (parameters(ATTESTATION_KEY, scheme=SIGNING_KEY.parameters.scheme), 0x2D2),
        (parameters(ATTESTATION_KEY, scheme=ECDH), 0x2D2),
        (parameters(SIGNING_KEY, kdf=KDF2), 0x2CC),
        (parameters(SIGNING_KEY, scheme=ECDH), 0x2D2),
        (parameters(ATTESTATION_KEY, symmetric=AES), 0x2D6),
        (parameters(STORAGE_PARENT, symmetric=ATTESTATION_KEY.parameters.symmetric), 0x2D6),
        (parameters(STORAGE_PARENT, scheme=ECDH), 0x2D2),
        (attrs.evolve(ATTESTATION_KEY, authPolicy=bytes(20)), 0x2D5),
    ],
)
def test_a_template_of_no_possible_key_is_refused(client, tpm, template, rc):
    assert refused(client.create_primary, template) == rc
    assert not tpm.objects


@pytest.mark.parametrize(
    "template",
    [
        ATTESTATION_KEY,
        SIGNING_KEY,
        STORAGE_PARENT,
        parameters(ATTESTATION_KEY, scheme=ECDSA_SHA1),
        parameters(attributes(SIGNING_KEY, SIGNING_KEY.objectAttributes ^ 0x60000), scheme=ECDH),
        attrs.evolve(ATTESTATION_KEY, nameAlg=TPM_ALG.SHA384.value),
        attrs.evolve(ATTESTATION_KEY, authPolicy=bytes(32)),
    ],
)
def test_the_templates_of_real_keys_are_accepted(client, template):
    _, public, name = client.create_primary(template)
    area, _ = TPM2B_PUBLIC.decode(public, 0, len(public))

    assert attrs.evolve(area, unique=template.unique) == template
    assert name[:2] == template.nameAlg.to_bytes(2, "big")


def test_an_authorisation_value_longer_than_the_name_digest_is_refused(client):
    assert refused(client.create_primary, ATTESTATION_KEY, TPM_RH.OWNER, bytes([1]) * 33) == 0x1D5
    client.create_primary(ATTESTATION_KEY, TPM_RH.OWNER, bytes([1]) * 32)


def quote(tpm, handle, scheme, password=b""):
    """Send a quote with a scheme and a password of one's own choice; return the response code and its content."""
    area = bytes.fromhex("4000000900000000") + bytes([len(password)]) + password
    spec = COMMANDS[0x158]
    values = (b"nonce", scheme, (TPMS_PCR_SELECTION.of(SHA256, (0,)),))
    body = handle.to_bytes(4, "big") + len(area).to_bytes(4, "big") + area
    body += b"".join(codec.encode(value) for codec, value in zip(spec.parameters, values, strict=True))
    response = tpm.execute(b"\x80\x02" + (10 + len(body)).to_bytes(4, "big") + b"\0\0\x01\x58" + body)
    return int.from_bytes(response[6:10], "big"), response[14:]


NO_SCHEME = TPMT_SIG_SCHEME(scheme=TPM_ALG.NULL, details=None)


def ecdsa(hash_alg):
    return TPMT_SIG_SCHEME(scheme=TPM_ALG.ECDSA, details=TPMS_SCHEME_HASH(hashAlg=hash_alg))


def test_a_key_with_a_scheme_signs_with_that_alone_and_one_without_with_any(tpm, client):
    fixed = client.create_primary_ak()[0]
    free, public, _ = client.create_primary(SIGNING_KEY)
    rsa_pss = TPMT_SIG_SCHEME(scheme=TPM_ALG.RSAPSS, details=TPMS_SCHEME_HASH(hashAlg=SHA256))

    assert [quote(tpm, fixed, each)[0] for each in (NO_SCHEME, ecdsa(SHA256))] == [0, 0]
    assert [quote(tpm, fixed, each)[0] for each in (ecdsa(TPM_ALG.SHA384), rsa_pss)] == [0x2D2, 0x2D2]
    assert [quote(tpm, free, each)[0] for each in (NO_SCHEME, rsa_pss)] == [0x2D2, 0x2D2]
    rc, content = quote(tpm, free, ecdsa(TPM_ALG.SHA384))
    assert rc == 0
    length = int.from_bytes(content[:2], "big")
    verify(public, content[2 : 2 + length], content[2 + length : -5])
    assert quote(tpm, TPM_RH.NULL, ecdsa(SHA256))[0] == 0x2D2


def test_only_signing_keys_quote(tpm, client):
    storage = client.create_primary(STORAGE_PARENT)[0]

    assert quote(tpm, storage, NO_SCHEME)[0] == 0x19C


def test_the_password_of_a_key_must_match(tpm, client):
    handle, _, _ = client.create_primary(ATTESTATION_KEY, auth=b"secret\0")

    assert quote(tpm, handle, NO_SCHEME, b"secret")[0] == 0
    assert quote(tpm, handle, NO_SCHEME, b"wrong")[0] == 0x98E
    no_da = attributes(ATTESTATION_KEY, BASE | TPMA_OBJECT.noDA)
    handle, _, _ = client.create_primary(no_da, auth=b"secret")
    assert quote(tpm, handle, NO_SCHEME, b"wrong")[0] == 0x9A2


def test_a_key_without_user_auth_cannot_be_used_with_a_password(tpm, client):
    policy_only = attributes(ATTESTATION_KEY, BASE & ~TPMA_OBJECT.userWithAuth)
    handle, _, _ = client.create_primary(policy_only)

    assert quote(tpm, handle, NO_SCHEME)[0] == TPM_RC.AUTH_UNAVAILABLE


def test_counters_are_hidden_from_keys_of_the_owner_but_move_as_they_should(tpm, client):
    def seen(hierarchy):
        handle, _, _ = client.create_primary(ATTESTATION_KEY, hierarchy)
        attest = TPMS_ATTEST.decode(client.quote(handle, b"", {SHA256: (0,)})[0])
        client.flush(handle)
        return attest.clockInfo.resetCount, attest.firmwareVersion

    assert seen(TPM_RH.ENDORSEMENT) == (1, tpm.profile.firmware_version)
    first, version = seen(TPM_RH.OWNER)
    assert first != 1
    assert version != tpm.profile.firmware_version
    tpm.init()
    client.startup()
    assert seen(TPM_RH.OWNER) == ((first + 1) & 0xFFFFFFFF, version)


def test_creation_data_say_where_and_how_a_key_was_made(tpm, client):
    spec = COMMANDS[0x131]
    secrets = TPMS_SENSITIVE_CREATE(userAuth=b"", data=b"")
    creation_pcrs = (TPMS_PCR_SELECTION.of(SHA256, (17,)),)
    at_2 = client.at_locality(2)
    results = at_2._call(spec.code, (TPM_RH.OWNER,), secrets, ATTESTATION_KEY, b"outside", creation_pcrs)
    _, _, creation, creation_hash, ticket, _ = results

    assert creation.locality == 1 << 2
    assert creation.outsideInfo == b"outside"
    assert creation.parentName == TPM_RH.OWNER.to_bytes(4, "big")
    assert creation.pcrDigest == sha256(b"\xff" * 32).digest()
    assert creation_hash == sha256(creation.encode()).digest()
    assert ticket.hierarchy == TPM_RH.OWNER
    assert len(ticket.digest) == 64


def test_kdf_a_cuts_its_stream_to_length_and_binds_label_context_and_length():
    long = kdf_a(SHA256, b"key", b"label", b"context", 512)

    assert len(long) == 64
    assert len(kdf_a(SHA256, b"key", b"label", b"context", 128)) == 16
    assert long[:16] != kdf_a(SHA256, b"key", b"label", b"context", 128)
    assert long != kdf_a(SHA256, b"key", b"labem", b"context", 512)
