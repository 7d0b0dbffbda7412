"""Switches each single check of the verifiers off, and demands that some test fails.

A check is a statement that raises (unless it passes on another's refusal, or reports a bug of ours), or a call of a check
whose answer nobody uses.  In its place stands `pass`.  Runs as `mutant_runs` says: in a forked session of pytest, on
the tests that call the changed function.  Prints a table and the checks that no test misses; exit status 1 if there is
one that is not listed, with its reason, in `EXPECTED`.
"""

import argparse
import ast
import os
import sys
from collections import Counter
from pathlib import Path

import attrs
from mutant_runs import BROKEN, KILLED, ROOT, SURVIVED, TIMEOUT, Runner, Tests, nearest

IMAGE = "tests/unit/image/test_"
AREAS = {
    "verifier": (
        ["sim/attest/*.py", "sim/attest/engines/*.py"],
        ("tests/unit/attest", "tests/unit/vsphere", "tests/vectors/test_esxi_report.py"),
    ),
    "signatures": (
        [
            *(f"sim/image/{name}.py" for name in ("cms", "signed_data", "signature_layout", "chain", "crl")),
            *(f"sim/image/{name}.py" for name in ("certificate", "der", "trust", "trailer", "pe")),
            *(f"sim/image/{name}.py" for name in ("efi", "efi_lists", "dbx", "bankcheck")),
            *(f"sim/{name}.py" for name in ("kernel/module_signing", "boot/earlycheck", "boot/vibcheck")),
        ],
        (
            *(f"{IMAGE}{name}.py" for name in ("cms", "cms_structure", "certificate", "crl", "der", "efi")),
            *(f"{IMAGE}{name}.py" for name in ("trailer", "pki", "bankcheck", "acceptance", "vib")),
            *(
                f"{IMAGE}{name}.py"
                for name in ("signature_layout", "refused_signatures", "refused_lists", "dbx")
            ),
            *(f"{IMAGE}{name}.py" for name in ("refused_images", "refused_archives")),
            *("tests/unit/boot/test_refused_boots.py", "tests/unit/kernel/test_loader.py"),
        ),
    ),
    "archives": (
        [
            *(f"sim/image/{name}.py" for name in ("ar", "vib", "descriptor", "payload", "tar", "vtar")),
            *(f"sim/image/{name}.py" for name in ("imgdb", "bootcfg", "boundedxml", "paths", "install")),
        ],
        ("tests/unit/image", "tests/unit/boot/test_hostile_files.py"),
    ),
    "launch": (
        [
            *(f"sim/boot/{name}.py" for name in ("acm", "lcpcheck", "launchpolicy", "latelaunch", "resume")),
            "sim/kernel/standby.py",
        ],
        (
            *(f"tests/unit/boot/test_{name}.py" for name in ("acm", "launchpolicy", "late_launch")),
            "tests/unit/boot/test_launch_failures.py",
            "tests/unit/kernel/test_standby.py",
        ),
    ),
}
OURS = ("SimBug", "NotImplementedError")
"""What is raised for a bug of ours is no check of what comes from outside."""

EXPECTED = {
    "sim/attest/evidence.py: _pcr: raise FormatError(_WHAT, 'pcr_values', 'a PCR is named by two digits')": (
        "the comparison with the canonical form refuses the same"
    ),
    "sim/attest/offline.py: _digests: raise FormatError(_WHAT, f'list {number}', f'a value of {size} bytes')": (
        "the size of every value is compared with that of its bank"
    ),
}
"""Checks that may be missed, as the report names them, each with its reason."""


@attrs.frozen(kw_only=True)
class Ablation:
    """One check that is switched off: the lines from `line` to `end` of a function become `pass`."""

    path: Path
    function: str
    line: int
    end: int
    column: int
    text: str

    def source(self):
        """Return the text of the whole changed module."""
        lines = (ROOT / self.path).read_text(encoding="utf-8").splitlines(keepends=True)
        gone = "".join(
            f"{' ' * self.column}pass\n" if at == self.line else "\n" for at in range(self.line, self.end + 1)
        )
        return "".join([*lines[: self.line - 1], gone, *lines[self.end :]])

    @property
    def name(self):
        """Return how the report and `EXPECTED` call it."""
        return f"{self.path}: {self.function}: {self.text}"


class _Finder(ast.NodeVisitor):
    def __init__(self, path):
        self.path = path
        self.scopes = []
        self.found = []

    def visit_ClassDef(self, node):
        self._inside(node)

    def visit_FunctionDef(self, node):
        self._inside(node)

    def visit_ExceptHandler(self, node):
        """Pass by: what is raised here passes on a refusal that was made already."""

    def _inside(self, node):
        self.scopes.append(node)
        self.generic_visit(node)
        self.scopes.pop()

    def visit_Raise(self, node):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if raised is not None and ast.unparse(raised) not in OURS:
            self._add(node)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call) and _is_check(node.value.func):
            self._add(node)

    def _add(self, node):
        functions = [each for each in self.scopes if isinstance(each, ast.FunctionDef)]
        if not functions:
            return
        names = [each.name for each in self.scopes[: self.scopes.index(functions[0]) + 1]]
        self.found.append(
            Ablation(
                path=self.path,
                function=".".join(names),
                line=node.lineno,
                end=node.end_lineno,
                column=node.col_offset,
                text=" ".join(ast.unparse(node).split())[:120],
            )
        )


def _is_check(function):
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name.startswith(("check", "_check", "need", "verify", "_verify", "stage"))


def checks_of(path):
    """Return all checks of a file that can be switched off, in their order."""
    finder = _Finder(path)
    finder.visit(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    return finder.found


def files_of(area):
    return [path.relative_to(ROOT) for pattern in AREAS[area][0] for path in sorted(ROOT.glob(pattern))]


def run(area, checks, say):
    """Yield each check with what the tests said when it was off."""
    paths = AREAS[area][1]
    runner = Runner(Tests(paths=paths, near=nearest))
    for number, (check, outcome) in enumerate(runner.outcomes(checks)):
        if outcome == BROKEN:
            raise RuntimeError(f"{check.name}: the tests do not meet the changed code")
        if number % 25 == 0:
            say(f"{area}: {number} of {len(checks)}")
        yield check, outcome


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--area", choices=AREAS, action="append", help="only this area")
    parser.add_argument("--file", default="", help="only files with this in their path")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    missed, rows = [], [f"{'area':<12} {'checks':>6} {'noticed':>8} {'missed':>7}"]
    for area in options.area or AREAS:
        checks = [each for path in files_of(area) if options.file in str(path) for each in checks_of(path)]
        counts = Counter()
        for check, outcome in run(area, checks, lambda line: print(line, file=sys.stderr, flush=True)):
            counts[outcome] += 1
            if outcome == SURVIVED:
                missed.append(check.name)
                print(f"missed: {check.name}", file=sys.stderr, flush=True)
        noticed = counts[KILLED] + counts[TIMEOUT]
        rows.append(f"{area:<12} {len(checks):>6} {noticed:>8} {counts[SURVIVED]:>7}")
    print("\n".join(rows))
    for name in missed:
        print(f"missed: {name}" + (f"  ({EXPECTED[name]})" if name in EXPECTED else ""))
    unexpected = [name for name in missed if name not in EXPECTED]
    print(
        f"{len(unexpected)} checks could be deleted unnoticed"
        if unexpected
        else "every check is guarded by a test"
    )
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
