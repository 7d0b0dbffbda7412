"""Issues certificate revocation lists, repeatably.

Models: an authority's second desk.  All that is in a list comes from the caller, and the signature is made without a
random source, so equal arguments give equal bytes.  Further extensions can be asked for, critical ones too: the tests
of the reader need lists that no honest authority would issue.

Leaves out: delta lists; the time at which each certificate was revoked is that of the list.

Sources: RFC 5280, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from attrs import frozen

from sim.image import algorithms, der
from sim.image.certificate import load_certificate
from sim.image.issue import Identity

__all__ = ["CrlSpec", "issue_crl"]

_NUMBER = "2.5.29.20"
_TRUE = der.tlv(der.BOOLEAN, b"\xff")


@frozen(kw_only=True)
class CrlSpec:
    """What to write into a list; `extra` holds (object identifier, critical, encoded value) of further extensions.

    `entry_extra` holds such extensions for each entry.
    """

    this_update: datetime
    next_update: datetime
    serials: tuple[int, ...] = ()
    number: int = 1
    digest: str = "sha256"
    extra: tuple[tuple[str, bool, bytes], ...] = ()
    entry_extra: tuple[tuple[str, bool, bytes], ...] = ()


def issue_crl(spec: CrlSpec, issuer: Identity) -> bytes:
    """Return the list in DER, signed by the authority."""
    key = issuer.private_key
    algorithm = algorithms.signature_identifier(algorithms.key_type(key), spec.digest)
    number = (_NUMBER, False, der.encode_integer(spec.number))
    entries = [_entry(serial, spec) for serial in spec.serials]
    body = der.tlv(
        der.SEQUENCE,
        der.encode_integer(1),
        algorithm,
        load_certificate(issuer.certificate_der).subject,
        der.encode_time(spec.this_update),
        der.encode_time(spec.next_update),
        *([der.tlv(der.SEQUENCE, *entries)] if entries else []),
        der.tlv(0xA0, _extensions((number, *spec.extra))),
    )
    signature = algorithms.sign(key, body, spec.digest)
    return der.tlv(der.SEQUENCE, body, algorithm, der.tlv(der.BIT_STRING, b"\0", signature))


def _entry(serial: int, spec: CrlSpec) -> bytes:
    extensions = [_extensions(spec.entry_extra)] if spec.entry_extra else []
    return der.tlv(der.SEQUENCE, der.encode_integer(serial), der.encode_time(spec.this_update), *extensions)


def _extensions(extensions: Iterable[tuple[str, bool, bytes]]) -> bytes:
    return der.tlv(
        der.SEQUENCE,
        *(
            der.tlv(
                der.SEQUENCE,
                der.encode_oid(oid),
                *([_TRUE] if critical else []),
                der.tlv(der.OCTET_STRING, value),
            )
            for oid, critical, value in extensions
        ),
    )
