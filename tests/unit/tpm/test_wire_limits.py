"""Interface types accept exactly the values of the library, in numbers written from part 2, and refuse all others."""

import pytest

from sim.tpm.codec import WireError
from sim.tpm.wire import asymmetric, attest, basic, capability, nv, private, public, session, tickets

ANY_HASH = {0x04, 0x0B, 0x0C, 0x0D}
ANY_HASH_OR_NULL = ANY_HASH | {0x10}
HIERARCHIES = {0x40000001, 0x40000007, 0x4000000B, 0x4000000C}
MODES = {0x10, 0x40, 0x41, 0x42, 0x43, 0x44}
SIGNING = {0x14, 0x16, 0x05, 0x18, 0x1A, 0x1B, 0x1C}
SESSIONS = {kind + slot for kind in (0x02000000, 0x03000000) for slot in range(64)}
VALUE, HASH, SCHEME, SYMMETRIC, MODE, TYPE = 0x84, 0x83, 0x92, 0x96, 0x89, 0x8A
CURVE, KDF, SELECTOR, SIZE, TAG, RESERVED = 0xA6, 0x8C, 0x98, 0x95, 0x97, 0xA1
INSUFFICIENT = 0x9A

NUMBERS = {
    "yes or no": (basic.TPMI_YES_NO, 1, {0, 1}, VALUE),
    "hash": (basic.TPMI_ALG_HASH, 2, ANY_HASH, HASH),
    "hash or null": (basic.TPMI_ALG_HASH_OR_NULL, 2, ANY_HASH_OR_NULL, HASH),
    "hierarchy": (basic.TPMI_RH_HIERARCHY, 4, HIERARCHIES, VALUE),
    "object type": (public.TPMI_ALG_PUBLIC, 2, {0x01, 0x08, 0x23, 0x25}, TYPE),
    "cipher": (public.TPMI_ALG_SYM_OBJECT, 2, {0x03, 0x06, 0x26, 0x10}, SYMMETRIC),
    "mode": (public.TPMI_ALG_SYM_MODE, 2, MODES | {0x3F}, MODE),
    "mode that encrypts": (public.TPMI_ALG_CIPHER_MODE, 2, MODES, MODE),
    "AES bits": (public.TPMI_AES_KEY_BITS, 2, {128, 256}, VALUE),
    "Camellia bits": (public.TPMI_CAMELLIA_KEY_BITS, 2, {128, 256}, VALUE),
    "TDES bits": (public.TPMI_TDES_KEY_BITS, 2, {128, 192}, VALUE),
    "RSA bits": (public.TPMI_RSA_KEY_BITS, 2, {1024, 2048, 3072}, VALUE),
    "curve": (public.TPMI_ECC_CURVE, 2, {1, 2, 3, 4, 5, 0x10, 0x11, 0x20}, CURVE),
    "ECC scheme": (public.TPMI_ALG_ECC_SCHEME, 2, {0x18, 0x1A, 0x1B, 0x1C, 0x19, 0x1D, 0x10}, SCHEME),
    "RSA scheme": (public.TPMI_ALG_RSA_SCHEME, 2, {0x14, 0x16, 0x15, 0x17, 0x10}, VALUE),
    "signature scheme": (public.TPMI_ALG_SIG_SCHEME, 2, SIGNING | {0x10}, SCHEME),
    "given signature": (public.TPMI_ALG_SIG_SCHEME_GIVEN, 2, SIGNING, SCHEME),
    "keyed hash scheme": (public.TPMI_ALG_KEYEDHASH_SCHEME, 2, {0x05, 0x0A, 0x10}, VALUE),
    "KDF": (public.TPMI_ALG_KDF, 2, {0x07, 0x20, 0x21, 0x22, 0x10}, KDF),
    "key exchange": (asymmetric.TPMI_ECC_KEY_EXCHANGE, 2, {0x19, 0x1B, 0x1D}, SCHEME),
    "attestation": (attest.TPMI_ST_ATTEST, 2, {*range(0x8014, 0x801B), 0x801C}, SELECTOR),
    "session type": (session.TPM_SE_CODEC, 1, {0, 1, 3}, VALUE),
    "comparison": (session.TPM_EO_CODEC, 2, set(range(12)), VALUE),
    "saved handle": (private.TPMI_DH_SAVED, 4, SESSIONS | {0x80000000, 0x80000001, 0x80000002}, VALUE),
    "code scheme": (tickets.TPMI_ALG_MAC_SCHEME, 2, ANY_HASH_OR_NULL | {0x3F}, SYMMETRIC),
}


def code_of(codec, data):
    with pytest.raises(WireError) as caught:
        codec.decode(data, 0, len(data))
    return caught.value.rc


def outcome(decode, *arguments):
    """What is read, or the code of the refusal."""
    try:
        return decode(*arguments)
    except WireError as refused:
        return refused.rc


def tried(width, allowed):
    """All small numbers, those of structure tags, the largest, and the neighbours of what is allowed."""
    near = {each + step for each in allowed for step in (-1, 0, 1)}
    numbers = {*range(0x150), *range(0x7FF0, 0x8030), *near, 3072, 4096, 256**width - 1}
    return sorted(each for each in numbers if 0 <= each < 256**width)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_accepted_if_the_library_lists_it_and_refused_with_its_code_otherwise(name):
    codec, width, allowed, rc = NUMBERS[name]
    accepted = set()
    for number in tried(width, allowed):
        data = number.to_bytes(width, "big")
        read = outcome(codec.decode, data, 0, width)
        assert read in ((number, width), rc)
        if read != rc:
            assert codec.encode(number) == data
            accepted.add(number)

    assert accepted == allowed


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_cut_short_is_insufficient(name):
    codec, width, _, _ = NUMBERS[name]

    assert code_of(codec, bytes(width - 1)) == INSUFFICIENT


@pytest.mark.parametrize(
    ("codec", "width"), [(basic.UINT8, 1), (basic.UINT16, 2), (basic.UINT32, 4), (basic.UINT64, 8)]
)
def test_a_plain_integer_has_its_width_and_any_value(codec, width):
    for number in (0, 1, 256**width - 1):
        assert codec.decode(number.to_bytes(width, "big"), 0, width) == (number, width)
        assert codec.encode(number) == number.to_bytes(width, "big")


def test_a_locality_set_is_one_byte_of_any_value():
    assert [session.TPMA_LOCALITY.decode(bytes([each]), 0, 1)[0] for each in range(256)] == list(range(256))


def test_an_nv_handle_is_any_of_the_nv_range():
    for handle in (0x01000000, 0x01FFFFFF):
        assert nv.TPMI_RH_NV_INDEX.decode(handle.to_bytes(4, "big"), 0, 4) == (handle, 4)
    for handle in (0x00FFFFFF, 0x02000000):
        assert code_of(nv.TPMI_RH_NV_INDEX, handle.to_bytes(4, "big")) == VALUE


BUFFERS = {
    "digest": (basic.TPM2B_DIGEST, 64),
    "auth": (basic.TPM2B_AUTH, 64),
    "data": (basic.TPM2B_DATA, 66),
    "name": (basic.TPM2B_NAME, 66),
    "event": (basic.TPM2B_EVENT, 1024),
    "buffer": (basic.TPM2B_MAX_BUFFER, 1024),
    "NV buffer": (basic.TPM2B_MAX_NV_BUFFER, 1024),
    "sensitive data": (basic.TPM2B_SENSITIVE_DATA, 128),
    "ECC parameter": (basic.TPM2B_ECC_PARAMETER, 80),
    "RSA key": (basic.TPM2B_PUBLIC_KEY_RSA, 384),
    "nonce": (session.TPM2B_NONCE, 64),
    "operand": (session.TPM2B_OPERAND, 64),
    "timeout": (session.TPM2B_TIMEOUT, 8),
    "attest": (attest.TPM2B_ATTEST, 2048),
    "private": (private.TPM2B_PRIVATE, 1230),
    "secret": (private.TPM2B_ENCRYPTED_SECRET, 384),
    "credential": (private.TPM2B_ID_OBJECT, 132),
    "context": (private.TPM2B_CONTEXT_DATA, 2748),
    "template": (private.TPM2B_TEMPLATE, 484),
    "label": (private.TPM2B_LABEL, 32),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_holds_its_limit_and_not_a_byte_more(name):
    codec, most = BUFFERS[name]
    for size in (0, 1, most):
        data = size.to_bytes(2, "big") + b"\x5a" * size
        assert codec.decode(data, 0, len(data)) == (b"\x5a" * size, size + 2)
        assert codec.encode(b"\x5a" * size) == data
    assert code_of(codec, (most + 1).to_bytes(2, "big") + bytes(most + 1)) == SIZE
    with pytest.raises(WireError) as caught:
        codec.encode(bytes(most + 1))
    assert caught.value.rc == SIZE
    assert code_of(codec, b"\0\2\0") == INSUFFICIENT
    assert code_of(codec, b"\0") == INSUFFICIENT


LISTS = {
    "digests": (basic.TPML_DIGEST, 8, "0001aa"),
    "digest values": (basic.TPML_DIGEST_VALUES, 4, "0004" + "aa" * 20),
    "PCR selections": (basic.TPML_PCR_SELECTION, 4, "000b03010203"),
    "command codes": (session.TPML_CC, 254, "00000144"),
    "alternatives": (session.TPML_OR_DIGESTS, 8, "0001aa"),
    "algorithms": (capability.TPMU_CAPABILITIES[0], 169, "000600000002"),
    "handles": (capability.TPMU_CAPABILITIES[1], 254, "80000000"),
    "commands": (capability.TPMU_CAPABILITIES[2], 254, "00000144"),
    "presence commands": (capability.TPMU_CAPABILITIES[3], 254, "0000012d"),
    "audit commands": (capability.TPMU_CAPABILITIES[4], 254, "00000140"),
    "banks": (capability.TPMU_CAPABILITIES[5], 4, "000b03ffffff"),
    "properties": (capability.TPMU_CAPABILITIES[6], 127, "0000010000000001"),
    "PCR properties": (capability.TPMU_CAPABILITIES[7], 127, "0000000003ffffff"),
    "curves": (capability.TPMU_CAPABILITIES[8], 508, "0003"),
    "policies": (capability.TPMU_CAPABILITIES[9], 14, "400000010010"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_holds_its_limit_and_not_an_entry_more(name):
    codec, most, entry = LISTS[name]
    for count in (0, 1, 2, most):
        data = count.to_bytes(4, "big") + bytes.fromhex(entry) * count
        values, after = codec.decode(data, 0, len(data))
        assert len(values) == count
        assert len(set(values)) <= 1
        assert after == len(data)
        assert codec.encode(values) == data
    more = (most + 1).to_bytes(4, "big") + bytes.fromhex(entry) * (most + 1)
    assert code_of(codec, more) == SIZE
    with pytest.raises(WireError) as caught:
        codec.encode(values + values[:1])
    assert caught.value.rc == SIZE


def test_the_capabilities_are_those_of_the_library():
    assert sorted(capability.TPMU_CAPABILITIES) == list(range(10))


@pytest.mark.parametrize(
    ("structure", "before", "after", "reserved"),
    [
        (public.TPMT_PUBLIC, "0008000b", "0000" + "0010" + "0000", 0xFFF0F309),
        (nv.TPMS_NV_PUBLIC, "01000001000b", "0000" + "0008", 0x01F00300),
    ],
)
def test_each_reserved_attribute_is_refused_and_each_other_is_read(structure, before, after, reserved):
    for bit in range(32):
        data = bytes.fromhex(before) + (1 << bit).to_bytes(4, "big") + bytes.fromhex(after)
        if reserved >> bit & 1:
            with pytest.raises(WireError) as caught:
                structure.decode(data)
            assert caught.value.rc == RESERVED
        else:
            assert structure.decode(data).encode() == data


def test_each_reserved_attribute_of_a_session_is_refused():
    for bit in range(8):
        data = bytes.fromhex("400000090000") + bytes([1 << bit]) + b"\0\0"
        if 1 << bit & 0x18:
            with pytest.raises(WireError) as caught:
                basic.TPMS_AUTH_COMMAND.decode(data)
            assert caught.value.rc == RESERVED
        else:
            assert basic.TPMS_AUTH_COMMAND.decode(data).sessionAttributes == 1 << bit


def test_a_session_handle_is_the_password_or_one_of_64_of_each_type():
    allowed = SESSIONS | {0x40000009}
    for handle in {each + step for each in allowed for step in (-1, 0, 1)}:
        read = outcome(basic.TPMS_AUTH_COMMAND.decode, handle.to_bytes(4, "big") + bytes(5))
        assert (read == VALUE) == (handle not in allowed)


def test_an_index_has_at_most_2048_bytes():
    head = bytes.fromhex("01000001" + "000b" + "00000000" + "0000")

    assert nv.TPMS_NV_PUBLIC.decode(head + b"\x08\x00").dataSize == 2048
    with pytest.raises(WireError) as caught:
        nv.TPMS_NV_PUBLIC.decode(head + b"\x08\x01")
    assert caught.value.rc == SIZE


@pytest.mark.parametrize(
    ("structure", "encoded", "rc"),
    [
        (public.TPMT_TK_CREATION, "8022" + "40000007" + "0000", TAG),
        (session.TPMT_TK_AUTH, "8022" + "40000007" + "0000", TAG),
        (session.TPMT_TK_AUTH, "8023" + "40000009" + "0000", VALUE),
        (session.TPMT_TK_VERIFIED, "8021" + "40000007" + "0000", TAG),
        (session.TPMT_TK_VERIFIED, "8022" + "4000000a" + "0000", VALUE),
        (tickets.TPMT_TK_HASHCHECK, "8025" + "40000007" + "0000", TAG),
        (session.TPMT_SYM_DEF, "0025", SYMMETRIC),
        (session.TPMT_SYM_DEF, "0006" + "00c0" + "0043", VALUE),
        (session.TPMT_SYM_DEF, "0026" + "00c0" + "0043", VALUE),
        (session.TPMT_SYM_DEF, "0003" + "0100" + "0043", VALUE),
        (session.TPMT_SYM_DEF, "0006" + "0080" + "0045", MODE),
        (session.TPMT_SYM_DEF, "000a" + "0010", HASH),
        (basic.TPMS_PCR_SELECTION, "0010" + "03000000", HASH),
        (basic.TPMS_PCR_SELECTION, "000b" + "020000", VALUE),
        (basic.TPMS_CLOCK_INFO, "00" * 16 + "02", VALUE),
        (attest.TPMS_SESSION_AUDIT_INFO, "02" + "0000", VALUE),
        (capability.TPMS_CAPABILITY_DATA, "0000000a", SELECTOR),
    ],
)
def test_a_structure_with_a_wrong_field_is_refused_with_the_code_of_the_field(structure, encoded, rc):
    with pytest.raises(WireError) as caught:
        structure.decode(bytes.fromhex(encoded))

    assert caught.value.rc == rc


TAGS = {0x00C4, 0x8000, 0x8001, 0x8002, *range(0x8014, 0x801B), *range(0x8021, 0x8026)}


@pytest.mark.parametrize(
    ("structure", "own"),
    [
        (public.TPMT_TK_CREATION, {0x8021}),
        (session.TPMT_TK_VERIFIED, {0x8022}),
        (session.TPMT_TK_AUTH, {0x8023, 0x8025}),
        (tickets.TPMT_TK_HASHCHECK, {0x8024}),
    ],
)
def test_a_ticket_of_another_kind_has_a_wrong_tag_and_what_is_no_tag_a_wrong_value(structure, own):
    """As measured on swtpm 0.7.1."""
    for tag in tried(2, TAGS):
        data = tag.to_bytes(2, "big") + bytes.fromhex("400000070000")
        if tag in own:
            assert structure.decode(data).tag == tag
            continue
        with pytest.raises(WireError) as caught:
            structure.decode(data)
        assert caught.value.rc == (TAG if tag in TAGS else VALUE), hex(tag)
