"""The only way into the VMkernel: a closed list of management calls.

The interface of the VMkernel is strictly limited to what managing virtual machines needs.  `METHODS` below is that
list, whole; a call that is not on it, or whose arguments do not fit, is refused, traced and changes nothing.  The answers are plain values: dict, list, int, str, bytes, bool.

Models: names, argument types, the refusal of everything else.  Leaves out: sessions and privileges (the host agent in
`sim.vsphere`), and what the calls do (`sim.kernel.management`).

Sources: VMware's security guide for ESXi, "Security and the VMkernel" (an interface strictly limited to the API
required to manage virtual machines); the names are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from sim.core.context import Sim
from sim.core.trace import record
from sim.errors import SimBug, VmksimError
from sim.hw.mca import MachineCheck

__all__ = ["METHODS", "ApiError", "ManagementApi", "Method", "Parameter"]

KERNEL_CALL = record("api.kernel_call", method=str, outcome=str)
"""A management call and how it ended: "ok", or the code of the refusal."""

NAME_CHARS_MAX = 80


class ApiError(VmksimError):
    """A call was refused: `code` is NotSupported, InvalidArgument, InvalidState, NotFound or a fault's own name.

    A device that fails under a call (disk, TPM) is a PlatformConfigFault.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(code, message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@attrs.frozen
class Parameter:
    """One argument of a call: its name, its type, and whether it must be given."""

    name: str
    kind: type
    required: bool = True


@attrs.frozen
class Method:
    """One call of the list: its name, its arguments, whether it changes state, and what it is for."""

    name: str
    purpose: str
    parameters: tuple[Parameter, ...] = ()
    changes: bool = False


def _method(name: str, purpose: str, *parameters: Parameter, changes: bool = False) -> Method:
    return Method(name, purpose, parameters, changes)


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        _method("host.info", "name, version, boot id, hardware, Secure Boot, TPM and DRTM state"),
        _method(
            "host.counters",
            "CPU counters of pCPUs, VMs, pools and worlds since the host started; NUMA homes and local memory",
        ),
        _method("host.options", "kernel options of this boot and of the next one"),
        _method(
            "host.set_option",
            "set a kernel option; it takes effect at the next boot",
            Parameter("key", str),
            Parameter("value", str),
            changes=True,
        ),
        _method(
            "host.encryption", "how the configuration is kept: mode TPM or NONE, and what a boot must fulfil"
        ),
        _method(
            "host.require",
            "seal the configuration key to Secure Boot, to execInstalledOnly, or no longer",
            Parameter("secure_boot", bool, required=False),
            Parameter("exec_installed_only", bool, required=False),
            changes=True,
        ),
        _method("host.recovery_key", "16 groups of 6 digits that open the configuration without the TPM"),
        _method("host.reboot", "power the VMs off and reset the host", changes=True),
        _method(
            "host.enable_crypto",
            "take the host's key out of a credential made for its TPM; encrypted VMs can start then",
            Parameter("credential_blob", bytes),
            Parameter("encrypted_secret", bytes),
            changes=True,
        ),
        _method("host.advanced_options", "advanced options of scheduling with value, default and range"),
        _method(
            "host.set_advanced_option",
            "set an advanced option of scheduling; it takes effect at once, until the next boot",
            Parameter("key", str),
            Parameter("value", int),
            changes=True,
        ),
        _method("pool.list", "resource pools with allocation and VMs"),
        _method("pool.create", "make a resource pool", Parameter("spec", dict), changes=True),
        _method(
            "pool.reconfigure",
            "change shares, reservation or limit of a resource pool",
            Parameter("spec", dict),
            changes=True,
        ),
        _method("pool.remove", "remove an empty resource pool", Parameter("name", str), changes=True),
        _method(
            "vm.move",
            "move a VM into a resource pool (an empty name: the host itself)",
            Parameter("name", str),
            Parameter("pool", str),
            changes=True,
        ),
        _method("vm.list", "all VMs with state and allocation"),
        _method("vm.power_on", "admit and start a VM", Parameter("spec", dict), changes=True),
        _method("vm.power_off", "stop a VM and free its memory", Parameter("name", str), changes=True),
        _method("vm.suspend", "stop a VM's worlds, keep its memory", Parameter("name", str), changes=True),
        _method("vm.resume", "let a suspended VM go on", Parameter("name", str), changes=True),
        _method(
            "vm.reconfigure",
            "change shares, reservation, limit or number of vCPUs of a VM, also while it runs",
            Parameter("name", str),
            Parameter("cpu", dict, required=False),
            Parameter("vcpus", int, required=False),
            changes=True,
        ),
        _method("module.list", "loaded modules with provider, acceptance level and place"),
        _method("image.vibs", "installed VIBs with acceptance level and verification state"),
        _method("image.database", "database: the image database (imgdb.tgz) that this boot was made with"),
        _method("image.acceptance", "the acceptance level of the host"),
        _method(
            "image.set_acceptance",
            "change the acceptance level of the host",
            Parameter("level", str),
            changes=True,
        ),
        _method(
            "image.install",
            "install a VIB into the bank that is not running, for the next boot to try; an option that sets a rule aside is noted",
            Parameter("archive", bytes),
            Parameter("force", bool, required=False),
            Parameter("no_sig_check", bool, required=False),
            Parameter("allow_downgrades", bool, required=False),
            Parameter("allow_vendor_change", bool, required=False),
            changes=True,
        ),
        _method(
            "image.update",
            "put an image profile of an offline bundle into the other boot bank, for the next boot to try",
            Parameter("bundle", bytes),
            Parameter("profile", str),
            Parameter("allow_downgrades", bool, required=False),
            Parameter("allow_vendor_change", bool, required=False),
            Parameter("ok_to_remove", bool, required=False),
            changes=True,
        ),
        _method("tpm.state", "state (enabled, disabled, absent, failed), manufacturer, drtm, TXT.ERRORCODE"),
        _method(
            "tpm.identity",
            "ek_public and ak_public (TPM2B_PUBLIC) of endorsement and attestation key, and ek_certificate_der",
        ),
        _method(
            "tpm.activate",
            "secret in a credential that was made for the endorsement key and the attestation key of this TPM",
            Parameter("credential_blob", bytes),
            Parameter("encrypted_secret", bytes),
        ),
        _method("tpm.event_log", "event_log (TCG, bytes) and log_truncated of this boot"),
        _method(
            "tpm.quote",
            "attest (TPMS_ATTEST), signature (TPMT_SIGNATURE) over a nonce, and pcr_values {bank: {PCR: bytes}}",
            Parameter("nonce", bytes),
            Parameter("banks", list, required=False),
            Parameter("pcrs", list, required=False),
        ),
    )
}
"""Every call there is."""


class ManagementApi:
    """Checks a call against the list and hands it to its handler."""

    def __init__(self, sim: Sim, handlers: Mapping[str, Callable[..., Any]]) -> None:
        missing = sorted(METHODS.keys() ^ handlers.keys())
        if missing:
            raise ValueError(f"methods and handlers differ in {', '.join(missing)}")
        self._sim = sim
        self._handlers = dict(handlers)

    def call(self, name: str, params: Mapping[str, object] | None = None) -> Any:
        """Make one management call.

        Errors: `ApiError`; the state is then as before the call.
        """
        try:
            result = self._answer(name, params)
        except ApiError as error:
            self._sim.trace.emit(KERNEL_CALL, _printable(name), error.code)
            self._sim.log("vmkernel", f"Management call {_printable(name)} refused: {error.message}")
            raise
        self._sim.trace.emit(KERNEL_CALL, name, "ok")
        return result

    def _answer(self, name: str, params: object) -> Any:
        handler = self._handlers[self._known(name)]
        arguments = self._checked(name, {} if params is None else params)
        try:
            return handler(**arguments)
        except (ApiError, SimBug, MachineCheck):
            raise
        except VmksimError as error:
            raise ApiError("PlatformConfigFault", str(error)) from error

    def _known(self, name: str) -> str:
        if not isinstance(name, str) or name not in METHODS:
            raise ApiError("NotSupported", f"{_printable(name)} is not part of the management interface")
        return name

    def _checked(self, name: str, params: object) -> dict[str, object]:
        if not isinstance(params, Mapping):
            raise ApiError("InvalidArgument", f"{name}: arguments have names")
        method = METHODS[name]
        known = {parameter.name for parameter in method.parameters}
        for given in params:
            if given not in known:
                raise ApiError("InvalidArgument", f"{name} takes no argument {_printable(given)}")
        for parameter in method.parameters:
            if parameter.name not in params:
                if parameter.required:
                    raise ApiError("InvalidArgument", f"{name} needs the argument {parameter.name}")
            elif type(params[parameter.name]) is not parameter.kind:
                raise ApiError(
                    "InvalidArgument", f"{name}: {parameter.name} must be {parameter.kind.__name__}"
                )
        return dict(params)


def _printable(name: object) -> str:
    text = name if isinstance(name, str) else type(name).__name__
    return text[:NAME_CHARS_MAX].encode("ascii", "backslashreplace").decode("ascii")
