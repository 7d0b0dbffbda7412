"""The host's physical memory: what is in its frames.

Models: bytes held only for frames that were written; frames that read as zeros when they are handed over; bytes that
outlive a reset but not a power cut.  Ownership is `sim.hw.frames`, sharing `sim.hw.frame_counts`.

Wrong bits in the cells (`sim.hw.dram`) are met by whoever reads: a read may raise `MachineCheck`.

Leaves out: ranks and channels, memory-mapped devices, and the time of an access.

`mpn` is a machine page number, a physical address divided by 4,096.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.errors import SimBug
from sim.hw.dram import WORD_BYTES, DramErrors
from sim.hw.ecc import DATA_MASK
from sim.hw.frame_counts import CountedFrames
from sim.hw.frames import FRAME_BYTES, Extent, OutOfMemory
from sim.hw.mca import McaBanks, MceRecord
from sim.hw.spec import MEMORY_BYTES_MAX
from sim.hw.tablestore import ALL_ONES, Page, TableStore

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
        self.machine_checks = McaBanks()
        self.errors = DramErrors(self.machine_checks)
        self._wrong_words = self.errors.words  # the same dict: whether it is empty is asked at every access
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
        """Forget all owners and all bytes, wrong ones included."""
        self.tables.clear()
        self._contents.clear()
        self._wrong_words.clear()
        self.machine_checks.power_cycle()
        self.release_all()

    @property
    def frames_with_bytes(self) -> int:
        """The number of frames that hold anything but zeros never written: what the simulator itself pays for."""
        return len(self._contents)

    def read(self, pa: int, size: int) -> bytes:
        """Return `size` bytes from physical address `pa`; raises `MachineCheck` if they cannot be corrected."""
        self._check_range(pa, size)
        if self._wrong_words:
            self._take_over(self.errors.settle_read(pa, size))
        offset = pa % FRAME_BYTES
        if offset + size <= FRAME_BYTES:
            page = self._contents.get(pa // FRAME_BYTES)
            return bytes(size) if page is None else bytes(page[offset : offset + size])
        parts = []
        while size > 0:
            count = min(size, FRAME_BYTES - offset)
            page = self._contents.get(pa // FRAME_BYTES)
            parts.append(bytes(count) if page is None else page[offset : offset + count])
            pa += count
            size -= count
            offset = 0
        return b"".join(parts)

    def write(self, pa: int, data: bytes) -> None:
        """Store `data` at physical address `pa`; every frame touched must have an owner."""
        size = len(data)
        self._check_range(pa, size)
        mpn, offset = divmod(pa, FRAME_BYTES)
        if size:
            self._check_owned(mpn, -(-(pa + size) // FRAME_BYTES))
        if self._wrong_words:
            self._take_over(self.errors.settle_write(pa, size))
        if offset + size <= FRAME_BYTES:
            self._store(mpn, offset, data)
            return
        self._store_many(mpn, offset, memoryview(data if isinstance(data, bytes) else bytes(data)))

    def read_u64(self, pa: int) -> int:
        """Return the little-endian 64-bit word at the aligned physical address `pa`; see `read`."""
        if self._wrong_words:
            self._take_over(self.errors.settle_read(pa & -WORD_BYTES, WORD_BYTES))
        page = self._contents.get(pa >> 12)
        if page is None:
            self._check_range(pa, 8)
            return 0
        offset = pa & (FRAME_BYTES - 8)
        return int.from_bytes(page[offset : offset + 8], "little")

    def write_u64(self, pa: int, value: int) -> None:
        """Store a little-endian 64-bit word at the aligned physical address `pa`."""
        if self._wrong_words:
            self.errors.forget(pa & -WORD_BYTES, WORD_BYTES)
        page = self._contents.get(pa >> 12)
        if page is None:
            self._check_range(pa, 8)
            self._check_owned(pa >> 12, (pa >> 12) + 1)
            page = self._page(pa >> 12)
        elif _is_constant(page):
            page = self._page(pa >> 12)
        offset = pa & (FRAME_BYTES - 8)
        page[offset : offset + 8] = value.to_bytes(8, "little")

    def write_words(self, pa: int, words: bytes) -> None:
        """Store whole 64-bit words at the aligned physical address `pa`, all in one frame, as `write_u64` does."""
        size = len(words)
        page = self._contents.get(pa >> 12)
        offset = pa & (FRAME_BYTES - 8)
        if page is None or _is_constant(page) or offset + size > FRAME_BYTES:
            self.write(pa, words)
            return
        if self._wrong_words:
            self.errors.forget(pa & -WORD_BYTES, size)
        page[offset : offset + size] = words

    def entry_access(self) -> tuple[Callable[[int], int], Callable[[int, int], None]]:
        """Return the functions by which a walk reads and marks entries now: by the way of ECC while words are wrong."""
        if self._wrong_words:
            return self._read_entry, self._write_entry
        return self.tables.read, self.tables.write

    @property
    def has_errors(self) -> bool:
        """Whether any word has wrong bits, so that reads must take the way of ECC."""
        return bool(self._wrong_words)

    def _read_entry(self, pa: int) -> int:
        return self.read_u64(pa) if pa < self.size_bytes else ALL_ONES

    def _write_entry(self, pa: int, value: int) -> None:
        if pa < self.size_bytes:
            self.write_u64(pa, value)

    def patrol(self, pa: int) -> MceRecord | None:
        """Let the patrol scrubber pass over the word at `pa`; return what it logged, if anything."""
        logged, wrong = self.errors.patrol(pa)
        self._take_over(wrong)
        return logged

    def retire(self, mpn: int) -> None:
        """Take a frame out of use for good, with its bytes, right and wrong; errors as in `CountedFrames.retire`."""
        super().retire(mpn)
        self._scrub(Extent(first_mpn=mpn, count=1))

    def _take_over(self, wrong: list[tuple[int, int]]) -> None:
        """Make flips that the code did not see, or took for another, part of the data."""
        for pa, flips in wrong:
            page = self._page(pa // FRAME_BYTES)
            offset = pa % FRAME_BYTES
            word = int.from_bytes(page[offset : offset + WORD_BYTES], "little") ^ flips & DATA_MASK
            page[offset : offset + WORD_BYTES] = word.to_bytes(WORD_BYTES, "little")

    def _scrub(self, extent: Extent) -> None:
        """Make the frames read as zeros, at a cost of whichever is smaller: the extent or the frames with bytes."""
        if self._wrong_words:
            self.errors.forget(extent.first_mpn * FRAME_BYTES, extent.count * FRAME_BYTES)
        contents = self._contents
        if extent.count >= len(contents):
            mpns = [each for each in contents if extent.first_mpn <= each < extent.end_mpn]
        elif contents.keys().isdisjoint(extent.mpns()):
            return
        else:
            mpns = [each for each in extent.mpns() if each in contents]
        if mpns:
            self.tables.drop(extent)
        for mpn in mpns:
            del contents[mpn]

    def __getstate__(self) -> dict[str, object]:
        pages = {
            mpn: bytearray(page) if isinstance(page, memoryview) else page
            for mpn, page in self._contents.items()
        }
        return {**self.__dict__, "_contents": pages, "tables": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.tables = TableStore(self._contents, self.frames_total)

    def _store_many(self, mpn: int, offset: int, constant: memoryview) -> None:
        """Store constant bytes in several frames; those that held none become parts of `constant`."""
        size = len(constant)
        head = -offset % FRAME_BYTES
        if head:
            self._store(mpn, offset, constant[:head])
            mpn += 1
        whole = range(head, size - FRAME_BYTES + 1, FRAME_BYTES)
        pages = [constant[at : at + FRAME_BYTES] for at in whole]
        frames = range(mpn, mpn + len(pages))
        if self._contents.keys().isdisjoint(frames):
            self._contents.update(zip(frames, pages, strict=True))
        else:
            for each, page in zip(frames, pages, strict=True):
                self._store(each, 0, page)
        rest = (size - head) % FRAME_BYTES
        if rest:
            self._store(frames.stop, 0, constant[size - rest :])

    def _store(self, mpn: int, offset: int, data: bytes | memoryview) -> None:
        """Store bytes that lie within one frame."""
        self._page(mpn)[offset : offset + len(data)] = data

    def _page(self, mpn: int) -> Page:
        """Return the bytes of a frame to be changed in place."""
        page = self._contents.get(mpn)
        if page is None:
            page = self._contents[mpn] = bytearray(FRAME_BYTES)
        elif _is_constant(page):
            page = self._contents[mpn] = bytearray(page)
        return page

    def _check_owned(self, first: int, end: int) -> None:
        if not self.all_owned(first, end):
            raise SimBug(f"a write to frames {first:#x} to {end - 1:#x}, of which nobody owns some")

    def _check_range(self, pa: int, size: int) -> None:
        if pa < 0 or size < 0 or pa + size > self.size_bytes:
            raise SimBug(f"{size} bytes at {pa:#x} are beyond the installed memory")


def _is_constant(page: Page) -> bool:
    """Whether a frame's bytes are a part of constant ones: before the first change in place they must be copied."""
    return not isinstance(page, bytearray) and page.readonly
