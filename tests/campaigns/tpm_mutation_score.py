"""How many mutants of the TPM do its tests kill?  Prints a table; fails if an area has less than its share.

Areas: marshalling, PCRs and localities, sessions, policies.  See `mutation_score` for the manner, and docs/tpm.md for
what survives.
"""

import sys
from pathlib import Path

from mutant_runs import KILLED, SURVIVED, Tests
from mutation_score import Area, Planted, Study, files_of, main, with_facts

NAMES = {
    "marshalling": ["codec", "wire/*"],
    "PCRs and localities": ["pcr", "commands/pcrs", "tables/pcrs", "device", "commands/startup"],
    "sessions": [
        *("sessions", "session_area", "authorization", "parameter_encryption", "auditing"),
        *("commands/sessions", "commands/auditing", "tables/sessions", "tables/auditing"),
    ],
    "policies": ["policy", "commands/policies", "commands/policy_signers", "tables/policies"],
}
UNIT = "tests/unit/tpm/"
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


def unit(names):
    return tuple(f"{UNIT}test_{name}.py" for name in names)


def tests():
    near = {
        path: (*unit(NEAR[area]), *((RECORDED,) if area != "marshalling" else ()))
        for area, names in NAMES.items()
        for path in files_of("tpm", names)
    }
    near = {path: with_facts(path, paths) for path, paths in near.items()}
    names = [name for area in NAMES for name in NEAR[area]]
    properties = tuple(f"tests/properties/test_tpm_{name}.py" for name in PROPERTIES)
    return Tests(paths=(*unit([*names, *OTHERS]), RECORDED, *properties), near=near.__getitem__)


PCR = Path("sim/tpm/pcr.py")
FILL = 'every bank."""\n        self._fill(pcr, '
PLANTED = {
    Planted(path=PCR, function="PcrBanks.reset", was=f"{FILL}0x00)", now=f"{FILL}0x01)"): KILLED,
    Planted(path=PCR, function="PcrBanks.reset", was=f"{FILL}0x00)", now=f"{FILL}0)"): SURVIVED,
    Planted(path=PCR, function="", was="frozenset({16, 21,", now="frozenset({15, 21,"): KILLED,
    Planted(path=PCR, function="", was="frozenset({16, 21,", now="frozenset({0x10, 21,"): SURVIVED,
}
"""Changes of one function and of code that runs at import, with the outcomes that they must have."""

TESTS = tests()
STUDY = Study(
    title=__doc__.partition("\n")[0],
    areas={area: Area(files=files_of("tpm", names), tests=TESTS) for area, names in NAMES.items()},
    planted=PLANTED,
    sample=300,
    survivors="tpm-mutants.txt",
)


if __name__ == "__main__":
    sys.exit(main(STUDY))
