"""Page walks recorded from another walker: outcome, error code, CR2, accessed and dirty bits.

Provenance: tests/vectors/README.md.  `VMKSIM_MMU_VECTORS` names another file of the same form.
"""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from sim.hw.mmu import Access, ControlState, GeneralProtection, Kind, PageFault, Translation, walk

VECTORS_MAXPHYADDR = 40


@pytest.fixture(scope="module")
def walks(request):
    override = os.environ.get("VMKSIM_MMU_VECTORS")
    path = Path(override) if override else request.getfixturevalue("vectors") / "mmu.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"the vector file {path} is absent (set VMKSIM_MMU_VECTORS)")
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def replay(vector):
    """Run one vector; return the outcome in the file's form, and the memory afterwards."""
    memory = {int(address, 16): int(entry, 16) for address, entry in vector["mem"]}
    control = ControlState(
        cr3=int(vector["cr3"], 16),
        maxphyaddr=VECTORS_MAXPHYADDR,
        pkru=int(vector["pkru"], 16),
        **{flag: bool(vector[flag]) for flag in ("la57", "wp", "nxe", "smep", "smap", "ac", "pke")},
    )
    access = Access(Kind(vector["kind"]), user=vector["cpl"] == 3)
    outcome = walk(lambda pa: memory.get(pa, 0), memory.__setitem__, control, int(vector["va"], 16), access)
    match outcome:
        case Translation(pa=pa):
            return {"pa": hex(pa)}, memory
        case PageFault(error_code=code, cr2=cr2):
            return {"exc": 14, "err": code, "cr2": hex(cr2)}, memory
        case GeneralProtection(error_code=code):
            return {"exc": 13, "err": code}, memory


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


def test_a_denied_walk_writes_nothing(walks):
    for vector in walks:
        if "pa" not in vector["out"]:
            before = {int(address, 16): int(entry, 16) for address, entry in vector["mem"]}
            assert replay(vector)[1] == before, vector["id"]


@pytest.mark.skipif("VMKSIM_MMU_VECTORS" in os.environ, reason="says what the default file holds")
def test_the_default_file_covers_every_fault_code_that_its_rules_can_give(walks):
    codes = Counter(vector["out"]["err"] for vector in walks if vector["out"].get("exc") == 14)
    wanted = {0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 16, 17, 20, 21, 25, 29, 33, 35, 37, 39}
    assert wanted <= set(codes)
