"""A whole simulated host, its agent and a vCenter, in a few lines."""

import gzip

import attrs
import pytest

from sim.core.context import Sim
from sim.hw.board import Board
from sim.hw.spec import HostSpec
from sim.image.catalog import standard_image
from sim.image.efi_lists import encode_signature_lists
from sim.image.pki import Pki
from sim.kernel.host import Host
from sim.tpm.manufacture import TpmVendor
from sim.vsphere.hostd import HostAgent
from sim.vsphere.vcenter import VCenter

SECOND = 10**9


class World:
    """One host with a small standard image, and a vCenter that knows the image's makers."""

    def __init__(
        self,
        *,
        kernelopt="",
        tpm="enabled",
        secure_boot=True,
        txt=False,
        seed=3,
        serial="T1",
        endorsement_keys=("ecc",),
        log_form="generic",
        **policy,
    ):
        self.sim = Sim(seed=seed)
        self.pki = pki = Pki.create(self.sim.rng, epoch=self.sim.epoch)
        self.vendor = TpmVendor(self.sim.rng)
        self.image = standard_image(
            self.sim.rng, pki, epoch=self.sim.epoch, modules=4, module_bytes=2048, kernelopt=kernelopt
        )
        firmware = attrs.evolve(
            HostSpec().firmware,
            tpm_enabled=tpm != "disabled",
            txt_enabled=txt,
            secure_boot=secure_boot,
            log_form=log_form,
        )
        spec = HostSpec(name="esx01", tpm_present=tpm != "absent", firmware=firmware)
        device = None
        if spec.tpm_present:
            device = self.vendor.make(
                serial, self.sim.rng.child("esx01"), clock=self.sim.engine, endorsement_keys=endorsement_keys
            )
        self.board = Board(self.sim, spec, device)
        self.bank = self.board.disk.volume("bootbank")
        self.bank.copy_from(self.image.bank.files.items())
        self.board.disk.volume("esp").copy_from(self.image.esp.items())
        for name, certificate in (("PK", pki.platform), ("KEK", pki.key_exchange)):
            self.board.firmware.set_variable(name, encode_signature_lists([certificate.certificate_der]))
        self.board.firmware.set_variable("db", encode_signature_lists(pki.uefi_db))
        self.board.firmware.set_variable("dbx", b"")
        self.host = Host(self.board, pki.trust)
        self.agent = HostAgent(self.sim, "esx01", self.host, self.board.meter)
        self.vcenter = VCenter(
            self.sim, vendor_roots=(self.vendor.root_certificate_der,), manifest=self.image.manifest
        )
        self.vcenter.policy = attrs.evolve(self.vcenter.policy, **policy)
        self.errors = []

    def boot(self):
        self.host.power_on()
        self.run(60)
        return self

    def reboot(self):
        self.host.reboot()
        self.run(60)

    def run(self, seconds=5):
        self.sim.engine.run(self.sim.now + seconds * SECOND)

    def add(self):
        """Boot, add the host to vCenter, and return its entry."""
        self.boot()
        self.vcenter.add_host(self.agent, on_error=self.errors.append)
        self.run()
        return self.vcenter.host("esx01")

    def attest_again(self, how="reconnect_host"):
        getattr(self.vcenter, how)("esx01", on_error=self.errors.append)
        self.run()
        return self.vcenter.host("esx01")

    def flip_content_bit(self, name, bit=8 * 3000):
        """Flip a bit of what a packed file holds; the same call flips it back."""
        content = bytearray(gzip.decompress(self.bank.read(name)))
        content[bit // 8] ^= 1 << bit % 8
        self.bank.write(name, gzip.compress(bytes(content), mtime=0))

    def event_types(self):
        return [event.event_type_id for event in self.vcenter.events]


@pytest.fixture
def world():
    """A function that makes a world: world(secure_boot=False)."""
    return World
