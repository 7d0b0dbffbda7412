"""How many mutants do the tests kill?  What `tpm_mutation_score` and `image_mutation_score` share.

Models: a study, which is a list of areas, each some files and the tests that answer for them.  It prints a table, and
fails if an area, or with `--files` a file, has less than its share.  The mutants are mutmut's; see `mutants` and `mutant_runs` for what is changed
and how it is run.
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
FACTS = "tests/tidy/test_docs.py::test_a_generated_page_is_current[facts.md]"


@attrs.frozen(kw_only=True)
class Area:
    """Files of the package, and the tests whose worth is measured on them; areas may share their tests."""

    files: tuple[Path, ...]
    tests: Tests


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


@attrs.frozen(kw_only=True)
class Study:
    """What is measured: areas by name, planted changes with the outcomes they must have, the size of a sample."""

    title: str
    areas: dict[str, Area]
    planted: dict[Planted, str]
    sample: int
    survivors: str
    """The file in `out` that names the survivors."""

    def sessions(self, areas):
        """Yield the areas that share one set of tests, and the tests."""
        for tests in dict.fromkeys(self.areas[area].tests for area in areas):
            yield tests, [area for area in areas if self.areas[area].tests == tests]


def files_of(package, names):
    """Return the files that patterns (without `.py`) name in a folder of the package."""
    folder = ROOT / "sim" / package
    return tuple(path.relative_to(ROOT) for name in names for path in sorted(folder.glob(f"{name}.py")))


def with_facts(path, tests):
    """Return the tests near to a file, with that of the page of facts if the file declares some."""
    return (*tests, FACTS) if "fact(" in (ROOT / path).read_text(encoding="utf-8") else tests


def chosen(study, options):
    """Return the mutants to try, each with its area, and how many there are in each."""
    mutants, totals = {}, {}
    for area in options.area or study.areas:
        found = [
            mutant
            for path in study.areas[area].files
            for mutant in mutants_of(path)
            if options.file in str(path)
        ]
        totals[area] = len(found)
        if options.sample:
            found = random.Random(f"{options.seed} {area}").sample(found, min(len(found), options.sample))
        mutants |= dict.fromkeys(found, area)
    return mutants, totals


def run(study, mutants, say):
    """Return the outcomes counted by area, and the survivors."""
    counts, survivors = Counter(), []
    for tests, areas in study.sessions(list(dict.fromkeys(mutants.values()))):
        files = {path for area in areas for path in study.areas[area].files}
        tried = [
            *(planted for planted in study.planted if planted.path in files),
            *(mutant for mutant, area in mutants.items() if area in areas),
        ]
        start = time.monotonic()
        for number, (mutant, outcome) in enumerate(Runner(tests).outcomes(tried)):
            wanted = study.planted[mutant] if isinstance(mutant, Planted) else outcome
            if outcome == BROKEN or outcome != wanted:
                raise RuntimeError(
                    f"{mutant}: {outcome}, not {wanted}: the tests do not meet the changed code"
                )
            if number % 100 == 0:
                say(
                    f"{', '.join(areas)}: {number} of {len(tried)} mutants after {time.monotonic() - start:.0f} s"
                )
            if mutant in mutants:
                counts[mutants[mutant], outcome] += 1
                counts[str(mutant.path), outcome] += 1
                if outcome == SURVIVED:
                    name = f"{mutants[mutant]}: {mutant.function or 'import'}: {mutant.difference()}"
                    survivors.append(f"{name}\n")
                    say(f"survived: {name}")
    return counts, survivors


def table(counts, totals):
    """Return the rows of the table, and whether every area has its share."""
    rows = [
        f"{'area':<32} {'mutants':>7} {'tried':>6} {'killed':>6} {'timeout':>7} {'survived':>8} {'score':>7}"
    ]
    enough = True
    for area, total in totals.items():
        killed, late, survived = (counts[area, outcome] for outcome in (KILLED, TIMEOUT, SURVIVED))
        tried = killed + late + survived
        score = 100 * (killed + late) / max(tried, 1)
        enough = enough and score >= SHARE_MIN
        rows.append(f"{area:<32} {total:>7} {tried:>6} {killed:>6} {late:>7} {survived:>8} {score:>6.1f}%")
    return rows, enough


def main(study, arguments=None):
    """Run a study with the options of the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=study.title)
    parser.add_argument(
        "--sample", type=int, default=study.sample, help=f"mutants of each area (0: all; {study.sample})"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the choice of the sample (1)")
    parser.add_argument("--area", choices=study.areas, action="append", help="only this area")
    parser.add_argument("--file", default="", help="only files with this in their path")
    parser.add_argument("--files", action="store_true", help="a row and a share for each file too")
    parser.add_argument("--survivors", type=Path, default=ROOT / "out" / study.survivors)
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    mutants, totals = chosen(study, options)
    counts, survivors = run(study, mutants, lambda line: print(line, file=sys.stderr, flush=True))
    files = Counter(str(mutant.path) for mutant in mutants)
    rows, enough = table(counts, totals | dict(sorted(files.items())) if options.files else totals)
    options.survivors.parent.mkdir(parents=True, exist_ok=True)
    options.survivors.write_text("".join(sorted(survivors)), encoding="utf-8")
    how = f"a sample of {options.sample} an area, seed {options.seed}" if options.sample else "all"
    print(f"mutants of mutmut {version('mutmut')}: {how}; the survivors are in {options.survivors}")
    print("\n".join(rows))
    print(f"every row has {SHARE_MIN} %" if enough else f"a row has less than {SHARE_MIN} %")
    return 0 if enough else 1
