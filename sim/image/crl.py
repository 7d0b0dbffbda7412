"""Certificate revocation lists: the strict reader of one, and the question whether a chain is revoked by those held.

Models: version 2 lists in DER with an allowed signature algorithm; the issuer's name, key, key usage and signature;
the two times that bound a list's use; revoked serial numbers.  A list answers for the certificates that its issuer
issued and for no others.  `RevocationPolicy` says what happens where the lists are silent: by default an authority
without list is taken, and a list that is past its nextUpdate, or not in force yet, refuses everything that its issuer
signed, so that withholding new lists gains an attacker nothing.

Leaves out: delta lists, indirect lists and lists split by distribution point, whose extensions are critical, so they
are refused; a certificate on hold counts as revoked.  A list may hold at most `sim.image.der.ELEMENTS_MAX` serial
numbers.  How lists reach a host is not modelled.

Sources: RFC 5280, sections 5 and 6.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

from attrs import field, frozen

from sim.errors import FormatError
from sim.image import algorithms, der
from sim.image.certificate import Certificate, load_certificate
from sim.image.trust import RevocationPolicy, SignatureError

__all__ = ["CRL_BYTES_MAX", "RevocationList", "check_revocation", "load_crl"]

CRL_BYTES_MAX = 1 << 18

_WHAT = "revocation list"
_VERSION_2 = der.encode_integer(1)
_TRUE = der.tlv(der.BOOLEAN, b"\xff")
_TIMES = (der.UTC_TIME, der.GENERALIZED_TIME)
_EXTENSIONS = 0xA0
_NUMBER = der.encode_oid("2.5.29.20")


@frozen(kw_only=True)
class RevocationList:
    """One list: its issuer's encoded name, the times between which it may be used, and the serial numbers on it."""

    issuer: bytes
    this_update: datetime
    next_update: datetime
    number: int
    serials: frozenset[int]
    body: bytes = field(repr=False)
    signature_algorithm: tuple[str, str]
    signature: bytes = field(repr=False)

    def is_signed_by(self, issuer: Certificate) -> bool:
        """Tell whether the issuer's key made this list's signature."""
        kind, digest = self.signature_algorithm
        return kind == algorithms.key_type(issuer.public_key) and algorithms.verify(
            issuer.public_key, self.signature, self.body, digest
        )


@lru_cache(maxsize=256)
def load_crl(data: bytes) -> RevocationList:
    """Read a list; whose it is, is not checked here.

    Raises SignatureError with check "crl", "crl-algorithm" or "crl-critical-extension".
    """
    if len(data) > CRL_BYTES_MAX:
        raise SignatureError(
            "crl", f"{len(data)} bytes in a revocation list, at most {CRL_BYTES_MAX} are read"
        )
    try:
        der.check_canonical(data, _WHAT)
        return _read(data)
    except FormatError as error:
        raise SignatureError("crl", str(error)) from error


def check_revocation(
    path: Sequence[Certificate], crls: Sequence[bytes], policy: RevocationPolicy, now: datetime
) -> None:
    """Demand that no certificate of the path, signer first, is on a list of its issuer at the (simulated) time `now`.

    Raises SignatureError "revoked" for one that is, "crl-missing" or "crl-validity" where the policy wants a list that
    is not there or not in force, "crl-issuer" or "crl-signature" for a list that claims an issuer falsely.
    """
    if not crls and policy.missing == "allow":
        return
    for certificate, issuer in pairwise(path):
        current = _current_list(crls, issuer.der)
        if current is None:
            if policy.missing == "refuse":
                raise SignatureError("crl-missing", f"there is no revocation list of {issuer.title}")
            continue
        _check_times(current, issuer, policy, now)
        if certificate.serial in current.serials:
            raise SignatureError(
                "revoked", f"the certificate of {certificate.title} is revoked by {issuer.title}"
            )


@lru_cache(maxsize=256)
def _current_list(crls: Sequence[bytes], issuer_der: bytes) -> RevocationList | None:
    """Return the newest list of an issuer; each one that bears its name must bear its signature too."""
    issuer = load_certificate(issuer_der)
    own = [one for one in map(load_crl, crls) if one.issuer == issuer.subject]
    for one in own:
        if not issuer.crl_sign:
            raise SignatureError(
                "crl-issuer", f"the key usage of {issuer.title} does not allow revocation lists"
            )
        if not one.is_signed_by(issuer):
            raise SignatureError(
                "crl-signature", f"a revocation list in the name of {issuer.title} is not signed by it"
            )
    return max(own, key=lambda one: (one.this_update, one.number), default=None)


def _check_times(
    current: RevocationList, issuer: Certificate, policy: RevocationPolicy, now: datetime
) -> None:
    if now < current.this_update:
        raise SignatureError(
            "crl-validity",
            f"the revocation list of {issuer.title} is not in force before {current.this_update.isoformat()}",
        )
    if now > current.next_update and policy.stale == "refuse":
        raise SignatureError(
            "crl-validity",
            f"the revocation list of {issuer.title} expired at {current.next_update.isoformat()}",
        )


def _read(data: bytes) -> RevocationList:
    outer = der.elements(der.only(data, der.SEQUENCE, _WHAT), _WHAT)
    if [element[0] for element in outer] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise FormatError(_WHAT, "", "expected contents, algorithm and signature")
    body = der.elements(outer[0][1], _WHAT)
    if len(body) < 6 or body[0][2] != _VERSION_2 or body[-1][0] != _EXTENSIONS:
        raise FormatError(_WHAT, "contents", "expected the fields of a version 2 list with extensions")
    if [element[0] for element in body[1:3]] != [der.SEQUENCE, der.SEQUENCE]:
        raise FormatError(_WHAT, "contents", "expected an algorithm and a name")
    if len(body) > 7 or body[3][0] not in _TIMES or body[4][0] not in _TIMES:
        raise FormatError(_WHAT, "contents", "expected thisUpdate and nextUpdate, and at most one list")
    algorithm = algorithms.SIGNATURE_ALGORITHMS.get(outer[1][2], ("", ""))
    if outer[1][2] != body[1][2] or not algorithm[1]:
        raise SignatureError(
            "crl-algorithm", "a revocation list is signed with an algorithm that is not allowed"
        )
    this_update, next_update = der.read_time(body[3], _WHAT), der.read_time(body[4], _WHAT)
    if next_update < this_update:
        raise FormatError(_WHAT, "nextUpdate", "lies before thisUpdate")
    if outer[2][1][:1] != b"\0":
        raise FormatError(_WHAT, "signature", "expected whole bytes")
    extensions = _read_extensions(der.only(body[-1][1], der.SEQUENCE, _WHAT))
    return RevocationList(
        issuer=body[2][2],
        this_update=this_update,
        next_update=next_update,
        number=_read_number(extensions.get(_NUMBER)),
        serials=_read_serials(der.tagged(body[5], der.SEQUENCE, _WHAT)) if len(body) == 7 else frozenset(),
        body=outer[0][2],
        signature_algorithm=algorithm,
        signature=outer[2][1][1:],
    )


def _read_serials(data: bytes) -> frozenset[int]:
    serials: set[int] = set()
    for element in der.elements(data, _WHAT):
        fields = der.elements(der.tagged(element, der.SEQUENCE, _WHAT), _WHAT)
        if len(fields) not in (2, 3) or fields[0][0] != der.INTEGER:
            raise FormatError(_WHAT, "entry", "expected a serial number, a time, and perhaps extensions")
        serial = der.read_integer(fields[0][1], _WHAT)
        if serial <= 0 or serial in serials:
            raise FormatError(_WHAT, "entry", "expected each serial number once, and positive")
        der.read_time(fields[1], _WHAT)
        if len(fields) == 3:
            _read_extensions(der.tagged(fields[2], der.SEQUENCE, _WHAT))
        serials.add(serial)
    if not serials:
        raise FormatError(_WHAT, "entries", "an empty list must be left out")
    return frozenset(serials)


def _read_extensions(data: bytes) -> dict[bytes, bytes]:
    """Return encoded identifier -> value; none is understood well enough here to be critical."""
    values: dict[bytes, bytes] = {}
    for element in der.elements(data, _WHAT):
        fields = der.elements(der.tagged(element, der.SEQUENCE, _WHAT), _WHAT)
        critical = len(fields) == 3 and fields[1][2] == _TRUE
        if len(fields) != 2 + critical or fields[0][0] != der.OBJECT_IDENTIFIER or fields[0][2] in values:
            raise FormatError(_WHAT, "extensions", "expected each extension once, with identifier and value")
        if critical:
            oid = der.read_oid(fields[0][1], _WHAT)
            raise SignatureError(
                "crl-critical-extension",
                f"a revocation list has the critical extension {oid}, not understood here",
            )
        values[fields[0][2]] = der.tagged(fields[-1], der.OCTET_STRING, _WHAT)
    return values


def _read_number(value: bytes | None) -> int:
    if value is None:
        raise FormatError(_WHAT, "extensions", "a list without its number")
    number = der.read_integer(der.only(value, der.INTEGER, _WHAT), _WHAT)
    if number < 0:
        raise FormatError(_WHAT, "number", "is negative")
    return number
