"""Attacks on signed modules, VIBs and depots, one test each; `threats.py` says how a row is made."""

import io
import re
from datetime import timedelta
from hashlib import sha256

import attrs
import pytest

from sim.core.rng import Stream
from sim.errors import FormatError, LimitError, VerificationError
from sim.image import der
from sim.image.ar import ArMember, read_ar, write_ar
from sim.image.bankcheck import verify_bank
from sim.image.bitflips import flip_bits
from sim.image.boundedxml import parse_xml
from sim.image.bundle import DepotPolicy, check_depot, depot_of, read_bundle, read_declared, write_bundle
from sim.image.certificate import CODE_SIGNING, load_certificate
from sim.image.cms import sign_detached, verify_detached
from sim.image.issue import issue
from sim.image.metadata import Relation
from sim.image.payload import content_of
from sim.image.profile import ImageProfile, apply_profile
from sim.image.tar import EntryKind, TarEntry, read_ustar, with_parents
from sim.image.trailer import verify_module
from sim.image.vib import parse_vib, read_vib, write_vib
from sim.image.vtar import read_vtar, write_vtar
from tests.unit.image import test_cms as chains
from tests.unit.image import test_cms_structure as structure
from tests.unit.image.test_boundedxml import billion_laughs

from .archives import DAY, PARTNER, archive_of, cheap, members, refused
from .threats import threat


@threat(
    "A2",
    threat="a bit of descriptor.xml is changed",
    stopped_by="the detached signature over all bytes of the descriptor (`sim.image.cms`)",
    evidence="check message-digest, or a format error where it is no descriptor any more",
    not_covered="descriptors of unsigned community VIBs",
    anchor="CVE-2021-20271, RPM header",
)
def test_a2_no_bit_of_a_descriptor_can_change(make, judge):
    data = make()
    start = data.index(members(data)["descriptor.xml"])
    report = flip_bits(data, judge, range(8 * start, 8 * (start + len(members(data)["descriptor.xml"]))))
    assert (report.accepted, report.escaped) == ((), ())
    assert report.refused["message-digest"] > 500


@threat(
    "A3",
    threat="the archive is cut off at some byte",
    stopped_by="sizes of archive members, and a member for each payload listed (`sim.image.ar`, `sim.image.vib`)",
    evidence="a format error at every length",
    not_covered="nothing known",
    anchor="fuzzing of go-attestation",
)
def test_a3_no_truncated_archive_is_accepted(make, judge):
    data = make()
    for length in range(len(data)):
        with pytest.raises((FormatError, VerificationError)):
            judge(data[:length])


@threat(
    "A4",
    threat="a chain ends in another root of the same name",
    stopped_by="roots pinned by their bytes; names decide nothing (`sim.image.chain`)",
    evidence="check chain",
    not_covered="theft of a pinned root's key",
    anchor="CurveBall, CVE-2020-0601",
)
def test_a4_another_root_of_the_same_name_is_no_root():
    good, other = chains.world(), chains.world(seed=b"other")
    roots = [load_certificate(one.root.certificate_der) for one in (good, other)]
    assert roots[0].subject == roots[1].subject
    refused("chain", verify_detached, b"data", other.sign(), good.trust, chains.EPOCH)


@threat(
    "A5",
    threat="a signer whose certificate has expired goes on signing",
    stopped_by="validity of every certificate of the path at the simulated time (`sim.image.chain`)",
    evidence="check validity after notAfter; accepted up to its last second",
    not_covered="an installed VIB is refused from then on too, by the next Secure Boot: there are no time stamps",
    anchor="key vmware_esx40, expired and still trusted, in esx-boot",
)
def test_a5_an_expired_signer_is_refused(small_image, world_pki, make, put):
    good, end = chains.world(), chains.LEAF.not_after
    assert verify_detached(b"data", good.sign(), good.trust, end).level == "partner"
    refused("validity", verify_detached, b"data", good.sign(), good.trust, end + timedelta(seconds=1))
    bank = put(make()).bank
    after = load_certificate(world_pki.signer("partner").certificate_der).not_after + DAY
    report = verify_bank(bank.files, world_pki.trust, after, PARTNER, secure_boot=True)
    assert {failure.check for failure in report.failures} == {"validity"}


@threat(
    "A6",
    threat="the clock is set back before the certificates begin",
    stopped_by="notBefore of every certificate of the path (`sim.image.chain`)",
    evidence="check validity",
    not_covered="a clock set back within the validity, to use a certificate revoked since: CRLs have times of their own",
    anchor="freeze attacks of TUF",
)
def test_a6_a_clock_before_the_certificates_is_refused():
    good, begin = chains.world(), chains.LEAF.not_before
    assert verify_detached(b"data", good.sign(), good.trust, begin)
    refused("validity", verify_detached, b"data", good.sign(), good.trust, begin - timedelta(seconds=1))


@threat(
    "A8",
    threat="the signature of one VIB is put into another",
    stopped_by="the digest of the content among the signed attributes (`sim.image.signed_data`)",
    evidence="check message-digest",
    not_covered="nothing known",
    anchor="CVE-2020-10759, fwupd",
)
def test_a8_a_transplanted_signature_is_refused(make, judge):
    mine, other = members(make()), members(make("other"))
    refused("message-digest", judge, archive_of({**mine, "sig.pkcs7": other["sig.pkcs7"]}))


@threat(
    "A11",
    threat="members of the archive are reordered, or one is smuggled in",
    stopped_by="the one order that the descriptor gives (`sim.image.vib`)",
    evidence="a format error that names the position",
    not_covered="nothing known",
    anchor="layout of real VIBs",
)
def test_a11_only_listed_members_in_their_order(make, judge):
    parts = members(make())
    for names in (["sig.pkcs7", "descriptor.xml", "tool"], ["descriptor.xml", "tool", "sig.pkcs7"]):
        refused(None, judge, archive_of({name: parts[name] for name in names}))
    assert "not in the descriptor" in refused(None, judge, archive_of({**parts, "extra": b"x"}))


@threat(
    "A12",
    threat="the size of a member is negative, too large, no number, or its padding is missing",
    stopped_by="one spelling of each header field, and bounds before any slice (`sim.image.ar`)",
    evidence="a format error for each",
    not_covered="nothing known",
    anchor="go-attestation 31ad4f5, f365b32, f0e8d0f",
)
@pytest.mark.parametrize("size", [b"-1", b"+5", b"0x10", b"9999999999", b"1e3", b"", b" 12", b"2"])
def test_a12_a_size_that_lies_is_refused(size):
    archive = write_ar([ArMember(name="a", data=b"12345")])
    refused(None, read_ar, archive[:56] + size.ljust(10) + archive[66:])
    refused(None, read_ar, archive[:-1])


def test_a12_one_byte_more_or_less_of_any_member_is_refused(make, judge):
    data = make()
    for member in read_ar(data):
        at = data.index(member.name.encode().ljust(16)) + 48
        size = len(member.data)
        assert int(data[at : at + 10]) == size
        for wrong in (size - 1, size + 1, size + 2, len(data), -size):
            with pytest.raises((FormatError, VerificationError)):
                judge(data[:at] + b"%-10d" % wrong + data[at + 10 :])


@threat(
    "A13",
    threat="a payload's path leaves the folder that it is unpacked in",
    stopped_by="`sim.image.paths`: relative parts only, no file under a link, no link out of the root; over several payloads "
    "and VIBs the tree of the whole image (`sim.image.tree`), at installation",
    evidence="a format error before anything is unpacked; ProfileValidationError for the tree, even under force",
    not_covered="a bank that was written by hand, without an installation; a path that is inside and not the VIB's business: "
    "the path rules of the levels are for that",
    anchor="CVE-2007-4559, Zip Slip, CVE-2021-41131",
)
def test_a13_payload_paths_do_not_leave_the_root():
    import tarfile

    def packed(*entries):
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, kind, link in entries:
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.size = kind, link, 0
                archive.addfile(info)
        return target.getvalue()

    file, link, hard = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    for entries in (
        [("../etc/passwd", file, "")],
        [("/etc/passwd", file, "")],
        [("a\\..\\b", file, "")],
        [("a/../../b", file, "")],
        [("opt/l", link, "../../etc")],
        [("opt", link, "etc"), ("opt/passwd", file, "")],
        [("opt/h", hard, "../etc/passwd")],
    ):
        refused(None, read_ustar, packed(*entries))
    assert read_ustar(packed(("opt/tool", file, "")))[0].kind is EntryKind.FILE
    honest = TarEntry(path="opt/a/etc/passwd", data=b"x")
    archive = write_vtar(with_parents([honest]))
    assert read_vtar(archive)[-1] == honest
    for path in (b"../../etc/passwd", b"/opt/aetc/passwd", b"opt\\a\\etc\\passwd", b"opt/../../passwd"):
        refused(None, read_vtar, archive.replace(b"opt/a/etc/passwd", path))


def test_a13_no_payload_and_no_vib_opens_a_way_out_for_another(bring, put):
    out, under = TarEntry(path="opt/x", kind=EntryKind.SYMLINK, target="/etc"), TarEntry(path="opt/x/passwd")
    up = TarEntry(path="opt/up", kind=EntryKind.SYMLINK, target="..")
    beyond = TarEntry(path="opt/beyond", kind=EntryKind.SYMLINK, target="up/..")
    check = "ProfileValidationError"
    for first, second in ((out, under), (under, out), (up, beyond)):
        one, two = bring([first], name="one"), bring([second], name="two")
        installed = put(one).bank
        for force in (False, True):
            assert "opt/" in refused(check, put, bring([first], [second]), force=force)
            assert "VIB Example_bootbank_two" in refused(check, put, two, on=installed, force=force)
    assert put(bring([under], [TarEntry(path="opt/y", kind=EntryKind.SYMLINK, target="x/passwd")])).installed


@threat(
    "A15",
    threat="XML entities that expand a thousand times over",
    stopped_by="any document type or entity declaration is refused (`sim.image.boundedxml`)",
    evidence="a format error before anything expands",
    not_covered="nothing known",
    anchor="CVE-2003-1564, CVE-2013-0340",
)
@pytest.mark.parametrize("levels", [7, 10])
def test_a15_entities_never_expand(levels):
    assert "declaration" in cheap(None, parse_xml, billion_laughs(levels), "test")


@threat(
    "A16",
    threat="elements nested two hundred thousand deep",
    stopped_by="a depth limit while reading (`sim.image.boundedxml`)",
    evidence="a limit error",
    not_covered="faults of expat itself below that depth",
    anchor="libexpat CVE-2024-8176",
)
def test_a16_deep_nesting_is_refused():
    assert "nested deeper" in cheap(None, parse_xml, b"<a>" * 200_000, "test")


@threat(
    "A17",
    threat="weak algorithms in a signature: SHA-1, MD5, RSA of 1,024 bits",
    stopped_by="a table of exact algorithm identifiers and limits on keys (`sim.image.algorithms`)",
    evidence="checks digest-algorithm, signature-algorithm and key",
    not_covered="the SHA-1 bank of a TPM and the sha-1 checksums beside sha-256 ones",
    anchor="SHAttered; the kernel's CONFIG_MODULE_SIG options",
)
def test_a17_weak_algorithms_are_refused():
    from cryptography.hazmat.primitives.asymmetric import rsa

    from sim.image import algorithms

    forge, weak = structure.Forge, structure.SHA1
    good = structure.check_of
    assert good(forge(digest=weak, digests=der.encode_set_of((weak,))).build()) == "digest-algorithm"
    assert (
        good(forge(digest=structure.MD5, digests=der.encode_set_of((structure.MD5,))).build())
        == "digest-algorithm"
    )
    assert good(forge(algorithm=structure.MD5_RSA).build()) == "signature-algorithm"
    assert good(forge(algorithm=structure.ECDSA_SHA1).build()) == "signature-algorithm"
    small = rsa.RSAPublicNumbers(65537, (1 << 1023) + 1155).public_key()
    assert "1024 bits" in algorithms.key_problem(small)
    above = structure.WORLD.authorities["partner"]
    leaf = issue(chains.LEAF, source=Stream(b"weak"), issuer=above, algorithm="rsa-1024")
    bag = der.encode_set_of((leaf.certificate_der, above.certificate_der), 0xA0)
    assert good(forge(bag=bag, identity=leaf).build()) == "key"


@threat(
    "A18",
    threat="a descriptor offers only the weak checksum of a payload",
    stopped_by="a sha-256 of the stored file is demanded of every payload, a checksum of the content of every packed one "
    "(`sim.image.descriptor`), and under a signature a sha-256 of it (`sim.image.vib`)",
    evidence="a format error, or check vib.content-digest",
    not_covered="community VIBs, which give a sha-1 of the content beside the sha-256 of the file that holds it",
    anchor="real VIBs, which carry sha-256 and sha-1",
)
def test_a18_a_payload_without_sha256_is_refused(make, world_pki, epoch, judge):
    parts = members(make())
    unpacked = re.compile(rb'<checksum checksum-type="sha-256" verify-process="gunzip">[0-9a-f]+</checksum>')
    xml, count = unpacked.subn(b"", parts["descriptor.xml"])
    signature = sign_detached(xml, world_pki.signer("partner"), epoch)
    assert count == 1
    refused("vib.content-digest", judge, archive_of({**parts, "descriptor.xml": xml, "sig.pkcs7": signature}))
    whole = parts["descriptor.xml"]
    stored = re.search(rb'<checksum checksum-type="sha-256">[0-9a-f]+</checksum>', whole)[0]
    for xml in (
        whole.replace(b'checksum-type="sha-256"', b'checksum-type="sha-1"'),
        whole.replace(stored, b""),
        re.sub(rb"<checksum.*</checksum>", b"", whole),
        re.sub(rb'<checksum [^>]*verify-process="gunzip">[0-9a-f]+</checksum>', b"", whole),
    ):
        assert xml != whole
        signature = sign_detached(xml, world_pki.signer("partner"), epoch)
        refused(None, parse_vib, archive_of({**parts, "descriptor.xml": xml, "sig.pkcs7": signature}))


@threat(
    "A19",
    threat="a certificate for servers, for anything or for nothing signs a module",
    stopped_by="code signing must be the one extended key usage (`sim.image.chain`)",
    evidence="check extended-key-usage",
    not_covered="nothing known; the openssl program with -purpose any accepts it",
    anchor="measured on openssl",
)
@pytest.mark.parametrize(
    "usages", [(), (chains.SERVER_AUTH,), (chains.ANY_USAGE,), (CODE_SIGNING, chains.SERVER_AUTH)]
)
def test_a19_only_code_signers_sign(usages):
    bad = chains.world(leaf=attrs.evolve(chains.LEAF, extended_usages=usages))
    refused("extended-key-usage", verify_detached, b"data", bad.sign(), bad.trust, chains.EPOCH)


@threat(
    "A20",
    threat="a code signer issues certificates itself",
    stopped_by="basic constraints, key usage and path length of every authority (`sim.image.chain`)",
    evidence="check basic-constraints, or path-length",
    not_covered="nothing known",
    anchor="a classic of TLS libraries",
)
def test_a20_a_signer_is_no_authority():
    good = chains.world()
    forged = issue(chains.LEAF, source=Stream(b"forged"), issuer=good.signer)
    signer = chains.signer_of(forged, good.signer.certificate_der, good.issuer.certificate_der)
    signature = sign_detached(b"x", signer, chains.EPOCH)
    refused("basic-constraints", verify_detached, b"x", signature, good.trust, chains.EPOCH)
    below = attrs.evolve(chains.AUTHORITY, common_name="below", path_length=None)
    middle = issue(below, source=Stream(b"below"), issuer=good.issuer)
    leaf = issue(chains.LEAF, source=Stream(b"last"), issuer=middle)
    chain = (middle.certificate_der, good.issuer.certificate_der)
    signature = sign_detached(b"x", chains.signer_of(leaf, *chain), chains.EPOCH)
    refused("path-length", verify_detached, b"x", signature, good.trust, chains.EPOCH)


@threat(
    "A21",
    threat="a detached signature carries content of its own",
    stopped_by="embedded content is refused, whatever it is (`sim.image.cms`)",
    evidence="check embedded-content",
    not_covered="nothing known",
    anchor="confusion of attached and detached CMS",
)
def test_a21_embedded_content_is_refused():
    for content in (structure.CONTENT, b"other"):
        embedded = der.tlv(der.SEQUENCE, structure.DATA, der.tlv(0xA0, der.tlv(4, content)))
        assert structure.check_of(structure.Forge(content=embedded).build()) == "embedded-content"


@threat(
    "A22",
    threat="BER in place of DER: other bytes, same meaning",
    stopped_by="one spelling of every length and value (`sim.image.der`)",
    evidence="check der",
    not_covered="text encodings inside names, which are compared as bytes",
    anchor="BERserk",
)
@pytest.mark.parametrize("change", [structure.indefinite, structure.long_length])
def test_a22_ber_is_refused(change):
    assert structure.check_of(change(structure.GOOD)) == "der"


def test_a22_constructed_strings_are_refused():
    digest = sha256(structure.CONTENT).digest()
    halves = der.tlv(0x24, der.tlv(der.OCTET_STRING, digest[:16]), der.tlv(der.OCTET_STRING, digest[16:]))
    pieces = (structure.TYPE, structure.attribute("4", halves), structure.TIME)
    assert structure.check_of(structure.Forge(attributes=pieces).build()) == "message-digest"
    forged = structure.Forge(signature_tag=der.OCTET_STRING | 0x20).build()
    assert structure.check_of(forged) == "structure"


@threat(
    "A24",
    threat="parts of different releases are mixed so that one lacks what it needs",
    stopped_by="dependencies of the whole image in one transaction (`sim.image.install`, `sim.image.profile`)",
    evidence="DependencyError; the bank is as it was",
    not_covered="a mix that satisfies every declared relation",
    anchor="mix and match tests of python-tuf",
)
def test_a24_a_mix_that_lacks_a_part_is_refused_whole(make, put, small_image, world_pki, epoch):
    before = dict(small_image.bank.files)
    wants = make("wants", depends=(Relation(name="tool", operator=">=", version="2.0"),))
    refused("DependencyError", put, wants, make())
    vibs = [*small_image.vibs, read_vib(wants), read_vib(make())]
    profile = ImageProfile(
        name="mix", vendor="Example", level=PARTNER, vib_ids=tuple(vib.vib_id for vib in vibs)
    )
    refused("DependencyError", apply_profile, small_image.bank, profile, vibs, world_pki.trust, epoch)
    assert dict(small_image.bank.files) == before
    assert len(put(wants, make(version="2.0-1")).installed) == 2


@threat(
    "A25",
    threat="a depot sends without end, or more than it declared",
    stopped_by="reading stops at the declared size and a limit (`sim.image.bundle.read_declared`)",
    evidence="a limit error after one byte too many; check depot.size in a bundle",
    not_covered="slow depots: the simulator has no network between depot and host",
    anchor="endless data tests of python-tuf",
)
def test_a25_reading_ends_at_the_declared_size(make, epoch):
    asked = []

    def endless(count):
        asked.append(count)
        return bytes(count)

    with pytest.raises(LimitError, match="goes on"):
        read_declared(endless, 1000, 1 << 20, "depot")
    assert sum(asked) == 1001
    bundle = write_bundle(depot_of([read_vib(make())], vendor="Example", made_at=epoch))
    refused(None, read_bundle, bundle + bytes(100))


@threat(
    "A26",
    threat="an old depot is served for ever, so that no update is ever seen",
    stopped_by="the age of the metadata under a policy (`sim.image.bundle.check_depot`)",
    evidence="check depot.age",
    not_covered="metadata with a forged date: it is not signed, in real depots neither",
    anchor="freeze tests of python-tuf",
)
def test_a26_old_metadata_is_refused(make, epoch):
    depot = read_bundle(write_bundle(depot_of([read_vib(make())], vendor="Example", made_at=epoch)))
    policy = DepotPolicy(age_max=30 * DAY)
    check_depot(depot, policy, epoch + 30 * DAY)
    refused("depot.age", check_depot, depot, policy, epoch + 31 * DAY)


@threat(
    "A29",
    threat="a key for VIBs signs an early kernel module, or the other way round",
    stopped_by="early modules are checked against the loader's keys alone, VIBs against the module root alone",
    evidence="check signature for an early module by a VIB's key; check chain for a VIB signed by an early key",
    not_covered="a theft of both keys",
    anchor="key separation",
)
def test_a29_keys_of_vibs_and_early_modules_are_apart(small_image, world_pki, epoch):
    from sim.image.trailer import sign_module

    early = world_pki.early_signers[0]
    foreign = attrs.evolve(early, identity=world_pki.signer("certified"))
    module = content_of(small_image.bank.files["procfs.b00"])
    plain = verify_module(module, world_pki.trust.early_keys).payload
    refused("signature", verify_module, sign_module(plain, foreign), world_pki.trust.early_keys)
    signer = attrs.evolve(
        world_pki.signer("certified"),
        certificate_der=early.identity.certificate_der,
        private_key_der=early.identity.private_key_der,
        chain=(),
    )
    refused("chain", verify_detached, b"x", sign_detached(b"x", signer, epoch), world_pki.trust, epoch)


@threat(
    "A30",
    threat="an element or attribute that nobody understands is slipped into or out of a signed descriptor",
    stopped_by="the signature is over the bytes; unknown elements and attributes are kept and named (`sim.image.descriptor`)",
    evidence="the paths of unknown elements and @attributes in `Descriptor.unknown`; check message-digest once one is gone",
    not_covered="what an unknown element or attribute would have meant",
    anchor="forward compatibility of formats",
)
@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (b"</vib>", b"<future>1</future></vib>", "vib/future"),
        (b"<vib ", b'<vib install="later" ', "vib/@install"),
        (b"<payload ", b'<payload execute="true" ', "vib/payloads/payload/@execute"),
    ],
)
def test_a30_unknown_elements_and_attributes_are_kept_and_covered(
    make, world_pki, epoch, judge, old, new, path
):
    vib = read_vib(make())
    xml = vib.descriptor_xml.replace(old, new)
    parts = members(make())
    signature = sign_detached(xml, world_pki.signer("partner"), epoch)
    known = archive_of({**parts, "descriptor.xml": xml, "sig.pkcs7": signature})
    assert judge(known).level is PARTNER
    assert read_vib(known).descriptor.unknown == (path,)
    assert write_vib(read_vib(known)) == known
    refused("message-digest", judge, archive_of({**parts, "sig.pkcs7": signature}))
