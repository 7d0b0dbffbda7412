"""boot.cfg: what the boot loader loads, in which order, with which options.

Models the `key=value` lines of an installed ESXi.  Reading is strict: known keys, each once, plain file names.
`format_boot_config` has one spelling.

Leaves out the older keys of network boot (`norts`, `acpi`, and so on).

Sources: VMware's documentation of boot.cfg (title, prefix, kernel, kernelopt, modules); files of installed hosts for
bootstate, timeout, build and updated.
"""

from __future__ import annotations

import re
from enum import IntEnum

import attrs

from sim.errors import FormatError, LimitError

__all__ = [
    "CONFIG_BYTES_MAX",
    "CONFIG_FILE",
    "MODULES_MAX",
    "BootConfig",
    "BootState",
    "format_boot_config",
    "parse_boot_config",
]

CONFIG_FILE = "boot.cfg"
CONFIG_BYTES_MAX = 1 << 16
MODULES_MAX = 1024
TEXT_CHARS_MAX = 4096

_WHAT = CONFIG_FILE
_SEPARATOR = " --- "
_FILE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBERS = ("bootstate", "timeout", "updated")
_KEYS = ("bootstate", "title", "timeout", "prefix", "kernel", "kernelopt", "modules", "build", "updated")


class BootState(IntEnum):
    """What `bootstate` says of a bank."""

    GOOD = 0
    """It has booted well."""
    UPDATED = 1
    """An update that was not tried yet."""
    ATTEMPTED = 2
    """An update on trial; found by a later boot: one that failed."""
    EMPTY = 3


@attrs.frozen(kw_only=True)
class BootConfig:
    """The content of a boot.cfg; `bootstate` 0 means that the bank has booted well."""

    kernel: str
    modules: tuple[str, ...]
    title: str = "Loading VMware ESXi"
    kernelopt: str = ""
    prefix: str = ""
    build: str = ""
    updated: int = 1
    bootstate: int = 0
    timeout: int = 5

    @property
    def load_order(self) -> tuple[str, ...]:
        """The kernel and then the modules: every file that is loaded, in order."""
        return (self.kernel, *self.modules)


def parse_boot_config(data: bytes) -> BootConfig:
    """Return the configuration in the bytes of a boot.cfg."""
    if len(data) > CONFIG_BYTES_MAX:
        raise LimitError(_WHAT, "", f"more than {CONFIG_BYTES_MAX} bytes")
    values: dict[str, str] = {}
    for number, line in enumerate(_lines(data), start=1):
        where = f"line {number}"
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or key not in _KEYS:
            raise FormatError(_WHAT, where, f"{line[:40]!r} is not one of {', '.join(_KEYS)} with a value")
        if key in values:
            raise FormatError(_WHAT, where, f"{key} stands twice")
        values[key] = value
    numbers = {key: _number(key, values[key]) for key in _NUMBERS if key in values}
    return BootConfig(
        kernel=_file("kernel", values.get("kernel", "")),
        modules=_modules(values.get("modules", "")),
        title=values.get("title", ""),
        kernelopt=values.get("kernelopt", ""),
        prefix=values.get("prefix", ""),
        build=values.get("build", ""),
        updated=numbers.get("updated", 0),
        bootstate=numbers.get("bootstate", 0),
        timeout=numbers.get("timeout", 0),
    )


def format_boot_config(config: BootConfig) -> bytes:
    """Return the one spelling of a configuration."""
    values = {**attrs.asdict(config, recurse=False), "modules": _SEPARATOR.join(config.modules)}
    data = "".join(f"{key}={values[key]}\n" for key in _KEYS).encode("ascii", "backslashreplace")
    if parse_boot_config(data) != config:
        raise FormatError(_WHAT, "", "a value does not fit on one line of plain ASCII")
    return data


def _lines(data: bytes) -> list[str]:
    if not data.isascii():
        raise FormatError(_WHAT, "", "is not plain ASCII")
    lines = data.decode("ascii").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if len(line) > TEXT_CHARS_MAX and not line.startswith("modules="):
            raise LimitError(_WHAT, f"line {number}", f"longer than {TEXT_CHARS_MAX} characters")
        if not line.isprintable():
            raise FormatError(_WHAT, f"line {number}", "holds a control character")
    return lines


def _number(key: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise FormatError(_WHAT, key, f"{text[:20]!r} is not a plain number")
    return int(text)


def _file(key: str, text: str) -> str:
    if not _FILE.fullmatch(text) or text.startswith("."):
        raise FormatError(_WHAT, key, f"{text[:40]!r} is not a file name")
    return text


def _modules(text: str) -> tuple[str, ...]:
    names = text.split(_SEPARATOR) if text else []
    if len(names) > MODULES_MAX:
        raise LimitError(_WHAT, "modules", f"more than {MODULES_MAX} modules")
    return tuple(_file("modules", name) for name in names)
