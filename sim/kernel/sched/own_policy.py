"""Policies in a user's own file: a Python source becomes a module that `sched.policy` can name and a checkpoint can find.

Models nothing.  A source gets a module name made of its digest, so that the name of a policy in a scenario says what it
does, wherever the file lies, and two versions of a file are two policies.  Whoever calls `install` runs the code: that
is for a person's own scenario, never for what arrives over the management API, which has no way to name a file.

Leaves out a sandbox: Python has none.  What the source imports besides is not part of the digest.  Sources: none, a
design of ours.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from hashlib import sha256
from types import ModuleType

from sim.errors import ScenarioError

__all__ = ["MODULE_PREFIX", "SOURCE_BYTES_MAX", "install", "module_name"]

MODULE_PREFIX = "vmksim_policy_"
SOURCE_BYTES_MAX = 1 << 20
"""The largest source of a policy."""


class _Source(importlib.abc.InspectLoader):
    """Loads a module from a text, and shows the text to tracebacks."""

    def __init__(self, file_name: str, text: str) -> None:
        self.file_name = file_name
        self._text = text

    def get_source(self, fullname: str) -> str:
        """Return the text."""
        return self._text

    def exec_module(self, module: ModuleType) -> None:
        """Run the text as the body of the module."""
        module.__file__ = self.file_name
        super().exec_module(module)

    @staticmethod
    def source_to_code(data: object, path: object = "<policy>") -> object:  # type: ignore[override]
        """Compile the text; tracebacks name the file."""
        return compile(data, path, "exec", dont_inherit=True)  # type: ignore[call-overload]

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        """Return the text compiled."""
        return self.source_to_code(self._text, self.file_name)


def module_name(source: bytes) -> str:
    """Return the name of the module that a source becomes."""
    return MODULE_PREFIX + sha256(source).hexdigest()[:32]


def install(source: bytes, file_name: str) -> str:
    """Run a source as a module, once, and return the module's name.

    Errors: `ScenarioError` at `sched.policy` when it is no Python, or raises.
    """
    name = module_name(source)
    if name in sys.modules:
        return name
    try:
        loader = _Source(file_name, source.decode("utf-8-sig"))
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the source may raise anything
        sys.modules.pop(name, None)
        what = f"{type(error).__name__}: {error}"
        raise ScenarioError("sched.policy", f"{file_name} cannot be loaded: {what}") from error
    return name
