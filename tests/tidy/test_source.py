"""Claims about the source itself: sizes, docstrings, forbidden calls, public names, no words that do not belong here."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "sim").rglob("*.py"))
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

CLOCKS_AND_CHANCE = {"time", "random", "uuid", "secrets", "threading", "asyncio", "locale"}
# The TCP server has real clients: a thread for each, and a limit on how long a message may take.
MAY_USE_THE_REAL_CLOCK = {"sim/cli/command.py", "sim/tpm/server/listener.py", "sim/tpm/server/wire.py"}
MAY_PRINT = {"sim/cli/command.py", "sim/report/console.py"}
FORBIDDEN_CALLS = {"hash", "id", "input", "eval", "exec", "breakpoint"}
RANDOM_KEYS = re.compile(
    r"generate_private_key|random_serial_number|PKCS7SignatureBuilder|os\.urandom|numpy\.random|np\.random|datetime\.now\("
)


def name_of(path):
    return str(path.relative_to(ROOT))


def trees():
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES]


def test_modules_and_functions_are_small():
    too_long = []
    for path, tree in trees():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MODULE_LINES_MAX:
            too_long.append(f"{name_of(path)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    too_long.append(f"{name_of(path)}:{node.lineno} {node.name}: {length} lines")
    assert too_long == []


def public(nodes):
    return [
        node
        for node in nodes
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
    ]


def test_every_module_and_every_public_definition_says_what_it_is():
    silent = []
    for path, tree in trees():
        if not ast.get_docstring(tree):
            silent.append(name_of(path))
        for node in public(tree.body):
            inside = public(node.body) if isinstance(node, ast.ClassDef) and not node.bases else []
            silent += [
                f"{name_of(path)}:{one.lineno} {one.name}"
                for one in (node, *inside)
                if not ast.get_docstring(one)
            ]
    assert silent == []


def test_long_modules_say_what_they_leave_out_and_where_their_facts_come_from():
    silent = []
    for path, tree in trees():
        text = ast.get_docstring(tree) or ""
        if len(path.read_text(encoding="utf-8").splitlines()) > 60 and not re.search(r"[Ll]eaves out", text):
            silent.append(name_of(path))
    assert silent == []


def test_the_model_takes_no_time_chance_or_threads_from_the_machine():
    taken = []
    for path, tree in trees():
        if name_of(path) in MAY_USE_THE_REAL_CLOCK:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [(node.module or "").partition(".")[0]]
            else:
                continue
            taken += [f"{name_of(path)}:{node.lineno} {name}" for name in names if name in CLOCKS_AND_CHANCE]
    assert taken == []


def test_the_model_calls_nothing_that_differs_between_processes_and_never_prints():
    called = []
    for path, tree in trees():
        forbidden = FORBIDDEN_CALLS if name_of(path) in MAY_PRINT else FORBIDDEN_CALLS | {"print"}
        calls = [
            node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        called += [
            f"{name_of(path)}:{node.lineno} {node.func.id}()" for node in calls if node.func.id in forbidden
        ]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if RANDOM_KEYS.search(line) and not line.lstrip().startswith(("#", '"')):
                called.append(f"{name_of(path)}:{number} {line.strip()}")
    assert called == []


COMMANDS = ROOT / "sim" / "tpm" / "commands"
ARGUMENT_SLICES = {
    "asymmetric.py": {"message[:-size]", "padded[-size:]"},
    "nvram.py": {"before[:offset]", "before[offset + len(data):]", "index.content[offset:offset + size]"},
    "policies.py": {"content[offset:offset + len(operand)]", "info[offset:offset + len(operand)]"},
}
"""Slices of byte strings where the command itself says the offset, or RSA the size; no other is allowed."""
LIST_SLICES = {
    "entries[:min(count, listed.count_max)]",
    "present_pcrs(tpm, each)[:READ_DIGESTS_MAX - len(digests)]",
}
READS_BYTES = {"unpack", "unpack_from", "iter_unpack", "pack", "pack_into"}


def test_no_command_takes_bytes_apart_by_hand():
    """Structures are declared once; commands get their fields, and neither `struct` nor the bytes of the request."""
    offences = []
    for path in sorted(COMMANDS.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        allowed = ARGUMENT_SLICES.get(path.name, set()) | LIST_SLICES
        for node in ast.walk(tree):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom) and "struct" in ast.unparse(node):
                offences.append(f"{where}: {ast.unparse(node)}")
            elif isinstance(node, ast.Attribute) and node.attr in READS_BYTES:
                offences.append(f"{where}: {node.attr}")
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
                found = ast.unparse(node)
                offences += [] if found in allowed else [f"{where}: {found}"]
    assert offences == []


def test_every_command_has_one_function_in_one_module_and_no_function_serves_two():
    modules = [
        importlib.import_module(f"sim.tpm.commands.{path.stem}")
        for path in sorted(COMMANDS.glob("*.py"))
        if path.name != "__init__.py"
    ]
    actions = [(code, action) for module in modules for code, action in module.ACTIONS.items()]
    assert sorted(code for code, _ in actions) == sorted(importlib.import_module("sim.tpm.tables").COMMANDS)
    assert len({action for _, action in actions}) == len(actions)
    assert {action.__module__ for _, action in actions} == {module.__name__ for module in modules}


def test_no_set_is_iterated():
    iterated = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.For, ast.comprehension)) and isinstance(
                node.iter, (ast.Set, ast.SetComp)
            ):
                iterated.append(f"{name_of(path)}:{node.iter.lineno}")
            if isinstance(node, (ast.For, ast.comprehension)) and isinstance(node.iter, ast.Call):
                function = node.iter.func
                if isinstance(function, ast.Name) and function.id in ("set", "frozenset"):
                    iterated.append(f"{name_of(path)}:{node.iter.lineno}")
    assert iterated == []


def test_listed_names_exist_and_each_public_name_of_the_package_has_one_home():
    import sim

    assert set(sim._HOMES) | {"__version__"} == set(sim.__all__)
    for name, home in sim._HOMES.items():
        assert getattr(importlib.import_module(home), name) is getattr(sim, name)
    for path in MODULES:
        module = importlib.import_module(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__}.__all__ lists {name}, which does not exist"


def test_importing_the_package_brings_no_heavy_library():
    heavy = ("pandas", "matplotlib", "hypothesis", "dask", "pytest", "rich", "click")
    code = f"import sys, sim; sim.Scenario; print(','.join(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def tracked_files():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\n") if name and (ROOT / name).is_file()]


def test_no_file_names_a_path_of_a_machine():
    places = re.compile(rb"(?<![\w.])/(tm[p]|wor[k]|roo[t]|hom[e])/[a-z]")
    found = [name_of(path) for path in tracked_files() if places.search(path.read_bytes())]
    assert found == []


def test_a_check_that_is_off_has_a_reason():
    bare = []
    for path in tracked_files():
        if path.suffix == ".py":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(r"# noqa: [A-Z0-9, ]+$", line):
                    bare.append(f"{name_of(path)}:{number}")
    assert bare == []
