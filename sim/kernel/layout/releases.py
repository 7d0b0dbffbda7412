"""Placement by release: ESXi's as far as it can be inferred, and other systems' for comparison, each number with its source.

Models: for each profile the windows of the kernel, those of a process, and what the kernel permits a process to do
with rights.  A comparison profile changes the processes; the kernel is a VMkernel in all of them (Linux's kernel text
has the same 512 slots of 2 MiB), except in `none`, where nothing is random.

Leaves out: Windows' rule that a library keeps its base until the next boot, Linux's per-call stack offset and
randomized direct map, 32-bit processes.

Sources: VMware states that kernel, applications, drivers and libraries lie at random addresses, and gives no bit count
for any part.  The kernel's window is inferred from code addresses in public logs (all within 1 GiB above the base, at
multiples of 2 MiB).  Nothing is public about ESXi's user worlds: they get Linux's numbers, marked assumed.  Where a
source counts only the bits of a row of paxtest, how they divide into pages and steps below a page is ours.
"""

from __future__ import annotations

import difflib

from attrs import evolve, field, frozen

from sim.core.facts import Fact, Kind, fact
from sim.core.structure import FieldError
from sim.core.units import GIB, KIB, MIB, PAGE_BYTES
from sim.errors import ScenarioError
from sim.kernel.layout.windows import LayoutProfile, Offset, Window

__all__ = [
    "RELEASES",
    "Protection",
    "ReleaseProfile",
    "UserBits",
    "kernel_profile",
    "kernel_windows",
    "release_named",
    "user_profile",
]

LARGE_PAGE_BYTES = 2 * MIB


def _bits(name: str, value: int, source: str, kind: Kind) -> Fact:
    return fact(f"layout.{name}", value, unit="bit", source=source, kind=kind)


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
KERNEL_ENTROPY_BITS = _bits(
    "kernel_entropy_bits", 9, "1 GiB window in steps of 2 MiB, from public logs", "inferred"
)
MODULE_WINDOW_BYTES = fact(
    "layout.module_window",
    510 * MIB,
    unit="byte",
    source="within 2 GiB of the kernel, for 32-bit displacements",
    kind="assumed",
)
_LIKE_LINUX = "nothing public for ESXi; Linux x86-64 has as many"
USER_ENTROPY_BITS = _bits("user_entropy_bits", 28, _LIKE_LINUX, "assumed")
USER_STACK_ENTROPY_BITS = _bits("user_stack_entropy_bits", 22, _LIKE_LINUX, "assumed")
USER_HEAP_ENTROPY_BITS = _bits("user_heap_entropy_bits", 13, _LIKE_LINUX, "assumed")

LINUX_MMAP_BITS = _bits(
    "linux.mmap_bits", 28, "Linux 6.18 x86-64, vm.mmap_rnd_bits and 4,000 executions", "measured"
)
LINUX_STACK_BITS = _bits(
    "linux.stack_bits", 22, "Linux x86-64, STACK_RND_MASK 0x3fffff pages (commit 4e7c22d447bb)", "vendor"
)
LINUX_BRK_BITS = _bits("linux.brk_bits", 13, "ArchWiki, paxtest of 64-bit ET_EXEC heap", "measured")
LINUX_STACK_STEPS = fact(
    "layout.linux.stack_steps",
    512,
    unit="1",
    source="Linux x86-64 arch_align_stack: below 8,192 in steps of 16 bytes; paxtest then shows 30 bits",
    kind="inferred",
)
HARDENED_MMAP_BITS = _bits("hardened.mmap_bits", 32, "linux-hardened, paxtest as published", "measured")
HARDENED_BRK_BITS = _bits("hardened.brk_bits", 26, "linux-hardened, paxtest of ET_EXEC heap", "measured")
HARDENED_STACK_BITS = _bits("hardened.stack_bits", 40, "linux-hardened, paxtest as published", "measured")
HARDENED_ARGUMENT_BITS = _bits(
    "hardened.argument_bits", 44, "linux-hardened, paxtest as published", "measured"
)
PAX_MMAP_BITS = _bits("pax.mmap_bits", 33, "paxtest of a grsecurity-type x86-64 host", "measured")
PAX_HEAP_BITS = _bits("pax.heap_bits", 40, "paxtest of a grsecurity-type x86-64 host, PIE", "measured")
PAX_STACK_BITS = _bits("pax.stack_bits", 40, "paxtest of a grsecurity-type x86-64 host", "measured")
PAX_ARGUMENT_BITS = _bits("pax.argument_bits", 44, "paxtest of a grsecurity-type x86-64 host", "measured")
_WINDOWS = "Johnson and Miller 2012, Windows 8 with high-entropy ASLR"
WINDOWS_GRAIN_BYTES = fact(
    "layout.windows.grain",
    64 * KIB,
    unit="byte",
    source="Windows Internals, allocation granularity",
    kind="vendor",
)
WINDOWS_EXE_BITS = _bits("windows.exe_bits", 17, f"{_WINDOWS}; Windows Internals", "vendor")
WINDOWS_DLL_BITS = _bits("windows.dll_bits", 19, f"{_WINDOWS} (recalled)", "inferred")
WINDOWS_STACK_BITS = _bits("windows.stack_bits", 33, f"{_WINDOWS} (recalled)", "inferred")
WINDOWS_BOTTOM_UP_BITS = _bits("windows.bottom_up_bits", 24, f"{_WINDOWS}; Windows Internals", "vendor")


@frozen(kw_only=True)
class Protection:
    """What a kernel permits: `nx` says that pages can be not executable, `wx_refused` that W never meets X later."""

    nx: bool = True
    wx_refused: bool = True
    evidence: Kind = "assumed"


@frozen(kw_only=True)
class UserBits:
    """How many bits a process gets, and where its windows lie; steps below a page are counted in slots.

    The defaults are those of an ESXi user world.
    """

    exe: int = USER_ENTROPY_BITS.value
    mmap: int = USER_ENTROPY_BITS.value
    brk: int = USER_HEAP_ENTROPY_BITS.value
    stack: int = USER_STACK_ENTROPY_BITS.value
    heap_steps: int = 1
    stack_steps: int = LINUX_STACK_STEPS.value
    argument_steps: int = 1
    argument_step_bytes: int = 16
    exe_base: int = 0x5500_0000_0000
    mmap_top: int = 0x7FF0_0000_0000
    stack_top: int = 0x7FFF_FFFF_F000
    evidence: Kind = "assumed"

    def __attrs_post_init__(self) -> None:
        for name in ("exe", "mmap", "brk", "stack"):
            if not 0 <= getattr(self, name) <= 34:
                raise FieldError(name, getattr(self, name), "0 to 34 bits")


@frozen(kw_only=True)
class ReleaseProfile:
    """How one release places things: its kernel, its processes, and its rules about rights."""

    name: str
    title: str
    kernel: LayoutProfile
    user: LayoutProfile
    protection: Protection = field(factory=Protection)

    def __attrs_post_init__(self) -> None:
        for low in self.kernel.windows:
            for high in self.user.windows:
                if low.base < high.end and high.base < low.end:
                    raise FieldError(
                        "user", f"{low.kind} and {high.kind}", "windows of kernel and process apart"
                    )


def kernel_profile(
    base: int = KERNEL_BASE.value,
    entropy_bits: int = KERNEL_ENTROPY_BITS.value,
    name: str = "vmkernel",
    *,
    random: bool = True,
) -> LayoutProfile:
    """Return a profile with the windows of `kernel_windows`; without `random` each takes its lowest place."""
    windows = kernel_windows(base, entropy_bits)
    if not random:
        windows = tuple(evolve(window, method="first") for window in windows)
    return LayoutProfile(name=name, windows=windows)


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
        Window(kind="module.data", base=parts + 384 * MIB, span_bytes=62 * MIB),
        Window(kind="module.bss", base=parts + 448 * MIB, span_bytes=56 * MIB),
        Window(kind="heap", base=data, span_bytes=1024 * GIB),
        Window(kind="stack", base=data + 0x200_0000_0000, span_bytes=1024 * GIB),
        Window(kind="percpu", base=data + 0x400_0000_0000, span_bytes=64 * GIB, align_bytes=LARGE_PAGE_BYTES),
    )


def user_profile(bits: UserBits | None = None, name: str = "user world") -> LayoutProfile:
    """Return the windows of a process: program, heap behind it, one base for all mappings, stack below the top."""
    bits = bits if bits is not None else UserBits()
    exe_room = (PAGE_BYTES << bits.exe) + GIB
    mmap_room = (PAGE_BYTES << bits.mmap) + 64 * GIB
    stack_room = (PAGE_BYTES << bits.stack) + GIB
    windows = (
        Window(
            kind="exe", base=bits.exe_base, span_bytes=exe_room, method="up", offsets=_pages(bits, bits.exe)
        ),
        Window(
            kind="heap",
            base=bits.exe_base,
            span_bytes=exe_room + (PAGE_BYTES << bits.brk) + 64 * GIB,
            method="after",
            follows="exe",
            offsets=_pages(bits, bits.brk),
        ),
        Window(
            kind="library",
            also=("mmap", "vdso", "thread-stack"),
            base=bits.mmap_top - mmap_room,
            span_bytes=mmap_room,
            method="down",
            offsets=_pages(bits, bits.mmap),
        ),
        Window(
            kind="stack",
            base=bits.stack_top - stack_room,
            span_bytes=stack_room,
            method="down",
            offsets=_pages(bits, bits.stack),
        ),
    )
    return LayoutProfile(
        name=name,
        windows=tuple(evolve(window, evidence=bits.evidence) for window in windows),
        heap_start=_steps(bits, bits.heap_steps, 16),
        stack_pointer=_steps(bits, bits.stack_steps, 16),
        arguments=_steps(bits, bits.argument_steps, bits.argument_step_bytes),
    )


def _pages(bits: UserBits, of: int) -> tuple[Offset, ...]:
    return (Offset(name="base", slots=1 << of, evidence=bits.evidence),)


def _steps(bits: UserBits, slots: int, step_bytes: int) -> tuple[Offset, ...]:
    return (Offset(name="steps", slots=slots, step_bytes=step_bytes, evidence=bits.evidence),)


def _windows_profile() -> LayoutProfile:
    """Return a Windows process: images in windows of their own, stack and heap bottom-up, all in steps of 64 KiB."""

    def row(kind: str, base: int, bits: Fact, method: str, also: tuple[str, ...] = ()) -> Window:
        offset = Offset(
            name="base", slots=1 << bits.value, step_bytes=WINDOWS_GRAIN_BYTES.value, evidence=bits.kind
        )
        return Window(
            kind=kind,
            also=also,
            base=base,
            span_bytes=(WINDOWS_GRAIN_BYTES.value << bits.value) + 16 * GIB,
            align_bytes=WINDOWS_GRAIN_BYTES.value,
            method=method,
            offsets=(offset,),
            evidence=bits.kind,
        )

    below = 1 << WINDOWS_STACK_BITS.value - WINDOWS_BOTTOM_UP_BITS.value
    return LayoutProfile(
        name="windows process",
        windows=(
            row("exe", 0x7FE0_0000_0000, WINDOWS_EXE_BITS, "up"),
            row("library", 0x7FEC_0000_0000, WINDOWS_DLL_BITS, "down", also=("vdso",)),
            row("heap", 0x0100_0000_0000, WINDOWS_BOTTOM_UP_BITS, "up", also=("mmap", "thread-stack")),
            row("stack", 0x0300_0000_0000, WINDOWS_BOTTOM_UP_BITS, "up"),
        ),
        stack_pointer=(Offset(name="steps", slots=below, step_bytes=16, evidence=WINDOWS_STACK_BITS.kind),),
    )


def release_named(name: str, where: str = "profile") -> ReleaseProfile:
    """Return the profile of that name.

    Errors: `ScenarioError` at `where`, with the nearest name.
    """
    if name not in RELEASES:
        near = difflib.get_close_matches(name, RELEASES, n=1, cutoff=0.4)
        raise ScenarioError(
            where,
            "unknown layout profile",
            got=name,
            wanted=None if near else "one of " + ", ".join(RELEASES),
            nearest=near[0] if near else None,
        )
    return RELEASES[name]


_STOCK = Protection(wx_refused=False, evidence="measured")
_HARDENED = Protection(wx_refused=True, evidence="measured")
_STOCK_USER = UserBits(
    exe=LINUX_MMAP_BITS.value,
    mmap=LINUX_MMAP_BITS.value,
    brk=LINUX_BRK_BITS.value,
    stack=LINUX_STACK_BITS.value,
    exe_base=0x5555_5555_4000,
    evidence="measured",
)
_HARDENED_USER = UserBits(
    exe=HARDENED_MMAP_BITS.value,
    mmap=HARDENED_MMAP_BITS.value,
    brk=HARDENED_BRK_BITS.value - 8,
    heap_steps=1 << 8,
    stack=HARDENED_STACK_BITS.value - 8,
    argument_steps=1 << HARDENED_ARGUMENT_BITS.value - (HARDENED_STACK_BITS.value - 8),
    argument_step_bytes=1,
    exe_base=0x1000_0000_0000,
    mmap_top=0x7FFF_FFFF_F000,
    stack_top=0x6FC0_0000_0000,
    evidence="measured",
)
_PAX_USER = evolve(
    _HARDENED_USER,
    exe_base=0x2000_0000_0000,
    stack_top=0x5FC0_0000_0000,
    exe=PAX_MMAP_BITS.value,
    mmap=PAX_MMAP_BITS.value,
    brk=LINUX_BRK_BITS.value,
    heap_steps=1 << PAX_HEAP_BITS.value - PAX_MMAP_BITS.value,
    stack=PAX_STACK_BITS.value - 8,
    argument_steps=1 << PAX_ARGUMENT_BITS.value - (PAX_STACK_BITS.value - 8),
)
_FIXED_USER = UserBits(
    exe=0, mmap=0, brk=0, stack=0, stack_steps=1, exe_base=0x5555_5555_4000, evidence="assumed"
)


def _release(
    name: str,
    title: str,
    user: LayoutProfile,
    protection: Protection,
    kernel: LayoutProfile | None = None,
) -> tuple[str, ReleaseProfile]:
    kernel = kernel if kernel is not None else kernel_profile(KERNEL_BASE_NEWER.value)
    return name, ReleaseProfile(name=name, title=title, kernel=kernel, user=user, protection=protection)


RELEASES: dict[str, ReleaseProfile] = dict(
    (
        _release("esxi-6.x", "ESXi 5 and 6", user_profile(), Protection(), kernel_profile()),
        _release("esxi-7.x", "ESXi 7", user_profile(), Protection()),
        _release("esxi-8.x", "ESXi 8", user_profile(), Protection()),
        _release("linux-6.x", "Linux 6 x86-64, stock", user_profile(_STOCK_USER, "linux process"), _STOCK),
        _release(
            "linux-hardened",
            "Linux with the linux-hardened patches",
            user_profile(_HARDENED_USER, "hardened linux process"),
            Protection(wx_refused=False, evidence="assumed"),
        ),
        _release("pax", "Linux with PaX and grsecurity", user_profile(_PAX_USER, "PaX process"), _HARDENED),
        _release(
            "windows-high-entropy",
            "Windows 8 and later, 64-bit, high entropy",
            _windows_profile(),
            Protection(wx_refused=False, evidence="assumed"),
        ),
        _release(
            "none",
            "nothing random, nothing refused, no NX",
            user_profile(_FIXED_USER, "process without defences"),
            Protection(nx=False, wx_refused=False),
            kernel_profile(random=False),
        ),
    )
)
"""All profiles by name; the first is the default."""
