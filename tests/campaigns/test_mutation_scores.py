"""The mutants of a study: what is changed and what is spared, and a score that can be too low."""

import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
MODULE = '''"""A docstring."""

__all__ = ["listed"]
LIMIT: int = 3


@decorated(4)
class Listed:
    @property
    def half(self) -> Literal[5]:
        """Another docstring."""
        return self.whole // 2

    def pick(self, size=6):
        def inner():
            return [len(1 + self.whole)]

        return inner() if size > 7 else None
'''


@pytest.fixture
def tools(package, monkeypatch):
    package("mutmut")
    monkeypatch.syspath_prepend(str(FOLDER))
    import mutants
    import mutation_score

    return mutants, mutation_score


@pytest.fixture(params=["tpm_mutation_score", "image_mutation_score"])
def study(tools, request):
    return importlib.import_module(request.param).STUDY


def test_all_code_is_changed_and_what_no_program_acts_on_is_spared(tools, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    found = tools[0].mutants_of(path)
    sources = [mutant.source() for mutant in found]
    places = Counter(mutant.function for mutant in found)

    assert MODULE not in sources
    assert len(set(sources)) == len(sources)
    for change in ("LIMIT: int = 4", "self.whole / 2", "self.whole // 3", "size=7", "size >= 7", "size > 8"):
        assert [source for source in sources if change in source], change
    for spared in ("docstring", '"listed"', "decorated(4)", "Literal[5]", "len(1 + self.whole)"):
        assert all(spared in source for source in sources), spared
    assert set(places) == {"", "Listed.half", "Listed.pick"}
    assert [mutant.function for mutant, source in zip(found, sources, strict=True) if "size=7" in source] == [
        ""
    ]


def test_a_mutant_tells_its_place_and_change(tools, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    told = [mutant.difference() for mutant in tools[0].mutants_of(path)]

    assert f"{path}:4: '3' -> '4'" in told


def test_every_file_of_an_area_is_in_no_other_and_its_tests_exist(tools, study):
    root = tools[1].ROOT
    files = [path for area in study.areas.values() for path in area.files]
    assert len(set(files)) == len(files)
    for area in study.areas.values():
        assert area.files
        for path in {*area.tests.paths, *(each for file in area.files for each in area.tests.near(file))}:
            assert (root / path.partition("::")[0]).exists(), path


def test_every_name_of_an_area_stands_for_a_file(tools):
    tpm, image = map(importlib.import_module, ("tpm_mutation_score", "image_mutation_score"))
    for names in tpm.NAMES.values():
        assert all(tools[1].files_of("tpm", [name]) for name in names)
    for names in (image.PARSERS, image.SIGNATURES, image.INSTALLATION):
        assert all(tools[1].files_of("image", [name]) for name in names)


def test_planted_changes_stand_in_files_of_the_study_and_have_both_outcomes(study):
    for area in study.areas.values():
        wanted = [outcome for planted, outcome in study.planted.items() if planted.path in area.files]
        assert not wanted or set(wanted) == {"killed", "survived"}
    for planted in study.planted:
        assert any(planted.path in area.files for area in study.areas.values())
        assert compile(planted.source(), str(planted.path), "exec")


def test_areas_that_share_their_tests_share_a_session(tools, study):
    sessions = list(study.sessions(list(study.areas)))
    assert sorted(name for _, names in sessions for name in names) == sorted(study.areas)
    assert len({tests for tests, _ in sessions}) == len(sessions)


def test_an_area_below_its_share_fails_and_timeouts_count_as_noticed(tools):
    score = tools[1]
    counts = Counter({("a", "killed"): 84, ("a", "survived"): 15, ("a", "timeout"): 1})
    rows, enough = score.table(counts, {"a": 4000})
    assert enough
    assert rows[1].split() == ["a", "4000", "100", "84", "1", "15", "85.0%"]
    counts["a", "survived"] += 1
    assert not score.table(counts, {"a": 4000})[1]


def outcomes_of(script):
    """What a script prints that tries mutants in a process of its own, which has not imported the package."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=FOLDER.parents[1],
        env={"PYTHONPATH": str(FOLDER), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stderr == ""
    return sorted(done.stdout.split())


def test_the_tests_meet_the_changed_code(package):
    package("mutmut")
    script = (
        "import mutant_runs as runs, tpm_mutation_score as score\n"
        "tests = runs.Tests(paths=('tests/unit/tpm/test_pcrs.py',), near=lambda _: ())\n"
        "for mutant, outcome in runs.Runner(tests).outcomes(list(score.PLANTED)):\n"
        "    assert outcome == score.PLANTED[mutant], (mutant, outcome)\n"
        "    print(outcome)\n"
    )
    assert outcomes_of(script) == ["killed", "killed", "survived", "survived"]


def test_a_test_that_ends_the_tracing_hides_no_call_of_the_next_and_an_endless_one_is_ended(
    package, tmp_path
):
    package("mutmut")
    ending = tmp_path / "test_ending.py"
    ending.write_text("import sys\n\ndef test_that_traces_nothing():\n    sys.settrace(None)\n")
    script = (
        "import mutant_runs as runs, mutation_score as score, pathlib\n"
        f"tests = runs.Tests(paths=({str(ending)!r}, 'tests/unit/image/test_paths.py'), near=runs.nearest)\n"
        "path, was = pathlib.Path('sim/image/paths.py'), 'if any(part in'\n"
        "changes = [\n"
        "    score.Planted(path=path, function='check_path', was=was, now=now)\n"
        "    for now in ('if not any(part in', 'while True:\\n        pass\\n    ' + was)\n"
        "]\n"
        "for mutant, outcome in runs.Runner(tests).outcomes(changes):\n"
        "    print(outcome)\n"
    )
    assert outcomes_of(script) == ["killed", "timeout"]
