"""Starting a program as somebody with a shell on the host does, and noting what the VMkernel answered.

Models nothing of its own: `VMkernel.execute` checks the program and starts it.  The answer is in the trace
(`exec.program`, `userworld.started`), and a refusal among the operator's steps too.

Leaves out: what the program does.
"""

from __future__ import annotations

import difflib

from sim.errors import ScenarioError, SimBug, VmksimError
from sim.image.contents import open_archive
from sim.image.tar import EntryKind
from sim.kernel.host import Host
from sim.kernel.vmkernel import VMkernel
from sim.scenario.programs import ProgramSpec

__all__ = ["start_program"]

_ELF_MAGIC = b"\x7fELF"


def start_program(program: ProgramSpec, number: int, host: Host) -> str:
    """Start program `number` of the scenario, and return why it was refused ("": it runs).

    Errors: `ScenarioError` when its bytes are to be an installed program's, and there is no such program.
    """
    kernel = host.kernel
    if kernel is None:
        return f"host {host.name} is {host.state}"
    data = program.file.data if program.file is not None else _installed(program, number, kernel)
    try:
        kernel.execute(program.path, data)
    except SimBug:
        raise
    except VmksimError as error:
        return str(error)
    return ""


def _installed(program: ProgramSpec, number: int, kernel: VMkernel) -> bytes:
    """Return the bytes of an installed program: the last file of its path, as the host's file system shows it."""
    wanted = program.copy_of or program.path
    files = {
        entry.path: entry.data
        for module in kernel.boot.modules
        for entry in open_archive(module.content)
        if entry.kind is EntryKind.FILE and entry.data.startswith(_ELF_MAGIC)
    }
    if wanted not in files:
        near = difflib.get_close_matches(wanted, files, n=1)
        raise ScenarioError(
            f"programs[{number}].{'copy_of' if program.copy_of else 'path'}",
            "no installed program lies there",
            got=wanted,
            nearest=near[0] if near else None,
        )
    return files[wanted]
