"""The SINIT module: its layout is Intel's, and each check is made by who makes it in reality."""

import struct

import pytest

from sim.boot.acm import (
    FLAG_DEBUG,
    FLAG_PREPRODUCTION,
    HEADER,
    HEADER_BYTES,
    INFO_TABLE,
    USER_AREA,
    AcmError,
    AcmMismatch,
    AcmRecipe,
    authenticate,
    build_acm,
    check_not_revoked,
    check_platform,
    chipset_key_digest,
    public_key_of,
    read_acm,
)
from sim.boot.acm_key import chipset_maker_key
from sim.core.keys import rsa_private_key
from sim.core.rng import Rng
from sim.errors import VerificationError
from sim.hw.txt import TxtRegisters

RNG = Rng(3)
DIDVID = TxtRegisters().didvid


def changed(acm, at, form, *values):
    data = bytearray(acm)
    struct.pack_into(form, data, at, *values)
    return bytes(data)


def test_header_has_the_sizes_and_places_of_version_0():
    acm = build_acm(RNG)
    assert (HEADER.size, HEADER_BYTES, USER_AREA) == (128, 644, 1216)
    kind, sub, words, version, chipset, flags, vendor, _, size = struct.unpack_from("<HHIIHHIII", acm)
    assert (kind, sub, words, version, flags, vendor) == (2, 0, 161, 0, 0, 0x8086)
    assert chipset == DIDVID >> 16 & 0xFFFF
    assert size * 4 == len(acm)
    assert struct.unpack_from("<II", acm, 120) == (64, 143)
    assert len(public_key_of(acm)) == 256
    uuid = acm[USER_AREA : USER_AREA + 16]
    assert uuid == struct.pack("<IHH", 0x7FC03AAA, 0x46A7, 0x18DB) + bytes.fromhex("ac2e698f8d417f5a")


def test_signature_is_the_one_that_openssl_s_rules_give_over_header_and_user_area():
    acm = build_acm(RNG)
    numbers = chipset_maker_key().public_key().public_numbers()
    signature = int.from_bytes(acm[388:644], "little")
    block = pow(signature, numbers.e, numbers.n).to_bytes(256, "big")
    import hashlib

    digest = hashlib.sha256(acm[:128] + acm[USER_AREA:]).digest()
    assert block.startswith(b"\x00\x01\xff")
    assert block.endswith(bytes.fromhex("3031300d060960864801650304020105000420") + digest)


def test_maker_s_key_is_the_first_of_its_stream():
    drawn = rsa_private_key(Rng(0).child("chipset maker").stream("test key"))
    assert drawn.private_numbers() == chipset_maker_key().private_numbers()


@pytest.mark.parametrize(
    ("at", "form", "values", "code"),
    [
        (0, "<H", (1,), 0x80000006),
        (16, "<I", (0x1022,), 0x80000006),
        (4, "<I", (160,), 0x80000008),
        (24, "<I", (1,), 0x80000008),
        (120, "<I", (96,), 0x80000008),
        (124, "<I", (0,), 0x80000008),
        (USER_AREA, "<I", (0,), 0x80000008),
        (USER_AREA + 16, "<B", (0,), 0x80000008),
        (USER_AREA + 20, "<I", (0xFFFFFFF0,), 0x80000008),
        (USER_AREA + 20, "<I", (12,), 0x80000008),
        (USER_AREA + INFO_TABLE.size, "<I", (0xFFFFFFFF,), 0x80000008),
        (USER_AREA + INFO_TABLE.size, "<I", (64,), 0x80000007),
        (384, "<I", (3,), 0x80000007),
        (384, "<I", (2,), 0x80000007),
        (388, "<I", (0,), 0x80000007),
        (128, "<I", (0,), 0x80000007),
    ],
)
def test_each_wrong_field_ends_in_the_processor_s_own_error(at, form, values, code):
    with pytest.raises(AcmError) as caught:
        authenticate(changed(build_acm(RNG), at, form, *values), chipset_key_digest())
    assert caught.value.code == code


def test_error_survives_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(AcmError(0x80000007, "no")))
    assert (error.code, str(error)) == (0x80000007, "no")


def test_launching_code_takes_a_module_of_its_chipset_alone():
    check_platform(read_acm(build_acm(RNG)), DIDVID, production=True)
    for recipe in (AcmRecipe(device=0xB000), AcmRecipe(vendor=0x1022)):
        with pytest.raises(AcmMismatch, match="chipset id mismatch"):
            check_platform(read_acm(build_acm(RNG, recipe)), DIDVID, production=True)


@pytest.mark.parametrize("flag", [FLAG_DEBUG, FLAG_PREPRODUCTION])
def test_module_that_is_not_for_production_runs_on_a_debug_chipset_alone(flag):
    acm = read_acm(build_acm(RNG, AcmRecipe(flags=flag)))
    check_platform(acm, DIDVID, production=False)
    with pytest.raises(AcmMismatch, match="production/debug mismatch"):
        check_platform(acm, DIDVID, production=True)


def test_revoked_version_is_refused_and_the_least_one_is_not():
    check_not_revoked(read_acm(build_acm(RNG, AcmRecipe(svn=2))), 2)
    with pytest.raises(VerificationError, match="security version 1 is revoked"):
        check_not_revoked(read_acm(build_acm(RNG, AcmRecipe(svn=1))), 2)


@pytest.mark.parametrize("at", [0, USER_AREA - 4])
def test_list_of_chipsets_before_the_user_area_is_outside_the_module(at):
    with pytest.raises(AcmError, match=f"the list of chipsets at {at} is outside the module"):
        read_acm(changed(build_acm(RNG), USER_AREA + 20, "<I", at))


def test_list_of_too_many_chipsets_or_past_the_end_does_not_fit():
    acm = build_acm(RNG)
    assert len(read_acm(changed(acm, USER_AREA + INFO_TABLE.size, "<I", 64)).chipsets) == 64
    with pytest.raises(AcmError, match="a list of 65 chipsets does not fit"):
        read_acm(changed(acm, USER_AREA + INFO_TABLE.size, "<I", 65))
    late = changed(acm, USER_AREA + 20, "<I", len(acm) - 4)
    with pytest.raises(AcmError, match="a list of 1 chipsets does not fit"):
        read_acm(changed(late, len(acm) - 4, "<I", 1))
