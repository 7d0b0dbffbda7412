"""Address translation against peers and floors, on one 16,384-page pattern, all in one run.

The walk of many stands against Unicorn (QEMU's software MMU) with paging on, walking the very same page tables, and
against the walk for reading; that one against a bare walk written into one function; a TLB hit against its own miss.
Rounds alternate, and a ratio is of the best rounds.  Absent Unicorn (`pip install -e '.[bench]'`), its figure says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from sim.core.units import MIB
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, Accesses, AddressSpace, ControlState, Kind, Rights, translate_many
from sim.hw.mmu.cpu import LogicalCpu

PAGES = 16_384
MEMORY_BYTES = 128 * MIB
BASE = 0x4_0000_0000
CODE = 0x7_0000_0000
STRIDE = 4096 * 6_971 + 8
"""An odd number of pages, so that every page is visited before one comes again, each time at another offset."""
MASK = PAGES * 4096 - 1
MANY = 1 << 20
FEW = 20_000
ROUNDS = 5

READ = Access(Kind.READ)


class Bench:
    """The pattern, mapped."""

    def __init__(self) -> None:
        self.memory = PhysicalMemory(MEMORY_BYTES)
        control = ControlState(cr3=0, smep=False, smap=False, maxphyaddr=40)
        self.space = AddressSpace(self.memory, "bench", control=control)
        (data,) = self.memory.allocate(PAGES, "data", contiguous=True)
        (code,) = self.memory.allocate(1, "code")
        self.code_pa = code.first_mpn << 12
        self.space.map_run(BASE, data.first_mpn, PAGES, Rights(write=True))
        self.space.map(CODE, code.first_mpn, Rights(execute=True))
        self.va = (
            BASE + (np.arange(1, MANY + 1, dtype=np.uint64) * np.uint64(STRIDE) & np.uint64(MASK))
        ).astype(np.uint64)
        self.few = self.va[:FEW].tolist()
        self.batch = Accesses(va=self.va)

    def many(self) -> int:
        """Translate the pattern at once."""
        out = translate_many(self.memory.tables, self.space.control, self.batch)
        if out.vector.any():
            raise SystemExit("the benchmark's pages are not mapped")
        return MANY

    def one_by_one(self) -> int:
        """Translate the beginning of the pattern by the walk for reading."""
        translate = self.space.translate
        for va in self.few:
            translate(va, READ)
        return FEW


def rate(work: Callable[[], int]) -> float:
    begin = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - begin)


def ratio(ours: Callable[[], int], theirs: Callable[[], int]) -> float:
    """Best rate of ours against best rate of theirs, in alternating rounds after one that warms up."""
    ours()
    theirs()
    rounds = [(rate(ours), rate(theirs)) for _ in range(ROUNDS)]
    return max(mine for mine, _ in rounds) / max(their for _, their in rounds)


# ---------------------------------------------------------------- the bare walk


def entries_of(bench: Bench) -> dict[int, int]:
    """Return the page tables as a plain dictionary, the fastest store that a bare walk can have."""
    found = {}
    for mpn in bench.space._tables:
        for index in range(512):
            entry = bench.memory.read_u64(mpn << 12 | index << 3)
            if entry:
                found[mpn << 12 | index << 3] = entry
    return found


def bare_walk(memory, c, masks, va, kind, user, implicit):  # noqa: C901, PLR0912, PLR0917 - one function is the point
    """Make the checks of `sim.hw.mmu.walk.walk` and its marks, without its names, types and results."""
    sign = va >> (56 if c.la57 else 47)
    if sign and sign != (0xFF if c.la57 else 0x1FFFF):
        return 13, 0
    table = c.cr3 & masks.address
    every, some, path = -1, 0, []
    level = 5 if c.la57 else 4
    who = user and not implicit
    while True:
        shift = 12 + 9 * (level - 1)
        at = table | (va >> shift & 511) << 3
        entry = memory.get(at, 0)
        if not entry & 1:
            return 14, (kind == 1) << 1 | who << 2 | (kind == 2 and (c.smep or c.nxe)) << 4
        leaf = level == 1 or (level <= 3 and entry & 128)
        if entry & (masks.leaf_reserved if leaf else masks.table_reserved)[level]:
            return 14, 9 | (kind == 1) << 1 | who << 2 | (kind == 2 and (c.smep or c.nxe)) << 4
        path.append((at, entry))
        every &= entry
        some |= entry
        if leaf:
            break
        table = entry & masks.address
        level -= 1
    w, u, nx = every & 2, every & 4, some >> 63
    if who:
        ok = u and (kind == 0 or (kind == 1 and w) or (kind == 2 and not nx))
    elif kind == 2:
        ok = not nx and not (u and c.smep)
    else:
        ok = not (u and c.smap and (implicit or not c.ac)) and (kind == 0 or w or not c.wp)
    code = 0
    if c.pke and u and kind != 2:
        bits = c.pkru >> 2 * (entry >> 59 & 15)
        if bits & 1 or (bits & 2 and kind == 1 and (who or c.wp)):
            ok, code = False, 32
    if not ok:
        return 14, 1 | code | (kind == 1) << 1 | who << 2 | (kind == 2 and (c.smep or c.nxe)) << 4
    for at, one in path:
        if not one & 32:
            memory[at] = one | 32
    if kind == 1 and not entry & 64:
        memory[at] = entry | 96
    return 0, entry & masks.leaf_address[level] | va & ((1 << shift) - 1)


def walk_against_bare(bench: Bench) -> float:
    memory, control, masks = entries_of(bench), bench.space.control, bench.space.control.masks

    def bare() -> int:
        for va in bench.few:
            bare_walk(memory, control, masks, va, 0, False, False)
        return FEW

    return ratio(bench.one_by_one, bare)


# ---------------------------------------------------------------- the TLB


def hit_against_miss(bench: Bench) -> float:
    """One processor reads 32 pages again and again; another reads the pattern, which no TLB holds."""
    hits, misses = (LogicalCpu(number, bench.memory, bench.space.control) for number in range(2))
    near = [BASE + number * 7 % 32 * 4096 for number in range(FEW)]

    def reading(cpu: LogicalCpu, addresses: list[int]) -> Callable[[], int]:
        def work() -> int:
            translate = cpu.translate
            for va in addresses:
                translate(va, READ)
            return len(addresses)

        return work

    found = ratio(reading(hits, near), reading(misses, bench.few))
    if (
        hits.walks.count > 32
        or misses.first_hits.count + misses.second_hits.count > misses.walks.count // 100
    ):
        raise SystemExit("the benchmark's hits are no hits, or its misses no misses")
    return found


# ---------------------------------------------------------------- Unicorn


class Guest:
    """Unicorn at CPL 0 with paging on, over a copy of the same memory: a loop of loads, one a page."""

    # mov rax, [rsi + rbx]; add rbx, rdx; and rbx, rdi; dec rcx; jnz back
    LOOP = bytes.fromhex("488b041e4801d34821fb48ffc975f1")

    def __init__(self, bench: Bench) -> None:
        from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, unicorn_const, x86_const

        self.uc = uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self.const = x86_const
        uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_ICELAKE_SERVER)
        uc.ctl_set_tlb_mode(unicorn_const.UC_TLB_CPU)
        uc.mem_map(0, MEMORY_BYTES)
        bench.memory.write(bench.code_pa, self.LOOP)
        for mpn in [*bench.space._tables, bench.code_pa >> 12]:
            uc.mem_write(mpn << 12, bench.memory.read(mpn << 12, 4096))
        uc.reg_write(x86_const.UC_X86_REG_CR3, bench.space.control.cr3)
        uc.reg_write(x86_const.UC_X86_REG_CR4, uc.reg_read(x86_const.UC_X86_REG_CR4) | 1 << 5)
        uc.msr_write(0xC0000080, 1 << 11 | 1 << 10 | 1 << 8 | 1)
        uc.reg_write(x86_const.UC_X86_REG_CR0, 1 << 31 | 1 << 16 | 1)
        for register, value in ((x86_const.UC_X86_REG_RSI, BASE), (x86_const.UC_X86_REG_RDX, STRIDE)):
            uc.reg_write(register, value)
        uc.reg_write(x86_const.UC_X86_REG_RDI, MASK)

    def run(self) -> int:
        """Run the loop over the pattern."""
        self.uc.reg_write(self.const.UC_X86_REG_RBX, STRIDE & MASK)
        self.uc.reg_write(self.const.UC_X86_REG_RCX, MANY)
        self.uc.emu_start(CODE, CODE + len(self.LOOP))
        if self.uc.reg_read(self.const.UC_X86_REG_RCX):
            raise SystemExit("the benchmark's guest did not end its loop")
        return MANY

    def walked(self, bench: Bench) -> bool:
        """Whether the guest really walked: A is set in the leaf of the last page."""
        path, _ = bench.space._leaf_at(int(bench.va[-1]) & -4096)
        return bool(self.uc.mem_read(path[-1], 1)[0] & 0x20)


def many_against_unicorn(bench: Bench) -> float | None:
    try:
        import unicorn  # noqa: F401 - only whether it is there
    except ImportError:
        return None
    guest = Guest(bench)
    found = ratio(bench.many, guest.run)
    if not guest.walked(bench):
        raise SystemExit("the benchmark's guest did not walk its page tables")
    return found


def scattered_against_reading() -> float:
    """Return the same ratio where nothing helps: random pages behind 3,000 tables, all kinds, most of them refused."""
    memory = PhysicalMemory(MEMORY_BYTES)
    space = AddressSpace(memory, "scattered")
    stream = np.random.default_rng(1)
    pages = [int(page) << 12 for page in np.unique(stream.integers(0, 1 << 35, 1500))]
    for number, va in enumerate(pages):
        rights = Rights(write=number % 2 == 0, user=number % 3 == 0, execute=number % 5 == 0)
        space.map(va, number, rights)
    va = np.array(pages, np.uint64)[stream.integers(0, len(pages), MANY)] + np.uint64(8)
    kind, user = stream.integers(0, 3, MANY).astype(np.uint8), stream.integers(0, 2, MANY) == 1
    batch = Accesses(va=va, kind=kind, user=user)
    kinds = (Kind.READ, Kind.WRITE, Kind.FETCH)
    rows = zip(va[:FEW].tolist(), kind[:FEW].tolist(), user[:FEW].tolist(), strict=True)
    few = [(at, Access(kinds[code], by_user)) for at, code, by_user in rows]

    def together() -> int:
        space.translate_many(batch)
        return MANY

    def one_by_one() -> int:
        for at, access in few:
            space.translate(at, access)
        return FEW

    return ratio(together, one_by_one)


def figure(name: str, value: float, against: str, bar: float) -> dict[str, object]:
    return {
        "name": f"mmu: {name}",
        "value": value,
        "unit": "x",
        "against": against,
        "bar": bar,
        "sense": ">=",
        "wording": f"{name}: {value:.2f} x {against}",
    }


def run() -> list[dict[str, object]]:
    bench = Bench()
    peer = many_against_unicorn(bench)
    figures = []
    if peer is None:
        print("  unicorn is absent: `translate_many` has no peer here (pip install -e '.[bench]')")
    else:
        name = "translate_many, 16,384 pages, rate"
        figures.append(figure(name, peer, "Unicorn with paging on, the same tables", 2))
    value = ratio(bench.many, bench.one_by_one)
    figures.append(figure("translate_many, 1,048,576 accesses, rate", value, "its own walk for reading", 30))
    figures.append(
        figure("walk for reading, rate", walk_against_bare(bench), "a bare walk in one function", 0.5)
    )
    figures.append(figure("TLB hit, rate", hit_against_miss(bench), "its own miss", 2))
    return figures
