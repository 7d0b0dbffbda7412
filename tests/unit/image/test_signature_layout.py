"""The short way through a signature file: it agrees with the strict reader, or leaves the file to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.context import EPOCH
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.image import der, signed_data
from sim.image.bitflips import flip_bit
from sim.image.cms import sign_detached
from sim.image.pki import Pki
from sim.image.signature_layout import OPENINGS_MAX, _begin_of_signer, usual_attributes, usual_layout
from sim.image.trust import SignatureError

EC = sign_detached(b"<vib/>", Pki.create(Rng(5), epoch=EPOCH).signer("partner"), EPOCH)
ALL_BITS = range(8 * len(EC))


@pytest.fixture(scope="module", params=["ec-p256", "rsa-2048"])
def signature(request):
    pki = Pki.create(Rng(5), epoch=EPOCH, algorithm=request.param)
    return sign_detached(b"<vib/>", pki.signer("certified"), EPOCH)


def outcome(read, data):
    """What a reader says: a value, or the check that refuses."""
    try:
        return read(data)
    except SignatureError as error:
        return error.check
    except FormatError:
        return "der"


def agrees(data):
    """Demand that the short way has no answer of its own; tell whether it had one."""
    parts = usual_layout(data)
    if parts is not None:
        assert outcome(lambda _: signed_data._usual(*parts), data) == outcome(signed_data._parse, data)
    return parts is not None


def attributes_agree(content):
    usual = usual_attributes(content)
    if usual is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signed_data, "usual_attributes", lambda _: None)
            assert outcome(signed_data._read_attributes, content) == usual
    return usual is not None


def test_what_we_sign_has_the_usual_layout(signature):
    assert agrees(signature)
    assert attributes_agree(signed_data.parse_signed_data(signature).attributes)


def test_a_sha512_signature_is_left_to_the_strict_reader():
    signer = Pki.create(Rng(5), epoch=EPOCH).signer("partner")
    data = signed_data.build_signed_data(
        signer, EPOCH, content=b"<vib/>", content_type=der.encode_oid("1.2.3")
    )
    assert usual_layout(data) is None
    assert signed_data.parse_signed_data(data).content_type == der.encode_oid("1.2.3")


def test_with_any_one_bit_changed_both_ways_agree():
    assert 0 < sum(agrees(flip_bit(EC, bit)) for bit in ALL_BITS) < len(ALL_BITS)


def test_with_any_one_bit_of_the_attributes_changed_both_ways_agree():
    content = signed_data.parse_signed_data(EC).attributes
    assert (
        0
        < sum(attributes_agree(flip_bit(content, bit)) for bit in range(8 * len(content)))
        < 8 * len(content)
    )


def test_cut_anywhere_it_has_no_usual_layout():
    assert [end for end in range(len(EC)) if usual_layout(EC[:end]) is not None] == []
    assert usual_layout(EC + b"\0") is None


@settings(max_examples=300)
@given(st.integers(0, len(EC) - 1), st.integers(0, 8), st.binary(max_size=8))
def test_with_any_piece_replaced_both_ways_agree(at, length, piece):
    agrees(EC[:at] + piece + EC[at + length :])


def test_what_is_remembered_of_beginnings_is_bounded():
    for size in range(1000, 1000 + 2 * OPENINGS_MAX):
        usual_layout(EC[:66] + bytes(size))
    assert _begin_of_signer.cache_info().currsize <= OPENINGS_MAX
