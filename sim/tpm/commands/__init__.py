"""The actions of the commands, a group a module; `ACTIONS` joins them.

An action takes the device, the handles and the parameters in the order of `sim.tpm.tables`, checks everything that
may refuse it before it changes anything, and returns the results in order.
Leaves out: parsing and authorisation, which come before (`sim.tpm.dispatch`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.tpm.commands import (
    asymmetric,
    attestation,
    auditing,
    capability,
    chance,
    clock,
    contexts,
    credentials,
    duplication,
    hierarchies,
    nvram,
    objects,
    pcrs,
    policies,
    policy_signers,
    sequences,
    sessions,
    signing,
    startup,
    symmetric,
)

__all__ = ["ACTIONS"]

_GROUPS = (
    asymmetric,
    attestation,
    auditing,
    capability,
    chance,
    clock,
    contexts,
    credentials,
    duplication,
    hierarchies,
    nvram,
    objects,
    pcrs,
    policies,
    policy_signers,
    sequences,
    sessions,
    signing,
    startup,
    symmetric,
)

ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    code: action for group in _GROUPS for code, action in group.ACTIONS.items()
}
"""Every action, by command code."""
