"""What the boot chain's work costs in simulated time: hashing, unpacking, checking signatures.

Models: a rate per byte and algorithm, a fixed time per signature, the firmware's self test.  Disk reads and TPM
commands charge themselves (`sim.hw`).

Leaves out: differences between processors: the rates do not follow the host's clock frequency.

Sources: rates marked measured were taken with OpenSSL 3 on one shared x86-64 core; the others are assumptions, marked so.
"""

from __future__ import annotations

from sim.core.facts import Fact, fact
from sim.core.procedure import CostMeter
from sim.core.units import MS, SECOND, US

__all__ = ["charge_gunzip", "charge_hash", "charge_signatures"]

_OPENSSL = "OpenSSL 3.0 on one shared x86-64 core"

SHA256_BYTES_PER_S = fact("boot.sha256_rate", 1_770_000_000, unit="byte/s", source=_OPENSSL, kind="measured")
SHA1_BYTES_PER_S = fact(
    "boot.sha1_rate", 1_800_000_000, unit="byte/s", source="close to SHA-256 there", kind="assumed"
)
SHA512_BYTES_PER_S = fact(
    "boot.sha512_rate",
    700_000_000,
    unit="byte/s",
    source="no instructions for it; SHA-384 is the same",
    kind="assumed",
)
GUNZIP_BYTES_PER_S = fact(
    "boot.gunzip_rate", 350_000_000, unit="byte/s", source="zlib, unpacked bytes", kind="assumed"
)
SIGNATURE_VERIFY_NS = fact(
    "boot.signature_verify", 60 * US, unit="ns", source=f"P-256; {_OPENSSL}", kind="measured"
)
FIRMWARE_POST_NS = fact(
    "boot.firmware_post",
    8 * SECOND,
    unit="ns",
    source="self test of a small server, without its memory",
    kind="assumed",
)
MEMORY_TEST_NS_PER_GIB = fact(
    "boot.memory_test", 50 * MS, unit="ns/GiB", source="quick memory initialisation", kind="assumed"
)

_HASH_RATES: dict[str, Fact] = {
    "sha1": SHA1_BYTES_PER_S,
    "sha256": SHA256_BYTES_PER_S,
    "sha384": SHA512_BYTES_PER_S,
    "sha512": SHA512_BYTES_PER_S,
}


def charge_hash(meter: CostMeter, algorithm: str, size_bytes: int) -> None:
    """Charge one pass of `algorithm` (hashlib's name) over `size_bytes`, rounded up to a nanosecond."""
    meter.charge(_transfer_ns(size_bytes, _HASH_RATES[algorithm]), what=f"hash {algorithm}")


def charge_gunzip(meter: CostMeter, unpacked_bytes: int) -> None:
    """Charge the unpacking of a gzip member into `unpacked_bytes`."""
    meter.charge(_transfer_ns(unpacked_bytes, GUNZIP_BYTES_PER_S), what="gunzip")


def charge_signatures(meter: CostMeter, count: int) -> None:
    """Charge the verification of `count` signatures."""
    meter.charge(count * SIGNATURE_VERIFY_NS.value, what="verify signature")


def _transfer_ns(size_bytes: int, rate: Fact) -> int:
    return -(-size_bytes * SECOND // rate.value)
