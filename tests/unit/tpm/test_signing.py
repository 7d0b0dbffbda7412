"""Signatures and attestations by every kind of key, checked by the TPM itself and by arithmetic."""

import hashlib
import hmac

import pytest
from attrs import evolve
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_ST, TPMA_NV, TPMA_OBJECT
from sim.tpm.crypto import ecc
from sim.tpm.wire import (
    TPMS_ATTEST,
    TPMS_ECC_POINT,
    TPMS_NV_PUBLIC,
    TPMS_PCR_SELECTION,
    TPMS_SIGNATURE_ECC,
    TPMT_SIGNATURE,
    TPMT_TK_CREATION,
)

from .keyring import (
    DECRYPT,
    NO_SCHEME,
    NO_TICKET,
    P256,
    POINT,
    RSA_N,
    SCALAR,
    SECRET,
    SIGN,
    Keyring,
    cipher_key,
    ecc_key,
    hmac_key,
    rsa_key,
    sig_scheme,
    without_private,
)

DIGEST = hashlib.sha256(b"message").digest()
NO_POINT = TPMS_ECC_POINT(x=b"", y=b"")
PCRS = (TPMS_PCR_SELECTION.of(TPM_ALG.SHA256, [0, 16]),)


@pytest.fixture
def ring(tpm):
    return Keyring(tpm)


@pytest.mark.parametrize(
    ("key", "scheme"),
    [
        (rsa_key(SIGN), sig_scheme(TPM_ALG.RSASSA)),
        (rsa_key(SIGN, TPM_ALG.RSAPSS, TPM_ALG.SHA256), NO_SCHEME),
        (ecc_key(SIGN), sig_scheme(TPM_ALG.ECDSA)),
        (ecc_key(SIGN, TPM_ALG.ECSCHNORR, TPM_ALG.SHA256), NO_SCHEME),
        (ecc_key(SIGN, TPM_ALG.SM2, TPM_ALG.SHA256), NO_SCHEME),
        (ecc_key(SIGN, TPM_ALG.ECDSA, TPM_ALG.SHA256, curve=ecc.CURVES[0x10]), NO_SCHEME),
        (hmac_key(), NO_SCHEME),
    ],
)
def test_what_a_key_signs_it_verifies_and_nothing_else(ring, key, scheme):
    handle = ring.load(key)
    (signature,) = ring.call(TPM_CC.Sign, (handle,), DIGEST, scheme, NO_TICKET)
    (ticket,) = ring.call(TPM_CC.VerifySignature, (handle,), DIGEST, signature)

    assert ticket.tag == TPM_ST.VERIFIED
    assert ring.refused(TPM_CC.VerifySignature, (handle,), bytes(32), signature) == 0x2DB


def test_a_pss_signature_is_good_for_others(ring):
    handle = ring.load(rsa_key(SIGN))
    (signature,) = ring.call(TPM_CC.Sign, (handle,), DIGEST, sig_scheme(TPM_ALG.RSAPSS), NO_TICKET)
    key = rsa.RSAPublicNumbers(65537, RSA_N).public_key()

    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    key.verify(signature.signature.sig, b"message", pss, hashes.SHA256())


def test_the_same_seed_gives_the_same_signatures(ring, tpm):
    handle = ring.load(ecc_key(SIGN))
    arguments = (TPM_CC.Sign, (handle,), DIGEST, sig_scheme(TPM_ALG.ECDSA), NO_TICKET)

    assert ring.call(*arguments) == ring.call(*arguments)


@pytest.mark.parametrize(
    ("key", "scheme", "rc"),
    [
        (rsa_key(SIGN), NO_SCHEME, 0x2D2),
        (rsa_key(SIGN), sig_scheme(TPM_ALG.ECDSA), 0x2D2),
        (rsa_key(SIGN, TPM_ALG.RSASSA, TPM_ALG.SHA256), sig_scheme(TPM_ALG.RSASSA, TPM_ALG.SHA1), 0x2D2),
        (rsa_key(DECRYPT), sig_scheme(TPM_ALG.RSASSA), 0x19C),
        (cipher_key(), sig_scheme(TPM_ALG.HMAC), 0x19C),
        (ecc_key(SIGN), sig_scheme(TPM_ALG.ECDSA, TPM_ALG.SHA1), 0x1D5),
        (ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256), NO_SCHEME, 0x2D2),
        (ecc_key(SIGN), sig_scheme(TPM_ALG.ECDAA, count=5), TPM_RC.VALUE),
        (hmac_key(), sig_scheme(TPM_ALG.HMAC, TPM_ALG.SHA1), 0x2D2),
    ],
)
def test_what_a_key_cannot_sign_is_refused(ring, key, scheme, rc):
    handle = ring.load(key)
    assert ring.refused(TPM_CC.Sign, (handle,), DIGEST, scheme, NO_TICKET) == rc


def test_a_signature_of_another_scheme_is_refused(ring):
    handles = [ring.load(key) for key in (rsa_key(SIGN), ecc_key(SIGN), hmac_key())]
    scheme = (sig_scheme(TPM_ALG.RSASSA), sig_scheme(TPM_ALG.ECDSA), NO_SCHEME)
    made = [
        ring.call(TPM_CC.Sign, (handle,), DIGEST, each, NO_TICKET)[0]
        for handle, each in zip(handles, scheme, strict=True)
    ]
    for signer, handle in enumerate(handles):
        for other, signature in enumerate(made):
            if signer != other:
                assert ring.refused(TPM_CC.VerifySignature, (handle,), DIGEST, signature) == 0x2D2


def test_a_key_that_does_not_sign_does_not_verify(ring):
    (signature,) = ring.call(TPM_CC.Sign, (ring.load(hmac_key()),), DIGEST, NO_SCHEME, NO_TICKET)
    assert ring.refused(TPM_CC.VerifySignature, (ring.load(ecc_key(DECRYPT)),), DIGEST, signature) == 0x182
    other = ring.load(hmac_key(hash_alg=TPM_ALG.SHA512))
    assert ring.refused(TPM_CC.VerifySignature, (other,), DIGEST, signature) == 0x2DB


def test_a_public_key_alone_verifies(ring):
    (signature,) = ring.call(
        TPM_CC.Sign, (ring.load(ecc_key(SIGN)),), DIGEST, sig_scheme(TPM_ALG.ECDSA), NO_TICKET
    )
    handle = ring.load(without_private(ecc_key(SIGN)))

    assert ring.call(TPM_CC.VerifySignature, (handle,), DIGEST, signature)[0].digest == b""


def test_a_restricted_key_signs_only_what_the_tpm_hashed(ring, client):
    handle, _, _ = client.create_primary_ak()
    for unsafe in (b"message", b"\xff\x54\x43\x47 forged"):
        digest, ticket = ring.call(TPM_CC.Hash, (), unsafe, TPM_ALG.SHA256.value, TPM_RH.ENDORSEMENT.value)
        arguments = (TPM_CC.Sign, (handle,), digest, NO_SCHEME, ticket)
        if unsafe == b"message":
            (signature,) = ring.call(*arguments)
            (proof,) = ring.call(TPM_CC.VerifySignature, (handle,), digest, signature)
            assert proof.hierarchy == TPM_RH.ENDORSEMENT
            assert len(proof.digest) == 64
        else:
            assert ring.refused(*arguments) == 0x3E0
    assert ring.refused(TPM_CC.Sign, (handle,), DIGEST, NO_SCHEME, NO_TICKET) == 0x3E0


def test_ecdaa_signs_with_the_committed_scalar_once(ring):
    handle = ring.load(ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256))
    k, ell, e, counter = ring.call(TPM_CC.Commit, (handle,), NO_POINT, b"", b"")
    assert (k, ell) == (NO_POINT, NO_POINT)
    scheme = sig_scheme(TPM_ALG.ECDAA, count=counter)
    (made,) = ring.call(TPM_CC.Sign, (handle,), DIGEST, scheme, NO_TICKET)
    s = int.from_bytes(made.signature.signatureS, "big")
    t = int.from_bytes(hashlib.sha256(made.signature.signatureR + DIGEST).digest(), "big")

    committed = int.from_bytes(e.x, "big"), int.from_bytes(e.y, "big")
    left = ecc.multiply(P256, s, (P256.gx, P256.gy))
    assert left == ecc.add(P256, committed, ecc.multiply(P256, t, POINT))
    assert ring.refused(TPM_CC.Sign, (handle,), DIGEST, scheme, NO_TICKET) == TPM_RC.VALUE
    assert ring.refused(TPM_CC.VerifySignature, (handle,), DIGEST, made) == 0x2D2


def test_commit_multiplies_the_points_that_it_is_given(ring):
    handle = ring.load(ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256))
    base = b"basename"
    while True:
        x = int.from_bytes(hashlib.sha256(base).digest(), "big") % P256.p
        square = (x**3 + P256.a * x + P256.b) % P256.p
        y = pow(square, (P256.p + 1) // 4, P256.p)
        if y * y % P256.p == square:
            break
        base += b"+"
    given = TPMS_ECC_POINT(x=P256.encode(POINT[0]), y=P256.encode(POINT[1]))
    k, ell, e, _ = ring.call(TPM_CC.Commit, (handle,), given, base, P256.encode(y))

    assert int.from_bytes(k.x, "big") == ecc.multiply(P256, SCALAR, (x, y))[0]
    assert ell.x
    assert e.x
    _, ell, e, _ = ring.call(TPM_CC.Commit, (handle,), NO_POINT, base, P256.encode(y))
    assert ell.x
    assert e == NO_POINT


@pytest.mark.parametrize(
    ("key", "parameters", "rc"),
    [
        (hmac_key(), (NO_POINT, b"", b""), 0x19C),
        (ecc_key(SIGN), (NO_POINT, b"", b""), 0x192),
        (ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256), (NO_POINT, b"s", b""), 0x3D5),
        (ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256), (NO_POINT, b"s", b"y"), 0x2E7),
        (ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256), (TPMS_ECC_POINT(x=b"1", y=b"1"), b"", b""), 0x1E7),
    ],
)
def test_commit_refuses_other_keys_and_points(ring, tpm, key, parameters, rc):
    handle = ring.load(key)
    assert ring.refused(TPM_CC.Commit, (handle,), *parameters) == rc
    assert tpm.commits.counter == 0


def test_only_the_latest_commits_are_remembered(tpm):
    for _ in range(130):
        tpm.commits.take()

    assert tpm.commits.find(1) is None
    assert tpm.commits.find(2) == 2
    assert len(tpm.commits.unused) == 128


def test_an_hmac_key_quotes(ring):
    handle = ring.load(hmac_key())
    attest, signature = ring.call(TPM_CC.Quote, (handle,), b"nonce", NO_SCHEME, PCRS)

    digest = hashlib.sha256(attest).digest()
    assert signature.signature.digest == hmac.digest(SECRET, digest, "sha256")
    assert TPMS_ATTEST.decode(attest).attested.pcrSelect == PCRS


def test_an_anonymous_attestation_names_nobody(ring):
    handle = ring.load(ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256))
    _, _, e, counter = ring.call(TPM_CC.Commit, (handle,), NO_POINT, b"", b"")
    scheme = sig_scheme(TPM_ALG.ECDAA, count=counter)
    attest, made = ring.call(TPM_CC.Quote, (handle,), b"nonce", scheme, PCRS)
    read = TPMS_ATTEST.decode(attest)
    digest = hashlib.sha256(b"nonce" + hashlib.sha256(attest).digest()).digest()
    t = int.from_bytes(hashlib.sha256(made.signature.signatureR + digest).digest(), "big")
    s = int.from_bytes(made.signature.signatureS, "big")

    assert (read.qualifiedSigner, read.extraData) == (b"", b"")
    committed = int.from_bytes(e.x, "big"), int.from_bytes(e.y, "big")
    left = ecc.multiply(P256, s, (P256.gx, P256.gy))
    assert left == ecc.add(P256, committed, ecc.multiply(P256, t, POINT))


def test_certify_attests_names_and_may_go_unsigned(ring, client):
    handle, _, name = client.create_primary_ak()
    other = ring.load(ecc_key(DECRYPT))
    attest, signature = ring.call(TPM_CC.Certify, (other, handle), b"nonce", NO_SCHEME)
    read = TPMS_ATTEST.decode(attest)
    plain, nothing = ring.call(TPM_CC.Certify, (handle, TPM_RH.NULL), b"nonce", NO_SCHEME)

    ring.call(TPM_CC.VerifySignature, (handle,), hashlib.sha256(attest).digest(), signature)
    assert read.attested.name == ring.call(TPM_CC.ReadPublic, (other,))[1]
    assert nothing.sigAlg == TPM_ALG.NULL
    assert TPMS_ATTEST.decode(plain).attested.name == name
    assert TPMS_ATTEST.decode(plain).qualifiedSigner == bytes.fromhex("40000007")
    assert ring.refused(TPM_CC.Certify, (handle, other), b"", NO_SCHEME) == 0x29C


def test_counters_are_hidden_from_keys_of_the_owner(ring, client, tpm):
    handle, _, _ = client.create_primary_ak()
    mine = TPMS_ATTEST.decode(ring.call(TPM_CC.GetTime, (TPM_RH.ENDORSEMENT, handle), b"", NO_SCHEME)[0])
    outside = ring.load(hmac_key())
    theirs = TPMS_ATTEST.decode(ring.call(TPM_CC.GetTime, (TPM_RH.ENDORSEMENT, outside), b"", NO_SCHEME)[0])

    assert mine.clockInfo.resetCount == tpm.time.reset_count
    assert mine.firmwareVersion == tpm.profile.firmware_version
    assert theirs.clockInfo.resetCount != tpm.time.reset_count
    assert theirs.firmwareVersion != tpm.profile.firmware_version
    assert theirs.attested.firmwareVersion == tpm.profile.firmware_version


def test_certify_creation_needs_the_ticket(ring, tpm):
    handle = TpmClient(tpm.execute).create_primary_ak()[0]
    loaded = tpm.objects[handle]
    ticket = TPMT_TK_CREATION(tag=TPM_ST.CREATION.value, hierarchy=TPM_RH.ENDORSEMENT.value, digest=b"t" * 64)
    arguments = (TPM_CC.CertifyCreation, (handle, handle), b"", b"h" * 32, NO_SCHEME)
    assert ring.refused(*arguments, ticket) == 0x4E0

    from sim.tpm.commands.objects import creation_ticket

    good = creation_ticket(tpm, TPM_RH.ENDORSEMENT.value, loaded.name, b"h" * 32)
    attest, _ = ring.call(*arguments, good)
    assert TPMS_ATTEST.decode(attest).attested.creationHash == b"h" * 32


def test_nv_certify_attests_a_part_or_the_digest_of_all(ring):
    index = 0x01000001
    public = TPMS_NV_PUBLIC(
        nvIndex=index,
        nameAlg=TPM_ALG.SHA256.value,
        attributes=int(TPMA_NV.OWNERREAD | TPMA_NV.OWNERWRITE),
        authPolicy=b"",
        dataSize=8,
    )
    ring.call(TPM_CC.NV_DefineSpace, (TPM_RH.OWNER,), b"", public)
    ring.call(TPM_CC.NV_Write, (TPM_RH.OWNER, index), b"contents", 0)
    handle = ring.load(hmac_key())
    arguments = (TPM_CC.NV_Certify, (handle, TPM_RH.OWNER, index), b"n", NO_SCHEME)
    part = TPMS_ATTEST.decode(ring.call(*arguments, 3, 2)[0]).attested
    whole = TPMS_ATTEST.decode(ring.call(*arguments, 0, 0)[0])

    assert (part.offset, part.nvContents) == (2, b"nte")
    assert whole.type == TPM_ST.ATTEST_NV_DIGEST
    assert whole.attested.nvDigest == hashlib.sha256(b"contents").digest()
    assert ring.refused(*arguments, 9, 0) == TPM_RC.NV_RANGE


def test_an_x509_key_signs_no_plain_digest(ring):
    secret, public = ecc_key(SIGN)
    marked = evolve(public, objectAttributes=public.objectAttributes | TPMA_OBJECT.x509sign)
    handle = ring.load((secret, marked))
    assert ring.refused(TPM_CC.Sign, (handle,), DIGEST, sig_scheme(TPM_ALG.ECDSA), NO_TICKET) == 0x182


def test_an_anonymous_certificate_names_no_parents(ring):
    handle = ring.load(ecc_key(SIGN, TPM_ALG.ECDAA, TPM_ALG.SHA256))
    counter = ring.call(TPM_CC.Commit, (handle,), NO_POINT, b"", b"")[3]
    scheme = sig_scheme(TPM_ALG.ECDAA, count=counter)
    attested = TPMS_ATTEST.decode(ring.call(TPM_CC.Certify, (handle, handle), b"", scheme)[0]).attested

    assert attested.name == ring.call(TPM_CC.ReadPublic, (handle,))[1]
    assert attested.qualifiedName == b""


def test_a_loaded_key_takes_no_part_of_a_signature_out_of_range(ring):
    handle = ring.load(ecc_key(SIGN))
    for scheme in (TPM_ALG.ECDSA, TPM_ALG.ECSCHNORR, TPM_ALG.SM2):
        content = TPMS_SIGNATURE_ECC(hash=TPM_ALG.SHA256.value, signatureR=bytes(32), signatureS=b"\xff" * 32)
        signature = TPMT_SIGNATURE(sigAlg=scheme.value, signature=content)
        assert ring.refused(TPM_CC.VerifySignature, (handle,), DIGEST, signature) == 0x2DB
