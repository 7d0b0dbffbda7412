"""Which programs may run: the check in front of every user world that is started while the host runs.

Models: a program is what an installed VIB holds under that path, byte for byte; the VIB's record and the payload in
memory are verified as for a kernel module (`sim.kernel.module_signing`), and the VIB's level must be one that may bring
that path.  So a file that came in by the saved state, a datastore or an unsigned VIB proves nothing.  With the kernel option execInstalledOnly such a program is refused;
without it, it is logged and runs.  Both ways leave a trace record.

The libraries that a program is linked with come from verified VIBs alone (`VMkernel.execute`).

Leaves out: scripts and their interpreters, libraries loaded later, set-user-id programs.

Sources: VMware's documentation of VMkernel.Boot.execInstalledOnly; the words of the refusal are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from sim.boot.bootinfo import BootInfo, BootModule
from sim.core.context import Sim
from sim.core.trace import record
from sim.errors import FormatError, VerificationError
from sim.image.contents import open_archive
from sim.image.install import PATH_RULES
from sim.image.tar import EntryKind
from sim.kernel.module_signing import ModuleIdentity, ModuleOrigin, ModuleVerifier

__all__ = ["ProgramGate", "ProgramRefused", "check_places"]

PROGRAM = record("exec.program", host=str, path=str, outcome=str, check=str)
"""A program was to be started: outcome "installed", "refused", or "allowed" for one that only the option's absence lets run."""


class ProgramRefused(VerificationError):  # noqa: N818 - a refusal is the normal answer here, not an error of ours
    """A program does not come, with these bytes, from an installed VIB that a trusted signature vouches for."""


@frozen(kw_only=True)
class ProgramGate:
    """Judges programs against what this boot's installed VIBs hold; `origin` names the VIB record of a boot module."""

    sim: Sim
    host: str
    boot: BootInfo
    verifier: ModuleVerifier
    origin: Callable[[BootModule], ModuleOrigin | None]
    enforced: bool

    def admit(self, path: str, program: bytes) -> None:
        """Let a program pass, or raise `ProgramRefused` where execInstalledOnly is on."""
        try:
            self._prove(path, program)
        except VerificationError as error:
            check = getattr(error, "check", "exec.format")
            self._note(path, "refused" if self.enforced else "allowed", check)
            if self.enforced:
                self._say(f"execInstalledOnly: /{path} is refused: {error}")
                raise ProgramRefused(check, f"/{path}: {error}") from error
            self._say(f"/{path} runs, although it is not installed: {error}")
        else:
            self._note(path, "installed", "")

    def _prove(self, path: str, program: bytes) -> None:
        holders = [module for module in self.boot.modules if _held(module.content, path)]
        if not holders:
            raise ProgramRefused("exec.not-installed", "no installed VIB holds it")
        holder = holders[-1]
        identity = self.verifier.verify(holder.name, holder.content, self.origin(holder))
        check_places(identity, (path,))
        if program != _held(holder.content, path)[-1]:
            raise ProgramRefused("exec.bytes", f"it is not what {holder.name} holds")

    def _note(self, path: str, outcome: str, check: str) -> None:
        self.sim.trace.emit(PROGRAM, self.host, path, outcome, check)

    def _say(self, text: str) -> None:
        self.sim.log("vmkernel", text)


def check_places(identity: ModuleIdentity, paths: Iterable[str]) -> None:
    """Refuse programs and libraries that a VIB of this level may not bring, however they came into the bank."""
    refused = PATH_RULES.refused(identity.level, paths)
    if refused:
        text = f"{identity.vib_id} is {identity.level.title} and may not bring /{refused[0]}"
        raise ProgramRefused("exec.path", text)


def _held(content: bytes, path: str) -> list[bytes]:
    """Return the bytes of each file of that path in an unpacked payload; one that cannot be opened holds none."""
    try:
        entries = open_archive(content)
    except FormatError:
        return []
    return [entry.data for entry in entries if entry.kind is EntryKind.FILE and entry.path == path]
