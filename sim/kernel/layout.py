"""Where things lie: random placement of the kernel, its modules, heaps and stacks, and of user worlds.

Models: a window of addresses for each kind of region; a base drawn uniformly from all aligned places in the window
that do not touch an earlier region or its guard pages; how many places there were, which is the entropy.

Leaves out: offsets below the alignment (stack tops within a page), re-randomisation while running, and physical
placement, which is plain lowest-first.

Sources: VMware states that kernel, user worlds and modules lie at random addresses, and gives no bit counts.  The
kernel's window is inferred from code addresses in public logs (all within 1 GiB above 0x418000000000, newer releases
0x420000000000, at multiples of 2 MiB); everything else is assumed, with Linux's 28 and 22 bits for user worlds.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from itertools import pairwise
from math import log2

from attrs import field, frozen, validators

from sim.core.facts import Kind, fact
from sim.core.rng import Stream
from sim.core.structure import FieldError
from sim.core.units import GIB, MIB, PAGE_BYTES
from sim.errors import SimBug, VmksimError

KERNEL_BASE = fact(
    "layout.kernel_base",
    0x4180_0000_0000,
    unit="address",
    source="code addresses in public ESXi 5-6 logs",
    kind="inferred",
)
KERNEL_BASE_NEWER = fact(
    "layout.kernel_base_newer",
    0x4200_0000_0000,
    unit="address",
    source="code addresses in public ESXi 7-8 logs",
    kind="inferred",
)
KERNEL_ENTROPY_BITS = fact(
    "layout.kernel_entropy_bits",
    9,
    unit="bit",
    source="1 GiB window in steps of 2 MiB, from public logs",
    kind="inferred",
)
MODULE_WINDOW_BYTES = fact(
    "layout.module_window",
    510 * MIB,
    unit="byte",
    source="within 2 GiB of the kernel, for 32-bit displacements",
    kind="assumed",
)
USER_ENTROPY_BITS = fact(
    "layout.user_entropy_bits",
    28,
    unit="bit",
    source="Linux x86-64 mmap_rnd_bits; nothing public for ESXi",
    kind="assumed",
)
USER_STACK_ENTROPY_BITS = fact(
    "layout.user_stack_entropy_bits",
    22,
    unit="bit",
    source="Linux x86-64 STACK_RND_MASK in pages",
    kind="assumed",
)

REGIONS_MAX = 100_000
LARGE_PAGE_BYTES = 2 * MIB


class LayoutError(VmksimError):
    """There is no window of that kind, or no room left in it."""


@frozen(kw_only=True)
class Window:
    """The addresses that one kind of region may use, its alignment, and the gap kept between two regions."""

    kind: str
    base: int
    span_bytes: int
    align_bytes: int = PAGE_BYTES
    guard_bytes: int = PAGE_BYTES
    evidence: Kind = "assumed"

    def __attrs_post_init__(self) -> None:
        if self.align_bytes % PAGE_BYTES or self.base % self.align_bytes or self.guard_bytes % PAGE_BYTES:
            raise FieldError(self.kind, self.base, "a window whose base, alignment and guard are whole pages")

    @property
    def end(self) -> int:
        """The first address behind the window."""
        return self.base + self.span_bytes


def _windows_apart(_instance: object, _attribute: object, windows: tuple[Window, ...]) -> None:
    ordered = sorted(windows, key=_window_base)
    for low, high in pairwise(ordered):
        if low.end + max(low.guard_bytes, high.guard_bytes) > high.base:
            raise FieldError(
                "windows", f"{low.kind} and {high.kind}", "windows that lie apart, with room for a guard"
            )


@frozen(kw_only=True)
class LayoutProfile:
    """The windows of one release, or of one kind of process; by default the kernel's."""

    name: str = "vmkernel"
    windows: tuple[Window, ...] = field(validator=[validators.min_len(1), _windows_apart])

    @windows.default
    def _kernel_windows(self) -> tuple[Window, ...]:
        return kernel_windows()

    def window(self, kind: str) -> Window:
        """Return the window for regions of `kind`."""
        for window in self.windows:
            if window.kind == kind:
                return window
        raise LayoutError(f"profile {self.name} has no window for {kind!r}")


@frozen(kw_only=True, order=True)
class Region:
    """One placed region; `places` is the number of bases that were possible when it was placed."""

    base: int
    size_bytes: int
    kind: str
    name: str
    places: int

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.base + self.size_bytes


@frozen(kw_only=True)
class EntropyLine:
    """A row of the entropy report; `bits_min` is that of the region that had the fewest places."""

    kind: str
    window_base: int
    window_end: int
    align_bytes: int
    regions: int
    places_empty: int
    bits_empty: float
    bits_min: float | None
    evidence: Kind


class Layout:
    """The address layout of one space, drawn from `stream`."""

    def __init__(self, stream: Stream, profile: LayoutProfile) -> None:
        self.profile = profile
        self._stream = stream
        self._regions: dict[str, list[Region]] = {window.kind: [] for window in profile.windows}

    def place(self, kind: str, size_bytes: int, name: str = "") -> int:
        """Choose a base for a region of `size_bytes` (rounded up to whole pages) and return it."""
        size = _whole_pages(size_bytes)
        gaps = list(self._gaps(kind, size))
        places = sum(count for _, count in gaps)
        if not places or sum(len(each) for each in self._regions.values()) >= REGIONS_MAX:
            raise LayoutError(f"no room for {size} bytes in the window for {kind!r}")
        base = self._nth_place(gaps, self._stream.below(places), self.profile.window(kind).align_bytes)
        region = Region(base=base, size_bytes=size, kind=kind, name=name, places=places)
        insort(self._regions[kind], region, key=_region_base)
        return base

    def release(self, base: int) -> Region:
        """Forget the region that begins at `base` and return it."""
        for regions in self._regions.values():
            for index, region in enumerate(regions):
                if region.base == base:
                    return regions.pop(index)
        raise LayoutError(f"no region begins at {base:#x}")

    def regions(self) -> tuple[Region, ...]:
        """Return all regions in rising order of their bases."""
        return tuple(sorted(region for regions in self._regions.values() for region in regions))

    def places(self, kind: str, size_bytes: int = PAGE_BYTES) -> int:
        """Return how many bases are possible for the next region of that size."""
        return sum(count for _, count in self._gaps(kind, _whole_pages(size_bytes)))

    def entropy_bits(self, kind: str, size_bytes: int = PAGE_BYTES) -> float:
        """Return the entropy of the next region's base: log2 of `places`."""
        return _bits(self.places(kind, size_bytes))

    def report(self) -> tuple[EntropyLine, ...]:
        """Return the entropy of each window: when empty, and of the worst region placed so far."""
        lines = []
        for window in self.profile.windows:
            regions = self._regions[window.kind]
            empty = (window.span_bytes - PAGE_BYTES) // window.align_bytes + 1
            lines.append(
                EntropyLine(
                    kind=window.kind,
                    window_base=window.base,
                    window_end=window.end,
                    align_bytes=window.align_bytes,
                    regions=len(regions),
                    places_empty=empty,
                    bits_empty=_bits(empty),
                    bits_min=_bits(min(region.places for region in regions)) if regions else None,
                    evidence=window.evidence,
                )
            )
        return tuple(lines)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless regions are aligned, inside their windows and apart, guards included."""
        for window in self.profile.windows:
            end_before = None
            for region in self._regions[window.kind]:
                if (
                    region.base % window.align_bytes
                    or not window.base <= region.base < region.end <= window.end
                ):
                    raise SimBug(f"region {region} does not fit its window")
                if end_before is not None and region.base < end_before + window.guard_bytes:
                    raise SimBug(f"region {region} touches its neighbour")
                end_before = region.end

    def _gaps(self, kind: str, size: int) -> Iterator[tuple[int, int]]:
        """Return (first base, number of bases) of each free gap that has room, in rising order."""
        window = self.profile.window(kind)
        align = window.align_bytes
        guard = window.guard_bytes
        first = window.base
        for region in self._regions[kind]:
            count = (region.base - guard - size - first) // align + 1
            if count > 0:
                yield first, count
            first = -(-(region.base + region.size_bytes + guard) // align) * align
        count = (window.end - size - first) // align + 1
        if count > 0:
            yield first, count

    @staticmethod
    def _nth_place(gaps: list[tuple[int, int]], number: int, align: int) -> int:
        for first, count in gaps:
            if number < count:
                return first + number * align
            number -= count
        raise SimBug("a place beyond the last gap")


def kernel_profile(
    base: int = KERNEL_BASE.value, entropy_bits: int = KERNEL_ENTROPY_BITS.value, name: str = "vmkernel"
) -> LayoutProfile:
    """Return a profile with the windows of `kernel_windows`."""
    return LayoutProfile(name=name, windows=kernel_windows(base, entropy_bits))


def kernel_windows(
    base: int = KERNEL_BASE.value, entropy_bits: int = KERNEL_ENTROPY_BITS.value
) -> tuple[Window, ...]:
    """Return the kernel's windows: image and modules within 2 GiB of `base`, data elsewhere in the same half."""
    if not 1 <= entropy_bits <= KERNEL_ENTROPY_BITS.value:
        raise FieldError("entropy_bits", entropy_bits, f"an integer from 1 to {KERNEL_ENTROPY_BITS.value}")
    image = Window(
        kind="kernel",
        base=base,
        span_bytes=LARGE_PAGE_BYTES << entropy_bits,
        align_bytes=LARGE_PAGE_BYTES,
        evidence="inferred",
    )
    modules = base + GIB + LARGE_PAGE_BYTES
    parts = modules + 512 * MIB
    data = base + 0x100_0000_0000
    return (
        image,
        Window(kind="module", base=modules, span_bytes=MODULE_WINDOW_BYTES.value),
        Window(kind="module.text", base=parts, span_bytes=254 * MIB),
        Window(kind="module.rodata", base=parts + 256 * MIB, span_bytes=126 * MIB),
        Window(kind="module.data", base=parts + 384 * MIB, span_bytes=120 * MIB),
        Window(kind="heap", base=data, span_bytes=1024 * GIB),
        Window(kind="stack", base=data + 0x200_0000_0000, span_bytes=1024 * GIB),
        Window(kind="percpu", base=data + 0x400_0000_0000, span_bytes=64 * GIB, align_bytes=LARGE_PAGE_BYTES),
    )


def user_profile(
    entropy_bits: int = USER_ENTROPY_BITS.value, stack_entropy_bits: int = USER_STACK_ENTROPY_BITS.value
) -> LayoutProfile:
    """Return the windows of a user world: independent bases for program, heap, each library, and stack."""
    span = PAGE_BYTES << entropy_bits
    return LayoutProfile(
        name="user world",
        windows=(
            Window(kind="exe", base=0x5500_0000_0000, span_bytes=span),
            Window(kind="heap", base=0x5700_0000_0000, span_bytes=span),
            Window(kind="library", base=0x7E00_0000_0000, span_bytes=span),
            Window(kind="stack", base=0x7FFA_0000_0000, span_bytes=PAGE_BYTES << stack_entropy_bits),
        ),
    )


def _whole_pages(size_bytes: int) -> int:
    if size_bytes < 1:
        raise SimBug(f"a region of {size_bytes} bytes")
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def _bits(places: int) -> float:
    return log2(places) if places else 0.0


def _region_base(region: Region) -> int:
    return region.base


def _window_base(window: Window) -> int:
    return window.base
