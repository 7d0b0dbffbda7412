"""What goes wrong on purpose: in stored files, switches, memory, modules, signers, processors, the late launch, TPM, power.

Models: a fault as a value (`FaultSpec`) with the moment at which it strikes.  A fault changes what is stored or
switched; what follows from it is the simulated machine's own doing.  `sim.scenario.strike` carries faults out, and
`sim.scenario.strike_memory` those of memory, `sim.scenario.strike_module` the unloading of a module in use,
`sim.scenario.strike_launch` those of a late launch and of the TPM, `sim.scenario.strike_interrupts` interrupts,
`sim.scenario.strike_revoke` revocations, `sim.scenario.strike_processors` what processors do.

Leaves out: faults of the network; those of TPM commands are `sim.tpm.fault_spec`.
"""

from __future__ import annotations

import re

from attrs import field, frozen
from attrs.validators import optional

from sim.core.structure import FieldError, between, in_choices, matches, quantity
from sim.core.units import SECOND
from sim.hw.spec import MEMORY_BYTES_MAX

__all__ = [
    "DEFECTS",
    "FAULT_KINDS",
    "FOUND_BY",
    "LOADER_TARGET",
    "REVOCATION_FORMS",
    "FaultSpec",
    "FaultTarget",
]

FAULT_KINDS = (
    "flip_bit",
    "remove_file",
    "disable_tpm",
    "disable_secure_boot",
    "reboot",
    "memory_error",
    "unload_module",
    "stray_interrupts",
    "power_cycle",
    "sinit",
    "launch_policy",
    "tpm_reset",
    "suspend",
    "alter_memory",
    "revoke",
    "pcpu_offline",
    "pcpu_online",
    "frequency",
)
FOUND_BY = ("access", "scrub")
"""Who meets a memory error first: its owner, who reads the bytes at once, or the patrol scrubber on its next round."""

DEFECTS = {
    "sinit": ("bit", "truncated", "key", "chipset", "debug", "revoked", "old", "absent", "repaired"),
    "launch_policy": ("mle", "state", "data", "signature", "revoked", "format", "absent"),
}
"""What may be wrong with the SINIT module and with the launch control policy."""

LOADER_TARGET = "loader"
REVOCATION_FORMS = {
    "early": ("list", "digest"),
    "signer": ("list", "digest"),
    LOADER_TARGET: ("certificate", "digest", "image"),
}
"""Who can be revoked -> the forms in which a host learns of it, the usual one first."""

_RUNNING_KINDS = (
    "reboot",
    "memory_error",
    "unload_module",
    "stray_interrupts",
    "power_cycle",
    "tpm_reset",
    "suspend",
    "alter_memory",
    "pcpu_offline",
    "pcpu_online",
    "frequency",
)
_PROCESSOR_KINDS = ("pcpu_offline", "pcpu_online", "frequency")
_FILE_KINDS = ("flip_bit", "remove_file")
_MEMORY_KINDS = ("memory_error", "alter_memory")
_USES = {
    "flip_bit": ("target", "byte", "bit", "unpacked"),
    "remove_file": ("target",),
    "memory_error": ("target", "byte", "bits", "found_by"),
    "alter_memory": ("target", "byte", "bit"),
    "unload_module": ("target",),
    "stray_interrupts": ("vector", "count"),
    "sinit": ("defect",),
    "launch_policy": ("defect",),
    "suspend": ("sleep_ns",),
    "revoke": ("target", "form"),
    "pcpu_offline": ("target",),
    "pcpu_online": ("target",),
    "frequency": ("target", "frequency_hz"),
}
"""Which fields a kind has, besides its time."""

_FIELDS = (
    "target",
    "byte",
    "bit",
    "unpacked",
    "bits",
    "found_by",
    "vector",
    "count",
    "defect",
    "sleep_ns",
    "form",
    "frequency_hz",
)

_FILE_TARGET = r"(loader|(bootbank|altbootbank|esp|vib|firmware)/[A-Za-z0-9][\w.+:/-]{0,200})"
_MEMORY_TARGET = r"(dram|kernel|vm/[A-Za-z0-9][\w .+-]{0,79})"
_MODULE_TARGET = r"module/[A-Za-z0-9][\w.+-]{0,79}"
_SIGNER_TARGET = r"(loader|(early|signer)/[A-Za-z0-9][\w.+/-]{0,79})"
_PROCESSOR_TARGET = r"pcpu/(0|[1-9][0-9]{0,3})"
_TARGET = f"({_FILE_TARGET}|{_MEMORY_TARGET}|{_MODULE_TARGET}|{_SIGNER_TARGET}|{_PROCESSOR_TARGET})"
_FILE_BYTE_MAX = 2**31 - 1
_BYTE_MAX = MEMORY_BYTES_MAX.value - 1
_FLIPPED_MAX = 8
_INTERRUPTS_MAX = 1_000_000
_VECTORS = (32, 255)
_HZ = (10**8, 10**10)
_AT_NS_MAX = 366 * 86_400 * 10**9


@frozen(kw_only=True)
class FaultTarget:
    """What a fault strikes.

    `place` is a volume, "vib" (the first payload of that VIB), "firmware" (a code volume of the flash) or "loader"; for
    memory "vm", "kernel" or "dram" (physical addresses); for an unloading "module"; for a revocation "signer" or "early".
    """

    place: str
    name: str

    @classmethod
    def parse(cls, text: str) -> FaultTarget:
        """Read "bootbank/nvme_pci.v00", "vib/nvme-pcie", "esp/EFI/...", "loader", "vm/web", "kernel", "dram" or "early/ID"."""
        place, _, name = text.partition("/")
        return cls(place=place, name=name)


@frozen(kw_only=True)
class FaultSpec:
    """One fault.  `at` counts from the end of the first boot; without it the fault is there before power-on.

    `byte` and `bit` say which bit of the target is flipped; what is left out is drawn from a stream of its own.
    With `unpacked` they count in what the file unpacks to, and it is packed again, as a careful attacker would.

    A memory error flips `bits` bits (2 unless said otherwise) of the 72 of one memory word; `byte` counts in the
    guest-physical memory of the VM, in the kernel's segments in the order of their addresses, or in all of memory.
    `found_by` says who meets it.

    An unloading of "module/NAME" happens while the last pCPU uses the module.

    Stray interrupts are `count` interrupts (1 unless said otherwise) at `vector`, or at one that nobody owns.
    `alter_memory` writes memory past the processor, as a probe or a device can: bit `bit` of byte `byte` is another one,
    with a good error code.  `suspend` lets the host sleep in S3 for `sleep`.  `tpm_reset` resets the TPM alone and then
    replays the event log into it.  `sinit` exchanges the SINIT module, `launch_policy` the launch control policy, for one
    with a `defect`.  `power_cycle` cuts power, where `reboot` only resets.

    `pcpu_offline` takes the logical processor "pcpu/N" out of use and `pcpu_online` brings it back; `frequency` lets its core
    run at that `frequency`, or at the nominal one if none is given.  Both last until the next boot.

    `revoke` lists a signer, "signer/LEVEL/PROVIDER" of VIBs or "early/KEYID" of early modules, in a revocation list or,
    with `form` "digest", by its certificate's digest; the signer of the "loader" in dbx, by "certificate", by "digest", or
    the loader alone by "image".  The next boot knows of it.
    """

    kind: str = field(validator=in_choices(*FAULT_KINDS))
    target: str | None = field(
        default=None,
        validator=optional(
            matches(
                _TARGET,
                '"loader", "kernel", "dram", or a volume, "vib", "vm", "module", "signer", "early" or "pcpu", a slash and a name',
            )
        ),
    )
    byte: int | None = field(default=None, validator=optional(between(0, _BYTE_MAX)))
    bit: int | None = field(default=None, validator=optional(between(0, 7)))
    unpacked: bool = False
    bits: int | None = field(default=None, validator=optional(between(1, _FLIPPED_MAX)))
    found_by: str | None = field(default=None, validator=optional(in_choices(*FOUND_BY)))
    vector: int | None = field(default=None, validator=optional(between(*_VECTORS)))
    count: int | None = field(default=None, validator=optional(between(1, _INTERRUPTS_MAX)))
    defect: str | None = field(default=None)
    sleep_ns: int | None = field(
        default=None, metadata=quantity("ns"), validator=optional(between(SECOND, _AT_NS_MAX))
    )
    form: str | None = field(default=None)
    frequency_hz: int | None = field(
        default=None, metadata=quantity("hz"), validator=optional(between(_HZ[0], _HZ[1]))
    )
    at_ns: int | None = field(
        default=None, metadata=quantity("ns"), validator=optional(between(0, _AT_NS_MAX))
    )

    @property
    def strikes_memory(self) -> bool:
        """Whether it is a fault of memory, not of stored files or switches."""
        return self.kind in _MEMORY_KINDS

    @property
    def revocation_form(self) -> str | None:
        """In which form a revocation reaches the host; None for other faults."""
        if self.kind != "revoke":
            return None
        return self.form or REVOCATION_FORMS[FaultTarget.parse(str(self.target)).place][0]

    @property
    def strikes_processor(self) -> bool:
        """Whether it is a fault of a processor."""
        return self.kind in _PROCESSOR_KINDS

    @property
    def strikes_file(self) -> bool:
        """Whether it is a fault of a stored file."""
        return self.kind in _FILE_KINDS

    def __attrs_post_init__(self) -> None:
        self._check_target()
        used = _USES.get(self.kind, ())
        for name in _FIELDS:
            if name not in used and getattr(self, name) not in (None, False):
                raise FieldError(name, getattr(self, name), f"no {name} for {self.kind}")
        if self.kind == "flip_bit" and self.byte is not None and self.byte > _FILE_BYTE_MAX:
            raise FieldError("byte", self.byte, f"at most {_FILE_BYTE_MAX} in a file")
        if self.kind in DEFECTS and self.defect not in DEFECTS[self.kind]:
            raise FieldError("defect", self.defect, f"one of {', '.join(DEFECTS[self.kind])}")
        if self.kind == "suspend" and self.sleep_ns is None:
            raise FieldError("sleep_ns", None, 'a time such as "30s" for suspend')
        if self.kind in _RUNNING_KINDS and self.at_ns is None:
            raise FieldError("at_ns", None, f"a time after the first boot for {self.kind}")

    def _check_revocation(self) -> None:
        if self.target is None or re.fullmatch(_SIGNER_TARGET, self.target) is None:
            raise FieldError("target", self.target, "loader, signer/LEVEL/PROVIDER or early/KEYID for revoke")
        forms = REVOCATION_FORMS[FaultTarget.parse(self.target).place]
        if self.form is not None and self.form not in forms:
            raise FieldError("form", self.form, f"one of {', '.join(forms)} for {self.target}")

    def _check_target(self) -> None:
        if self.kind == "revoke":
            self._check_revocation()
        if self.kind in _FILE_KINDS and (
            self.target is None or re.fullmatch(_FILE_TARGET, self.target) is None
        ):
            raise FieldError("target", self.target, f"a file such as bootbank/s.v00 for {self.kind}")
        if self.strikes_memory and (self.target is None or re.fullmatch(_MEMORY_TARGET, self.target) is None):
            raise FieldError("target", self.target, f'vm/NAME, "kernel" or "dram" for {self.kind}')
        if self.kind in _PROCESSOR_KINDS and (
            self.target is None or re.fullmatch(_PROCESSOR_TARGET, self.target) is None
        ):
            raise FieldError("target", self.target, f"pcpu/NUMBER for {self.kind}")
        if self.kind == "unload_module" and (
            self.target is None or re.fullmatch(_MODULE_TARGET, self.target) is None
        ):
            raise FieldError("target", self.target, "module/NAME for unload_module")
