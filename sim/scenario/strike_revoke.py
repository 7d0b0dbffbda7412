"""Carrying out a revocation: whoever runs the authorities lists a signer, and the list has reached the host.

Models: the three places where a host learns of it.  Signers of VIBs and keys of early modules are revoked by a list of
their authority, which then holds whom it listed before too, or by the digest of their certificate; the boot loader
through dbx, by its signer's certificate, by the digest of that, or by the digest of the one image.  A host reads its
trust store when it boots: what runs goes on until then.

Leaves out: how lists travel, and lists that come too late or not at all (`sim.image.trust.RevocationPolicy`).
"""

from __future__ import annotations

import difflib
from datetime import datetime, timedelta
from hashlib import sha256

from attrs import frozen

from sim.core.trace import record
from sim.errors import ScenarioError
from sim.image.certificate import Certificate, load_certificate
from sim.image.crl import load_crl
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.dbx import forbid_certificate, forbid_image
from sim.image.efi_lists import encode_signature_lists
from sim.image.issue import Identity
from sim.image.pki import Pki
from sim.image.trust import TrustStore
from sim.kernel.host import Host
from sim.scenario.faults import LOADER_TARGET, FaultSpec, FaultTarget

__all__ = ["REVOKED", "check_signer", "strike_revoke"]

REVOKED = record("fault.revoked", host=str, target=str, form=str, certificate=bytes)
"""A signer was revoked on a host, in this form; the certificate is named by its SHA-256."""

LIST_LIFE = timedelta(days=2 * 366)
"""How long a list is good for: longer than any run."""


@frozen(kw_only=True)
class _Listed:
    """A signer that can be revoked, and the authority whose list would say so."""

    certificate_der: bytes
    authority: Identity


def check_signer(fault: FaultSpec, number: int, pki: Pki) -> None:
    """Raise `ScenarioError` unless the signer that a fault revokes exists."""
    if fault.kind == "revoke" and fault.target != LOADER_TARGET:
        _find(fault, number, pki)


def strike_revoke(fault: FaultSpec, number: int, host: Host, pki: Pki) -> None:
    """Revoke the signer that fault `number` names, on this host and from its next boot on.

    Errors: `ScenarioError` for a signer that does not exist.
    """
    form = str(fault.revocation_form)
    if fault.target == LOADER_TARGET:
        certificate_der = pki.loader_signer.certificate_der
        _forbid(host, certificate_der, form)
    else:
        signer = _find(fault, number, pki)
        certificate_der = signer.certificate_der
        if form == "list":
            host.trust = _listing(host.trust, signer, host.sim.utc_now())
        else:
            host.trust = host.trust.revoking([certificate_der])
    digest = sha256(certificate_der).digest()
    host.sim.trace.emit(REVOKED, host.name, str(fault.target), form, digest)


def _forbid(host: Host, certificate_der: bytes, form: str) -> None:
    """Add an entry to dbx."""
    board = host.board
    if form == "image":
        path = board.spec.firmware.boot_path.replace("\\", "/").strip("/").lower()
        volume = board.disk.volume("esp")
        images = [volume.peek(one) for one in volume.paths() if one.lower() == path]
        entries = [forbid_image(image) for image in images]
    else:
        entries = [forbid_certificate(certificate_der, "sha256" if form == "digest" else None)]
    before = board.firmware.variables.get("dbx", b"")
    board.firmware.set_variable("dbx", before + encode_signature_lists(entries))


def _listing(trust: TrustStore, signer: _Listed, now: datetime) -> TrustStore:
    """Return a store with a new list of the authority, which names this signer and whom its last list named."""
    authority: Certificate = load_certificate(signer.authority.certificate_der)
    own = [one for one in map(load_crl, trust.crls) if one.issuer == authority.subject]
    serials = {load_certificate(signer.certificate_der).serial}.union(*(one.serials for one in own))
    spec = CrlSpec(
        this_update=now.replace(microsecond=0),
        next_update=now.replace(microsecond=0) + LIST_LIFE,
        serials=tuple(sorted(serials)),
        number=1 + max((one.number for one in own), default=0),
    )
    return trust.with_crls([issue_crl(spec, signer.authority)])


def _find(fault: FaultSpec, number: int, pki: Pki) -> _Listed:
    place, name = _split(str(fault.target))
    signers = {
        "early": {one.key.key_id: _early(one.identity, pki) for one in pki.early_signers},
        "signer": {
            f"{one.level}/{one.provider}": _Listed(
                certificate_der=one.certificate_der, authority=pki.authorities[one.level]
            )
            for one in pki.signers
        },
    }[place]
    if name not in signers:
        near = difflib.get_close_matches(name, signers, n=1)
        raise ScenarioError(
            f"faults[{number}].target",
            "there is no such signer",
            got=name,
            wanted=f"one of {', '.join(signers)}",
            nearest=near[0] if near else None,
        )
    return signers[name]


def _split(target: str) -> tuple[str, str]:
    parsed = FaultTarget.parse(target)
    return parsed.place, parsed.name


def _early(identity: Identity, pki: Pki) -> _Listed:
    return _Listed(certificate_der=identity.certificate_der, authority=pki.early_authority)
