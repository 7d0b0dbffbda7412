"""A machine whose quote always agrees with the log it shows: so a mutant comes past the quote, and is judged whole.

It holds a certified endorsement key, an attestation key of which it knows the private part, and what a verifier demands
besides; it is bytes and values alone, so that a process which does nothing but judge can be given it.
"""

from __future__ import annotations

import hashlib

import attrs
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from sim.attest.credential import Challenge, make_challenge
from sim.attest.evidence import Evidence
from sim.attest.keys import name_of, read_public
from sim.attest.offline import Files, OfflineVerdict, appraise_files, write_pcr_file
from sim.attest.policy import AppraisalPolicy
from sim.attest.verdict import Verdict
from sim.attest.verifier import Verifier
from sim.core.context import EPOCH
from sim.core.rng import Rng
from sim.image.manifest import ReferenceManifest
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_RH
from sim.tpm.eventlog import EventLog, bank_name, replay
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPMS_ATTEST,
    TPMS_CLOCK_INFO,
    TPMS_PCR_SELECTION,
    TPMS_QUOTE_INFO,
    TPMS_SIGNATURE_ECC,
    TPMT_SIGNATURE,
)

NONCE = bytes(range(32))
QUOTED = (*range(8), *range(11, 15), *range(17, 23))
BANKS = (TPM_ALG.SHA1.value, TPM_ALG.SHA256.value, TPM_ALG.SHA384.value, TPM_ALG.SM3_256.value)


@attrs.frozen(kw_only=True)
class Witness:
    """What one machine shows with every log, and what the verifier knows of it."""

    policy: AppraisalPolicy
    ek_public: bytes
    ek_certificate_der: bytes
    ak_public: bytes
    ak_private_der: bytes
    challenge: Challenge

    def evidence(self, log: EventLog, data: bytes, banks: tuple[int, ...]) -> Evidence:
        """Return evidence with this log, and a quote over the values to which it leads (zeros in a bank without)."""
        values = quoted_values(log, banks)
        attest = attested(self.ak_public, banks, values)
        return Evidence(
            ek_public=self.ek_public,
            ek_certificate_der=self.ek_certificate_der,
            ak_public=self.ak_public,
            credential_blob=self.challenge.credential_blob,
            encrypted_secret=self.challenge.encrypted_secret,
            activated_secret=self.challenge.secret,
            attest=attest,
            signature=signed(self.ak_private_der, attest),
            pcr_values={bank_name(bank): pcrs for bank, pcrs in values.items()},
            event_log=data,
        )

    def appraise(self, evidence: Evidence) -> Verdict:
        """Judge evidence with the whole verifier."""
        return Verifier(self.policy).appraise(evidence, NONCE, self.challenge)

    def appraise_files(self, evidence: Evidence, *, with_values: bool) -> OfflineVerdict:
        """Judge the same bytes as files, with the PCR values or with the log alone."""
        values = write_pcr_file(evidence.pcr_values) if with_values else None
        return appraise_files(
            Files(
                attest=evidence.attest,
                signature=evidence.signature,
                key=evidence.ak_public,
                nonce=NONCE,
                pcr_file=values,
                log=evidence.event_log,
            ),
            require_secure_boot=True,
        )


def quoted_values(log: EventLog, banks: tuple[int, ...]) -> dict[int, dict[int, bytes]]:
    """Return the values of the quoted PCRs as this log leaves them."""
    replayed = replay(log)
    return {
        bank: {pcr: replayed.get(bank, {}).get(pcr, start(log, bank, pcr)) for pcr in QUOTED}
        for bank in banks
    }


def start(log: EventLog, bank: int, pcr: int) -> bytes:
    """Return what a PCR without an event holds."""
    launched = any(event.pcr in range(17, 23) for event in log.events)
    return (b"\xff" if pcr in range(17, 23) and not launched else b"\0") * HASH_BYTES.get(bank, 32)


def attested(ak_public: bytes, banks: tuple[int, ...], values: dict[int, dict[int, bytes]]) -> bytes:
    """Return the TPMS_ATTEST of a quote over these values."""
    joined = b"".join(values[bank][pcr] for bank in banks for pcr in QUOTED)
    parent = TPM_RH.ENDORSEMENT.to_bytes(4, "big")
    signer = TPM_ALG.SHA256.to_bytes(2, "big") + hashlib.sha256(parent + name_of(ak_public)).digest()
    return TPMS_ATTEST(
        magic=0xFF544347,
        type=0x8018,
        qualifiedSigner=signer,
        extraData=NONCE,
        clockInfo=TPMS_CLOCK_INFO(clock=1, resetCount=1, restartCount=0, safe=1),
        firmwareVersion=1,
        attested=TPMS_QUOTE_INFO(
            pcrSelect=tuple(TPMS_PCR_SELECTION.of(bank, QUOTED) for bank in banks),
            pcrDigest=hashlib.sha256(joined).digest(),
        ),
    ).encode()


def signed(ak_private_der: bytes, attest: bytes) -> bytes:
    """Return the TPMT_SIGNATURE of the attestation key over `attest`."""
    key = load_der_private_key(ak_private_der, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(attest, ec.ECDSA(hashes.SHA256())))
    return TPMT_SIGNATURE(
        sigAlg=TPM_ALG.ECDSA.value,
        signature=TPMS_SIGNATURE_ECC(
            hash=TPM_ALG.SHA256.value, signatureR=r.to_bytes(32, "big"), signatureS=s.to_bytes(32, "big")
        ),
    ).encode()


def make_witness(manifest: ReferenceManifest) -> Witness:
    """Make the machine and its verifier, which knows this manifest; always the same but for signatures."""
    from sim.kernel.quoting import HOST_ATTESTATION_KEY
    from sim.tpm.client import TpmClient
    from sim.tpm.manufacture import EK_ECC_CERTIFICATE_INDEX, TpmVendor
    from sim.tpm.templates import EK_ECC

    rng = Rng(1)
    vendor = TpmVendor(rng)
    client = TpmClient(vendor.make("witness", rng.child("witness")).execute)
    client.startup()
    ek_public = client.create_primary(EK_ECC)[1]
    template = read_public(client.create_primary(HOST_ATTESTATION_KEY)[1])
    private = ec.derive_private_key(0x1234567, ec.SECP256R1())
    point = private.public_key().public_numbers()
    unique = attrs.evolve(template.unique, x=point.x.to_bytes(32, "big"), y=point.y.to_bytes(32, "big"))
    ak_public = TPM2B_PUBLIC.encode(attrs.evolve(template, unique=unique))
    return Witness(
        policy=AppraisalPolicy(
            vendor_roots=(vendor.root_certificate_der,), manifest=manifest, now=EPOCH, required_pcrs=QUOTED
        ),
        ek_public=ek_public,
        ek_certificate_der=client.nv_read(EK_ECC_CERTIFICATE_INDEX),
        ak_public=ak_public,
        ak_private_der=private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        challenge=make_challenge(ek_public, ak_public, rng.stream("challenge")),
    )
