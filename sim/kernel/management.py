"""What each management call does: the handlers behind the closed list of `sim.kernel.api`.

Models: the answers as plain values (dict, list, int, str, bytes), so that nothing of the kernel's inside leaves it, and
the changes to VMs, options and the stored image.  Changes to options and image are written to the boot bank and take
effect at the next boot.

Leaves out: sessions and privileges (the host agent), and everything that managing virtual machines does not need.

Sources: vSphere API reference for what can be asked of a host; the shapes of the answers are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from sim.boot.mboot import kernel_options
from sim.core.structure import FieldError, structure
from sim.core.units import PAGE_BYTES
from sim.errors import FormatError, ScenarioError, VmksimError
from sim.hw.disk import DiskError
from sim.kernel.api import ApiError
from sim.kernel.configuration import ConfigurationError
from sim.kernel.counters import snapshot
from sim.kernel.host_books import counters_of
from sim.kernel.image_calls import ImageCalls
from sim.kernel.loader import LoadedModule
from sim.kernel.options import BOOT_OPTIONS, OptionError, format_kernelopt, shown, with_option
from sim.kernel.quoting import PCR_COUNT, Attestor
from sim.kernel.resource_calls import ResourceCalls
from sim.kernel.resource_pools import PoolError
from sim.kernel.vm import AdmissionError, CpuAllocation, VmSpec, VmStateError
from sim.tpm.client import TpmError

if TYPE_CHECKING:
    from sim.kernel.vmkernel import VMkernel

__all__ = ["PRODUCT", "Management"]

T = TypeVar("T")

PRODUCT = "VMware ESXi (simulated)"


class Management:
    """The handlers of one running VMkernel."""

    def __init__(self, kernel: VMkernel) -> None:
        self._kernel = kernel
        self._images = ImageCalls(kernel)

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """Return the handler of every call of the list."""
        return {
            "host.info": self.host_info,
            "host.counters": self.host_counters,
            "host.options": self.host_options,
            "host.set_option": self.set_option,
            "host.encryption": self.encryption,
            "host.require": self.require,
            "host.recovery_key": self.recovery_key,
            "host.reboot": self.reboot,
            "host.enable_crypto": self.enable_crypto,
            "vm.list": self.vm_list,
            "vm.power_on": self.vm_power_on,
            "vm.power_off": self.vm_power_off,
            "vm.suspend": self.vm_suspend,
            "vm.resume": self.vm_resume,
            "vm.reconfigure": self.vm_reconfigure,
            "module.list": self.module_list,
            "tpm.state": self.tpm_state,
            "tpm.identity": self.tpm_identity,
            "tpm.activate": self.tpm_activate,
            "tpm.event_log": self.tpm_event_log,
            "tpm.quote": self.tpm_quote,
            **self._images.handlers(),
            **ResourceCalls(self._kernel).handlers(),
        }

    # -- host

    def host_info(self) -> dict[str, Any]:
        """Return what the host is and how it booted."""
        kernel = self._kernel
        spec, boot = kernel.board.spec, kernel.boot
        return {
            "name": spec.name,
            "version": PRODUCT,
            "boot_id": boot.boot_id,
            "boot_count": kernel.board.boot_count,
            "secure_boot": boot.secure_boot,
            "tpm": str(kernel.tpm.state),
            "drtm": boot.drtm,
            "resumes": kernel.resumes,
            "pcpus": len(kernel.board.topology.pcpus),
            "core_hz": spec.cpu.core_hz,
            "memory_bytes": spec.memory_bytes,
            "memory_free_bytes": kernel.board.memory.frames_free * PAGE_BYTES,
            "crypto_state": "safe" if kernel.vms.host_key is not None else "incapable",
            "up_ns": kernel.sim.now - kernel.started_ns,
        }

    def host_counters(self) -> dict[str, Any]:
        """Return nanoseconds in each state since the start: of worlds, VMs, pools and pCPUs; and home nodes."""
        return counters_of(self._kernel.vms, snapshot(self._kernel.vms))

    def host_options(self) -> dict[str, Any]:
        """Return the kernel options of this boot, and those that the boot bank holds for the next one."""
        following = kernel_options(self._images.bank(self._images.next).config.kernelopt)
        return {"current": _options(self._kernel.boot.kernel_options), "next_boot": _options(following)}

    def set_option(self, key: str, value: str) -> None:
        """Write a kernel option into the boot bank, and into an update that waits for the next boot."""
        changed = {}
        for name in dict.fromkeys((self._kernel.boot.bank, self._images.next)):
            bank = self._images.bank(name)
            try:
                options = with_option(kernel_options(bank.config.kernelopt), key, value)
                config = attrs.evolve(bank.config, kernelopt=format_kernelopt(options))
                changed[name] = bank.with_config(config)
            except (OptionError, FormatError) as error:
                raise ApiError("InvalidArgument", str(error)) from error
        self._kernel.vault.expect_change()
        for name, bank in changed.items():
            self._images.write(name, bank)

    def forget_option(self, key: str) -> None:
        """Take a kernel option out of the boot bank, where it can be read."""
        try:
            name = self._kernel.boot.bank
            bank = self._images.bank(name)
            options = [each for each in kernel_options(bank.config.kernelopt) if each[0] != key]
            self._images.write(
                name, bank.with_config(attrs.evolve(bank.config, kernelopt=format_kernelopt(options)))
            )
        except (ApiError, FormatError, DiskError) as error:
            self._kernel.sim.log("vmkernel", f"{key} stays in the boot bank: {error}")

    def encryption(self) -> dict[str, Any]:
        """Return how the configuration is kept."""
        return self._kernel.vault.status()

    def require(self, *, secure_boot: bool | None = None, exec_installed_only: bool | None = None) -> None:
        """Set what a boot must fulfil before the TPM gives out the configuration key."""
        try:
            self._kernel.vault.require(secure_boot=secure_boot, exec_installed_only=exec_installed_only)
        except ConfigurationError as error:
            raise ApiError("InvalidState", str(error)) from error

    def recovery_key(self) -> str:
        """Return the recovery key of the configuration."""
        try:
            return self._kernel.vault.recovery_key()
        except ConfigurationError as error:
            raise ApiError("InvalidState", str(error)) from error

    def reboot(self) -> None:
        """Ask for a reboot at the next instant."""
        self._kernel.request_reboot()

    # -- virtual machines

    def vm_list(self) -> list[dict[str, Any]]:
        """Return every VM with state and allocation."""
        return [
            {
                "name": vm.name,
                "state": str(vm.state),
                "vcpus": vm.spec.vcpus,
                "memory_bytes": vm.configured_bytes,
                "granted_bytes": vm.granted_bytes,
                "shares_per_vcpu": vm.spec.cpu.shares_per_vcpu,
                "reservation_hz": vm.spec.cpu.reservation_hz,
                "limit_hz": -1 if vm.spec.cpu.limit_hz is None else vm.spec.cpu.limit_hz,
                "pool": vm.spec.pool,
            }
            for vm in self._kernel.vms.vms.values()
        ]

    def vm_power_on(self, spec: Mapping[str, object]) -> None:
        """Admit and start a VM from the table of its spec; what runs in its guest may be on its disks already."""
        asked = _structured(spec, VmSpec, "spec")
        if asked.names_code:
            raise ApiError("InvalidArgument", "spec.workload: a management call cannot name code")
        guest = self._kernel.vms.guests.get(asked.name)
        self._vm(self._kernel.vms.power_on, asked if guest is None else asked.with_guest_of(guest))

    def vm_power_off(self, name: str) -> None:
        """Stop a VM."""
        self._vm(self._kernel.vms.power_off, name)

    def vm_suspend(self, name: str) -> None:
        """Suspend a VM."""
        self._vm(self._kernel.vms.suspend, name)

    def vm_resume(self, name: str) -> None:
        """Resume a VM."""
        self._vm(self._kernel.vms.resume, name)

    def vm_reconfigure(
        self, name: str, cpu: Mapping[str, object] | None = None, vcpus: int | None = None
    ) -> None:
        """Change a VM's CPU allocation or its number of vCPUs."""
        allocation = None if cpu is None else _structured(cpu, CpuAllocation, "cpu")
        try:
            self._kernel.vms.reconfigure(name, cpu=allocation, vcpus=vcpus)
        except FieldError as error:
            raise ApiError("InvalidArgument", str(error)) from error
        except (AdmissionError, PoolError, VmStateError) as error:
            raise _vm_refusal(error) from error

    # -- modules

    def module_list(self) -> list[dict[str, Any]]:
        """Return every loaded module."""
        return [_module(module) for module in self._kernel.loader.modules()]

    # -- TPM

    def tpm_state(self) -> dict[str, Any]:
        """Return whether a TPM is usable, and how the last launch failed if one has since power-on."""
        kernel = self._kernel
        return {
            "state": str(kernel.tpm.state),
            "manufacturer": kernel.tpm.manufacturer,
            "drtm": kernel.boot.drtm,
            "txt_errorcode": kernel.board.txt.errorcode,
        }

    def tpm_identity(self) -> dict[str, Any]:
        """Return endorsement key with certificate, and attestation key."""
        return self._attestor().identity()

    def tpm_activate(self, credential_blob: bytes, encrypted_secret: bytes) -> dict[str, Any]:
        """Return the secret in a credential that was made for this TPM's keys."""
        attestor = self._attestor()
        try:
            return {"secret": attestor.activate(credential_blob, encrypted_secret)}
        except TpmError as error:
            raise ApiError("InvalidState", f"the TPM refused: {error}") from error

    def enable_crypto(self, credential_blob: bytes, encrypted_secret: bytes) -> None:
        """Open a credential with the TPM and keep the key in it until the host is reset."""
        self._kernel.vms.host_key = self.tpm_activate(credential_blob, encrypted_secret)["secret"]
        self._kernel.sim.log("vmkernel", "Crypto: host key installed; encrypted virtual machines can start")

    def tpm_event_log(self) -> dict[str, Any]:
        """Return the boot's event log."""
        boot = self._kernel.boot
        return {"event_log": boot.event_log, "log_truncated": boot.log_truncated}

    def tpm_quote(
        self, nonce: bytes, banks: list[object] | None = None, pcrs: list[object] | None = None
    ) -> dict[str, Any]:
        """Return a quote over the nonce; by default of all PCRs of the SHA-256 bank."""
        attestor = self._attestor()
        try:
            return attestor.quote(
                nonce,
                ["sha256"] if banks is None else banks,
                list(range(PCR_COUNT)) if pcrs is None else pcrs,
            )
        except TpmError as error:
            raise ApiError("InvalidState", f"the TPM refused: {error}") from error

    # -- what the handlers share

    def _attestor(self) -> Attestor:
        kernel = self._kernel
        client = kernel.tpm.client()
        if client is None:
            raise ApiError("InvalidState", f"no usable TPM: it is {kernel.tpm.state}")
        return Attestor(client, kernel.sim.rng.stream(f"{kernel.board.spec.name}/attestation"))

    def _vm(self, action: Callable[[Any], object], argument: object) -> None:
        try:
            action(argument)
        except (AdmissionError, PoolError, VmStateError, ScenarioError) as error:
            raise _vm_refusal(error) from error


def _options(options: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {key: shown(key, value) for key, value in {**BOOT_OPTIONS, **dict(options)}.items()}


def _structured(data: Mapping[str, object], cls: type[T], path: str) -> T:
    try:
        return structure(data, cls, path)
    except ScenarioError as error:
        raise ApiError("InvalidArgument", str(error)) from error


def _vm_refusal(error: VmksimError) -> ApiError:
    if isinstance(error, AdmissionError):
        return ApiError(error.fault, error.message)
    if isinstance(error, ScenarioError):
        return ApiError("InvalidArgument", str(error))
    return ApiError("InvalidState", str(error))


def _module(module: LoadedModule) -> dict[str, Any]:
    """Return a row of the module table; addresses in it are what a hardened host would keep to itself."""
    return {
        "id": module.module_id,
        "name": module.name,
        "version": module.version,
        "license": module.license,
        "provider": module.provider,
        "level": module.level,
        "signed": module.signed_status,
        "issuer": module.issuer,
        "fingerprint": module.fingerprint,
        "vib": module.vib_id,
        "digest": module.digest.hex(),
        "base": module.base,
        "size_bytes": module.size_bytes,
        "segments": [
            {"name": part.name, "base": part.base, "size_bytes": part.size_bytes, "rights": part.rights}
            for part in module.segments
        ],
    }
