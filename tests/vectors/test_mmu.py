"""Page walks recorded from another walker: outcome, error code, CR2, accessed and dirty bits, for both walks.

Provenance: the sheet of facts beside the vectors.  `VMKSIM_MMU_VECTORS` names another file of the same form.
"""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, ControlState, GeneralProtection, Kind, PageFault, Translation, walk
from sim.hw.mmu.many import KIND_CODES, Accesses, translate_many

VECTORS_MAXPHYADDR = 40
MEMORY_BYTES = 1 << 32
ELSEWHERE = [0, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_F000, 1 << 62]
"""Addresses that stand beside a vector's own in a batch, so that the accesses part at the root."""


@pytest.fixture(scope="module")
def walks(request):
    override = os.environ.get("VMKSIM_MMU_VECTORS")
    path = Path(override) if override else request.getfixturevalue("vectors") / "mmu.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"the vector file {path} is absent (set VMKSIM_MMU_VECTORS)")
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def machine():
    """Memory that holds any vector's tables, all of it owned; each test leaves it empty."""
    memory = PhysicalMemory(MEMORY_BYTES)
    memory.allocate(memory.frames_total, "vectors")
    return memory


def control_of(vector):
    return ControlState(
        cr3=int(vector["cr3"], 16),
        maxphyaddr=VECTORS_MAXPHYADDR,
        pkru=int(vector["pkru"], 16),
        **{flag: bool(vector[flag]) for flag in ("la57", "wp", "nxe", "smep", "smap", "ac", "pke")},
    )


def entries_of(vector):
    return {int(address, 16): int(entry, 16) for address, entry in vector["mem"]}


def replay(vector):
    """Run one vector; return the outcome in the file's form, and the memory afterwards."""
    memory = entries_of(vector)
    access = Access(Kind(vector["kind"]), user=vector["cpl"] == 3)
    va = int(vector["va"], 16)
    outcome = walk(lambda pa: memory.get(pa, 0), memory.__setitem__, control_of(vector), va, access)
    match outcome:
        case Translation(pa=pa):
            return {"pa": hex(pa)}, memory
        case PageFault(error_code=code, cr2=cr2):
            return {"exc": 14, "err": code, "cr2": hex(cr2)}, memory
        case GeneralProtection(error_code=code):
            return {"exc": 13, "err": code}, memory


def replay_in_a_batch(vector, machine, company):
    """Run one vector among other accesses by the walk of many; return the same as `replay`."""
    entries = entries_of(vector)
    for address, entry in entries.items():
        machine.write_u64(address, entry)
    va = np.array([*company, int(vector["va"], 16)], np.uint64)
    kinds = np.full(va.size, KIND_CODES[Kind(vector["kind"])], np.uint8)
    accesses = Accesses(va=va, kind=kinds, user=vector["cpl"] == 3)
    out = translate_many(machine.tables, control_of(vector), accesses)
    after = {address: machine.read_u64(address) for address in entries}
    for address in entries:
        machine.write_u64(address, 0)
    if out.vector[-1] == 0:
        return {"pa": hex(int(out.pa[-1]))}, after
    if out.vector[-1] == 13:
        return {"exc": 13, "err": int(out.error_code[-1])}, after
    fault = {"exc": int(out.vector[-1]), "err": int(out.error_code[-1]), "cr2": hex(int(out.cr2[-1]))}
    return fault, after


def differs_after(vector, memory):
    """Whether any entry differs from the recorded one in a bit that matters."""
    return any(
        (memory[int(address, 16)] ^ int(after, 16)) & ~int(mask, 16)
        for address, after, mask in vector["after"]
    )


def test_every_recorded_walk_has_the_same_outcome(walks):
    wrong = [vector["id"] for vector in walks if replay(vector)[0] != vector["out"]]
    assert wrong == []


def test_every_recorded_walk_leaves_the_same_accessed_and_dirty_bits(walks):
    wrong = [vector["id"] for vector in walks if differs_after(vector, replay(vector)[1])]
    assert wrong == []


@pytest.mark.parametrize("company", [[], ELSEWHERE], ids=["alone", "in company"])
def test_the_walk_of_many_has_the_same_outcomes_and_leaves_the_same_bits(walks, machine, company):
    wrong = []
    for vector in walks:
        outcome, after = replay_in_a_batch(vector, machine, company)
        if outcome != vector["out"] or (not company and differs_after(vector, after)):
            wrong.append(vector["id"])
    assert wrong == []


def test_a_denied_walk_writes_nothing(walks, machine):
    for vector in walks:
        if "pa" not in vector["out"]:
            before = entries_of(vector)
            assert replay(vector)[1] == before, vector["id"]
            assert replay_in_a_batch(vector, machine, [])[1] == before, vector["id"]


@pytest.mark.skipif("VMKSIM_MMU_VECTORS" in os.environ, reason="says what the default file holds")
def test_the_default_file_covers_every_fault_code_that_its_rules_can_give(walks):
    codes = Counter(vector["out"]["err"] for vector in walks if vector["out"].get("exc") == 14)
    wanted = {0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 16, 17, 20, 21, 25, 29, 33, 35, 37, 39}
    assert wanted <= set(codes)
