"""The refusal of an installation, in esxcli's words.

Models: one name of the broken rule and lines of text, as esxcli prints them.  Leaves out the log file they point to.

Sources: refusal texts from published sessions of real hosts.
"""

from __future__ import annotations

from sim.errors import VerificationError

__all__ = ["InstallError"]

_LAST_LINE = "Please refer to the log file for more details."


class InstallError(VerificationError):
    """An installation is refused; `check` is esxcli's name for the reason, the text esxcli's lines."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(check, message)

    @property
    def lines(self) -> tuple[str, ...]:
        """What esxcli prints."""
        return (f" [{self.check}]", *(f" {line}" for line in self.message.split("\n")), f" {_LAST_LINE}")

    def __str__(self) -> str:
        return "\n".join(self.lines)
