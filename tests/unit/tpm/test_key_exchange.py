"""RSA encryption and key exchange: what one side makes, the other understands."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC
from sim.tpm.crypto import ecc
from sim.tpm.crypto.twophase import exchange_ecdh, exchange_mqv, exchange_sm2
from sim.tpm.wire import TPMS_ECC_POINT, TPMT_RSA_SCHEME

from .keyring import (
    DECRYPT,
    NULL,
    P256,
    POINT,
    RSA_N,
    SCALAR,
    SIGN,
    Keyring,
    details,
    ecc_key,
    hmac_key,
    rsa_key,
)

OTHER = 0xABCDEF << 200 | 99
EXCHANGES = {
    TPM_ALG.ECDH: exchange_ecdh,
    TPM_ALG.ECMQV: lambda *keys: (exchange_mqv(*keys), None),
    TPM_ALG.SM2: lambda *keys: (exchange_sm2(*keys), None),
}


def rsa_scheme(scheme=NULL, hash_alg=None):
    return TPMT_RSA_SCHEME(scheme=int(scheme), details=details(hash_alg))


def on_wire(point):
    return TPMS_ECC_POINT(x=P256.encode(point[0]), y=P256.encode(point[1]))


def read(point):
    return (int.from_bytes(point.x, "big"), int.from_bytes(point.y, "big")) if point.x else None


@pytest.fixture
def ring(tpm):
    return Keyring(tpm)


@pytest.mark.parametrize(
    "scheme", [rsa_scheme(TPM_ALG.RSAES), rsa_scheme(TPM_ALG.OAEP, TPM_ALG.SHA256), rsa_scheme()]
)
@pytest.mark.parametrize("label", [b"", b"label\0"])
def test_what_rsa_encrypts_it_decrypts(ring, scheme, label):
    handle = ring.load(rsa_key(DECRYPT))
    message = b"message" if scheme.scheme != NULL else b"m" * 127
    (cipher,) = ring.call(TPM_CC.RSA_Encrypt, (handle,), message, scheme, label)
    (plain,) = ring.call(TPM_CC.RSA_Decrypt, (handle,), cipher, scheme, label)

    assert plain.lstrip(b"\0") == message


def test_others_encrypt_for_the_tpm(ring):
    handle = ring.load(rsa_key(DECRYPT, TPM_ALG.OAEP, TPM_ALG.SHA256))
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=b"L\0")
    cipher = rsa.RSAPublicNumbers(65537, RSA_N).public_key().encrypt(b"secret", oaep)

    assert ring.call(TPM_CC.RSA_Decrypt, (handle,), cipher, rsa_scheme(), b"L\0") == (b"secret",)
    assert ring.refused(TPM_CC.RSA_Decrypt, (handle,), cipher, rsa_scheme(), b"") == TPM_RC.VALUE


@pytest.mark.parametrize(
    ("key", "message", "scheme", "label", "rc"),
    [
        (hmac_key(), b"", rsa_scheme(), b"", 0x19C),
        (rsa_key(SIGN), b"", rsa_scheme(), b"", 0x182),
        (rsa_key(DECRYPT), b"", rsa_scheme(), b"open", 0x3C4),
        (rsa_key(DECRYPT, TPM_ALG.RSAES), b"", rsa_scheme(TPM_ALG.OAEP, TPM_ALG.SHA256), b"", 0x2D2),
        (rsa_key(DECRYPT), b"m" * 118, rsa_scheme(TPM_ALG.RSAES), b"", TPM_RC.VALUE),
        (rsa_key(DECRYPT), b"m" * 100, rsa_scheme(TPM_ALG.OAEP, TPM_ALG.SHA256), b"", TPM_RC.VALUE),
        (rsa_key(DECRYPT), b"\xff" * 128, rsa_scheme(), b"", TPM_RC.VALUE),
        (rsa_key(DECRYPT), b"m" * 129, rsa_scheme(), b"", TPM_RC.VALUE),
    ],
)
def test_what_rsa_cannot_encrypt_is_refused(ring, key, message, scheme, label, rc):
    handle = ring.load(key)
    assert ring.refused(TPM_CC.RSA_Encrypt, (handle,), message, scheme, label) == rc


@pytest.mark.parametrize(
    ("key", "cipher", "scheme", "rc"),
    [
        (ecc_key(DECRYPT), b"", rsa_scheme(), 0x19C),
        (rsa_key(SIGN), b"", rsa_scheme(), 0x182),
        (rsa_key(DECRYPT), b"c" * 127, rsa_scheme(), TPM_RC.SIZE),
        (rsa_key(DECRYPT), b"\xff" * 128, rsa_scheme(), TPM_RC.SIZE),
        (rsa_key(DECRYPT), b"\1" * 128, rsa_scheme(TPM_ALG.RSAES), TPM_RC.VALUE),
    ],
)
def test_what_rsa_cannot_decrypt_is_refused(ring, key, cipher, scheme, rc):
    handle = ring.load(key)
    assert ring.refused(TPM_CC.RSA_Decrypt, (handle,), cipher, scheme, b"") == rc


def test_both_sides_of_an_ecdh_get_one_secret(ring):
    handle = ring.load(ecc_key(DECRYPT))
    shared, ephemeral = ring.call(TPM_CC.ECDH_KeyGen, (handle,))

    assert ring.call(TPM_CC.ECDH_ZGen, (handle,), ephemeral) == (shared,)
    assert ecc.multiply(P256, SCALAR, read(ephemeral)) == read(shared)


@pytest.mark.parametrize(
    ("key", "point", "rc"),
    [
        (hmac_key(), on_wire(POINT), 0x19C),
        (ecc_key(SIGN), on_wire(POINT), 0x182),
        (ecc_key(DECRYPT, TPM_ALG.ECMQV, TPM_ALG.SHA256), on_wire(POINT), 0x192),
        (ecc_key(DECRYPT), TPMS_ECC_POINT(x=b"", y=b""), 0x1E7),
    ],
)
def test_an_exchange_with_no_such_key_or_point_is_refused(ring, key, point, rc):
    handle = ring.load(key)
    assert ring.refused(TPM_CC.ECDH_ZGen, (handle,), point) == rc


@pytest.mark.parametrize("scheme", list(EXCHANGES))
def test_two_phases_give_both_sides_the_same_secrets(ring, scheme):
    handle = ring.load(ecc_key(DECRYPT))
    own_ephemeral, counter = ring.call(TPM_CC.EC_Ephemeral, (), 3)
    static, ephemeral = on_wire(ecc.public_point(P256, OTHER)), on_wire(ecc.public_point(P256, OTHER + 7))
    arguments = (TPM_CC.ZGen_2Phase, (handle,), static, ephemeral, int(scheme))
    secrets = ring.call(*arguments, counter)
    theirs = EXCHANGES[scheme](P256, OTHER, OTHER + 7, POINT, read(own_ephemeral))

    assert tuple(map(read, secrets)) == theirs
    assert ring.refused(*arguments, counter) == 0x4C4


@pytest.mark.parametrize(
    ("key", "changes", "rc"),
    [
        (hmac_key(), {}, 0x19C),
        (ecc_key(SIGN), {}, 0x182),
        (ecc_key(DECRYPT, TPM_ALG.ECDH, TPM_ALG.SHA256), {"scheme": TPM_ALG.SM2}, 0x3D2),
        (ecc_key(DECRYPT), {"static": TPMS_ECC_POINT(x=b"1", y=b"1")}, 0x1E7),
        (ecc_key(DECRYPT), {"ephemeral": TPMS_ECC_POINT(x=b"1", y=b"1")}, 0x2E7),
        (ecc_key(DECRYPT), {"counter": 9}, 0x4C4),
    ],
)
def test_a_two_phase_exchange_is_refused_for_each_reason(ring, key, changes, rc):
    handle = ring.load(key)
    given = {
        "static": on_wire(POINT),
        "ephemeral": on_wire(POINT),
        "scheme": TPM_ALG.ECDH,
        "counter": 0,
        **changes,
    }
    ring.call(TPM_CC.EC_Ephemeral, (), 3)
    assert (
        ring.refused(
            *(TPM_CC.ZGen_2Phase, (handle,), given["static"], given["ephemeral"]),
            *(int(given["scheme"]), given["counter"]),
        )
        == rc
    )


@pytest.mark.parametrize("curve", sorted(ecc.CURVES))
def test_the_numbers_of_every_curve_are_given(ring, curve):
    (numbers,) = ring.call(TPM_CC.ECC_Parameters, (), curve)
    point = int.from_bytes(numbers.gX, "big"), int.from_bytes(numbers.gY, "big")

    assert ecc.is_on_curve(ecc.CURVES[curve], point)
    assert int.from_bytes(numbers.n, "big") == ecc.CURVES[curve].n
