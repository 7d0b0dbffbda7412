"""Where things lie: random placement of the kernel, its modules, heaps and stacks, and of processes, by release.

`windows` says how a base is drawn, `releases` with which numbers, `space` places regions, `process` lays out a process,
`entropy` counts how uncertain an address is, and `randomness` judges whether drawn addresses are as random as that.
Leaves out mapping anything: that is `sim.kernel.memory`.
"""

from sim.kernel.layout.entropy import (
    Draw,
    EntropyError,
    Spread,
    joint_bits,
    leak_leaves_bits,
    spread_of,
    trapezoid,
    uniform,
)
from sim.kernel.layout.process import (
    VDSO_BYTES,
    Place,
    ProcessMap,
    ProcessSizes,
    place_process,
    process_places,
    without_pie,
)
from sim.kernel.layout.releases import (
    RELEASES,
    Protection,
    ReleaseProfile,
    UserBits,
    kernel_profile,
    kernel_windows,
    release_named,
    user_profile,
)
from sim.kernel.layout.space import EntropyLine, Layout, Region
from sim.kernel.layout.windows import LayoutError, LayoutProfile, Offset, Window

__all__ = [
    "RELEASES",
    "VDSO_BYTES",
    "Draw",
    "EntropyError",
    "EntropyLine",
    "Layout",
    "LayoutError",
    "LayoutProfile",
    "Offset",
    "Place",
    "ProcessMap",
    "ProcessSizes",
    "Protection",
    "Region",
    "ReleaseProfile",
    "Spread",
    "UserBits",
    "Window",
    "joint_bits",
    "kernel_profile",
    "kernel_windows",
    "leak_leaves_bits",
    "place_process",
    "process_places",
    "release_named",
    "spread_of",
    "trapezoid",
    "uniform",
    "user_profile",
    "without_pie",
]
