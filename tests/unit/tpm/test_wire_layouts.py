"""Every structure has the fields of part 2 of the library, in its order and sizes: bytes and values written by hand."""

import attrs
import pytest

from sim.tpm.codec import Structure, WireError
from sim.tpm.wire import asymmetric, attest, basic, capability, nv, private, public, session, tickets

NAME = "0022000b" + "11" * 32
NAME_VALUE = bytes.fromhex(NAME[4:])
CLOCK = "0000000000000102" + "00000003" + "00000004" + "01"
CLOCK_VALUE = {"clock": 0x102, "resetCount": 3, "restartCount": 4, "safe": 1}
HEAD = "ff544347{:04x}" + NAME + "0003616263" + CLOCK + "00010002000300ff"
POINT = "0002aabb" + "0001cc"
POINT_VALUE = {"x": b"\xaa\xbb", "y": b"\xcc"}
SELECTION = "00000001" + "000b03010080"
SELECTION_VALUE = ({"hash": 0x0B, "pcrSelect": b"\x01\0\x80"},)
NOTHING = {"algorithm": 0x10, "keyBits": None, "mode": None}
ECC_PARMS = "0010" + "0018000b" + "0003" + "0010"
ECC_PARMS_VALUE = {
    "symmetric": NOTHING,
    "scheme": {"scheme": 0x18, "details": {"hashAlg": 0x0B}},
    "curveID": 3,
    "kdf": {"scheme": 0x10, "details": None},
}
RSA_PARMS = "000600800043" + "0010" + "0800" + "00010001"
RSA_PARMS_VALUE = {
    "symmetric": {"algorithm": 6, "keyBits": 128, "mode": 0x43},
    "scheme": {"scheme": 0x10, "details": None},
    "keyBits": 2048,
    "exponent": 65537,
}
CIPHER, CIPHER_VALUE = "002601000040", {"algorithm": 0x26, "keyBits": 256, "mode": 0x40}
XOR, XOR_VALUE = "000a000b0022", {"scheme": 0x0A, "details": {"hashAlg": 0x0B, "kdf": 0x22}}
PUBLIC_HEAD = "000b" + "00030072" + "0000"
PARMS = {1: (RSA_PARMS, RSA_PARMS_VALUE), 0x23: (ECC_PARMS, ECC_PARMS_VALUE)}
PARMS |= {8: (XOR, XOR_VALUE), 0x25: (CIPHER, CIPHER_VALUE)}
UNIQUE = {
    1: ("00020102", b"\1\2"),
    0x23: (POINT, POINT_VALUE),
    8: ("0001ee", b"\xee"),
    0x25: ("0001ee", b"\xee"),
}


def publics(unique=None):
    """The public area of each type, with its own unique field or always with one."""
    for kind, (parms, value) in PARMS.items():
        bits, meant = unique or UNIQUE[kind]
        yield (
            f"{kind:04x}{PUBLIC_HEAD}{parms}{bits}",
            {
                "type": kind,
                "nameAlg": 0x0B,
                "objectAttributes": 0x30072,
                "authPolicy": b"",
                "parameters": value,
                "unique": meant,
            },
        )


def attestation(tag, content, value):
    return (
        attest.TPMS_ATTEST,
        HEAD.format(tag) + content,
        {
            "magic": 0xFF544347,
            "type": tag,
            "qualifiedSigner": NAME_VALUE,
            "extraData": b"abc",
            "clockInfo": CLOCK_VALUE,
            "firmwareVersion": 0x00010002000300FF,
            "attested": value,
        },
    )


def scheme(structure, kind, details="", value=None):
    return (structure, f"{kind:04x}{details}", {"scheme": kind, "details": value})


def hashed(structure, *kinds):
    return [scheme(structure, kind, "000c", {"hashAlg": 0x0C}) for kind in kinds]


def signature(kind, content, value):
    return (attest.TPMT_SIGNATURE, f"{kind:04x}{content}", {"sigAlg": kind, "signature": value})


ECC_SIGNATURE = (
    "000b" + "0002aabb" + "0001cc",
    {"hash": 0x0B, "signatureR": b"\xaa\xbb", "signatureS": b"\xcc"},
)
RSA_SIGNATURE = ("000b" + "0002aabb", {"hash": 0x0B, "sig": b"\xaa\xbb"})
DETAIL_HEAD, DETAIL_TAIL = "0020" + "0100", "".join(f"0001{each:02x}" for each in range(7))
DETAIL_VALUES = {name: bytes([number]) for number, name in enumerate(("p", "a", "b", "gX", "gY", "n", "h"))}

LAYOUTS = [
    *[
        (basic.TPMT_HA, f"{alg:04x}" + "ab" * size, {"hashAlg": alg, "digest": b"\xab" * size})
        for alg, size in ((4, 20), (11, 32), (12, 48), (13, 64))
    ],
    (basic.TPMS_PCR_SELECTION, "0004" + "03800001", {"hash": 4, "pcrSelect": b"\x80\0\1"}),
    (
        basic.TPMS_AUTH_COMMAND,
        "02000001" + "0002aabb" + "a1" + "0001cc",
        {"sessionHandle": 0x02000001, "nonce": b"\xaa\xbb", "sessionAttributes": 0xA1, "hmac": b"\xcc"},
    ),
    (
        basic.TPMS_AUTH_RESPONSE,
        "0002aabb" + "ff" + "0001cc",
        {"nonce": b"\xaa\xbb", "sessionAttributes": 0xFF, "hmac": b"\xcc"},
    ),
    (basic.TPMS_CLOCK_INFO, CLOCK, CLOCK_VALUE),
    (basic.TPMS_TIME_INFO, "00000000000000ff" + CLOCK, {"time": 255, "clockInfo": CLOCK_VALUE}),
    (session.TPMT_SYM_DEF, "0003" + "00c0" + "0043", {"algorithm": 3, "keyBits": 192, "mode": 0x43}),
    (session.TPMT_SYM_DEF, "0006" + "0080" + "0043", {"algorithm": 6, "keyBits": 128, "mode": 0x43}),
    (session.TPMT_SYM_DEF, "0026" + "0100" + "0041", {"algorithm": 0x26, "keyBits": 256, "mode": 0x41}),
    (session.TPMT_SYM_DEF, "000a" + "000b", {"algorithm": 0x0A, "keyBits": 0x0B, "mode": None}),
    (session.TPMT_SYM_DEF, "0010", NOTHING),
    *[
        (structure, f"{tag:04x}" + "4000000c" + "0002aabb", {"tag": tag, "hierarchy": 0x4000000C, "digest": b"\xaa\xbb"})
        for structure, tag in (
            (session.TPMT_TK_AUTH, 0x8023),
            (session.TPMT_TK_AUTH, 0x8025),
            (session.TPMT_TK_VERIFIED, 0x8022),
            (tickets.TPMT_TK_HASHCHECK, 0x8024),
            (public.TPMT_TK_CREATION, 0x8021),
        )
    ],
    (public.TPMT_SYM_DEF_OBJECT, "0010", NOTHING),
    (public.TPMT_SYM_DEF_OBJECT, "000300800043", {"algorithm": 3, "keyBits": 128, "mode": 0x43}),
    (public.TPMT_SYM_DEF_OBJECT, "000601000042", {"algorithm": 6, "keyBits": 256, "mode": 0x42}),
    (public.TPMT_SYM_DEF_OBJECT, CIPHER, CIPHER_VALUE),
    (public.TPMS_SCHEME_HASH, "000d", {"hashAlg": 0x0D}),
    (public.TPMS_SCHEME_ECDAA, "000b0102", {"hashAlg": 0x0B, "count": 0x102}),
    (public.TPMS_SCHEME_XOR, "000b0020", {"hashAlg": 0x0B, "kdf": 0x20}),
    *hashed(public.TPMT_ECC_SCHEME, 0x18, 0x1B, 0x1C, 0x19, 0x1D),
    scheme(public.TPMT_ECC_SCHEME, 0x1A, "000b0007", {"hashAlg": 0x0B, "count": 7}),
    scheme(public.TPMT_ECC_SCHEME, 0x10),
    *hashed(public.TPMT_RSA_SCHEME, 0x14, 0x16, 0x17),
    scheme(public.TPMT_RSA_SCHEME, 0x15),
    scheme(public.TPMT_RSA_SCHEME, 0x10),
    *hashed(public.TPMT_SIG_SCHEME, 0x14, 0x16, 0x18, 0x1B, 0x1C, 0x05),
    scheme(public.TPMT_SIG_SCHEME, 0x1A, "000b0007", {"hashAlg": 0x0B, "count": 7}),
    scheme(public.TPMT_SIG_SCHEME, 0x10),
    *hashed(public.TPMT_KEYEDHASH_SCHEME, 0x05),
    (public.TPMT_KEYEDHASH_SCHEME, XOR, XOR_VALUE),
    scheme(public.TPMT_KEYEDHASH_SCHEME, 0x10),
    *hashed(public.TPMT_KDF_SCHEME, 0x07, 0x20, 0x21, 0x22),
    scheme(public.TPMT_KDF_SCHEME, 0x10),
    *hashed(asymmetric.TPMT_RSA_DECRYPT, 0x17),
    scheme(asymmetric.TPMT_RSA_DECRYPT, 0x15),
    scheme(asymmetric.TPMT_RSA_DECRYPT, 0x10),
    (public.TPMS_SYMCIPHER_PARMS, CIPHER, CIPHER_VALUE),
    (public.TPMS_ECC_PARMS, ECC_PARMS, ECC_PARMS_VALUE),
    (public.TPMS_RSA_PARMS, RSA_PARMS, RSA_PARMS_VALUE),
    (public.TPMS_ECC_POINT, POINT, POINT_VALUE),
    *[(public.TPMT_PUBLIC, *each) for each in publics()],
    *[(private.TPMT_TEMPLATE_DERIVED, *each) for each in publics(("0001aa0001bb", {"label": b"\xaa", "context": b"\xbb"}))],
    *[(private.TPMT_PUBLIC_PARMS, f"{kind:04x}{parms}", {"type": kind, "parameters": value}) for kind, (parms, value) in PARMS.items()],
    (public.TPMS_SENSITIVE_CREATE, "0002aabb0001cc", {"userAuth": b"\xaa\xbb", "data": b"\xcc"}),
    (
        public.TPMS_CREATION_DATA,
        SELECTION + "0001dd" + "04" + "0010" + NAME + NAME + "0003616263",
        {
            "pcrSelect": SELECTION_VALUE,
            "pcrDigest": b"\xdd",
            "locality": 4,
            "parentNameAlg": 0x10,
            "parentName": NAME_VALUE,
            "parentQualifiedName": NAME_VALUE,
            "outsideInfo": b"abc",
        },
    ),
    *[
        (
            private.TPMT_SENSITIVE,
            f"{kind:04x}" + "0001aa" + "0002bbcc" + "0001dd",
            {"sensitiveType": kind, "authValue": b"\xaa", "seedValue": b"\xbb\xcc", "sensitive": b"\xdd"},
        )
        for kind in (1, 8, 0x23, 0x25)
    ],
    (private.TPMS_DERIVE, "0001aa0002bbcc", {"label": b"\xaa", "context": b"\xbb\xcc"}),
    (
        private.TPMS_CONTEXT,
        "0000000000000105" + "80000002" + "40000007" + "0002aabb",
        {"sequence": 0x105, "savedHandle": 0x80000002, "hierarchy": 0x40000007, "contextBlob": b"\xaa\xbb"},
    ),
    (
        nv.TPMS_NV_PUBLIC,
        "01000002" + "000d" + "00040004" + "0001ee" + "0010",
        {"nvIndex": 0x01000002, "nameAlg": 0x0D, "attributes": 0x40004, "authPolicy": b"\xee", "dataSize": 16},
    ),
    (nv.TPMS_NV_PIN_COUNTER_PARAMETERS, "0000000200000005", {"pinCount": 2, "pinLimit": 5}),
    attestation(0x8018, SELECTION + "0001dd", {"pcrSelect": SELECTION_VALUE, "pcrDigest": b"\xdd"}),
    attestation(0x8017, NAME + "0001ee", {"name": NAME_VALUE, "qualifiedName": b"\xee"}),
    attestation(0x801A, NAME + "0001ee", {"objectName": NAME_VALUE, "creationHash": b"\xee"}),
    attestation(
        0x8019,
        "0000000000000007" + CLOCK + "00000000000000aa",
        {"time": {"time": 7, "clockInfo": CLOCK_VALUE}, "firmwareVersion": 0xAA},
    ),
    attestation(0x8014, NAME + "0102" + "0001ee", {"indexName": NAME_VALUE, "offset": 0x102, "nvContents": b"\xee"}),
    attestation(0x801C, NAME + "0001ee", {"indexName": NAME_VALUE, "nvDigest": b"\xee"}),
    attestation(0x8016, "01" + "0001ee", {"exclusiveSession": 1, "sessionDigest": b"\xee"}),
    attestation(
        0x8015,
        "0000000000000009" + "000b" + "0001ee" + "0001ff",
        {"auditCounter": 9, "digestAlg": 0x0B, "auditDigest": b"\xee", "commandDigest": b"\xff"},
    ),
    *[signature(kind, *ECC_SIGNATURE) for kind in (0x18, 0x1A, 0x1B, 0x1C)],
    *[signature(kind, *RSA_SIGNATURE) for kind in (0x14, 0x16)],
    signature(0x05, "000b" + "ab" * 32, {"hashAlg": 0x0B, "digest": b"\xab" * 32}),
    signature(0x10, "", None),
    *[
        (
            asymmetric.TPMS_ALGORITHM_DETAIL_ECC,
            DETAIL_HEAD + kdf + "0010" + DETAIL_TAIL,
            {"curveID": 0x20, "keySize": 256, "kdf": value, "sign": {"scheme": 0x10, "details": None}, **DETAIL_VALUES},
        )
        for kdf, value in (
            ("0010", {"scheme": 0x10, "details": None}),
            ("00200012", {"scheme": 0x20, "details": {"hashAlg": 0x12}}),
        )
    ],
    (capability.TPMS_ALG_PROPERTY, "0001" + "00000207", {"alg": 1, "algProperties": 0x207}),
    (capability.TPMS_TAGGED_PROPERTY, "00000100" + "322e3000", {"property": 0x100, "value": 0x322E3000}),
    (capability.TPMS_TAGGED_PCR_SELECT, "00000002" + "03ff0001", {"tag": 2, "pcrSelect": b"\xff\0\1"}),
    (capability.TPMS_TAGGED_PCR_SELECT, "00000002" + "00", {"tag": 2, "pcrSelect": b""}),
    *[
        (
            capability.TPMS_TAGGED_POLICY,
            "40000001" + f"{alg:04x}" + "cd" * size,
            {"handle": 0x40000001, "hashAlg": alg, "digest": b"\xcd" * size},
        )
        for alg, size in ((4, 20), (11, 32), (12, 48), (13, 64))
    ],
    (capability.TPMS_TAGGED_POLICY, "4000000a0010", {"handle": 0x4000000A, "hashAlg": 0x10, "digest": None}),
    *[
        (capability.TPMS_CAPABILITY_DATA, f"{group:08x}00000001{entry}", {"capability": group, "data": (value,)})
        for group, entry, value in (
            (0, "000100000207", {"alg": 1, "algProperties": 0x207}),
            (1, "80000001", 0x80000001),
            (2, "00000144", 0x144),
            (3, "0000012d", 0x12D),
            (4, "00000140", 0x140),
            (5, "000b03010080", SELECTION_VALUE[0]),
            (6, "0000010000000007", {"property": 0x100, "value": 7}),
            (7, "0000000203ff0001", {"tag": 2, "pcrSelect": b"\xff\0\1"}),
            (8, "0003", 3),
            (9, "4000000a0010", {"handle": 0x4000000A, "hashAlg": 0x10, "digest": None}),
        )
    ],
]  # fmt: skip


def plain(value):
    """A structure as a dict of its fields, and so inside."""
    if isinstance(value, Structure):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


def decode(structure, data):
    if isinstance(structure, type):
        return structure.decode(data)
    value, after = structure.decode(data, 0, len(data))
    assert after == len(data)
    return value


def identity(case):
    structure, encoded, _ = case
    return f"{getattr(structure, '__name__', 'variant')}-{encoded[:12]}-{len(encoded) // 2}"


@pytest.mark.parametrize("case", LAYOUTS, ids=identity)
def test_a_structure_has_the_layout_of_the_library(case):
    structure, encoded, fields = case
    data = bytes.fromhex(encoded)
    value = decode(structure, data)

    assert plain(value) == fields
    assert (value.encode() if isinstance(structure, type) else structure.encode(value)) == data


@pytest.mark.parametrize("case", LAYOUTS, ids=identity)
def test_a_structure_that_is_cut_short_is_refused_at_every_byte(case):
    structure, encoded, _ = case
    data = bytes.fromhex(encoded)
    for length in range(len(data)):
        with pytest.raises(WireError):
            decode(structure, data[:length])


def test_every_structure_has_a_layout_here():
    named = {structure for structure, _, _ in LAYOUTS if isinstance(structure, type)}
    modules = (asymmetric, attest, basic, capability, nv, private, public, session, tickets)
    declared = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Structure) and each is not Structure
    }
    parts = {each for each in declared - named if each.__name__.endswith(("_INFO", "_ECC", "_RSA"))}

    assert declared - named - parts == set()
    assert {
        type(decode(structure, bytes.fromhex(data)).attested)
        for structure, data, _ in LAYOUTS
        if structure is attest.TPMS_ATTEST
    } | {
        attest.TPMS_SIGNATURE_ECC,
        attest.TPMS_SIGNATURE_RSA,
    } == parts


SIZED = [
    (asymmetric.TPM2B_ECC_POINT, POINT),
    (public.TPM2B_PUBLIC, "0008000b" + "00030072" + "0000" + XOR + "0000"),
    (public.TPM2B_SENSITIVE_CREATE, "0002aabb0001cc"),
    (public.TPM2B_CREATION_DATA, SELECTION + "0000" + "04" + "0010" + "0000" * 3),
    (private.TPM2B_SENSITIVE, "0008" + "0000" + "0000" + "0001dd"),
    (private.TPM2B_SENSITIVE_OR_EMPTY, "0008" + "0000" + "0000" + "0001dd"),
    (private.TPM2B_PUBLIC_EXTERNAL, "00080010" + "00030072" + "0000" + XOR + "0000"),
    (nv.TPM2B_NV_PUBLIC, "01000002" + "000d" + "00040004" + "0001ee" + "0010"),
]


@pytest.mark.parametrize(("codec", "content"), SIZED)
def test_a_structure_in_a_buffer_has_its_size_before_it(codec, content):
    inner = bytes.fromhex(content)
    data = len(inner).to_bytes(2, "big") + inner
    value, after = codec.decode(b"\xff" + data + b"\xff", 1, len(data) + 1)

    assert after == len(data) + 1
    assert codec.encode(value) == data
    for wrong in (len(inner) - 1, len(inner) + 1):
        with pytest.raises(WireError) as caught:
            codec.decode(wrong.to_bytes(2, "big") + inner + b"\0", 0, len(data) + 1)
        assert caught.value.rc == 0x95


def test_a_sensitive_area_may_be_left_empty_where_the_command_says_so():
    codec = private.TPM2B_SENSITIVE_OR_EMPTY

    assert codec.decode(b"\xff\0\0\xff", 1, 4) == (None, 3)
    assert codec.decode(b"\0\0", 0, 2) == (None, 2)
    assert codec.encode(None) == b"\0\0"
    for data, end in ((b"\0\0", 1), (b"\0", 1), (b"", 0)):
        with pytest.raises(WireError) as caught:
            codec.decode(data, 0, end)
        assert caught.value.rc == 0x9A
    with pytest.raises(WireError) as caught:
        private.TPM2B_SENSITIVE.decode(b"\0\0", 0, 2)
    assert caught.value.rc == 0x95


@pytest.mark.parametrize(
    ("structure", "encoded", "rc"),
    [
        (public.TPMT_PUBLIC, "00080010" + "00000000", 0x83),
        (public.TPMS_SYMCIPHER_PARMS, "0010", 0x96),
        (private.TPMT_PUBLIC_PARMS, "00250010", 0x96),
        (attest.GIVEN_SIGNATURE, "0010", 0x92),
        (asymmetric.TPMT_RSA_DECRYPT, "0014000b", 0x84),
        (private.TPMT_SENSITIVE, "0001" + "0000" * 2 + "00c1" + "00" * 193, 0x95),
        (private.TPMT_SENSITIVE, "0023" + "0000" * 2 + "0051" + "00" * 81, 0x95),
        (private.TPMT_SENSITIVE, "0008" + "0000" * 2 + "0081" + "00" * 129, 0x95),
        (private.TPMT_SENSITIVE, "0025" + "0000" * 2 + "0021" + "00" * 33, 0x95),
        (capability.TPMS_TAGGED_PCR_SELECT, "00000002" + "0400000000", 0x95),
    ],
)
def test_what_a_place_does_not_allow_is_refused_with_its_code(structure, encoded, rc):
    with pytest.raises(WireError) as caught:
        decode(structure, bytes.fromhex(encoded))

    assert caught.value.rc == rc


@pytest.mark.parametrize(
    ("kind", "most"), [(1, 192), (0x23, 80), (8, 128), (0x25, 32)], ids=["RSA", "ECC", "data", "cipher"]
)
def test_a_secret_may_be_as_long_as_its_type_allows(kind, most):
    data = kind.to_bytes(2, "big") + bytes(4) + most.to_bytes(2, "big") + bytes(most)

    assert private.TPMT_SENSITIVE.decode(data).sensitive == bytes(most)


def test_pcrs_are_selected_by_number():
    selection = basic.TPMS_PCR_SELECTION.of(0x0B, (0, 9, 23))

    assert selection.pcrSelect == b"\x01\x02\x80"
    assert selection.hash == 0x0B
    assert selection.pcrs == (0, 9, 23)
    assert basic.TPMS_PCR_SELECTION.of(0x0B, (9, 9)).pcrs == (9,)
    assert basic.TPMS_PCR_SELECTION(hash=0x0B, pcrSelect=b"\xff\xff\xff").pcrs == tuple(range(24))
