"""How many mutants of the TPM do its tests kill?  Prints a table; fails if an area has less than its share.

Areas: marshalling, PCRs and localities, sessions, policies.  The mutants are mutmut's; see `mutants` and `mutant_runs`
for what is changed and how it is run, and docs/tpm.md for what survives.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import attrs
from mutant_runs import BROKEN, KILLED, ROOT, SURVIVED, TIMEOUT, Runner, Tests
from mutants import mutants_of

SHARE_MIN = 85
SAMPLE = 300
AREAS = {
    "marshalling": ["codec", "wire/*"],
    "PCRs and localities": ["pcr", "commands/pcrs", "tables/pcrs", "device", "commands/startup"],
    "sessions": [
        *("sessions", "session_area", "authorization", "parameter_encryption", "auditing"),
        *("commands/sessions", "commands/auditing", "tables/sessions", "tables/auditing"),
    ],
    "policies": ["policy", "commands/policies", "commands/policy_signers", "tables/policies"],
}
UNIT = "tests/unit/tpm/"
FACTS = "tests/tidy/test_docs.py::test_a_generated_page_is_current[facts.md]"
RECORDED = "tests/vectors/test_tpm_recorded.py"
NEAR = {
    "marshalling": ["wire_layouts", "wire_limits", "wire_codecs", "wire"],
    "PCRs and localities": ["pcr_rules", "pcrs", "device", "startup"],
    "sessions": ["sessions", "client_sessions", "dispatch", "lockout"],
    "policies": ["policy_rules", "policies"],
}
"""Per area the unit tests that know most about it."""
OTHERS = ["command_attributes", "failure_and_clock", "nvram", "object_commands"]
PROPERTIES = ["authorization"]


def files_of(area):
    package = ROOT / "sim" / "tpm"
    return [path.relative_to(ROOT) for name in AREAS[area] for path in sorted(package.glob(f"{name}.py"))]


def unit(names):
    return tuple(f"{UNIT}test_{name}.py" for name in names)


def tests():
    near = {
        path: (*unit(NEAR[area]), *((RECORDED,) if area != "marshalling" else ()))
        for area in AREAS
        for path in files_of(area)
    }
    near = {path: (*paths, FACTS) if "fact(" in path.read_text() else paths for path, paths in near.items()}
    names = [name for area in AREAS for name in NEAR[area]]
    properties = tuple(f"tests/properties/test_tpm_{name}.py" for name in PROPERTIES)
    return Tests(paths=(*unit([*names, *OTHERS]), RECORDED, *properties), near=near.__getitem__)


@attrs.frozen(kw_only=True)
class Planted:
    """A change of our own making, to see that the runs can tell."""

    path: Path
    function: str
    was: str
    now: str

    def source(self):
        """Return the text of the whole changed module."""
        text = (ROOT / self.path).read_text(encoding="utf-8")
        assert text.count(self.was) == 1
        return text.replace(self.was, self.now)


PCR = Path("sim/tpm/pcr.py")
FILL = 'every bank."""\n        self._fill(pcr, '
PLANTED = {
    Planted(path=PCR, function="PcrBanks.reset", was=f"{FILL}0x00)", now=f"{FILL}0x01)"): KILLED,
    Planted(path=PCR, function="PcrBanks.reset", was=f"{FILL}0x00)", now=f"{FILL}0)"): SURVIVED,
    Planted(path=PCR, function="", was="frozenset({16, 21,", now="frozenset({15, 21,"): KILLED,
    Planted(path=PCR, function="", was="frozenset({16, 21,", now="frozenset({0x10, 21,"): SURVIVED,
}
"""Changes of one function and of code that runs at import, with the outcomes that they must have."""


def chosen(options):
    """Return the mutants to try, each with its area, and how many there are in each."""
    mutants, totals = {}, {}
    for area in options.area or AREAS:
        found = [
            mutant for path in files_of(area) for mutant in mutants_of(path) if options.file in str(path)
        ]
        totals[area] = len(found)
        if options.sample:
            found = random.Random(f"{options.seed} {area}").sample(found, min(len(found), options.sample))
        mutants |= dict.fromkeys(found, area)
    return mutants, totals


def run(mutants, say):
    """Return the outcomes counted by area, and the survivors."""
    counts, survivors = Counter(), []
    start = time.monotonic()
    for number, (mutant, outcome) in enumerate(Runner(tests()).outcomes([*PLANTED, *mutants])):
        wanted = PLANTED.get(mutant, outcome) if isinstance(mutant, Planted) else outcome
        if outcome == BROKEN or outcome != wanted:
            raise RuntimeError(f"{mutant}: {outcome}, not {wanted}: the tests do not meet the changed code")
        if number % 100 == 0:
            say(f"{number} of {len(mutants)} mutants after {time.monotonic() - start:.0f} s")
        if mutant in mutants:
            counts[mutants[mutant], outcome] += 1
            if outcome == SURVIVED:
                survivors.append(f"{mutants[mutant]}: {mutant.function or 'import'}: {mutant.difference()}\n")
    return counts, survivors


def table(counts, totals):
    """Return the rows of the table, and whether every area has its share."""
    rows = [
        f"{'area':<20} {'mutants':>7} {'tried':>6} {'killed':>6} {'timeout':>7} {'survived':>8} {'score':>7}"
    ]
    enough = True
    for area, total in totals.items():
        killed, late, survived = (counts[area, outcome] for outcome in (KILLED, TIMEOUT, SURVIVED))
        tried = killed + late + survived
        score = 100 * (killed + late) / max(tried, 1)
        enough = enough and score >= SHARE_MIN
        rows.append(f"{area:<20} {total:>7} {tried:>6} {killed:>6} {late:>7} {survived:>8} {score:>6.1f}%")
    return rows, enough


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=SAMPLE, help=f"mutants of each area (0: all; {SAMPLE})")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of the sample (1)")
    parser.add_argument("--area", choices=AREAS, action="append", help="only this area")
    parser.add_argument("--file", default="", help="only files with this in their path")
    parser.add_argument("--survivors", type=Path, default=ROOT / "out" / "tpm-mutants.txt")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    mutants, totals = chosen(options)
    counts, survivors = run(mutants, lambda line: print(line, file=sys.stderr, flush=True))
    rows, enough = table(counts, totals)
    options.survivors.parent.mkdir(parents=True, exist_ok=True)
    options.survivors.write_text("".join(sorted(survivors)), encoding="utf-8")
    how = f"a sample of {options.sample} an area, seed {options.seed}" if options.sample else "all"
    print(f"mutants of mutmut {version('mutmut')}: {how}; the survivors are in {options.survivors}")
    print("\n".join(rows))
    print(f"every area has {SHARE_MIN} %" if enough else f"an area has less than {SHARE_MIN} %")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
