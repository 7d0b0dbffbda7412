"""Invariants of books and promises: reservation, limit, states, compression, and the division of memory by shares.

Models nothing.  Leaves out what happens between two looks.  Sources: the numbers are those of `sim.testing.invariants`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from attrs import evolve, fields

from sim.core.units import GIB
from sim.kernel.memory.options import CTL_MAX_PERCENT, ZIP_MAX_PERCENT, MemOptions
from sim.kernel.memory.protocol import (
    SHARES_TOTAL_MAX,
    Claim,
    HostView,
    MemoryPicture,
    MemoryPolicy,
    Page,
    Place,
    VmView,
)
from sim.kernel.memory.states import MemState, actions_of, breaks_large, min_free, next_state
from sim.testing.invariants.violation import InvariantViolation

__all__ = [
    "check_compression",
    "check_limit_ceiling",
    "check_reservation_floor",
    "check_shares",
    "check_state_machine",
]

Codec = tuple[Callable[[bytes], bytes | None], Callable[[bytes], bytes]]

_SCALE_SAMPLES = tuple(size * GIB for size in (1, 4, 8, 12, 20, 28, 64, 1024))


def check_reservation_floor(picture: MemoryPicture, *, balloon_percent: int = CTL_MAX_PERCENT.value) -> None:
    """Invariant 11: nothing takes a VM below its reservation, as far as it has touched it, and all promises can be kept."""
    for name, vm in picture.vms.items():
        floor = min(vm.reservation, vm.touched)
        if vm.limit is not None:
            floor = min(floor, vm.limit)
        if vm.held < floor:
            raise InvariantViolation(
                11, f"{name} was taken to {vm.held} pages, below its floor of {floor}: {vm}"
            )
        if vm.target is not None and vm.target < floor:
            raise InvariantViolation(11, f"{name} has target {vm.target}, below its floor of {floor}: {vm}")
        if vm.ballooned * 100 > vm.configured * balloon_percent:
            text = (
                f"the balloon of {name} has {vm.ballooned} of {vm.configured} pages, over {balloon_percent} %"
            )
            raise InvariantViolation(11, text)
    promised = sum(vm.reservation + vm.overhead for vm in picture.vms.values())
    if picture.host is not None and promised > picture.host.total:
        raise InvariantViolation(11, f"{promised} frames are promised, the host has {picture.host.total}")


def check_limit_ceiling(picture: MemoryPicture) -> None:
    """Invariant 12: no VM holds more than its limit, and no counter is negative."""
    for name, vm in picture.vms.items():
        if vm.limit is not None and vm.held > vm.limit:
            raise InvariantViolation(12, f"{name} holds {vm.held} pages over its limit of {vm.limit}: {vm}")
        _check_not_negative(name, vm)
    if picture.host is not None:
        _check_not_negative("the host", picture.host)


def check_shares(policy: MemoryPolicy, capacity: int, claims: Sequence[Claim], tax_percent: int = 0) -> None:
    """Invariant 13: memory is divided by shares and the idle tax.

    With enough for all nobody is reclaimed.  Otherwise VMs at no bound pay the same for each share, to within a page;
    more shares or more active memory never give less; and the order of the claims does not matter.
    """
    targets = policy.targets(capacity, claims)
    state = f"capacity {capacity}, claims {list(claims)}, targets {list(targets)}"
    ceilings = tuple(claim.ceiling for claim in claims)
    if len(targets) != len(claims):
        raise InvariantViolation(13, f"{len(targets)} targets for {len(claims)} claims: {state}")
    if sum(ceilings) <= capacity:
        if targets != ceilings:
            raise InvariantViolation(13, f"there is enough for all, and some are reclaimed: {state}")
        return
    _check_equal_payment(targets, claims, tax_percent, state)
    floors = sum(claim.floor for claim in claims)
    least, most = (floors, floors) if floors >= capacity else (capacity - len(claims) + 1, capacity)
    if not least <= sum(targets) <= most:
        raise InvariantViolation(13, f"{sum(targets)} pages are given out of {capacity}: {state}")
    backwards = policy.targets(capacity, claims[::-1])[::-1]
    if backwards != targets:
        raise InvariantViolation(13, f"in the reverse order the targets are {list(backwards)}: {state}")
    for index, claim in enumerate(claims):
        more_shares = min(SHARES_TOTAL_MAX, claim.shares + claim.shares // 2 + 1)
        more_active = claim.active + claim.active // 2 + 1
        for changed in (evolve(claim, shares=more_shares), evolve(claim, active=more_active)):
            new = policy.targets(capacity, [*claims[:index], changed, *claims[index + 1 :]])[index]
            if new < targets[index]:
                raise InvariantViolation(13, f"claim {index} gets {new} when it is {changed}: {state}")


def check_state_machine(
    before: HostView,
    after: HostView,
    options: MemOptions | None = None,
    *,
    scale: Callable[[int], int] = min_free,
) -> None:
    """Invariant 14: the state follows from free memory and the state before, and permits all that was done.

    `scale` is minFree as a function of managed bytes: it never falls, and is the published one.
    """
    options = options if options is not None else MemOptions()
    expected = next_state(MemState(before.state), after.free, after.min_free, options)
    ratio = f"{after.free} of {after.min_free} (minFree) free"
    if after.state != expected:
        raise InvariantViolation(
            14, f"from {before.state} with {ratio} follows {expected}, not {after.state}"
        )
    permitted = actions_of(expected)
    for action in after.changed:
        allowed = (
            breaks_large(after.free, after.min_free, options.release)
            if action == "break_large"
            else getattr(permitted, action)
        )
        if not allowed:
            raise InvariantViolation(14, f"{action} in state {after.state}, with {ratio}")
    last = 0
    for size in _SCALE_SAMPLES:
        found = scale(size)
        if found < last or found != min_free(size):
            raise InvariantViolation(14, f"minFree of {size} bytes is {found}, by the scale {min_free(size)}")
        last = found


def check_compression(
    before: MemoryPicture,
    after: MemoryPicture,
    written: Page | None = None,
    data: bytes = b"",
    *,
    codec: Codec | None = None,
    pages: Sequence[bytes] = (),
    cache_percent: int = ZIP_MAX_PERCENT.value,
) -> None:
    """Invariant 15: a page is in one place and keeps its bytes on every way, slots are half a page, the cache is bounded.

    A page that was brought back for a write has got `data` at its beginning.  `codec` (compress, which may decline with None, and decompress) is tried on `pages`.
    """
    for page in pages if codec is not None else ():
        packed = codec[0](page) if codec is not None else None
        if packed is not None and codec is not None:
            if len(packed) * 2 > len(page):
                raise InvariantViolation(15, f"a page was kept in {len(packed)} bytes, more than half of it")
            if codec[1](packed) != page:
                raise InvariantViolation(
                    15, f"a page beginning {page[:16].hex()} does not come back from {len(packed)} bytes"
                )
    for name, vm in after.vms.items():
        if vm.cache_frames * 100 > vm.configured * cache_percent:
            text = (
                f"the cache of {name} has {vm.cache_frames} frames, over {cache_percent} % of {vm.configured}"
            )
            raise InvariantViolation(15, text)
    for number, space in after.spaces.items():
        both = sorted(space.leaves.keys() & space.away.keys())
        if both:
            text = f"page {both[0]:#x} of space {number} is resident and {space.away[both[0]]}"
            raise InvariantViolation(15, text)
        _check_moved(before, after, number, written, data)


def _check_moved(
    before: MemoryPicture, after: MemoryPicture, number: int, written: Page | None, data: bytes
) -> None:
    """Check that pages that went from one place to another, except into the balloon, hold what they held."""
    old = before.spaces.get(number)
    new = after.spaces[number]
    if old is None:
        return
    stayed = [page for page in old.away if page in new.away] + [
        page for page in (*old.leaves, *old.away) if (page in old.leaves) != (page in new.leaves)
    ]
    for page in stayed:
        place = new.away.get(page)
        gone = page not in new.leaves and place is None
        if gone or place is Place.BALLOONED or old.away.get(page) is Place.BALLOONED:
            continue
        was, found = before.content((number, page)), after.content((number, page))
        if (number, page) == written and was is not None:
            was = (data + was[len(data) :]).rstrip(b"\0")
        if was != found:
            text = f"page {page:#x} of space {number} held {was!r:.40} and holds {found!r:.40} as {place or 'resident'}"
            raise InvariantViolation(15, text)


def _check_not_negative(name: str, view: VmView | HostView) -> None:
    for one in fields(type(view)):
        value = getattr(view, one.name)
        if isinstance(value, int) and value < 0:
            raise InvariantViolation(12, f"{one.name} of {name} is {value}")


def _check_equal_payment(
    targets: Sequence[int], claims: Sequence[Claim], tax_percent: int, state: str
) -> None:
    """Check that one price a share fits every VM at no bound, give or take a page.

    Where an idle page costs no whole number of active ones, what is paid may be rounded too.
    """
    rounding = 1 if 100 % (100 - tax_percent) else 0
    lowest: tuple[Fraction, int] | None = None
    highest: tuple[Fraction, int] | None = None
    for index, (target, claim) in enumerate(zip(targets, claims, strict=True)):
        if target > claim.floor:
            at_least = _price(claim, target - 1, tax_percent)
            lowest = max(lowest, (at_least, index)) if lowest is not None else (at_least, index)
        if target < claim.ceiling:
            at_most = _price(claim, target + 1, tax_percent) + Fraction(rounding, claim.shares)
            highest = min(highest, (at_most, index)) if highest is not None else (at_most, index)
    if lowest is not None and highest is not None and lowest[0] > highest[0]:
        raise InvariantViolation(
            13, f"claim {lowest[1]} has more for its shares than claim {highest[1]}: {state}"
        )


def _price(claim: Claim, pages: int, tax_percent: int) -> Fraction:
    """Return what a VM pays with for each share: its active pages once, idle ones 1 / (1 - tax) times."""
    idle = max(0, pages - claim.active)
    return (pages - idle + Fraction(100 * idle, 100 - tax_percent)) / claim.shares
