"""What kind of TPM is fitted: identity, size limits and how long each command takes.

Models: the vendor's name and versions as GetCapability reports them, the number of transient slots, and one simulated
latency per command.  Leaves out: a spread around these latencies, bus transfer time per byte, background self-tests.
Sources: for the identity the answers of swtpm 0.7.1; for the latencies the vendor measurements collected in the
wolfTPM README (P-256 signing 42 to 190 ms, key generation 52 to 231 ms) and Microsoft's limit of 20 ms for an extend.
"""

from __future__ import annotations

from attrs import Factory, field, frozen

from sim.core.facts import fact
from sim.tpm.constants import HASH_BYTES, TPM_CC
from sim.tpm.eventlog import LOG_BYTES_MAX
from sim.tpm.pcr_log import EVENT_LOG_BYTES_MAX

__all__ = ["TpmProfile"]

_WOLFTPM = "wolfTPM README, table of six vendors' parts over SPI"
_OURS = "no published figure; between the bus time of a small command and the limit of dn293575 (20 ms)"

TRANSIENT_SLOTS = fact(
    "tpm.transient_slots", 3, unit="objects", source="swtpm 0.7.1, HR_TRANSIENT_MIN", kind="measured"
)
EXTEND_NS = fact("tpm.pcr_extend_ns", 5_000_000, unit="ns", source=_OURS, kind="assumed")
READ_NS = fact("tpm.pcr_read_ns", 3_000_000, unit="ns", source=_OURS, kind="assumed")
QUOTE_NS = fact(
    "tpm.quote_p256_ns", 70_000_000, unit="ns", source=_WOLFTPM + ": sign plus hash", kind="inferred"
)
CREATE_NS = fact("tpm.create_p256_ns", 150_000_000, unit="ns", source=_WOLFTPM, kind="inferred")
CREATE_RSA_NS = fact(
    "tpm.create_rsa2048_ns", 3_000_000_000, unit="ns", source=_WOLFTPM + ": 2.2 to 7.5 s", kind="inferred"
)
QUOTE_RSA_NS = fact(
    "tpm.quote_rsa2048_ns",
    170_000_000,
    unit="ns",
    source=_WOLFTPM + ": private key operation plus hash",
    kind="inferred",
)
RANDOM_NS = fact(
    "tpm.get_random_ns", 3_000_000, unit="ns", source=_WOLFTPM + ": 14 KB/s and the command", kind="inferred"
)
STARTUP_NS = fact("tpm.startup_ns", 20_000_000, unit="ns", source="no published figure", kind="assumed")
SELF_TEST_NS = fact(
    "tpm.self_test_ns",
    200_000_000,
    unit="ns",
    source="below the limit of 2 s in Linux tpm2-cmd.c",
    kind="assumed",
)
OTHER_NS = fact("tpm.small_command_ns", 2_000_000, unit="ns", source=_OURS, kind="assumed")
HASH_BYTE_NS = fact(
    "tpm.hash_byte_ns", 8_000, unit="ns", source=_WOLFTPM + ": SHA-256 at 121 to 137 KB/s", kind="inferred"
)

_LATENCIES = {
    TPM_CC.PCR_Extend.value: EXTEND_NS.value,
    TPM_CC.PCR_Event.value: EXTEND_NS.value,
    TPM_CC.PCR_Reset.value: EXTEND_NS.value,
    TPM_CC.PCR_Read.value: READ_NS.value,
    TPM_CC.Quote.value: QUOTE_NS.value,
    TPM_CC.CreatePrimary.value: CREATE_NS.value,
    TPM_CC.Create.value: CREATE_NS.value,
    TPM_CC.CreateLoaded.value: CREATE_NS.value,
    TPM_CC.Sign.value: QUOTE_NS.value,
    TPM_CC.GetRandom.value: RANDOM_NS.value,
    TPM_CC.Startup.value: STARTUP_NS.value,
    TPM_CC.SelfTest.value: SELF_TEST_NS.value,
}

_RSA_LATENCIES = {
    TPM_CC.CreatePrimary.value: CREATE_RSA_NS.value,
    TPM_CC.Create.value: CREATE_RSA_NS.value,
    TPM_CC.CreateLoaded.value: CREATE_RSA_NS.value,
    TPM_CC.Quote.value: QUOTE_RSA_NS.value,
    TPM_CC.Sign.value: QUOTE_RSA_NS.value,
    TPM_CC.RSA_Decrypt.value: QUOTE_RSA_NS.value,
}


def _four_letters(text: str) -> int:
    """Return the 32-bit form of a text of at most four ASCII letters, padded with NUL."""
    return int.from_bytes(text.encode("ascii").ljust(4, b"\0"), "big")


@frozen(kw_only=True)
class TpmProfile:
    """A make of TPM; the default names itself a software TPM, as swtpm does."""

    manufacturer: str = "IBM"
    vendor_strings: tuple[str, str, str, str] = ("SW  ", " TPM", "", "")
    firmware_version: int = 0x2019_1023_0016_3636
    banks: tuple[int, ...] = tuple(HASH_BYTES)
    transient_slots: int = field(default=TRANSIENT_SLOTS.value)
    persistent_slots_min: int = 7
    command_bytes_max: int = 4096
    latencies_ns: dict[int, int] = field(default=Factory(lambda: dict(_LATENCIES)))
    """Simulated time of a successful command, by command code."""
    rsa_latencies_ns: dict[int, int] = field(default=Factory(lambda: dict(_RSA_LATENCIES)))
    """Simulated time of a successful command that uses or makes an RSA key, where it is another."""
    other_latency_ns: int = OTHER_NS.value
    """Simulated time of any other command, and of one that is refused."""
    hash_byte_ns: int = HASH_BYTE_NS.value
    """Simulated time of each byte of the hardware hash sequence."""
    event_log_bytes_max: int = EVENT_LOG_BYTES_MAX
    """Size to which the event log beside the PCRs may grow; with 0 none is kept."""

    def __attrs_post_init__(self) -> None:
        unknown = [bank for bank in self.banks if bank not in HASH_BYTES]
        if unknown or not self.banks:
            raise ValueError(f"banks must be some of {sorted(HASH_BYTES)}, got {self.banks}")
        if not 1 <= self.transient_slots <= 254:
            raise ValueError(f"transient_slots must be in 1 .. 254, got {self.transient_slots}")
        if not 0 <= self.event_log_bytes_max <= LOG_BYTES_MAX:
            raise ValueError(
                f"event_log_bytes_max must be in 0 .. {LOG_BYTES_MAX}, got {self.event_log_bytes_max}"
            )

    @property
    def manufacturer_id(self) -> int:
        """The manufacturer as GetCapability reports it."""
        return _four_letters(self.manufacturer)

    @property
    def vendor_string_ids(self) -> tuple[int, ...]:
        """The four vendor strings as GetCapability reports them."""
        return tuple(map(_four_letters, self.vendor_strings))
