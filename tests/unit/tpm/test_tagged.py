"""ESXi's tagged events."""

import pytest

from sim.errors import FormatError
from sim.tpm.tagged import EsxTag, decode_tagged, encode_tagged


def test_a_tagged_event_is_id_size_and_content_in_little_endian():
    data = encode_tagged(EsxTag.MOD, b"vmkernel\0")

    assert data.hex() == "02000000" + "09000000" + b"vmkernel\0".hex()
    assert decode_tagged(data).id == EsxTag.MOD
    assert decode_tagged(data).text == "vmkernel"


def test_bytes_that_are_no_text_do_not_break_the_reader():
    assert decode_tagged(encode_tagged(EsxTag.SIGNER, b"\x30\x82\xff")).text == "0\ufffd\ufffd"


@pytest.mark.parametrize(
    "data", [b"", b"\x02\0\0\0\x01\0\0", encode_tagged(2, b"ab")[:-1], encode_tagged(2, b"ab") + b"c"]
)
def test_a_wrong_size_is_refused(data):
    with pytest.raises(FormatError):
        decode_tagged(data)
