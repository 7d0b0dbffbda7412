"""Windows and profiles: which addresses each kind of region may have, and how its base is drawn.

Models: five ways of drawing.  `scatter`: each region on its own, among all aligned places that are free.  `first`: no
chance, the lowest free place.  `down` and `up`: one base for the window, drawn once, from which regions are laid one
behind the other, so that they keep their distances (Linux's mmap base).  `after`: as `up`, counted from the end of a
region of another kind (the heap behind the program), or from the window's base while there is none (a program at a
fixed address outside the windows).  Offsets make a draw the sum of several.

Leaves out: windows that depend on limits of the process.  Sources: none, a design of ours; the numbers are in
`sim.kernel.layout.releases`.
"""

from __future__ import annotations

from itertools import pairwise

from attrs import field, frozen, validators

from sim.core.facts import Kind
from sim.core.structure import FieldError, between, in_choices
from sim.core.units import PAGE_BYTES
from sim.errors import VmksimError

__all__ = ["METHODS", "LayoutError", "LayoutProfile", "Offset", "Window"]

METHODS = ("scatter", "first", "down", "up", "after")
CANONICAL_END = 1 << 47
"""The end of the lower half of the addresses under four levels of paging, in which everything here lies."""

SLOTS_MAX = 1 << 47


class LayoutError(VmksimError):
    """There is no window of that kind, or no room left in it."""


@frozen(kw_only=True)
class Offset:
    """A uniform draw of `slots` whole steps of `step_bytes`."""

    name: str
    slots: int = field(validator=between(1, SLOTS_MAX))
    step_bytes: int = field(default=PAGE_BYTES, validator=between(1, CANONICAL_END))
    evidence: Kind = "assumed"


@frozen(kw_only=True)
class Window:
    """The addresses of one kind of region (and of those in `also`), their alignment, and the gap between two.

    Without `offsets` a base is drawn uniformly from the free places; with them it is the sum of the offsets, counted
    from the window's base (from its end for `down`, from the end of the region of kind `follows` for `after`).
    """

    kind: str
    base: int = field(validator=between(0, CANONICAL_END - 1))
    span_bytes: int = field(validator=between(PAGE_BYTES, CANONICAL_END))
    align_bytes: int = PAGE_BYTES
    guard_bytes: int = PAGE_BYTES
    evidence: Kind = "assumed"
    also: tuple[str, ...] = ()
    method: str = field(default="scatter", validator=in_choices(*METHODS))
    offsets: tuple[Offset, ...] = ()
    follows: str = ""

    def __attrs_post_init__(self) -> None:
        if self.align_bytes % PAGE_BYTES or self.base % self.align_bytes or self.guard_bytes % PAGE_BYTES:
            raise FieldError(self.kind, self.base, "a window whose base, alignment and guard are whole pages")
        if self.end > CANONICAL_END:
            raise FieldError(self.kind, self.end, "a window that ends within the canonical lower half")
        if any(offset.step_bytes % self.align_bytes for offset in self.offsets):
            raise FieldError(
                self.kind, self.align_bytes, "offsets whose steps are multiples of the alignment"
            )
        if self.method in ("down", "up", "after") and not self.offsets:
            raise FieldError(self.kind, self.method, "an offset for a base that is drawn once")
        if (self.method == "after") != bool(self.follows):
            raise FieldError(self.kind, self.follows, "the kind it follows, for the method `after` alone")

    @property
    def end(self) -> int:
        """The first address behind the window."""
        return self.base + self.span_bytes

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of region that lie in the window."""
        return (self.kind, *self.also)


def _windows_apart(_instance: object, _attribute: object, windows: tuple[Window, ...]) -> None:
    ordered = sorted((each for each in windows if not each.follows), key=_window_base)
    for low, high in pairwise(ordered):
        if low.end + max(low.guard_bytes, high.guard_bytes) > high.base:
            raise FieldError(
                "windows", f"{low.kind} and {high.kind}", "windows that lie apart, with room for a guard"
            )
    kinds = [kind for window in windows for kind in window.kinds]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise FieldError("windows", kind, "one window for each kind")
    for window in windows:
        if window.follows and window.follows not in kinds:
            raise FieldError("windows", window.follows, "a kind that has a window, to be followed")


def _kernel_windows() -> tuple[Window, ...]:
    from sim.kernel.layout.releases import kernel_windows

    return kernel_windows()


@frozen(kw_only=True)
class LayoutProfile:
    """The windows of one release, or of one kind of process; by default the kernel's.

    `heap_start`, `stack_pointer` and `arguments` are offsets below the page, of addresses inside their regions.
    """

    name: str = "vmkernel"
    windows: tuple[Window, ...] = field(
        factory=_kernel_windows, validator=[validators.min_len(1), _windows_apart]
    )
    heap_start: tuple[Offset, ...] = ()
    stack_pointer: tuple[Offset, ...] = ()
    arguments: tuple[Offset, ...] = ()

    def window(self, kind: str) -> Window:
        """Return the window for regions of `kind`."""
        for window in self.windows:
            if kind in window.kinds:
                return window
        raise LayoutError(f"profile {self.name} has no window for {kind!r}")


def _window_base(window: Window) -> int:
    return window.base
