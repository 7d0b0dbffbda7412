"""The checks of a source file, each of which can be switched off: what `ablation` tries.

Models: a check is a statement that refuses, or a condition that decides about one.
Refusing statements raise (but for what is raised in a handler, which passes on another's refusal, and what reports a bug
of ours), call a check whose answer nobody uses, yield a fault or append it to a list of them, or return a refusal: False,
a fault, a text of what is wrong, None where a value was asked for.  In their place stands `pass`; in that of a False
that ends a function stands True, and a None that ends one is what Python returns without it.
Conditions are those of an `if` with a branch that refuses, or one that passes by what else a function refuses, and what a function that answers a question returns: each operand
of `and` and `or`, each half of a chained comparison and each pair of compared tuples is left out in turn, an answer that
is one expression becomes True and False, and of an answer with `if` and `else` the fault is left out.

Leaves out: faults in comprehensions; loops that end too early; the value of a limit, which mutants change.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
OURS = ("SimBug", "NotImplementedError")
"""What is raised for a bug of ours is no check of what comes from outside."""
FAULT_LISTS = frozenset(
    (
        *("contradictions", "failures", "faults", "findings", "oddities", "problems", "reasons", "refusals"),
        *("unchecked", "unknown", "unlisted"),
    )
)
FAULT_TYPES = re.compile(r"(Error|Failure|Fault|Finding|Problem|Reason|Refused)\b")
_FAULT_MAKERS = re.compile(r"(Error|Failure|Fault|Finding|Reason|Refused|^_?fault|^unreadable)$")
_DECISION = "decision"
_TEXT_MAX = 120


@attrs.frozen(kw_only=True)
class Check:
    """One check that is switched off: `now` stands in place of the text from `start` to `end`."""

    path: Path
    function: str
    start: int
    end: int
    now: str
    text: str

    def source(self) -> str:
        """Return the text of the whole changed module, with as many lines as before."""
        was = text_of(self.path)
        lost = was.count("\n", self.start, self.end) - self.now.count("\n")
        now = f"{self.now[:-1]}{chr(10) * lost})" if self.now.endswith(")") else self.now + "\n" * lost
        return was[: self.start] + now + was[self.end :]

    @property
    def name(self) -> str:
        """Return how the report and the list of known ones call it."""
        return f"{self.path}: {self.function}: {self.text}"


@cache
def text_of(path: Path) -> str:
    """Return the text of a file of the package."""
    return (ROOT / path).read_text(encoding="utf-8")


class _Finder(ast.NodeVisitor):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [0]
        for line in text_of(path).splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.scopes: list[ast.ClassDef | ast.FunctionDef] = []
        self.handlers = 0
        self.found: list[Check] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside(node)

    def _inside(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        self.scopes.append(node)
        self.generic_visit(node)
        self.scopes.pop()

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.handlers += 1
        self.generic_visit(node)
        self.handlers -= 1

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt) and self._functions:
            function = self._functions[-1]
            if _refuses(node, function) and not (self.handlers and isinstance(node, ast.Raise)):
                self._off(node, last=any(node is each for each in _last_of(function.body)))
            if isinstance(node, ast.If) and self._decides(node, function):
                self._operands(node.test)
            if isinstance(node, ast.Return) and node.value is not None:
                self._answer(node.value, function)
        if isinstance(node, ast.Call) and _called(node) == _DECISION and self._functions:
            self._items(node)
        super().generic_visit(node)

    def _decides(self, node: ast.If, function: ast.FunctionDef) -> bool:
        """Tell whether a branch refuses, or passes by a refusal of the same function."""
        branches = [node.body, node.orelse]
        while len(branches[-1]) == 1 and isinstance(branches[-1][0], ast.If):
            last = branches[-1][0]
            branches[-1:] = [last.body, last.orelse] if last.orelse else [last.body]
        if any(_refuses(each, function) for branch in branches for each in branch):
            return True
        end = node.body[-1]
        passes = isinstance(end, ast.Continue) or (isinstance(end, ast.Return) and end.value is None)
        statements = [each for each in ast.walk(function) if isinstance(each, ast.stmt)]
        return passes and any(_refuses(each, function) for each in statements)

    @property
    def _functions(self) -> list[ast.FunctionDef]:
        return [each for each in self.scopes if isinstance(each, ast.FunctionDef)]

    def _off(self, node: ast.stmt, *, last: bool) -> None:
        if last and isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
            if node.value.value is False:
                self._add(node, "return True", ast.unparse(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, (ast.Yield, ast.YieldFrom)):
            self._add(node, "yield from ()", ast.unparse(node))
        else:
            self._add(node, "pass", ast.unparse(node))

    def _answer(self, value: ast.expr, function: ast.FunctionDef) -> None:
        kind = _annotation(function)
        if isinstance(value, ast.IfExp) and _is_fault_type(kind):
            for accepted in (value.body, value.orelse):
                if isinstance(accepted, ast.Constant) and not accepted.value:
                    self._replace(value, accepted, f"return {ast.unparse(value)}")
        elif kind == "bool" and not isinstance(value, ast.Constant):
            before = len(self.found)
            self._operands(value)
            if len(self.found) == before:
                for constant in (True, False):
                    text = f"{constant} for {ast.unparse(value)}"
                    self._replace(value, ast.Constant(value=constant), text)

    def _items(self, call: ast.Call) -> None:
        """A decision is made of faults: leave out each that a list of it spreads."""
        for items in ast.walk(call):
            if not isinstance(items, ast.List):
                continue
            for at, item in enumerate(items.elts):
                if isinstance(item, ast.Starred):
                    rest = ast.List(elts=[*items.elts[:at], *items.elts[at + 1 :]], ctx=ast.Load())
                    self._replace(items, rest, f"without {ast.unparse(item)} in {ast.unparse(items)}")

    def _operands(self, test: ast.expr) -> None:
        for node in ast.walk(test):
            for gone, rest in _without_each(node):
                if not any(isinstance(each, ast.NamedExpr) for each in ast.walk(gone)):
                    self._replace(node, rest, f"without {ast.unparse(gone)} in {ast.unparse(node)}")

    def _replace(self, node: ast.expr, other: ast.expr, text: str) -> None:
        self._add(node, f"({ast.unparse(ast.fix_missing_locations(other))})", text)

    def _add(self, node: ast.stmt | ast.expr, now: str, text: str) -> None:
        names = [each.name for each in self.scopes[: self.scopes.index(self._functions[0]) + 1]]
        self.found.append(
            Check(
                path=self.path,
                function=".".join(names),
                start=self._offset(node.lineno, node.col_offset),
                end=self._offset(node.end_lineno or 0, node.end_col_offset or 0),
                now=now,
                text=" ".join(text.split())[:_TEXT_MAX],
            )
        )

    def _offset(self, line: int, column: int) -> int:
        """Return the place in the text; the parser counts columns in bytes."""
        start = self.lines[line - 1]
        before = text_of(self.path)[start : self.lines[line]].encode()[:column]
        return start + len(before.decode())


def _last_of(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a function behind which it ends."""
    last = body[-1]
    yield last
    inner = [getattr(last, name, []) for name in ("body", "orelse", "finalbody")]
    if isinstance(last, (ast.If, ast.With, ast.Try)):
        inner += [handler.body for handler in getattr(last, "handlers", [])]
        for each in filter(None, inner):
            yield from _last_of(each)


def _refuses(node: ast.stmt, function: ast.FunctionDef) -> bool:
    """Tell whether a statement alone is a refusal."""
    if isinstance(node, ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return raised is not None and ast.unparse(raised) not in OURS
    if isinstance(node, ast.Return):
        return _is_refusal(node.value, _annotation(function))
    if isinstance(node, ast.AugAssign):
        return _last_name(node.target) in FAULT_LISTS
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, (ast.Yield, ast.YieldFrom)):
        return _is_fault_type(_annotation(function))
    return isinstance(node.value, ast.Call) and (_is_check(node.value) or _adds_fault(node.value))


def _is_refusal(value: ast.expr | None, kind: str) -> bool:
    """Tell whether what a function with this annotation returns says no."""
    if isinstance(value, ast.Constant):
        if value.value is None:
            return kind.endswith("| None") and not _is_fault_type(kind)
        return value.value is False or (bool(value.value) and _is_fault_type(kind))
    if isinstance(value, ast.JoinedStr):
        return _is_fault_type(kind)
    if isinstance(value, ast.Call) and _called(value) == _DECISION:
        return any(isinstance(each, ast.List) and each.elts for each in ast.walk(value))
    return isinstance(value, ast.Call) and bool(_FAULT_MAKERS.search(_called(value)))


def _is_fault_type(kind: str) -> bool:
    return bool(FAULT_TYPES.search(kind)) or kind in ("str", "str | None", "Iterator[str]")


def _annotation(function: ast.FunctionDef) -> str:
    return "" if function.returns is None else ast.unparse(function.returns)


def _is_check(call: ast.Call) -> bool:
    return _called(call).startswith(("check", "_check", "need", "verify", "_verify", "stage"))


def _adds_fault(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("append", "extend"):
        return False
    made = isinstance(call.args[0], ast.Call) and bool(_FAULT_MAKERS.search(_called(call.args[0])))
    return made or _last_name(call.func.value) in FAULT_LISTS


def _called(call: ast.Call) -> str:
    return _last_name(call.func)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _without_each(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield each part of a condition with what is left without it."""
    if isinstance(node, ast.BoolOp):
        for at, operand in enumerate(node.values):
            rest = [*node.values[:at], *node.values[at + 1 :]]
            yield operand, rest[0] if len(rest) == 1 else ast.BoolOp(op=node.op, values=rest)
    elif isinstance(node, ast.Compare) and len(node.ops) > 1:
        operands = [node.left, *node.comparators]
        parts: list[ast.expr] = [
            ast.Compare(left=left, ops=[how], comparators=[right])
            for left, how, right in zip(operands, node.ops, operands[1:], strict=False)
        ]
        for at, part in enumerate(parts):
            rest = [*parts[:at], *parts[at + 1 :]]
            yield part, rest[0] if len(rest) == 1 else ast.BoolOp(op=ast.And(), values=rest)
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
        left, right = node.left, node.comparators[0]
        if isinstance(left, ast.Tuple) and isinstance(right, ast.Tuple) and len(left.elts) == len(right.elts):
            for at, (one, other) in enumerate(zip(left.elts, right.elts, strict=True)):
                rest = copy.deepcopy(node)
                del rest.left.elts[at], rest.comparators[0].elts[at]  # type: ignore[attr-defined]
                yield ast.Compare(left=one, ops=node.ops, comparators=[other]), rest


def checks_of(path: Path) -> list[Check]:
    """Return all checks of a file that can be switched off, in their order; equal names get numbers."""
    finder = _Finder(path)
    finder.visit(ast.parse(text_of(path)))
    seen: Counter[str] = Counter()
    named = []
    for check in finder.found:
        seen[check.name] += 1
        again = seen[check.name]
        named.append(check if again == 1 else attrs.evolve(check, text=f"{check.text} #{again}"))
    return named
