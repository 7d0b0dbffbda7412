import pickle
import re
from datetime import timedelta

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.rng import Rng
from sim.errors import FormatError, LimitError, VerificationError
from sim.image import vib as vib_module
from sim.image.acceptance import AcceptanceLevel
from sim.image.ar import ArMember, read_ar, write_ar
from sim.image.bitflips import flip_bit, flip_bits
from sim.image.cms import sign_detached
from sim.image.descriptor import parse_descriptor
from sim.image.descriptor_writer import write_descriptor
from sim.image.metadata import Descriptor
from sim.image.payload import PayloadError, describe_payload, gzip_stored
from sim.image.pki import Pki
from sim.image.trust import SignatureError
from sim.image.vib import (
    Payload,
    Vib,
    VibError,
    build_vib,
    parse_vib,
    read_vib,
    verify_record,
    verify_vib,
    write_vib,
)

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel
PAYLOADS = (
    Payload(name="net", kind="vgz", data=gzip_stored(b"network driver")),
    Payload(name="extra", kind="boot", data=b"raw bytes"),
)


def spec(level=PARTNER, name="net-example"):
    return Descriptor(name=name, version="1.0.0-1", vendor="Example", level=level)


@pytest.fixture(scope="session")
def make(world_pki, epoch):
    def build(level=PARTNER, signed_at=None, name="net-example", payloads=PAYLOADS):
        signer = world_pki.signer(signed_at.xml_name) if signed_at is not None else None
        return build_vib(spec(level, name), payloads, signer, epoch)

    return build


@pytest.fixture(scope="session")
def signed(make):
    return make(PARTNER, PARTNER)


@pytest.fixture(scope="session")
def judge(world_pki, epoch):
    return lambda data: verify_vib(read_vib(data), world_pki.trust, epoch)


def with_member(data, position, content):
    members = list(read_ar(data))
    members[position] = attrs.evolve(members[position], data=content)
    return write_ar(members)


def test_a_built_vib_is_read_back(signed):
    vib = read_vib(signed)
    assert vib.vib_id == "Example_bootbank_net-example_1.0.0-1"
    assert vib.payloads == PAYLOADS
    assert write_vib(vib) == signed


def test_building_twice_gives_the_same_bytes(make):
    assert make(CERTIFIED, CERTIFIED) == make(CERTIFIED, CERTIFIED)


def test_a_vib_pickles(signed):
    vib = read_vib(signed)
    again = pickle.loads(pickle.dumps(vib))
    assert again == vib
    assert again.descriptor == vib.descriptor


def test_the_identity_names_provider_and_level(judge, signed, world_pki):
    identity = judge(signed)
    assert (identity.level, identity.provider) == (PARTNER, world_pki.signer("partner").provider)


@pytest.mark.parametrize("claimed", AcceptanceLevel)
@pytest.mark.parametrize("signed_at", [None, *list(AcceptanceLevel)[1:]])
def test_a_level_needs_a_signature_of_that_level_or_higher(make, judge, claimed, signed_at):
    data = make(claimed, signed_at)
    if signed_at is None and claimed is not COMMUNITY:
        with pytest.raises(VibError) as caught:
            judge(data)
        assert caught.value.check == "vib.signature-missing"
    elif signed_at is not None and signed_at < claimed:
        with pytest.raises(VibError) as caught:
            judge(data)
        assert caught.value.check == "vib.level"
        assert claimed.title in str(caught.value)
    else:
        assert judge(data).level is claimed


def test_a_stripped_signature_is_refused(judge, signed):
    with pytest.raises(VibError, match="no signature"):
        judge(with_member(signed, 1, b""))


def test_a_community_vib_with_a_worthless_signature_is_refused(make, judge):
    with pytest.raises(VerificationError):
        judge(with_member(make(COMMUNITY), 1, b"0\x00"))


def test_a_signature_of_another_vib_is_refused(make, judge, signed):
    other = read_ar(make(PARTNER, PARTNER, name="other"))[1].data
    with pytest.raises(SignatureError) as caught:
        judge(with_member(signed, 1, other))
    assert caught.value.check == "message-digest"


def test_a_signature_of_another_world_is_refused(signed, epoch):
    stranger = Pki.create(Rng(8), epoch=epoch)
    with pytest.raises(SignatureError) as caught:
        verify_vib(read_vib(signed), stranger.trust, epoch)
    assert caught.value.check == "chain"


def test_a_signer_outside_its_validity_is_refused(signed, world_pki, epoch):
    for when in (epoch + timedelta(days=9 * 365), epoch - timedelta(days=5 * 365)):
        with pytest.raises(SignatureError):
            verify_vib(read_vib(signed), world_pki.trust, when)


def test_a_changed_payload_is_refused_by_name_and_digest(signed):
    data = PAYLOADS[0].data
    with pytest.raises(PayloadError, match="payload net has sha-256") as caught:
        read_vib(with_member(signed, 2, data[:20] + b"X" + data[21:]))
    assert caught.value.check == "payload.sha-256"


def test_a_vib_made_by_hand_is_checked_as_one_that_was_read(signed, world_pki, epoch):
    vib = read_vib(signed)
    changed = attrs.evolve(vib, payloads=(PAYLOADS[0], attrs.evolve(PAYLOADS[1], data=b"raw bytez")))
    with pytest.raises(PayloadError, match="extra"):
        verify_vib(changed, world_pki.trust, epoch)
    with pytest.raises(VibError, match="does not hold"):
        verify_vib(attrs.evolve(vib, payloads=PAYLOADS[:1]), world_pki.trust, epoch)


def test_members_in_another_order_are_refused(signed):
    members = read_ar(signed)
    for order in ((1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2)):
        with pytest.raises(FormatError):
            parse_vib(write_ar([members[number] for number in order]))


def test_a_missing_or_unlisted_member_is_refused(signed):
    members = read_ar(signed)
    with pytest.raises(FormatError, match="None"):
        parse_vib(write_ar(members[:3]))
    with pytest.raises(FormatError, match="not in the descriptor"):
        parse_vib(write_ar([*members, ArMember(name="stowaway", data=b"x")]))
    with pytest.raises(FormatError):
        parse_vib(write_ar([*members, members[3]]))


def test_every_truncation_is_refused(signed, judge):
    for size in range(len(signed)):
        with pytest.raises((FormatError, VerificationError)):
            judge(signed[:size])


def test_no_sampled_bit_of_a_signed_vib_can_change(signed, judge):
    report = flip_bits(signed, judge, range(0, 8 * len(signed), 7))
    assert report.tried > 3_000
    assert (report.accepted, report.escaped) == ((), ())


def test_no_bit_of_the_archive_headers_can_change(signed, judge):
    offsets = [0]
    position = 8
    for member in read_ar(signed):
        offsets += range(position, position + 60)
        position += 60 + len(member.data) + len(member.data) % 2
    report = flip_bits(signed, judge, [8 * offset + bit for offset in offsets for bit in range(8)])
    assert (report.accepted, report.escaped) == ((), ())


def test_no_bit_of_the_descriptor_can_change(signed, judge):
    xml = read_ar(signed)[0].data
    first = signed.index(xml)
    report = flip_bits(signed, judge, range(8 * first, 8 * (first + len(xml)), 7))
    assert (report.accepted, report.escaped) == ((), ())


def faulty(data, draw):
    """Return the bytes with one fault: a run cut out, repeated, overwritten, or swapped with the next."""
    start = draw(st.integers(0, len(data) - 1))
    size = draw(st.integers(1, 80))
    piece, rest = data[start : start + size], data[start + size :]
    head = data[:start]
    return draw(
        st.sampled_from(
            [
                head + rest,
                head + piece + piece + rest,
                head + bytes(len(piece)) + rest,
                head + rest[:size] + piece + rest[size:],
                data[:start],
                data + piece,
            ]
        )
    )


@settings(max_examples=400)
@given(st.data())
def test_whatever_is_done_to_a_signed_vib_is_refused(signed, judge, data):
    changed = faulty(signed, data.draw)
    if changed == signed:
        assert judge(changed).level is PARTNER
        return
    with pytest.raises((FormatError, VerificationError)):
        judge(changed)


def test_the_signature_covers_elements_that_nobody_knows(signed, world_pki, epoch):
    vib = read_vib(signed)
    xml = vib.descriptor_xml.replace(b"<overlay>", b"<future>1</future><overlay>")
    with pytest.raises(SignatureError):
        verify_record(xml, vib.signature, world_pki.trust, epoch)


def test_a_damaged_community_vib_is_refused_by_its_checksums(make, judge):
    data = make(COMMUNITY)
    start = data.index(PAYLOADS[0].data)
    with pytest.raises(PayloadError):
        judge(flip_bit(data, 8 * start + 40))


def test_payloads_that_declare_too_much_together_are_refused(make, monkeypatch):
    data = make(COMMUNITY)
    monkeypatch.setattr(vib_module, "VIB_CONTENT_BYTES_MAX", 20)
    with pytest.raises(LimitError, match="declare"):
        read_vib(data)


def test_an_oversized_signature_is_refused_before_parsing(signed, monkeypatch):
    monkeypatch.setattr(vib_module, "SIGNATURE_BYTES_MAX", 10)
    with pytest.raises(LimitError, match=r"sig\.pkcs7"):
        parse_vib(signed)


def test_a_signed_descriptor_has_a_strong_digest_of_what_unpacks(signed, world_pki, epoch):
    """Real community VIBs give the SHA-1 alone; a signed VIB that does is refused, its signature good as it is."""
    vib = read_vib(signed)
    strong = re.compile(rb'<checksum checksum-type="sha-256" verify-process="gunzip">[0-9a-f]+</checksum>')
    xml, count = strong.subn(b"", vib.descriptor_xml)
    assert count >= 1
    signature = sign_detached(xml, world_pki.signer(vib.descriptor.level.xml_name), epoch)
    weak = attrs.evolve(vib, descriptor_xml=xml, signature=signature)
    with pytest.raises(VibError, match="only a sha-1 checksum of its unpacked content") as caught:
        verify_vib(weak, world_pki.trust, epoch)
    assert caught.value.check == "vib.content-digest"
    lower = xml.replace(b"<acceptance-level>partner<", b"<acceptance-level>community<")
    assert lower != xml
    community = attrs.evolve(vib, descriptor_xml=lower, signature=b"")
    assert verify_vib(community, world_pki.trust, epoch).provider is None


@pytest.mark.parametrize("kind", ["vgz", "tgz", "boot"])
def test_what_is_packed_has_a_checksum_of_what_it_unpacks_to(signed, kind):
    vib = read_vib(signed)
    sums = re.compile(rb'<checksum [^>]*verify-process="gunzip">[0-9a-f]+</checksum>')
    xml = sums.sub(b"", vib.descriptor_xml).replace(b'type="vgz"', f'type="{kind}"'.encode())
    if kind != "boot":
        with pytest.raises(FormatError, match="has no checksum of its unpacked content"):
            parse_descriptor(xml)
        return
    payloads = tuple(attrs.evolve(each, kind="boot") for each in vib.payloads)
    with pytest.raises(PayloadError, match="is gzip, and its descriptor has no checksum") as caught:
        read_vib(write_vib(attrs.evolve(vib, descriptor_xml=xml, payloads=payloads)))
    assert caught.value.check == "payload.gunzip"


@pytest.mark.parametrize("kind", ["vgz", "tgz"])
def test_a_packed_kind_that_is_no_gzip_is_refused(epoch, kind):
    spec = Descriptor(
        name="raw", version="1.0-1", vendor="Example", level=AcceptanceLevel.COMMUNITY_SUPPORTED
    )
    with pytest.raises(FormatError, match="has no checksum of its unpacked content"):
        build_vib(spec, [Payload(name="p", kind=kind, data=b"no gzip")], None, epoch)
    entry = attrs.evolve(
        describe_payload("p", kind, b"no gzip"),
        checksums=(
            *describe_payload("p", kind, b"no gzip").checksums,
            *(one for one in describe_payload("p", kind, gzip_stored(b"")).checksums if one.process),
        ),
    )
    xml = write_descriptor(attrs.evolve(spec, payloads=(entry,)))
    vib = Vib(descriptor_xml=xml, signature=b"", payloads=(Payload(name="p", kind=kind, data=b"no gzip"),))
    with pytest.raises(PayloadError, match="cannot be unpacked") as caught:
        read_vib(write_vib(vib))
    assert caught.value.check == "payload.sha-256.gunzip"
