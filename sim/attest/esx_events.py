"""ESXi's own measurements in the event log: tagged events of boot modules, options, command line and signers.

Models: reading of EV_EVENT_TAG events; for each kind, whether its digest covers its text; and which PCR takes which
kind, both when the boot loader measures (11 to 14) and after a dynamic launch (17 to 22).

Leaves out: any belief in names.  The digest of a module is over the module, so the name in its event is free to lie;
only `sim.attest.software` says what a digest stands for.

Sources: vmware/esx-boot, uefi/efiutils/tpm.c (tags, PCR 11 to 14); the attestation report of a real ESXi 6.7 host
with TXT (PCR 17 to 21; its first module, b, stands in 17).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

from sim.attest.firmware import ALLOWED_TYPES, check_event_type
from sim.attest.launch import AUTHORITIES_PCR, DETAILS_PCR, LAUNCH_TYPES
from sim.attest.verdict import AttestationError
from sim.errors import FormatError, LimitError
from sim.tpm.eventlog import EV, TcgEvent
from sim.tpm.hashing import HASHES, bank_name, hash_bytes
from sim.tpm.tagged import EsxTag, decode_tagged

__all__ = [
    "LAUNCH_PCRS",
    "LOADER_PCRS",
    "Measurement",
    "check_event_belongs",
    "check_place",
    "check_tag_text",
    "read_measurement",
    "read_measurements",
]


LOADER_PCRS: Final = range(11, 15)
"""The PCRs of the boot loader's measurements."""

LAUNCH_PCRS: Final = range(17, 23)
"""The PCRs that a dynamic launch clears and that then take the measurements."""

COVERED: Final = frozenset({EsxTag.CMD_OPT, EsxTag.TAG, EsxTag.SIGNER, EsxTag.VERSION})
"""The kinds whose digest is over the text in the event; the others are digests of a file."""

BODY_BYTES_MAX: Final = 16 * 1024
NAME_BYTES_MAX: Final = 255

_WHAT: Final = "ESXi event"
_CORE: Final = frozenset({"b", "k", "s", "sb"})


@frozen(kw_only=True)
class Measurement:
    """One tagged event: `body` is the file name without its NUL for MOD and BOOT_OPT, and the text for the others."""

    tag: EsxTag
    pcr: int
    body: bytes
    digests: Mapping[int, bytes] = field(repr=False)

    @property
    def title(self) -> str:
        """Return the body as a person may read it: ASCII, escaped, cut."""
        return self.body[:60].decode("ascii", "backslashreplace")


def check_event_belongs(event: TcgEvent) -> None:
    """Demand that an event stands in a PCR where events of its type are understood; no PCR accepts by default."""
    if event.pcr in ALLOWED_TYPES:
        check_event_type(event)
        return
    tagged = event.type == EV.EVENT_TAG and (event.pcr in LOADER_PCRS or event.pcr in LAUNCH_PCRS)
    launch = event.type in LAUNCH_TYPES and event.pcr in {DETAILS_PCR, AUTHORITIES_PCR}
    if not tagged and not launch:
        raise AttestationError(
            "event_type",
            f"the event log has an event of type 0x{event.type:x} in PCR {event.pcr}, where none belongs",
        )


def read_measurements(events: Iterable[TcgEvent]) -> tuple[Measurement, ...]:
    """Read the tagged events of the PCRs that ESXi uses; FormatError for any other kind of event in them."""
    return tuple(
        read_measurement(event)
        for event in events
        if (event.pcr in LOADER_PCRS or event.pcr in LAUNCH_PCRS) and event.type == EV.EVENT_TAG
    )


def check_tag_text(measurement: Measurement) -> None:
    """Demand that the text of a command line, tag, signer or version is what was measured, in every bank."""
    if measurement.tag not in COVERED:
        return
    for algorithm, digest in measurement.digests.items():
        if algorithm in HASHES and hash_bytes(algorithm, measurement.body) != digest:
            raise AttestationError(
                "event_data",
                f"the text of the {measurement.tag.name} event in PCR {measurement.pcr} is not what was measured",
                evidence=f"{bank_name(algorithm)} digest {digest.hex()}",
            )


def check_place(measurement: Measurement, *, launched: bool, generation: str = "esxi-6.7") -> None:
    """Demand that a measurement stands in a PCR that ESXi uses for its kind, after a launch that of its generation."""
    places = (_LAUNCH_PLACES[generation] if launched else _LOADER_PLACES)[_kind(measurement)]
    if measurement.pcr not in places:
        raise AttestationError(
            "measurement_place",
            f"{measurement.title} was measured into PCR {measurement.pcr} instead of {places[0]}",
            component=measurement.title,
        )


def _kind(measurement: Measurement) -> str:
    if measurement.tag is not EsxTag.MOD:
        return measurement.tag.name
    base = measurement.title.partition(".")[0]
    return "update" if base == "esxupdt" else "core" if base in _CORE else "static"


_LOADER_PLACES: Final[dict[str, tuple[int, ...]]] = {
    "update": (11,),
    "core": (12,),
    "static": (13,),
    "VERSION": (13,),
    "BOOT_OPT": (14,),
    "CMD_OPT": (14,),
    "SIGNER": (14,),
    "TAG": (14,),
}
_LAUNCH_PLACES: Final[dict[str, dict[str, tuple[int, ...]]]] = {
    "esxi-6.7": {
        "update": (19,),
        "core": (19, 17),
        "static": (20,),
        "VERSION": (20,),
        "BOOT_OPT": (21,),
        "CMD_OPT": (21,),
        "SIGNER": (21,),
        "TAG": (22,),
    },
    "txt-era": {
        "update": (19,),
        "core": (20,),
        "static": (19,),
        "VERSION": (20,),
        "BOOT_OPT": (19,),
        "CMD_OPT": (20,),
        "SIGNER": (20,),
        "TAG": (22,),
    },
}


def read_measurement(event: TcgEvent) -> Measurement:
    """Read one tagged event; FormatError when it is not one of ESXi's."""
    where = f"PCR {event.pcr}"
    if len(event.data) > BODY_BYTES_MAX:
        raise LimitError(_WHAT, where, f"a tagged event of {len(event.data)} bytes")
    tagged = decode_tagged(event.data)
    if tagged.id not in _TAGS:
        raise FormatError(_WHAT, where, f"tag {tagged.id} is not one of ESXi's")
    body = tagged.content
    if tagged.id in {EsxTag.MOD, EsxTag.BOOT_OPT}:
        body = _file_name(body, where)
    return Measurement(tag=EsxTag(tagged.id), pcr=event.pcr, body=body, digests=event.digests)


def _file_name(body: bytes, where: str) -> bytes:
    name = body[:-1]
    if body[-1:] != b"\0" or not 0 < len(name) <= NAME_BYTES_MAX or b"\0" in name:
        raise FormatError(_WHAT, where, "a module's name must be text with one NUL at its end")
    return name


_TAGS: Final = frozenset(EsxTag)
