"""Exhaustive single-bit campaign over signed VIBs, EFI loaders, early modules and a boot bank.

Run `python tests/campaigns/bitflips.py` (a million changes, about a quarter of an hour) or add `--stride N` to try every Nth bit only.  Each line says
how many changes were tried and what became of them; the exit status is 0 only if none was accepted as authentic and
none raised anything but a refusal.  `--part signature` runs the parts whose title has this word alone.  The bits of signature
files are counted again by themselves: three archives with EC keys and three with RSA keys.  A change that the bank verifier lets through must change what is measured:
the digest of a file's content, or the kernel options.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from sim.core.rng import Rng
from sim.errors import FormatError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bankcheck import verify_bank
from sim.image.bitflips import FlipReport, flip_bit, flip_bits
from sim.image.bootcfg import parse_boot_config
from sim.image.catalog import Image, standard_image
from sim.image.efi import verify_efi
from sim.image.manifest import measured_digests
from sim.image.metadata import Descriptor
from sim.image.payload import content_of, gzip_stored
from sim.image.pki import Pki
from sim.image.trailer import verify_module
from sim.image.vib import Payload, build_vib, parse_vib, read_vib, verify_vib

EPOCH = datetime(2024, 3, 1, 12, tzinfo=UTC)
SIGNATURE_FILE = "signature file"
LEVELS = ("partner", "accepted", "certified")
MEASURED = "not refused, but measured"


def main(arguments: list[str] | None = None) -> int:
    """Run all parts, print their counts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="try every Nth bit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="", help="run only the parts whose title has this text")
    options = parser.parse_args(arguments)
    pki = Pki.create(Rng(options.seed), epoch=EPOCH)
    image = standard_image(Rng(options.seed), pki, epoch=EPOCH, modules=1, module_bytes=64)
    failed = False
    tried = 0
    in_signatures: Counter[str] = Counter()
    for title, run in campaign(image, pki, options.stride):
        if options.part not in title:
            continue
        report = run()
        refusals = sum(report.refused.values())
        print(
            f"{title}: {report.tried} changes, {refusals} caught, "
            f"{len(report.accepted)} accepted, {len(report.escaped)} escaped"
        )
        for check, count in sorted(report.refused.items(), key=lambda item: -item[1])[:6]:
            print(f"    {count:8} {check}")
        for bit, text in report.escaped[:5]:
            print(f"    ESCAPED at bit {bit}: {text}")
        for bit in report.accepted[:5]:
            print(f"    ACCEPTED at bit {bit}")
        failed |= bool(report.accepted or report.escaped)
        tried += report.tried
        if title.startswith(SIGNATURE_FILE):
            in_signatures += Counter(
                archives=1, bits=report.tried, accepted=len(report.accepted), uncaught=len(report.escaped)
            )
    print(
        f"signature files: {in_signatures['bits']} single-bit changes in {in_signatures['archives']} archives, "
        f"{in_signatures['accepted']} accepted, {in_signatures['uncaught']} uncaught"
    )
    print(f"total: {tried} changes, {'FAILED' if failed else '0 accepted, 0 escaped'}")
    return 1 if failed else 0


def campaign(image: Image, pki: Pki, stride: int = 1) -> Iterator[tuple[str, Callable[[], FlipReport]]]:
    """Yield for each part a title, and what counts it."""
    for level in LEVELS:
        yield f"VIB signed at {level}", partial(flips, small_vib(pki, level), VibJudge(pki), stride)
    for path, data in image.esp.items():
        yield path, partial(flips, data, LoaderJudge(pki), stride)
    module = content_of(image.bank.files["procfs.b00"])
    yield "early module procfs.b00", partial(flips, module, ModuleJudge(pki), stride)
    yield "boot bank", partial(bank_campaign, image, pki, stride)
    for algorithm in ("ec-p256", "rsa-2048"):
        makers = Pki.create(Rng(1), epoch=EPOCH, algorithm=algorithm)
        for level in LEVELS:
            title = f"{SIGNATURE_FILE} at {level}, {algorithm}"
            yield title, partial(flips_of_signature, small_vib(makers, level), VibJudge(makers), stride)


def flips(data: bytes, judge: Callable[[bytes], object], stride: int) -> FlipReport:
    """Change every `stride`th bit of a file."""
    return flip_bits(data, judge, range(0, 8 * len(data), stride))


def flips_of_signature(archive: bytes, judge: Callable[[bytes], object], stride: int) -> FlipReport:
    """Change every `stride`th bit of the signature file in a VIB."""
    signature = parse_vib(archive).signature
    begin = 8 * archive.index(signature)
    return flip_bits(archive, judge, range(begin, begin + 8 * len(signature), stride))


def small_vib(pki: Pki, level: str) -> bytes:
    """Return a signed VIB of two payloads, small enough for every bit."""
    spec = Descriptor(
        name="net-example", version="1.0-1", vendor="Example", level=AcceptanceLevel.from_xml(level)
    )
    payloads = [
        Payload(name="net", kind="vgz", data=gzip_stored(b"network driver")),
        Payload(name="extra", kind="boot", data=b"raw bytes"),
    ]
    return build_vib(spec, payloads, pki.signer(level), EPOCH)


def bank_campaign(image: Image, pki: Pki, stride: int) -> FlipReport:
    """Change bits of every bank file; the verifier must refuse or the measurements must show it."""
    tried = 0
    refused: Counter[str] = Counter()
    accepted: list[int] = []
    escaped: list[tuple[int, str]] = []
    for name, data in image.bank.files.items():
        for bit in range(0, 8 * len(data), stride):
            changed = flip_bit(data, bit)
            tried += 1
            try:
                check = judge_bank(image, pki, name, changed)
            except Exception as error:
                escaped.append((bit, f"{name}: {error!r}"))
                continue
            if check:
                refused[check] += 1
            else:
                accepted.append(bit)
    return FlipReport(tried=tried, refused=dict(refused), accepted=tuple(accepted), escaped=tuple(escaped))


def judge_bank(image: Image, pki: Pki, name: str, changed: bytes) -> str:
    """Return the check that caught a bank with one changed file, or nothing."""
    files = {**image.bank.files, name: changed}
    report = verify_bank(files, pki.trust, EPOCH, AcceptanceLevel.PARTNER_SUPPORTED, secure_boot=True)
    if not report.ok:
        return report.failures[0].check
    original = image.bank.files[name]
    if name == "boot.cfg":
        before, after = parse_boot_config(original), parse_boot_config(changed)
        measured = (before.kernelopt, before.load_order) != (after.kernelopt, after.load_order)
    else:
        measured = measured_digests(name, original) != measured_digests(name, changed)
    return MEASURED if measured else ""


class VibJudge:
    """Reads and verifies a VIB."""

    def __init__(self, pki: Pki) -> None:
        self.trust = pki.trust

    def __call__(self, data: bytes) -> None:
        verify_vib(read_vib(data), self.trust, EPOCH)


class LoaderJudge:
    """Verifies an EFI image as the firmware does."""

    def __init__(self, pki: Pki) -> None:
        self.db = pki.uefi_db

    def __call__(self, data: bytes) -> None:
        verify_efi(data, self.db, (), EPOCH)


class ModuleJudge:
    """Verifies the trailer of an early module."""

    def __init__(self, pki: Pki) -> None:
        self.keys = pki.trust.early_keys

    def __call__(self, data: bytes) -> None:
        if not verify_module(data, self.keys).payload:
            raise FormatError("early module", "", "is empty")


if __name__ == "__main__":
    sys.exit(main())
