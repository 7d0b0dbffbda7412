"""Each rule of the page walk is broken on purpose, in each implementation; the directed cases must notice.

A bug is an edit of the source in memory: the modules are loaded again from the edited text.  A case that the sound
modules pass and the broken ones fail is what notices; without one the test fails.
"""

import sys
import types
from pathlib import Path

import pytest

from sim.hw.mmu import classes, many, paging, walk

from .walk_cases import CASES, run_many, run_one, wanted_of

HOMES = {"paging": paging, "walk": sys.modules[walk.__module__], "classes": classes, "many": many}


def load(home, *edits):
    """Load the three modules anew with `edits` (old text, new text) in one of them."""
    kept = {module.__name__: module for module in HOMES.values()}
    fresh = {}
    try:
        for name, module in HOMES.items():
            source = Path(module.__file__).read_text(encoding="utf-8")
            for old, new in edits if name == home else ():
                assert source.count(old) == 1, f"{source.count(old)} places in {name} read {old!r}"
                source = source.replace(old, new)
            made = sys.modules[module.__name__] = fresh[name] = types.ModuleType(module.__name__)
            exec(compile(source, module.__file__, "exec"), made.__dict__)
    finally:
        sys.modules.update(kept)
    return fresh


def noticed_by(run, fresh):
    """Return the names of the cases that fail; an exception means that the bug was planted badly, and passes on."""
    return [each.name for each in CASES if run(each, fresh) != wanted_of(each)]


def one(each, fresh):
    return run_one(each, fresh["walk"], fresh["paging"])


def alone(each, fresh):
    return run_many(each, fresh["many"], fresh["paging"])


def in_company(each, fresh):
    return (*run_many(each, fresh["many"], fresh["paging"], company=True)[:3], wanted_of(each)[3])


IN_PAGING = {
    "reserved address bits unchecked": ("_PHYSICAL_FIELD & ~address | (0 if", "(0 if"),
    "NX accepted without NXE": ("(0 if nxe else NO_EXECUTE)", "0"),
    "PS of a PML4E accepted": ("common | LARGE | (GLOBAL if amd else 0)", "common | (GLOBAL if amd else 0)"),
    "PS of a PML5E accepted": ("            common | LARGE,\n        ),", "            common,\n        ),"),
    "low bits of a 2 MiB leaf accepted": ("common | _LARGE_LOW_BITS[2]", "common"),
    "low bits of a 1 GiB leaf accepted": ("common | _LARGE_LOW_BITS[3] if", "common if"),
    "PAT bit 12 of large leaves reserved": (
        "_LARGE_LOW_BITS = {3: 0x3FFFE000, 2: 0x1FE000}",
        "_LARGE_LOW_BITS = {3: 0x3FFFF000, 2: 0x1FF000}",
    ),
    "bit 7 of a PTE reserved": (
        "leaf_reserved=(\n            0,\n            common,",
        "leaf_reserved=(\n            0,\n            common | LARGE,",
    ),
    "1 GiB pages never there": (
        "common | _LARGE_LOW_BITS[3] if gigabyte_pages else common | LARGE",
        "common | LARGE",
    ),
    "1 GiB pages always there": (
        "common | _LARGE_LOW_BITS[3] if gigabyte_pages else common | LARGE",
        "common | _LARGE_LOW_BITS[3]",
    ),
    "AMD's reserved bit forgotten": ("(GLOBAL if amd else 0)", "0"),
    "AMD's reserved bit on Intel": ("(GLOBAL if amd else 0)", "GLOBAL"),
    "five levels walked as four": ("return 5 if self.la57 else 4", "return 4"),
    "MAXPHYADDR fixed": ("((1 << maxphyaddr) - 1)", "((1 << 40) - 1)"),
}

IN_WALK = {
    "W from the leaf only": (
        "rights = _RIGHTS[every",
        "every = entry & WRITABLE | every & ~WRITABLE\n    rights = _RIGHTS[every",
    ),
    "U from the leaf only": (
        "rights = _RIGHTS[every",
        "every = entry & USER | every & ~USER\n    rights = _RIGHTS[every",
    ),
    "NX from the leaf only": ("if some & NO_EXECUTE", "if entry & NO_EXECUTE"),
    **{
        f"NX ignored at level {level}": (
            "        some |= entry",
            f"        some |= entry if level != {level} else 0",
        )
        for level in (1, 2, 3, 4, 5)
    },
    "WP ignored": (" or not control.wp", " or True"),
    "WP always on": (" or not control.wp", ""),
    "WP asked for user writes": (
        "permitted = _user_may(rights, access) if access.user_mode",
        "permitted = (_user_may(rights, access) or not control.wp and rights.user) if access.user_mode",
    ),
    "SMEP off": ("not (rights.user and control.smep)", "True"),
    "AC disables SMEP": (
        "not (rights.user and control.smep)",
        "not (rights.user and control.smep and not control.ac)",
    ),
    "SMAP off": ("if rights.user and control.smap and", "if False and"),
    "SMAP ignores AC": ("(access.implicit or not control.ac)", "True"),
    "AC exempts implicit accesses": ("(access.implicit or not control.ac)", "not control.ac"),
    "implicit accesses counted as user": ("return self.user and not self.implicit", "return self.user"),
    "reserved bits unchecked": ("if entry & (leaf_reserved if leaf else table_reserved):", "if False:"),
    "reserved checked before present": (
        "        if not entry & PRESENT:",
        (
            "        if entry & table_reserved:\n"
            "            return PageFault(error_code=_error_code(control, access) | 9, cr2=va, level=level)\n"
            "        if not entry & PRESENT:"
        ),
    ),
    "RSVD without P": ("| FAULT_PRESENT | FAULT_RESERVED", "| FAULT_RESERVED"),
    "I/D always": ("_FETCH and (control.smep or control.nxe)", "_FETCH"),
    "I/D by NXE alone": ("(control.smep or control.nxe)", "control.nxe"),
    "I/D by SMEP alone": ("(control.smep or control.nxe)", "control.smep"),
    "U/S always set": ("        code |= FAULT_USER", "        pass\n    code |= FAULT_USER"),
    "W/R never set": ("code |= FAULT_WRITE", "pass"),
    "A set on a not-present entry": (
        "        if not entry & PRESENT:",
        "        if not entry & PRESENT:\n            write_u64(entry_pa, entry | ACCESSED)\n        if not entry & PRESENT:",
    ),
    "A set in a denied leaf": (
        "    if denied:",
        "    if denied:\n        write_u64(entry_pa, entry | ACCESSED)\n    if denied:",
    ),
    "D set on a denied write": (
        "    if denied:",
        "    if denied:\n        write_u64(entry_pa, entry | DIRTY)\n    if denied:",
    ),
    "D set on reads": ("write = access.kind is _WRITE\n", "write = True\n"),
    "D never set": ("(DIRTY if dirty else 0)", "0"),
    "A only in the leaf": ("in path[:-1]:", "in []:"),
    "A not in the leaf": ("leaf | ACCESSED | (DIRTY", "leaf | (DIRTY"),
    "D lost where one entry stands at two levels": (
        "        write_u64(leaf_pa, wanted)",
        (
            "        write_u64(leaf_pa, wanted)\n    for entry_pa, entry in path[:-1]:\n"
            "        write_u64(entry_pa, entry | ACCESSED)"
        ),
    ),
    "key applied to fetches": ("and rights.user and access.kind is not _FETCH and", "and rights.user and"),
    "key applied to supervisor pages": ("control.pke and rights.user and", "control.pke and"),
    "keys ignored": ("if control.pke and", "if False and"),
    "keys without PKE": ("if control.pke and", "if"),
    "key taken from bit 58": ("leaf >> 59", "leaf >> 58"),
    "WD ignores WP": ("is _WRITE and (access.user_mode or control.wp)", "is _WRITE"),
    "WD asks WP of users": ("(access.user_mode or control.wp)", "control.wp"),
    "WD denies reads": ("bool(bits & 2) and access.kind is _WRITE and", "bool(bits & 2) and"),
    "PK hidden by another reason": ("if control.pke and", "if permitted and control.pke and"),
    "no canonical check": ("if not control.canonical(va):", "if False:"),
    "#SS never": ("StackFault() if access.stack else GeneralProtection()", "GeneralProtection()"),
    "CR2 without the offset": ("denied, cr2=va)", "denied, cr2=va & ~0xFFF)"),
    "large offset cut to 4 KiB": ("va & (page_bytes - 1)", "va & 0xFFF"),
    "PAT bit of a large page in the address": ("entry & masks.leaf_address[level]", "entry & masks.address"),
}

IN_MANY = {
    "W from the leaf only": ("(front.granted | DIRTY)", "(front.granted | DIRTY | 2)"),
    "U from the leaf only": ("(front.granted | DIRTY)", "(front.granted | DIRTY | USER)"),
    "NX from the leaf only": ("(front.granted | DIRTY)", "(front.granted | DIRTY | EXECUTE)"),
    "NX ignored at the leaf": ("granted = (leaf ^ EXECUTE)", "granted = (leaf | EXECUTE)"),
    **{
        f"NX ignored at level {level}": (
            "granted=(entry ^ EXECUTE) & front.granted",
            f"granted=(entry ^ EXECUTE | (EXECUTE if level == {level} else 0)) & front.granted",
        )
        for level in (2, 3, 4, 5)
    },
    **{
        f"NX ignored at a shared level {level}": (
            "granted &= entry ^ EXECUTE",
            f"granted &= entry ^ EXECUTE | (EXECUTE if level == {level} else 0)",
        )
        for level in (2, 3, 4, 5)
    },
    "rights of shared levels forgotten": ("granted &= entry ^ EXECUTE", "pass"),
    "rights of separate levels forgotten": (
        "granted=(entry ^ EXECUTE) & front.granted",
        "granted=front.granted",
    ),
    "WP ignored": ("if kind == WRITE and control.wp else 0", "if False else 0"),
    "WP always on": ("if kind == WRITE and control.wp else 0", "if kind == WRITE else 0"),
    "WP asked for user writes": (
        "USER | (WRITABLE if kind == WRITE else 0)",
        "USER | (WRITABLE if kind == WRITE and control.wp else 0)",
    ),
    "SMEP off": ("EXECUTE, control.smep\n", "EXECUTE, False\n"),
    "AC disables SMEP": ("EXECUTE, control.smep\n", "EXECUTE, control.smep and not control.ac\n"),
    "SMAP off": (
        "shuns_user = control.smap and not (control.ac and mode == SUPERVISOR)",
        "shuns_user = False",
    ),
    "SMAP ignores AC": ("not (control.ac and mode == SUPERVISOR)", "True"),
    "AC exempts implicit accesses": ("not (control.ac and mode == SUPERVISOR)", "not control.ac"),
    "implicit accesses counted as user": (
        "np.where(self.implicit, IMPLICIT, np.where(",
        "np.where(np.logical_and(self.implicit, np.logical_not(self.user)), IMPLICIT, np.where(",
    ),
    "reserved bits unchecked in a leaf": (
        "np.where(leaf, self.plan.leaf_reserved[min(level, 3)], self.plan.table_reserved[level])",
        "np.where(leaf, 0, self.plan.table_reserved[level])",
    ),
    "reserved bits unchecked above the leaf": (
        "LEAF_IF[level] | masks.table_reserved[level]",
        "LEAF_IF[level]",
    ),
    "reserved checked before present": ("reserved = present & (", "reserved = ("),
    "RSVD without P": ("FAULT_PRESENT | FAULT_RESERVED)", "FAULT_RESERVED)"),
    "I/D always": ("FAULT_FETCH if control.nxe or control.smep else 0", "FAULT_FETCH"),
    "I/D by NXE alone": ("control.nxe or control.smep", "control.nxe"),
    "I/D by SMEP alone": ("control.nxe or control.smep", "control.smep"),
    "U/S always set": ("(FAULT_USER if mode == USER_MODE else 0)", "FAULT_USER"),
    "W/R never set": ("(0, FAULT_WRITE, fetch)", "(0, 0, fetch)"),
    "A set on a not-present entry": (
        "        present = (entry & PRESENT) != 0\n",
        (
            "        present = (entry & PRESENT) != 0\n"
            "        self.tables.words[self._places(front, level)[~present]] |= ACCESSED\n"
        ),
    ),
    "A set in a denied leaf": ("~denied & (wrong != 0)", "wrong != 0"),
    "D set on reads": ("places[writes]", "places"),
    "D never set": ("tables.words[places[writes]] |= DIRTY", "pass"),
    "D taken for set from above": ("mask, want = mask | DIRTY, want | DIRTY", "pass"),
    "A only in the leaf": (
        "            tables.words[places] |= ACCESSED",
        "            if level == leaf_level:\n                tables.words[places] |= ACCESSED",
    ),
    "A not in the leaf": (
        "            tables.words[places] |= ACCESSED",
        "            if level != leaf_level:\n                tables.words[places] |= ACCESSED",
    ),
    "A taken for set": ("mask = want = ACCESSED", "mask = want = 0"),
    "key applied to fetches": ("return kind != FETCH and bool(", "return bool("),
    "key applied to supervisor pages": (" & ((granted & USER) != 0)", ""),
    "keys ignored": ("if self.plan.control.pke:", "if False:"),
    "key taken from bit 58": ("leaf >> KEY_SHIFT", "leaf >> KEY_SHIFT - 1"),
    "WD ignores WP": ("kind == WRITE and (control.wp or mode == USER_MODE)", "kind == WRITE"),
    "WD asks WP of users": ("(control.wp or mode == USER_MODE)", "control.wp"),
    "WD denies reads": (
        "kind == WRITE and (control.wp or mode == USER_MODE)",
        "(control.wp or mode == USER_MODE)",
    ),
    "PK hidden by another reason": (
        "np.flatnonzero(denied & ~keyed)",
        "np.flatnonzero((wrong & RIGHTS) != 0)",
    ),
    "no canonical check": ("if broken.size:", "if False:"),
    "#SS never": (
        "np.where(_pick(self.stack, broken), VECTOR_STACK, VECTOR_PROTECTION)",
        "VECTOR_PROTECTION",
    ),
    "CR2 without the offset": (
        "front.va.view(np.uint64)\n\n",
        "front.va.view(np.uint64) & np.uint64(0xFFFFFFFFFFFFF000)\n\n",
    ),
    "large offset cut to 4 KiB": ("((1 << page_shift(level)) - 1)", "0xFFF"),
    "PAT bit of a large page in the address": (
        "leaf & self.plan.leaf_address[level]",
        "leaf & self.plan.address",
    ),
}


def test_the_modules_loaded_anew_pass_every_case():
    fresh = load("none")
    assert noticed_by(one, fresh) == noticed_by(alone, fresh) == noticed_by(in_company, fresh) == []


@pytest.mark.parametrize("name", IN_PAGING)
def test_a_bug_in_the_shared_tables_is_noticed_through_each_walk(name):
    fresh = load("paging", IN_PAGING[name])
    assert noticed_by(one, fresh), "not noticed through the walk for reading"
    assert noticed_by(alone, fresh) + noticed_by(in_company, fresh), "not noticed through the walk of many"


@pytest.mark.parametrize("name", IN_WALK)
def test_a_bug_in_the_walk_for_reading_is_noticed(name):
    assert noticed_by(one, load("walk", IN_WALK[name]))


@pytest.mark.parametrize("name", IN_MANY)
def test_a_bug_in_the_walk_of_many_is_noticed(name):
    edit = IN_MANY[name]
    (home,) = (
        home
        for home in ("many", "classes")
        if edit[0] in Path(HOMES[home].__file__).read_text(encoding="utf-8")
    )
    fresh = load(home, edit)
    assert noticed_by(alone, fresh) + noticed_by(in_company, fresh)


def test_both_walks_were_given_the_bugs_that_the_rules_invite():
    wanted = {
        "W",
        "U",
        "NX",
        "WP",
        "SMEP",
        "SMAP",
        "reserved",
        "I/D",
        "A",
        "D",
        "key",
        "WD",
        "RSVD",
        "PK",
        "#SS",
        "CR2",
    }
    for bugs in (IN_WALK, IN_MANY):
        assert wanted <= {name.split()[0] for name in bugs}
