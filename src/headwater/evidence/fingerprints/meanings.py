"""What names mean where they stand, in a package and in files that use it."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from headwater.evidence.fingerprints.files import (
    Definition,
    File,
    Found,
    Import,
    Meaning,
    Module,
    module_at,
)


class Meanings:
    """What names mean, whose files are read once and only when needed.

    **Arguments:** `package`: its folder, whose name is what it is imported by; `named`: module and
    name of definitions that are also reached by a text, as a catalogue does.
    """

    def __init__(self, package: Path, named: Mapping[str, tuple[str, str]] | None = None):
        self.package = package.resolve()
        self._named = dict(named or {})
        self._files: dict[Path, File] = {}
        self._modules: dict[tuple[Path, str], Module | None] = {}
        self._pending: set[tuple[Path, str]] = set()

    def definitions(self, module: str, name: str) -> list[Definition]:
        """What `name` means in `module`; nothing if the package has no such thing."""
        found = self._attribute(self._module(self.package, module), name)
        return [meaning.definition for meaning in found if isinstance(meaning, Found)]

    def by_text(self, text: str) -> list[Found]:
        """What a text names."""
        if text not in self._named:
            return []
        module, name = self._named[text]
        return [Found(text, definition) for definition in self.definitions(module, name)]

    def in_file(self, file: File, name: str) -> list[Meaning]:
        """What `name` means at the top of `file`; nothing for a name of Python's own."""
        found: list[Meaning] = [Found(name, d) for d in file.definitions.get(name, ())]
        for imported in file.imports.get(name, ()):
            found += self.imported(file.path, imported)
        return found

    def imported(self, path: Path, imported: Import) -> list[Meaning]:
        """What an import in the file at `path` binds."""
        module = self._module(path, imported.module)
        if module is None:
            # Of a module of ours that is not there, no path may count.
            ours = self._is_ours(imported.module)
            parts = [] if ours else [imported.module]
            return [".".join([*parts, *([imported.name] if imported.name else [])])]
        return [module] if imported.name is None else self._attribute(module, imported.name)

    def attributes(self, meaning: Meaning, names: list[str]) -> list[tuple[Meaning, list[str]]]:
        """What `meaning.a.b` is, as far as modules go, with the attributes that are left."""
        if not names or not isinstance(meaning, Module):
            return [(meaning, names)]
        found = self._attribute(meaning, names[0])
        return [pair for m in found for pair in self.attributes(m, names[1:])]

    def all_of(self, module: Module) -> list[Definition]:
        """Every definition of a module that is used as a value."""
        file = None if module.file is None else self.file(module.file)
        return [] if file is None else [d for ds in file.definitions.values() for d in ds]

    def _attribute(self, module: Module | None, name: str) -> list[Meaning]:
        if module is None:
            return []
        file = None if module.file is None else self.file(module.file)
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
            submodule = module_at(module.folder, [name])
            if submodule is not None:
                return [submodule]
        if file is not None and "__getattr__" in file.definitions:
            return list(self._anywhere(name))
        return [name]

    def _anywhere(self, name: str) -> Iterator[Found]:
        """All definitions of this name, for a module that finds its attributes itself."""
        for path in sorted(self.package.rglob("*.py")):
            if name in path.read_text(encoding="utf-8"):
                for definition in self.file(path).definitions.get(name, ()):
                    yield Found(name, definition)

    def _is_ours(self, module: str) -> bool:
        return module.startswith(".") or module.partition(".")[0] == self.package.name

    def _module(self, path: Path, module: str) -> Module | None:
        """The module of ours that the file at `path` imports by this name."""
        place = (path.parent, module)
        if place not in self._modules:
            self._modules[place] = self._find(path, module)
        return self._modules[place]

    def _find(self, path: Path, module: str) -> Module | None:
        plain = module.lstrip(".")
        parts = plain.split(".") if plain else []
        if level := len(module) - len(plain):
            return module_at([path, *path.parents][level], parts)
        if parts[0] == self.package.name:
            return module_at(self.package, parts[1:])
        if path.is_relative_to(self.package):
            return None
        # A file of somebody's own may import the files beside it.
        beside = module_at(path.parent, parts)
        return None if beside is None or beside.file is None else beside

    def file(self, path: Path) -> File:
        """The file at `path`, read once."""
        if path not in self._files:
            self._files[path] = File(path)
        return self._files[path]

    def has_plain_methods(self, file: File, node: ast.ClassDef) -> bool:
        """Whether nobody else calls the methods of a class by their names, as a base might."""
        return (
            not node.decorator_list
            and bool(node.bases)
            and all(self._is_plain(file, base) for base in node.bases)
        )

    def is_enumeration(self, file: File, node: ast.ClassDef) -> bool:
        """Whether a class is an `enum.Enum` and nothing else."""
        if node.decorator_list or node.keywords or len(node.bases) != 1:
            return False
        meant = self._meant(file, node.bases[0])
        return meant in ([("enum.Enum", [])], [("enum", ["Enum"])])

    def _is_plain(self, file: File, base: ast.expr) -> bool:
        meant = self._meant(file, base)
        return bool(meant) and all(self._is_plain_base(meaning, left) for meaning, left in meant)

    def _meant(self, file: File, base: ast.expr) -> list[tuple[Meaning, list[str]]]:
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

    def _is_plain_base(self, meaning: Meaning, left: list[str]) -> bool:
        if isinstance(meaning, str):
            return ".".join([meaning, *left]) in _PLAIN_BASES
        if not isinstance(meaning, Found) or left:
            return False
        file, tree = meaning.definition.file, meaning.definition.tree
        return isinstance(tree, ast.ClassDef) and self.has_plain_methods(file, tree)


_PLAIN_BASES = frozenset(
    ("abc.ABC", "equinox.Module", "typing.Generic", "typing.Protocol", "Generic", "Protocol")
)
"""Classes of others that call no method of a class derived from them by its name."""
