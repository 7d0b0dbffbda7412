"""The boot loader's check of early modules: signature trailers, one key schema, unique names.

Models: the kernel, every ELF module and a few named ones must carry a trailer that a key of the loader made, with the
schema of the kernel's; the signers' certificates are measured once each, when their first signature is checked.  A key
that is revoked by digest or by the list of its authority is a fault like any other.  With Secure Boot on any fault stops
the boot; with it off the fault is logged and the boot goes on.

Leaves out: expired keys, which ESXi's loader trusts too.

Sources: vmware/esx-boot, mboot/secure.c (rules and messages); revocation is this project's own, as no list of revoked
keys is known of that loader.
"""

from __future__ import annotations

from sim.boot.context import BootContext
from sim.boot.costs import charge_hash, charge_signatures
from sim.boot.loaded import LoadedModule
from sim.boot.measure import MeasureError, Measurer
from sim.boot.modules import ModuleMeasurer
from sim.boot.pcrmap import module_base_name
from sim.boot.safeboot import FATAL_SECURE_BOOT
from sim.errors import VerificationError
from sim.image.trailer import ModuleSignature, verify_early_module

__all__ = ["EarlyModuleCheck"]

STAGE = "mboot"
NAMED_MODULES = frozenset({"s", "sb", "esxcore", "esxupdt"})
ELF_MAGIC = b"\x7fELF"

CHECK_TEXTS = {
    "no-signature": "No signature found",
    "signature": "Error verifying signature: -0x4380",
}
"""The loader's words for a failed check; others keep our own sentence."""


class EarlyModuleCheck:
    """The loader's signature check in one boot; `check` is a step."""

    def __init__(self, context: BootContext, measurer: Measurer) -> None:
        self._context = context
        self._modules = ModuleMeasurer(measurer, context.policy.loader_map)
        self._signers: list[str] = []
        self._schema = 0
        self._names: set[str] = set()

    def check(self) -> None:
        """Check the kernel's signature and queue one step for each further early module."""
        for index, module in enumerate(self._context.loaded):
            if is_early(index, module):
                self._context.procedure.next(self._check_module, index, module)

    def _check_module(self, index: int, module: LoadedModule) -> None:
        if index > 0 and not self._schema:
            return  # Secure Boot is off and the kernel is not signed: nothing to compare with
        try:
            signature = self._verify(index, module)
        except VerificationError as error:
            self._refuse(index, module, error)
            return
        self._say(f"Signature check passed on module {index} ({module.name})")
        self._measure_signer(signature)

    def _verify(self, index: int, module: LoadedModule) -> ModuleSignature:
        name = module_base_name(module.name)
        if name in self._names:
            raise VerificationError("name", f"More than one module named {name}")
        self._names.add(name)
        charge_hash(self._context.meter, "sha256", len(module.content))
        charge_signatures(self._context.meter, 1)
        signature = verify_early_module(module.content, self._context.trust, self._context.sim.utc_now())
        if index == 0:
            self._schema = signature.schema
        elif signature.schema != self._schema:
            raise VerificationError("schema", f"schema {signature.schema} instead of {self._schema}")
        return signature

    def _refuse(self, index: int, module: LoadedModule, error: VerificationError) -> None:
        text = CHECK_TEXTS.get(error.check, str(error))
        if index == 0 and error.check in {"trailer-format", "schema"}:
            text = f"Invalid attached signature format on module 0 ({module.name})"
        self._say(text)
        if self._context.secure_boot:
            self._say(f"SECURITY VIOLATION: Signature check failed on module {index} ({module.name})")
            raise self._context.stop(STAGE, module.name, FATAL_SECURE_BOOT)
        self._say(f"Signature check failed on module {index} ({module.name})")
        if index == 0:
            self._say("Boot modules are not signed")

    def _measure_signer(self, signature: ModuleSignature) -> None:
        if signature.key_id in self._signers or self._context.late_launch:
            return
        self._signers.append(signature.key_id)
        try:
            self._modules.signer(signature.key_id, signature.certificate_der)
        except MeasureError as error:
            self._say(f"Warning: {error}")

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)


def is_early(index: int, module: LoadedModule) -> bool:
    """Tell whether the loader itself checks a module: the kernel, ELF files, and four archives by name."""
    return (
        index == 0 or module.content.startswith(ELF_MAGIC) or module_base_name(module.name) in NAMED_MODULES
    )
