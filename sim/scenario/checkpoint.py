"""Checkpoints: a running simulation in one file, for the same version of the simulator.

A file is one line of JSON that says what it is, and two pickles behind it: the source of a policy of the user's own, if
there is one, and the simulation.  The line is checked before the pickles are read.

Models nothing.  Leaves out compatibility between versions, and protection: a pickle can run code, so only a file that
one trusts may be restored.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import stat
from pathlib import Path
from typing import Any

from sim._version import __version__
from sim.core.units import GIB
from sim.errors import CheckpointError
from sim.kernel.sched.own_policy import install as install_policy
from sim.scenario.inputs import InputFile
from sim.scenario.result import write_atomically

__all__ = ["read_checkpoint", "write_checkpoint"]

CHECKPOINT_BYTES_MAX = 16 * GIB
HEADER_BYTES_MAX = 4096
_FORMAT = "vmksim checkpoint 2"
_PROTOCOL = 5  # what every supported Python reads


def write_checkpoint(simulation: object, path: Path, own_policy: InputFile | None = None) -> None:
    """Write `simulation` to `path`, whole or not at all, with the source of its policy if that is the user's own.

    Errors: `CheckpointError` when something in it cannot be pickled or the file cannot be written.
    """
    try:
        body = pickle.dumps(own_policy, protocol=_PROTOCOL) + pickle.dumps(simulation, protocol=_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"this simulation cannot be saved here: {error}") from error
    header = {"format": _FORMAT, "version": __version__, "sha256": hashlib.sha256(body).hexdigest()}
    try:
        write_atomically(path, json.dumps(header).encode() + b"\n" + body)
    except OSError as error:
        raise CheckpointError(f"cannot write {str(path)!r}: {error.strerror}") from None


def read_checkpoint(path: Path) -> Any:
    """Return the simulation in a checkpoint file.

    Errors: `CheckpointError` for a file that is none, is damaged, or comes from another version.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"cannot read {str(path)!r}: not a regular file")
        if found.st_size > CHECKPOINT_BYTES_MAX:
            raise CheckpointError(f"{path} is larger than any checkpoint")
        with path.open("rb") as file:
            header = _header(file.readline(HEADER_BYTES_MAX), path)
            body = file.read()
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if header.get("version") != __version__:
        raise CheckpointError(f"{path} is of version {header.get('version')}, this is {__version__}")
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise CheckpointError(f"{path} is damaged")
    try:
        stream = io.BytesIO(body)
        own_policy = pickle.load(stream)  # noqa: S301 - the user vouches for the file
        if own_policy is not None:
            install_policy(own_policy.data, own_policy.name)
        return pickle.load(stream)  # noqa: S301 - likewise
    except Exception as error:
        raise CheckpointError(f"{path} cannot be restored: {error}") from error


def _header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint")
    return header
