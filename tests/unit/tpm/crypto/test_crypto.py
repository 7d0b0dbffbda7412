"""The primitives agree with published answers and with a library that nobody here wrote."""

import hmac
import random

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric import rsa as library_rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from sim.core.rng import Stream
from sim.errors import SimBug
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_ECC
from sim.tpm.crypto import ecc, kdf, rsa, symmetric
from sim.tpm.hashing import hash_bytes

SHA1, SHA256, SHA384, SHA512 = HASH_BYTES
LIBRARY = {SHA1: hashes.SHA1(), SHA256: hashes.SHA256(), SHA384: hashes.SHA384(), SHA512: hashes.SHA512()}
AES, TDES, CAMELLIA = TPM_ALG.AES, TPM_ALG.TDES, TPM_ALG.CAMELLIA
CTR, OFB, CBC, CFB, ECB = TPM_ALG.CTR, TPM_ALG.OFB, TPM_ALG.CBC, TPM_ALG.CFB, TPM_ALG.ECB
PLAIN = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
IV = bytes(range(16))


def library_key(key):
    public = library_rsa.RSAPublicNumbers(key.e, key.n)
    return library_rsa.RSAPrivateNumbers(
        p=key.p, q=key.q, d=key.d, dmp1=key.d_p, dmq1=key.d_q, iqmp=key.q_inverse, public_numbers=public
    ).private_key()


@pytest.fixture(scope="module")
def key():
    p, q = rsa.generate_primes(b"material", 2048)
    return rsa.rsa_key(p * q, rsa.DEFAULT_EXPONENT, p)


@pytest.mark.parametrize("alg", sorted(HASH_BYTES))
@pytest.mark.parametrize("size", [1, 16, 32, 100, 200])
def test_kdfa_is_the_counter_mode_of_sp_800_108(alg, size):
    library = KBKDFHMAC(
        algorithm=LIBRARY[alg],
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=b"LABEL\0context" + (size * 8).to_bytes(4, "big"),
    )

    assert kdf.kdf_a(alg, b"key", b"LABEL", b"context", size * 8) == library.derive(b"key")


@pytest.mark.parametrize("alg", sorted(HASH_BYTES))
def test_kdfe_is_the_concatenation_kdf(alg):
    library = ConcatKDFHash(LIBRARY[alg], 100, b"LABEL\0" + b"u" * 32 + b"v" * 32)

    assert kdf.kdf_e(alg, b"z" * 32, b"LABEL", b"u" * 32, b"v" * 32, 800) == library.derive(b"z" * 32)


def test_surplus_bits_of_a_derivation_are_zero():
    derived = kdf.kdf_a(SHA512, b"key", b"L", b"", 521)
    full = hmac.digest(b"key", bytes([0, 0, 0, 1]) + b"L\0" + (521).to_bytes(4, "big"), "sha512")

    assert len(derived) == 66
    assert derived[0] == full[0] & 1
    assert derived[1:64] == full[1:]


def test_obfuscation_undoes_itself_and_masks_nothing_of_nothing():
    masked = kdf.xor_obfuscate(SHA256, b"key", b"u", b"v", b"secret")

    assert masked != b"secret"
    assert kdf.xor_obfuscate(SHA256, b"key", b"u", b"v", masked) == b"secret"
    assert kdf.xor_obfuscate(SHA256, b"key", b"u", b"v", b"") == b""


@pytest.mark.parametrize(
    ("mode", "iv", "expected"),
    [
        (ECB, b"", "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"),
        (CBC, IV, "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"),
        (CFB, IV, "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b"),
        (OFB, IV, "3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed825"),
        (
            CTR,
            bytes(range(0xF0, 0x100)),
            "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff",
        ),
    ],
)
def test_aes_gives_the_examples_of_sp_800_38a(mode, iv, expected):
    cipher, _ = symmetric.crypt(AES, mode, KEY, iv, PLAIN, decrypt=False)

    assert cipher.hex() == expected
    assert symmetric.crypt(AES, mode, KEY, iv, cipher, decrypt=True)[0] == PLAIN


@pytest.mark.parametrize("mode", [CTR, OFB, CBC, CFB, ECB])
@pytest.mark.parametrize(
    ("algorithm", "bits"), [(AES, 128), (AES, 256), (CAMELLIA, 256), (TDES, 128), (TDES, 192)]
)
@pytest.mark.parametrize("decrypt", [False, True])
def test_a_message_in_two_pieces_is_the_message_in_one(algorithm, bits, mode, decrypt):
    chance = random.Random(1)
    key, data = chance.randbytes(bits // 8), chance.randbytes(64)
    iv = b"" if mode == ECB else b"\xff" * symmetric.BLOCK_BYTES[algorithm]
    whole, last = symmetric.crypt(algorithm, mode, key, iv, data, decrypt=decrypt)
    first, between = symmetric.crypt(algorithm, mode, key, iv, data[:16], decrypt=decrypt)
    second, end = symmetric.crypt(algorithm, mode, key, between, data[16:], decrypt=decrypt)

    assert first + second == whole
    assert end == last
    assert symmetric.crypt(algorithm, mode, key, iv, whole, decrypt=not decrypt)[0] == data


def test_camellia_and_triple_des_give_published_answers():
    camellia = symmetric.crypt(
        CAMELLIA,
        ECB,
        bytes.fromhex("0123456789abcdeffedcba9876543210"),
        b"",
        bytes.fromhex("0123456789abcdeffedcba9876543210"),
        decrypt=False,
    )
    triple = symmetric.crypt(
        TDES,
        ECB,
        bytes.fromhex("0123456789abcdef23456789abcdef01456789abcdef0123"),
        b"",
        bytes.fromhex("5468652071756663"),
        decrypt=False,
    )

    assert camellia[0].hex() == "67673138549669730857065648eabe43"
    assert triple[0].hex() == "a826fd8ce53b855f"


def test_cmac_gives_the_examples_of_sp_800_38b():
    assert symmetric.cmac(AES, KEY, b"").hex() == "bb1d6929e95937287fa37d129b756746"
    assert symmetric.cmac(AES, KEY, PLAIN[:16]).hex() == "070a16b46b4d4144f79bdd9dd04a287c"


def test_weak_keys_of_des_are_not_usable():
    good = bytes.fromhex("0123456789abcdef23456789abcdef01")

    assert symmetric.is_usable_key(TDES, good)
    assert not symmetric.is_usable_key(TDES, good[:8] * 2)
    assert not symmetric.is_usable_key(TDES, good + good[8:])
    assert not symmetric.is_usable_key(TDES, bytes(8) + good[8:])
    assert symmetric.is_usable_key(AES, bytes(16))
    assert symmetric.with_odd_parity(b"\x00\x01\xff\xfe") == b"\x01\x01\xfe\xfe"


def test_a_vector_of_a_wrong_size_is_our_own_mistake():
    with pytest.raises(SimBug):
        symmetric.crypt(AES, CBC, KEY, b"", PLAIN, decrypt=False)
    with pytest.raises(SimBug):
        symmetric.crypt(AES, CBC, KEY, IV, PLAIN[:-1], decrypt=False)


def test_rsa_keys_follow_from_their_material(key):
    rsa.generate_primes.cache_clear()

    assert rsa.generate_primes(b"material", 2048)[0] == key.p
    assert rsa.generate_primes(b"other", 1024)[0] != rsa.generate_primes(b"another", 1024)[0]
    assert key.n.bit_length() == 2048
    assert library_key(key).key_size == 2048  # the library checks primes and exponents


def test_an_rsa_key_respects_its_exponent():
    p, q = rsa.generate_primes(b"three", 1024, 3)
    key = rsa.rsa_key(p * q, 3, p)

    assert (
        rsa.private_operation(key, rsa.public_operation(key.n, 3, b"\x12" * 100)).lstrip(b"\0")
        == b"\x12" * 100
    )


@pytest.mark.parametrize("prime", [0, 1, 2, 3, 5, 35])
def test_a_prime_that_does_not_fit_the_modulus_gives_no_key(prime):
    assert rsa.rsa_key(35 * 2**1000 - 1, 65537, prime) is None
    assert rsa.rsa_key(35, 65537, 7) is not None


def test_signatures_of_rsa_satisfy_the_library(key):
    public = library_key(key).public_key()
    for alg in HASH_BYTES:
        digest = hash_bytes(alg, b"message")
        signature = rsa.private_operation(key, rsa.rsassa_encode(alg, digest, key.size))
        public.verify(signature, digest, padding.PKCS1v15(), Prehashed(LIBRARY[alg]))
        for salt in (b"", b"s" * HASH_BYTES[alg]):
            encoded = rsa.pss_encode(alg, digest, 2048, salt)
            signature = rsa.private_operation(key, encoded)
            scheme = padding.PSS(padding.MGF1(LIBRARY[alg]), len(salt))
            public.verify(signature, digest, scheme, Prehashed(LIBRARY[alg]))
            recovered = rsa.public_operation(key.n, key.e, signature)
            assert rsa.pss_fits(alg, digest, 2048, recovered)
            assert not rsa.pss_fits(alg, hash_bytes(alg, b"other"), 2048, recovered)
            assert not rsa.pss_fits(alg, digest, 2048, recovered[:-1] + b"\0")


def test_the_library_decrypts_what_was_padded_here_and_the_reverse(key):
    private, chance = library_key(key), Stream(b"chance")
    for alg in HASH_BYTES:
        oaep = padding.OAEP(padding.MGF1(LIBRARY[alg]), LIBRARY[alg], b"LABEL\0")
        padded = rsa.oaep_encode(alg, b"LABEL\0", b"data", key.size, chance)
        assert private.decrypt(rsa.public_operation(key.n, key.e, padded), oaep) == b"data"
        theirs = rsa.private_operation(key, private.public_key().encrypt(b"", oaep))
        assert rsa.oaep_decode(alg, b"LABEL\0", theirs) == b""
        assert rsa.oaep_decode(alg, b"OTHER\0", theirs) is None
    padded = rsa.pkcs1_encode(b"data", key.size, chance)
    assert private.decrypt(rsa.public_operation(key.n, key.e, padded), padding.PKCS1v15()) == b"data"
    theirs = rsa.private_operation(key, private.public_key().encrypt(b"x", padding.PKCS1v15()))
    assert rsa.pkcs1_decode(theirs) == b"x"
    assert rsa.pkcs1_decode(b"\0\2" + b"\1" * 7 + b"\0x") is None
    assert rsa.pkcs1_decode(b"\0\1" + b"\1" * 9 + b"\0x") is None


def test_what_does_not_fit_the_modulus_is_not_padded():
    chance = Stream(b"chance")

    assert rsa.pkcs1_encode(b"d" * 117, 128, chance) is not None
    assert rsa.pkcs1_encode(b"d" * 118, 128, chance) is None
    assert rsa.oaep_encode(SHA256, b"", b"d" * 62, 128, chance) is not None
    assert rsa.oaep_encode(SHA256, b"", b"d" * 63, 128, chance) is None
    assert rsa.rsassa_encode(SHA512, bytes(64), 93) is None
    assert rsa.pss_encode(SHA512, bytes(64), 1024, bytes(64)) is None


@pytest.mark.parametrize("curve", ecc.CURVES.values(), ids=lambda curve: hex(curve.curve_id))
def test_points_form_a_group_of_the_stated_order(curve):
    base = (curve.gx, curve.gy)
    double, triple = ecc.multiply(curve, 2, base), ecc.multiply(curve, 3, base)

    assert ecc.is_on_curve(curve, base)
    assert ecc.is_on_curve(curve, triple)
    assert not ecc.is_on_curve(curve, (curve.gx, curve.gy + 1))
    assert ecc.add(curve, base, base) == double
    assert ecc.add(curve, double, base) == triple
    assert ecc.add(curve, triple, ecc.negative(curve, triple)) is None
    assert ecc.add(curve, None, base) == ecc.add(curve, base, None) == base
    assert ecc.multiply(curve, curve.n - 1, base) == ecc.negative(curve, base)
    assert ecc.multiply(curve, curve.n, base) is None


@pytest.mark.parametrize("curve", ecc.CURVES.values(), ids=lambda curve: hex(curve.curve_id))
def test_a_signature_satisfies_its_key_and_no_other(curve):
    private = ecc.private_scalar(curve, b"\x5a" * (curve.size + 8))
    point = ecc.public_point(curve, private)
    for alg in (SHA1, SHA512):
        digest = hash_bytes(alg, b"message")
        r, s = ecc.sign_ecdsa(curve, private, alg, digest)
        assert ecc.verify_ecdsa(curve, point, digest, r, s)
        assert not ecc.verify_ecdsa(curve, point, hash_bytes(alg, b"other"), r, s)
        assert not ecc.verify_ecdsa(curve, ecc.public_point(curve, 2), digest, r, s)
        assert not ecc.verify_ecdsa(curve, point, digest, r, curve.n)


@pytest.mark.parametrize(
    "curve_id", [TPM_ECC.NIST_P192, TPM_ECC.NIST_P256, TPM_ECC.NIST_P384, TPM_ECC.NIST_P521]
)
def test_own_arithmetic_agrees_with_the_library(curve_id):
    curve = ecc.CURVES[curve_id]
    digest = hash_bytes(SHA256, b"sample")
    nonce = ecc.nonce_rfc6979(curve, 12345, SHA256, digest)
    base = (curve.gx, curve.gy)
    r, s = ecc.sign_ecdsa(curve, 12345, SHA256, digest)

    assert ecc.multiply(curve, 12345, base) == ecc.public_point(curve, 12345)
    assert ecc.multiply(curve, nonce, base)[0] % curve.n == r
    assert ecc.verify_ecdsa(curve, ecc.public_point(curve, 12345), digest + b"", r, s)


def test_p256_signs_the_example_of_rfc_6979():
    curve = ecc.CURVES[TPM_ECC.NIST_P256]
    private = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    digest = hash_bytes(SHA256, b"sample")

    assert ecc.nonce_rfc6979(curve, private, SHA256, digest) == int(
        "A6E3C57DD01ABE90086538398355DD4C3B17AA873382B0F24D6129493D8AAD60", 16
    )
    assert ecc.sign_ecdsa(curve, private, SHA256, digest)[0] == int(
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", 16
    )


def test_the_library_accepts_a_signature_with_the_digest_of_another_length():
    curve = ecc.CURVES[TPM_ECC.NIST_P256]
    digest = hash_bytes(SHA384, b"m")
    r, s = ecc.sign_ecdsa(curve, 7, SHA384, digest)
    public = ec.derive_private_key(7, ec.SECP256R1()).public_key()

    public.verify(encode_dss_signature(r, s), b"m", ec.ECDSA(hashes.SHA384()))
    assert not ecc.verify_ecdsa(curve, (1, 1), digest, r, s)
    assert ecc.verify_ecdsa(curve, ecc.public_point(curve, 7), digest[:33], r, s) is True


@pytest.mark.parametrize("curve", ecc.CURVES.values(), ids=lambda curve: hex(curve.curve_id))
def test_what_two_keys_share_is_what_own_arithmetic_finds(curve):
    private, other = (ecc.private_scalar(curve, fill * (curve.size + 8)) for fill in (b"\x5a", b"\x2b"))
    point = ecc.public_point(curve, other)
    off_curve = (point[0], point[1] ^ 1)

    assert ecc.shared_x(curve, private, point) == ecc.multiply(curve, private, point)[0]
    assert ecc.shared_x(curve, private, point) == ecc.shared_x(curve, other, ecc.public_point(curve, private))
    assert ecc.shared_x(curve, private + curve.n, point) == ecc.shared_x(curve, private, point)
    assert ecc.shared_x(curve, 3, off_curve) == ecc.multiply(curve, 3, off_curve)[0]
    assert ecc.shared_x(curve, curve.n, point) is None
