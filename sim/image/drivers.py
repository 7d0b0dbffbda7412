"""The drivers of the simulated image: names and versions as public ESXi images list them.

Models a list of driver VIBs with their makers and acceptance levels.  Leaves out what the drivers do: each becomes a
module of seeded random code (`sim.image.catalog`).

Sources: the component list of a real ESXi 6.7 host's attestation report and VMware's public driver names; which maker
has which acceptance level here is this project's choice.
"""

from __future__ import annotations

import attrs

__all__ = ["DRIVERS", "Driver", "drivers"]


@attrs.frozen(kw_only=True)
class Driver:
    """A driver VIB to make: its name, its version without release, maker, and the level it is signed at."""

    name: str
    version: str
    provider: str
    vendor: str
    level: str

    @property
    def license(self) -> str:
        """The licence that the module states: the old drivers came from Linux."""
        return "GPLv2" if self.name.startswith(_LINUX_PREFIXES) else "BSD"

    @property
    def needs(self) -> str | None:
        """The name of the driver that this one stands on."""
        return _NEEDS.get(self.name)

    @property
    def module(self) -> str:
        """The name of the kernel module, in which ESXi writes underscores."""
        return self.name.replace("-", "_").replace(".", "_")


def drivers(count: int) -> tuple[Driver, ...]:
    """Return the first `count` drivers; after the last real name, numbered storage and network modules follow."""
    made = []
    for number in range(len(DRIVERS), count):
        line = f"{('simnic', 'simscsi')[number % 2]}-{number:03d} 1.{number}.0"
        made.append(_driver(line, _MAKERS[number % len(_MAKERS)]))
    return (*DRIVERS, *made)[:count]


_LINUX_PREFIXES = (
    "net-",
    "scsi-",
    "sata-",
    "ata-",
    "usb",
    "ehci-",
    "ohci-",
    "uhci-",
    "xhci-",
    "hid-",
    "ipmi-",
    "char-",
)
_NEEDS = {
    "nmlx5-rdma": "nmlx5-core",
    "nmlx4-en": "nmlx4-core",
    "nmlx4-rdma": "nmlx4-core",
    "bnxtroce": "bnxtnet",
    "qedrntv": "qedentv",
    "nenic-ens": "nenic",
    "irdman": "icen",
    "i40iwn": "i40en",
}
_MAKERS = (
    ("certified", "VMware", "VMW"),
    ("accepted", "Broadcom", "BCM"),
    ("partner", "Mellanox", "MEL"),
    ("accepted", "Intel", "INT"),
    ("partner", "Marvell", "QLC"),
    ("partner", "Cisco", "CIS"),
)

_LISTS = {
    ("certified", "VMware", "VMW"): """
        vmkusb 0.1; nvme-pcie 1.2.4.11; vmw-ahci 2.0.11; nvmxnet3 2.0.0.31; pvscsi 0.1; vmkata 0.1; ne1000 0.9.0;
        ntg3 4.1.9.0; vmkfcoe 1.0.0.2; iser 1.1.0.1; nvmetcp 1.0.1.8; vmkplexer 1.0; nvmxnet3-ens 2.0.0.23;
        mtip32xx-native 3.9.8; nhpsa 70.0051.0.100; char-random 1.0; ipmi-devintf 39.1; ipmi-si-drv 39.1;
        hid-hid 1.0; xhci-xhci 1.0; ehci-ehci-hcd 1.0; ohci-usb-ohci 1.0; uhci-usb-uhci 1.0; usbcore-usb 1.0;
        usb-storage 1.0; sata-ahci 3.0; sata-ata-piix 2.12; sata-sata-nv 3.5; sata-sata-sil 2.3; net-e1000 8.0.3.1;
        net-e1000e 3.2.2.1; net-vmxnet3 1.1.3.0; net-tg3 3.131d; net-usbnet 1.0; ata-pata-amd 0.3.10;
        ata-pata-via 0.3.3; ata-pata-sil680 0.4.8; scsi-megaraid2 2.00.4; scsi-mptspi 4.23.01.00; nvmerdma 1.0.3.5;
    """,
    ("accepted", "Broadcom", "BCM"): """
        lsi-mr3 7.728.02.00; lsi-msgpt3 17.00.13.00; lpfc 14.2.641.5; bnxtnet 216.0.50.0; bnxtroce 216.0.58.0;
        lsi-msgpt35 26.00.01.00; lsi-msgpt2 20.00.06.00; elxnet 12.0.1250.0; elxiscsi 12.0.1200.0;
        brcmfcoe 12.0.1500.3; brcmnvmefc 14.2.641.5; dell-shared-perc8 06.806.92.00; net-bnx2 2.2.4f;
        net-bnx2x 1.78.80; scsi-bnx2i 2.78.76; scsi-mpt2sas 19.00.00.00;
    """,
    ("partner", "Mellanox", "MEL"): """
        nmlx5-core 4.23.0.36; nmlx5-rdma 4.23.0.36; nmlx4-core 3.19.16.8; nmlx4-en 3.19.16.8; nmlx4-rdma 3.19.16.8;
        nmst 4.22.1.307; net-mlx4-core 1.9.7.0; net-mlx4-en 1.9.7.0;
    """,
    ("accepted", "Intel", "INT"): """
        ixgben 1.7.1.41; i40en 1.11.1.31; igbn 1.4.11.7; icen 1.4.1.20; irdman 1.3.1.22; iavmd 2.7.0.1157;
        net-igb 5.0.5.1.1; net-ixgbe 3.7.13.7.14iov; i40iwn 1.1.2.6; rste 2.0.2.0088;
        qat 2.5.0.8;
    """,
    ("partner", "Marvell", "QLC"): """
        qlnativefc 5.2.46.0; qedentv 3.40.5.53; qedf 2.2.9.0; qedrntv 3.40.5.53; qedi 2.19.9.0; qfle3 1.0.67.0;
        qfle3i 1.0.15.0; qfle3f 1.0.51.0; qflge 1.1.0.11; qcnic 1.0.15.0; atlantic 1.0.3.0; scsi-qla4xxx 5.01.03.2;
        net-nx-nic 5.0.621;
    """,
    ("partner", "Cisco", "CIS"): """
        nenic 1.0.33.0; nfnic 4.0.0.70; nenic-ens 1.0.6.0; net-enic 2.1.2.38; scsi-fnic 1.5.0.45;
    """,
    ("partner", "Microchip", "MCHP"): """
        smartpqi 80.4495.0.5000; scsi-aacraid 1.1.5.1; scsi-adp94xx 1.0.8.12; scsi-ips 7.12.05; lsuv2-smartpqi 1.0.0;
    """,
}


def _driver(line: str, maker: tuple[str, str, str]) -> Driver:
    name, version = line.split()
    level, provider, vendor = maker
    return Driver(name=name, version=version, provider=provider, vendor=vendor, level=level)


def _interleaved() -> tuple[Driver, ...]:
    """Take the lists in turn, so that a short image has drivers of every level."""
    lists = [
        [_driver(line, maker) for line in text.split(";") if line.strip()] for maker, text in _LISTS.items()
    ]
    longest = max(map(len, lists))
    return tuple(items[row] for row in range(longest) for items in lists if row < len(items))


DRIVERS = _interleaved()
"""The drivers with public names, mixed so that the first few already have every level."""
