"""Faults of the management API, under the names that vSphere gives them.

Models: the part of the fault tree that hosts and vCenter raise here, with the fields that a client reads.  The class
name is the fault's name on the wire (`wire_name`); the text is the line that a person sees.

Leaves out: localisation, fault causes, and all faults nobody raises yet.

Sources: vSphere Web Services API (fault names, bases and fields); the texts are those that clients commonly show.
"""

from __future__ import annotations

from typing import Final

from sim.errors import VmksimError

__all__ = [
    "AlreadyConnected",
    "HostConfigFault",
    "HostConnectFault",
    "InsufficientResourcesFault",
    "InvalidArgument",
    "InvalidLogin",
    "InvalidName",
    "InvalidPowerState",
    "InvalidState",
    "ManagedObjectNotFound",
    "MethodFault",
    "NoCompatibleHost",
    "NoPermission",
    "NotAuthenticated",
    "NotFound",
    "NotSupported",
    "PlatformConfigFault",
    "RuntimeFault",
    "VimFault",
]


class MethodFault(VmksimError):  # noqa: N818 - faults keep the names of the API
    """The root of all faults; its arguments are the fields of the fault, in order."""

    text: str = "The operation failed."

    def __str__(self) -> str:
        return self.text

    @property
    def wire_name(self) -> str:
        """Return the name of this fault in the API."""
        return type(self).__name__


class RuntimeFault(MethodFault):
    """A fault that any method may raise."""


class VimFault(MethodFault):
    """A fault that a method names in its definition."""


class NotSupported(RuntimeFault):
    """The method is not one of those that this host offers."""

    text = "The operation is not supported on the object."

    def __init__(self, method: str = "") -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"{self.text} ({self.method})" if self.method else self.text


class NoCompatibleHost(VimFault):
    """No host may take a virtual machine: `reasons` says of each host why not."""

    text = "No host is compatible with the virtual machine."

    def __init__(self, reasons: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        told = "; ".join(f"{host}: {reason}" for host, reason in self.reasons)
        return f"{self.text} ({told})" if told else self.text


class InvalidArgument(RuntimeFault):
    """A parameter is missing, unknown, of a wrong type or out of range: `invalid_property` names it."""

    def __init__(self, invalid_property: str) -> None:
        super().__init__(invalid_property)
        self.invalid_property = invalid_property

    def __str__(self) -> str:
        return f"A specified parameter was not correct: {self.invalid_property}"


class ManagedObjectNotFound(RuntimeFault):
    """The object does not exist, or no longer."""

    def __init__(self, obj: str) -> None:
        super().__init__(obj)
        self.obj = obj

    def __str__(self) -> str:
        return f"The object {self.obj!r} has already been deleted or has not been completely created"


class NoPermission(RuntimeFault):
    """The session's role lacks the privilege `privilege_id`."""

    text = "Permission to perform this operation was denied."

    def __init__(self, privilege_id: str = "") -> None:
        super().__init__(privilege_id)
        self.privilege_id = privilege_id


class NotAuthenticated(NoPermission):
    """There is no session, or it has ended."""

    text = "The session is not authenticated."


class InvalidLogin(VimFault):
    """User name or password is wrong; which of the two is not said."""

    text = "Cannot complete login due to an incorrect user name or password."


class InvalidName(VimFault):
    """A name is not known or not allowed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"The name '{self.name}' is not valid."


class NotFound(VimFault):
    """What the method is about does not exist."""

    text = "The object or item referred to could not be found."


class InvalidState(VimFault):
    """The operation is not allowed in the present state; `reason` is the host's own line."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "The operation is not allowed in the current state."


_POWER_TEXT: Final = {"poweredOn": "Powered on", "poweredOff": "Powered off", "suspended": "Suspended"}


class InvalidPowerState(InvalidState):
    """A virtual machine is in the wrong power state: the one asked for and the one it is in."""

    def __init__(self, requested_state: str, existing_state: str) -> None:
        super().__init__(requested_state)
        self.args = (requested_state, existing_state)
        self.requested_state = requested_state
        self.existing_state = existing_state

    def __str__(self) -> str:
        state = _POWER_TEXT.get(self.existing_state, self.existing_state)
        return f"The attempted operation cannot be performed in the current state ({state})."


class InsufficientResourcesFault(VimFault):
    """The host lacks what the operation needs; `reason` is the admission control's own line."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "The available resources are insufficient for this operation."


class HostConfigFault(VimFault):
    """A configuration of the host could not be changed."""

    text = "Unable to apply the change to the host's configuration."


class PlatformConfigFault(HostConfigFault):
    """The host refused, in its own words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class HostConnectFault(VimFault):
    """The host cannot be reached or does not answer as a host."""

    text = "Cannot contact the specified host."

    def __init__(self, host: str = "", reason: str = "") -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        name = f" ({self.host})" if self.host else ""
        return f"{self.text[:-1]}{name}{': ' + self.reason if self.reason else ''}."


class AlreadyConnected(HostConnectFault):
    """The host stands in the inventory already."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.args = (name,)
        self.name = name

    def __str__(self) -> str:
        return f"The host {self.name!r} is already connected to this vCenter Server."
