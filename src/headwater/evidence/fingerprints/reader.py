"""What of a definition counts, as words, and what its names mean."""

import ast
from collections.abc import Iterable
from typing import Any

from headwater.evidence.fingerprints.files import (
    Definition,
    Found,
    Meaning,
    Module,
    Scope,
    bound_in,
    does_nothing,
    root,
)
from headwater.evidence.fingerprints.meanings import Meanings

_NOT_EXECUTED = frozenset(
    ("ctx", "annotation", "returns", "type_comment", "type_params", "kind", "simple")
)
_SPECIAL_FIELDS = frozenset(("AbstractClassVar", "AbstractVar", "ClassVar", "InitVar"))
"""Annotations that decide whether a class has a field, and are read when it is made."""

_CATALOGUE_ENTRY = "Info"
"""What documents say of a method: its paper and a summary."""

_PLAIN_DECORATORS = (
    "abc",
    "classmethod",
    "eqx",
    "functools",
    "jax",
    "override",
    "property",
    "staticmethod",
    "typing",
)
"""Roots of decorators after which a method is still executed only where its name stands."""


class Reader:
    """Writes a syntax tree as words, and notes what its names mean.

    **Arguments:** `meanings`: of names; `definition`: where the tree stands, on which is noted what
    it reaches; `annotated`: whether annotations count.
    """

    def __init__(self, meanings: Meanings, definition: Definition, annotated: bool):
        self._meanings = meanings
        self._annotated = annotated
        self._file = definition.file
        self._definition = definition
        self._named = definition.named
        self.words: list[str] = []

    def write(self, node: ast.AST, scope: Scope) -> None:
        """Adds `node` to `words`, whose local names are in `scope`."""
        match node:
            case ast.Name():
                self._name(node, [], scope)
            case ast.Attribute():
                self._attribute(node, scope)
            case ast.Constant():
                self._constant(node.value)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._function(node, scope)
            case ast.ClassDef():
                self._class(node, scope)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node, scope)
            case ast.AnnAssign():
                if node.value is not None:
                    self._assignment(node.target, node.value, scope)
            case ast.Assign() if len(node.targets) == 1:
                self._assignment(node.targets[0], node.value, scope)
            case _:
                self._any(node, node._fields, scope)

    def _any(self, node: ast.AST, fields: Iterable[str], scope: Scope) -> None:
        self.words.append("(" + type(node).__name__)
        for field in fields:
            value = getattr(node, field, None)
            if value is None or field in _NOT_EXECUTED:
                continue
            if not isinstance(value, list):
                self.words.append(field)
                self._part(value, scope)
            elif value:
                self.words.append(field + "[")
                for part in value:
                    self._part(part, scope)
                self.words.append("]")
        self.words.append(")")

    def _part(self, part: Any, scope: Scope) -> None:
        if isinstance(part, ast.stmt):
            self._statement(part, scope)
        elif isinstance(part, ast.AST):
            self.write(part, scope)
        else:
            self.words.append(repr(part))

    def _statement(self, node: ast.stmt, scope: Scope) -> None:
        # What is imported counts where it is used, by its full name.
        if not does_nothing(node) and not isinstance(node, ast.Import | ast.ImportFrom):
            self.write(node, scope)

    def _constant(self, value: Any) -> None:
        self.words.append(repr(value))
        if isinstance(value, str):
            self._definition.mentioned.add(value)
            self._note(self._meanings.by_text(value))

    def _attribute(self, node: ast.Attribute, scope: Scope) -> None:
        names, root = [node.attr], node.value
        while isinstance(root, ast.Attribute):
            names.append(root.attr)
            root = root.value
        self._definition.mentioned.update(names)
        if isinstance(root, ast.Name):
            self._name(root, names[::-1], scope)
        else:
            self._any(node, ("value", "attr"), scope)

    def _name(self, node: ast.Name, attributes: list[str], scope: Scope) -> None:
        """A name and the attributes asked of it, such as `module.function`."""
        self._definition.mentioned.add(node.id)
        if node.id in scope:
            found: list[Meaning] = []
            for imported in scope[node.id]:
                found += self._meanings.imported(self._file.path, imported)
        else:
            found = self._meanings.in_file(self._file, node.id)
        pairs = [p for m in found for p in self._meanings.attributes(m, attributes)]
        if not pairs:
            pairs = [(node.id, attributes)]
        written = set()
        for meaning, left in pairs:
            if isinstance(meaning, Found):
                self._note([meaning])
                written.add(".".join([meaning.name, *left]))
            elif isinstance(meaning, Module):
                self._note(Found("", definition) for definition in self._meanings.all_of(meaning))
                written.add(".".join(["<module>", *left]))
            else:
                written.add(".".join([meaning, *left]))
        self.words.append("|".join(sorted(written)))

    def _note(self, found: Iterable[Found]) -> None:
        for name, definition in found:
            known = self._named.setdefault(name, [])
            if definition not in known:
                known.append(definition)

    def _assignment(self, target: ast.expr, value: ast.expr, scope: Scope) -> None:
        self.words.append("(=")
        self.write(target, scope)
        self.write(value, scope)
        self.words.append(")")

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: Scope
    ) -> None:
        given = node.args
        self.words.append("(" + type(node).__name__)
        if not isinstance(node, ast.Lambda):
            self.words.append(node.name)
            self._list(node.decorator_list, scope)
            if self._annotated and node.returns is not None:
                self.words.append(ast.unparse(node.returns))
        names: list[str] = []
        for kind in ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"):
            part = getattr(given, kind)
            parts = part if isinstance(part, list) else [part] if part else []
            own = [a.arg for a in parts]
            self.words += [kind, *own]
            names += own
            if self._annotated:
                self.words += [_annotation(a) for a in parts]
        self._list(given.defaults, scope)
        self._list(given.kw_defaults, scope)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        outside = {n for g in body for n in _declared_global(g)}
        inner = {name: imported for name, imported in scope.items() if name not in outside}
        inner |= bound_in(body) | {name: [] for name in names}
        self._list(body, inner)
        self.words.append(")")

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        # The names of a class are no variables of its methods, and before they are bound they mean
        # what they mean outside: so nothing is local here.
        self.words += ["(Class", node.name]
        self._list(node.decorator_list, scope)
        self._list([*node.bases, *node.keywords], scope)
        by_name: list[tuple[str, ast.stmt]] = []
        whole = node is self._definition.tree
        apart = whole and self._meanings.has_plain_methods(self._file, node)
        members = whole and self._meanings.is_enumeration(self._file, node)
        imported = {n: i for n, i in bound_in(node.body).items() if i}
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign):
                self._field(statement, {**scope, **imported})
            elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                if apart and _is_called_by_name(statement):
                    self._member(statement.name, statement, node.name)
                else:
                    by_name.append((statement.name, statement))
            elif members and (name := _constant_of(statement)):
                self._member(name, statement, node.name)
            else:
                self._statement(statement, {**scope, **imported})
        # In whatever order, but for one name that is defined repeatedly, as of properties.
        self._list([function for _, function in sorted(by_name, key=lambda pair: pair[0])], scope)
        self.words.append(")")

    def _member(self, name: str, statement: ast.stmt, within: str) -> None:
        member = Definition(self._file, statement, within=within)
        self._definition.members.setdefault(name, []).append(member)

    def _field(self, node: ast.AnnAssign, scope: Scope) -> None:
        if isinstance(node.value, ast.Call) and root(node.value) == _CATALOGUE_ENTRY:
            return
        if self._annotated:
            self.words.append(ast.unparse(node.annotation))
        kind = node.annotation
        if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
            kind = ast.parse(kind.value, mode="eval").body
        kind = kind.value if isinstance(kind, ast.Subscript) else kind
        name = getattr(kind, "attr", getattr(kind, "id", ""))
        self.words += ["(field", name if name in _SPECIAL_FIELDS else ""]
        self._list([node.target, *([node.value] if node.value else [])], scope)
        self.words.append(")")

    def _comprehension(self, node: Any, scope: Scope) -> None:
        targets = (n for g in node.generators for n in ast.walk(g.target))
        inner = {**scope, **{n.id: [] for n in targets if isinstance(n, ast.Name)}}
        self.words.append("(" + type(node).__name__)
        for number, part in enumerate(node.generators):
            self.words.append("async" if part.is_async else "for")
            self.write(part.target, inner)
            # The first is evaluated outside.
            self.write(part.iter, inner if number else scope)
            self._list(part.ifs, inner)
        for field in node._fields:
            if field != "generators":
                self.write(getattr(node, field), inner)
        self.words.append(")")

    def _list(self, nodes: Iterable[ast.AST | None], scope: Scope) -> None:
        self.words.append("[")
        for node in nodes:
            self._part(node, scope)
        self.words.append("]")


def _annotation(node: ast.arg) -> str:
    return "" if node.annotation is None else ast.unparse(node.annotation)


def _constant_of(node: ast.stmt) -> str:
    """The name that a statement gives to a constant, if that is all that it does."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        match node.targets:
            case [ast.Name(id=name)] if not name.startswith("_"):
                return name
    return ""


def _is_called_by_name(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method is executed only where its name stands: unlike `__call__`, say."""
    if node.name.startswith("__") and node.name.endswith("__"):
        return False
    return all(root(d) in (*_PLAIN_DECORATORS, node.name) for d in node.decorator_list)


def _declared_global(node: ast.AST) -> list[str]:
    return [name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names]
