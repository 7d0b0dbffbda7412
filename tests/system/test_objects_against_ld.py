"""Relocatable objects that gcc makes are relocated byte for byte as GNU ld relocates them at the same addresses."""

import subprocess

import pytest

from sim.core.context import Sim
from sim.core.units import MIB
from sim.errors import FormatError
from sim.hw.memory import PhysicalMemory
from sim.image.elf import Export, ModuleSpec, build_module
from sim.kernel.layout import Layout, LayoutProfile
from sim.kernel.loader import ModuleLoader
from sim.kernel.memory import KernelMemory
from sim.kernel.object_layout import ObjectLayout
from sim.kernel.object_relocation import Tables

from .linked_by_ld import compiled, linked_both_ways

pytestmark = pytest.mark.client

SOURCE = """
extern int vmk_HeapAlloc(unsigned long size), vmk_Counter, vmk_Free(void *what);
extern void vmk_Optional(void) __attribute__((weak));
static int counter = 5;
int shared_table[16];
const char *names[] = {"alpha", "beta", "gammas"};
static const double factor = 3.25;
int helper(int x) { return x * counter + vmk_Counter + shared_table[x & 15]; }
int (*const handlers[])(int) = {helper, helper};
double scale(double d) { return d * factor; }
int pick(int x) {
    switch (x) {
    case 0: return 7;
    case 1: return vmk_HeapAlloc(3);
    case 2: return 99;
    case 3: return vmk_Counter;
    case 4: return 12;
    case 5: return vmk_Free(names);
    case 6: return helper(3);
    default: return -1;
    }
}
int init_module(void) {
    if (vmk_Optional) vmk_Optional();
    return helper(pick(vmk_HeapAlloc(8))) + names[1][0];
}
void cleanup_module(void) { counter = 0; vmk_Free(&counter); }
"""
CLASSES = """
extern "C" int vmk_HeapAlloc(unsigned long);
struct Device { virtual int probe(int x) { return x + 1; } virtual int attach() = 0; int number; };
template <class T> inline T largest(T a, T b) { static T seen; seen = a; return a > b ? a : b; }
struct Disk : Device { int attach() override { return vmk_HeapAlloc(largest(3L, 4L)) + largest(1, number); } };
Disk disk;
Device *first = &disk;
extern "C" int init_module() { return first->attach() + first->probe(2); }
"""
DIRECTIVES = """
        .globl init_module, variable, lone
        .text
init_module:
        .byte 0xb0, tiny
        .byte 0x66, 0xb8
        .word small
        call far_function@PLT
        movq variable@GOTPCREL(%rip), %rax
        movq lone@GOTPCREL(%rip), %rbx
        ret
        .data
        .size variable, 24
variable:
        .byte tiny, tiny - 0x90
        .word small
        .long address_32
        .long address_32s
        .quad init_module + 17
        .quad far_function - .
        .long variable@SIZE + 1
        .quad variable@SIZE
        .quad variable@GOTOFF
        .quad variable@GOT
        .long lone@GOT
        .quad lone@GOTPCREL
        .quad far_function@PLTOFF
        .long _GLOBAL_OFFSET_TABLE_ - .
        .quad _GLOBAL_OFFSET_TABLE_ - . + 4
        .word neighbour - .
        .byte neighbour - .
lone:   .quad 1
        .section .data.near, "aw"
neighbour:
        .byte 7
"""
LOW = 0x4180_6020_0000
NEAR = {"text": LOW, "rodata": LOW + 0x1000_0000, "data": LOW + 0x1800_0000}
TOP = {name: base - LOW + 0xFFFF_FFFF_C000_0000 for name, base in NEAR.items()}
APART = {"text": LOW, "rodata": 0x5123_4000_0000, "data": 0x6543_2100_0000}
IMPORTS = {"vmk_HeapAlloc": 0x12340, "vmk_Counter": 0x7654, "vmk_Free": 0x23450, "vmk_Optional": 0x24560}


def imports(base, **more):
    return {name: base - 0x4000_0000 + offset for name, offset in (IMPORTS | more).items()}


def check(pair, *, sections=3):
    assert pair.theirs.keys() == pair.ours.keys()
    assert len(pair.ours) >= sections
    for name, data in pair.ours.items():
        assert data == pair.theirs[name], (
            f"{name}: {[at for at, (a, b) in enumerate(zip(data, pair.theirs[name], strict=True)) if a != b]}"
        )


def kinds(pair):
    return {relocation.kind for section in pair.image.sections for relocation in section.relocations}


@pytest.mark.parametrize(
    ("options", "bases", "used"),
    [
        (["-mcmodel=kernel", "-fno-pic"], TOP, {"32S", "PLT32", "PC32", "64"}),
        (["-mcmodel=large", "-fno-pic"], APART, {"64"}),
        (["-mcmodel=large", "-fPIC"], NEAR, {"GOT64", "GOTOFF64", "GOTPC64", "PLTOFF64", "PC64"}),
        (["-fPIC"], NEAR, {"GOTPCREL", "REX_GOTPCRELX", "PLT32", "PC32"}),
        (["-fPIC", "-fno-plt"], NEAR, {"GOTPCRELX", "REX_GOTPCRELX"}),
        (["-fpie", "-ffunction-sections", "-fdata-sections"], NEAR, {"PLT32", "PC32"}),
        (["-fPIC", "-fcommon"], NEAR, {"GOTPCREL", "PLT32"}),
        (["-fPIC", "-g"], NEAR, {"GOTPCREL"}),
    ],
)
def test_c_objects_of_each_code_model_are_what_ld_makes(program, tmp_path, options, bases, used):
    path = compiled(program("gcc"), SOURCE, options, tmp_path)
    pair = linked_both_ways(program("ld"), path, bases, imports(bases["text"]), bases["data"] + 0x10_0000)
    check(pair)
    assert used <= kinds(pair)


class Unsigned:
    """A verifier that knows no signature; the loader is told not to insist."""

    def verify(self, name, _data, _vib):
        raise FormatError("signature", name, "there is none")


def test_a_module_in_simulated_memory_is_what_ld_makes_at_its_random_places(program, tmp_path):
    options = ["-fpie", "-fvisibility=hidden"]
    path = compiled(program("gcc"), SOURCE.replace("(vmk_Optional)", "(vmk_Counter)"), options, tmp_path)
    sim = Sim(seed=8)
    memory = KernelMemory(sim, PhysicalMemory(16 * MIB))
    layout = Layout(sim.rng.stream("layout"), LayoutProfile())
    loader = ModuleLoader(sim, memory, layout, Unsigned(), enforce=False)
    exports = tuple(Export(name=name, offset=4 * number) for number, name in enumerate(IMPORTS))
    core = ModuleSpec(name="vmkernel", version="1", text=bytes(64), exports=exports)
    loader.load_kernel("vmkernel", build_module(core), vib=None)
    module = loader.load("driver", path.read_bytes(), vib=None)
    bases = {segment.name: segment.base for segment in module.segments}
    symbols = dict(loader.get("vmkernel").exports)
    pair = linked_both_ways(program("ld"), path, bases, symbols, bases["data"] + 0x10_0000)
    check(pair)
    places = ObjectLayout(pair.image).places(bases).sections
    for section in pair.image.sections:
        if section.data:
            found = memory.read(places[section.index], section.size_bytes)
            assert found == pair.theirs[f".s{section.index}"], section.name


def test_c_plus_plus_objects_with_groups_are_what_ld_makes(program, tmp_path):
    path = compiled(program("g++"), CLASSES, ["-fPIC", "-fno-exceptions", "-fno-rtti"], tmp_path, ".cc")
    symbols = imports(LOW, __cxa_pure_virtual=0x999)
    pair = linked_both_ways(program("ld"), path, NEAR, symbols, NEAR["data"] + 0x10_0000)
    check(pair)
    assert any(section.name.startswith(".text._Z") for section in pair.image.sections)


def test_a_group_in_two_objects_is_loaded_once_after_a_relocatable_link(program, tmp_path):
    halves = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        source = CLASSES.replace("init_module", name) if name == "two" else CLASSES
        source = source.replace("disk", f"disk_{name}").replace("first", f"first_{name}")
        halves.append(
            compiled(program("g++"), source, ["-fPIC", "-fno-exceptions", "-fno-rtti"], folder, ".cc")
        )
    path = tmp_path / "module.o"
    subprocess.run([program("ld"), "-r", "-o", str(path), *map(str, halves)], check=True)
    symbols = imports(LOW, __cxa_pure_virtual=0x999)
    pair = linked_both_ways(program("ld"), path, NEAR, symbols, NEAR["data"] + 0x10_0000)
    check(pair)


def test_each_assembler_directive_is_what_ld_makes_of_it(program, tmp_path):
    path = tmp_path / "module.o"
    source = tmp_path / "module.s"
    source.write_text(DIRECTIVES)
    symbols = {
        "tiny": 0x7F,
        "small": 0xFFFE,
        "address_32": 0xFEDC_BA98,
        "address_32s": 0x7FFF_0000,
        "far_function": NEAR["text"] - 0x1000,
    }
    subprocess.run([program("as"), "-mrelax-relocations=no", "-o", str(path), str(source)], check=True)
    pair = linked_both_ways(program("ld"), path, NEAR, symbols, NEAR["data"] + 0x10_0000)
    check(pair, sections=2)
    assert {
        "8",
        "16",
        "32",
        "64",
        "PC64",
        "PC16",
        "PC8",
        "SIZE32",
        "SIZE64",
        "GOTOFF64",
        "GOT64",
        "GOT32",
    } <= kinds(pair)
    assert {"GOTPCREL64", "PLTOFF64", "GOTPC32", "GOTPC64", "GOTPCREL"} <= kinds(pair)
    assert Tables.of(pair.image).slots
