"""Single-bit flips of everything that a boot reads: refused, or visible in what was measured or logged."""

from __future__ import annotations

import pytest

from sim.boot.bootinfo import BootFailure, BootInfo
from sim.core.rng import FastStream
from sim.errors import FormatError
from sim.image.pe import authenticode_digest

BITS_PER_FILE = 8
VOLUMES = ("esp", "bootbank")


def sample(size_bytes, stream):
    """The first and last bit of a file, and some in between."""
    bits = {0, 8 * size_bytes - 1}
    while len(bits) < min(BITS_PER_FILE, 8 * size_bytes):
        bits.add(stream.below(8 * size_bytes))
    return sorted(bits)


@pytest.fixture(scope="module")
def clean(make_world):
    outcomes = {}
    for secure_boot in (True, False):
        world = make_world(secure_boot=secure_boot)
        outcomes[secure_boot] = (world.boot(), world.pcrs())
    return outcomes


def flips(make_world, secure_boot):
    """Boot once for each sampled flip; yield where it was, what came out, and the PCRs."""
    stream = FastStream(11)
    files = {
        (volume, path): len(make_world().board.disk.volume(volume).peek(path))
        for volume in VOLUMES
        for path in make_world().board.disk.volume(volume).paths()
    }
    for (volume, path), size in files.items():
        for bit in sample(size, stream):
            world = make_world(secure_boot=secure_boot)
            world.board.disk.volume(volume).flip_bit(path, bit)
            if not secure_boot and not covered(make_world(), world, volume, path):
                continue
            yield f"{volume}:{path}, bit {bit}", world.boot(), world.pcrs()


def covered(clean_world, world, volume, path):
    """Whether a changed file has another digest: an image's signature is not part of its Authenticode digest."""
    if volume != "esp":
        return True
    try:
        digests = {
            authenticode_digest(host.board.disk.volume(volume).peek(path)) for host in (clean_world, world)
        }
    except FormatError:
        return True
    return len(digests) == 2


def test_flip_of_any_stored_bit_is_refused_by_secure_boot_or_moves_a_pcr(make_world, clean):
    _, pcrs = clean[True]
    refused = shown = 0
    for where, outcome, found in flips(make_world, secure_boot=True):
        if isinstance(outcome, BootFailure):
            refused += 1
        else:
            assert found != pcrs, where
            shown += 1
    print(f"{refused} flips refused, {shown} shown in the PCRs")
    assert refused > 150


def test_flip_of_any_stored_bit_shows_without_secure_boot(make_world, clean):
    info, pcrs = clean[False]
    booted = 0
    for where, outcome, found in flips(make_world, secure_boot=False):
        if isinstance(outcome, BootInfo):
            booted += 1
            assert found != pcrs or outcome.messages != info.messages, where
    assert booted > 20


def test_flip_in_any_measured_variable_or_volume_of_the_firmware_moves_its_pcr(make_world, clean):
    _, pcrs = clean[False]
    stream = FastStream(12)
    places = {"SEC-PEI": 0, "DXE": 0, "MICROCODE": 1, "OPTION-ROM": 2}
    for name, pcr in places.items():
        for bit in sample(len(make_world().board.firmware.volumes[name]), stream):
            world = make_world(secure_boot=False)
            world.board.firmware.flip_bit(name, bit)
            assert isinstance(world.boot(), BootInfo)
            found = world.pcrs()
            assert [at for at in range(24) if found[at] != pcrs[at]] == [pcr]
    for name, pcr in {"PK": 7, "KEK": 7, "db": 7, "BootOrder": 1}.items():
        world = make_world(secure_boot=False)
        value = world.board.firmware.variables[name]
        world.board.firmware.set_variable(name, value + b"\x05\x00")
        assert isinstance(world.boot(), BootInfo)
        found = world.pcrs()
        assert [at for at in range(24) if found[at] != pcrs[at]] == [pcr]
