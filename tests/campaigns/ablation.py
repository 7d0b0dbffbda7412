"""Switches each single check of the verifiers off, and demands that some test fails.

What a check is, is said in `checks`.  Runs as `mutant_runs` says: in a forked session of pytest, on the tests that call
the changed function.  First the unit tests nearest to a file meet its checks, then the whole tests of the area meet those
that nobody noticed.  What was noticed is kept in a state file by the text of the changed module, so that a run goes
on where the last one stopped, and tries again only what was missed or changed.  Only a test that fails notices: tests
that fail on the code as it is end the run with an error, and a run that takes too long counts as missed.
Prints a table and the checks that no test misses; exit status 1 if there is one that is not listed, with its reason,
in `redundant`, or if one is listed there that does not exist or that a test does notice.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from pathlib import Path

from checks import ROOT, checks_of, text_of
from mutant_runs import BROKEN, KILLED, TIMEOUT, Runner, Tests, nearest
from redundant import REDUNDANT

IMAGE = "tests/unit/image/test_"


def image(*names):
    return tuple(f"sim/image/{name}.py" for name in names)


AREAS = {
    "verifier": (
        (
            *("sim/attest/*.py", "sim/attest/engines/*.py", "sim/tpm/eventlog.py", "sim/vsphere/answers.py"),
            *image("manifest", "platform"),
        ),
        (
            *("tests/unit/attest", "tests/unit/vsphere", "tests/unit/tpm/test_eventlog.py"),
            *("tests/unit/tpm/test_pcr_log.py", "tests/unit/image/test_manifest.py"),
            *(f"tests/vectors/test_{name}.py" for name in ("esxi_report", "survey", "eventlogs")),
        ),
    ),
    "signatures": (
        (
            *image("cms", "signed_data", "signature_layout", "chain", "crl", "certificate", "der", "trust"),
            *image("trailer", "pe", "efi", "efi_lists", "dbx", "bankcheck", "algorithms"),
            *(f"sim/{name}.py" for name in ("kernel/module_signing", "boot/earlycheck", "boot/vibcheck")),
        ),
        (
            "tests/unit/image",
            *("tests/unit/boot/test_refused_boots.py", "tests/unit/kernel/test_loader.py"),
            "tests/unit/attest/test_certificates.py",
        ),
    ),
    "archives": (
        (
            *image("ar", "vib", "descriptor", "payload", "tar", "vtar", "imgdb", "bootcfg", "boundedxml"),
            *image("boundedzip", "boundedjson", "paths", "contents", "growth", "bundle", "metadata"),
        ),
        ("tests/unit/image", "tests/unit/boot/test_hostile_files.py"),
    ),
    "installation": (
        image("install", "installfiles", "succession", "tree", "pathrules", "acceptance", "profile")
        + image("versions", "bootbank"),
        ("tests/unit/image", "tests/unit/kernel/test_host.py"),
    ),
    "programs": (
        (
            *image("elf", "elf_file", "elf_hash", "elf_object", "elf_read", "elf_text", "elf_versions"),
            "sim/kernel/execution.py",
        ),
        (
            *(
                f"{IMAGE}{name}.py"
                for name in (
                    "elf",
                    "elf_linking",
                    "elf_names",
                    "elf_hash",
                    "elf_limits",
                    "elf_tables",
                    "elf_objects",
                )
            ),
            *(f"{IMAGE}elf_refusals.py", "tests/unit/kernel/test_loader.py"),
            *("tests/unit/kernel/test_loader_objects.py", "tests/unit/scenario/test_programs.py"),
            "tests/system/test_exec_installed_only.py",
        ),
    ),
    "boot": (
        tuple(f"sim/boot/{name}.py" for name in ("safeboot", "bootmanager", "loadoption")),
        (
            *(f"tests/unit/boot/test_{name}.py" for name in ("refused_boots", "hostile_files")),
            *(f"tests/unit/boot/test_{name}.py" for name in ("uefi_events", "measured_boot")),
            "tests/system/test_boot_banks.py",
        ),
    ),
    "launch": (
        (
            *(f"sim/boot/{name}.py" for name in ("acm", "lcpcheck", "launchpolicy", "latelaunch", "resume")),
            "sim/kernel/standby.py",
        ),
        (
            *(f"tests/unit/boot/test_{name}.py" for name in ("acm", "launchpolicy", "late_launch")),
            "tests/unit/boot/test_launch_failures.py",
            "tests/unit/kernel/test_standby.py",
        ),
    ),
}


def files_of(area):
    return [path.relative_to(ROOT) for pattern in AREAS[area][0] for path in sorted(ROOT.glob(pattern))]


class State:
    """What was noticed already; every new answer is appended to the file at once."""

    def __init__(self, path, fresh):
        self.path = path
        self.noticed = set()
        if path.exists() and not fresh:
            lines = path.read_text(encoding="utf-8").splitlines()
            self.noticed = {each["key"] for each in map(json.loads, lines)}
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")

    def key(self, check):
        """Return what stands for a check: its name and the code of its module."""
        code = f"{check.name}\n{text_of(check.path)}"
        return hashlib.sha256(code.encode()).hexdigest()[:32]

    def knows(self, check):
        return self.key(check) in self.noticed

    def add(self, check):
        self.noticed.add(self.key(check))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": self.key(check), "name": check.name}) + "\n")


def missed_by(tests, checks, state, say):
    """Return the checks that these tests do not notice; keep the others."""
    if not checks:
        return []
    missed = []
    for check, outcome in Runner(tests).outcomes(checks):
        if outcome == BROKEN:
            raise RuntimeError(f"{check.name}: the tests do not meet the changed code")
        if outcome == KILLED:
            state.add(check)
            continue
        missed.append(check)
        if outcome == TIMEOUT:
            say(f"no test fails in its time, which is no notice: {check.name}")
    say(f"{len(checks) - len(missed)} of {len(checks)} noticed by {len(tests.paths)} of the paths of tests")
    return missed


def run(area, checks, state, say):
    """Return the checks of an area that no test notices, known ones included."""
    left = []
    for path in dict.fromkeys(check.path for check in checks):
        here = [check for check in checks if check.path == path and not state.knows(check)]
        near = nearest(path)
        say(f"{area}: {path}: {len(here)} checks")
        left += missed_by(Tests(paths=near, near=nearest), here, state, say) if near else here
    say(f"{area}: {len(left)} are left for all of its tests")
    return missed_by(Tests(paths=AREAS[area][1], near=nearest), left, state, say)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--area", choices=AREAS, action="append", help="only this area")
    parser.add_argument("--file", default="", help="only files with this in their path")
    parser.add_argument(
        "--state", type=Path, default=ROOT / "out" / "ablation.jsonl", help="what was noticed"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was noticed before")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    state = State(options.state, options.fresh)
    missed, counts = [], Counter()
    areas = options.area or list(AREAS)
    for name in unknown():
        print(f"listed as redundant, and no check: {name}")
        counts["wrong"] += 1
    for area in areas:
        checks = [each for path in files_of(area) if options.file in str(path) for each in checks_of(path)]
        found = run(area, checks, state, lambda line: print(line, file=sys.stderr, flush=True))
        counts[area, "checks"] = len(checks)
        counts[area, "redundant"] = sum(check.name in REDUNDANT for check in found)
        counts[area, "missed"] = len(found) - counts[area, "redundant"]
        missed += [check.name for check in found]
        for check in checks:
            if check.name in REDUNDANT and check not in found:
                print(f"noticed, and listed as redundant: {check.name}")
                counts["wrong"] += 1
    for line in table(areas, counts):
        print(line)
    for name in missed:
        print(f"missed: {name}" + (f"  ({REDUNDANT[name]})" if name in REDUNDANT else ""))
    unexpected = sum(counts[area, "missed"] for area in areas)
    print(
        f"{unexpected} checks could be deleted unnoticed"
        if unexpected
        else "every check is guarded by a test, or known to be redundant"
    )
    return 1 if unexpected or counts["wrong"] else 0


def unknown():
    """Return what is listed as redundant but is no check of any area."""
    names = {check.name for area in AREAS for path in files_of(area) for check in checks_of(path)}
    return [name for name in REDUNDANT if name not in names]


def table(areas, counts):
    yield f"{'area':<14} {'checks':>6} {'noticed':>8} {'redundant':>9} {'missed':>7}"
    for area in areas:
        total, known, missed = (counts[area, what] for what in ("checks", "redundant", "missed"))
        yield f"{area:<14} {total:>6} {total - known - missed:>8} {known:>9} {missed:>7}"


if __name__ == "__main__":
    sys.exit(main())
