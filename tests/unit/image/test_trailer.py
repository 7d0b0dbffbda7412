import struct
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import Rng, Stream
from sim.errors import FormatError
from sim.image.bitflips import flip_bits
from sim.image.issue import CertificateSpec, issue
from sim.image.pki import EarlySigner, Pki
from sim.image.trailer import MAGIC, SCHEMAS, sign_module, split_trailer, verify_module
from sim.image.trust import EarlyKey, SignatureError

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
