import hashlib
import subprocess
import sys

import pytest

from sim.core.rng import Rng
from sim.image.acceptance import AcceptanceLevel
from sim.image.bankcheck import verify_bank
from sim.image.catalog import standard_image
from sim.image.contents import kernel_modules, open_archive, without_trailer
from sim.image.drivers import DRIVERS, drivers
from sim.image.efi import verify_efi
from sim.image.elf import read_elf
from sim.image.payload import content_of
from sim.image.recipes import EARLY_ARCHIVES, KERNEL_INTERFACE
from sim.image.trailer import verify_module
from sim.image.vib import read_vib, verify_vib

DIGEST = """
import hashlib
from datetime import UTC, datetime
from sim.core.rng import Rng
from sim.image.catalog import standard_image
from sim.image.pki import Pki
epoch = datetime(2024, 3, 1, 12, tzinfo=UTC)
image = standard_image(Rng(7), Pki.create(Rng(7), epoch=epoch), epoch=epoch, modules=8, module_bytes=1024)
digest = hashlib.sha256()
for name, data in sorted({**image.bank.files, **image.esp, **image.archives}.items()):
    digest.update(name.encode() + data)
print(digest.hexdigest())
"""


def image_digest(image):
    digest = hashlib.sha256()
    for name, data in sorted({**image.bank.files, **image.esp, **image.archives}.items()):
        digest.update(name.encode() + data)
    return digest.hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "random"])
def test_equal_arguments_give_equal_bytes_in_another_process(small_image, hash_seed, tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(path for path in sys.path if path) or "."},
        capture_output=True,
        check=True,
        text=True,
    )
    assert out.stdout.strip() == image_digest(small_image)


def test_another_seed_gives_other_code(world_pki, small_image, epoch):
    other = standard_image(Rng(8), world_pki, epoch=epoch, modules=8, module_bytes=1024)
    assert other.bank.files["k.b00"] != small_image.bank.files["k.b00"]
    assert other.bank.config == small_image.bank.config


def test_one_more_driver_moves_no_other(world_pki, small_image, epoch):
    more = standard_image(Rng(7), world_pki, epoch=epoch, modules=9, module_bytes=1024).bank.files
    changed = {name for name in more if small_image.bank.files.get(name) != more[name]}
    assert changed == {"lsi_msgp.v00", "imgdb.tgz", "boot.cfg"}


def test_a_benchmark_image_has_as_many_modules_as_asked(world_pki, epoch):
    image = standard_image(Rng(7), world_pki, epoch=epoch, modules=150, module_bytes=512)
    assert len(image.vibs) == 152
    assert len(set(image.bank.config.modules)) == len(image.bank.config.modules)
    assert verify_bank(
        image.bank.files, world_pki.trust, epoch, AcceptanceLevel.PARTNER_SUPPORTED, secure_boot=True
    ).ok


def test_driver_names_are_unique_and_short_lists_have_every_level():
    names = [driver.name for driver in drivers(200)]
    assert len(set(names)) == 200
    assert {driver.level for driver in DRIVERS[:8]} == {"certified", "accepted", "partner"}
    modules = [driver.module for driver in drivers(200)]
    assert len(set(modules)) == 200


def test_every_archive_is_a_vib_that_verifies(small_image, world_pki, epoch):
    for name, data in small_image.archives.items():
        vib = read_vib(data)
        assert name == f"{vib.vib_id}.vib"
        assert verify_vib(vib, world_pki.trust, epoch).level is vib.descriptor.level


def test_the_load_order_is_that_of_a_real_host(small_image):
    config = small_image.bank.config
    assert config.kernel == "b.b00"
    assert config.modules[:4] == ("jumpstrt.gz", "useropts.gz", "features.gz", "k.b00")
    assert config.modules[-2:] == ("imgdb.tgz", "state.tgz")
    assert config.modules.index("esxupdt.v00") < config.modules.index("vmkusb.v00")


def test_early_modules_carry_a_trailer_that_the_loader_accepts(small_image, world_pki):
    keys = world_pki.trust.early_keys
    for name in (
        "b.b00",
        "k.b00",
        "chardevs.b00",
        "user.b00",
        "procfs.b00",
        "s.v00",
        "sb.v00",
        "esxupdt.v00",
    ):
        content = content_of(small_image.bank.files[name])
        assert verify_module(content, keys).payload == without_trailer(content)
    assert EARLY_ARCHIVES == ("s", "sb", "esxupdt")


def test_every_elf_of_the_bank_carries_a_trailer(small_image, world_pki):
    for name, data in small_image.bank.files.items():
        if content_of(data)[:4] == b"\x7fELF":
            assert verify_module(content_of(data), world_pki.trust.early_keys), name


def test_the_kernel_exports_what_drivers_import(small_image):
    files = small_image.bank.files
    kernel = read_elf(without_trailer(content_of(files["k.b00"])))
    exported = {symbol.name for symbol in kernel.symbols if symbol.defined}
    assert set(KERNEL_INTERFACE) <= exported
    for vib in small_image.vibs[2:]:
        ((name, data),) = kernel_modules(content_of(vib.payloads[0].data))
        module = read_elf(data)
        wanted = {symbol.name for symbol in module.symbols if not symbol.defined and symbol.name}
        assert wanted
        assert wanted <= exported, name


def test_a_driver_that_stands_on_another_imports_from_it(world_pki, epoch):
    image = standard_image(Rng(7), world_pki, epoch=epoch, modules=10, module_bytes=512)
    (rdma,) = (vib for vib in image.vibs if vib.descriptor.name == "nmlx5-rdma")
    assert "nmlx5-core" in [relation.name for relation in rdma.descriptor.depends]
    ((_, data),) = kernel_modules(content_of(rdma.payloads[0].data))
    assert "nmlx5_core_Attach" in {symbol.name for symbol in read_elf(data).symbols}


def test_the_loaders_are_signed_for_the_firmware(small_image, world_pki, epoch):
    assert set(small_image.esp) == {"EFI/VMware/safeboot64.efi", "EFI/VMware/mboot64.efi"}
    for data in small_image.esp.values():
        assert verify_efi(data, world_pki.uefi_db, (), epoch) == world_pki.uefi_db[0]


def test_the_boot_loader_package_holds_the_loaders(small_image):
    entries = open_archive(content_of(small_image.bank.files["btldr.t00"]))
    held = {entry.path: entry.data for entry in entries if entry.data}
    assert held == {path.lower(): data for path, data in small_image.esp.items()}


def test_kernel_options_and_host_level_are_parameters(world_pki, epoch):
    level = AcceptanceLevel.VMWARE_CERTIFIED
    image = standard_image(
        Rng(9), world_pki, epoch=epoch, modules=1, module_bytes=512, kernelopt="a=b", host_level=level
    )
    assert image.bank.config.kernelopt == "a=b"
    assert image.bank.database.level is level
