"""All invariants that two pictures show, checked together after one operation of a memory manager.

Models nothing.  Leaves out the invariants that need more than pictures: 1, 3, 13, 17 to 20 and 22.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.protocol import MemoryPicture, Page
from sim.testing.invariants.accounts import (
    check_compression,
    check_limit_ceiling,
    check_reservation_floor,
    check_state_machine,
)
from sim.testing.invariants.frames import (
    check_conservation,
    check_copy_on_write,
    check_exclusive_writable,
    check_locality,
    check_no_stale_grant,
    check_reverse_map,
    check_scrubbed,
    check_share_only_equals,
    check_write_xor_execute,
)

__all__ = ["check_step"]


def check_step(
    before: MemoryPicture,
    after: MemoryPicture,
    *,
    spaces: Sequence[int],
    written: Page | None = None,
    data: bytes = b"",
    options: MemOptions | None = None,
) -> None:
    """Check an operation on `spaces` that changed one picture into the other; a write put `data` into page `written`.

    Raises `InvariantViolation` for the lowest number that is broken: 2, 4 to 12, 14, 15 and 21 are looked at.
    """
    options = options if options is not None else MemOptions()
    check_no_stale_grant(after)
    check_write_xor_execute(after)
    check_exclusive_writable(after)
    check_reverse_map(after)
    check_conservation(after)
    check_scrubbed(before, after)
    check_copy_on_write(before, after, written, data)
    check_share_only_equals(before, after)
    check_reservation_floor(after, balloon_percent=options.ctl_max_percent)
    check_limit_ceiling(after)
    if before.host is not None and after.host is not None and after.host.min_free:
        check_state_machine(before.host, after.host, options)
    check_compression(before, after, written, data, cache_percent=options.zip_max_percent)
    check_locality(before, after, *spaces)
