"""Makes of TPM: the identity that each reports and the simulated time that its commands take.

Models: six parts that were measured over SPI, and the software TPM that answers like swtpm with assumed latencies.
Key operations, random numbers and hashing are the measured averages; a quote is signing plus the hash of its data.
Leaves out: the spread around the averages (a new RSA key may take five times as long), firmware quirks, and what was
not measured: these commands take the default of `sim.tpm.profile`.
Sources: wolfTPM README, commit 0495c70, table of averages on a Raspberry Pi; TCG vendor ID registry for the names.
"""

from __future__ import annotations

from attrs import evolve, frozen

from sim.core.facts import fact
from sim.errors import ScenarioError
from sim.tpm.constants import TPM_CC
from sim.tpm.profile import TpmProfile

__all__ = ["MAKES", "profile_named"]

SOURCE = "wolfTPM README, commit 0495c70, averages over SPI"
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


@frozen
class _Part:
    """A measured part: times in tenths of ms, rates in bytes per second."""

    name: str
    manufacturer: str
    strings: tuple[str, str, str, str]
    rsa_generate: int
    p256_generate: int
    rsa_private: int
    rsa_public: int
    p256_sign: int
    p256_verify: int
    random_bytes_per_s: int
    hash_bytes_per_s: int


_PARTS = (
    _Part("slb9670", "IFX", ("SLB9", "670", "", ""), 21960, 2310, 1630, 89, 690, 1140, 14_000, 137_000),
    _Part("st33tp", "STM ", ("ST33", "TP", "", ""), 74550, 2200, 2480, 91, 420, 740, 13_800, 82_000),
    _Part("attpm20", "MCHP", ("ATTP", "M20", "", ""), 52760, 1530, 1180, 470, 590, 430, 1_100, 21_000),
    _Part("z32h330", "NTZ", ("Z32H", "330", "", ""), 21840, 520, 1330, 190, 230, 370, 11_300, 80_000),
    _Part("npct650", "NTC", ("NPCT", "650", "", ""), 44790, 1480, 5410, 130, 1900, 2650, 6_200, 89_000),
    _Part("npct750", "NTC", ("NPCT", "75x", "", ""), 34090, 840, 700, 75, 560, 390, 14_400, 121_000),
)
_MADE_KEY = (TPM_CC.CreatePrimary, TPM_CC.Create, TPM_CC.CreateLoaded)
_PRIVATE_KEY_USED = (TPM_CC.Sign, TPM_CC.Quote, TPM_CC.Certify, TPM_CC.CertifyCreation, TPM_CC.GetTime)
_PRIVATE_KEY_OF_SECOND = (TPM_CC.NV_Certify, TPM_CC.ActivateCredential)
_RANDOM_BYTES = 32
_QUOTE_BYTES = 160
"""About how long a quote's attested data are."""


def profile_named(name: str) -> TpmProfile:
    """Return the profile of that make; `ScenarioError` lists the known ones."""
    try:
        return MAKES[name]
    except KeyError:
        raise ScenarioError("profile", "unknown make of TPM", got=name, wanted=", ".join(MAKES)) from None


def _time_ns(part: _Part, operation: str) -> int:
    tenths = getattr(part, operation)
    declared = fact(
        f"tpm.{part.name}.{operation}_ns",
        tenths * _NS_PER_MS // 10,
        unit="ns",
        source=SOURCE,
        kind="vendor",
    )
    return declared.value


def _byte_ns(part: _Part, operation: str) -> int:
    rate = fact(
        f"tpm.{part.name}.{operation}_per_s",
        getattr(part, f"{operation}_per_s"),
        unit="bytes/s",
        source=SOURCE,
        kind="vendor",
    )
    return _NS_PER_S // rate.value


def _profile(part: _Part) -> TpmProfile:
    base = TpmProfile()
    hash_byte_ns = _byte_ns(part, "hash_bytes")
    small = base.other_latency_ns
    ecc, rsa = dict(base.latencies_ns), {}
    for code in _MADE_KEY:
        ecc[code.value] = small + _time_ns(part, "p256_generate")
        rsa[code.value] = small + _time_ns(part, "rsa_generate")
    for code in (*_PRIVATE_KEY_USED, *_PRIVATE_KEY_OF_SECOND):
        ecc[code.value] = small + _time_ns(part, "p256_sign") + _QUOTE_BYTES * hash_byte_ns
        rsa[code.value] = small + _time_ns(part, "rsa_private") + _QUOTE_BYTES * hash_byte_ns
    ecc[TPM_CC.VerifySignature.value] = small + _time_ns(part, "p256_verify")
    for code in (TPM_CC.VerifySignature, TPM_CC.RSA_Encrypt):
        rsa[code.value] = small + _time_ns(part, "rsa_public")
    rsa[TPM_CC.RSA_Decrypt.value] = small + _time_ns(part, "rsa_private")
    ecc[TPM_CC.GetRandom.value] = small + _RANDOM_BYTES * _byte_ns(part, "random_bytes")
    return evolve(
        base,
        manufacturer=part.manufacturer,
        vendor_strings=part.strings,
        latencies_ns=ecc,
        rsa_latencies_ns=rsa,
        hash_byte_ns=hash_byte_ns,
    )


MAKES: dict[str, TpmProfile] = {
    "software": TpmProfile(),
    **{part.name: _profile(part) for part in _PARTS},
}
"""Every make by its name."""
