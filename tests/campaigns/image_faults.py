"""Single faults in signed images: bits, cuts, swapped, doubled, dropped and blanked pieces; none may pass as authentic.

Run `python tests/campaigns/image_faults.py --count 100000`.  The subjects are signed VIBs of each level and of RSA and EC
keys, their signature files alone, an offline bundle and a revocation list.  Each line says how many faults were tried and
what became of them; the exit status is 0 only if none was accepted and none raised anything but a refusal.  A bundle may
be accepted if the depot in it is the one that was written (a time in the zip directory means nothing).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from sim.core.rng import Rng, Stream
from sim.errors import FormatError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.ar import read_ar
from sim.image.bundle import depot_of, read_bundle, write_bundle
from sim.image.certificate import load_certificate
from sim.image.cms import sign_detached, verify_detached
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.metadata import Descriptor
from sim.image.payload import gzip_stored
from sim.image.pki import Pki
from sim.image.trust import RevocationPolicy
from sim.image.vib import Payload, build_vib, read_vib, verify_vib

EPOCH = datetime(2024, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KINDS = ("bit", "cut", "swap", "double", "drop", "blank")
PIECE_BYTES_MAX = 64

Judge = Callable[[bytes], object]


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign, print its counts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="faults in all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    subjects = list(all_subjects(options.seed))
    failed, tried = False, 0
    for number, (title, data, judge) in enumerate(subjects):
        share = options.count // len(subjects) + (number < options.count % len(subjects))
        outcomes = run(data, judge, share, Stream(f"{options.seed}/{title}".encode()))
        tried += sum(outcomes.values())
        failed |= bool(outcomes["ACCEPTED"] or outcomes["ESCAPED"])
        print(f"{title}: " + ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items())))
    print(f"total: {tried} faults, {'FAILED' if failed else '0 accepted, 0 escaped'}")
    return 1 if failed else 0


def run(data: bytes, judge: Judge, count: int, stream: Stream) -> Counter[str]:
    """Return what became of so many faulty copies."""
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        faulty = spoil(data, stream)
        if faulty == data:
            outcomes["unchanged"] += 1
            continue
        try:
            harmless = judge(faulty)
        except (FormatError, VerificationError):
            outcomes["refused"] += 1
        except Exception as error:
            outcomes["ESCAPED"] += 1
            print(f"    ESCAPED: {error!r}")
        else:
            outcomes["harmless" if harmless is True else "ACCEPTED"] += 1
    return outcomes


def spoil(data: bytes, stream: Stream) -> bytes:
    """Return a copy with one fault."""
    kind = KINDS[stream.below(len(KINDS))]
    at = stream.below(len(data))
    size = 1 + stream.below(PIECE_BYTES_MAX)
    piece = data[at : at + size]
    if kind == "bit":
        return data[:at] + bytes([data[at] ^ 1 << stream.below(8)]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "swap":
        return data[:at] + data[at + size : at + 2 * size] + piece + data[at + 2 * size :]
    if kind == "double":
        return data[:at] + piece + data[at:]
    if kind == "drop":
        return data[:at] + data[at + size :]
    return data[:at] + bytes(len(piece)) + data[at + size :]


def all_subjects(seed: int) -> Iterator[tuple[str, bytes, Judge]]:
    """Yield a title, good bytes, and the judge that accepts them."""
    for algorithm in ("ec-p256", "rsa-2048"):
        pki = Pki.create(Rng(seed), epoch=EPOCH, algorithm=algorithm)
        for level in ("partner", "accepted", "certified"):
            archive = small_vib(pki, level)
            yield f"VIB {level} {algorithm}", archive, VibJudge(pki)
            descriptor, signature = (member.data for member in read_ar(archive)[:2])
            yield f"signature {level} {algorithm}", signature, SignatureJudge(pki, descriptor)
        vibs = [read_vib(small_vib(pki, level)) for level in ("partner",)]
        depot = depot_of(vibs, vendor="Example", made_at=EPOCH)
        yield f"bundle {algorithm}", write_bundle(depot), BundleJudge(pki, depot.vibs)
        yield f"revocation list {algorithm}", revoking(pki), ListJudge(pki)


def small_vib(pki: Pki, level: str) -> bytes:
    """Return a small signed VIB."""
    spec = Descriptor(
        name="net-example", version="1.0-1", vendor="Example", level=AcceptanceLevel.from_xml(level)
    )
    payload = Payload(name="net", kind="vgz", data=gzip_stored(b"network driver"))
    return build_vib(spec, [payload], pki.signer(level), EPOCH)


def revoking(pki: Pki, *serials: int) -> bytes:
    """Return a list of the partners' authority; without serial numbers its signer is on it."""
    listed = serials or (load_certificate(pki.signer("partner").certificate_der).serial,)
    spec = CrlSpec(this_update=EPOCH - DAY, next_update=EPOCH + DAY, serials=listed)
    return issue_crl(spec, pki.authorities["partner"])


class VibJudge:
    """Reads and verifies a VIB."""

    def __init__(self, pki: Pki) -> None:
        self.trust = pki.trust

    def __call__(self, data: bytes) -> object:
        return verify_vib(read_vib(data), self.trust, EPOCH)


class SignatureJudge:
    """Verifies a signature file over its own descriptor."""

    def __init__(self, pki: Pki, descriptor: bytes) -> None:
        self.trust, self.descriptor = pki.trust, descriptor

    def __call__(self, data: bytes) -> object:
        return verify_detached(self.descriptor, data, self.trust, EPOCH)


class BundleJudge:
    """Reads a bundle and verifies its VIBs; harmless when they are those that were put in."""

    def __init__(self, pki: Pki, vibs: tuple[object, ...]) -> None:
        self.trust, self.vibs = pki.trust, vibs

    def __call__(self, data: bytes) -> object:
        depot = read_bundle(data)
        for vib in depot.vibs:
            verify_vib(vib, self.trust, EPOCH)
        return depot.vibs == self.vibs


class ListJudge:
    """Verifies a signature whose signer is on the list; the policy demands lists, so only a forged one lets it pass."""

    def __init__(self, pki: Pki) -> None:
        self.trust = pki.trust
        root = CrlSpec(this_update=EPOCH - DAY, next_update=EPOCH + DAY)
        self.root = issue_crl(root, pki.root)
        self.signature = sign_detached(b"data", pki.signer("partner"), EPOCH)
        self.policy = RevocationPolicy(missing="refuse")

    def __call__(self, data: bytes) -> object:
        trust = self.trust.with_crls([data, self.root], self.policy)
        return verify_detached(b"data", self.signature, trust, EPOCH)


if __name__ == "__main__":
    sys.exit(main())
