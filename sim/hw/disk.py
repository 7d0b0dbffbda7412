"""The boot device: a few named volumes of files, with read times and planted bit flips.

Models: the volumes that the boot chain reads (`esp` with the boot loader, `bootbank`, `altbootbank`, and `store` for
everything else), whole-file reads whose time is charged to the host's cost meter, and corruption of a stored bit.

Leaves out: partitions, blocks, caches, queues and write time: files are put there by an installer whose time is of no
interest.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.core.procedure import CostMeter
from sim.core.units import MIB, SECOND
from sim.errors import SimBug, VmksimError
from sim.hw.spec import DiskSpec

VOLUME_NAMES = ("esp", "bootbank", "altbootbank", "store")
"""The volumes that every disk has."""

FILE_BYTES_MAX = 512 * MIB
FILES_MAX = 4_096
PATH_CHARS_MAX = 255


class DiskError(VmksimError):
    """A file cannot be read or stored: it is missing, or a limit of the volume is passed."""


class Disk:
    """The host's boot device: `volume(name)` gives one of its volumes."""

    def __init__(self, meter: CostMeter, spec: DiskSpec | None = None) -> None:
        self.spec = spec if spec is not None else DiskSpec()
        self._volumes = {name: Volume(name, self.spec, meter) for name in VOLUME_NAMES}

    def volume(self, name: str) -> Volume:
        """Return the volume called `name`."""
        if name not in self._volumes:
            message = f"no volume {name!r}; there are {', '.join(self._volumes)}"
            raise DiskError(message)
        return self._volumes[name]

    def volumes(self) -> tuple[Volume, ...]:
        """Return all volumes in their fixed order."""
        return tuple(self._volumes.values())


class Volume:
    """A flat set of files, path to bytes; reading one costs simulated time."""

    def __init__(self, name: str, spec: DiskSpec, meter: CostMeter) -> None:
        self.name = name
        self._spec = spec
        self._meter = meter
        self._files: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        """Return the file's bytes and charge the time that the device needs for them."""
        data = self._get(path)
        self._meter.charge(self.read_ns(len(data)), what="disk read")
        return data

    def peek(self, path: str) -> bytes:
        """Return the file's bytes at no cost: for tools and reports, never for the simulated machine."""
        return self._get(path)

    def write(self, path: str, data: bytes) -> None:
        """Store `data` under `path`, replacing what was there."""
        if not path or len(path) > PATH_CHARS_MAX:
            message = f"{self.name}: a path has 1 to {PATH_CHARS_MAX} characters, got {len(path)}"
            raise DiskError(message)
        if len(data) > FILE_BYTES_MAX:
            message = f"{self.name}:{path}: a file has at most {FILE_BYTES_MAX} bytes, got {len(data)}"
            raise DiskError(message)
        if path not in self._files and len(self._files) >= FILES_MAX:
            message = f"{self.name}: a volume has at most {FILES_MAX} files"
            raise DiskError(message)
        self._files[path] = bytes(data)

    def remove(self, path: str) -> None:
        """Delete the file."""
        self._get(path)
        del self._files[path]

    def clear(self) -> None:
        """Delete every file."""
        self._files.clear()

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return path in self._files

    def paths(self) -> tuple[str, ...]:
        """Return all paths in sorted order."""
        return tuple(sorted(self._files))

    def flip_bit(self, path: str, bit_index: int) -> None:
        """Invert one stored bit: bit `bit_index % 8`, counted from the least, of byte `bit_index // 8`."""
        data = bytearray(self._get(path))
        if not 0 <= bit_index < 8 * len(data):
            message = f"{self.name}:{path} has {8 * len(data)} bits, so there is no bit {bit_index}"
            raise DiskError(message)
        data[bit_index >> 3] ^= 1 << (bit_index & 7)
        self._files[path] = bytes(data)

    def read_ns(self, size_bytes: int) -> int:
        """Return the time to read a file of that size, rounded up to a whole nanosecond."""
        transfer_ns = -(-size_bytes * SECOND // self._spec.read_bytes_per_s)
        return self._spec.access_ns + transfer_ns

    def copy_from(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Store many files at once."""
        for path, data in files:
            self.write(path, data)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless every limit holds."""
        if len(self._files) > FILES_MAX or any(len(data) > FILE_BYTES_MAX for data in self._files.values()):
            message = f"volume {self.name} passes its limits"
            raise SimBug(message)

    def _get(self, path: str) -> bytes:
        try:
            return self._files[path]
        except KeyError:
            message = f"{self.name}:{path}: no such file"
            raise DiskError(message) from None
