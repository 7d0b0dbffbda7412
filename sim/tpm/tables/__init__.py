"""The command tables of all groups, joined: what each command takes and gives, for device, client and GetCapability.

Models: the union of the groups; a command stands in one group only.  Leaves out what the commands do
(`sim.tpm.commands`).  Source: TCG TPM 2.0 Library part 3.
"""

from __future__ import annotations

from sim.tpm.requests import CommandSpec
from sim.tpm.tables import (
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
    sequences,
    sessions,
    signing,
    startup,
    symmetric,
)

__all__ = ["COMMANDS"]

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
    sequences,
    sessions,
    signing,
    startup,
    symmetric,
)

COMMANDS: dict[int, CommandSpec] = {
    spec.code.value: spec
    for spec in sorted((spec for group in _GROUPS for spec in group.SPECS), key=lambda spec: spec.code)
}
"""Every implemented command, by command code, in ascending order."""
