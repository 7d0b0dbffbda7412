"""What the reader of revocation lists says of what it refuses: the field, and the reason."""

from datetime import timedelta

import attrs
import pytest

from sim.image import der
from sim.image.algorithms import signature_identifier
from sim.image.certificate import load_certificate
from sim.image.crl import CRL_BYTES_MAX, check_revocation, load_crl
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.trust import RevocationPolicy

from .forge import EPOCH, LEAF, SIGNER, WORLD, refused

DAY = timedelta(days=1)
SPEC = CrlSpec(this_update=EPOCH - DAY, next_update=EPOCH + DAY, serials=(5, 6))
ISSUER = WORLD.authorities["partner"]
GOOD = issue_crl(SPEC, ISSUER)
OUTER = [element[2] for element in der.elements(der.only(GOOD, der.SEQUENCE, "t"), "t")]
BODY = [element[2] for element in der.elements(der.only(OUTER[0], der.SEQUENCE, "t"), "t")]
VERSION, ALGORITHM, NAME, THIS, NEXT, ENTRIES, EXTENSIONS = range(7)
TIME = der.encode_time(EPOCH)
NULL = der.tlv(der.NULL)
NUMBER = der.encode_oid("2.5.29.20")
TRUE = der.tlv(der.BOOLEAN, b"\xff")
TITLE = load_certificate(ISSUER.certificate_der).title


def listed(*body):
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, *body), *OUTER[1:])


def with_field(index, *values):
    return listed(*BODY[:index], *values, *BODY[index + 1 :])


def entries(*fields):
    return with_field(ENTRIES, der.tlv(der.SEQUENCE, *[der.tlv(der.SEQUENCE, *each) for each in fields]))


def extensions(*each):
    return with_field(EXTENSIONS, der.tlv(0xA0, der.tlv(der.SEQUENCE, *each)))


def extension(oid, value, *critical):
    return der.tlv(der.SEQUENCE, oid, *critical, der.tlv(der.OCTET_STRING, value))


ONE = der.encode_integer(1)
FIELDS = "contents: expected the fields of a version 2 list with extensions"
TIMES = "contents: expected thisUpdate and nextUpdate, and at most one list"
ENTRY = "entry: expected a serial number, a time, and perhaps extensions"
SERIAL = "entry: expected each serial number once, and positive"
EXTENSION = "extensions: expected each extension once, with identifier and value"
LONG_NUMBER = extension(NUMBER, der.encode_integer(2**40))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (der.tlv(der.SEQUENCE, *OUTER[:2]), "expected contents, algorithm and signature"),
        (listed(*BODY[:5]), FIELDS),
        (with_field(VERSION, der.encode_integer(2)), FIELDS),
        (listed(*BODY[:6], NULL), FIELDS),
        (with_field(ALGORITHM, NULL), "contents: expected an algorithm and a name"),
        (with_field(NAME, NULL), "contents: expected an algorithm and a name"),
        (with_field(THIS, NULL), TIMES),
        (with_field(NEXT, NULL), TIMES),
        (with_field(ENTRIES, BODY[ENTRIES], BODY[ENTRIES]), TIMES),
        (with_field(NEXT, der.encode_time(SPEC.this_update - DAY)), "nextUpdate: lies before thisUpdate"),
        (der.tlv(der.SEQUENCE, *OUTER[:2], der.tlv(der.BIT_STRING, b"\x01\x02")),
         "signature: expected whole bytes"),
        (entries((ONE,)), ENTRY),
        (entries((NULL, TIME)), ENTRY),
        (entries((ONE, TIME, der.tlv(der.SEQUENCE), NULL)), ENTRY),
        (entries((der.encode_integer(0), TIME)), SERIAL),
        (entries((ONE, TIME), (ONE, TIME)), SERIAL),
        (entries((ONE, NULL)), "expected a time in UTC with seconds"),
        (entries(), "entries: an empty list must be left out"),
        (extensions(LONG_NUMBER, LONG_NUMBER), EXTENSION),
        (extensions(der.tlv(der.SEQUENCE, NUMBER)), EXTENSION),
        (extensions(der.tlv(der.SEQUENCE, NULL, der.tlv(der.OCTET_STRING))), EXTENSION),
        (extensions(extension(NUMBER, ONE, der.tlv(der.BOOLEAN, b"\0"))), EXTENSION),
        (extensions(extension(der.encode_oid("1.2.3"), b"")), "extensions: a list without its number"),
        (extensions(extension(NUMBER, der.tlv(der.INTEGER, b"\xff"))), "number: is negative"),
        (extensions(extension(NUMBER, NULL)), "expected one element with tag 0x02, found 0x05"),
        (b"", "expected one element with tag 0x30, found nothing"),
    ],
)  # fmt: skip
def test_a_list_is_refused_by_field_and_reason(data, words):
    assert refused(load_crl, data) == ("crl", f"revocation list: {words}")


def test_what_may_be_left_out_and_the_bounds_that_still_hold():
    assert load_crl(listed(*BODY[:5], BODY[EXTENSIONS])).serials == frozenset()
    assert load_crl(entries((ONE, TIME, der.tlv(der.SEQUENCE)))).serials == {1}
    assert load_crl(extensions(extension(NUMBER, der.encode_integer(0)))).number == 0
    assert load_crl(extensions(LONG_NUMBER)).number == 2**40
    assert load_crl(with_field(NEXT, BODY[THIS])).next_update == SPEC.this_update
    size = CRL_BYTES_MAX
    assert refused(load_crl, bytes(size + 1)) == (
        "crl", f"{size + 1} bytes in a revocation list, at most {size} are read",
    )  # fmt: skip
    assert refused(load_crl, bytes(size))[1].startswith("revocation list: offset 0: ")


def test_algorithms_and_critical_extensions_are_refused_by_name():
    words = "a revocation list is signed with an algorithm that is not allowed"
    other = signature_identifier("ec", "sha384")
    assert refused(load_crl, with_field(ALGORITHM, other)) == ("crl-algorithm", words)
    words = "a revocation list has the critical extension 2.5.29.20, not understood here"
    assert refused(load_crl, extensions(extension(NUMBER, ONE, TRUE))) == ("crl-critical-extension", words)


PATH = tuple(load_certificate(each) for each in (SIGNER.certificate_der, *SIGNER.chain))
REFUSE = RevocationPolicy(missing="refuse")
PLAIN = RevocationPolicy()


def revocation(*lists, policy=PLAIN, now=EPOCH):
    return refused(check_revocation, PATH, lists, policy, now)


def test_what_a_list_says_of_a_path_is_told():
    assert check_revocation(PATH, (GOOD,), REFUSE, EPOCH) is None
    revoking = issue_crl(attrs.evolve(SPEC, serials=(LEAF.serial,)), ISSUER)
    assert revocation(revoking) == ("revoked", f"the certificate of {LEAF.title} is revoked by {TITLE}")
    assert revocation(policy=REFUSE) == ("crl-missing", f"there is no revocation list of {TITLE}")
    foreign = issue_crl(SPEC, WORLD.authorities["certified"])
    body = [element[2] for element in der.elements(der.only(foreign, der.SEQUENCE, "t"), "t")]
    parts = [element[2] for element in der.elements(der.only(body[0], der.SEQUENCE, "t"), "t")]
    parts[NAME] = BODY[NAME]
    false = der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, *parts), *body[1:])
    assert revocation(false) == (
        "crl-signature", f"a revocation list in the name of {TITLE} is not signed by it",
    )  # fmt: skip


def test_a_list_is_in_force_from_its_first_to_its_last_second():
    second = timedelta(seconds=1)
    for now in (SPEC.this_update, SPEC.next_update):
        assert check_revocation(PATH, (GOOD,), REFUSE, now) is None
    assert revocation(GOOD, now=SPEC.this_update - second) == (
        "crl-validity",
        f"the revocation list of {TITLE} is not in force before {SPEC.this_update.isoformat()}",
    )
    assert revocation(GOOD, now=SPEC.next_update + second) == (
        "crl-validity",
        f"the revocation list of {TITLE} expired at {SPEC.next_update.isoformat()}",
    )
    assert check_revocation(PATH, (GOOD,), RevocationPolicy(stale="use"), SPEC.next_update + second) is None


def test_of_two_lists_the_later_and_then_the_higher_number_counts():
    later = attrs.evolve(SPEC, serials=(LEAF.serial,))
    for spec in (
        attrs.evolve(later, this_update=EPOCH - DAY / 2),
        attrs.evolve(later, number=SPEC.number + 1),
    ):
        newer = issue_crl(spec, ISSUER)
        for order in ((GOOD, newer), (newer, GOOD)):
            assert revocation(*order)[0] == "revoked"
