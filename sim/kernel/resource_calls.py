"""The management calls on resources: resource pools, and advanced options that take effect while the host runs.

Models: the handlers behind `pool.*`, `vm.move`, `host.advanced_options` and `host.set_advanced_option`.  Leaves out
options that only a boot reads (`sim.kernel.management`).

Sources: vSphere API, ResourcePool and OptionManager; names of the calls are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sim.core.structure import FieldError, structure
from sim.errors import ScenarioError
from sim.kernel.api import ApiError
from sim.kernel.resource_pools import PoolError
from sim.kernel.sched.admission import AdmissionError
from sim.kernel.sched.advanced import OPTIONS, USED
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.vm import VmStateError

if TYPE_CHECKING:
    from sim.kernel.vmkernel import VMkernel

__all__ = ["ResourceCalls"]


class ResourceCalls:
    """The handlers of one running VMkernel."""

    def __init__(self, kernel: VMkernel) -> None:
        self._kernel = kernel

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """Return the handler of each of these calls."""
        return {
            "host.advanced_options": self.advanced_options,
            "host.set_advanced_option": self.set_advanced_option,
            "pool.list": self._kernel.vms.pools.rows,
            "pool.create": self.pool_create,
            "pool.reconfigure": self.pool_reconfigure,
            "pool.remove": self.pool_remove,
            "vm.move": self.vm_move,
        }

    def advanced_options(self) -> list[dict[str, Any]]:
        """Return every advanced option of the host's release with value, default and range."""
        options = self._kernel.scheduler.options
        rows = []
        for name, option in OPTIONS.items():
            setting = option.at(options.release)
            if setting is None:
                continue
            assert setting.default is not None
            rows.append(
                {
                    "key": name,
                    "value": options.get(name),
                    "default": setting.default,
                    "min": setting.low,
                    "max": setting.high,
                    "unit": option.unit,
                    "used": name in USED,
                }
            )
        return rows

    def set_advanced_option(self, key: str, value: int) -> None:
        """Set an advanced option at once; it lasts until the next boot."""
        scheduler = self._kernel.scheduler
        try:
            scheduler.configure(scheduler.options.with_advanced(key, value))
        except FieldError as error:
            raise ApiError("InvalidArgument", str(error)) from error

    def pool_create(self, spec: Mapping[str, object]) -> None:
        """Make a resource pool."""
        _call(self._kernel.vms.pools.create, _pool_spec(spec))

    def pool_reconfigure(self, spec: Mapping[str, object]) -> None:
        """Change a resource pool."""
        _call(self._kernel.vms.pools.reconfigure, _pool_spec(spec))

    def pool_remove(self, name: str) -> None:
        """Remove an empty resource pool."""
        _call(self._kernel.vms.pools.remove, name)

    def vm_move(self, name: str, pool: str) -> None:
        """Move a VM into a resource pool, or to the host itself."""
        _call(self._kernel.vms.move, name, pool)


def _pool_spec(table: Mapping[str, object]) -> PoolSpec:
    try:
        return structure(table, PoolSpec, "spec")
    except ScenarioError as error:
        raise ApiError("InvalidArgument", str(error)) from error


def _call(action: Callable[..., object], *arguments: object) -> None:
    try:
        action(*arguments)
    except AdmissionError as error:
        raise ApiError(error.fault, error.message) from error
    except (PoolError, VmStateError) as error:
        raise ApiError("InvalidState", str(error)) from error
