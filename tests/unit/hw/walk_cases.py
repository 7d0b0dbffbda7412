"""Directed cases of the page walk with the outcome that the manual demands, and how to run them on either walk.

Every expected value is worked out by hand from the rules of the manual; no walker is asked.
"""

from functools import cache

import numpy as np
from attrs import frozen

from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import many as many_module
from sim.hw.mmu import paging as paging_module

P, W, U, A, D, PS, G, NX = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63
ALL = P | W | U
TABLE = {5: 0x10000, 4: 0x11000, 3: 0x12000, 2: 0x13000, 1: 0x14000}
INDEX = {5: 2, 4: 3, 3: 7, 2: 11, 1: 12}
FRAME, MEG2, GIG = 0x15000, 0xA0_0000, 0x2_4000_0000
MAXPHYADDR = 40
LEVELS = (4, 3, 2, 1)
COMPANY = [0, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000]


def place(level):
    """Where the entry of a level lies."""
    return TABLE[level] | INDEX[level] << 3


def address(levels=4, offset=0x238):
    return sum(INDEX[level] << (3 + 9 * level) for level in range(1, levels + 1)) | offset


VA = address()


def path(leaf_level=1, levels=4, **entries):
    """Tables for `VA`: every entry grants all; `e4=...` replaces the entry of level 4, `clear4=...` clears bits there."""
    memory = {}
    for level in range(levels, leaf_level - 1, -1):
        target = {1: FRAME, 2: MEG2 | PS, 3: GIG | PS}[level] if level == leaf_level else TABLE[level - 1]
        memory[place(level)] = target | ALL
    for name, bits in entries.items():
        at = place(int(name[-1]))
        if name.startswith("set"):
            memory[at] |= bits
        elif name.startswith("clear"):
            memory[at] &= ~bits
        else:
            memory[at] = bits
    return memory


@frozen(kw_only=True)
class Case:
    """One access: `wanted` is a physical address or (vector, error code); `after` are the entries that change."""

    name: str
    memory: dict
    kind: str
    user: bool
    wanted: int | tuple[int, int]
    after: dict
    va: int = VA
    implicit: bool = False
    stack: bool = False
    control: dict


CASES: list[Case] = []


def case(
    name, memory, how, wanted, *, va=VA, implicit=False, stack=False, leaf_level=1, after=None, **control
):
    """Add a case; `how` is "ur", "sw", ... A granted one marks the whole path, unless `after` says otherwise."""
    user, kind = how[0] == "u", how[1]
    if after is None:
        after = {}
        if not isinstance(wanted, tuple):
            levels = 5 if control.get("la57") else 4
            for level in range(levels, leaf_level - 1, -1):
                mark = A | (D if kind == "w" and level == leaf_level else 0)
                after[place(level)] = memory[place(level)] | mark
    CASES.append(
        Case(
            name=name,
            memory=memory,
            kind=kind,
            user=user,
            wanted=wanted,
            after=after,
            va=va,
            implicit=implicit,
            stack=stack,
            control=control,
        )
    )


GRANTED = FRAME | (VA & 0xFFF)


def _grants_and_marks():
    for how in ("ur", "uw", "ux"):
        case(f"{how} of a page that grants all", path(), how, GRANTED)
    case("sr of a supervisor page", path(clear1=U), "sr", GRANTED)
    case("sw of a supervisor page", path(clear3=U), "sw", GRANTED)
    case("sx of a supervisor page", path(clear4=U), "sx", GRANTED)
    case("a read of a dirty page leaves D", path(set1=D), "ur", GRANTED)
    case("bits that mean nothing are ignored", path(set1=0x7FF << 52 | 7 << 9 | PS | G), "uw", GRANTED)
    case("upper bits that mean nothing are ignored", path(set4=0x7FF << 52 | 0xF << 8 | D), "ur", GRANTED)
    loop = {TABLE[4]: TABLE[4] | ALL}
    case("one entry at all levels", loop, "uw", TABLE[4] | 8, va=8, after={TABLE[4]: TABLE[4] | ALL | A | D})
    case("a path marked already", {at: e | A | D for at, e in path().items()}, "uw", GRANTED, after={})
    marked_above = path(set4=A, set3=A, set2=A)
    case("only the leaf lacks A", marked_above, "ur", GRANTED, after={place(1): marked_above[place(1)] | A})
    half = path(set4=A, set3=A, set2=A, set1=A)
    case("only D is lacking", half, "uw", GRANTED, after={place(1): half[place(1)] | D})
    case("a read lacks no D", half, "ur", GRANTED, after={})


def _large_pages():
    for level, base in ((2, MEG2), (3, GIG)):
        size = 1 << (3 + 9 * level)
        inside = VA & (size - 1)
        for how in ("ur", "uw", "ux"):
            case(f"{how} of a large page of level {level}", path(level), how, base | inside, leaf_level=level)
        case(
            f"PAT bit 12 at level {level}",
            path(level, **{f"set{level}": 1 << 12}),
            "ur",
            base | inside,
            leaf_level=level,
        )
        for bit in range(13, 3 + 9 * level):
            memory = path(level, **{f"set{level}": 1 << bit})
            case(f"bit {bit} of a leaf of level {level}", memory, "ur", (14, 13), leaf_level=level)
        denied = path(level, **{f"clear{level}": W})
        case(f"a denied write of level {level}", denied, "uw", (14, 7))
    case("1 GiB pages are absent", path(3), "ur", (14, 13), gigabyte_pages=False)
    for level in (4, 5):
        memory = path(levels=5, **{f"set{level}": PS})
        case(f"PS at level {level}", memory, "ur", (14, 13), va=address(5), la57=True)
    case("PS at level 4 of four", path(set4=PS), "sr", (14, 9))


def _absent_and_reserved():
    for level in LEVELS:
        for how, code in (("ur", 4), ("uw", 6), ("ux", 20), ("sr", 0), ("sw", 2), ("sx", 16)):
            memory = path(**{f"clear{level}": P})
            case(f"{how}, level {level} absent", memory, how, (14, code))
        junk = path(**{f"e{level}": ~P & 0xFFFF_FFFF_FFFF_FFFF})
        case(f"level {level} absent and full of bits", junk, "ur", (14, 4), nxe=False)
        for bit in range(MAXPHYADDR, 52):
            memory = path(**{f"set{level}": 1 << bit})
            case(f"bit {bit} at level {level}", memory, "ur", (14, 13))
        memory = path(**{f"set{level}": 1 << MAXPHYADDR})
        for how, code in (("uw", 15), ("ux", 29), ("sr", 9), ("sw", 11), ("sx", 25)):
            case(f"{how}, level {level} reserved", memory, how, (14, code))
        nx = path(**{f"set{level}": NX})
        case(f"NX at level {level} without NXE", nx, "ur", (14, 13), nxe=False)
        case(f"NX at level {level} reserved beats SMEP", nx, "sx", (14, 25), nxe=False)
        below = path(**{f"set{level}": 1 << 45, "clear1": P}) if level > 1 else None
        if below:
            case(f"reserved at level {level} beats absent below", below, "ur", (14, 13))
    wide = path(set1=1 << 50)
    case("52 bits of physical address", wide, "ur", GRANTED | 1 << 50, maxphyaddr=52)
    case("bit 8 of a PML4E on AMD", path(set4=G), "ur", (14, 13), amd=True)
    case("bit 8 of a PML4E on Intel", path(set4=G), "ur", GRANTED)


def _rights():
    for level in LEVELS:
        no_w, no_u, nx = (
            path(**{f"{do}{level}": bit}) for do, bit in (("clear", W), ("clear", U), ("set", NX))
        )
        case(f"user write, no W at level {level}", no_w, "uw", (14, 7))
        case(f"user write without WP, no W at level {level}", no_w, "uw", (14, 7), wp=False)
        case(f"user read, no W at level {level}", no_w, "ur", GRANTED)
        case(f"user read, no U at level {level}", no_u, "ur", (14, 5))
        case(f"user fetch, no U at level {level}", no_u, "ux", (14, 21))
        case(f"user fetch, NX at level {level}", nx, "ux", (14, 21))
        case(f"user read, NX at level {level}", nx, "ur", GRANTED)
        kernel_nx = {at: entry & ~U for at, entry in nx.items()}
        case(f"kernel fetch, NX at level {level}", kernel_nx, "sx", (14, 17))
        kernel_ro = {at: entry & ~U for at, entry in no_w.items()}
        case(f"kernel write, no W at level {level}", kernel_ro, "sw", (14, 3))
        case(f"kernel write without WP, no W at level {level}", kernel_ro, "sw", GRANTED, wp=False)
        case(f"kernel fetch past SMEP, no U at level {level}", no_u, "sx", GRANTED)
        case(f"kernel read past SMAP, no U at level {level}", no_u, "sr", GRANTED)


def _kernel_and_user_pages():
    case("SMEP stops a fetch", path(), "sx", (14, 17))
    case("AC does not help against SMEP", path(), "sx", (14, 17), ac=True)
    case("without SMEP the kernel runs user pages", path(), "sx", GRANTED, smep=False)
    case("SMAP stops a read", path(), "sr", (14, 1))
    case("SMAP stops a write", path(), "sw", (14, 3))
    case("SMAP stops a write without WP", path(), "sw", (14, 3), wp=False)
    case("SMAP has no say in fetches", path(), "sx", GRANTED, smep=False, smap=True)
    case("AC lifts SMAP for reads", path(), "sr", GRANTED, ac=True)
    case("AC lifts SMAP for writes", path(), "sw", GRANTED, ac=True)
    case("without SMAP the kernel reads user pages", path(), "sr", GRANTED, smap=False)
    case("AC lifts SMAP, not W", path(clear1=W), "sw", (14, 3), ac=True)
    case("AC does not help an implicit read", path(), "sr", (14, 1), ac=True, implicit=True)
    case("an implicit read of CPL 3 is the kernel's", path(), "ur", (14, 1), ac=True, implicit=True)
    case("an implicit read of CPL 3 reaches a kernel page", path(clear1=U), "ur", GRANTED, implicit=True)
    case("an implicit write of CPL 3 obeys WP", path(clear1=U | W), "uw", (14, 3), implicit=True)
    case("an implicit write of CPL 3 without WP", path(clear1=U | W), "uw", GRANTED, implicit=True, wp=False)
    absent = path(clear2=P)
    case("an implicit access is no user's in the code", absent, "uw", (14, 2), implicit=True)
    for smep in (False, True):
        for nxe in (False, True):
            extra = 16 if smep or nxe else 0
            state = {"smep": smep, "nxe": nxe}
            case(f"the fetch bit, {state}", path(clear3=P), "ux", (14, 4 | extra), **state)
            case(f"the fetch bit of a denial, {state}", path(clear3=U), "ux", (14, 5 | extra), **state)


def _keys():
    for key in (0, 5, 10, 15):
        memory = path(set1=key << 59)
        deny, deny_write = 1 << 2 * key, 2 << 2 * key
        state = {"pke": True, "pkru": deny}
        case(f"AD of key {key} denies a read", memory, "ur", (14, 37), **state)
        case(f"AD of key {key} denies a write", memory, "uw", (14, 39), **state)
        case(f"AD of key {key} lets fetches pass", memory, "ux", GRANTED, **state)
        case(f"AD of key {key} denies the kernel", memory, "sr", (14, 33), ac=True, **state)
        case(
            f"AD of key {key} denies the kernel without WP",
            memory,
            "sw",
            (14, 35),
            ac=True,
            wp=False,
            **state,
        )
        case(f"other keys than {key}", memory, "uw", GRANTED, pke=True, pkru=~(3 << 2 * key) & 0xFFFF_FFFF)
        case(f"keys without PKE, key {key}", memory, "uw", GRANTED, pkru=0xFFFF_FFFF)
        state = {"pke": True, "pkru": deny_write}
        case(f"WD of key {key} denies a user's write", memory, "uw", (14, 39), **state)
        case(f"WD of key {key} denies it without WP", memory, "uw", (14, 39), wp=False, **state)
        case(f"WD of key {key} lets reads pass", memory, "ur", GRANTED, **state)
        case(f"WD of key {key} denies the kernel's write", memory, "sw", (14, 35), ac=True, **state)
        case(
            f"WD of key {key} spares the kernel without WP", memory, "sw", GRANTED, ac=True, wp=False, **state
        )
    everything = {"pke": True, "pkru": 0xFFFF_FFFF}
    case("keys have no say in supervisor pages", path(clear2=U), "sw", GRANTED, **everything)
    case("PK beside another reason", path(clear1=W), "uw", (14, 39), **everything)
    case("PK beside SMAP", path(), "sr", (14, 33), **everything)
    case("no PK on a page that is not the user's", path(clear4=U), "ur", (14, 5), **everything)
    case("no PK when SMEP stops a fetch", path(), "sx", (14, 17), **everything)
    large = path(2, set2=3 << 59)
    case("the key of a large page", large, "ur", (14, 37), leaf_level=2, pke=True, pkru=1 << 6)
    case("bit 58 is no key", path(set1=1 << 58), "ur", GRANTED, pke=True, pkru=1 << 2)


def _canonical():
    for upper in (0x0000_8000_0000_0000, 0xFFFF_7FFF_FFFF_F000, 1 << 63, 1 << 48):
        case(f"{upper:#x} is not canonical", path(), "ur", (13, 0), va=upper)
        case(f"{upper:#x} through the stack", path(), "uw", (12, 0), va=upper, stack=True)
    case("a stack reference that faults otherwise", path(clear1=W), "uw", (14, 7), stack=True)
    high = 0xFFFF_8000_0000_0000
    entry = {TABLE[4] | 256 << 3: 1 << 45 | P}
    case("the upper half is walked", entry, "sr", (14, 9), va=high)
    five = path(levels=5)
    case("five levels", five, "uw", GRANTED, va=address(5), la57=True)
    case("level 5 absent", path(levels=5, clear5=P), "ur", (14, 4), va=address(5), la57=True)
    case("no U at level 5", path(levels=5, clear5=U), "ur", (14, 5), va=address(5), la57=True)
    case("no W at level 5", path(levels=5, clear5=W), "uw", (14, 7), va=address(5), la57=True)
    case("NX at level 5", path(levels=5, set5=NX), "ux", (14, 21), va=address(5), la57=True)
    case("reserved at level 5", path(levels=5, set5=1 << 44), "ur", (14, 13), va=address(5), la57=True)
    case("bit 56 with five levels", five, "ur", (13, 0), va=1 << 56, la57=True)
    case("bit 55 with five levels", {}, "ur", (14, 4), va=1 << 55, la57=True)


for add in (
    _grants_and_marks,
    _large_pages,
    _absent_and_reserved,
    _rights,
    _kernel_and_user_pages,
    _keys,
    _canonical,
):
    add()


# ---------------------------------------------------------------- running them


def control_of(each, paging=paging_module):
    root = TABLE[5 if each.control.get("la57") else 4]
    return paging.ControlState(cr3=root, **{"maxphyaddr": MAXPHYADDR, **each.control})


def wanted_of(each):
    """Return (vector, error code, CR2 or physical address, entries that change)."""
    if not isinstance(each.wanted, tuple):
        return 0, 0, each.wanted, each.after
    vector, code = each.wanted
    return vector, code, each.va if vector == 14 else 0, each.after


def run_one(each, walk, paging=paging_module):
    """Run a case on the walk for reading, in the form of `wanted_of`; `walk` is its module."""
    memory = dict(each.memory)
    access = walk.Access(walk.Kind(each.kind), each.user, each.implicit, each.stack)
    outcome = walk.walk(
        lambda pa: memory.get(pa, 0), memory.__setitem__, control_of(each, paging), each.va, access
    )
    changed = {at: entry for at, entry in memory.items() if entry != each.memory.get(at)}
    match type(outcome).__name__:
        case "Translation":
            return 0, 0, outcome.pa, changed
        case "PageFault":
            return 14, outcome.error_code, outcome.cr2, changed
        case name:
            return 12 if name == "StackFault" else 13, outcome.error_code, 0, changed


@cache
def empty_memory():
    """Memory that each run leaves as empty as it found it."""
    memory = PhysicalMemory(2 << 20)
    memory.allocate(memory.frames_total, "tables")
    return memory


def run_many(each, many=many_module, paging=paging_module, *, company=False):
    """Run a case on the walk of many, alone or behind other accesses, in the form of `wanted_of`."""
    memory = empty_memory()
    for at, entry in each.memory.items():
        memory.write_u64(at, entry)
    others = COMPANY if company else []
    count = len(others) + 1
    kind = {"r": 0, "w": 1, "x": 2}[each.kind]
    flags = {name: getattr(each, name) for name in ("user", "implicit", "stack")}
    if company:
        flags = {name: np.full(count, flag) for name, flag in flags.items()}
        kinds = np.full(count, kind, np.uint8)
    else:
        kinds = list(many.KIND_CODES)[kind]
    accesses = many.Accesses(va=np.array([*others, each.va], np.uint64), kind=kinds, **flags)
    out = many.translate_many(memory.tables, control_of(each, paging), accesses)
    after = {at: memory.read_u64(at) for at in each.memory}
    for at in each.memory:
        memory.write_u64(at, 0)
    changed = {at: entry for at, entry in after.items() if entry != each.memory[at]}
    vector = int(out.vector[-1])
    where = int(out.pa[-1]) if vector == 0 else int(out.cr2[-1])
    return vector, int(out.error_code[-1]), where, changed
