"""Fingerprints of code: what an experiment executes, whatever file it stands in.

A *definition* is a statement at the top of a file: a function, a class, an assignment. A
fingerprint is taken of the definitions that an experiment reaches by name, each as its syntax tree
without docstrings, formatting, type annotations and the paths of modules. So it is the same after a
definition has moved to another file, a file to another folder, after files were renamed, or
definitions and imports put in another order; another constant, default or callee changes it, and so
does another name of a definition. A method of a class counts where its name is mentioned in what
is reached: one that nothing asks for leaves the fingerprint as it is. So does a member of an
enumeration.

Not seen are modules that are imported by a computed name (`importlib.import_module`), names given
as text to `getattr`, members of an enumeration that is gone through, functions that a decorator
enters in a table, files that are not Python, modules imported only for what their import does, and
the code of installed packages. A text that is the name of a method in the catalogue counts as
naming it, since the catalogue builds methods by name. A method's own entry there (`Info`) is left
out, as docstrings are.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from headwater.core.listing import method_modules

_PACKAGE = Path(__file__).resolve().parents[1]
_HEX = 16


def fingerprint(
    experiment: Callable[..., Any],
    methods: Iterable[str],
    settings: Any,
    *,
    code: "Code | None" = None,
) -> str:
    """What `experiment` executes, as 16 hexadecimal digits.

    **Arguments:** `experiment`: a function, also one made by decorators, `functools.partial` or
    another function; `methods`: names in the catalogue of what it runs; `settings`: the arguments
    that it is run with, which count by value; `code`: where the definitions are read, by default
    this library's files, each read once by a process.
    """
    code = _our_code() if code is None else code
    described, start = _start(experiment, methods, settings, code)
    return _short([described, code.fingerprint(start)])


def reached_by(
    experiment: Callable[..., Any],
    methods: Iterable[str],
    settings: Any,
    *,
    code: "Code | None" = None,
) -> set["Definition"]:
    """The definitions that the fingerprint with the same arguments is taken of."""
    code = _our_code() if code is None else code
    return code.reached(_start(experiment, methods, settings, code)[1])


def _start(
    experiment: Any, methods: Iterable[str], settings: Any, code: "Code"
) -> tuple[str, list["Definition"]]:
    """The values that are given, as text, and the definitions behind them."""
    values = _Values(code)
    described = repr([values.described(experiment), values.described(settings)])
    start = list(values.definitions)
    for name in methods:
        start += code.definitions(method_modules()[name], name)
    return described, start


@functools.cache
def _our_code() -> "Code":
    named = {name: (module, name) for name, module in method_modules().items()}
    return Code(_PACKAGE, named)


@dataclasses.dataclass(eq=False)
class Definition:
    """A statement (or a lambda expression) of a file, and what its names mean there.

    **Arguments:** `file`: where it stands; `tree`: its syntax.
    """

    file: "_File"
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


class _Import(NamedTuple):
    """What an import binds: a module or, with a `name`, what the module has under it."""

    module: str
    name: str | None


class _Module(NamedTuple):
    """A module of ours: its file, and the folder of its submodules."""

    file: Path | None
    folder: Path | None


class _Found(NamedTuple):
    """A definition, by the name that it has where it is defined."""

    name: str
    definition: Definition


_Meaning = _Found | _Module | str
"""What a name means: a definition, a module of ours, or the dotted name of somebody else's."""


class Code:
    """The definitions of a package, and of files that use it, read once and only when needed.

    **Arguments:** `package`: its folder, whose name is what it is imported by; `named`: module and
    name of definitions that are also reached by a text, as a catalogue does.
    """

    def __init__(self, package: Path, named: Mapping[str, tuple[str, str]] | None = None):
        self._package = package.resolve()
        self._named = dict(named or {})
        self._files: dict[Path, _File] = {}
        self._modules: dict[tuple[Path, str], _Module | None] = {}
        self._pending: set[tuple[Path, str]] = set()
        self._own: dict[Definition, str] = {}
        self._with_names: dict[Definition, str] = {}

    def definitions(self, module: str, name: str) -> list[Definition]:
        """What `name` means in `module`; nothing if the package has no such thing."""
        found = self._attribute(self._module(self._package, module), name)
        return [meaning.definition for meaning in found if isinstance(meaning, _Found)]

    def definitions_of(self, function: types.FunctionType | type) -> list[Definition]:
        """Where a function or class is defined: the outermost definition around it."""
        try:
            place = inspect.getsourcefile(function)
        except TypeError:  # Of a class that is Python's own.
            return []
        path = Path(place).resolve() if place else None
        if path is None or not path.is_file() or self._is_installed(path):
            return []
        file = self._file(path)
        name, *inner = function.__qualname__.split(".")
        if name in file.definitions or isinstance(function, type):
            found = list(file.definitions.get(name, ()))
            for definition in found:
                self._read(definition)
            # Of a method, itself as well.
            return found + [m for d in found for n in inner for m in d.members.get(n, ())]
        return file.lambdas(function.__code__.co_firstlineno)

    def fingerprint(self, start: Iterable[Definition]) -> str:
        """Of these definitions and all that they reach, in whatever order."""
        return _short(sorted({self.fingerprint_of_one(d) for d in self.reached(start)}))

    def reached(self, start: Iterable[Definition]) -> set[Definition]:
        """These definitions and all that they reach.

        Nothing can call a method whose name stands nowhere, so that a class to which methods are
        added, as to `Agent` with each capability, is what it was to all that do not ask for them.
        """
        found: set[Definition] = set()
        left = list(start)
        mentioned: set[str] = set()
        waiting: dict[str, list[Definition]] = {}
        while left:
            definition = left.pop()
            if definition not in found:
                found.add(definition)
                self._read(definition)
                left += definition.file.always
                for meant in definition.named.values():
                    left += meant
                for name, methods in definition.members.items():
                    waiting.setdefault(name, []).extend(methods)
                mentioned |= definition.mentioned
                for name in mentioned & waiting.keys():
                    left += waiting.pop(name)
        return found

    def fingerprint_of_one(self, definition: Definition) -> str:
        """Of the definition alone, but for what its names mean.

        Two definitions may have one name, so each name counts with the text that it stands for.
        """
        if definition not in self._with_names:
            self._read(definition)
            names = [
                (name, sorted(self._fingerprint_of_text(d) for d in meant))
                for name, meant in sorted(definition.named.items())
            ]
            self._with_names[definition] = _short([definition.text, repr(names)])
        return self._with_names[definition]

    def _fingerprint_of_text(self, definition: Definition) -> str:
        if definition not in self._own:
            self._read(definition)
            self._own[definition] = _short([definition.text])
        return self._own[definition]

    def _read(self, definition: Definition) -> None:
        if not definition.text:
            reader = _Reader(self, definition)
            reader.write(definition.tree, {})
            definition.text = " ".join(
                [*([definition.within] if definition.within else []), *reader.words]
            )

    def has_plain_methods(self, file: "_File", node: ast.ClassDef) -> bool:
        """Whether nobody else calls the methods of a class by their names, as a base might."""
        return (
            not node.decorator_list
            and bool(node.bases)
            and all(self._is_plain(file, base) for base in node.bases)
        )

    def is_enumeration(self, file: "_File", node: ast.ClassDef) -> bool:
        """Whether a class is an `enum.Enum` and nothing else."""
        if node.decorator_list or node.keywords or len(node.bases) != 1:
            return False
        meant = self._meant(file, node.bases[0])
        return meant in ([("enum.Enum", [])], [("enum", ["Enum"])])

    def _is_plain(self, file: "_File", base: ast.expr) -> bool:
        meant = self._meant(file, base)
        return bool(meant) and all(self._is_plain_base(meaning, left) for meaning, left in meant)

    def _meant(self, file: "_File", base: ast.expr) -> list[tuple[_Meaning, list[str]]]:
        """What the base of a class is, with the attributes that are left."""
        if isinstance(base, ast.Subscript):
            base = base.value
        names: list[str] = []
        while isinstance(base, ast.Attribute):
            names.insert(0, base.attr)
            base = base.value
        if not isinstance(base, ast.Name):
            return []
        return [p for m in self.in_file(file, base.id) for p in self.attributes(m, names)]

    def _is_plain_base(self, meaning: _Meaning, left: list[str]) -> bool:
        if isinstance(meaning, str):
            return ".".join([meaning, *left]) in _PLAIN_BASES
        if not isinstance(meaning, _Found) or left:
            return False
        file, tree = meaning.definition.file, meaning.definition.tree
        return isinstance(tree, ast.ClassDef) and self.has_plain_methods(file, tree)

    # What names mean -----------------------------------------------------------------------------

    def by_text(self, text: str) -> list[_Found]:
        """What a text names."""
        if text not in self._named:
            return []
        module, name = self._named[text]
        return [_Found(text, definition) for definition in self.definitions(module, name)]

    def in_file(self, file: "_File", name: str) -> list[_Meaning]:
        """What `name` means at the top of `file`; nothing for a name of Python's own."""
        found: list[_Meaning] = [_Found(name, d) for d in file.definitions.get(name, ())]
        for imported in file.imports.get(name, ()):
            found += self.imported(file.path, imported)
        return found

    def imported(self, path: Path, imported: _Import) -> list[_Meaning]:
        """What an import in the file at `path` binds."""
        module = self._module(path, imported.module)
        if module is None:
            # Of a module of ours that is not there, no path may count.
            ours = self._is_ours(imported.module)
            parts = [] if ours else [imported.module]
            return [".".join([*parts, *([imported.name] if imported.name else [])])]
        return [module] if imported.name is None else self._attribute(module, imported.name)

    def attributes(self, meaning: _Meaning, names: list[str]) -> list[tuple[_Meaning, list[str]]]:
        """What `meaning.a.b` is, as far as modules go, with the attributes that are left."""
        if not names or not isinstance(meaning, _Module):
            return [(meaning, names)]
        found = self._attribute(meaning, names[0])
        return [pair for m in found for pair in self.attributes(m, names[1:])]

    def all_of(self, module: _Module) -> list[Definition]:
        """Every definition of a module that is used as a value."""
        file = None if module.file is None else self._file(module.file)
        return [] if file is None else [d for ds in file.definitions.values() for d in ds]

    def _attribute(self, module: _Module | None, name: str) -> list[_Meaning]:
        if module is None:
            return []
        file = None if module.file is None else self._file(module.file)
        if file is not None:
            place = (file.path, name)
            if place in self._pending:
                return []  # Two files that import a name from each other.
            self._pending.add(place)
            try:
                if found := self.in_file(file, name):
                    return found
            finally:
                self._pending.remove(place)
        if module.folder is not None:
            submodule = _module_at(module.folder, [name])
            if submodule is not None:
                return [submodule]
        if file is not None and "__getattr__" in file.definitions:
            return list(self._anywhere(name))
        return [name]

    def _anywhere(self, name: str) -> Iterator[_Found]:
        """All definitions of this name, for a module that finds its attributes itself."""
        for path in sorted(self._package.rglob("*.py")):
            if name in path.read_text(encoding="utf-8"):
                for definition in self._file(path).definitions.get(name, ()):
                    yield _Found(name, definition)

    def _is_ours(self, module: str) -> bool:
        return module.startswith(".") or module.partition(".")[0] == self._package.name

    def _is_installed(self, path: Path) -> bool:
        return not path.is_relative_to(self._package) and any(map(path.is_relative_to, _INSTALLED))

    def _module(self, path: Path, module: str) -> _Module | None:
        """The module of ours that the file at `path` imports by this name."""
        place = (path.parent, module)
        if place not in self._modules:
            self._modules[place] = self._find(path, module)
        return self._modules[place]

    def _find(self, path: Path, module: str) -> _Module | None:
        plain = module.lstrip(".")
        parts = plain.split(".") if plain else []
        if level := len(module) - len(plain):
            return _module_at([path, *path.parents][level], parts)
        if parts[0] == self._package.name:
            return _module_at(self._package, parts[1:])
        if path.is_relative_to(self._package):
            return None
        # A file of somebody's own may import the files beside it.
        beside = _module_at(path.parent, parts)
        return None if beside is None or beside.file is None else beside

    def _file(self, path: Path) -> "_File":
        if path not in self._files:
            self._files[path] = _File(path)
        return self._files[path]


_INSTALLED = tuple(
    Path(place).resolve()
    for name, place in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def _module_at(folder: Path, parts: list[str]) -> _Module | None:
    path = folder.joinpath(*parts)
    if (path / "__init__.py").is_file():
        return _Module(path / "__init__.py", path)
    if parts and path.with_suffix(".py").is_file():
        return _Module(path.with_suffix(".py"), None)
    return _Module(None, path) if path.is_dir() else None


class _File:
    """The statements at the top of a file, by the names that they bind or change.

    `always` are those that name nothing of the file: they are executed whatever is reached of it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.definitions: dict[str, list[Definition]] = {}
        self.imports: dict[str, list[_Import]] = {}
        self.always: list[Definition] = []
        self._tree = ast.parse(path.read_bytes())
        self._lambdas: dict[int, list[Definition]] = {}
        kept: list[tuple[Definition, dict[str, list[_Import]]]] = []
        for statement in _executed(self._tree.body):
            bound = _bound([statement])
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
        elif not _does_nothing(statement) and not _is_main(statement):
            yield statement


def _is_for_types(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _is_main(statement: ast.stmt) -> bool:
    """Whether this is what a file does only if it is executed as a program."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"


def _does_nothing(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, an ellipsis or the like."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)


def _changed_by(statement: ast.AST) -> set[str]:
    """Names of what a statement may change in place."""
    if isinstance(statement, _DEFINING):
        # Such as `@function.register`.
        return {_root(d) for d in statement.decorator_list if not isinstance(d, ast.Name)}
    if isinstance(statement, _ASSIGNING):
        changed = (ast.Attribute, ast.Subscript)
        return {
            _root(node)
            for node in ast.walk(statement)
            if isinstance(node, changed) and isinstance(node.ctx, ast.Store)
        }
    # Such as `table.update(...)` or a loop that registers functions.
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_ASSIGNING = (ast.Assign, ast.AnnAssign, ast.AugAssign)
_Scope = Mapping[str, Sequence[_Import]]
"""Local names, with what is imported under them."""


def _bound(statements: Iterable[ast.AST]) -> dict[str, list[_Import]]:
    """Names that are bound in this scope, with what is imported under them."""
    found: dict[str, list[_Import]] = {}
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
                    found.setdefault(alias.asname or whole, []).append(_Import(whole, None))
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                for alias in node.names:
                    name = alias.asname or alias.name
                    found.setdefault(name, []).append(_Import(module, alias.name))
            case ast.Global() | ast.Nonlocal():
                outside.update(node.names)
            case _:
                # Those of `except … as` and of patterns.
                for field in ("name", "rest"):
                    if isinstance(name := getattr(node, field, None), str):
                        found.setdefault(name, [])
                left += ast.iter_child_nodes(node)
    return {name: imported for name, imported in found.items() if name not in outside}


_NOT_EXECUTED = frozenset(
    ("ctx", "annotation", "returns", "type_comment", "type_params", "kind", "simple")
)
_SPECIAL_FIELDS = frozenset(("AbstractClassVar", "AbstractVar", "ClassVar", "InitVar"))
"""Annotations that decide whether a class has a field, and are read when it is made."""

_CATALOGUE_ENTRY = "Info"
"""What documents say of a method: its paper and a summary."""

_PLAIN_BASES = frozenset(
    ("abc.ABC", "equinox.Module", "typing.Generic", "typing.Protocol", "Generic", "Protocol")
)
"""Classes of others that call no method of a class derived from them by its name."""
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


class _Reader:
    """Writes a syntax tree as words, and notes what its names mean."""

    def __init__(self, code: Code, definition: Definition):
        self._code = code
        self._file = definition.file
        self._definition = definition
        self._named = definition.named
        self.words: list[str] = []

    def write(self, node: ast.AST, scope: _Scope) -> None:
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

    def _any(self, node: ast.AST, fields: Iterable[str], scope: _Scope) -> None:
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

    def _part(self, part: Any, scope: _Scope) -> None:
        if isinstance(part, ast.stmt):
            self._statement(part, scope)
        elif isinstance(part, ast.AST):
            self.write(part, scope)
        else:
            self.words.append(repr(part))

    def _statement(self, node: ast.stmt, scope: _Scope) -> None:
        # What is imported counts where it is used, by its full name.
        if not _does_nothing(node) and not isinstance(node, ast.Import | ast.ImportFrom):
            self.write(node, scope)

    def _constant(self, value: Any) -> None:
        self.words.append(repr(value))
        if isinstance(value, str):
            self._definition.mentioned.add(value)
            self._note(self._code.by_text(value))

    def _attribute(self, node: ast.Attribute, scope: _Scope) -> None:
        names, root = [node.attr], node.value
        while isinstance(root, ast.Attribute):
            names.append(root.attr)
            root = root.value
        self._definition.mentioned.update(names)
        if isinstance(root, ast.Name):
            self._name(root, names[::-1], scope)
        else:
            self._any(node, ("value", "attr"), scope)

    def _name(self, node: ast.Name, attributes: list[str], scope: _Scope) -> None:
        """A name and the attributes asked of it, such as `module.function`."""
        self._definition.mentioned.add(node.id)
        if node.id in scope:
            found: list[_Meaning] = []
            for imported in scope[node.id]:
                found += self._code.imported(self._file.path, imported)
        else:
            found = self._code.in_file(self._file, node.id)
        pairs = [p for m in found for p in self._code.attributes(m, attributes)]
        if not pairs:
            pairs = [(node.id, attributes)]
        written = set()
        for meaning, left in pairs:
            if isinstance(meaning, _Found):
                self._note([meaning])
                written.add(".".join([meaning.name, *left]))
            elif isinstance(meaning, _Module):
                self._note(_Found("", definition) for definition in self._code.all_of(meaning))
                written.add(".".join(["<module>", *left]))
            else:
                written.add(".".join([meaning, *left]))
        self.words.append("|".join(sorted(written)))

    def _note(self, found: Iterable[_Found]) -> None:
        for name, definition in found:
            known = self._named.setdefault(name, [])
            if definition not in known:
                known.append(definition)

    def _assignment(self, target: ast.expr, value: ast.expr, scope: _Scope) -> None:
        self.words.append("(=")
        self.write(target, scope)
        self.write(value, scope)
        self.words.append(")")

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: _Scope
    ) -> None:
        given = node.args
        self.words.append("(" + type(node).__name__)
        if not isinstance(node, ast.Lambda):
            self.words.append(node.name)
            self._list(node.decorator_list, scope)
        names: list[str] = []
        for kind in ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"):
            part = getattr(given, kind)
            own = [a.arg for a in (part if isinstance(part, list) else [part] if part else [])]
            self.words += [kind, *own]
            names += own
        self._list(given.defaults, scope)
        self._list(given.kw_defaults, scope)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        outside = {n for g in body for n in _declared_global(g)}
        inner = {name: imported for name, imported in scope.items() if name not in outside}
        inner |= _bound(body) | {name: [] for name in names}
        self._list(body, inner)
        self.words.append(")")

    def _class(self, node: ast.ClassDef, scope: _Scope) -> None:
        # The names of a class are no variables of its methods, and before they are bound they mean
        # what they mean outside: so nothing is local here.
        self.words += ["(Class", node.name]
        self._list(node.decorator_list, scope)
        self._list([*node.bases, *node.keywords], scope)
        by_name: list[tuple[str, ast.stmt]] = []
        whole = node is self._definition.tree
        apart = whole and self._code.has_plain_methods(self._file, node)
        members = whole and self._code.is_enumeration(self._file, node)
        imported = {n: i for n, i in _bound(node.body).items() if i}
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

    def _field(self, node: ast.AnnAssign, scope: _Scope) -> None:
        if isinstance(node.value, ast.Call) and _root(node.value) == _CATALOGUE_ENTRY:
            return
        kind = node.annotation
        if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
            kind = ast.parse(kind.value, mode="eval").body
        kind = kind.value if isinstance(kind, ast.Subscript) else kind
        name = getattr(kind, "attr", getattr(kind, "id", ""))
        self.words += ["(field", name if name in _SPECIAL_FIELDS else ""]
        self._list([node.target, *([node.value] if node.value else [])], scope)
        self.words.append(")")

    def _comprehension(self, node: Any, scope: _Scope) -> None:
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

    def _list(self, nodes: Iterable[ast.AST | None], scope: _Scope) -> None:
        self.words.append("[")
        for node in nodes:
            self._part(node, scope)
        self.words.append("]")


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
    return all(_root(d) in (*_PLAIN_DECORATORS, node.name) for d in node.decorator_list)


def _declared_global(node: ast.AST) -> list[str]:
    return [name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names]


class _Values:
    """Describes values by what they hold and the code behind them, and collects that code."""

    def __init__(self, code: Code):
        self._code = code
        self._open: list[Any] = []
        self.definitions: list[Definition] = []

    def described(self, value: Any) -> Any:
        """`value` as something whose `repr` is the same in every process."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return value
        if any(value is other for other in self._open):
            return "<itself>"
        self._open.append(value)
        try:
            return self._compound(value)
        finally:
            self._open.pop()

    def _compound(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            items = [(self.described(k), self.described(v)) for k, v in value.items()]
            return {"": sorted(items, key=repr)}
        if isinstance(value, list | tuple):
            return [type(value).__name__, *map(self.described, value)]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(map(self.described, value), key=repr)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.described, (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            code = self._code_of(value.__func__)
            return ["method", value.__name__, *code, self.described(value.__self__)]
        if callable(value) and (inner := inspect.unwrap(value)) is not value:
            return self.described(inner)
        if isinstance(value, types.FunctionType):
            held: list[Any] = []
            if "<" in value.__qualname__:  # Made by another function or a lambda expression.
                held += map(_content, value.__closure__ or ())
                held += [value.__defaults__, value.__kwdefaults__]
            return ["function", *self._code_of(value), *map(self.described, held)]
        if isinstance(value, type):
            return ["class", *self._code_of(value)]
        if isinstance(value, types.ModuleType):
            return ["module"]
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return ["array", str(value.dtype), value.tolist()]
        return [self.described(type(value)), self.described(getattr(value, "__dict__", {}))]

    def _code_of(self, value: Any) -> list[str]:
        found = self._code.definitions_of(value)
        self.definitions += found
        name = value.__qualname__
        if not found:
            return [name]
        return [name, *sorted(self._code.fingerprint_of_one(d) for d in found)]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "<empty>"


def _short(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:_HEX]
