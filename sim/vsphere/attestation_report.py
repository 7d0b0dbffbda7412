"""From quoted PCR values and an event log to the attestation report that stands in the inventory.

Models: the mapping of ESXi's tagged events to the event details of the API, in log order, in one bank; events that a
dynamic launch made before ESXi are shown as TPM_EVENT_LOG_PREBOOT components, as real hosts show them.  The VIB of a
component is looked up by digest in what the vendor published, and empty otherwise.

Leaves out: firmware events in PCR 0 to 7, which hosts do not report; SHA-1.

Sources: vSphere Web Services API (HostTpmEventDetails and its subclasses); the report of a real ESXi 6.7 host with
TXT; the mapping of tags to classes is inferred from their names and the versions that brought them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sim.attest.esx_events import LAUNCH_PCRS, LOADER_PCRS, Measurement, read_measurement
from sim.attest.event_log import extending_events, read_event_log
from sim.attest.tpm_report import (
    CommandDetails,
    EventDetails,
    HostTpmAttestationReport,
    NvTagDetails,
    OptionDetails,
    SignerDetails,
    SoftwareComponentDetails,
    TpmDigestInfo,
    TpmEventLogEntry,
    VersionDetails,
)
from sim.attest.verdict import AttestationError
from sim.errors import FormatError
from sim.image.manifest import ReferenceManifest
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EV, TcgEvent
from sim.tpm.tagged import EsxTag

__all__ = ["attestation_report"]

METHODS: Final = {"sha1": "SHA1", "sha256": "SHA256", "sha384": "SHA384", "sha512": "SHA512"}
BANK: Final = TPM_ALG.SHA256
PREBOOT: Final = "TPM_EVENT_LOG_PREBOOT"


def attestation_report(
    pcr_values: Mapping[str, Mapping[int, bytes]],
    event_log: bytes,
    manifest: ReferenceManifest,
    *,
    reliable: bool,
) -> HostTpmAttestationReport:
    """Return the report; a log that cannot be read makes it unreliable and empty of events."""
    values = tuple(
        TpmDigestInfo(pcr_number=pcr, digest_method=METHODS[bank], digest_value=value)
        for bank in sorted(pcr_values)
        for pcr, value in sorted(pcr_values[bank].items())
    )
    try:
        events = extending_events(read_event_log(event_log))
    except AttestationError:
        return HostTpmAttestationReport(tpm_pcr_values=values, log_reliable=False)
    entries = tuple(
        TpmEventLogEntry(pcr_index=event.pcr, event_details=_details(event, manifest))
        for event in events
        if (event.pcr in LOADER_PCRS or event.pcr in LAUNCH_PCRS) and BANK in event.digests
    )
    return HostTpmAttestationReport(tpm_pcr_values=values, tpm_events=entries, log_reliable=reliable)


def _details(event: TcgEvent, manifest: ReferenceManifest) -> EventDetails:
    digest = event.digests[BANK]
    if event.type == EV.EVENT_TAG:
        try:
            return _tagged(read_measurement(event), digest, manifest)
        except FormatError:
            pass
    return SoftwareComponentDetails(data_hash=digest, data_hash_method="SHA256", component_name=PREBOOT)


def _tagged(measurement: Measurement, digest: bytes, manifest: ReferenceManifest) -> EventDetails:
    method, text = "SHA256", measurement.title
    match measurement.tag:
        case EsxTag.BOOT_OPT:
            return OptionDetails(data_hash=digest, data_hash_method=method, options_file_name=text)
        case EsxTag.CMD_OPT:
            line = measurement.body.decode("ascii", "backslashreplace")
            return CommandDetails(data_hash=digest, data_hash_method=method, command_line=line)
        case EsxTag.TAG:
            return NvTagDetails(data_hash=digest, data_hash_method=method, boot_security_option=text)
        case EsxTag.SIGNER:
            option = f"certificate {digest.hex()}"
            return SignerDetails(data_hash=digest, data_hash_method=method, boot_security_option=option)
        case EsxTag.VERSION:
            return VersionDetails(data_hash=digest, data_hash_method=method, version=measurement.body)
    published = manifest.with_digest(digest)
    return SoftwareComponentDetails(
        data_hash=digest,
        data_hash_method=method,
        component_name=text,
        vib_name=published[0].vib_name if published else "",
        vib_version=published[0].vib_version if published else "",
        vib_vendor=published[0].vib_vendor if published else "",
    )
