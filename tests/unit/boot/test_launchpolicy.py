"""The launch control policy: its bytes are those of lcptools, and SINIT launches nothing that it does not allow."""

import hashlib
import random
import struct

import attrs
import pytest

from sim.boot.acm import FLAG_DEBUG, Acm
from sim.boot.launchpolicy import (
    LcpElement,
    LcpList,
    LcpPolicy,
    PolicyType,
    decode_policy,
    decode_policy_data,
    encode_policy,
    encode_policy_data,
    list_digest,
    lists_digest,
    mle_element,
    mle_hashes,
    pconf_digests,
    pconf_element,
    sign_list,
)
from sim.boot.lcpcheck import CONTROL_NPW, NOTHING, LaunchRefused, evaluate_policy
from sim.boot.txt_errors import SinitError
from sim.core.keys import rsa_private_key
from sim.core.rng import Rng
from sim.errors import FormatError, LimitError

MLE = hashlib.sha256(b"launcher").digest()
OTHER = hashlib.sha256(b"other").digest()
SINIT = Acm(flags=0, svn=2, version=4, chipsets=())
VALUES = {0: b"\x01" * 32, 7: b"\x02" * 32}
STATE = hashlib.sha256(VALUES[0] + VALUES[7]).digest()


@pytest.fixture(scope="module")
def key():
    return rsa_private_key(Rng(5).stream("owner"))


def judge(policy=None, lists=(), *, data=None, supplier=b"", acm=SINIT, mle=MLE):
    if lists:
        policy = attrs.evolve(policy or LcpPolicy(policy_type=PolicyType.LIST), digest=lists_digest(lists))
        data = encode_policy_data(lists) if data is None else data
    return evaluate_policy(
        owner=encode_policy(policy) if policy else b"",
        supplier=supplier,
        data=data or b"",
        acm=acm,
        mle_digest=mle,
        read_pcrs=lambda pcrs: [VALUES[pcr] for pcr in pcrs],
    )


def refused(error, *arguments, **options):
    with pytest.raises(LaunchRefused) as caught:
        judge(*arguments, **options)
    assert caught.value.error is error, str(caught.value)


def test_policy_for_the_index_has_70_bytes_in_the_order_of_lcp_policy2():
    policy = LcpPolicy(
        policy_type=PolicyType.LIST,
        sinit_version_min=3,
        revocation=(1, 2, 3, 4, 5, 6, 7, 8),
        control=2,
        digest=MLE,
    )
    data = encode_policy(policy)
    assert len(data) == 70
    assert struct.unpack_from("<HHBB8HI", data) == (0x302, 0x0B, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 2)
    assert data[38:] == MLE
    assert decode_policy(data) == policy


@pytest.mark.parametrize("data", [b"", bytes(69), bytes(70), bytes(71), b"\xff" * 70])
def test_index_with_anything_else_is_no_policy(data):
    with pytest.raises(FormatError):
        decode_policy(data)
    if data:
        with pytest.raises(LaunchRefused) as caught:
            evaluate_policy(
                owner=data, supplier=b"", data=b"", acm=SINIT, mle_digest=MLE, read_pcrs=lambda _: []
            )
        assert caught.value.error is SinitError.POLICY_FORMAT


def test_policy_of_an_unknown_type_is_none():
    with pytest.raises(FormatError, match="neither a list nor any"):
        decode_policy(encode_policy(LcpPolicy(policy_type=2)))


def test_list_with_a_key_of_another_size_is_refused(key):
    one = sign_list([mle_element([MLE])], key)
    for size in (0, 128, 512):
        data = bytearray(encode_policy_data([one]))
        at = len(data) - 2 * 256 - 2
        data[at:] = struct.pack("<H", size) + b"k" * 2 * size
        with pytest.raises(FormatError, match=f"a key of {size} bytes"):
            decode_policy_data(bytes(data))


def test_data_file_goes_there_and_back_and_begins_with_its_mark(key):
    lists = (
        LcpList(elements=(mle_element([MLE, OTHER], 2), pconf_element([((0, 7), STATE)]))),
        sign_list([mle_element([MLE])], key, 9),
    )
    data = encode_policy_data(lists)
    assert data[:36] == b"Intel(R) TXT LCP_POLICY_DATA\0\0\0\0" + bytes([0, 0, 0, 2])
    assert decode_policy_data(data) == lists
    first = lists[0].elements
    assert mle_hashes(first[0]) == (2, (MLE, OTHER))
    assert pconf_digests(first[1]) == (((0, 7), STATE),)


def test_unsigned_list_counts_with_its_bytes_and_a_signed_one_with_its_key(key):
    plain, other = (LcpList(elements=(mle_element([one]),)) for one in (MLE, OTHER))
    signed, renewed = (sign_list([mle_element([one])], key) for one in (MLE, OTHER))
    assert list_digest(plain) != list_digest(other)
    assert list_digest(signed) == list_digest(renewed) == hashlib.sha256(signed.public_key).digest()
    assert lists_digest([plain]) == hashlib.sha256(list_digest(plain)).digest()


def test_without_a_policy_anything_is_launched_and_nothing_is_measured_of_it():
    match = judge()
    assert (match.control, match.details, match.authorities) == (0, NOTHING, NOTHING)
    assert judge(LcpPolicy()).details == NOTHING


def test_list_launches_what_it_names_and_measures_the_element_that_did():
    lists = (LcpList(elements=(mle_element([OTHER]),)), LcpList(elements=(mle_element([MLE]),)))
    match = judge(lists=lists)
    assert match.details == lists[1].elements[0].to_bytes()
    assert match.authorities == list_digest(lists[1])
    refused(SinitError.MLE_MISMATCH, lists=lists, mle=hashlib.sha256(b"evil").digest())


def test_element_for_a_newer_sinit_does_not_match_an_older_one():
    lists = (LcpList(elements=(mle_element([MLE], sinit_version_min=5),)),)
    refused(SinitError.MLE_MISMATCH, lists=lists)
    assert judge(lists=lists, acm=attrs.evolve(SINIT, version=5)).details != NOTHING


def test_state_of_the_platform_must_be_one_of_the_choices():
    mle = mle_element([MLE])
    good = (LcpList(elements=(mle, pconf_element([((0,), OTHER), ((0, 7), STATE)]))),)
    assert judge(lists=good).details.startswith(mle.to_bytes())
    refused(SinitError.PCONF_MISMATCH, lists=(LcpList(elements=(mle, pconf_element([((0, 7), OTHER)]))),))


def test_old_sinit_is_refused_by_the_policy_that_wants_a_newer_one():
    refused(SinitError.SINIT_TOO_OLD, LcpPolicy(sinit_version_min=5))
    assert judge(LcpPolicy(sinit_version_min=4))


def test_debug_module_needs_a_policy_that_says_so():
    debug = attrs.evolve(SINIT, flags=FLAG_DEBUG)
    refused(SinitError.NOT_PRODUCTION, acm=debug)
    refused(SinitError.NOT_PRODUCTION, LcpPolicy(), acm=debug)
    assert judge(LcpPolicy(control=CONTROL_NPW), acm=debug).control == CONTROL_NPW


def test_supplier_s_policy_counts_where_the_owner_has_none():
    strict = encode_policy(LcpPolicy(sinit_version_min=9))
    refused(SinitError.SINIT_TOO_OLD, supplier=strict)
    assert judge(LcpPolicy(), supplier=strict)


def test_data_file_that_the_policy_does_not_pin_is_refused():
    lists = (LcpList(elements=(mle_element([MLE]),)),)
    other = encode_policy_data([LcpList(elements=(mle_element([MLE, OTHER]),))])
    refused(SinitError.POLICY_DATA, lists=lists, data=other)
    refused(SinitError.POLICY_FORMAT, lists=lists, data=b"no policy")


def test_signed_list_needs_its_signature_and_a_counter_that_was_not_left_behind(key):
    one = sign_list([mle_element([MLE])], key, revocation=1)
    policy = LcpPolicy(policy_type=PolicyType.LIST)
    assert judge(policy, (one,)).authorities == list_digest(one)
    forged = attrs.evolve(one, elements=(mle_element([OTHER]),))
    refused(SinitError.POLICY_SIGNATURE, policy, (forged,), mle=OTHER)
    lifted = attrs.evolve(one, revocation=2)
    refused(SinitError.POLICY_SIGNATURE, attrs.evolve(policy, revocation=(2,) + (0,) * 7), (lifted,))
    refused(SinitError.POLICY_REVOKED, attrs.evolve(policy, revocation=(2,) + (0,) * 7), (one,))


def test_key_that_is_no_modulus_is_a_bad_signature(key):
    one = sign_list([mle_element([MLE])], key)
    refused(SinitError.POLICY_SIGNATURE, lists=(attrs.evolve(one, public_key=bytes(256)),))


def test_no_flipped_bit_of_a_data_file_launches_anything_else(key):
    for lists in (
        (LcpList(elements=(mle_element([MLE]), pconf_element([((0, 7), STATE)]))),),
        (sign_list([mle_element([MLE])], key),),
    ):
        policy = attrs.evolve(LcpPolicy(policy_type=PolicyType.LIST), digest=lists_digest(lists))
        data = encode_policy_data(lists)
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            with pytest.raises(LaunchRefused):
                judge(policy, data=bytes(flipped))


def test_no_truncation_and_no_noise_is_read_as_a_data_file(key):
    data = encode_policy_data([sign_list([mle_element([MLE])], key), LcpList(elements=(mle_element([MLE]),))])
    for size in range(len(data)):
        with pytest.raises(FormatError):
            decode_policy_data(data[:size])
    with pytest.raises(FormatError, match="left over"):
        decode_policy_data(data + b"\0")
    chance = random.Random(1)
    for _ in range(3000):
        noise = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            noise[chance.randrange(32, len(noise))] = chance.randrange(256)
        try:
            decode_policy_data(bytes(noise))
        except FormatError:
            continue


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (0x10, b""),
        (0x10, struct.pack("<BBHH", 0, 0, 0x04, 1) + bytes(20)),
        (0x10, struct.pack("<BBHH", 0, 0, 0x0B, 2) + bytes(32)),
        (0x11, b""),
        (0x11, struct.pack("<HH", 0x0B, 1) + bytes(10)),
        (0x11, struct.pack("<HH", 0x0B, 1) + struct.pack(">IHB3sH", 2, 0x0B, 3, bytes(3), 32) + bytes(32)),
    ],
)
def test_element_that_is_none_stops_the_launch(kind, data):
    element = LcpElement(kind=kind, data=data)
    with pytest.raises(FormatError):
        (mle_hashes if kind == 0x10 else pconf_digests)(element)
    refused(SinitError.POLICY_FORMAT, lists=(LcpList(elements=(element,)),))


def test_limits_of_the_data_file_are_kept():
    with pytest.raises(LimitError):
        decode_policy_data(bytes(65 * 1024))
    many = LcpList(elements=tuple(mle_element([]) for _ in range(65)))
    with pytest.raises(LimitError):
        decode_policy_data(encode_policy_data([many]))
    empty = b"Intel(R) TXT LCP_POLICY_DATA\0\0\0\0" + bytes(4)
    with pytest.raises(LimitError):
        decode_policy_data(empty)


def test_the_digest_field_of_a_policy_that_allows_anything_is_not_measured():
    policy = LcpPolicy(policy_type=PolicyType.ANY, digest=b"\1" * 32, control=4)
    match = judge(policy)
    assert (match.control, any(match.digest)) == (4, False)


@pytest.mark.parametrize(("version", "algorithm"), [(0x0303, 0x0B), (0x0302, 0x0C)])
def test_index_of_another_version_or_another_algorithm_is_no_policy(version, algorithm):
    data = struct.pack("<HH", version, algorithm) + encode_policy(LcpPolicy())[4:]
    with pytest.raises(FormatError, match=f"version {version:#x} with algorithm {algorithm:#x} is not known"):
        decode_policy(data)


def test_data_file_of_eight_lists_is_read_and_of_nine_is_not():
    one = LcpList(elements=())
    assert decode_policy_data(encode_policy_data([one] * 8)) == (one,) * 8
    with pytest.raises(LimitError, match="9 lists, 1 to 8 are possible"):
        decode_policy_data(encode_policy_data([one] * 9))


@pytest.mark.parametrize(("algorithm", "count"), [(0x0C, 1), (0x0B, 257)])
def test_element_of_another_algorithm_or_of_too_many_digests_is_none(algorithm, count):
    data = struct.pack("<BBHH", 0, 0, algorithm, count) + bytes(32 * count)
    with pytest.raises(FormatError, match=f"{count} digests of algorithm {algorithm:#x}"):
        mle_hashes(LcpElement(kind=0x10, data=data))
    info = struct.pack(">IHB3sH", 1, 0x0B, 3, bytes(3), 32) + bytes(32)
    with pytest.raises(FormatError, match=f"{count} choices of algorithm {algorithm:#x}"):
        pconf_digests(LcpElement(kind=0x11, data=struct.pack("<HH", algorithm, count) + info * count))


@pytest.mark.parametrize("fields", [(2, 0x0B, 3, 32), (1, 0x0C, 3, 32), (1, 0x0B, 2, 32), (1, 0x0B, 3, 31)])
def test_choice_with_one_wrong_field_is_none(fields):
    selections, bank, octets, size = fields
    info = struct.pack(">IHB3sH", selections, bank, octets, bytes(3), size) + bytes(32)
    with pytest.raises(FormatError, match="a choice is not one selection of the SHA-256 bank"):
        pconf_digests(LcpElement(kind=0x11, data=struct.pack("<HH", 0x0B, 1) + info))


def test_list_whose_signature_is_cut_is_refused_for_that(key):
    data = encode_policy_data([sign_list([mle_element([MLE])], key)])
    with pytest.raises(FormatError, match="a key of 256 bytes with its signature is not there"):
        decode_policy_data(data[:-1])


@pytest.mark.parametrize("size", [0, 11, 13])
def test_element_with_a_size_that_cannot_be_is_refused(size):
    data = bytearray(encode_policy_data([LcpList(elements=(LcpElement(kind=1, data=b""),))]))
    struct.pack_into("<I", data, len(data) - 12, size)
    with pytest.raises(FormatError, match=f"a size of {size} bytes cannot be"):
        decode_policy_data(bytes(data))
