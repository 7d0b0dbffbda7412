"""Programs and libraries in simulated memory are byte for byte what this machine's dynamic linker makes at the same bases.

A real process is stopped when its linker has relocated everything and none of its code has run (`stopped_process`).
Our link map gets the same files and the bases that the process has, and is mapped into simulated memory; then every
byte of every segment is compared.  What may differ, and why:

* `chosen`: places of indirect functions.  Code on the real processor chose there; the choice must be code (of the vDSO, too).
* `no choice`: libc's chooser for the cache sizes, which is run for its side effect and returns 0.
* `dynamic`: glibc turns the addresses in its own view of a dynamic table into absolute ones: file value plus slide.
* `debug`: DT_DEBUG of the program, where the linker leaves a pointer for debuggers.
* `cache`: sizes of the processor's caches, which libc's chooser for memcpy stores when it is asked (libc only).
* `threads`: thread-local distances, all by one amount; only where glibc (2.41 and later) keeps room for itself there.
* `linker`: writable memory of the linker itself, which is running.
"""

import os
import pickle
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from sim.core.context import Sim
from sim.core.units import MIB
from sim.hw.memory import PhysicalMemory
from sim.image.elf import read_elf
from sim.kernel.linkmap import LinkMap, LinkObject, load_order
from sim.kernel.memory import KernelMemory

pytestmark = pytest.mark.client

SCRIPT = Path(__file__).with_name("stopped_process.py")
SYSTEM_LIBRARIES = (
    "libm.so.6",
    "libz.so.1",
    "libcrypto.so.3",
    "libssl.so.3",
    "libstdc++.so.6",
    "libcrypt.so.1",
)
EXTENSIONS = ("_json", "_struct", "_ssl", "_hashlib", "math", "array")
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64")
CACHE_WORDS_MAX = 16
NEW_THREAD_ROOM = (2, 41)
DENIED = 3
DEBUG_TAG = 21
COMPARED_MIN = 5
PACKED = "-Wl,-z,pack-relative-relocs"
MAIN = """
#include <math.h>
#include <stdio.h>
extern int shared[4], *own(void);
extern __thread int per_thread;
static __thread char mine[100] = "thread";
double (*const function)(double) = sin;
int main(void) { fputs(mine, stdout); return *own() + shared[1] + per_thread + (int)function(1.0); }
"""
LIBRARY = """
int shared[4] = {1, 2, 3, 4}, *where = shared + 1;
__thread int per_thread = 7;
static __thread long local[9] __attribute__((aligned(64)));
__attribute__((visibility("protected"))) int kept = 5;
int other(void) __attribute__((weak));
int *own(void) { local[kept]++; return where + kept + per_thread + (other ? other() : 0); }
"""


def system_libraries():
    found = [Path(folder, name) for name in SYSTEM_LIBRARIES for folder in FOLDERS]
    return list({path.name: str(path) for path in reversed(found) if path.is_file()}.values())


def extensions():
    specs = [find_spec(name) for name in EXTENSIONS]
    return [str(spec.origin) for spec in specs if spec and str(spec.origin).endswith(".so")]


class Process:
    """The stopped process: which files it maps where, and its bytes."""

    def __init__(self, program, libraries, folder):
        output = folder / "process.pickle"
        command = [sys.executable, str(SCRIPT), str(output), program, *libraries]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == DENIED:
            raise PermissionError("tracing a child is denied here")
        assert done.returncode == 0, done.stderr
        rows = pickle.loads(output.read_bytes())
        self.code = [(row[0], row[1]) for row in rows if "x" in row[2]]
        self.rows = [row for row in rows if Path(row[3]).is_file() and row[4][:4] == b"\x7fELF"]
        elves = [row[3] for row in self.rows]
        self.rows = [row for row in rows if row[3] in elves]
        self.bases = {}
        self.files = {}
        for start, _, _, path, _ in self.rows:
            self.bases.setdefault(path, start)
        for path in self.bases:
            image = read_elf(Path(path).read_bytes())
            self.files[path] = self.files[image.linking.soname or path] = (path, image)

    def of(self, name):
        return self.files.get(name) or self.files.get(os.path.realpath(name)) or (None, None)

    def read(self, address, size):
        data = b""
        for start, end, _, _, content in self.rows:
            if start <= address < end and size > len(data):
                data += content[address - start : address - start + size - len(data)]
                address = start + len(content)
        assert len(data) == size
        return data


class Linked:
    """The same files at the same bases in simulated memory."""

    def __init__(self, process, program, libraries):
        self.order = load_order(
            program, process.of(program)[1], lambda name: process.of(name)[1], first=libraries
        )
        objects = [
            LinkObject(name=name, image=image, base=process.bases[process.of(name)[0]])
            for name, image in self.order
        ]
        self.links = LinkMap(objects)
        self.memory = KernelMemory(Sim(seed=1), PhysicalMemory(64 * MIB), name="process")
        self.linked = self.links.linked()
        for one in self.linked:
            for segment in one.segments:
                self.memory.map_segment(
                    segment.base, segment.data, segment.rights, owner=one.name, size_bytes=segment.size_bytes
                )


def dynamic_words(path):
    """Addresses in the file of the values of its dynamic table, with their tags."""
    peer = next(ELFFile(BytesIO(Path(path).read_bytes())).iter_segments("PT_DYNAMIC"))
    return {peer["p_vaddr"] + 16 * at + 8: tag["d_tag"] for at, tag in enumerate(peer.iter_tags())}


def compare(process, linked):
    """Compare all segments; return the words that differ by reason, and the bytes compared of each file."""
    reasons, compared = Counter(), {}
    for (name, image), one in zip(linked.order, linked.linked, strict=True):
        path = process.of(name)[0]
        slide = one.base - image.first_page
        words = {address + slide: tag for address, tag in dynamic_words(path).items()}
        words |= {each.offset + slide: each.kind for each in image.relocations if each.kind == "TPOFF64"}
        compared[path] = 0
        for segment in image.segments:
            if segment.writable and "ld-linux" in path:
                reasons["linker"] += segment.memory_bytes // 8
                continue
            start = segment.virtual_address + slide
            ours = linked.memory.read(start, segment.memory_bytes)
            theirs = process.read(start, segment.memory_bytes)
            compared[path] += len(ours)
            for address in differing_words(start, ours, theirs):
                at = address - start
                pair = [int.from_bytes(data[at : at + 8], "little") for data in (ours, theirs)]
                reasons[reason(process, one, words, slide, address, pair, path, segment)] += 1
    return reasons, compared


def glibc_version():
    return tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")[:2]))


def differing_words(start, ours, theirs):
    if ours == theirs:
        return
    before = None
    for at in range(0, len(ours), 512):
        if ours[at : at + 512] == theirs[at : at + 512]:
            continue
        for byte in range(at, min(at + 512, len(ours))):
            word = (start + byte) & ~7
            if ours[byte] != theirs[byte] and word != before:
                before = word
                yield word


def reason(process, one, words, slide, address, pair, path, segment):
    """Name why a word may differ; AssertionError if nothing allows it."""
    ours, theirs = pair
    if address in one.indirect and not theirs:
        return "no choice"
    if address in one.indirect:
        assert any(start <= theirs < end for start, end in process.code), hex(theirs)
        return "chosen"
    if words.get(address) == "TPOFF64":
        return f"threads {ours - theirs}"
    if words.get(address) == "DT_DEBUG":
        return "debug"
    if address in words:
        assert theirs == ours + slide, (path, hex(address))
        return "dynamic"
    assert segment.writable, (path, hex(address))
    assert Path(path).name.startswith("libc.so"), (path, hex(address), ours, theirs)
    return "cache"


def fixed_program(gcc, folder):
    """A program at fixed addresses with its own copy of a library's variable, and a library with thread storage."""
    (folder / "main.c").write_text(MAIN)
    (folder / "library.c").write_text(LIBRARY)
    library, program = folder / "libown.so", folder / "main"
    subprocess.run(
        [gcc, "-O1", "-shared", "-fPIC", PACKED, "-o", str(library), str(folder / "library.c")], check=True
    )
    command = [gcc, "-O1", "-no-pie", "-fno-pic", "-o", str(program), str(folder / "main.c"), str(library)]
    subprocess.run([*command, "-Wl,--hash-style=sysv", "-lm"], check=True)
    return str(program)


@pytest.fixture(scope="module", params=["system", "python", "fixed"])
def both(request, tmp_path_factory, program, lacking):
    if sys.platform != "linux" or not Path("/lib64/ld-linux-x86-64.so.2").is_file():
        lacking("a dynamic linker for x86-64 Linux")
    folder = tmp_path_factory.mktemp("process")
    path, libraries = "/bin/cat", system_libraries()
    if request.param == "python":
        path, libraries = os.path.realpath(sys.executable), extensions()
    if request.param == "fixed":
        path, libraries = fixed_program(program("gcc"), folder), []
    try:
        process = Process(path, libraries, folder)
    except PermissionError:
        lacking("the right to trace a child process")
    if len(process.bases) < COMPARED_MIN:
        lacking("a handful of shared objects")
    return process, Linked(process, path, libraries)


def test_every_byte_is_the_dynamic_linkers_but_for_named_words(both):
    process, linked = both
    reasons, compared = compare(process, linked)
    assert len(compared) == len(linked.order) >= COMPARED_MIN
    assert sum(compared.values()) > 2 * MIB
    assert reasons["cache"] <= CACHE_WORDS_MAX
    assert reasons["debug"] <= 1
    moved = [name for name in reasons if name.startswith("threads")]
    assert len(moved) <= (glibc_version() >= NEW_THREAD_ROOM), moved
    reasons = Counter({name.partition(" ")[0] if name in moved else name: n for name, n in reasons.items()})
    assert reasons["no choice"] <= 1
    assert reasons["dynamic"] <= 16 * len(compared)
    assert set(reasons) <= {"cache", "chosen", "debug", "dynamic", "linker", "no choice", "threads"}


def test_relro_and_rights_are_those_that_the_linker_sets(both):
    process, linked = both
    rights = {}
    for start, end, flags, _, _ in process.rows:
        rights |= dict.fromkeys(range(start, end, 4096), flags[:3])
    relro = 0
    for one in linked.linked:
        for segment in one.segments:
            assert rights[segment.base] == str(segment.rights), (one.name, segment.name)
            relro += segment.name == "relro"
    assert relro >= COMPARED_MIN - 1


def test_every_kind_of_relocation_of_these_files_was_met(both):
    _, linked = both
    kinds = Counter(relocation.kind for _, image in linked.order for relocation in image.relocations)
    assert {"RELATIVE", "64", "GLOB_DAT", "TPOFF64"} <= set(kinds)
    assert sum(kinds.values()) > 1000
    if linked.order[0][1].type == "ET_EXEC" and linked.order[0][1].first_page < 1 << 32:
        assert {"COPY", "DTPMOD64"} <= set(kinds)


def test_a_wrong_slide_is_seen(both):
    process, linked = both
    name, image = linked.order[1]
    path = process.of(name)[0]
    moved = LinkMap(
        [
            LinkObject(name=one.name, image=one.image, base=one.base + 4096 * (one.name == name))
            for one in linked.links.objects
        ]
    ).linked()[1]
    data = next(segment for segment in moved.segments if segment.name == "relro")
    assert process.read(process.bases[path] + data.base - moved.base, len(data.data)) != data.data
    assert image.relocations
