"""What firmware events prove, once their log replays: the checks over PCR 0 to 7.

Models: the rule for which event types the data are covered by the digest (only those are read, all are re-hashed);
an allow-list of event types for each PCR; separators; the order of PCR 7; the Secure Boot state, the entries of its
variables, and who vouched; the boot loaders and the hand-over to the operating system.  Each check raises
AttestationError.

Leaves out: whether code and keys are those that a maker published (`sim.attest.platform`); golden values for settings
in PCR 1 and 3, which are a policy's `reference_pcrs`.

Sources: TCG PC Client Platform Firmware Profile 1.05, sections 2.3.4, 3.3 and 10.4; measured on eleven real logs:
the types below carry hashed data in all of their events, and PCR 7 always has this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sim.attest.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, UefiVariable, read_variable
from sim.attest.verdict import AttestationError
from sim.errors import FormatError
from sim.image.efi_lists import OWNER, ListEntry, parse_signature_lists
from sim.image.manifest import ReferenceLoader
from sim.tpm.eventlog import EV, TcgEvent
from sim.tpm.hashing import HASHES, bank_name, hash_bytes

__all__ = [
    "ALLOWED_TYPES",
    "DESCRIBED_TYPES",
    "HASHED_TYPES",
    "PLATFORM_CODE",
    "SEPARATOR_PCRS",
    "STRICT_TYPES",
    "check_authorities",
    "check_boot_loaders",
    "check_event_type",
    "check_exit_boot_services",
    "check_hashed_data",
    "check_loaders_present",
    "check_pcr7_order",
    "check_secure_boot",
    "check_separators",
    "read_authorities",
    "read_secure_boot_keys",
    "secure_boot_state",
]

HASHED_TYPES: Final = frozenset(
    {
        EV.SEPARATOR,
        EV.ACTION,
        EV.S_CRTM_VERSION,
        EV.EFI_VARIABLE_DRIVER_CONFIG,
        EV.EFI_VARIABLE_BOOT2,
        EV.EFI_GPT_EVENT,
        EV.EFI_ACTION,
    }
)
"""Event types whose digest is over their data on every machine."""

STRICT_TYPES: Final = HASHED_TYPES | {
    EV.EFI_VARIABLE_BOOT,
    EV.EFI_VARIABLE_AUTHORITY,
    EV.NONHOST_INFO,
}
"""The same and three more, for hosts that boot without shim, whose authority events are about something else; and for
what firmware says of its platform, which is hashed data in each of the real logs, but those are of one maker.
"""

DESCRIBED_TYPES: Final = frozenset(
    {
        EV.S_CRTM_CONTENTS,
        EV.POST_CODE,
        EV.EFI_PLATFORM_FIRMWARE_BLOB,
        EV.EFI_PLATFORM_FIRMWARE_BLOB2,
        EV.CPU_MICROCODE,
        EV.EFI_HANDOFF_TABLES,
        EV.EFI_HANDOFF_TABLES2,
        EV.EFI_BOOT_SERVICES_APPLICATION,
        EV.EFI_BOOT_SERVICES_DRIVER,
        EV.EFI_RUNTIME_SERVICES_DRIVER,
    }
)
"""Types whose digest is over the thing itself, which the data only describe: nothing may be read from their data."""

_EVERYWHERE: Final = frozenset({EV.SEPARATOR})
_CONFIGURATION: Final = frozenset(
    {EV.EFI_VARIABLE_DRIVER_CONFIG, EV.EFI_VARIABLE_BOOT, EV.EFI_VARIABLE_BOOT2, EV.EFI_ACTION, EV.ACTION}
)
PLATFORM_CODE: Final = frozenset(
    {
        EV.POST_CODE,
        EV.EFI_PLATFORM_FIRMWARE_BLOB,
        EV.EFI_PLATFORM_FIRMWARE_BLOB2,
        EV.EFI_BOOT_SERVICES_DRIVER,
        EV.EFI_RUNTIME_SERVICES_DRIVER,
        EV.NONHOST_CODE,
    }
)
"""Types that are about code of the firmware or of plug-in cards, in PCR 0 and in PCR 2."""

_CODE: Final = PLATFORM_CODE | {EV.NONHOST_CONFIG, EV.NONHOST_INFO}
_TABLES: Final = frozenset(
    {EV.TABLE_OF_DEVICES, EV.EFI_HANDOFF_TABLES, EV.EFI_HANDOFF_TABLES2, EV.PLATFORM_CONFIG_FLAGS}
)

ALLOWED_TYPES: Final = {
    0: _EVERYWHERE
    | _CODE
    | _TABLES
    | {EV.S_CRTM_CONTENTS, EV.S_CRTM_VERSION, EV.EFI_HCRTM_EVENT, EV.EFI_ACTION},
    1: _EVERYWHERE | _CONFIGURATION | _TABLES | {EV.CPU_MICROCODE, EV.NONHOST_CONFIG, EV.NONHOST_INFO},
    2: _EVERYWHERE | _CODE | {EV.EFI_ACTION, EV.ACTION},
    3: _EVERYWHERE | _CONFIGURATION | _TABLES | {EV.NONHOST_CONFIG},
    4: _EVERYWHERE
    | {EV.EFI_BOOT_SERVICES_APPLICATION, EV.EFI_BOOT_SERVICES_DRIVER, EV.EFI_ACTION, EV.ACTION},
    5: _EVERYWHERE | _CONFIGURATION | {EV.EFI_GPT_EVENT},
    6: _EVERYWHERE | _CONFIGURATION | {EV.COMPACT_HASH, EV.OMIT_BOOT_DEVICE_EVENTS},
    7: _EVERYWHERE | {EV.EFI_VARIABLE_DRIVER_CONFIG, EV.EFI_VARIABLE_AUTHORITY},
}
"""The event types that a firmware may use in PCR 0 to 7; anything else is refused, as its meaning is unknown."""

OWNER_BYTES: Final = len(OWNER)
SEPARATOR_PCRS: Final = range(8)
SEPARATOR_DATA: Final = bytes(4)

EXIT_STARTED: Final = b"Exit Boot Services Invocation"
EXIT_DONE: Final = b"Exit Boot Services Returned with Success"

_PCR7_VARIABLES: Final = (
    (GLOBAL_VARIABLE, "SecureBoot"),
    (GLOBAL_VARIABLE, "PK"),
    (GLOBAL_VARIABLE, "KEK"),
    (IMAGE_SECURITY_DATABASE, "db"),
    (IMAGE_SECURITY_DATABASE, "dbx"),
)


def check_event_type(event: TcgEvent) -> None:
    """Demand that the type of a firmware event is one that its PCR may hold."""
    if event.type not in ALLOWED_TYPES.get(event.pcr, frozenset()):
        raise AttestationError(
            "event_type",
            f"the event log has an event of type 0x{event.type:x} in PCR {event.pcr}, where none belongs",
            evidence=f"{len(event.data)} bytes of data",
        )


def check_hashed_data(event: TcgEvent, types: frozenset[EV] = HASHED_TYPES) -> None:
    """Demand digest == H(data), in every bank, of an event of these types; others pass, and must stay unread."""
    if event.type not in types:
        return
    readings = [event.data]
    if event.type == EV.EFI_VARIABLE_BOOT:
        readings.append(_variable_content(event.data))
    for algorithm, digest in event.digests.items():
        if algorithm in HASHES and all(hash_bytes(algorithm, reading) != digest for reading in readings):
            raise AttestationError(
                "event_data",
                f"the data of an event of type 0x{event.type:x} in PCR {event.pcr} are not what was measured",
                evidence=f"{bank_name(algorithm)} digest {digest.hex()}, data of {len(event.data)} bytes",
            )


def _variable_content(data: bytes) -> bytes:
    """Return the content of a boot variable, which older firmware hashes alone; the data as they are otherwise."""
    try:
        return read_variable(data).content
    except FormatError:
        return data


def check_separators(events: Iterable[TcgEvent]) -> None:
    """Demand exactly one separator in each of PCR 0 to 7, with the data of a firmware that found no error."""
    found: dict[int, list[bytes]] = {pcr: [] for pcr in SEPARATOR_PCRS}
    for event in events:
        if event.type == EV.SEPARATOR and event.pcr in found:
            found[event.pcr].append(event.data)
    for pcr, data in found.items():
        if len(data) != 1:
            raise AttestationError(
                "separator", f"PCR {pcr} has {len(data)} separators where it must have one"
            )
        if data[0] != SEPARATOR_DATA:
            raise AttestationError(
                "separator",
                f"the separator of PCR {pcr} reports a firmware error",
                evidence=data[0][:16].hex(),
            )


def check_pcr7_order(
    events: Iterable[TcgEvent],
) -> tuple[tuple[UefiVariable, ...], tuple[TcgEvent, ...]]:
    """Demand the five variables in order, the separator, then authorities; return the variables and those events."""
    events7 = [event for event in events if event.pcr == 7]
    kinds = [event.type for event in events7]
    wanted = len(_PCR7_VARIABLES)
    head = [EV.EFI_VARIABLE_DRIVER_CONFIG] * wanted + [EV.SEPARATOR]
    if kinds[: wanted + 1] != head or set(kinds[wanted + 1 :]) - {EV.EFI_VARIABLE_AUTHORITY}:
        raise AttestationError("pcr7_order", "the Secure Boot events of PCR 7 are not in their order")
    variables = tuple(_variable(event) for event in events7[:wanted])
    for variable, (namespace, name) in zip(variables, _PCR7_VARIABLES, strict=True):
        if (variable.namespace, variable.name) != (namespace, name):
            raise AttestationError(
                "pcr7_order", f"PCR 7 has {variable.name[:40]!r} where the variable {name} belongs"
            )
    return variables, tuple(events7[wanted + 1 :])


def read_authorities(events: Iterable[TcgEvent]) -> tuple[UefiVariable, ...]:
    """Return the variables in events of authorities; AttestationError when one holds none."""
    return tuple(_variable(event) for event in events)


def _variable(event: TcgEvent) -> UefiVariable:
    try:
        return read_variable(event.data)
    except FormatError as error:
        raise AttestationError("pcr7_order", f"PCR 7 has an event that holds no variable: {error}") from error


def secure_boot_state(variables: Sequence[UefiVariable]) -> bool:
    """Return whether the SecureBoot variable, measured first in PCR 7, says that Secure Boot was on.

    Firmware that knows no Secure Boot measures the variable without content.
    """
    content = variables[0].content
    if content not in {b"", b"\x00", b"\x01"}:
        raise AttestationError(
            "secure_boot", "the SecureBoot variable is neither on nor off", evidence=content.hex()
        )
    return content == b"\x01"


def check_secure_boot(*, enabled: bool, authorities: int, required: bool) -> None:
    """Demand that Secure Boot was on, if the policy wants it, and then that it has let something in."""
    if required and not enabled:
        raise AttestationError("secure_boot", "Host secure boot was disabled")
    if required and not authorities:
        raise AttestationError(
            "secure_boot", "Secure Boot was on, yet no authority vouched for a boot loader"
        )


def read_secure_boot_keys(variables: Sequence[UefiVariable]) -> dict[str, tuple[ListEntry, ...]]:
    """Return the entries of PK, KEK, db and dbx; AttestationError unless they are lists, and only dbx may be empty.

    Without a platform key firmware is in setup mode, in which anybody may write the other three.
    """
    entries = {}
    for variable in variables[1:]:
        try:
            entries[variable.name] = parse_signature_lists(variable.content)
        except FormatError as error:
            raise AttestationError(
                "secure_boot_keys",
                f"the Secure Boot variable {variable.name} cannot be read: {error}",
                component=variable.name,
            ) from error
        if not entries[variable.name] and variable.name != "dbx":
            raise AttestationError(
                "secure_boot_keys",
                f"Secure Boot was on, yet its variable {variable.name} is empty",
                component=variable.name,
            )
    return entries


def check_authorities(
    authorities: Sequence[UefiVariable], entries: Mapping[str, Sequence[ListEntry]]
) -> None:
    """Demand that each authority is an entry of the db that was measured before, and not one of its dbx."""
    for authority in authorities:
        known = (authority.namespace, authority.name) == (IMAGE_SECURITY_DATABASE, "db")
        if not known or authority.content not in {entry.signature_data for entry in entries["db"]}:
            raise AttestationError(
                "authority",
                "what vouched for a boot loader is no entry of the measured db",
                component="boot loader",
                evidence=f"{authority.name[:40]!r} of {len(authority.content)} bytes",
            )
        if any(entry.data == authority.content[OWNER_BYTES:] for entry in entries["dbx"]):
            raise AttestationError(
                "authority", "what vouched for a boot loader is in the measured dbx", component="boot loader"
            )


def check_boot_loaders(events: Iterable[TcgEvent], algorithm: int, known: frozenset[bytes]) -> bool:
    """Demand that every EFI application in PCR 4 is a published boot loader, and that there is one; return True."""
    digests = [
        event.digests.get(algorithm, b"")
        for event in events
        if event.pcr == 4 and event.type in {EV.EFI_BOOT_SERVICES_APPLICATION, EV.EFI_BOOT_SERVICES_DRIVER}
    ]
    if not digests:
        raise AttestationError("boot_loader", "the event log names no boot loader", component="boot loader")
    for digest in digests:
        if digest not in known:
            raise AttestationError(
                "boot_loader",
                "the boot loader is not one that its vendor published",
                component="boot loader",
                evidence=f"Authenticode digest {digest.hex()}",
            )
    return True


def check_loaders_present(
    events: Iterable[TcgEvent], algorithm: int, loaders: Iterable[ReferenceLoader]
) -> None:
    """Demand that each published boot loader was started, in one of its versions: each measures the next."""
    started = {event.digests.get(algorithm, b"") for event in events if event.pcr == 4}
    versions: dict[str, set[bytes]] = {}
    for loader in loaders:
        versions.setdefault(loader.name, set()).update(loader.digests)
    for name, digests in versions.items():
        if not digests & started:
            raise AttestationError(
                "loader_missing", f"the boot loader {name} was not started", component=name
            )


def check_exit_boot_services(events: Iterable[TcgEvent]) -> None:
    """Demand that firmware gave up the machine, once, as the last it did: the pair of actions ends PCR 5."""
    actions = [event.data for event in events if event.pcr == 5 and event.type == EV.EFI_ACTION]
    if actions[-2:] != [EXIT_STARTED, EXIT_DONE] or actions.count(EXIT_DONE) != 1:
        raise AttestationError(
            "exit_boot_services", "the event log does not end with the exit from boot services"
        )
