"""Each of the 22 invariants: ours keeps all of them, and for each there is a planted bug that breaks it and no other."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count

import pytest
from attrs import evolve

from sim.core.context import Sim
from sim.core.rng import Rng
from sim.errors import VmksimError
from sim.hw.memory import FRAME_BYTES, OutOfMemory, PhysicalMemory
from sim.hw.mmu import Access, AddressSpace, ControlState, Kind, Rights, Translation, walk
from sim.hw.mmu.ept import EptViolation
from sim.hw.mmu.ept_entries import EptRights
from sim.hw.mmu.nested import NestedControl, NestedTranslation, walk_nested
from sim.kernel.layout import Layout, user_profile
from sim.kernel.memory.guest_access import GuestAccess
from sim.kernel.memory.guest_space import GuestSpace
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.paged import PagedMemory
from sim.kernel.memory.protocol import Claim, HostView
from sim.kernel.memory.reclaim_rules import compress_page, decompress_page
from sim.kernel.memory.states import MemState, actions_of, min_free, next_state
from sim.kernel.memory.targets import IdleTaxPolicy
from sim.testing.invariants import (
    InvariantViolation,
    NestedOutcome,
    check_accessed_dirty,
    check_compression,
    check_conservation,
    check_copy_on_write,
    check_determinism,
    check_ept_composition,
    check_exclusive_writable,
    check_isolation,
    check_large_page_equivalence,
    check_layout,
    check_limit_ceiling,
    check_locality,
    check_monotone_rights,
    check_no_stale_grant,
    check_reservation_floor,
    check_reverse_map,
    check_scrubbed,
    check_share_only_equals,
    check_shares,
    check_state_machine,
    check_translation_agrees,
    check_write_xor_execute,
)
from sim.testing.memory import placed_regions

RW = Rights(user=True, write=True)
MEMORY_BYTES = 8 << 20
HOSTILE = [
    0,
    0x7,
    0xFFFF_FFFF_FFFF_FFFF,
    0x10_0007,
    0x7F_F007,
    0x8000_0000_0000_0003,
    0x87,
    0x40_0087,
    0xFFF_F000_0007,
]


class Subject:
    """What is judged: a memory manager, a policy, a processor, a layout and a run; a planted bug replaces one of them."""

    manager: type[PagedMemory] = PagedMemory
    memory: type[PhysicalMemory] = PhysicalMemory
    policy = IdleTaxPolicy(tax_percent=75)

    # -- what the pictures of a manager show

    def steps(self):
        """Drive a manager, and return (before, after, spaces, page written, data, (pCPU's leaf before and after, kind))."""
        sim = Sim(categories=())
        mem = self.manager(sim, self.memory(MEMORY_BYTES))
        for owner, salt, arguments in (
            ("a", "one", {"reservation": 2}),
            ("b", "one", {"limit": 3}),
            ("c", "two", {}),
            ("d", "", {"configured": 20}),
        ):
            mem.add_space(owner, salt, **arguments)
        made = []

        def step(*spaces, do, written=None, data=b""):
            before = mem.picture()
            with suppress(VmksimError):
                do()
            mem.check_invariants()
            made.append((before, mem.picture(), spaces, written, data))

        def write(space, page, data):
            def do():
                if mem.access(0, space, page, Kind.WRITE, data) is None and mem.fault(
                    space, page, Kind.WRITE
                ):
                    assert mem.access(0, space, page, Kind.WRITE, data) is not None

            step(space, do=do, written=(space, page), data=data)

        for space in (0, 1, 2):
            step(space, do=lambda space=space: mem.map(space, 0, RW))
            write(space, 0, b"left")
        step(0, 1, do=lambda: mem.share((0, 0), (1, 0)))
        step(0, 2, do=lambda: mem.share((0, 0), (2, 0)))
        step(1, do=lambda: mem.access(1, 1, 0, Kind.READ))
        step(2, do=lambda: mem.protect(2, 0, Rights(user=True, write=True, execute=True)))
        write(1, 0, b"R")
        step(1, do=lambda: mem.map(1, 5, RW))
        step(1, do=lambda: mem.unmap(1, 0))
        step(1, do=lambda: mem.map(1, 0, RW))
        step(1, do=lambda: mem.access(1, 1, 0, Kind.READ))
        step(0, do=lambda: mem.fault(0, 0, Kind.WRITE))
        step(2, do=lambda: mem.protect(2, 0, Rights(user=True)))
        step(0, do=lambda: mem.balloon(0, 0))
        for page in range(1, 4):
            step(1, do=lambda page=page: mem.map(1, page, RW))
        for page in range(14):
            step(3, do=lambda page=page: mem.map(3, page, RW))
            step(3, do=lambda page=page: mem.compress(3, page))
        step(3, do=lambda: mem.fault(3, 13, Kind.READ))
        return made

    # -- what a processor does

    def tables(self, *plan, large=False):
        memory = PhysicalMemory(MEMORY_BYTES)
        space = AddressSpace(memory, "space")
        for va, mpn, rights in plan:
            space.map(va, mpn, rights, large=large)
        return memory, space

    def translate(self, space, va, kind):
        return space.translate(va, Access(kind, user=True))

    def invalidate(self, cache, va):
        cache.pop(va, None)

    def leaf_after(self, memory, space, va, kind):
        from sim.kernel.memory.paged_view import leaf_entry

        outcome = space.translate(va, Access(kind, user=True))
        return leaf_entry(memory, space, va), isinstance(outcome, Translation)

    def pieces_rights(self, rights):
        return rights

    # -- nested translation

    def nested(self, guest: GuestAccess, control, va, kind):
        outcome = guest.translate(control, va, Access(kind, user=True))
        if isinstance(outcome, NestedTranslation):
            walked = walk_nested(
                guest.space.memory.read_u64,
                guest.space.memory.write_u64,
                NestedControl(guest=control, ept=guest.space.tables.control),
                va,
                Access(kind, user=True),
            )
            return NestedOutcome(address=outcome.pa, references=walked.references)
        if isinstance(outcome, EptViolation):
            return NestedOutcome(refused="ept", qualification=outcome.qualification)
        return NestedOutcome(refused="guest")

    def reached(self, guest, control, entry):
        """Let the guest put an entry of its choice into its tables, and return the frames it can reach by it."""
        guest.store_physical(0x4000 + 8 * 7, entry.to_bytes(8, "little"))
        guest.store_physical(0x1000 + 8 * 9, entry.to_bytes(8, "little"))
        for va in (7 << 12, 9 << 39, (9 << 39) + 0x5000):
            for kind in Kind:
                outcome = guest.translate(control, va, Access(kind, user=True))
                if isinstance(outcome, NestedTranslation):
                    yield outcome.pa // FRAME_BYTES

    # -- states, placement, runs

    def next_state(self, previous, free, minimum):
        return next_state(previous, free, minimum, MemOptions())

    def place(self, seed):
        layout = Layout(Rng(seed).stream("layout"), user_profile())
        for kind in ("exe", "library", "library", "heap", "stack"):
            layout.place(kind, 0x5000, kind)
        first = Layout(Rng(0).stream("other"), user_profile())
        return [
            evolve(
                one,
                half="lower",
                entropy_bits=first.entropy_bits("exe", 0x5000) if one.name == "exe" else None,
            )
            for one in placed_regions(layout)
        ]

    def run(self):
        sim = Sim(seed=7)
        mem = PagedMemory(sim, PhysicalMemory(MEMORY_BYTES))
        for space in (0, 1):
            mem.add_space("a", "")
            mem.map(space, 0, RW)
        mem.share((0, 0), (1, 0))
        mem.timed_write(0, 1, 0, b"x")
        return sim.trace.digest()


def each_number(subject: Subject):
    """Run every check on a subject; return the numbers that were broken."""
    steps = subject.steps()
    judges: dict[int, Callable[[], None]] = {
        1: lambda: judge_translation(subject),
        2: lambda: [check_no_stale_grant(after) for _, after, *_ in steps],
        3: lambda: judge_rights(subject),
        4: lambda: [check_write_xor_execute(after) for _, after, *_ in steps],
        5: lambda: [check_exclusive_writable(after) for _, after, *_ in steps],
        6: lambda: [check_reverse_map(after) for _, after, *_ in steps],
        7: lambda: [check_conservation(after) for _, after, *_ in steps],
        8: lambda: [check_scrubbed(before, after) for before, after, *_ in steps],
        9: lambda: [check_copy_on_write(one, two, page, data) for one, two, _, page, data in steps],
        10: lambda: [check_share_only_equals(before, after) for before, after, *_ in steps],
        11: lambda: [check_reservation_floor(after) for _, after, *_ in steps],
        12: lambda: [check_limit_ceiling(after) for _, after, *_ in steps],
        13: lambda: judge_policy(subject),
        14: lambda: judge_states(subject),
        15: lambda: judge_compression(steps),
        16: lambda: judge_used_bits(subject),
        17: lambda: check_layout(subject.place(3), subject.place(3)),
        18: lambda: judge_large_pages(subject),
        19: lambda: judge_nesting(subject),
        20: lambda: judge_isolation(subject),
        21: lambda: [check_locality(before, after, *spaces) for before, after, spaces, *_ in steps],
        22: lambda: check_determinism(subject.run, times=3),
    }
    broken = []
    for number, judge in judges.items():
        violation = violation_of(judge)
        if violation is not None:
            assert str(violation).startswith(f"invariant {number}: ")
            assert len(violation.text) > 20
            broken.append(violation.number)
    return broken


def violation_of(judge):
    try:
        judge()
    except InvariantViolation as violation:
        return violation
    return None


def judge_translation(subject):
    _, space = subject.tables((0x1000, 0x300, RW))
    cache: dict[int, object] = {}
    walks = []
    for change in (None, lambda: space.protect(0x1000, Rights(user=True)), lambda: space.unmap(0x1000)):
        if change is not None:
            change()
        walks.append(space.translate(0x1000, Access(Kind.READ, user=True)))
        got = cache.setdefault(0x1000, walks[-1])
        check_translation_agrees(got, walks, "a cached read")
    subject.invalidate(cache, 0x1000)
    walks = [space.translate(0x1000, Access(Kind.READ, user=True))]
    check_translation_agrees(cache.get(0x1000, walks[-1]), walks, "a read after INVLPG")


def judge_rights(subject):
    pages = {
        0x1000: Rights(user=True, write=True, execute=True),
        0x2000: RW,
        0x3000: Rights(user=True, execute=True),
    }
    fewer = {0x1000: Rights(user=True, write=True), 0x2000: Rights(user=True), 0x3000: Rights(execute=True)}
    _, full = subject.tables(*((va, va >> 12, right) for va, right in pages.items()))
    _, less = subject.tables(*((va, va >> 12, right) for va, right in fewer.items()))
    check_monotone_rights(
        lambda va, kind: isinstance(subject.translate(full, va, kind), Translation),
        lambda va, kind: isinstance(subject.translate(less, va, kind), Translation),
        pages,
    )


def judge_policy(subject):
    claims = [
        Claim(shares=shares, touched=1000, active=active)
        for shares, active in ((1, 10), (1, 10), (2, 900), (3, 0))
    ]
    for capacity in (1999, 2000, 2001, 2002, 5000):
        check_shares(subject.policy, capacity, claims, 75)


def judge_states(subject):
    host = HostView(total=1000, free=100, min_free=20)
    state = MemState.HIGH
    for free in (100, 70, 19, 12, 13, 21, 22, 30, 6, 3, 90):
        state = subject.next_state(state, free, 20)
        permitted = actions_of(state)
        done = tuple(name for name in ("balloon", "swap", "compress", "block") if getattr(permitted, name))
        after = evolve(host, free=free, state=str(state), changed=done)
        check_state_machine(host, after)
        host = after


def judge_compression(steps):
    for before, after, _, page, data in steps:
        check_compression(before, after, page, data)
    check_compression(
        *steps[0][:2],
        codec=(compress_page, decompress_page),
        pages=[bytes(FRAME_BYTES), bytes(range(256)) * 16],
    )


def judge_used_bits(subject):
    for rights, kinds in (
        (RW, (Kind.FETCH, Kind.READ, Kind.WRITE)),
        (Rights(user=True), (Kind.WRITE, Kind.READ)),
    ):
        memory, space = subject.tables((0x1000, 0x300, rights))
        leaf, _ = Subject().leaf_after(memory, space, 0x5000, Kind.READ)
        for kind in kinds:
            new, granted = subject.leaf_after(memory, space, 0x1000, kind)
            check_accessed_dirty(leaf, new, kind, granted=granted)
            leaf = new


def judge_large_pages(subject):
    for rights in (RW, Rights(user=True), Rights(user=True, execute=True), Rights(write=True)):
        _, whole = subject.tables((0x40_0000, 0x400, rights), large=True)
        pieces = [
            (0x40_0000 + page * FRAME_BYTES, 0x400 + page, subject.pieces_rights(rights))
            for page in range(512)
        ]
        _, broken = subject.tables(*pieces)

        def outcome(space, va, kind):
            found = space.translate(va, Access(kind, user=True))
            return (found.pa, found.rights) if isinstance(found, Translation) else found.error_code

        check_large_page_equivalence(
            lambda va, kind, whole=whole: outcome(whole, va, kind),
            lambda va, kind, broken=broken: outcome(broken, va, kind),
            (0x40_0000, 0x40_0FFF, 0x40_1000, 0x5F_FFF8),
        )


def guest_with_tables():
    """A VM whose guest has mapped its pages 8 to 15 at the addresses from 0 on, with different rights."""
    memory = PhysicalMemory(MEMORY_BYTES)
    memory.allocate(37, "somebody else")
    guest = GuestAccess(GuestSpace(memory, "guest", 64))
    for table, entry in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007)):
        guest.store_physical(table, entry.to_bytes(8, "little"))
    for page, bits in enumerate((7, 5, 3, 1, 0, 7, 7)):
        guest.store_physical(0x4000 + 8 * page, ((8 + page) << 12 | bits).to_bytes(8, "little"))
    guest.space.populate(8, 8)
    guest.space.protect(13, 1, EptRights(write=False))
    return guest, ControlState(cr3=0x1000, smap=False, smep=False)


def judge_nesting(subject):
    guest, control = guest_with_tables()

    def guest_walk(va, kind):
        found = walk(
            lambda gpa: int.from_bytes(guest.load_physical(gpa, 8), "little"),
            lambda gpa, entry: guest.store_physical(gpa, entry.to_bytes(8, "little")),
            control,
            va,
            Access(kind, user=True),
        )
        return found.pa if isinstance(found, Translation) else None

    def host(gpa):
        leaf = guest.space.tables.leaf_at(gpa >> 12)
        if leaf is None:
            return None, (False, False, False)
        rights = leaf.rights
        at = (leaf.mpn + (gpa >> 12) - leaf.ppn) * FRAME_BYTES + gpa % FRAME_BYTES
        return at, (rights.read, rights.write, rights.execute)

    check_ept_composition(
        lambda va, kind: subject.nested(guest, control, va, kind),
        guest_walk,
        host,
        [page * FRAME_BYTES + 24 for page in range(8)],
        lambda pa: guest.space.memory.owner_of(pa // FRAME_BYTES) == guest.space.owner,
    )


def judge_isolation(subject):
    guest, control = guest_with_tables()
    check_isolation(
        HOSTILE,
        lambda entry: list(subject.reached(guest, control, entry)),
        lambda mpn: guest.space.memory.owner_of(mpn) == guest.space.owner,
    )


# ------------------------------------------------------------- the planted bugs


class Bugs:
    """For each number a subject that breaks it."""

    class B1(Subject):
        """INVLPG of one page clears another."""

        def invalidate(self, cache, va):
            cache.pop(va + FRAME_BYTES, None)

    class B2(Subject):
        """A right is taken from a page, and no processor is told."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def protect(self, space, page, rights):
                tell, self._changed = self._changed, lambda page, at_once: None
                super().protect(space, page, rights)
                self._changed = tell

    class B3(Subject):
        """A page that is not writable may always be executed."""

        def translate(self, space, va, kind):
            found = super().translate(space, va, kind)
            readable = super().translate(space, va, Kind.READ)
            if kind is Kind.FETCH and isinstance(readable, Translation) and not readable.rights.write:
                return readable
            return found

    class B4(Subject):
        """Protect gives whatever is asked for."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def protect(self, space, page, rights):
                one, state = self._state(space, page)
                state.rights = rights
                one.tables.protect(page * FRAME_BYTES, rights)
                self._changed((space, page), at_once=True)

    class B5(Subject):
        """After a merge one of the pages keeps the right to write."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def _merge(self, kept, moved):
                super()._merge(kept, moved)
                space, page = next(iter(self._users[kept]))
                self._spaces[space].tables.protect(page * FRAME_BYTES, RW)

            def check_invariants(self):
                pass

    class B6(Subject):
        """A merge does not raise the count."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def picture(self):
                picture = super().picture()
                frames = {number: evolve(frame, references=1) for number, frame in picture.frames.items()}
                return evolve(picture, frames=frames)

    class B7(Subject):
        """An unmapped frame is forgotten instead of freed."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def shootdown(self, space, page):
                self._tlbs.forget((space, page))

    class B8(Subject):
        """Frames of pages are handed over with what is in them."""

        class memory(PhysicalMemory):  # noqa: N801 - an attribute of the subject
            def allocate(self, frames, owner, **arguments):
                self.dirty = "/" not in owner
                return super().allocate(frames, owner, **arguments)

            def _scrub(self, extent):
                if not self.dirty:
                    super()._scrub(extent)

    class B9(Subject):
        """A copy on write forgets to copy."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def _copy(self, one, page, state):
                super()._copy(one, page, state)
                if one.owner == "b":
                    self._memory.write(state.frame * FRAME_BYTES, bytes(FRAME_BYTES))

    class B10(Subject):
        """Salts are not compared."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def share(self, one, other):
                space = self._spaces[other[0]]
                group, space.group = space.group, self._spaces[one[0]].group
                shared = super().share(one, other)
                space.group = group
                return shared

    class B11(Subject):
        """The balloon does not ask about the reservation."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def balloon(self, space, page):
                one = self._spaces[space]
                reservation, one.reservation = one.reservation, 0
                done = super().balloon(space, page)
                one.reservation = reservation
                return done

    class B12(Subject):
        """The limit is one page late."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def map(self, space, page, rights):
                one = self._spaces[space]
                limit, one.limit = one.limit, None if one.limit is None else one.limit + 1
                try:
                    super().map(space, page, rights)
                finally:
                    one.limit = limit

    class B13(Subject):
        """What is left over goes to whoever is first in the list."""

        class policy:  # noqa: N801 - an attribute of the subject
            @staticmethod
            def targets(capacity, claims):
                targets = list(IdleTaxPolicy(tax_percent=75).targets(capacity, claims))
                for index, claim in enumerate(claims):
                    left = min(capacity - sum(targets), claim.ceiling - targets[index])
                    targets[index] += max(0, left)
                return tuple(targets)

    class B14(Subject):
        """There is no hysteresis."""

        def next_state(self, previous, free, minimum):
            return next_state(previous, free, minimum, MemOptions(hysteresis_percent=0))

    class B15(Subject):
        """The cache has no bound."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def compress(self, space, page):
                options, self.options = self.options, MemOptions(zip_max_percent=100)
                done = super().compress(space, page)
                self.options = options
                return done

    class B16(Subject):
        """Any access to a writable page makes it dirty."""

        def leaf_after(self, memory, space, va, kind):
            space.translate(va, Access(Kind.WRITE, user=True))
            return super().leaf_after(memory, space, va, kind)

    class B17(Subject):
        """The stack is put a page too high for its alignment."""

        def place(self, seed):
            regions = super().place(seed)
            return [*regions[:-1], evolve(regions[-1], base=regions[-1].base + 16)]

    class B18(Subject):
        """The pieces of a large page may all be executed."""

        def pieces_rights(self, rights):
            return evolve(rights, execute=True)

    class B19(Subject):
        """What the host denies is granted, if the guest grants it."""

        def nested(self, guest, control, va, kind):
            got = super().nested(guest, control, va, kind)
            if got.refused == "ept":
                return super().nested(guest, control, va, Kind.READ)
            return got

    class B20(Subject):
        """A guest-physical address beyond the VM's memory is taken for a machine address."""

        def reached(self, guest, control, entry):
            yield from super().reached(guest, control, entry)
            if entry & 1 and entry >> 12 < guest.space.memory.frames_total:
                yield entry >> 12

    class B21(Subject):
        """To protect a page takes the right to read it from the same page of every other space."""

        class manager(PagedMemory):  # noqa: N801 - an attribute of the subject
            def protect(self, space, page, rights):
                super().protect(space, page, rights)
                for one in self._spaces:
                    if one.number != space and page in one.pages and one.pages[page].frame is not None:
                        super().protect(one.number, page, Rights(write=True))

    class B22(Subject):
        """The seed is not all that decides."""

        counter = count()

        def run(self):
            return f"{super().run()}{next(self.counter)}"


BUGS = {int(name[1:]): bug for name, bug in vars(Bugs).items() if name.startswith("B")}


def test_there_is_a_bug_for_every_invariant():
    assert sorted(BUGS) == list(range(1, 23))


def test_ours_keeps_all_invariants():
    assert each_number(Subject()) == []


@pytest.mark.parametrize("number", sorted(BUGS))
def test_a_planted_bug_breaks_its_invariant_and_no_other(number):
    assert each_number(BUGS[number]()) == [number]


def test_the_script_of_steps_reaches_what_it_is_meant_to_reach():
    pictures = [after for _, after, *_ in Subject().steps()]
    assert any(leaf.copy_on_write for one in pictures for leaf in one.spaces[0].leaves.values())
    assert pictures[-1].vms["d/3"].compressed > 0
    assert pictures[-1].vms["d/3"].swapped > 0
    assert max(one.vms["b/1"].held for one in pictures) == 3


def test_unequal_pages_with_equal_hashes_do_not_share():
    mem = PagedMemory(Sim(categories=()), PhysicalMemory(MEMORY_BYTES), hash_bits=0)
    for number, data in enumerate((b"left", b"right")):
        mem.add_space("a", "x")
        mem.map(number, 0, RW)
        mem.access(0, number, 0, Kind.WRITE, data)
    before = mem.picture()
    assert not mem.share((0, 0), (1, 0))
    assert mem.false_hints == 1
    mem._merge(before.spaces[0].leaves[0].frame, (1, 0))
    with pytest.raises(InvariantViolation, match="invariant 10") as caught:
        check_share_only_equals(before, mem.picture())
    assert b"left".hex() in str(caught.value)
    with pytest.raises(InvariantViolation, match="invariant 9"):
        check_copy_on_write(before, mem.picture())


def test_promises_beyond_the_host_are_found():
    mem = PagedMemory(Sim(categories=()), PhysicalMemory(MEMORY_BYTES))
    mem.add_space("a", reservation=MEMORY_BYTES // FRAME_BYTES, configured=MEMORY_BYTES // FRAME_BYTES)
    check_reservation_floor(mem.picture())
    mem.add_space("b", reservation=1)
    with pytest.raises(InvariantViolation, match="promised"):
        check_reservation_floor(mem.picture())


def test_a_limit_is_an_out_of_memory():
    mem = PagedMemory(Sim(categories=()), PhysicalMemory(MEMORY_BYTES))
    mem.add_space("a", limit=0)
    with pytest.raises(OutOfMemory, match="limit"):
        mem.map(0, 0, RW)


@pytest.mark.parametrize("scale", [lambda size: min_free(size) + 1, lambda size: 1 << 40 - size.bit_length()])
def test_another_scale_of_min_free_is_found(scale):
    host = HostView(total=1000, free=900, min_free=20)
    with pytest.raises(InvariantViolation, match="minFree"):
        check_state_machine(host, host, scale=scale)
