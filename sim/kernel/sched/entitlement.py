"""Entitlement through a tree of resource pools, as pure functions of values.

Models: each pool is one claimant among its siblings, with its shares, reservation and limit, and divides what it gets
among its own children in the same way (weighted max-min with floors and ceilings, `fluid`).  A pool can use no more
than its children; it is guaranteed its reservation as far as they want it.  With scalable shares a pool's shares are
those of its children together, times the ratio of its level.  A pool's use of its parent's capacity is its
reservation, or what its children use together if it is expandable and that is more.  All exact.

Leaves out: time; co-scheduling; what an idle child would want.

Sources: vSphere Resource Management (pools, expandable reservation); scalable shares as vSphere 7.0 announced them,
by public descriptions; shares 2000/4000/8000 of a pool, vSphere API, SharesInfo.Level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

import attrs

from sim.core.facts import fact
from sim.errors import VmksimError
from sim.kernel.sched.fluid import Amount, Claim, fluid_shares

__all__ = ["POOL_SHARES", "Party", "PoolFull", "Promise", "claim_of", "divide", "drawn", "scaled_shares"]

_API = "vSphere API, SharesInfo.Level: a pool as a VM of four vCPUs"
POOL_SHARES = {
    "low": fact("sched.pool_shares_low", 2000, unit="1", source=_API, kind="vendor").value,
    "normal": fact("sched.pool_shares_normal", 4000, unit="1", source=_API, kind="vendor").value,
    "high": fact("sched.pool_shares_high", 8000, unit="1", source=_API, kind="vendor").value,
}
"""Shares of a pool by level."""


@attrs.frozen(kw_only=True)
class Party:
    """One node of the tree: a pool with children, or a claimant without.

    `floor` and `ceiling` are a claimant's own; of a pool they are its reservation and limit (None: unlimited).
    """

    name: str
    weight: Amount
    floor: Amount = 0
    ceiling: Amount | None = None
    children: tuple[Party, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not self.children and self.ceiling is None:
            raise ValueError(f"{self.name}: a claimant without children needs a ceiling")


def claim_of(party: Party) -> Claim | None:
    """Return what a node claims from its parent, or None if nothing: it can use nothing."""
    if not party.children:
        assert party.ceiling is not None
        return Claim(weight=party.weight, floor=party.floor, ceiling=party.ceiling) if party.ceiling else None
    claims = [claim for claim in map(claim_of, party.children) if claim is not None]
    usable = sum(claim.ceiling for claim in claims)
    ceiling = usable if party.ceiling is None else min(usable, party.ceiling)
    if not ceiling:
        return None
    promised = sum(claim.floor for claim in claims)
    return Claim(weight=party.weight, floor=min(ceiling, max(party.floor, promised)), ceiling=ceiling)


def divide(root: Party, capacity: Amount) -> dict[str, tuple[Fraction, Fraction]]:
    """Return for every node that claims anything its share, and the level (share per weight) it is divided at.

    Names must be unique.  Errors: `FloorsExceedCapacity`, which admission control must not let happen.
    """
    found: dict[str, tuple[Fraction, Fraction]] = {}
    todo = [(root, Fraction(capacity))]
    while todo:
        pool, amount = todo.pop()
        pairs = [(child, claim) for child in pool.children if (claim := claim_of(child)) is not None]
        result = fluid_shares(amount, [claim for _, claim in pairs])
        for (child, _), share in zip(pairs, result.shares, strict=True):
            found[child.name] = (share, result.level)
            if child.children:
                todo.append((child, share))
    return found


def scaled_shares(level: str, children_shares: int) -> Fraction:
    """Return a pool's shares when they scale with its children's; `level` is low, normal or high."""
    return Fraction(POOL_SHARES[level], POOL_SHARES["normal"]) * max(1, children_shares)


class PoolFull(VmksimError):  # noqa: N818 - the name says the condition
    """A reservation does not fit; `pool` is the first on the way up that could not grow."""

    def __init__(self, pool: str, requested_hz: int, unreserved_hz: int) -> None:
        self.pool = pool
        self.requested_hz = requested_hz
        self.unreserved_hz = unreserved_hz
        super().__init__(pool, requested_hz, unreserved_hz)

    def __str__(self) -> str:
        return f"pool {self.pool}: {self.requested_hz} Hz requested, {self.unreserved_hz} Hz unreserved"


@attrs.frozen(kw_only=True)
class Promise:
    """What a pool has promised: its own reservation, whether it may draw on its parent, and its parent's name.

    The root's parent is None; its reservation is the capacity of the host, and it never expands.
    """

    parent: str | None
    reservation_hz: int
    expandable: bool = True
    limit_hz: int | None = None


def drawn(pools: Mapping[str, Promise], reserved_hz: Mapping[str, int]) -> dict[str, int]:
    """Return what every pool's children use of it, in Hz: VMs (`reserved_hz` by pool) and pools below it.

    Errors: `PoolFull` naming the first pool on the way up whose children use more than it can give.
    """
    used = {name: reserved_hz.get(name, 0) for name in pools}
    for name in _upwards(pools):
        promise = pools[name]
        most_hz = promise.reservation_hz
        if promise.parent is not None and promise.expandable:
            most_hz = used[name] if promise.limit_hz is None else max(most_hz, promise.limit_hz)
        if used[name] > most_hz:
            raise PoolFull(name, used[name], most_hz)
        if promise.parent is not None:
            used[promise.parent] += max(promise.reservation_hz, used[name])
    return used


def _upwards(pools: Mapping[str, Promise]) -> Iterator[str]:
    """Yield every pool after all those below it."""
    depth: dict[str, int] = {}
    for name in pools:
        steps, above = 0, pools[name].parent
        while above is not None:
            steps, above = steps + 1, pools[above].parent
        depth[name] = steps
    yield from sorted(pools, key=lambda name: -depth[name])
