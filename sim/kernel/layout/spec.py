"""The part of a scenario that says how things are placed: a release's profile, and fewer bits where one asks for them.

Models nothing.  Leaves out more bits than the profile has: a window has no room for them.
"""

from __future__ import annotations

from attrs import evolve, field, frozen, validators
from attrs.validators import optional

from sim.core.structure import FieldError, between, in_choices
from sim.kernel.layout.releases import RELEASES, ReleaseProfile
from sim.kernel.layout.windows import LayoutProfile, Window

__all__ = ["KernelSpec", "LayoutSpec"]

BITS_MAX = 40

_BITS = optional(between(0, BITS_MAX))


@frozen(kw_only=True)
class LayoutSpec:
    """A profile by name; None leaves the number of bits of a part as the profile has it."""

    profile: str = field(default=next(iter(RELEASES)), validator=in_choices(*RELEASES))
    kernel_bits: int | None = field(default=None, validator=_BITS)
    exe_bits: int | None = field(default=None, validator=_BITS)
    heap_bits: int | None = field(default=None, validator=_BITS)
    mmap_bits: int | None = field(default=None, validator=_BITS)
    stack_bits: int | None = field(default=None, validator=_BITS)

    def __attrs_post_init__(self) -> None:
        self.release()  # a wrong number of bits is refused here

    def release(self) -> ReleaseProfile:
        """Return the profile with the changes."""
        release = RELEASES[self.profile]
        parts = (
            ("exe", "exe_bits", self.exe_bits),
            ("heap", "heap_bits", self.heap_bits),
            ("library", "mmap_bits", self.mmap_bits),
            ("stack", "stack_bits", self.stack_bits),
        )
        user = release.user
        for kind, name, bits in parts:
            if bits is not None:
                user = _replaced(user, _with_bits(user.window(kind), name, bits))
        kernel = release.kernel
        if self.kernel_bits is not None:
            kernel = _replaced(kernel, _smaller(kernel.window("kernel"), "kernel_bits", self.kernel_bits))
        return evolve(release, kernel=kernel, user=user)


@frozen(kw_only=True)
class KernelSpec:
    """What a scenario says about the VMkernel itself.

    Without `shootdowns` it tells no other processor when it takes a mapping away: a bug, to be observed.  Without
    `strict_symbols` a module may leave symbols open that nobody defines: they are bound to address 0 and listed.
    """

    layout: LayoutSpec = field(factory=LayoutSpec)
    shootdowns: bool = field(default=True, validator=validators.instance_of(bool))
    strict_symbols: bool = field(default=True, validator=validators.instance_of(bool))


def _with_bits(window: Window, name: str, bits: int) -> Window:
    first, *others = window.offsets
    if 1 << bits > first.slots:
        raise FieldError(name, bits, f"at most the {first.slots.bit_length() - 1} bits of the profile")
    return evolve(window, offsets=(evolve(first, slots=1 << bits), *others))


def _smaller(window: Window, name: str, bits: int) -> Window:
    """Return a scatter window with room for that many places of one step each; one that is fixed stays so."""
    most = (window.span_bytes // window.align_bytes).bit_length() - 1
    if window.method != "scatter" or bits > most:
        most = most if window.method == "scatter" else 0
        if bits:
            raise FieldError(name, bits, f"at most the {most} bits of the profile")
        return window
    return evolve(window, span_bytes=window.align_bytes << bits)


def _replaced(profile: LayoutProfile, window: Window) -> LayoutProfile:
    windows = tuple(window if each.kind == window.kind else each for each in profile.windows)
    return evolve(profile, windows=windows)
