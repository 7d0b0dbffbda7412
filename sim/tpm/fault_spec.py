"""One fault of a TPM as a value: which commands it hits, and what happens to them.

Models: faults by command, handle and occurrence, as a scenario file, an option of the command line, or Python declare
them.  Leaves out: carrying them out (`sim.tpm.faults`).
Sources: TPM 2.0 Library part 2 (response codes); the spelling is ours.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import attrs
from attrs import field, frozen
from attrs.validators import optional

from sim.core.structure import FieldError, between, in_choices, quantity, structure
from sim.errors import ScenarioError
from sim.tpm.constants import TPM_CC, TPM_RC

__all__ = ["ANY", "KINDS", "Fault", "command_code", "command_name", "parse_fault"]

KINDS = ("fail", "delay", "retry", "drop", "lose_answer", "power_loss")
"""What may happen: the code `rc` instead of running; `delay` more time; TPM_RC_RETRY instead of running; silence instead
of running; running, and silence; power that goes after `writes` of the command's writes."""

ANY = "*"
"""Stands for the name of any command."""

OCCURRENCES_MAX = 1_000_000_000
WRITES_MAX = 1_000_000
DELAY_NS_MAX = 366 * 86_400 * 10**9
RC_MAX = 0xFFFF
_FAILURE = TPM_RC.FAILURE.value
_OPTION = re.compile(
    r"(?P<command>[^@#=:]+)(@(?P<handle>0x[0-9a-fA-F]+|\d+))?(#(?P<first>\d+)(?P<on>-(?P<last>\d*))?)?"
    r"=(?P<kind>[^:]+)(:(?P<value>.+))?"
)
_OPTION_FORM = "COMMAND[@HANDLE][#FIRST[-[LAST]]]=KIND[:VALUE], such as PCR_Extend#3=fail:0x101"
_NAMES = {code.value: code.name for code in TPM_CC}
_VALUE_OF = {"fail": "rc", "delay": "delay", "power_loss": "writes"}


def _nearest(name: str, known: list[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1)
    return near[0] if near else None


def _known_command(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str) or (value != ANY and value.removeprefix("TPM2_") not in TPM_CC.__members__):
        wanted = f"the name of a command such as PCR_Extend, or {ANY} for any"
        near = _nearest(str(value).removeprefix("TPM2_"), list(TPM_CC.__members__))
        raise FieldError(attribute.name, value, wanted, near)


def _known_rc(_instance: object, attribute: attrs.Attribute[Any], value: int | str) -> None:
    if isinstance(value, str):
        names = [name for name in TPM_RC.__members__ if name != "SUCCESS"]
        if value.removeprefix("TPM_RC_") not in names:
            wanted = "a response code, as a number or by a name such as FAILURE"
            raise FieldError(attribute.name, value, wanted, _nearest(value.removeprefix("TPM_RC_"), names))
    else:
        between(1, RC_MAX)(_instance, attribute, value)


@frozen(kw_only=True)
class Fault:
    """One fault: of what kind, at which occurrences of which command."""

    kind: str = field(validator=in_choices(*KINDS))
    command: str = field(default=ANY, validator=_known_command)
    handle: int | None = field(default=None, validator=optional(between(0, 2**32 - 1)))
    """Only commands that have this among their handles: the number of a PCR, the index of an NV command."""
    first: int = field(default=1, validator=between(1, OCCURRENCES_MAX))
    """The first such command that it hits, counted from 1 since the TPM was made."""
    count: int = field(default=1, validator=between(1, OCCURRENCES_MAX))
    """How many it hits, one after the other."""
    rc: int | str = field(default=_FAILURE, validator=_known_rc)
    """The response code of `fail`, as a number or by its name."""
    delay_ns: int | None = field(
        default=None, metadata=quantity("ns"), validator=optional(between(0, DELAY_NS_MAX))
    )
    """The additional simulated time of `delay`."""
    writes: int = field(default=0, validator=between(0, WRITES_MAX))
    """How many of the command's writes a `power_loss` lets pass."""

    def __attrs_post_init__(self) -> None:
        if self.kind == "delay" and self.delay_ns is None:
            raise FieldError("delay_ns", None, 'a time such as "200ms" for delay')
        unused = {"rc": "fail", "delay_ns": "delay", "writes": "power_loss"}
        for name, kind in unused.items():
            given = getattr(self, name)
            if self.kind != kind and given != getattr(attrs.fields(Fault), name).default:
                raise FieldError(name, given, f"no {name.removesuffix('_ns')} for {self.kind}")

    @property
    def code(self) -> int | None:
        """The command's code; None for any."""
        return None if self.command == ANY else command_code(self.command)

    @property
    def rc_value(self) -> int:
        """The response code as a number."""
        return self.rc if isinstance(self.rc, int) else TPM_RC[self.rc.removeprefix("TPM_RC_")].value

    def hits(self, occurrence: int) -> bool:
        """Tell whether it hits the command that is the n-th of those that it is about."""
        return self.first <= occurrence < self.first + self.count


def command_code(name: str) -> int:
    """Return the code of a command by its name, with or without "TPM2_"; `KeyError` for an unknown one."""
    return TPM_CC[name.removeprefix("TPM2_")].value


def command_name(code: int) -> str:
    """Return the name of a command, without "TPM2_"; of an unknown one its code in hex."""
    return _NAMES.get(code, f"0x{code:x}")


def parse_fault(text: str, path: str = "") -> Fault:
    """Read a fault from one word: `PCR_Extend#3=fail:0x101`, `Quote=delay:2s`, `*#5-7=retry`, `NV_Write=power_loss:1`.

    `@HANDLE` asks for a handle, `#3` for the third occurrence, `#3-` for all from there.  Errors: `ScenarioError` that
    begins with `path`.
    """
    found = _OPTION.fullmatch(text)
    if found is None:
        raise ScenarioError(path, "wrong value", got=text, wanted=_OPTION_FORM)
    parts = found.groupdict()
    data: dict[str, Any] = {"command": parts["command"], "kind": parts["kind"]}
    if parts["handle"] is not None:
        data["handle"] = int(parts["handle"], 0)
    if parts["first"] is not None:
        data["first"] = int(parts["first"])
        if parts["on"]:
            last = int(parts["last"]) if parts["last"] else OCCURRENCES_MAX
            data["count"] = last - data["first"] + 1
    if parts["value"] is not None:
        key = _VALUE_OF.get(parts["kind"])
        if key is None:
            raise ScenarioError(path, "wrong value", got=text, wanted=f"no value behind {parts['kind']}")
        data[key] = _number_or_text(parts["value"])
    return structure(data, Fault, path)


def _number_or_text(text: str) -> int | str:
    return int(text, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|[1-9]\d*|0", text) else text
