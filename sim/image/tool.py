"""What `vmksim image` does: build, sign, inspect and verify VIBs and boot banks from ordinary files.

Models the workshop of somebody who makes VIBs: a folder of files and a few words of metadata become an archive, a PEM
key and its certificates sign it, PEM roots verify it.  Functions take and return values and print nothing; only
`read_folder` and `read_bank` touch a file system.

Leaves out making keys and certificates for real use: those of the simulator are test keys.

Sources: as for the formats; RFC 7468 (PEM).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from sim.errors import FormatError, LimitError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import BootBank
from sim.image.certificate import load_certificate
from sim.image.cms import sign_detached
from sim.image.contents import MODULE_FOLDER
from sim.image.crl import load_crl
from sim.image.issue import Signer
from sim.image.metadata import Descriptor
from sim.image.payload import CONTENT_BYTES_MAX, gzip_stored
from sim.image.tar import EntryKind, TarEntry, with_parents
from sim.image.trust import IssuerLevel, TrustStore
from sim.image.vib import Payload, Vib, VibError, VibIdentity, build_vib, read_vib, verify_vib, write_vib
from sim.image.vtar import write_vtar

__all__ = [
    "FOLDER_FILES_MAX",
    "build_archive",
    "module_entry",
    "read_bank",
    "read_crl",
    "read_folder",
    "read_signer",
    "read_trust",
    "sign_archive",
    "trust_as_pem",
    "verify_archive",
]

FOLDER_FILES_MAX = 10_000

_PEM_CRL = b"-----BEGIN X509 CRL-----"
_LEVEL = re.compile(rb"(<acceptance-level>)[a-z]*(</acceptance-level>)")


def build_archive(
    spec: Descriptor,
    entries: Iterable[TarEntry],
    *,
    when: datetime,
    signer: Signer | None = None,
    payload_name: str = "payload1",
    forge: bool = False,
) -> bytes:
    """Return a VIB with one vgz payload of the given files, whose list goes into the descriptor.

    A level above CommunitySupported needs a signer, unless `forge` asks for a VIB whose level is a lie.
    """
    if signer is None and spec.level is not AcceptanceLevel.COMMUNITY_SUPPORTED and not forge:
        raise VibError("vib.signature-missing", f"a VIB at {spec.level.title} needs a signer")
    tree = with_parents(entries)
    paths = tuple(entry.path for entry in tree if entry.kind is not EntryKind.DIRECTORY)
    payload = Payload(name=payload_name, kind="vgz", data=gzip_stored(write_vtar(tree)))
    return build_vib(attrs.evolve(spec, files=paths), [payload], signer, when)


def module_entry(name: str, data: bytes) -> TarEntry:
    """Return the entry that makes an ELF file a kernel module of that name."""
    return TarEntry(path=f"{MODULE_FOLDER}{name}", data=data, mode=0o555)


def sign_archive(data: bytes, signer: Signer, when: datetime, level: AcceptanceLevel | None = None) -> bytes:
    """Return the VIB with a new signature, after setting its acceptance level if one is given."""
    vib = read_vib(data)
    xml = vib.descriptor_xml
    if level is not None:
        xml, changes = _LEVEL.subn(rb"\g<1>" + level.xml_name.encode() + rb"\g<2>", xml)
        if changes != 1:
            raise FormatError(
                "VIB descriptor", "acceptance-level", f"stands {changes} times as a plain element"
            )
    return write_vib(
        Vib(descriptor_xml=xml, signature=sign_detached(xml, signer, when), payloads=vib.payloads)
    )


def verify_archive(data: bytes, trust: TrustStore, now: datetime) -> VibIdentity:
    """Return who a VIB archive is from; raises `FormatError` or `VerificationError` with what is wrong."""
    return verify_vib(read_vib(data), trust, now)


def read_signer(key_pem: bytes, certificates_pem: bytes) -> Signer:
    """Return a signer from an unencrypted PEM key and its certificates: its own first, then those up to the root.

    A self-signed certificate at the end is left out of signatures.
    """
    leaf, *rest = _certificates(certificates_pem)
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        belongs = x509.load_der_x509_certificate(leaf).public_key() == key.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FormatError("PEM key", "", "is not an unencrypted private key") from None
    if not belongs:
        raise FormatError("PEM key", "", "does not belong to the first certificate")
    return Signer(
        certificate_der=leaf,
        private_key_der=der,
        provider=load_certificate(leaf).organization,
        level="",
        chain=tuple(item for item in rest if not _is_self_signed(item)),
    )


def read_trust(roots_pem: bytes, issuers_pem: Mapping[str, bytes]) -> TrustStore:
    """Return a trust store: pinned roots, and for each level (partner, accepted, certified) its issuers in PEM."""
    return TrustStore(
        roots=tuple(_certificates(roots_pem)),
        issuers=tuple(
            IssuerLevel(certificate_der=der, level=level)
            for level, pem in issuers_pem.items()
            for der in _certificates(pem)
        ),
    )


def read_crl(data: bytes) -> bytes:
    """Return the revocation list of a PEM or DER file in DER, after reading it.

    Errors: `VerificationError` when it is no list that counts here.
    """
    if data.startswith(_PEM_CRL):
        try:
            data = x509.load_pem_x509_crl(data).public_bytes(serialization.Encoding.DER)
        except ValueError:
            raise FormatError("PEM revocation list", "", "cannot be read") from None
    load_crl(data)
    return data


def trust_as_pem(trust: TrustStore) -> tuple[bytes, dict[str, bytes]]:
    """Return the roots and the issuers of each level of a trust store in PEM, as `read_trust` takes them."""
    levels = dict.fromkeys(issuer.level for issuer in trust.issuers)
    issuers = {
        level: _pem([item.certificate_der for item in trust.issuers if item.level == level])
        for level in levels
    }
    return _pem(trust.roots), issuers


def read_folder(folder: Path) -> tuple[TarEntry, ...]:
    """Return the files and links below a folder, sorted by path; times are left out, so that the result repeats."""
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            entries.append(
                TarEntry(path=name, kind=EntryKind.SYMLINK, target=str(path.readlink()), mode=0o777)
            )
        elif stat.S_ISREG(mode):
            entries.append(TarEntry(path=name, data=_read(path, name), mode=stat.S_IMODE(mode)))
        elif not stat.S_ISDIR(mode):
            raise FormatError("folder", name, "is no file, folder or link")
        if len(entries) > FOLDER_FILES_MAX:
            raise LimitError("folder", name, f"more than {FOLDER_FILES_MAX} files")
    return tuple(entries)


def read_bank(folder: Path) -> BootBank:
    """Return the boot bank whose files lie in a folder."""
    return BootBank(
        files={path.name: _read(path, path.name) for path in sorted(folder.iterdir()) if path.is_file()}
    )


def _read(path: Path, name: str) -> bytes:
    if path.stat().st_size > CONTENT_BYTES_MAX:
        raise LimitError("folder", name, f"more than {CONTENT_BYTES_MAX} bytes")
    return path.read_bytes()


def _certificates(pem: bytes) -> list[bytes]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise FormatError("PEM certificates", "", "hold no certificate that can be read") from None
    return [certificate.public_bytes(serialization.Encoding.DER) for certificate in found]


def _is_self_signed(der: bytes) -> bool:
    certificate = x509.load_der_x509_certificate(der)
    return certificate.issuer == certificate.subject


def _pem(certificates: Sequence[bytes]) -> bytes:
    return b"".join(
        x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in certificates
    )
