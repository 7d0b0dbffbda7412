"""Kernel boot options: what stands behind `kernelopt=` in boot.cfg, and how it is changed for the next boot.

Models: the options that this simulator acts on, with their defaults, and any other option kept as text.  A change is
written into boot.cfg of the running boot bank and takes effect at the next boot only.

Leaves out: advanced options that take effect while the host runs.

Sources: VMware's security guide for ESXi (`enableTboot`, off by default); vSphere API, VMkernel.Boot options
(`execInstalledOnly`); its security guide (`encryptionRecoveryKey`); that the key in boot.cfg is spelled as the option is inferred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sim.errors import VmksimError

__all__ = [
    "BOOT_OPTIONS",
    "EXEC_INSTALLED_ONLY",
    "OPTIONS_MAX",
    "RECOVERY_OPTION",
    "OptionError",
    "format_kernelopt",
    "shown",
    "with_option",
]

EXEC_INSTALLED_ONLY = "execInstalledOnly"
RECOVERY_OPTION = "encryptionRecoveryKey"
"""The recovery key of the configuration, for one boot; never shown or logged, and taken out once it was used."""

BOOT_OPTIONS: Mapping[str, str] = {"enableTboot": "FALSE", EXEC_INSTALLED_ONLY: "FALSE"}
"""The boot options that the simulator acts on, with their defaults."""

OPTIONS_MAX = 100
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9._]{0,63}")
_VALUE = re.compile(r"[A-Za-z0-9._:/+-]{1,128}")


class OptionError(VmksimError):
    """An option's name or value cannot stand in boot.cfg."""


def with_option(options: Iterable[tuple[str, str]], key: str, value: str) -> tuple[tuple[str, str], ...]:
    """Return the options with `key` set to `value`: in its old place, or at the end."""
    if _KEY.fullmatch(key) is None:
        raise OptionError(f"an option's name is letters, digits, dots and underscores, got {key[:80]!r}")
    if _VALUE.fullmatch(value) is None:
        raise OptionError(f"the value of {key} is a word without blanks, got {value[:80]!r}")
    changed = dict(options)
    changed[key] = value
    if len(changed) > OPTIONS_MAX:
        raise OptionError(f"over {OPTIONS_MAX} options")
    return tuple(changed.items())


def format_kernelopt(options: Iterable[tuple[str, str]]) -> str:
    """Return the text that stands behind `kernelopt=`."""
    return " ".join(f"{key}={value}" if value else key for key, value in options)


def shown(key: str, value: str) -> str:
    """Return the value of an option as logs and answers show it: not, when it is a secret."""
    return "(hidden)" if key == RECOVERY_OPTION and value else value
