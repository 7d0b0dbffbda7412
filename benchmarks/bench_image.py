"""A full check of a VIB's signature, against the bare signature verifications that it cannot do without.

The chain is RSA-2048 throughout: descriptor, signer's certificate, issuer's certificate.  A check parses the signature file,
applies every rule to structure, signer and chain, and verifies.  "Cold" forgets every certificate, key, list, chain and
signature file before each check; the pinned root alone is excepted, which a host reads once with its trust store, and
whose key it has used before.  "Warm" meets a signer again in a file that it never saw, as the second VIB of a maker is:
each check has its own content and signature, and none is met twice.

The floor of the cold check is three RSA-2048 verifications with keys that are loaded already, that of the warm one a
single verification.  Both sides of a ratio are measured in turns, in short rounds, and the best of the rounds counts:
what else the machine does disturbs some rounds, not all.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sim.core.context import EPOCH
from sim.core.rng import Rng
from sim.image import algorithms, certificate, chain, cms, crl, der, signature_layout, signed_data
from sim.image.certificate import load_certificate
from sim.image.cms import sign_detached, verify_detached
from sim.image.issue import Signer
from sim.image.pki import Pki

ROUNDS = 500
COLD_CALLS, WARM_CALLS = 3, 8
CONTENT = b"<vib/>" * 400
_ALGORITHM = hashes.SHA256()
_PADDING = padding.PKCS1v15()


def forget(root: bytes) -> None:
    """Empty every memory of the verifier but for the pinned root, whose key has been used."""
    for module in (algorithms, certificate, chain, cms, crl, der, signature_layout, signed_data):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    known = load_certificate(root)
    assert known.is_issued_by(known)


def one_file(signer: Signer, number: int) -> tuple[bytes, bytes]:
    """Return a content and its signature, unlike those of any other number, signed a second later than the last."""
    content = number.to_bytes(4, "big") + CONTENT[4:]
    return content, sign_detached(content, signer, EPOCH + timedelta(seconds=number))


def seconds(calls: int, call: Callable[[], object], before: Callable[[], object] | None = None) -> float:
    """Return the time of some calls, without what runs before each."""
    total = 0.0
    for _ in range(calls):
        if before is not None:
            before()
        start = time.perf_counter()
        call()
        total += time.perf_counter() - start
    return total


def run() -> list[dict[str, Any]]:
    """Measure both ratios."""
    pki = Pki.create(Rng(0), epoch=EPOCH, algorithm="rsa-2048")
    signer = pki.signer("partner")
    files = [one_file(signer, number) for number in range(ROUNDS * WARM_CALLS + 1)]
    first, signature = files[0]
    path = [load_certificate(one) for one in (signer.certificate_der, *signer.chain, *pki.trust.roots)]
    pairs = [(path[1].public_key, path[0]), (path[2].public_key, path[1])]
    attributes = CONTENT
    own = signer.sign(attributes)

    def one() -> None:
        key = path[0].public_key
        assert isinstance(key, rsa.RSAPublicKey)
        key.verify(own, attributes, _PADDING, _ALGORITHM)

    def three() -> None:
        one()
        for key, issued in pairs:
            assert isinstance(key, rsa.RSAPublicKey)
            key.verify(issued.signature, issued.body, _PADDING, _ALGORITHM)

    def check() -> None:
        verify_detached(first, signature, pki.trust, EPOCH)

    unseen = iter(files[1:])

    def check_next() -> None:
        content, unseen_signature = next(unseen)
        verify_detached(content, unseen_signature, pki.trust, EPOCH)

    best = {"cold": 9e9, "warm": 9e9, "chain": 9e9, "one": 9e9}
    gc.collect()
    gc.disable()
    for _ in range(ROUNDS):
        best["cold"] = min(best["cold"], seconds(COLD_CALLS, check, lambda: forget(pki.trust.roots[0])))
        best["chain"] = min(best["chain"], seconds(COLD_CALLS, three))
        check()
        best["warm"] = min(best["warm"], seconds(WARM_CALLS, check_next))
        best["one"] = min(best["one"], seconds(WARM_CALLS, one))
    gc.enable()
    return [
        _figure(
            "full signature check, cold", best["cold"] / best["chain"], "three RSA-2048 verifications", 3.0
        ),
        _figure(
            "full signature check, chain known", best["warm"] / best["one"], "one RSA-2048 verification", 1.5
        ),
    ]


def _figure(name: str, value: float, against: str, bar: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": "x",
        "against": against,
        "bar": bar,
        "sense": "<=",
        "wording": f"{name} of a VIB with an RSA-2048 chain against {against} (aim: within {bar}x)",
    }
