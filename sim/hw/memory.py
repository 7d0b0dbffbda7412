"""The host's physical memory: what is in its frames.

Models: bytes held only for frames that were written; frames that read as zeros when they are handed over; bytes that
outlive a reset but not a power cut.  Ownership is `sim.hw.frames`, sharing `sim.hw.frame_counts`.

Leaves out: ranks and channels, memory errors, memory-mapped devices, and the time of an access.

`mpn` is a machine page number, a physical address divided by 4,096.
"""

from __future__ import annotations

from typing import Any

from sim.errors import SimBug
from sim.hw.frame_counts import CountedFrames
from sim.hw.frames import FRAME_BYTES, Extent, OutOfMemory
from sim.hw.spec import MEMORY_BYTES_MAX
from sim.hw.tablestore import Page, TableStore

__all__ = ["FRAME_BYTES", "Extent", "OutOfMemory", "PhysicalMemory"]


class PhysicalMemory(CountedFrames):
    """All frames of a host with their owners and their bytes.

    `frames_scrubbed` counts the frames that were zeroed because they were handed over.
    """

    def __init__(self, size_bytes: int, nodes: int = 1) -> None:
        if size_bytes % FRAME_BYTES or not 0 < size_bytes <= MEMORY_BYTES_MAX.value:
            raise SimBug(
                f"memory of {size_bytes} bytes: want whole frames, at most {MEMORY_BYTES_MAX.value} bytes"
            )
        super().__init__(size_bytes // FRAME_BYTES, nodes)
        self.size_bytes = size_bytes
        self.frames_scrubbed = 0
        self._contents: dict[int, Page] = {}
        self.tables = TableStore(self._contents, self.frames_total)
        """The frames that walks read, for walks."""

    def allocate(
        self,
        frames: int,
        owner: str,
        *,
        node: int | None = None,
        contiguous: bool = False,
        align_frames: int = 1,
    ) -> tuple[Extent, ...]:
        """Give zeroed frames to `owner`; arguments and errors as in `FrameBooks.allocate`."""
        extents = super().allocate(frames, owner, node=node, contiguous=contiguous, align_frames=align_frames)
        self.frames_scrubbed += frames
        for extent in extents:
            self._scrub(extent)
        return extents

    def power_cycle(self) -> None:
        """Forget all owners and all bytes."""
        self.tables.clear()
        self._contents.clear()
        self.release_all()

    @property
    def frames_with_bytes(self) -> int:
        """The number of frames that hold anything but zeros never written: what the simulator itself pays for."""
        return len(self._contents)

    def read(self, pa: int, size: int) -> bytes:
        """Return `size` bytes from physical address `pa`."""
        self._check_range(pa, size)
        parts = []
        while size > 0:
            mpn, offset = divmod(pa, FRAME_BYTES)
            count = min(size, FRAME_BYTES - offset)
            page = self._contents.get(mpn)
            parts.append(bytes(count) if page is None else bytes(page[offset : offset + count]))
            pa += count
            size -= count
        return b"".join(parts)

    def write(self, pa: int, data: bytes) -> None:
        """Store `data` at physical address `pa`; every frame touched must have an owner."""
        self._check_range(pa, len(data))
        view = memoryview(data)
        while view:
            mpn, offset = divmod(pa, FRAME_BYTES)
            count = min(len(view), FRAME_BYTES - offset)
            self._page(mpn)[offset : offset + count] = view[:count]
            pa += count
            view = view[count:]

    def read_u64(self, pa: int) -> int:
        """Return the little-endian 64-bit word at the aligned physical address `pa`."""
        page = self._contents.get(pa >> 12)
        if page is None:
            self._check_range(pa, 8)
            return 0
        offset = pa & (FRAME_BYTES - 8)
        return int.from_bytes(page[offset : offset + 8], "little")

    def write_u64(self, pa: int, value: int) -> None:
        """Store a little-endian 64-bit word at the aligned physical address `pa`."""
        page = self._contents.get(pa >> 12)
        if page is None:
            self._check_range(pa, 8)
            page = self._page(pa >> 12)
        offset = pa & (FRAME_BYTES - 8)
        page[offset : offset + 8] = value.to_bytes(8, "little")

    def _scrub(self, extent: Extent) -> None:
        """Make the frames read as zeros, at a cost of whichever is smaller: the extent or the frames with bytes."""
        contents = self._contents
        self.tables.drop(extent)
        if extent.count < len(contents):
            for mpn in extent.mpns():
                contents.pop(mpn, None)
        else:
            for mpn in [each for each in contents if extent.first_mpn <= each < extent.end_mpn]:
                del contents[mpn]

    def __getstate__(self) -> dict[str, object]:
        pages = {mpn: bytearray(page) for mpn, page in self._contents.items()}
        return {**self.__dict__, "_contents": pages, "tables": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.tables = TableStore(self._contents, self.frames_total)

    def _page(self, mpn: int) -> Page:
        page = self._contents.get(mpn)
        if page is None or self.owner_of(mpn) is None:
            if self.owner_of(mpn) is None:
                raise SimBug(f"a write to frame {mpn:#x}, which nobody owns")
            page = self._contents[mpn] = bytearray(FRAME_BYTES)
        return page

    def _check_range(self, pa: int, size: int) -> None:
        if pa < 0 or size < 0 or pa + size > self.size_bytes:
            raise SimBug(f"{size} bytes at {pa:#x} are beyond the installed memory")
