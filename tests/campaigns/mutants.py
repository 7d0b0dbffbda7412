"""Mutants of a source file: every change that an operator of mutmut makes to one node of it.

Models: all code of a module, that of its functions and that which runs when it is imported.
Leaves out what no program acts on: annotations, decorators, docstrings, `__all__`, and as mutmut does the arguments
of `len` and `isinstance`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path

import attrs
import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

_SPARED_CALLS = ("len", "isinstance")


@attrs.frozen(kw_only=True, eq=False)
class Mutant:
    """One change; `function` is the outermost function or method around it, empty for code that runs at import."""

    path: Path
    module: cst.Module = attrs.field(repr=False)
    line: int
    function: str
    old: cst.CSTNode = attrs.field(repr=False)
    new: cst.CSTNode = attrs.field(repr=False)

    def source(self) -> str:
        """Return the text of the whole changed module."""
        replacement = _Replacement(self.old, self.new)
        return self.module.visit(replacement).code

    def difference(self) -> str:
        """Return the changed node as it was and as it is, on one line."""
        was, now = (" ".join(self.module.code_for_node(node).split()) for node in (self.old, self.new))
        start = next((at for at, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
        shown = slice(max(0, start - 30), start + 50)
        return f"{self.path}:{self.line}: {was[shown]!r} -> {now[shown]!r}"


class _Replacement(cst.CSTTransformer):
    """Replaces one node, the first time it is met: a node may stand for an omitted comma in several places."""

    def __init__(self, old: cst.CSTNode, new: cst.CSTNode) -> None:
        super().__init__()
        self.old = old
        self.new = new
        self.done = False

    def on_visit(self, node: cst.CSTNode) -> bool:
        return not self.done and node is not self.old

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> cst.CSTNode:
        if original_node is self.old and not self.done:
            self.done = True
            return self.new
        return updated_node


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, path: Path, module: cst.Module) -> None:
        super().__init__()
        self.path = path
        self.module = module
        self.found: list[Mutant] = []
        self._scopes: list[str] = []
        self._function = ""
        self._depth = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_spared(node):
            return False
        if isinstance(node, (cst.ClassDef, cst.FunctionDef)):
            self._scopes.append(node.name.value)
        if isinstance(node, cst.FunctionDef):
            for child in (node.params, *node.decorators):
                child.visit(self)  # runs when the function is defined
            self._depth += 1
            if self._depth == 1:
                self._function = ".".join(self._scopes)
            node.body.visit(self)
            return False
        self._mutate(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if _is_spared(original_node):
            return
        if isinstance(original_node, (cst.ClassDef, cst.FunctionDef)):
            self._scopes.pop()
        if isinstance(original_node, cst.FunctionDef):
            self._depth -= 1
            if not self._depth:
                self._function = ""

    def _mutate(self, node: cst.CSTNode) -> None:
        for kind, operator in mutation_operators:
            if not isinstance(node, kind):
                continue
            for changed in operator(node):
                position = self.get_metadata(PositionProvider, node, None)
                self.found.append(
                    Mutant(
                        path=self.path,
                        module=self.module,
                        line=position.start.line if position else 0,
                        function=self._function,
                        old=node,
                        new=changed,
                    )
                )


def _is_spared(node: cst.CSTNode) -> bool:
    if isinstance(node, (cst.Annotation, cst.Decorator)):
        return True
    if isinstance(node, cst.Call):
        return isinstance(node.func, cst.Name) and node.func.value in _SPARED_CALLS
    if isinstance(node, cst.Assign):
        return any(
            isinstance(each.target, cst.Name) and each.target.value == "__all__" for each in node.targets
        )
    return False


def mutants_of(path: Path) -> list[Mutant]:
    """Return all mutants of a file that Python can read, in the order of the file."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")))
    finder = _Finder(path, wrapper.module)
    wrapper.visit(finder)
    return [mutant for mutant in finder.found if _compiles(mutant)]


def _compiles(mutant: Mutant) -> bool:
    """Whether the changed node alone is Python, which is quick to tell for an expression."""
    if not isinstance(mutant.new, cst.BaseExpression):
        return True
    try:
        compile(f"({mutant.module.code_for_node(mutant.new)})", "mutant", "eval", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def code_objects(code: types.CodeType) -> Iterator[tuple[str, types.CodeType]]:
    """Yield the qualified name and the code of every function of a compiled module, methods included."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if "<locals>" not in constant.co_qualname:
                yield constant.co_qualname, constant
            yield from code_objects(constant)
