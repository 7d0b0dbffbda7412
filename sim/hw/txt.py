"""The chipset's TXT registers: what a measured launch left in them, and what outlives a reset.

Models: the public registers that tboot and its tool `txt-stat` read.  An error that ends a launch is written into
TXT.ERRORCODE and raises TXT_RESET.STS in TXT.ESTS; both survive every reset and go only when power is cut.  While that
bit stands the processor refuses GETSEC[SENTER].  What says that a launch has taken place goes with any reset.

Leaves out: the register pages as memory, private registers, the heap, DMA protection, and the scrubbing of memory that
a reset with the secrets flag forces on a real platform.

Sources: Intel TXT MLE Developer's Guide, appendix B (registers); tboot 1.10.5, txt/config_regs.h and utils/txt-stat.c.
"""

from __future__ import annotations

from attrs import frozen

from sim.core.facts import fact

__all__ = ["TXT_DEVICE", "TXT_REVISION", "TXT_SVN_MIN", "TXT_VENDOR", "TxtRegisters", "TxtState"]

_DIDVID = "tboot's txt-stat on a server of 2017; which chipset it is makes no difference"
TXT_VENDOR = fact("hw.txt_vendor", 0x8086, unit="PCI id", source="PCI: Intel", kind="spec")
TXT_DEVICE = fact("hw.txt_device", 0xB006, unit="PCI id", source=_DIDVID, kind="assumed")
TXT_REVISION = fact("hw.txt_revision", 1, unit="1", source=_DIDVID, kind="assumed")
TXT_SVN_MIN = fact(
    "hw.txt_svn_min",
    2,
    unit="1",
    source="the least security version of SINIT that the platform still runs; real values are not public",
    kind="assumed",
)

_SENTER_DONE = 1 << 0
_MEM_UNLOCKED = 1 << 4
_PRIVATE_OPEN = 1 << 7
_LOCALITY_1_OPEN = 1 << 15
_LOCALITY_2_OPEN = 1 << 16
_LAUNCHED = _SENTER_DONE | _MEM_UNLOCKED | _PRIVATE_OPEN | _LOCALITY_1_OPEN | _LOCALITY_2_OPEN
_TXT_RESET = 1 << 0
_SECRETS = 1 << 1


@frozen(kw_only=True)
class TxtState:
    """The registers at one moment, as a report shows them."""

    sts: int = 0
    ests: int = 0
    e2sts: int = 0
    errorcode: int = 0
    didvid: int = 0
    sinit_bytes: int = 0
    public_key: str = ""
    """Digest of the key that the chipset trusts, in hex."""

    @property
    def senter_done(self) -> bool:
        """Whether a measured launch has taken place since the last reset."""
        return bool(self.sts & _SENTER_DONE)

    @property
    def txt_reset(self) -> bool:
        """Whether an error has switched SENTER off until power is cut."""
        return bool(self.ests & _TXT_RESET)

    @property
    def secrets(self) -> bool:
        """Whether the launched code has said that memory holds secrets."""
        return bool(self.e2sts & _SECRETS)


class TxtRegisters:
    """The TXT registers of a board; `production` says whether its chipset takes modules of the production line only."""

    def __init__(self, *, production: bool = True) -> None:
        self.sts = 0
        self.ests = 0
        self.e2sts = 0
        self.errorcode = 0
        self.sinit_bytes = 0
        self.public_key = b""
        self.svn_min = TXT_SVN_MIN.value
        self.production = production

    @property
    def didvid(self) -> int:
        """Revision, device and vendor of the chipset in one word, as TXT.DIDVID has them."""
        return TXT_REVISION.value << 32 | TXT_DEVICE.value << 16 | TXT_VENDOR.value

    @property
    def senter_disabled(self) -> bool:
        """Whether TXT_RESET.STS forbids a launch."""
        return bool(self.ests & _TXT_RESET)

    def note_sinit(self, size_bytes: int) -> None:
        """Note how large the module is that firmware has put in place."""
        self.sinit_bytes = size_bytes

    def note_launch(self) -> None:
        """Note that SENTER is done: localities 1 and 2 are open, and the launched code may keep secrets."""
        self.sts = _LAUNCHED
        self.e2sts |= _SECRETS

    def note_error(self, code: int) -> None:
        """Keep why the platform resets itself; nothing but the loss of power takes it away."""
        self.errorcode = code
        self.ests |= _TXT_RESET
        self.sts = 0

    def reset(self) -> None:
        """Go through a platform reset, or out of S3: the error registers stay."""
        self.sts = 0
        self.e2sts &= ~_SECRETS

    def power_cycle(self) -> None:
        """Lose power: everything goes."""
        self.reset()
        self.ests = self.e2sts = self.errorcode = 0

    def state(self) -> TxtState:
        """Return the registers as they stand."""
        return TxtState(
            sts=self.sts,
            ests=self.ests,
            e2sts=self.e2sts,
            errorcode=self.errorcode,
            didvid=self.didvid,
            sinit_bytes=self.sinit_bytes,
            public_key=self.public_key.hex(),
        )
