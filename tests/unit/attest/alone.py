"""Parts for tests of single checks: events, logs, measurements, evidence, and what a refusal says."""

import pytest

from sim.attest import esx_events
from sim.attest.evidence import Evidence
from sim.attest.verdict import AttestationError
from sim.image.manifest import ReferenceComponent
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EV, EventLogWriter, TcgEvent, parse
from sim.tpm.hashing import hash_bytes
from sim.tpm.tagged import EsxTag

SHA1, SHA256 = TPM_ALG.SHA1.value, TPM_ALG.SHA256.value
ONE = b"\x01" * 32


def refused(check, *args, **kwargs):
    """Return (name, words, component, evidence) of the refusal of a check."""
    with pytest.raises(AttestationError) as caught:
        check(*args, **kwargs)
    error = caught.value
    return (error.check, error.message, error.component, error.evidence)


def event(pcr=4, kind=EV.EFI_ACTION, data=b"", digests=None):
    measured = {SHA256: hash_bytes(SHA256, data)} if digests is None else digests
    return TcgEvent(pcr=pcr, type=int(kind), digests=measured, data=data)


def log_of(steps):
    writer = EventLogWriter((SHA256,))
    for step in steps:
        writer.measure(step.pcr, step.type, step.data, step.over)
    return parse(writer.to_bytes())


def measurement(tag=EsxTag.MOD, pcr=13, body=b"net.v00", digest=ONE):
    return esx_events.Measurement(tag=tag, pcr=pcr, body=body, digests={SHA256: digest})


def component(name="net.v00", digest=ONE, vib="esx-base"):
    return ReferenceComponent(
        name=name,
        digests=(digest,),
        vib_name=vib,
        vib_version="8.0-1",
        vib_vendor="VMware",
        level="certified",
    )


def evidence(**changes):
    names = ("ek_public", "ek_certificate_der", "ak_public", "credential_blob", "encrypted_secret")
    names += ("activated_secret", "attest", "signature", "event_log")
    return Evidence(**{name: name.encode() for name in names} | {"pcr_values": {}} | changes)
