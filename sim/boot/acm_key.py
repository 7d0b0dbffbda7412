"""The chipset maker's key, with which the simulation's SINIT modules are signed.  For tests only: here it is, whole.

Models: one RSA-2048 key for all hosts, as there is one maker.  It is written down, since a seeded search for the primes
takes about half a second.  Leaves out secrecy.  Source: the first key of the stream "test key" of `Rng(0)`'s child
"chipset maker"; a test draws it again.
"""

from __future__ import annotations

from functools import cache
from math import gcd

from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["EXPONENT", "chipset_maker_key"]

EXPONENT = 65537

_P = int(
    "fc144846aa26bc64b08dc3336b7e9762e5f813f6ed8a2eb8c19202ea3d45e597"
    "f1ef14c700df30a2ce54ff9e753c8041f87a6e43d60ed41970e0c8fb19caea04"
    "278c2d7b7e299b543098211aa542697625137403a07f1512fee1dd40b5da73de"
    "2ce8f34655a832569fa3633fe57386ec2f9ceaf3a0973a1099b9bd99914388bf",
    16,
)
_Q = int(
    "e6241dd11b41246af696ba9322a673eb8b0896ef7a5db7739e395933f0ba65a2"
    "ef9956a7374232f44720b97f61c921388858f786a2bb41125f1150d24fe9c0f4"
    "3658cfe3d4b58df1b0d8c79bfd695e1241b7e09b554184a1f4d846dd6e6e531f"
    "90e60da62568b35ed24c82b9eddc1d8bcb725f1830d260c2fbbeb96ba3658227",
    16,
)


@cache
def chipset_maker_key() -> rsa.RSAPrivateKey:
    """Return the key pair of the chipset's maker."""
    d = pow(EXPONENT, -1, (_P - 1) * (_Q - 1) // gcd(_P - 1, _Q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=_P,
        q=_Q,
        d=d,
        dmp1=d % (_P - 1),
        dmq1=d % (_Q - 1),
        iqmp=pow(_Q, -1, _P),
        public_numbers=rsa.RSAPublicNumbers(EXPONENT, _P * _Q),
    )
    return numbers.private_key()
