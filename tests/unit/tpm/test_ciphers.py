"""Digests, codes, sequences and block ciphers in the TPM, against the same outside it."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH
from sim.tpm.tables import COMMANDS

from .keyring import DECRYPT, NULL, SECRET, SIGN, Keyring, cipher_key, ecc_key, hmac_key

PIECES = (b"first", b"x" * 1024, b"y" * 1024, b"", b"z" * 1000)
WHOLE = b"".join(PIECES) + b"end"
NO_HIERARCHY = TPM_RH.NULL.value
IV = bytes(range(16))


@pytest.fixture
def ring(tpm):
    return Keyring(tpm)


def aes_cmac(data):
    made = CMAC(algorithms.AES(SECRET))
    made.update(data)
    return made.finalize()


@pytest.mark.parametrize(
    ("key", "asked", "expected"),
    [
        (hmac_key(), NULL, hmac.digest(SECRET, WHOLE, "sha256")),
        (hmac_key(SIGN | DECRYPT, None), TPM_ALG.SHA384, hmac.digest(SECRET, WHOLE, "sha384")),
        (cipher_key(), TPM_ALG.CMAC, aes_cmac(WHOLE)),
    ],
)
def test_a_code_is_the_same_in_a_sequence_and_at_once(ring, key, asked, expected):
    handle = ring.load(key)
    (sequence,) = ring.call(TPM_CC.HMAC_Start, (handle,), b"", int(asked))
    for piece in PIECES:
        ring.call(TPM_CC.SequenceUpdate, (sequence,), piece)
    code, ticket = ring.call(TPM_CC.SequenceComplete, (sequence,), b"end", NO_HIERARCHY)

    assert code == expected
    assert ticket.digest == b""
    if len(expected) == 16:
        for size in (0, 1, 16, 32, 33):
            assert ring.call(TPM_CC.HMAC, (handle,), b"m" * size, int(asked)) == (aes_cmac(b"m" * size),)


@pytest.mark.parametrize(
    ("key", "asked", "rc"),
    [
        (ecc_key(SIGN), TPM_ALG.SHA256, 0x18A),
        (hmac_key(0, None), TPM_ALG.SHA256, 0x19C),
        (hmac_key(SIGN | DECRYPT, None), TPM_ALG.NULL, 0x2C4),
        (hmac_key(), TPM_ALG.SHA1, 0x2C4),
        (cipher_key(mode=TPM_ALG.CFB), TPM_ALG.CMAC, 0x2C4),
        (cipher_key(mode=TPM_ALG.CFB), TPM_ALG.NULL, 0x2D2),
    ],
)
def test_a_key_that_makes_no_code_is_refused(ring, key, asked, rc):
    handle = ring.load(key)
    for code, first in ((TPM_CC.HMAC, b"data"), (TPM_CC.HMAC_Start, b"")):
        assert ring.refused(code, (handle,), first, int(asked)) == rc


@pytest.mark.parametrize("hash_alg", [TPM_ALG.SHA1, TPM_ALG.SHA256, TPM_ALG.SHA384, TPM_ALG.SHA512])
def test_a_hash_sequence_survives_its_context(ring, hash_alg):
    (sequence,) = ring.call(TPM_CC.HashSequenceStart, (), b"", int(hash_alg))
    for piece in PIECES:
        ring.call(TPM_CC.SequenceUpdate, (sequence,), piece)
        (context,) = ring.call(TPM_CC.ContextSave, (sequence,))
        ring.call(TPM_CC.FlushContext, (), sequence)
        (sequence,) = ring.call(TPM_CC.ContextLoad, (), context)
    digest, ticket = ring.call(TPM_CC.SequenceComplete, (sequence,), b"end", TPM_RH.OWNER.value)

    assert digest == hashlib.new(hash_alg.name, WHOLE).digest()
    assert ticket.hierarchy == TPM_RH.OWNER
    assert not ring.tpm.objects


@pytest.mark.parametrize("first", [b"abc", b"\xff\x54\x43\x47 forged"])
def test_a_sequence_that_may_begin_like_an_attestation_gets_no_ticket(ring, first):
    (sequence,) = ring.call(TPM_CC.HashSequenceStart, (), b"", TPM_ALG.SHA256.value)
    ring.call(TPM_CC.SequenceUpdate, (sequence,), first)
    _, ticket = ring.call(TPM_CC.SequenceComplete, (sequence,), b"more", TPM_RH.OWNER.value)

    assert (ticket.hierarchy, ticket.digest) == (TPM_RH.NULL, b"")


def test_an_event_sequence_extends_every_bank(ring):
    (sequence,) = ring.call(TPM_CC.HashSequenceStart, (), b"", NULL)
    for piece in PIECES:
        ring.call(TPM_CC.SequenceUpdate, (sequence,), piece)
    assert ring.refused(TPM_CC.SequenceComplete, (sequence,), b"", NO_HIERARCHY) == 0x189
    assert ring.refused(TPM_CC.EventSequenceComplete, (17, sequence), b"end") == TPM_RC.LOCALITY
    (digests,) = ring.call(TPM_CC.EventSequenceComplete, (16, sequence), b"end")

    for each in digests:
        name = TPM_ALG(each.hashAlg).name
        assert each.digest == hashlib.new(name, WHOLE).digest()
        extended = hashlib.new(name, bytes(len(each.digest)) + each.digest).digest()
        assert ring.tpm.pcrs.values[each.hashAlg][16] == extended
    assert not ring.tpm.objects


def test_an_event_without_a_pcr_is_only_hashed(ring):
    (sequence,) = ring.call(TPM_CC.HashSequenceStart, (), b"", NULL)
    before = ring.tpm.pcrs.update_counter
    ring.call(TPM_CC.EventSequenceComplete, (TPM_RH.NULL, sequence), b"event")
    assert ring.tpm.pcrs.update_counter == before


def test_only_sequences_are_continued(ring):
    handle = ring.load(hmac_key())
    assert ring.refused(TPM_CC.SequenceUpdate, (handle,), b"data") == 0x1C9
    assert ring.refused(TPM_CC.SequenceComplete, (handle,), b"data", NO_HIERARCHY) == 0x189
    assert ring.refused(TPM_CC.EventSequenceComplete, (16, handle), b"data") == 0x289


def test_sequences_take_slots(ring):
    for _ in range(3):
        ring.call(TPM_CC.HashSequenceStart, (), b"", TPM_ALG.SHA256.value)
    assert ring.refused(TPM_CC.HashSequenceStart, (), b"", NULL) == TPM_RC.OBJECT_MEMORY


MODES = {
    TPM_ALG.CTR: lambda: modes.CTR(IV),
    TPM_ALG.CBC: lambda: modes.CBC(IV),
    TPM_ALG.ECB: modes.ECB,
}


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("code", [TPM_CC.EncryptDecrypt, TPM_CC.EncryptDecrypt2])
def test_a_cipher_encrypts_piece_by_piece_as_at_once(ring, mode, code):
    handle = ring.load(cipher_key())
    iv = b"" if mode is TPM_ALG.ECB else IV
    encrypted, vector = b"", iv
    for piece in (b"a" * 32, b"b" * 16, b"c" * 48):
        parameters = (
            (0, int(mode), vector, piece) if code is TPM_CC.EncryptDecrypt else (piece, 0, int(mode), vector)
        )
        made, vector = ring.call(code, (handle,), *parameters)
        encrypted += made
    outside = Cipher(algorithms.AES(SECRET), MODES[mode]()).encryptor()

    assert encrypted == outside.update(b"a" * 32 + b"b" * 16 + b"c" * 48)
    assert len(COMMANDS[code].parameters) == 4


@pytest.mark.parametrize("mode", [TPM_ALG.CFB, TPM_ALG.OFB, TPM_ALG.CTR, TPM_ALG.CBC, TPM_ALG.ECB])
def test_what_is_encrypted_is_decrypted(ring, mode):
    handle = ring.load(cipher_key(mode=mode))
    iv = b"" if mode is TPM_ALG.ECB else IV
    encrypted, _ = ring.call(TPM_CC.EncryptDecrypt2, (handle,), b"p" * 32, 0, NULL, iv)
    assert encrypted != b"p" * 32
    assert ring.call(TPM_CC.EncryptDecrypt2, (handle,), encrypted, 1, int(mode), iv)[0] == b"p" * 32


@pytest.mark.parametrize(
    ("key", "parameters", "rc"),
    [
        (hmac_key(), (b"", 0, TPM_ALG.CFB, IV), 0x19C),
        (cipher_key(SIGN), (b"", 1, TPM_ALG.CFB, IV), 0x182),
        (cipher_key(DECRYPT), (b"", 0, TPM_ALG.CFB, IV), 0x182),
        (cipher_key(), (b"", 0, NULL, IV), 0x3C9),
        (cipher_key(mode=TPM_ALG.CFB), (b"", 0, TPM_ALG.OFB, IV), 0x3C9),
        (cipher_key(), (b"", 0, TPM_ALG.CFB, b""), 0x4D5),
        (cipher_key(), (b"", 0, TPM_ALG.ECB, IV), 0x4D5),
        (cipher_key(), (b"x" * 15, 0, TPM_ALG.CBC, IV), 0x1D5),
    ],
)
def test_what_a_cipher_cannot_do_is_refused(ring, key, parameters, rc):
    handle = ring.load(key)
    data, decrypt, mode, iv = parameters
    assert ring.refused(TPM_CC.EncryptDecrypt2, (handle,), data, decrypt, int(mode), iv) == rc
