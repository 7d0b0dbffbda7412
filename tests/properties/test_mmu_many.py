"""The walk of many against the walk for reading: any tables, any batch, one after another."""

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.units import MIB
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import (
    Access,
    Accesses,
    ControlState,
    Kind,
    PageFault,
    StackFault,
    Translation,
    many,
    translate_many,
    walk,
)

MEMORY_BYTES = 2 * MIB
FRAMES = MEMORY_BYTES >> 12
INDICES = (0, 1, 3, 511)
KINDS = (Kind.READ, Kind.WRITE, Kind.FETCH)

TARGETS = st.sampled_from([0, 0, 1, 1, 2, 2, 3, 3, 4, FRAMES - 1, FRAMES, 1 << 24])
"""Tables that alias and map themselves, a frame never written, the last frame, and addresses without memory."""
FLAGS = st.sampled_from([0x7, 0x7, 0x7, 0x27, 0x67, 0x47, 0x5, 0x3, 0x1, 0x0, 0x87, 0xA7, 0x107])
SOUND = st.builds(
    lambda mpn, flags, nx, key: mpn << 12 | flags | nx << 63 | key << 59,
    TARGETS,
    FLAGS,
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 0, 1, 15]),
)
ENTRIES = st.one_of(
    SOUND,
    SOUND,
    SOUND,
    st.builds(lambda page, flags: page << 30 | flags | 0x81, st.integers(0, 3), st.integers(0, 0x7F)),
    st.builds(lambda page, flags: page << 21 | flags | 0x81, st.integers(0, 3), st.integers(0, 0x7F)),
    st.integers(0, 2**64 - 1),
)


@st.composite
def memories(draw):
    """Memory with four tables in its first frames."""
    memory = PhysicalMemory(MEMORY_BYTES)
    memory.allocate(FRAMES, "anyone")
    for table in range(4):
        for index in INDICES:
            if draw(st.integers(0, 7)):
                memory.write_u64(table << 12 | index << 3, draw(ENTRIES))
    return memory


@st.composite
def controls(draw):
    flags = ("la57", "wp", "nxe", "smep", "smap", "ac", "pke", "gigabyte_pages", "amd")
    return ControlState(
        cr3=draw(st.sampled_from([0, 1, 2, 3])) << 12,
        maxphyaddr=draw(st.sampled_from([32, 40, 46, 51, 52])),
        pkru=draw(st.integers(0, 2**32 - 1)),
        **{name: draw(st.booleans()) for name in flags},
    )


@st.composite
def addresses(draw):
    """An address of four or five levels, most of them canonical."""
    va = 0
    for _ in range(draw(st.sampled_from([4, 4, 5]))):
        va = va << 9 | draw(st.sampled_from(INDICES))
    va = va << 12 | draw(st.integers(0, 4095))
    if va >> 47 & 1 and draw(st.integers(0, 5)):
        va |= 0xFFFF << 48
    return va


BATCHES = st.lists(
    st.tuples(addresses(), st.integers(0, 2), st.booleans(), st.booleans(), st.booleans()),
    min_size=1,
    max_size=20,
)


def one_by_one(memory, control, batch):
    """Return for each access (vector, error code, CR2, physical address)."""
    outcomes = []
    for va, kind, user, implicit, stack in batch:
        access = Access(KINDS[kind], user, implicit, stack)
        match walk(memory.tables.read, memory.tables.write, control, va, access):
            case Translation(pa=pa):
                outcomes.append((0, 0, 0, pa))
            case PageFault(error_code=code, cr2=cr2):
                outcomes.append((14, code, cr2, 0))
            case StackFault():
                outcomes.append((12, 0, 0, 0))
            case _:
                outcomes.append((13, 0, 0, 0))
    return outcomes


def all_at_once(memory, control, batch):
    columns = zip(zip(*batch, strict=True), (np.uint64, np.uint8, np.bool_, np.bool_, np.bool_), strict=True)
    va, kind, user, implicit, stack = (np.array(column, dtype) for column, dtype in columns)
    accesses = Accesses(va=va, kind=kind, user=user, implicit=implicit, stack=stack)
    out = translate_many(memory.tables, control, accesses)
    rows = zip(out.vector.tolist(), out.error_code.tolist(), out.cr2.tolist(), out.pa.tolist(), strict=True)
    return list(rows)


def everything(memory):
    """The bytes of every frame that any walk can have marked."""
    return memory.read(0, 5 << 12) + memory.read(MEMORY_BYTES - 4096, 4096)


@settings(max_examples=250)
@given(memories(), controls(), BATCHES, st.sampled_from([1, 3, 1 << 14]))
def test_both_walks_agree_on_every_outcome_and_every_bit_of_memory(memory, control, batch, chunk):
    twin = pickle.loads(pickle.dumps(memory))
    kept = many.CHUNK_ACCESSES
    many.CHUNK_ACCESSES = chunk
    try:
        together = all_at_once(memory, control, batch)
    finally:
        many.CHUNK_ACCESSES = kept
    assert together == one_by_one(twin, control, batch)
    assert everything(memory) == everything(twin)
    memory.tables.check_invariants()
    twin.tables.check_invariants()


@given(memories(), controls(), BATCHES)
def test_a_batch_leaves_what_its_halves_leave_one_after_the_other(memory, control, batch):
    twin = pickle.loads(pickle.dumps(memory))
    middle = len(batch) // 2
    parts = [part for part in (batch[:middle], batch[middle:]) if part]
    together = all_at_once(memory, control, batch)
    assert together == [row for part in parts for row in all_at_once(twin, control, part)]
    assert everything(memory) == everything(twin)


@given(memories(), controls(), addresses(), st.integers(0, 2), st.booleans(), st.booleans())
def test_one_class_for_all_is_the_same_as_an_array_of_it(memory, control, va, kind, user, implicit):
    twin = pickle.loads(pickle.dumps(memory))
    row = (va, kind, user, implicit, False)
    others = np.array([va, va, va ^ 0x1000], np.uint64)
    out = translate_many(
        memory.tables, control, Accesses(va=others, kind=KINDS[kind], user=user, implicit=implicit)
    )
    wanted = all_at_once(twin, control, [row, row, (va ^ 0x1000, *row[1:])])
    assert list(zip(out.vector, out.error_code, out.cr2, out.pa, strict=True)) == wanted
    assert everything(memory) == everything(twin)
