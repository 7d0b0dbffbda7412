"""Structures encode to the bytes that other TPMs send, and refuse everything else with the TPM's own code."""

import pickle

import pytest

from sim.errors import FormatError
from sim.tpm.codec import codec_of, variant
from sim.tpm.constants import TPM_ALG, TPM_RC, TPM_ST, rc_name
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMS_ATTEST,
    TPMS_AUTH_COMMAND,
    TPMS_CLOCK_INFO,
    TPMS_PCR_SELECTION,
    TPMS_QUOTE_INFO,
    TPMT_HA,
    TPMT_PUBLIC,
    TPMT_SIGNATURE,
    WireError,
)

# The public area of an attestation key as swtpm 0.7.1 returned it.
AK_PUBLIC = bytes.fromhex(
    "0023000b00050072000000100018000b00030010"
    "00207d2cc27d82aaa161611a71be7650df5f3fa5d42c0d531dab912c09beca8e6ee4"
    "002036dbdc904c0ef4cc1723ef5bf24b4d9a7fa1694278ec2cb3e777ee502001b5d4"
)


def test_a_public_area_of_another_tpm_decodes_and_encodes_to_the_same_bytes():
    public = TPMT_PUBLIC.decode(AK_PUBLIC)

    assert public.type == TPM_ALG.ECC
    assert public.objectAttributes == 0x00050072
    assert public.parameters.scheme.details.hashAlg == TPM_ALG.SHA256
    assert public.unique.x.hex().startswith("7d2cc27d")
    assert public.encode() == AK_PUBLIC


def test_an_rsa_public_area_decodes_although_the_device_makes_none():
    encoded = bytes.fromhex("0001000b00050072000000100014000b080000000000") + b"\x01\x00" + bytes(256)

    public = TPMT_PUBLIC.decode(encoded)

    assert public.parameters.keyBits == 2048
    assert len(public.unique) == 256
    assert public.encode() == encoded


def test_a_pcr_selection_is_a_bit_map_with_pcr_0_in_the_lowest_bit():
    selection = TPMS_PCR_SELECTION.of(TPM_ALG.SHA256, (0, 7, 8, 23))

    assert selection.encode() == bytes.fromhex("000b03810180")
    assert TPMS_PCR_SELECTION.decode(selection.encode()).pcrs == (0, 7, 8, 23)


def test_every_proper_prefix_of_a_structure_is_refused():
    for length in range(len(AK_PUBLIC)):
        with pytest.raises(WireError):
            TPMT_PUBLIC.decode(AK_PUBLIC[:length])


def test_bytes_behind_a_structure_are_refused_with_size():
    with pytest.raises(WireError) as caught:
        TPMT_PUBLIC.decode(AK_PUBLIC + b"\0")

    assert caught.value.rc == TPM_RC.SIZE
    assert isinstance(caught.value, FormatError)


@pytest.mark.parametrize(
    ("codec", "encoded", "rc"),
    [
        (TPML_DIGEST_VALUES, "00000005", TPM_RC.SIZE),
        (TPML_DIGEST_VALUES, "000000010012", TPM_RC.HASH),
        (TPML_DIGEST_VALUES, "00000001000b00", TPM_RC.INSUFFICIENT),
        (TPML_DIGEST_VALUES, "0000", TPM_RC.INSUFFICIENT),
        (TPML_PCR_SELECTION, "00000001000b02", TPM_RC.VALUE),
        (TPML_PCR_SELECTION, "00000001000b04", TPM_RC.VALUE),
        (TPM2B_PUBLIC, "0000", TPM_RC.SIZE),
        (TPM2B_PUBLIC, "00020099", TPM_RC.TYPE),
        (TPM2B_PUBLIC, "000400230010", TPM_RC.HASH),
        (TPM2B_PUBLIC, "00080023000b00850072", TPM_RC.RESERVED_BITS),
    ],
)
def test_each_way_of_being_wrong_has_the_code_of_the_library(codec, encoded, rc):
    data = bytes.fromhex(encoded)

    with pytest.raises(WireError) as caught:
        codec.decode(data, 0, len(data))

    assert caught.value.rc == rc


def test_a_sized_structure_must_have_exactly_its_size():
    for wrong in (len(AK_PUBLIC) - 1, len(AK_PUBLIC) + 1):
        data = wrong.to_bytes(2, "big") + AK_PUBLIC + b"\0\0"
        with pytest.raises(WireError) as caught:
            TPM2B_PUBLIC.decode(data, 0, len(data))
        assert caught.value.rc == TPM_RC.SIZE


def test_a_value_that_does_not_fit_its_field_is_not_encoded():
    with pytest.raises(WireError):
        TPMT_HA(hashAlg=TPM_ALG.SHA256, digest=b"short").encode()
    with pytest.raises(WireError):
        TPMS_AUTH_COMMAND(sessionHandle=0x40000009, nonce=b"", sessionAttributes=0, hmac=bytes(65)).encode()


def test_a_digest_is_read_and_written_as_by_the_general_codec():
    general, short = variant(TPMT_HA), codec_of(TPMT_HA)
    assert type(general) is not type(short)
    for alg in (4, 11, 12, 13, 0x12, 0x10, 0):
        data = alg.to_bytes(2, "big") + bytes(range(64))
        for end in (*range(4), *range(20, len(data) + 1)):
            assert outcome(short.decode, data, 0, end) == outcome(general.decode, data, 0, end)
        for size in (0, 19, 20, 32, 48, 64, 65):
            value = TPMT_HA(hashAlg=alg, digest=bytes(size))
            assert outcome(short.encode, value) == outcome(general.encode, value)


def test_a_list_of_digests_is_read_again_when_its_bytes_may_have_changed():
    whole = TPML_DIGEST_VALUES.encode((TPMT_HA(hashAlg=TPM_ALG.SHA1, digest=bytes(20)),))
    first = TPML_DIGEST_VALUES.decode(whole, 0, len(whole))
    assert TPML_DIGEST_VALUES.decode(whole, 0, len(whole)) == first
    assert TPML_DIGEST_VALUES.decode(b"\0\0\0\0", 0, 4) == ((), 4)
    with pytest.raises(WireError):
        TPML_DIGEST_VALUES.decode(whole, 0, len(whole) - 1)

    buffer = bytearray(whole)
    TPML_DIGEST_VALUES.decode(buffer, 0, len(buffer))
    buffer[-1] = 1
    assert TPML_DIGEST_VALUES.decode(buffer, 0, len(buffer))[0][0].digest == bytes(19) + b"\1"


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except WireError as error:
        return error.rc, error.message


def test_an_attestation_survives_encoding_whatever_its_magic():
    attest = TPMS_ATTEST(
        magic=0x12345678,
        type=TPM_ST.ATTEST_QUOTE,
        qualifiedSigner=b"\x00\x0b" + bytes(32),
        extraData=b"nonce",
        clockInfo=TPMS_CLOCK_INFO(clock=2**40, resetCount=3, restartCount=1, safe=1),
        firmwareVersion=7,
        attested=TPMS_QUOTE_INFO(pcrSelect=(TPMS_PCR_SELECTION.of(TPM_ALG.SHA1, (1,)),), pcrDigest=bytes(32)),
    )

    assert TPMS_ATTEST.decode(attest.encode()) == attest


def test_an_attestation_of_another_kind_is_told_apart():
    certify = bytes.fromhex("ff5443478017" + "0000" + "0000" + "00" * 17 + "00" * 8 + "0000" + "0000")

    assert TPMS_ATTEST.decode(certify).type == TPM_ST.ATTEST_CERTIFY


def test_an_unknown_signature_algorithm_is_refused():
    with pytest.raises(WireError) as caught:
        TPMT_SIGNATURE.decode(bytes.fromhex("0099000b"))

    assert caught.value.rc == TPM_RC.SCHEME


def test_structures_and_errors_pickle():
    public = TPMT_PUBLIC.decode(AK_PUBLIC)
    error = WireError(TPM_RC.SIZE, "too long")

    assert pickle.loads(pickle.dumps(public)) == public
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("rc", "words"),
    [
        (0x000, "SUCCESS (0x000)"),
        (0x18B, "HANDLE (handle 1, 0x18b)"),
        (0x2D5, "SIZE (parameter 2, 0x2d5)"),
        (0x9A2, "BAD_AUTH (session 1, 0x9a2)"),
        (0x084, "VALUE (0x084)"),
        (0x907, "LOCALITY (0x907)"),
        (0x170, "0x170"),
    ],
)
def test_response_codes_are_put_in_words(rc, words):
    assert rc_name(rc) == words
