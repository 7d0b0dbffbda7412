"""What goes wrong on purpose: flipped bits, missing files, switches turned off, reboots.

Models: a fault as a value (`FaultSpec`) with the moment at which it strikes.  A fault changes what is stored or
switched; what follows from it is the simulated machine's own doing.  `sim.scenario.strike` carries faults out.

Leaves out: faults of memory, processors and network; those of TPM commands are `sim.tpm.fault_spec`.
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import optional

from sim.core.structure import FieldError, between, in_choices, matches, quantity

__all__ = ["FAULT_KINDS", "FaultSpec", "FaultTarget"]

FAULT_KINDS = ("flip_bit", "remove_file", "disable_tpm", "disable_secure_boot", "reboot")
_FILE_KINDS = ("flip_bit", "remove_file")

_TARGET = r"(loader|(bootbank|altbootbank|esp|vib)/[A-Za-z0-9][\w.+:/-]{0,200})"
_BYTE_MAX = 2**31 - 1
_AT_NS_MAX = 366 * 86_400 * 10**9


@frozen(kw_only=True)
class FaultTarget:
    """The file that a fault strikes: `place` is a volume, "vib" (the first payload of that VIB) or "loader"."""

    place: str
    name: str

    @classmethod
    def parse(cls, text: str) -> FaultTarget:
        """Read "bootbank/nvme_pci.v00", "vib/nvme-pcie", "esp/EFI/..." or "loader"."""
        place, _, name = text.partition("/")
        return cls(place=place, name=name)


@frozen(kw_only=True)
class FaultSpec:
    """One fault.  `at` counts from the end of the first boot; without it the fault is there before power-on.

    `byte` and `bit` say which bit of the target is flipped; what is left out is drawn from a stream of its own.
    With `unpacked` they count in what the file unpacks to, and it is packed again, as a careful attacker would.
    """

    kind: str = field(validator=in_choices(*FAULT_KINDS))
    target: str | None = field(
        default=None,
        validator=optional(matches(_TARGET, '"loader", or a volume or "vib", a slash and a name')),
    )
    byte: int | None = field(default=None, validator=optional(between(0, _BYTE_MAX)))
    bit: int | None = field(default=None, validator=optional(between(0, 7)))
    unpacked: bool = False
    at_ns: int | None = field(
        default=None, metadata=quantity("ns"), validator=optional(between(0, _AT_NS_MAX))
    )

    def __attrs_post_init__(self) -> None:
        if self.kind in _FILE_KINDS and self.target is None:
            raise FieldError("target", None, f"a file such as bootbank/s.v00 for {self.kind}")
        flips = self.kind == "flip_bit"
        unused = {"target": self.kind in _FILE_KINDS, "byte": flips, "bit": flips, "unpacked": flips}
        for name, used in unused.items():
            if not used and getattr(self, name) not in (None, False):
                raise FieldError(name, getattr(self, name), f"no {name} for {self.kind}")
        if self.kind == "reboot" and self.at_ns is None:
            raise FieldError("at_ns", None, "a time after the first boot for reboot")
