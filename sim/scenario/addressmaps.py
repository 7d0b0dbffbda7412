"""Address maps as values: of a host that has booted, or of what a profile would place, with the entropy of every row.

Models: the regions of the kernel's space and of each process, the rights of what is mapped in them, their guards, and
how uncertain each base is; the entropy of a whole map counts a draw that several regions share once.

Leaves out: the rights inside the regions of a profile that nothing has been loaded into.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve, field, frozen

from sim.core.facts import Kind
from sim.core.rng import Rng
from sim.core.units import KIB, MIB
from sim.errors import ScenarioError
from sim.kernel.host import HostState
from sim.kernel.layout import (
    RELEASES,
    Draw,
    Layout,
    Place,
    ProcessSizes,
    Region,
    ReleaseProfile,
    joint_bits,
    leak_leaves_bits,
    place_process,
    release_named,
    spread_of,
)
from sim.kernel.layout.spec import LayoutSpec
from sim.kernel.memory import Segment
from sim.kernel.userworld import UserWorld
from sim.scenario.run import Simulation, boot_only
from sim.scenario.spec import Scenario

__all__ = [
    "AddressMap",
    "AddressRow",
    "chosen_release",
    "maps_of_profile",
    "maps_of_scenario",
    "with_profile",
]

_SAMPLE_KERNEL = (
    ("kernel", 20 * MIB, "kernel image"),
    ("heap", MIB, "kernel heap"),
    ("percpu", 2 * MIB, "pcpu0"),
    ("stack", 64 * KIB, "pcpu0 stack"),
    ("percpu", 2 * MIB, "pcpu1"),
    ("stack", 64 * KIB, "pcpu1 stack"),
    ("module", 256 * KIB, "a module as a whole"),
    ("module.text", 128 * KIB, "a module's text"),
    ("module.rodata", 32 * KIB, "a module's constants"),
    ("module.data", 16 * KIB, "a module's data"),
    ("module.bss", 64 * KIB, "a module's zeroed data"),
)
_RIGHTS = {
    "heap": "rw-",
    "stack": "rw-",
    "percpu": "rw-",
    "thread-stack": "rw-",
    "mmap": "rw-",
    "vdso": "r-x",
    "module.text": "r-x",
    "module.rodata": "r--",
    "module.data": "rw-",
    "module.bss": "rw-",
}
_BY_SEGMENT = "by segment"


@frozen(kw_only=True)
class AddressRow:
    """A region, or a place inside one (then of size 0), with the entropy of its address.

    `shares` names another row (by its kind where names repeat) from which it keeps a distance; `leak_leaves_bits` is what is left when that leaks.
    """

    base: int
    end: int
    kind: str
    name: str
    rights: tuple[str, ...]
    guard_bytes: int
    places: int
    shannon_bits: float
    min_entropy_bits: float
    evidence: Kind
    shares: str = ""
    leak_leaves_bits: float | None = None


@frozen(kw_only=True)
class AddressMap:
    """All rows of one space in rising order; `joint_bits` is the entropy of the whole map."""

    space: str
    profile: str
    rows: tuple[AddressRow, ...]
    independent_draws: int
    joint_bits: float = field(eq=False)


def chosen_release(name: str | None) -> ReleaseProfile:
    """Return the profile that an option names, or the default.

    Errors: `ScenarioError`.
    """
    return release_named(name if name is not None else next(iter(RELEASES)), "--profile")


def with_profile(scenario: Scenario, name: str | None) -> Scenario:
    """Return the scenario with the profile that an option names, if one does, in place of all that it says of layout."""
    if name is None:
        return scenario
    layout = LayoutSpec(profile=chosen_release(name).name)
    return evolve(scenario, kernel=evolve(scenario.kernel, layout=layout))


def maps_of_profile(release: ReleaseProfile, seed: int, *, user: str | None = None) -> list[AddressMap]:
    """Return the maps of a kernel and a process that a profile places; with `user`, of a process of that name alone."""
    rng = Rng(seed)
    maps = []
    if user is None:
        kernel = Layout(rng.stream("layout/kernel"), release.kernel)
        for kind, size_bytes, name in _SAMPLE_KERNEL:
            kernel.place(kind, size_bytes, name)
        maps.append(_map("kernel", release, kernel))
    name = user if user is not None else "process"
    layout = Layout(rng.stream(f"layout/user/{name}"), release.user)
    placed = place_process(layout, ProcessSizes(threads=2, mappings=(64 * KIB,)))
    maps.append(_map(name, release, layout, places=placed.places))
    return maps


def maps_of_scenario(
    scenario: Scenario, seed: int | None = None, *, user: str | None = None
) -> list[AddressMap]:
    """Boot the host of a scenario and return the maps of its kernel and user worlds, or of the one named `user`.

    Errors: `ScenarioError` when the host does not come up, or no user world has that name.
    """
    simulation = Simulation(boot_only(scenario), seed=seed)
    simulation.run()
    host = simulation.machinery.host
    kernel = host.kernel
    if host.state is not HostState.RUNNING or kernel is None:
        raise ScenarioError(
            "host", f"the host did not boot: {host.failure.message if host.failure else host.state}"
        )
    worlds = kernel.user_worlds.running
    if user is not None:
        if user not in worlds:
            raise ScenarioError(
                "--user", "no such user world", got=user, wanted=", ".join(worlds) or "none runs"
            )
        return [_world_map(host.layout, worlds[user])]
    maps = [_map("kernel", host.layout, kernel.layout, kernel.memory.segments())]
    maps += [_world_map(host.layout, world) for world in worlds.values()]
    return maps


def _world_map(release: ReleaseProfile, world: UserWorld) -> AddressMap:
    return _map(world.name, release, world.layout, world.memory.segments(), world.places)


def _map(
    space: str,
    release: ReleaseProfile,
    layout: Layout,
    segments: Sequence[Segment] | None = None,
    places: Sequence[Place] = (),
) -> AddressMap:
    rows = [*_region_rows(layout, segments), *(_place_row(place) for place in places)]
    rows.sort(key=_row_order)
    draws = {draw.name: draw for region in layout.regions() for draw in region.draws}
    draws |= {draw.name: draw for place in places for draw in place.draws}
    moving = [draw for draw in draws.values() if draw.spread.slots > 1]
    return AddressMap(
        space=space,
        profile=release.name,
        rows=tuple(_with_leaks(rows, layout.regions(), places)),
        independent_draws=len(moving),
        joint_bits=joint_bits(moving),
    )


def _region_rows(layout: Layout, segments: Sequence[Segment] | None) -> Iterator[AddressRow]:
    for region in layout.regions():
        spread = region.spread
        yield AddressRow(
            base=region.base,
            end=region.end,
            kind=region.kind,
            name=region.name,
            rights=_rights(region, segments),
            guard_bytes=region.guard_bytes,
            places=spread.slots,
            shannon_bits=spread.shannon_bits,
            min_entropy_bits=spread.min_entropy_bits,
            evidence=layout.profile.window(region.kind).evidence,
        )


def _rights(region: Region, segments: Sequence[Segment] | None) -> tuple[str, ...]:
    if segments is None:
        return (_RIGHTS.get(region.kind, _BY_SEGMENT),)
    inside = [segment for segment in segments if region.base <= segment.base < region.end]
    return tuple(dict.fromkeys(str(segment.rights) for segment in inside))


def _place_row(place: Place) -> AddressRow:
    spread = place.spread
    return AddressRow(
        base=place.address,
        end=place.address,
        kind="address",
        name=place.name,
        rights=(),
        guard_bytes=0,
        places=spread.slots,
        shannon_bits=spread.shannon_bits,
        min_entropy_bits=spread.min_entropy_bits,
        evidence=place.evidence,
    )


def _with_leaks(
    rows: Sequence[AddressRow], regions: Sequence[Region], places: Sequence[Place]
) -> Iterator[AddressRow]:
    """Add to each row the first other row whose leak lowers its entropy, and what is left then."""
    draws: dict[tuple[int, str], tuple[Draw, ...]] = {
        (region.base, region.name): region.draws for region in regions
    }
    draws |= {(place.address, place.name): place.draws for place in places}
    names = [row.name for row in rows]
    for row in rows:
        own = draws[row.base, row.name]
        sharing = (
            other
            for other in rows
            if other is not row and row.places > 1 and _share(own, draws[other.base, other.name])
        )
        other = next(sharing, None)
        if other is None:
            yield row
        else:
            left = leak_leaves_bits(own, draws[other.base, other.name])
            told = other.name if names.count(other.name) == 1 else other.kind
            yield evolve(row, shares=told, leak_leaves_bits=left)


def _share(one: Sequence[Draw], two: Sequence[Draw]) -> bool:
    names = [draw.name for draw in two if draw.spread.slots > 1]
    return any(draw.name in names for draw in one) and spread_of(two).slots > 1


def _row_order(row: AddressRow) -> tuple[int, int]:
    return row.base, -row.end
