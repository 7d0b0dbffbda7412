"""The rules by which a program is linked with its libraries: order, scope, versions, copies, threads, refusals."""

import pytest

from sim.core.rng import Rng
from sim.hw.mmu import Rights
from sim.image.elf import (
    ElfImage,
    Export,
    Linking,
    ModuleSpec,
    Relocation,
    Segment,
    Symbol,
    ThreadStorage,
    VersionNeed,
    build_module,
)
from sim.kernel.layout import Layout, user_profile
from sim.kernel.linkmap import LinkError, LinkMap, LinkObject, load_order
from sim.kernel.program_loading import load_program
from sim.kernel.segment_buffers import RelocationError
from sim.kernel.thread_layout import ThreadPlace, thread_layout

PROGRAM, LIBRARY, OTHER = 0x5500_0000_0000, 0x7E00_0000_0000, 0x7E10_0000_0000
PLACE = 0x2000
NONE = Symbol(name="", value=0, size_bytes=0, kind="none", binding="local", defined=False)


def defined(name, value=0x1010, *, version="", index=0, **fields):
    values = {"kind": "function", "binding": "global", "size_bytes": 8, "section": 1} | fields
    return Symbol(name=name, value=value, defined=True, version=version, version_index=index, **values)


def wanted(name, *, version="", binding="global", value=0, kind="none"):
    return Symbol(
        name=name,
        value=value,
        size_bytes=8,
        kind=kind,
        binding=binding,
        defined=False,
        version=version,
        version_index=2 if version else 1,
    )


def relocation(kind, symbol=1, addend=0, offset=PLACE):
    return Relocation(offset=offset, kind=kind, symbol=symbol, addend=addend)


def segment(address, data, *, writable):
    return Segment(
        virtual_address=address,
        memory_bytes=0x1000,
        data=data,
        file_offset=address,
        readable=True,
        writable=writable,
        executable=not writable,
    )


def image(*symbols, relocations=(), kind="ET_DYN", at=0, data=bytes(64), threads=None, **linking):
    return ElfImage(
        type=kind,
        machine="EM_X86_64",
        entry=at + 0x1000,
        segments=(
            segment(at + 0x1000, b"\xc3" * 64, writable=False),
            segment(at + 0x2000, data, writable=True),
        ),
        symbols=(NONE, *symbols),
        relocations=tuple(relocations),
        modinfo=(),
        version_record=b"",
        has_thread_storage=threads is not None,
        linking=Linking(thread_storage=threads, **linking),
    )


def link(*images):
    bases = (PROGRAM, LIBRARY, OTHER)
    objects = [
        LinkObject(
            name=f"object{number}",
            image=one,
            base=one.first_page if one.type == "ET_EXEC" else bases[number] + 0x1000,
        )
        for number, one in enumerate(images)
    ]
    return LinkMap(objects)


def word(links, number=0, offset=0, size=8):
    data = links.linked()[number].segments[1].data
    return int.from_bytes(data[offset : offset + size], "little")


# ---------------------------------------------------------------- order


def test_libraries_are_loaded_breadth_first_and_once():
    files = {
        "a": image(needed=("c", "d")),
        "b": image(needed=("d", "a")),
        "c": image(soname="sea", needed=("b",)),
        "d": image(),
        "sea": image(),
    }
    order = load_order("main", image(needed=("a", "b", "sea")), files.get)
    assert [name for name, _ in order] == ["main", "a", "b", "sea", "c", "d"]
    order = load_order("main", image(needed=("a",)), files.get, first=("d",))
    assert [name for name, _ in order] == ["main", "d", "a", "c", "b"]


def test_a_library_that_is_not_there_is_refused():
    with pytest.raises(LinkError, match="needs nowhere") as caught:
        load_order("main", image(needed=("nowhere",)), {}.get)
    assert caught.value.check == "link.library"


def test_too_many_libraries_are_refused():
    with pytest.raises(LinkError, match="more than"):
        load_order("main", image(needed=("0",)), lambda name: image(needed=(str(int(name) + 1),)))


# ---------------------------------------------------------------- scope and binding


@pytest.mark.parametrize("kind", ["64", "GLOB_DAT", "JUMP_SLOT"])
def test_the_first_object_in_load_order_that_defines_a_symbol_wins(kind):
    user = image(wanted("f"), relocations=[relocation(kind)])
    assert word(link(user, image(defined("f")), image(defined("f", 0x1020)))) == LIBRARY + 0x1010
    assert word(link(user, image(), image(defined("f", 0x1020)))) == OTHER + 0x1020


def test_the_program_overrides_a_library_in_the_library_itself():
    library = image(defined("f"), relocations=[relocation("GLOB_DAT")])
    assert word(link(image(defined("f", 0x1030)), library), 1) == PROGRAM + 0x1030


@pytest.mark.parametrize(
    "own",
    [
        {"visibility": "hidden"},
        {"visibility": "internal"},
        {"visibility": "protected"},
        {"binding": "local"},
    ],
)
def test_hidden_protected_and_local_symbols_bind_to_themselves(own):
    library = image(defined("f", **own), relocations=[relocation("GLOB_DAT")])
    assert word(link(image(defined("f", 0x1030)), library), 1) == LIBRARY + 0x1010


def test_a_symbolic_library_binds_to_itself_first():
    library = image(defined("f"), relocations=[relocation("GLOB_DAT")], symbolic=True)
    assert word(link(image(defined("f", 0x1030)), library), 1) == LIBRARY + 0x1010


def test_hidden_and_local_definitions_are_nothing_for_others():
    user = image(wanted("f"), relocations=[relocation("64")])
    for own in ({"visibility": "hidden"}, {"binding": "local"}):
        with pytest.raises(LinkError, match="nobody defines f") as caught:
            link(user, image(defined("f", **own))).linked()
        assert caught.value.check == "link.unresolved"


def test_a_weak_definition_counts_and_a_weak_reference_may_stay_zero():
    user = image(wanted("f"), relocations=[relocation("64", addend=5)])
    links = link(user, image(defined("f", binding="weak")), image(defined("f", 0x1020)))
    assert word(links) == LIBRARY + 0x1010 + 5
    optional = link(image(wanted("f", binding="weak"), relocations=[relocation("GLOB_DAT")]))
    assert word(optional) == 0
    assert optional.linked()[0].unresolved == ("f",)


def test_a_hostile_name_stays_on_one_line_of_the_message():
    user = image(wanted("a\nb\x1b[2J" + "c" * 500), relocations=[relocation("64")])
    with pytest.raises(LinkError) as caught:
        link(user).linked()
    text = str(caught.value)
    assert r"nobody defines a\nb\x1b[2Jccc" in text
    assert text.isprintable()
    assert len(text) < 200


def test_absolute_symbols_do_not_move():
    user = image(wanted("f"), relocations=[relocation("64")])
    assert word(link(user, image(defined("f", 0x77, section=0xFFF1)))) == 0x77


# ---------------------------------------------------------------- versions


def versioned(*symbols, **linking):
    return image(*symbols, versioned=True, **linking)


def test_a_version_is_matched_by_name():
    user = image(wanted("f", version="V2"), relocations=[relocation("64")])
    library = versioned(
        defined("f", 0x1020, version="V1", index=2, version_hidden=True), defined("f", version="V2", index=3)
    )
    assert word(link(user, library)) == LIBRARY + 0x1010
    old = image(wanted("f", version="V1"), relocations=[relocation("64")])
    assert word(link(old, library)) == LIBRARY + 0x1020
    with pytest.raises(LinkError, match="f V3"):
        link(image(wanted("f", version="V3"), relocations=[relocation("64")]), library).linked()


def test_without_a_version_the_base_or_the_only_default_one_is_taken():
    user = image(wanted("f"), relocations=[relocation("64")])
    base = versioned(defined("f", 0x1020, version="V2", index=3), defined("f", version="V1", index=2))
    assert word(link(user, base)) == LIBRARY + 0x1010
    hidden = defined("f", 0x1030, version="V3", index=4, version_hidden=True)
    assert word(link(user, versioned(hidden, defined("f", version="V2", index=3)))) == LIBRARY + 0x1010
    with pytest.raises(LinkError):
        link(user, versioned(hidden)).linked()


def test_a_library_without_versions_serves_every_version():
    user = image(wanted("f", version="V9"), relocations=[relocation("64")])
    assert word(link(user, image(defined("f")))) == LIBRARY + 0x1010


def test_a_version_that_a_library_lacks_is_refused_unless_weak():
    library = versioned(defined("f"), soname="lib.so", versions_defined=("lib.so", "V1"))
    needs = [VersionNeed(library="lib.so", version="V2", weak=weak) for weak in (False, True)]
    with pytest.raises(LinkError, match="needs version V2") as caught:
        link(image(version_needs=(needs[0],)), library)
    assert caught.value.check == "link.version"
    link(image(version_needs=(needs[1],)), library)


# ---------------------------------------------------------------- programs


def test_a_fixed_program_lies_where_it_says_and_nowhere_else():
    program = image(kind="ET_EXEC", at=0x40_0000, relocations=[relocation("RELATIVE", 0, 7, 0x40_2000)])
    links = link(program)
    assert links.linked()[0].entry == 0x40_1000
    assert word(links) == 7
    with pytest.raises(LinkError, match="runs at 0x401000 only"):
        LinkMap([LinkObject(name="main", image=program, base=0x50_0000)])


def test_a_copy_takes_the_librarys_relocated_bytes_and_becomes_the_variable():
    copy = defined("v", 0x40_2010, kind="object", size_bytes=8, section=2)
    program = image(copy, kind="ET_EXEC", at=0x40_0000, relocations=[relocation("COPY", offset=0x40_2010)])
    library = image(
        defined("v", 0x2008, kind="object", size_bytes=8),
        relocations=[relocation("RELATIVE", 0, 0x1044, 0x2008), relocation("GLOB_DAT")],
    )
    links = link(program, library)
    assert word(links, 0, 0x10) == LIBRARY + 0x1044
    assert word(links, 1) == 0x40_2010


def test_a_program_that_copies_what_nobody_has_is_refused():
    copy = defined("v", 0x40_2010, kind="object", section=2)
    program = image(copy, kind="ET_EXEC", at=0x40_0000, relocations=[relocation("COPY", offset=0x40_2010)])
    with pytest.raises(LinkError, match="nobody defines v"):
        link(program, image()).linked()


def test_the_programs_jump_is_a_functions_address_but_not_what_calls_go_to():
    jump = wanted("f", value=0x40_1020, kind="function")
    program = image(jump, kind="ET_EXEC", at=0x40_0000)
    library = image(
        defined("f"), relocations=[relocation("GLOB_DAT"), relocation("JUMP_SLOT", offset=0x2008)]
    )
    links = link(program, library)
    assert word(links, 1) == 0x40_1020
    assert word(links, 1, 8) == LIBRARY + 0x1010


# ---------------------------------------------------------------- kinds


def test_distances_sizes_and_indirect_functions():
    symbols = (defined("f"), defined("g", kind="ifunc"))
    kinds = [
        relocation("PC64", 1, 4, 0x2000),
        relocation("SIZE64", 1, 1, 0x2008),
        relocation("IRELATIVE", 0, 0x1018, 0x2010),
        relocation("JUMP_SLOT", 2, 0, 0x2018),
        relocation("PC32", 1, 0, 0x2020),
    ]
    links = link(image(*symbols, relocations=kinds))
    assert word(links) == (0x1010 + 4 - 0x2000) % 2**64
    assert word(links, 0, 8) == 9
    assert word(links, 0, 16) == PROGRAM + 0x1018
    assert word(links, 0, 24) == PROGRAM + 0x1010
    assert word(links, 0, 32, 4) == (0x1010 - 0x2020) % 2**32
    assert links.linked()[0].indirect == (PROGRAM + 0x2010, PROGRAM + 0x2018)


@pytest.mark.parametrize("kind", ["TLSDESC", "GOTPCREL"])
def test_kinds_that_no_linker_here_applies_are_refused(kind):
    with pytest.raises(RelocationError, match=kind):
        link(image(defined("f"), relocations=[relocation(kind)])).linked()


def test_a_relocation_in_code_is_refused():
    with pytest.raises(RelocationError, match="not writable"):
        link(image(defined("f"), relocations=[relocation("64", offset=0x1000)])).linked()
    with pytest.raises(RelocationError, match="no segment"):
        link(image(defined("f"), relocations=[relocation("64", offset=0x9000)])).linked()


def test_relro_pages_are_mapped_read_only():
    one = image(data=bytes(range(64)), relro=(0x2000, 0x3000))
    (made,) = link(one).linked()
    assert [(each.name, each.rights) for each in made.segments] == [
        ("text", Rights(execute=True)),
        ("relro", Rights()),
    ]


# ---------------------------------------------------------------- threads


def block(size, alignment=8, address=0):
    return ThreadStorage(virtual_address=address, file_bytes=0, memory_bytes=size, alignment=alignment)


def test_thread_blocks_lie_below_the_thread_pointer_in_load_order():
    assert thread_layout([None, block(16), None, block(10, 4)]) == (
        None,
        ThreadPlace(module=1, offset=16),
        None,
        ThreadPlace(module=2, offset=28),
    )


def test_a_gap_left_by_alignment_is_used_by_a_later_block():
    places = thread_layout([block(8), block(64, 64), block(16, 16)])
    assert [place.offset for place in places] == [8, 128, 32]


def test_a_block_keeps_its_addresss_place_within_the_alignment():
    (place,) = thread_layout([block(24, 32, 0x1008)])
    assert (-place.offset - 0x1008) % 32 == 0
    assert place.offset >= 24


def test_thread_relocations_name_module_offset_and_distance():
    variable = defined("t", 4, kind="tls")
    library = image(variable, threads=block(32), relocations=[])
    user = image(
        wanted("t", kind="tls"),
        threads=block(16),
        relocations=[
            relocation("DTPMOD64", 1, 0, 0x2000),
            relocation("DTPOFF64", 1, 1, 0x2008),
            relocation("TPOFF64", 1, 2, 0x2010),
            relocation("TPOFF64", 0, 3, 0x2018),
        ],
    )
    links = link(user, library)
    assert [word(links, 0, at) for at in (0, 8)] == [2, 5]
    assert word(links, 0, 16) == (4 + 2 - 48) % 2**64
    assert word(links, 0, 24) == (3 - 16) % 2**64


def test_a_thread_relocation_to_an_object_without_a_block_is_refused():
    with pytest.raises(RelocationError, match="no thread storage"):
        link(image(relocations=[relocation("TPOFF64", 0)])).linked()


# ---------------------------------------------------------------- user worlds


def test_a_built_program_is_placed_and_bound_to_the_library_it_needs():
    layout = Layout(Rng(3).stream("layout"), user_profile())
    spec = ModuleSpec(name="agent", version="1", needed=("libc.so.6",), imports=("free",))
    library = build_module(ModuleSpec(name="libc", version="1", exports=(Export(name="free", offset=2),)))
    libraries = {"lib64/libc.so.6": library, "lib64/unused.so": b"not read"}
    program, libc = load_program(layout, "agent", build_module(spec), libraries)
    kinds = {region.kind: region.base for region in layout.regions()}
    assert kinds == {"exe": program.base, "library": libc.base}
    text = next(part for part in libc.segments if part.name == "text")
    data = next(part for part in program.segments if part.name == "data")
    assert (text.base + 2).to_bytes(8, "little") in data.data


def test_a_symbol_that_no_library_defines_stops_the_program():
    layout = Layout(Rng(3).stream("layout"), user_profile())
    spec = ModuleSpec(name="agent", version="1", imports=("missing",))
    with pytest.raises(LinkError, match="agent: nobody defines missing"):
        load_program(layout, "agent", build_module(spec), {})
