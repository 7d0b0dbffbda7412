"""Runs of tests on mutants: each in a process of its own that knows the changed module only.

Models: two ways.  A mutant inside a function replaces that function's code in a forked pytest session that has
collected its tests already, and meets only tests that call the function, those near to it and then quick ones first.
Code that ran before the tests (at import, or to make their parameters) is too late to change there, so such a mutant
gets a process that imports the package anew, with the changed source in place of one module's.
Leaves out: changes of more than one place at once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import attrs
import pytest
from mutants import Mutant, code_objects

ROOT = Path(__file__).resolve().parents[2]
SURVIVED, KILLED, TIMEOUT, BROKEN, LATE = "survived", "killed", "timeout", "broken", "late"
_PYTEST = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "-W", "ignore"]
_EXITS = {0: SURVIVED, 1: KILLED, 90: BROKEN, 91: LATE}
_CODES = {outcome: code for code, outcome in _EXITS.items()}
_TIMEOUTS = (signal.SIGXCPU, signal.SIGALRM, signal.SIGPROF, signal.SIGKILL)
_MEMORY_BYTES_MAX = 4 << 30
_TEST_CPU_S = 8
"""What one test may take on a mutant beside three times what it takes without one: its fixtures may be made anew."""
_LIBRARIES = (
    *("attrs", "cattrs", "click", "defusedxml.ElementTree", "hypothesis.stateful", "numpy", "simpy"),
    *("cryptography.x509", "cryptography.hazmat.primitives.ciphers.modes", "multiprocessing", "rich.table"),
    *("cryptography.hazmat.primitives.asymmetric.ec", "cryptography.hazmat.primitives.asymmetric.rsa"),
    *("cryptography.hazmat.primitives.asymmetric.padding", "cryptography.hazmat.decrepit.ciphers.algorithms"),
)
"""What the package and its tests import from elsewhere: read once, for all the processes to come."""


@attrs.frozen(kw_only=True)
class Tests:
    """What the mutants must pass; each meets the tests near to its file first."""

    paths: tuple[str, ...]
    near: Callable[[Path], tuple[str, ...]]


@cache
def nearest(path: Path) -> tuple[str, ...]:
    """Return the unit tests of a module: those in the file named after it, then those in files that import it."""
    folder = ROOT.joinpath("tests", "unit", path.parts[1])
    imports = re.compile(
        rf"from {module_name(path)} import|from {module_name(path.parent)} import.*\b{path.stem}\b"
    )
    found = [
        test for test in sorted(folder.glob("test_*.py")) if imports.search(test.read_text(encoding="utf-8"))
    ]
    found.sort(key=lambda test: test.stem != f"test_{path.stem}")
    return tuple(str(test.relative_to(ROOT)) for test in found)


def in_fork(action: Callable[[], str], cpu_s: int) -> str:
    """Return the outcome that `action` has in a forked process with that much processor time."""
    pid = os.fork()
    if not pid:
        code = _CODES[BROKEN]  # what goes wrong here is no success of the tests
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
            signal.alarm(cpu_s * 20)
            code = _CODES[action()]
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return TIMEOUT if os.WTERMSIG(status) in _TIMEOUTS else KILLED
    return _EXITS.get(os.WEXITSTATUS(status), BROKEN)


def module_name(path: Path) -> str:
    """Return the dotted name of a module of the package."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Loader(SourceFileLoader):
    """Loads a module from a text that is not the file's."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Importer:
    """Finds the changed module before anybody else does."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = module_name(mutant.path)
        self.path = ROOT / mutant.path
        self.loader = _Loader(self.name, self.path, mutant.source())

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self.loader)


def at_import(mutant: Mutant, tests: Tests, cpu_s: int) -> str:
    """Return the outcome of a mutant in a process that imports it."""

    def action() -> str:
        if any(name.partition(".")[0] == "sim" for name in sys.modules):
            return BROKEN
        importer = _Importer(mutant)
        sys.meta_path.insert(0, importer)
        for paths in filter(None, (tests.near(mutant.path), tests.paths)):
            if pytest.main([*_PYTEST, *paths]):
                return KILLED  # also by a module that cannot be imported (exit status 2 or 4)
        return SURVIVED if importer.name in sys.modules else BROKEN

    return in_fork(action, cpu_s)


class _Calls:
    """Notes which functions of chosen files are called."""

    def __init__(self, paths: set[str]) -> None:
        self.paths = paths
        self.seen: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code  # as a trace function that returns None, this sees calls only
        if code.co_filename in self.paths:
            self.seen.add((code.co_filename, code.co_qualname.partition(".<locals>")[0]))

    def take(self) -> set[tuple[str, str]]:
        seen, self.seen = self.seen, set()
        return seen


class Session:
    """A pytest session that tries mutants instead of running its tests once; as a plugin, in a forked process."""

    def __init__(self, mutants: Sequence[Mutant], tests: Tests, tell: Callable[..., None]) -> None:
        self.mutants = mutants
        self.tests = tests
        self.tell = tell
        self.calls = _Calls({str(ROOT / mutant.path) for mutant in mutants})
        self.covering: dict[tuple[str, str], list[int]] = {}
        self.seconds: list[float] = []
        self.too_late: set[tuple[str, str]] = set()

    def run(self) -> int:
        """Collect, run every test once to see what it calls, and tell the outcome of each mutant."""
        sys.settrace(self.calls)
        return int(pytest.main([*_PYTEST, *self.tests.paths], plugins=[self]))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.too_late = self.calls.take()
        for number, item in enumerate(session.items):
            sys.settrace(self.calls)  # anew, as the test before may have ended the tracing
            start = time.process_time()
            _run(item, session.items[number + 1] if number + 1 < len(session.items) else None)
            self.seconds.append(time.process_time() - start)
            for called in self.calls.take():
                self.covering.setdefault(called, []).append(number)
        sys.settrace(None)
        if session.testsfailed or session.testscollected == 0:
            return True
        gc.collect()
        gc.freeze()
        for number, mutant in enumerate(self.mutants):
            outcome = self._outcome(session, mutant)
            self.tell(number, outcome, *(self._files(session, mutant) if outcome == LATE else ()))
        return True

    def _files(self, session: pytest.Session, mutant: Mutant) -> list[str]:
        """Return the files of the tests that call the mutant's function, those near to it first."""
        near = self.tests.near(mutant.path)
        numbers = self.covering.get((str(ROOT / mutant.path), mutant.function), ())
        files = dict.fromkeys(session.items[number].nodeid.partition("::")[0] for number in numbers)
        return sorted(files, key=lambda file: near.index(file) if file in near else len(near))

    def _outcome(self, session: pytest.Session, mutant: Mutant) -> str:
        place = (str(ROOT / mutant.path), mutant.function)
        if place in self.too_late:
            return LATE
        near = self.tests.near(mutant.path)
        covering = sorted(
            self.covering.get(place, ()),
            key=lambda number: (
                not session.items[number].nodeid.startswith(near),
                self.seconds[number],
                number,
            ),
        )
        if not covering:
            return SURVIVED
        cpu_s = 4 + int(3 * sum(self.seconds[number] for number in covering))

        def action() -> str:
            if not _exchange(mutant):
                return LATE
            for number, following in zip(covering, [*covering[1:], None], strict=True):
                signal.setitimer(signal.ITIMER_PROF, _TEST_CPU_S + 3 * self.seconds[number])
                item, after = session.items[number], None if following is None else session.items[following]
                if not _passes(item, after):
                    return KILLED
            return SURVIVED

        return in_fork(action, cpu_s)


def _run(item: pytest.Item, following: pytest.Item | None) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    try:
        _run(item, following)
    except BaseException:
        return False
    return not item.session.testsfailed


def _exchange(mutant: Mutant) -> bool:
    """Give a function of a loaded module the code of its mutant; tell whether that was possible."""
    compiled = compile(mutant.source(), str(ROOT / mutant.path), "exec", dont_inherit=True)
    codes = [code for name, code in code_objects(compiled) if name == mutant.function]
    function = _function_at(sys.modules[module_name(mutant.path)], mutant.function)
    if len(codes) != 1 or function is None or codes[0].co_freevars != function.__code__.co_freevars:
        return False
    function.__code__ = codes[0]
    return True


def _function_at(module: object, name: str) -> FunctionType | None:
    found = module
    for part in name.split("."):
        found = vars(found).get(part)
    for inside in ("fget", "__func__", "__wrapped__"):
        if hasattr(found, "cache_clear"):
            found.cache_clear()
        found = getattr(found, inside, None) or found
    return found if isinstance(found, FunctionType) else None


class Runner:
    """Tells the outcomes of mutants, in the order in which they are given."""

    def __init__(self, tests: Tests, cpu_s: int = 60) -> None:
        self.tests = tests
        self.cpu_s = cpu_s

    @cached_property
    def _ready(self) -> bool:
        """Import pytest with its plugins, but nothing of the package, for the processes to come."""
        for library in _LIBRARIES:
            importlib.import_module(library)
        with _silence():
            pytest.main([*_PYTEST, "--collect-only", str(ROOT / "tests" / "tidy" / "test_docs.py")])
        return "sim" not in sys.modules

    def outcomes(self, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
        """Yield every mutant with its outcome, those inside functions first."""
        if not self._ready:
            raise RuntimeError("the package is imported before its mutants are")
        inside = [mutant for mutant in mutants if mutant.function]
        late = [(mutant, self.tests) for mutant in mutants if not mutant.function]
        for mutant, outcome, files in self._inside_functions(inside):
            if outcome == LATE:
                late.append((mutant, Tests(paths=files or self.tests.paths, near=lambda _: ())))
            else:
                yield mutant, outcome
        for mutant, tests in late:
            with _silence():
                outcome = at_import(mutant, tests, self.cpu_s)
            yield mutant, outcome

    def _inside_functions(self, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str, tuple[str, ...]]]:
        if not mutants:
            return
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            with os.fdopen(writer, "w", encoding="ascii", buffering=1) as out, _silence():
                status = 1
                with contextlib.suppress(BaseException):
                    told = Session(mutants, self.tests, lambda *told: print(*told, file=out))
                    status = told.run()
                os._exit(status)
        os.close(writer)
        count = 0
        with os.fdopen(reader, encoding="ascii") as lines:
            for line in lines:
                number, outcome, *files = line.split()
                count += 1
                yield mutants[int(number)], outcome, tuple(files)
        os.waitpid(pid, 0)
        if count != len(mutants):
            raise RuntimeError("the tests fail, or find nothing to do, on the code as it is")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Let nothing that runs here print."""
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            for number, copy in enumerate(kept, 1):
                os.dup2(copy, number)
                os.close(copy)
