"""Mutants of ELF files of all three types: each is loaded or refused with one clear error, and a refusal leaves nothing.

`python tests/campaigns/elf_mutants.py --count N --seed S` prints how many mutants ended how, and each finding with the
mutant's number and file; exit status 1 if there is one.  Relocatable and shared objects go to the kernel's module
loader, programs and libraries into a user world.  What is loaded is checked, unloaded, and must leave as little as a
refusal.  Files of this machine are used where they are there, besides built ones.
"""

import argparse
import random
import resource
import sys
import sysconfig
import time
import traceback
from collections import Counter
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

from sim.core.context import Sim
from sim.core.rng import Rng
from sim.core.units import MIB
from sim.errors import FormatError, SimBug, VmksimError
from sim.hw.memory import PhysicalMemory
from sim.image import elf_format as f
from sim.image.elf import Export, ModuleSpec, Pointer, build_module, build_object, read_elf
from sim.kernel.layout import Layout, LayoutProfile
from sim.kernel.loader import LoadRefused, ModuleLoader
from sim.kernel.memory import KernelMemory
from sim.kernel.userworld import UserWorlds

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
HOST_BYTES = 16 * MIB
LIFE_MUTANTS = 500
SECONDS_MAX = 10.0
GROWTH_MIB_MAX = 1024
FILE_BYTES_MAX = 100_000
INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0xFFF,
    0x1000,
    0xFFF1,
    0xFFFF,
    2**31,
    2**32 - 1,
    2**47,
    2**63,
    2**64 - 1,
)
PROGRAM_BASE = 0x40_0000
EXTENSIONS = ("_json", "_bisect", "_struct", "_csv")
PROGRAMS = ("/bin/true", "/usr/bin/true")
OBJECT_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/gcc/x86_64-linux-gnu")
OBJECTS = ("Scrt1.o", "crtbeginS.o")
KERNEL_NAMES = ("vmk_HeapAlloc", "vmk_Log", "__TMC_END__")
LIBRARY = "lib64/libc.so.6"


def main(arguments=None):
    options = argparse.ArgumentParser(description="mutate ELF files and load them")
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args(arguments)
    campaign = Campaign(chosen.seed)
    campaign.run(chosen.count)
    return campaign.report()


class Unsigned:
    """A verifier that knows no signature; the loader is told not to insist."""

    def verify(self, name, _data, _vib):
        raise FormatError("signature", name, "there is none")


class Idlers:
    """What user worlds need of a scheduler."""

    def add(self, *_, **__):
        return SimpleNamespace(world_id=1)

    def allocate(self, *_, **__):
        pass

    begin = end = allocate


class Host:
    """A kernel's loader and its user worlds over one small memory."""

    def __init__(self, seed):
        self.sim = Sim(seed=seed, epoch=EPOCH)
        self.frames = PhysicalMemory(HOST_BYTES)
        self.memory = KernelMemory(self.sim, self.frames)
        self.layout = Layout(self.sim.rng.stream("layout"), LayoutProfile())
        self.loader = ModuleLoader(self.sim, self.memory, self.layout, Unsigned(), enforce=False)
        self.lenient = ModuleLoader(
            self.sim, self.memory, self.layout, Unsigned(), enforce=False, strict=False
        )
        self.worlds = UserWorlds(self.sim, self.frames, Idlers(), Rng(seed))
        core = ModuleSpec(
            name="vmkernel", version="1", exports=tuple(Export(name=name) for name in KERNEL_NAMES)
        )
        self.loader.load_kernel("vmkernel", build_module(core), vib=None)
        self.lenient.load("names", build_object(core), vib=None)
        self.loader.load("first", build_object(module_spec("first")), vib=None)
        self.loader.unload("first")

    def books(self):
        """Everything that a refused file must leave as it was."""
        mapped = tuple(segment.base for segment in self.memory.segments())
        modules = self.loader.modules() + self.lenient.modules()
        return self.frames.owners(), mapped, self.layout.regions(), modules, tuple(self.worlds.running)

    def check(self):
        self.frames.check_invariants()
        self.memory.check_invariants()
        self.layout.check_invariants()
        self.loader.check_invariants()
        self.worlds.check_invariants()

    def module(self, loader, data):
        """Load a kernel module, check it, and unload it."""
        loader.load("mutant", data, vib=None)
        self.check()
        loader.check_invariants()
        loader.unload("mutant")

    def program(self, data, library):
        """Start a user world, check it, and end it."""
        world = self.worlds.start("bin/mutant", data, {LIBRARY: library})
        self.check()
        del self.worlds.running["mutant"]
        for segment in world.memory.segments():
            if segment.rights.write and segment.rights.execute:
                raise SimBug("writable and executable")
            world.memory.unmap_segment(segment.base)
        world.memory.space.destroy()


def module_spec(name="mutant"):
    return ModuleSpec(
        name=name,
        version="1.0",
        text=b"\x31\xc0\xc3" * 300,
        rodata=b"constants" * 20,
        data=bytes(64),
        bss_bytes=5000,
        exports=(Export(name="init_module"), Export(name=f"{name}_Attach", offset=3)),
        imports=("vmk_HeapAlloc", "vmk_Log"),
        pointers=(Pointer(offset=0, area="text"), Pointer(offset=8, area="data", target=80)),
        version_record=b"V\0",
    )


def program_spec():
    return ModuleSpec(
        name="agent",
        version="1",
        data=bytes(32),
        bss_bytes=300,
        exports=(Export(name="_start"),),
        imports=("malloc", "free"),
        pointers=(Pointer(offset=0, area="text"),),
        needed=("libc.so.6",),
    )


PROGRAM = build_module(program_spec())


def library_for(program):
    """Build a library that defines what a program imports, as functions and, for its own copies, as data."""
    image = read_elf(program)
    copied = [image.symbols[each.symbol].name for each in image.relocations if each.kind == "COPY"]
    exports = [Export(name=name, area="data", size_bytes=8) for name in dict.fromkeys(copied)]
    exports += [Export(name=name) for name in dict.fromkeys(image.imports) if name not in copied]
    spec = ModuleSpec(
        name="libc", version="1", soname="libc.so.6", exports=tuple(exports), text=bytes(64), data=bytes(64)
    )
    return build_module(spec)


def fixed(data, base=PROGRAM_BASE):
    """Make a program at fixed addresses (ET_EXEC) of a built shared object: every address moves up by `base`."""
    out = bytearray(data)
    header = list(f.HEADER.unpack_from(data))
    header[1], header[4] = f.ET_EXEC, header[4] + base
    f.HEADER.pack_into(out, 0, *header)
    pointers = {f.DT_HASH, f.DT_STRTAB, f.DT_SYMTAB, f.DT_RELA}
    for number in range(header[10]):
        at = header[5] + number * f.PROGRAM_HEADER.size
        row = list(f.PROGRAM_HEADER.unpack_from(data, at))
        if row[0] != f.PT_GNU_STACK:
            row[3:5] = row[3] + base, row[4] + base
        f.PROGRAM_HEADER.pack_into(out, at, *row)
    for kind, offset, size in tables(data):
        if kind == f.SHT_DYNAMIC:
            for at in range(offset, offset + size, 16):
                tag, value = f.DYNAMIC.unpack_from(data, at)
                f.DYNAMIC.pack_into(out, at, tag, value + base * (tag in pointers))
        elif kind == f.SHT_DYNSYM:
            for at in range(offset + 24, offset + size, 24):
                row = list(f.SYMBOL.unpack_from(data, at))
                row[4] += base * bool(row[3])
                f.SYMBOL.pack_into(out, at, *row)
        elif kind == f.SHT_RELA:
            for at in range(offset, offset + size, 24):
                place, info, addend = f.RELOCATION.unpack_from(data, at)
                relative = info & 0xFFFFFFFF == f.R_RELATIVE
                f.RELOCATION.pack_into(out, at, place + base, info, addend + base * relative)
    return bytes(out)


def tables(data):
    """Type, offset and size of each section with content."""
    header = f.HEADER.unpack_from(data)
    for number in range(header[12]):
        row = f.SECTION_HEADER.unpack_from(data, header[6] + number * f.SECTION_HEADER.size)
        if row[1] not in (0, f.SHT_NOBITS) and row[5] and row[4] + row[5] <= len(data):
            yield row[1], row[4], row[5]


def seeds():
    """Name, bytes and way ("module", "foreign", "program", "library") of each file to mutate.

    A foreign module is loaded with its unknown symbols at 0.
    """
    found = [
        ("built shared object", build_module(module_spec()), "module"),
        ("built relocatable object", build_object(module_spec()), "module"),
        ("built position-independent program", build_module(program_spec()), "program"),
        ("built fixed program", fixed(build_module(program_spec())), "program"),
        ("built library", library_for(PROGRAM), "library"),
    ]
    if sys.platform == "linux" and sysconfig.get_platform().endswith("x86_64"):
        specs = [find_spec(name) for name in EXTENSIONS]
        paths = [str(spec.origin) for spec in specs if spec and str(spec.origin).endswith(".so")]
        found += [(Path(path).name, Path(path).read_bytes(), "foreign") for path in paths]
        objects = [path for folder in OBJECT_FOLDERS for path in sorted(Path(folder).glob("**/crt*.o"))]
        found += [(path.name, path.read_bytes(), "foreign") for path in objects if path.name in OBJECTS]
        found += [(path, Path(path).read_bytes(), "program") for path in PROGRAMS if Path(path).is_file()][:1]
    return [seed for seed in found if len(seed[1]) <= FILE_BYTES_MAX]


class Campaign:
    """Loads mutants and keeps count."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.seeds = seeds()
        self.libraries = {name: library_for(data) for name, data, way in self.seeds if way == "program"}
        self.areas = {name: areas_of(data) for name, data, _ in self.seeds}
        self.outcomes = Counter()
        self.per_file = Counter()
        self.findings = {}
        self.mutants = 0
        self.host = None

    def run(self, count):
        self.memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while self.mutants < count:
            if self.mutants % LIFE_MUTANTS == 0:
                self.host = Host(self.random.randrange(1 << 30))
            name, data, way = self.seeds[self.mutants % len(self.seeds)]
            mutant = mutated(self.random, data, self.areas[name])
            self.mutants += 1
            self.check(name, way, mutant)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.memory_before) // 1024
        if grown > GROWTH_MIB_MAX:
            self.findings["MEMORY"] = f"the process grew by {grown} MiB"

    def check(self, name, way, mutant):
        """Load one mutant; note what must not be."""
        before, start = self.host.books(), time.process_time()
        outcome = "loaded"
        try:
            self.load(name, way, mutant)
        except (SimBug, Exception) as error:
            outcome = self.judge(error, name)
        if time.process_time() - start > SECONDS_MAX:
            self.find("SLOW", name)
        if outcome != "finding" and self.host.books() != before:
            self.find("LEFT SOMETHING BEHIND", name)
            self.host = Host(1)
        self.outcomes[outcome] += 1
        self.per_file[f"{name}: {'loaded' if outcome == 'loaded' else 'refused'}"] += 1

    def load(self, name, way, mutant):
        if way == "module":
            self.host.module(self.host.loader, mutant)
        elif way == "foreign":
            self.host.module(self.host.lenient, mutant)
        elif way == "program":
            self.host.program(mutant, self.libraries[name])
        else:
            self.host.program(PROGRAM, mutant)

    def judge(self, error, name):
        """Return how a refusal is counted; anything but one clear error of ours is a finding."""
        clear = isinstance(error, VmksimError) and not isinstance(error, SimBug) and str(error)
        if not clear or "\n" in str(error):
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.find(
                f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno} {where.name}: {error}",
                name,
            )
            self.host = Host(1)
            return "finding"
        return error.check if isinstance(error, LoadRefused) else type(error).__name__

    def find(self, what, name):
        self.findings.setdefault(f"{name}: {what}", f"mutant {self.mutants}")

    def report(self):
        for finding, where in self.findings.items():
            print(f"FINDING {finding}\n  first by {where}")
        for name, number in sorted(self.per_file.items()):
            print(f"  {number:7} {name}")
        print("outcomes: " + ", ".join(f"{name} {number}" for name, number in self.outcomes.most_common()))
        print(f"{self.mutants} mutants: {len(self.findings)} findings")
        return 1 if self.findings else 0


def areas_of(data):
    """(offset, size, width of a field) of each structure that a loader reads."""
    header = f.HEADER.unpack_from(data)
    areas = [(16, 48, 2), (header[5], header[10] * 56, 4), (header[6], header[12] * 64, 4)]
    areas += [(header[5], header[10] * 56, 8), (header[6], header[12] * 64, 8)]
    for kind, offset, size in tables(data):
        if kind != f.SHT_PROGBITS:
            areas.append((offset, size, {f.SHT_STRTAB: 1, f.SHT_HASH: 4, f.SHT_GROUP: 4}.get(kind, 8)))
            if kind in (f.SHT_DYNSYM, f.SHT_SYMTAB, f.SHT_RELA):
                areas.append((offset, size, 4))
    return [area for area in areas if area[1]]


def mutated(chance, data, areas):
    """Change fields of the structures, flip bits anywhere, or cut the file."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if not out:
            break
        match chance.randrange(12):
            case 0:
                del out[chance.randrange(len(out)) :]
            case 1:
                out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
            case 2:
                at = chance.randrange(len(out))
                out[at : at + 16] = chance.randbytes(16)[: len(out) - at]
            case _:
                change_field(chance, out, areas)
    return bytes(out)


def change_field(chance, out, areas):
    """Give one field of a structure another value: a bit flipped, a notable number, or that of another field."""
    offset, size, width = chance.choice(areas)
    fields = size // width
    at = offset + width * chance.randrange(fields)
    if at + width > len(out):
        return
    value = int.from_bytes(out[at : at + width], "little")
    match chance.randrange(4):
        case 0:
            value ^= 1 << chance.randrange(8 * width)
        case 1:
            value = chance.choice(INTERESTING)
        case 2:
            value += chance.choice((-4096, -8, -1, 1, 8, 4096))
        case 3:
            other = offset + width * chance.randrange(fields)
            value = int.from_bytes(out[other : other + width], "little")
    out[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


if __name__ == "__main__":
    sys.exit(main())
