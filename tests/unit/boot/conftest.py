"""A world to boot in: PKI, image and board, made once and copied for each test."""

from __future__ import annotations

import hashlib
import pickle

import attrs
import pytest

from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.sequence import BootSequence
from sim.core.context import EPOCH, Sim
from sim.core.rng import Rng
from sim.hw.board import Board
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.image.catalog import Image, standard_image
from sim.image.efi_lists import encode_signature_lists
from sim.image.pki import Pki
from sim.tpm.device import Tpm

SEED = 7
BANKS = {0x04: "sha1", 0x0B: "sha256", 0x0C: "sha384", 0x0D: "sha512"}


@attrs.frozen(kw_only=True)
class Factory:
    """What all boots of these tests share."""

    pki: Pki
    image: Image


class Outcome:
    """Keeps what a boot ended in; a bound method of it is the callback, so that it pickles."""

    def __init__(self) -> None:
        self.value: BootInfo | BootFailure | None = None

    def take(self, value: BootInfo | BootFailure) -> None:
        assert self.value is None
        self.value = value


@attrs.define(kw_only=True)
class World:
    """One host, ready to boot."""

    board: Board
    pki: Pki
    trust: object
    policy: object = None

    def boot(self, **options):
        sequence, outcome = self.sequence()
        sequence.start()
        self.board.sim.engine.run()
        return outcome.value

    def sequence(self):
        outcome = Outcome()
        return BootSequence(self.board, self.trust, on_done=outcome.take, policy=self.policy), outcome

    def pcrs(self, bank=0x0B):
        """The TPM's PCRs, read from inside."""
        from sim.tpm.client import TpmClient

        client = TpmClient(self.board.tpm.transmit)
        found = {}
        for first in (0, 8, 16):
            found.update(client.pcr_read({bank: tuple(range(first, first + 8))})[bank])
        return found

    def lines(self, source):
        table = self.board.sim.trace.select("log.line")
        return [row["text"] for row in table if row["source"] == source]


@pytest.fixture(scope="session")
def factory():
    rng = Rng(SEED)
    pki = Pki.create(rng, epoch=EPOCH)
    return Factory(pki=pki, image=standard_image(rng, pki, epoch=EPOCH, modules=4, module_bytes=2048))


@pytest.fixture(scope="session")
def make_world(factory):
    """A function that builds a host with the standard image on its disk."""

    def make(
        *,
        secure_boot=True,
        tpm=True,
        tpm_enabled=True,
        txt=False,
        kernelopt=None,
        image=None,
        policy=None,
        device=None,
    ):
        image = factory.image if image is None else image
        if kernelopt is not None:
            image = image.with_bank(
                image.bank.with_config(attrs.evolve(image.bank.config, kernelopt=kernelopt))
            )
        firmware = FirmwareSpec(secure_boot=secure_boot, tpm_enabled=tpm_enabled, txt_enabled=txt)
        spec = HostSpec(name="esx01", firmware=firmware, tpm_present=tpm)
        device = device or (Tpm(b"seed of a test TPM") if tpm else None)
        board = Board(Sim(seed=SEED), spec, device)
        settings = board.firmware
        settings.set_variable("PK", encode_signature_lists([factory.pki.platform.certificate_der]))
        settings.set_variable("KEK", encode_signature_lists([factory.pki.key_exchange.certificate_der]))
        settings.set_variable("db", encode_signature_lists(factory.pki.uefi_db))
        board.disk.volume("esp").copy_from(sorted(image.esp.items()))
        board.disk.volume("bootbank").copy_from(sorted(image.bank.files.items()))
        return World(board=board, pki=factory.pki, trust=factory.pki.trust, policy=policy)

    return make


@pytest.fixture
def extend():
    """The extend rule from first principles: fold digests into a start value."""

    def fold(bank, start, digests):
        name = BANKS[bank]
        value = start
        for digest in digests:
            value = hashlib.new(name, value + digest).digest()
        return value

    return fold


@pytest.fixture
def copy():
    """A deep copy by pickle, as a checkpoint makes it."""
    return lambda value: pickle.loads(pickle.dumps(value))
