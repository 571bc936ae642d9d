"""The definitions in a file: statements at its top, by the names that they bind or change."""

import ast
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


@dataclasses.dataclass(eq=False)
class Definition:
    """A statement (or a lambda expression) of a file, and what its names mean there.

    **Arguments:** `file`: where it stands; `tree`: its syntax.
    """

    file: "File"
    tree: ast.AST
    text: str = ""
    named: dict[str, list["Definition"]] = dataclasses.field(default_factory=dict)
    """What it reaches itself, by the name that each has where it is defined."""
    mentioned: set[str] = dataclasses.field(default_factory=set)
    """All names and attributes that stand in it, and its texts, which may be names."""
    members: dict[str, list["Definition"]] = dataclasses.field(default_factory=dict)
    """What of a class is reached only where its name is mentioned: methods, or members."""
    within: str = ""
    """The class that it is a method or a member of."""


class Import(NamedTuple):
    """What an import binds: a module or, with a `name`, what the module has under it."""

    module: str
    name: str | None


class Module(NamedTuple):
    """A module of ours: its file, and the folder of its submodules."""

    file: Path | None
    folder: Path | None


class Found(NamedTuple):
    """A definition, by the name that it has where it is defined."""

    name: str
    definition: Definition


Meaning = Found | Module | str
"""What a name means: a definition, a module of ours, or the dotted name of somebody else's."""


def module_at(folder: Path, parts: list[str]) -> Module | None:
    """The module called `parts` in a folder, if there is one."""
    path = folder.joinpath(*parts)
    if (path / "__init__.py").is_file():
        return Module(path / "__init__.py", path)
    if parts and path.with_suffix(".py").is_file():
        return Module(path.with_suffix(".py"), None)
    return Module(None, path) if path.is_dir() else None


class File:
    """The statements at the top of a file, by the names that they bind or change.

    `always` are those that name nothing of the file: they are executed whatever is reached of it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.definitions: dict[str, list[Definition]] = {}
        self.imports: dict[str, list[Import]] = {}
        self.always: list[Definition] = []
        self._tree = ast.parse(path.read_bytes())
        self._lambdas: dict[int, list[Definition]] = {}
        kept: list[tuple[Definition, dict[str, list[Import]]]] = []
        for statement in _executed(self._tree.body):
            bound = bound_in([statement])
            for name, imported in bound.items():
                self.imports.setdefault(name, []).extend(imported)
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                kept.append((Definition(self, statement), bound))
        for definition, bound in kept:
            for name in bound:
                self.definitions.setdefault(name, []).append(definition)
        own = set(self.definitions)
        for definition, bound in kept:
            changed = own & _changed_by(definition.tree)
            for name in changed - set(bound):
                self.definitions[name].append(definition)
            if not bound and not changed:
                self.always.append(definition)

    def lambdas(self, line: int) -> list[Definition]:
        """The lambda expressions that begin in this line."""
        if line not in self._lambdas:
            self._lambdas[line] = [
                Definition(self, node)
                for node in ast.walk(self._tree)
                if isinstance(node, ast.Lambda) and node.lineno == line
            ]
        return self._lambdas[line]


def _executed(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """What is executed of the statements of a file when it is imported."""
    for statement in statements:
        if isinstance(statement, ast.If) and _is_for_types(statement.test):
            yield from _executed(statement.orelse)
        elif not does_nothing(statement) and not _is_main(statement):
            yield statement


def _is_for_types(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _is_main(statement: ast.stmt) -> bool:
    """Whether this is what a file does only if it is executed as a program."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"


def does_nothing(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, an ellipsis or the like."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)


def _changed_by(statement: ast.AST) -> set[str]:
    """Names of what a statement may change in place."""
    if isinstance(statement, _DEFINING):
        # Such as `@function.register`.
        return {root(d) for d in statement.decorator_list if not isinstance(d, ast.Name)}
    if isinstance(statement, _ASSIGNING):
        changed = (ast.Attribute, ast.Subscript)
        return {
            root(node)
            for node in ast.walk(statement)
            if isinstance(node, changed) and isinstance(node.ctx, ast.Store)
        }
    # Such as `table.update(...)` or a loop that registers functions.
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def root(node: ast.AST) -> str:
    """The name that a chain of attributes, subscripts and calls begins with, if it is one."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_ASSIGNING = (ast.Assign, ast.AnnAssign, ast.AugAssign)
Scope = Mapping[str, Sequence[Import]]
"""Local names, with what is imported under them."""


def bound_in(statements: Iterable[ast.AST]) -> dict[str, list[Import]]:
    """Names that are bound in this scope, with what is imported under them."""
    found: dict[str, list[Import]] = {}
    outside: set[str] = set()
    left = list(statements)
    while left:
        node = left.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.setdefault(node.name, [])
            case ast.Lambda():
                pass
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                # Its variables are its own, but for those of `:=`.
                inner = [n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)]
                found.update({name: found.get(name, []) for name in inner})
            case ast.Name():
                if not isinstance(node.ctx, ast.Load):
                    found.setdefault(node.id, [])
            case ast.Import():
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    found.setdefault(alias.asname or whole, []).append(Import(whole, None))
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                for alias in node.names:
                    name = alias.asname or alias.name
                    found.setdefault(name, []).append(Import(module, alias.name))
            case ast.Global() | ast.Nonlocal():
                outside.update(node.names)
            case _:
                # Those of `except … as` and of patterns.
                for field in ("name", "rest"):
                    if isinstance(name := getattr(node, field, None), str):
                        found.setdefault(name, [])
                left += ast.iter_child_nodes(node)
    return {name: imported for name, imported in found.items() if name not in outside}
