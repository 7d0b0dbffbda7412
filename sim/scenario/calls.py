"""Management calls that a scenario makes while it runs: which, when, with what, and how each should end.

Models: an operator at the closed management interface (`sim.kernel.api`), and so nothing that a client could not do.  What
can be known before the run is checked then: method, names and types of arguments, the tables of virtual machines, pools and
allocations, options and their ranges, and, unless a refusal is expected, that machine and pool are known at all.

Leaves out: arguments that are bytes (images, credentials).  Sources: none, a design of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from sim.core.structure import FieldError, between, in_choices, quantity, structure
from sim.errors import ScenarioError
from sim.kernel.api import METHODS, Method
from sim.kernel.sched.advanced import UnknownOption, setting_of
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.vmspec import CpuAllocation, VmSpec

__all__ = ["CALLABLE", "CALLS_MAX", "OUTCOMES", "CallSpec", "check_calls"]

CALLS_MAX = 1_000
_AT_NS_MAX = 366 * 86_400 * 10**9

OUTCOMES = (
    "ok",
    "InvalidArgument",
    "InvalidState",
    "NotFound",
    "PlatformConfigFault",
    "InsufficientCpuResourcesFault",
    "InsufficientMemoryResourcesFault",
    "NotEnoughLogicalCpus",
    "InvalidVmConfig",
    "CpuHotPlugNotSupported",
    "HostCommunication",
)
"""How a call can end."""

CALLABLE = tuple(
    name
    for name, method in METHODS.items()
    if not any(one.kind is bytes and one.required for one in method.parameters)
)
"""The methods whose arguments a scenario file can hold."""

_TABLES: Mapping[tuple[str, str], type] = {
    ("vm.power_on", "spec"): VmSpec,
    ("vm.reconfigure", "cpu"): CpuAllocation,
    ("pool.create", "spec"): PoolSpec,
    ("pool.reconfigure", "spec"): PoolSpec,
}


@frozen(kw_only=True)
class CallSpec:
    """One management call; `at` counts from the end of the first boot.

    `method` and `arguments` are those of the management interface; `expect` is "ok" or the fault that should refuse it.
    """

    method: str = field(validator=in_choices(*CALLABLE))
    at_ns: int = field(metadata=quantity("ns"), validator=between(0, _AT_NS_MAX))
    arguments: dict[str, Any] = field(factory=dict)
    expect: str = field(default="ok", validator=in_choices(*OUTCOMES))

    def __attrs_post_init__(self) -> None:
        method = METHODS[self.method]
        known = {parameter.name: parameter for parameter in method.parameters}
        for name in self.arguments:
            if name not in known:
                wanted = f"for {self.method} " + (", ".join(known) or "no arguments")
                raise FieldError("arguments", name, wanted, _near(name, known))
        if self.expect != "ok":
            return
        self._check_types(method)
        for (owner, name), cls in _TABLES.items():
            if owner == self.method and name in self.arguments:
                self._check_table(name, cls)

    def _check_types(self, method: Method) -> None:
        for parameter in method.parameters:
            if parameter.name not in self.arguments:
                if parameter.required:
                    raise FieldError("arguments", "nothing", f"{parameter.name} for {self.method}")
            elif type(self.arguments[parameter.name]) is not parameter.kind:
                got = self.arguments[parameter.name]
                raise FieldError("arguments", got, f"{parameter.name} of kind {parameter.kind.__name__}")

    def _check_table(self, name: str, cls: type) -> None:
        try:
            made: Any = structure(self.arguments[name], cls, f"arguments.{name}")
        except ScenarioError as error:
            wanted = error.wanted or error.message
            raise FieldError(error.path or "arguments", error.got, wanted, error.nearest) from None
        if isinstance(made, VmSpec) and made.names_code:
            raise FieldError(
                "arguments", made.name, "a workload that is not code: no management call can name any"
            )


def check_calls(
    calls: Iterable[CallSpec], *, vms: Iterable[str], pools: Iterable[str], release: str, duration_ns: int
) -> None:
    """Check calls against their scenario: times, names of machines and pools, options of the release.

    Errors: `FieldError`.
    """
    calls = tuple(calls)
    specs = [call.arguments.get("spec") for call in calls if call.method == "vm.power_on"]
    made = [call.arguments.get("spec") for call in calls if call.method == "pool.create"]
    machines = {*vms, *(str(spec.get("name")) for spec in specs if isinstance(spec, dict))}
    known_pools = {"", *pools, *(str(spec.get("name")) for spec in made if isinstance(spec, dict))}
    for number, call in enumerate(calls):
        if call.at_ns > duration_ns:
            raise FieldError(
                "calls", f"at of {call.at_ns} ns in number {number}", "a time within the duration"
            )
        if call.expect != "ok":
            continue
        arguments = call.arguments
        if call.method.startswith("vm.") and "name" in arguments:
            _check_name(number, arguments["name"], machines, "the name of a virtual machine")
        if call.method == "pool.remove":
            _check_name(number, arguments["name"], known_pools, "the name of a pool")
        if call.method == "vm.move":
            _check_name(number, arguments["pool"], known_pools, "the name of a pool")
        if call.method == "host.set_advanced_option":
            _check_option(number, arguments["key"], arguments["value"], release)


def _check_name(number: int, name: str, known: set[str], wanted: str) -> None:
    if name not in known:
        raise FieldError("calls", f"{name} in number {number}", wanted, _near(name, sorted(known)))


def _check_option(number: int, key: str, value: int, release: str) -> None:
    try:
        setting = setting_of(key, release)
    except UnknownOption as error:
        raise FieldError("calls", f"{key} in number {number}", str(error)) from None
    if not setting.low <= value <= setting.high:
        got, wanted = (
            f"{value} in number {number}",
            f"for {key} an integer from {setting.low} to {setting.high}",
        )
        raise FieldError("calls", got, wanted)


def _near(name: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None
