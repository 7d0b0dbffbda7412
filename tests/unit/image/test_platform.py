"""A maker's reference of a platform: read back as it was written, and refused at the place of what is wrong."""

import pytest

from sim.errors import FormatError
from sim.image.platform import ReferenceCode, ReferencePlatform, platform_from_plain, platform_to_plain

PLATFORM = ReferencePlatform(
    model="model 1",
    code=(ReferenceCode(name="volume", pcr=7, digests=(b"\1" * 32, b"\2" * 48), required=False),),
    platform_keys=(b"\3",),
    exchange_keys=(b"\4",),
    allowed=(b"\5",),
    forbidden=(b"\6" * 32,),
)


def plain(**changes):
    return {**platform_to_plain(PLATFORM), **changes}


def code(**changes):
    (one,) = platform_to_plain(PLATFORM)["code"]
    return plain(code=[{**one, **changes}])


def test_a_platform_is_read_back():
    assert platform_from_plain(plain(), "here") == PLATFORM
    assert platform_from_plain(code(pcr=0, required=True), "here").code[0].required


CODE = "code needs a PCR from 0 to 7, and required true or false"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (code(pcr="0"), CODE),
        (code(pcr=[0]), CODE),
        (code(pcr=7.0), CODE),
        (code(pcr=8), CODE),
        (code(pcr=-1), CODE),
        (code(required=1), CODE),
        (code(digests={}), "is not a list"),
        ([], "is not an object of allowed, code, exchange_keys, forbidden, model, platform_keys"),
        (list(plain()), "is not an object of allowed, code, exchange_keys, forbidden, model, platform_keys"),
        ("text", "is not an object of allowed, code, exchange_keys, forbidden, model, platform_keys"),
        (plain(more=1), "is not an object of allowed, code, exchange_keys, forbidden, model, platform_keys"),
        (plain(code=[[]]), "is not an object of digests, name, pcr, required"),
        (code(more=1), "is not an object of digests, name, pcr, required"),
        (plain(code={}), "is not a list"),
        (plain(allowed="00"), "is not a list"),
        (plain(model=1), "is not a text"),
        (code(name=None), "is not a text"),
        (plain(forbidden=[1]), "is not a text"),
        (plain(forbidden=["0"]), "holds something that is not hex"),
    ],
)
def test_what_is_no_platform_is_refused_by_its_place_and_reason(value, words):
    with pytest.raises(FormatError) as caught:
        platform_from_plain(value, "here")
    assert (caught.value.what, caught.value.where, caught.value.message) == (
        "reference platform",
        "here",
        words,
    )
