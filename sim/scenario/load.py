"""Scenario files: TOML to `Scenario`, with one clear error for whatever is wrong.

Models nothing.  A scenario file may name other files (VIBs, programs, demand traces), relative to itself; their content becomes
part of the scenario, so that its id does not depend on where it lies.  It runs no code, unless the caller allows that: then
`sched.policy` may name a class in a Python file beside it ("./file.py:Class"), or "module:Class", and a workload's `function`
a generator function, "module:name", of a module that Python finds.

Leaves out: includes and variables.  Sources: TOML 1.0; Python's `tomllib`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from sim.core.structure import FieldError, structure
from sim.core.units import MIB
from sim.errors import ScenarioError
from sim.kernel.sched.own_policy import SOURCE_BYTES_MAX, module_name
from sim.kernel.workload import WorkloadSpec
from sim.scenario.inputs import SCENARIO_BYTES_MAX, InputFile, read_input, read_text
from sim.scenario.programs import PROGRAMS_MAX
from sim.scenario.spec import VIBS_MAX, Scenario

__all__ = ["load_scenario", "parse_scenario", "read_policy"]

DEPTH_MAX = 32
"""The deepest nesting of tables and arrays, and the most parts of a dotted key."""

TEXT_CHARS_MAX = 10_000
"""The longest text value."""

KEY_CHARS_MAX = 100

INTEGER_BITS_MAX = 64
"""TOML's integers are signed numbers of 64 bits."""

PROGRAM_BYTES_MAX = 16 * MIB
"""The largest program that a scenario brings along."""

DEMAND_BYTES_MAX = 16 * MIB
"""The largest CSV file of a demand trace."""

_OWN_POLICY = re.compile(r"\./([A-Za-z0-9_][\w-]{0,99}\.py):([A-Za-z_]\w{0,59})", re.ASCII)

_DEEP_KEY = re.compile(
    r"(?<![\w-])(?:(?:[A-Za-z0-9_-]++|\"[^\"\n]*+\"|'[^'\n]*+')[ \t]*+\.[ \t]*+)" f"{{{DEPTH_MAX}}}"
)


def load_scenario(path: str | Path, *, allow_code: bool = False) -> Scenario:
    """Read a scenario file and the files it names; `allow_code`: whether it may name Python code.

    Errors: `ScenarioError` that names the file and the key path.
    """
    path = Path(path)
    text = read_text(path, str(path), SCENARIO_BYTES_MAX)
    return parse_scenario(text, str(path), path.parent, allow_code=allow_code)


def parse_scenario(
    text: str, where: str = "scenario", folder: Path | None = None, *, allow_code: bool = False
) -> Scenario:
    """Read a scenario from TOML text; `where` begins each error, `folder` is where named files are looked for.

    With `allow_code` it may name a policy and workloads that are Python code, which then runs: only for files that one trusts.
    """
    try:
        data = _parse_toml(text)
        _check_plain(data, "", 0)
        _refuse_code(data, allow_code=allow_code)
        folder = folder if folder is not None else Path()
        _read_vibs(data, folder)
        _read_programs(data, folder)
        own = _read_policy(data, folder)
        return evolve(_read_demands(structure(data, Scenario), folder), policy_file=own)
    except ScenarioError as error:
        raise _within(where, error) from None
    except FieldError as error:
        raise ScenarioError(
            where, "wrong value", got=error.got, wanted=error.wanted, nearest=error.nearest
        ) from None


def _within(where: str, error: ScenarioError) -> ScenarioError:
    path = f"{where}: {error.path}" if error.path else where
    return ScenarioError(path, error.message, got=error.got, wanted=error.wanted, nearest=error.nearest)


def _parse_toml(text: str) -> dict[str, Any]:
    if _DEEP_KEY.search(text):
        raise ScenarioError("", f"a dotted key has more than {DEPTH_MAX} parts")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError("", f"not TOML: {error}") from None
    except RecursionError:
        raise ScenarioError("", f"nested deeper than {DEPTH_MAX} levels") from None
    except ValueError:
        raise ScenarioError("", f"a number does not fit {INTEGER_BITS_MAX} bits") from None


def _check_plain(value: object, path: str, depth: int) -> None:
    """Refuse what no key of a scenario can hold, before any of it is copied into an error message."""
    if depth > DEPTH_MAX:
        raise ScenarioError(path, f"nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if len(key) > KEY_CHARS_MAX or not key.isprintable():
                raise ScenarioError(
                    path, "wrong key", got=key, wanted=f"up to {KEY_CHARS_MAX} printable characters"
                )
            _check_plain(item, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_plain(item, f"{path}[{number}]", depth + 1)
    elif isinstance(value, str) and len(value) > TEXT_CHARS_MAX:
        raise ScenarioError(path, f"a text has more than {TEXT_CHARS_MAX} characters")
    elif isinstance(value, int) and value.bit_length() >= INTEGER_BITS_MAX:
        raise ScenarioError(path, f"a number does not fit {INTEGER_BITS_MAX} bits")
    elif isinstance(value, float):
        raise ScenarioError(path, "wrong value", got=value, wanted='an integer or a text such as "1.5s"')


def _read_vibs(data: dict[str, Any], folder: Path) -> None:
    """Replace the paths of VIBs by name and content of the files."""
    image = data.get("image")
    if not isinstance(image, dict) or "vibs" not in image:
        return
    paths = image["vibs"]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ScenarioError("image.vibs", "wrong value", got=paths, wanted="a list of file names")
    if len(paths) > VIBS_MAX:
        raise ScenarioError("image.vibs", f"over {VIBS_MAX} files")
    image["vibs"] = [
        {"name": Path(path).name, "data": read_input(folder / path, f"image.vibs[{number}]")}
        for number, path in enumerate(paths)
    ]


def _read_programs(data: dict[str, Any], folder: Path) -> None:
    """Replace the paths of programs from elsewhere by name and content of the files."""
    programs = data.get("programs")
    for number, entry in enumerate(programs[:PROGRAMS_MAX] if isinstance(programs, list) else ()):
        if isinstance(entry, dict) and "file" in entry:
            where, path = f"programs[{number}].file", entry["file"]
            if not isinstance(path, str):
                raise ScenarioError(where, "wrong value", got=path, wanted="a file name")
            content = read_input(folder / path, where, PROGRAM_BYTES_MAX)
            entry["file"] = {"name": Path(path).name, "data": content}


def _refuse_code(data: dict[str, Any], *, allow_code: bool) -> None:
    """Refuse workloads and policies that are code, unless that is allowed."""
    sched = data.get("sched")
    policy = sched.get("policy") if isinstance(sched, dict) else None
    if "policy_file" in data:
        raise ScenarioError("policy_file", "unknown key")
    if isinstance(policy, str) and ":" in policy and not allow_code:
        wanted = "the name of a policy that ships, or your leave to run code (--allow-code, allow_code=True)"
        raise ScenarioError("sched.policy", "a scenario file runs no code", got=policy, wanted=wanted)
    vms = data.get("vms")
    for number, entry in enumerate(vms if isinstance(vms, list) and not allow_code else ()):
        for key, workload in _workloads(entry):
            if workload.get("kind") == "generator":
                raise ScenarioError(
                    f"vms[{number}].{key}.kind",
                    "a scenario file runs no code",
                    got="generator",
                    wanted="your leave to run code (--allow-code, allow_code=True)",
                )


def _workloads(entry: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the workloads of a VM that are tables, each with its key."""
    if not isinstance(entry, dict):
        return
    listed = entry.get("vcpu_workloads")
    found = [("workload", entry.get("workload"))]
    found += [
        (f"vcpu_workloads[{at}]", one) for at, one in enumerate(listed if isinstance(listed, list) else ())
    ]
    yield from ((key, one) for key, one in found if isinstance(one, dict))


def _read_policy(data: dict[str, Any], folder: Path) -> InputFile | None:
    """Replace the file of a policy by the name of the module that its source will become."""
    sched = data.get("sched")
    policy = sched.get("policy") if isinstance(sched, dict) else None
    if not isinstance(policy, str) or not policy.startswith("."):
        return None
    found = _OWN_POLICY.fullmatch(policy)
    if found is None:
        wanted = "./FILE.py:Class, a file beside the scenario's"
        raise ScenarioError("sched.policy", "wrong value", got=policy, wanted=wanted)
    data["sched"]["policy"], own = read_policy(folder / found[1], found[2], "sched.policy")
    return own


def read_policy(path: Path, class_name: str, where: str) -> tuple[str, InputFile]:
    """Return what `sched.policy` and `policy_file` are for a class in a Python file; nothing of it runs yet.

    Errors: `ScenarioError` at `where` when the file cannot be read.
    """
    source = read_input(path, where, SOURCE_BYTES_MAX)
    return f"{module_name(source)}:{class_name}", InputFile(name=path.name, data=source)


def _read_demands(scenario: Scenario, folder: Path) -> Scenario:
    """Replace the CSV files of demand traces by their content."""
    entries = []
    for number, entry in enumerate(scenario.vms):
        workload = _with_demand(entry.workload, folder, f"vms[{number}].workload")
        listed = tuple(
            _with_demand(each, folder, f"vms[{number}].vcpu_workloads[{at}]")
            for at, each in enumerate(entry.vcpu_workloads)
        )
        entries.append(evolve(entry, workload=workload, vcpu_workloads=listed))
    return evolve(scenario, vms=tuple(entries))


def _with_demand(workload: WorkloadSpec, folder: Path, where: str) -> WorkloadSpec:
    if not workload.file:
        return workload
    return workload.with_demand(read_text(folder / workload.file, f"{where}.file", DEMAND_BYTES_MAX))
