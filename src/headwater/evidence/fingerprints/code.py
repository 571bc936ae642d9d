"""The definitions of a package, and fingerprints of what they reach."""

import hashlib
import inspect
import sysconfig
import types
from collections.abc import Iterable, Mapping
from pathlib import Path

from headwater.evidence.fingerprints.files import Definition
from headwater.evidence.fingerprints.meanings import Meanings
from headwater.evidence.fingerprints.reader import Reader

_HEX = 16


class Code:
    """The definitions of a package, and of files that use it.

    **Arguments:** `package`: its folder, whose name is what it is imported by; `named`: module and
    name of definitions that are also reached by a text, as a catalogue does; `annotated`: whether
    annotations count, as they do where shapes are checked.
    """

    def __init__(
        self,
        package: Path,
        named: Mapping[str, tuple[str, str]] | None = None,
        annotated: bool = False,
    ):
        self._annotated = annotated
        self._meanings = Meanings(package, named)
        self._own: dict[Definition, str] = {}
        self._with_names: dict[Definition, str] = {}

    def definitions(self, module: str, name: str) -> list[Definition]:
        """What `name` means in `module`; nothing if the package has no such thing."""
        return self._meanings.definitions(module, name)

    def definitions_of(self, function: types.FunctionType | type) -> list[Definition]:
        """Where a function or class is defined: the outermost definition around it."""
        try:
            place = inspect.getsourcefile(function)
        except TypeError:  # Of a class that is Python's own.
            return []
        path = Path(place).resolve() if place else None
        if path is None or not path.is_file() or self._is_installed(path):
            return []
        file = self._meanings.file(path)
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
        return short(sorted({self.fingerprint_of_one(d) for d in self.reached(start)}))

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
            self._with_names[definition] = short([definition.text, repr(names)])
        return self._with_names[definition]

    def _fingerprint_of_text(self, definition: Definition) -> str:
        if definition not in self._own:
            self._read(definition)
            self._own[definition] = short([definition.text])
        return self._own[definition]

    def _read(self, definition: Definition) -> None:
        if not definition.text:
            reader = Reader(self._meanings, definition, self._annotated)
            reader.write(definition.tree, {})
            definition.text = " ".join(
                [*([definition.within] if definition.within else []), *reader.words]
            )

    def _is_installed(self, path: Path) -> bool:
        return not path.is_relative_to(self._meanings.package) and any(
            map(path.is_relative_to, _INSTALLED)
        )


def short(texts: Iterable[str]) -> str:
    """A digest of texts, as 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:_HEX]


_INSTALLED = tuple(
    Path(place).resolve()
    for name, place in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)
