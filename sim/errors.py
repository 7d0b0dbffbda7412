"""Every error that the simulator raises on purpose.

Three kinds of wrong are kept apart.  What the user got wrong is a `ScenarioError`; bytes that break their format are
a `FormatError`; a check that did not pass raises a `VerificationError`.  What goes wrong *inside* the simulated
machine (a page fault, a TPM response code, a purple screen) is data in the trace and never an exception here.  Our
own mistakes are a `SimBug`.

Leaves out: faults of the management API, which are values of `sim.vsphere`.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "FormatError",
    "LimitError",
    "ScenarioError",
    "SimBug",
    "VerificationError",
    "VmksimError",
]


class VmksimError(Exception):
    """The root of all errors that are raised on purpose; its text is one line for a person."""


class ScenarioError(VmksimError):
    """The user's input is wrong: where (`path`), what was found, what is wanted, and the nearest right spelling."""

    def __init__(
        self,
        path: str,
        message: str,
        *,
        got: object = None,
        wanted: str | None = None,
        nearest: str | None = None,
    ) -> None:
        self.path = path
        self.message = message
        self.got = got
        self.wanted = wanted
        self.nearest = nearest
        text = f"{path}: {message}" if path else message
        if got is not None:
            text += f", got {_short(got)}"
        if wanted is not None:
            text += f", wanted {wanted}"
        if nearest is not None:
            text += f"; did you mean {nearest!r}?"
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_scenario_error, (self.path, self.message, self.got, self.wanted, self.nearest))


class FormatError(VmksimError):
    """Bytes from outside break their format: `what` format, `where` in it, and what was expected."""

    def __init__(self, what: str, where: str, message: str) -> None:
        self.what = what
        self.where = where
        self.message = message
        super().__init__(what, where, message)

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: {self.message}" if self.where else f"{self.what}: {self.message}"


class LimitError(FormatError):
    """Bytes from outside pass a named limit of their parser."""


class VerificationError(VmksimError):
    """A signature, digest or evidence check refused: `check` is the short machine name of that check."""

    def __init__(self, check: str, message: str) -> None:
        self.check = check
        self.message = message
        super().__init__(check, message)

    def __str__(self) -> str:
        return self.message


class CheckpointError(VmksimError):
    """A running simulation cannot be saved or restored as asked."""


class SimBug(VmksimError):  # noqa: N818 - it names a bug of ours, not an error of theirs
    """The simulator broke one of its own invariants: please report it with the command that replays it."""


def _short(value: object, limit: int = 60) -> str:
    text = repr(value) if not isinstance(value, (dict, list)) else type(value).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _rebuild_scenario_error(
    path: str, message: str, got: object, wanted: str | None, nearest: str | None
) -> ScenarioError:
    return ScenarioError(path, message, got=got, wanted=wanted, nearest=nearest)
