"""Guests under any sequence of actions, their own and the host's: each sees its bytes and reaches nothing else.

The model of a VM is a flat array of bytes, and of its accesses the scalar walk over that array: what a guest sees must
be the same with EPT, demand allocation, sharing, ballooning and large pages in between, whatever its tables contain.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sim.core.units import MIB
from sim.hw.frame_counts import SHARED_OWNER
from sim.hw.mca import MceRecord
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu.ept import EptViolation
from sim.hw.mmu.ept_entries import EptControl
from sim.hw.mmu.nested import NestedTranslation
from sim.hw.mmu.paging import ControlState
from sim.hw.mmu.walk import Access, Kind, Translation, walk
from sim.kernel.memory.guest_access import GuestAccess
from sim.kernel.memory.guest_space import DemandZero, GuestSpace

PAGES = 520
PPNS = st.sampled_from([0, 1, 2, 3, 511, 512, 519])
NAMES = st.sampled_from(["a", "b", "c"])
INDICES = st.sampled_from([0, 1, 511])

SOUND = st.builds(
    lambda ppn, flags, nx: ppn << 12 | flags | nx << 63,
    PPNS | st.integers(0, PAGES + 1),
    st.sampled_from([0x7, 0x7, 0x67, 0x3, 0x1, 0x87, 0x83]),
    st.sampled_from([0, 0, 0, 1]),
)
ENTRIES = st.one_of(SOUND, SOUND, SOUND, SOUND, st.integers(0, 2**64 - 1))


class BeyondError(Exception):
    """The model's walk met an address that the VM does not have; the argument is that address."""


class LostError(Exception):
    """The model's walk met bytes that a memory error destroyed."""


class Flat:
    """The model of one VM: its pages as it should see them."""

    def __init__(self):
        self.bytes = bytearray(PAGES * 4096)
        self.lost = set()

    def at(self, gpa):
        if gpa >= len(self.bytes):
            raise BeyondError(gpa)
        if gpa >> 12 in self.lost:
            raise LostError
        return gpa

    def read(self, gpa):
        return int.from_bytes(self.bytes[self.at(gpa) : gpa + 8], "little")

    def write(self, gpa, value):
        self.bytes[self.at(gpa) : gpa + 8] = value.to_bytes(8, "little")

    def walk(self, control, va, access):
        """Return what the scalar walk over the flat array says, or the error that it met."""
        try:
            wanted = walk(self.read, self.write, control, va, access)
            if isinstance(wanted, Translation):
                self.at(wanted.pa)
        except (BeyondError, LostError) as error:
            return error
        return wanted

    def page(self, ppn):
        return bytes(self.bytes[ppn << 12 : ppn + 1 << 12])


def address(indices, offset):
    """Return the canonical address that uses these four indices and that word of the page."""
    va = 0
    for index in indices:
        va = va << 9 | index
    va = va << 12 | offset << 3
    return va | (va >> 47) * (0xFFFF << 48)


class GuestMachine(RuleBasedStateMachine):
    """Three VMs on a host of 32 MiB."""

    @initialize(flags=st.booleans(), large=st.booleans(), levels=st.sampled_from([4, 5]))
    def start(self, flags, large, levels):
        self.memory = PhysicalMemory(32 * MIB, nodes=2)
        self.features = EptControl(root=0, accessed_dirty=flags, levels=levels)
        self.pager = DemandZero(large_pages=large)
        self.spaces, self.guests, self.models, self.chains = {}, {}, {}, {}
        for name in "abc":
            self.power_on(name)

    def power_on(self, name):
        space = GuestSpace(self.memory, name, PAGES, features=self.features, pager=self.pager)
        self.spaces[name], self.guests[name], self.models[name] = space, GuestAccess(space), Flat()
        self.chains[name] = []

    # ------------------------------------------------------------------ the guests

    @rule(name=NAMES, ppn=PPNS, offset=st.integers(0, 4095), text=st.binary(min_size=1, max_size=40))
    def store_physical(self, name, ppn, offset, text):
        gpa = ppn << 12 | offset
        model = self.models[name]
        if gpa + len(text) > len(model.bytes):
            return
        if {gpa >> 12, gpa + len(text) - 1 >> 12} & model.lost:
            return
        assert self.guests[name].store_physical(gpa, text) is None
        model.bytes[gpa : gpa + len(text)] = text

    @rule(name=NAMES, ppn=PPNS, index=INDICES, entry=ENTRIES)
    def write_entry(self, name, ppn, index, entry):
        if ppn not in self.models[name].lost:
            gpa = ppn << 12 | index << 3
            assert self.guests[name].store_physical(gpa, entry.to_bytes(8, "little")) is None
            self.models[name].write(gpa, entry)

    @rule(name=NAMES, ppn=st.integers(0, 1 << 40))
    def reach_beyond(self, name, ppn):
        gpa = (PAGES + ppn) << 12
        assert isinstance(self.guests[name].load_physical(gpa, 8), EptViolation)
        assert isinstance(self.guests[name].store_physical(gpa, b"x"), EptViolation)

    @rule(
        name=NAMES,
        tables=st.permutations([1, 2, 3, 511])
        | st.permutations([0, 1, 2, 512])
        | st.tuples(PPNS, PPNS, PPNS, PPNS),
        indices=st.tuples(INDICES, INDICES, INDICES, INDICES),
        leaf=ENTRIES,
        depth=st.sampled_from([4, 4, 4, 3, 2]),
    )
    def write_chain(self, name, tables, indices, leaf, depth):
        """Let the guest enter a page in its tables, which may be one table at several levels."""
        for level, (table, index) in enumerate(zip(tables[:depth], indices, strict=False)):
            entry = leaf if level == depth - 1 else tables[level + 1] << 12 | 7
            self.write_entry(name, table, index, entry)
        self.chains[name].append((tables[0], indices))
        for kind in Kind:
            for user in (True, False):
                self.check_access(name, tables[0], address(indices, 5), Access(kind, user))

    @rule(
        name=NAMES,
        chain=st.integers(0, 1000),
        fresh=st.none() | st.tuples(PPNS, st.tuples(INDICES, INDICES, INDICES, INDICES)),
        offset=st.integers(0, 511),
        kind=st.sampled_from(Kind),
        user=st.booleans(),
    )
    def access(self, name, chain, fresh, offset, kind, user):
        root, indices = fresh if fresh is not None else (0, (0, 0, 0, 0))
        if fresh is None and self.chains[name]:
            root, indices = self.chains[name][chain % len(self.chains[name])]
        self.check_access(name, root, address(indices, offset), Access(kind, user))

    def check_access(self, name, root, va, access):
        """Compare one access with the scalar walk over the VM's flat memory."""
        control = ControlState(cr3=root << 12, maxphyaddr=46, smap=False)
        model = self.models[name]
        found = self.guests[name].translate(control, va, access)
        wanted = model.walk(control, va, access)
        if isinstance(wanted, BeyondError):
            assert isinstance(found, EptViolation)
            assert found.gpa == wanted.args[0]
            return
        if isinstance(wanted, LostError):
            assert isinstance(found, MceRecord)
            assert found.action_required
            return
        if not isinstance(wanted, Translation):
            assert found == wanted
            return
        assert isinstance(found, NestedTranslation)
        assert found.gpa == wanted.pa
        assert (found.rights.user, found.rights.write <= wanted.rights.write) == (wanted.rights.user, True)
        owner = self.memory.owner_of(found.pa >> 12)
        assert owner == self.spaces[name].owner or (owner == SHARED_OWNER and access.kind is not Kind.WRITE)
        assert self.memory.read(found.pa & -8, 8) == model.bytes[found.gpa & -8 : (found.gpa & -8) + 8]

    # -------------------------------------------------------------------- the host

    @rule(name=NAMES, ppn=PPNS, count=st.sampled_from([1, 2, 8, 512]))
    def balloon(self, name, ppn, count):
        count = min(count, PAGES - ppn)
        self.spaces[name].release(ppn, count)
        model = self.models[name]
        for each in range(ppn, ppn + count):
            model.bytes[each << 12 : each + 1 << 12] = bytes(4096)

    @rule(name=NAMES, ppn=PPNS, count=st.sampled_from([1, 8, 520]))
    def populate(self, name, ppn, count):
        self.spaces[name].populate(ppn, min(count, PAGES - ppn))

    @rule(giver=NAMES, taker=NAMES, ppn=PPNS, other=PPNS)
    def share_equal_pages(self, giver, taker, ppn, other):
        if giver == taker or self.models[giver].page(ppn) != self.models[taker].page(other):
            return
        if ppn in self.models[giver].lost or other in self.models[taker].lost:
            return
        space = self.spaces[giver]
        space.populate(ppn, 1)
        leaf = space.tables.leaf_at(ppn)
        mpn = leaf.mpn + ppn - leaf.ppn
        if self.memory.owner_of(mpn) != SHARED_OWNER:
            assert space.share(ppn) == mpn
        before = self.memory.references(mpn)
        self.spaces[taker].release(other)
        if self.memory.owner_of(mpn) != SHARED_OWNER:
            return  # the two pages were one shared frame, and the giver's reference is all that is left
        self.spaces[taker].map_shared(other, mpn)
        assert self.memory.references(mpn) in (before, before + 1)

    @rule(name=NAMES, ppn=PPNS)
    def form_or_split(self, name, ppn):
        space = self.spaces[name]
        leaf = space.tables.leaf_at(ppn)
        if leaf is not None and leaf.count > 1:
            assert space.break_large(ppn) == 1
        elif leaf is not None:
            space.form_large(ppn)

    @rule(name=NAMES)
    def collect(self, name):
        self.spaces[name].collect()
        assert self.spaces[name].collect() == ()

    @rule(name=NAMES, ppn=PPNS)
    def lose(self, name, ppn):
        leaf = self.spaces[name].tables.leaf_at(ppn)
        if leaf is None or sum(len(model.lost) for model in self.models.values()) > 5:
            return
        mpn = leaf.mpn + ppn - leaf.ppn
        for other, space in self.spaces.items():
            self.models[other].lost.update(space.poison(mpn))
        self.memory.retire(mpn)
        assert ppn in self.models[name].lost

    @rule(name=NAMES)
    def power_cycle(self, name):
        self.spaces[name].destroy()
        assert self.memory.frames_of(f"vm:{name}") == self.memory.frames_of(f"vm:{name}/ept") == 0
        self.power_on(name)

    # -------------------------------------------------------------------- what holds

    @precondition(lambda self: hasattr(self, "memory"))
    @invariant()
    def every_frame_is_where_the_books_say(self):
        self.memory.check_invariants()
        holders = {}
        pages = 0
        for space in self.spaces.values():
            space.check_invariants()
            for leaf in space.tables.leaves():
                pages += leaf.count
                if leaf.count == 1:
                    holders.setdefault(leaf.mpn, []).append(leaf.rights.write)
        for mpn, writable in holders.items():
            assert self.memory.references(mpn) == len(writable)
            if self.memory.owner_of(mpn) == SHARED_OWNER:
                assert not any(writable)
        guests = sum(self.memory.frames_of(space.owner) for space in self.spaces.values())
        doubly = sum(len(each) - 1 for each in holders.values())
        assert pages - doubly == guests + self.memory.frames_of(SHARED_OWNER)

    @precondition(lambda self: hasattr(self, "memory"))
    @invariant()
    def every_guest_sees_its_own_bytes(self):
        for name, space in self.spaces.items():
            for ppn in (0, 1, 2, 3, 511, 512, 519):
                leaf = space.tables.leaf_at(ppn)
                if leaf is not None:
                    frame = self.memory.read((leaf.mpn + ppn - leaf.ppn) << 12, 4096)
                    assert frame == self.models[name].page(ppn), f"{name} page {ppn:#x}"


GuestMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestGuests = GuestMachine.TestCase
