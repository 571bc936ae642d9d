"""House rules that are read from the text of the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "headwater"
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "core": set(),
    "ops": {"core"},
    "networks": {"core", "ops"},
    "parts": {"core", "ops", "networks"},
    "methods": {"core", "ops", "networks", "parts"},
    "decoding": {"core", "ops", "networks"},
    "environments": {"core"},
    "datasets": {"core", "ops"},
    "texts": {"core", "ops", "networks", "datasets"},
    "sources": {"core", "ops", "environments", "datasets"},
}
"""Room to the rooms below it, as far as their order is no single line."""
ABOVE = (
    *("runs", "testing", "sweeps", "evaluation", "analysis", "exports"),
    *("evidence", "claims", "reports", "api", "cli"),
)
"""Each of these may import every room above and every earlier one of these."""
for _i, _room in enumerate(ABOVE):
    MAY_IMPORT[_room] = {*MAY_IMPORT, *ABOVE[:_i]} - {_room}


def _room(path: Path) -> str:
    """The folder or, beside the folders, the file itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(text: str) -> list[str]:
    """Every module that `text` imports, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from headwater import x` means the module headwater.x.
            module = node.module or ""
            found += (
                [f"{module}.{a.name}" for a in node.names] if module == "headwater" else [module]
            )
    return found


def wrong_import(room: str, module: str) -> bool:
    """Whether a file in `room` must not import `module`."""
    parts = module.split(".")
    if parts[0] != "headwater" or len(parts) < 2:
        return False
    return parts[1] not in {room, *MAY_IMPORT[room]}


def _files(*leave_out: str):
    kept = [path for path in FILES if path.relative_to(PACKAGE).as_posix() not in leave_out]
    return pytest.mark.parametrize("path", kept, ids=lambda p: p.relative_to(PACKAGE).as_posix())


@_files("__init__.py", "__main__.py")
def test_imports_point_down(path):
    room = _room(path)
    assert room in MAY_IMPORT, f"the room {room} has no place in the order yet"
    for module in imports(path.read_text(encoding="utf-8")):
        assert not wrong_import(room, module), f"{room} may not import {module}"
        if room == "methods" and module.startswith("headwater.methods."):
            pytest.fail(f"a method imports another method's file: {module}")
        if room == "claims" and module.startswith("headwater.claims"):
            pytest.fail(f"a claim imports another claim's file: {module}")


def test_a_wrong_import_would_be_noticed():
    assert wrong_import("core", "headwater.ops.control.bellman")
    assert wrong_import("methods", "headwater.sources.replay")
    assert wrong_import("methods", "headwater.environments.control.pendulum")
    assert wrong_import("sources", "headwater.runs.loop")
    assert wrong_import("runs", "headwater.evaluation.returns")
    assert wrong_import("environments", "headwater.datasets.dataset")
    assert not wrong_import("api", "headwater.evaluation.returns")
    assert not wrong_import("methods", "headwater.networks.mlp")
    assert imports("def f():\n    from headwater.runs import loop") == ["headwater.runs"]
    assert imports("from headwater import runs") == ["headwater.runs"]


def test_no_drawers():
    drawers = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "stuff", "lib"}
    for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        assert not drawers & {part.removesuffix(".py") for part in path.parts[-4:]}, path


BANNED = {
    r"\b(import (cloud)?pickle|pickle\.loads?)\b": "loading a pickle runs whatever is in it",
    r"allow_pickle\s*=\s*True": "loading a pickle runs whatever is in it",
    r"(?<![\w.])(eval|exec)\(": "text is data",
    r"\bhasattr\(": "declare it on an abstract class and ask isinstance",
    r"\bsuper\(": "concrete classes are final",
    r"/(work|tmp|home|root|mnt|Users)/": "a path of one machine",
    r"\b(TODO|FIXME|XXX)\b": "finish it or file it",
}


@_files()
def test_nothing_banned(path):
    text = path.read_text(encoding="utf-8")
    for pattern, reason in BANNED.items():
        found = re.search(pattern, text)
        assert found is None, f"{found[0] if found else ''}: {reason}"


def test_banned_things_would_be_noticed():
    for text in ("import pickle", "x = eval(y)", "hasattr(a, 'b')", "super().f()", "'/tmp/x'"):
        assert any(re.search(pattern, text) for pattern in BANNED), text
    assert not any(re.search(p, "jax.eval_shape(f); m.eval(x)") for p in BANNED)


@_files()
def test_everything_public_is_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    for name in undocumented(tree):
        pytest.fail(f"{name} has no docstring")


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions and classes without a docstring.

    A method of a class that derives from another one may take its text from there.
    """
    missing = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                missing.append(node.name)
            if isinstance(node, ast.ClassDef):
                root = all(
                    isinstance(b, ast.Name) and b.id in ("ABC", "NamedTuple") for b in node.bases
                )
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                        inherited = not root and not node.name.startswith("Abstract")
                        if not ast.get_docstring(item) and not inherited:
                            missing.append(f"{node.name}.{item.name}")
    return missing


@_files()
def test_concrete_classes_are_final(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            if "Protocol" in map(_base_name, node.bases):
                # It says what others have, and has nothing itself.
                continue
            for base in node.bases:
                name = _base_name(base)
                assert name.startswith("Abstract") or name in _OUTSIDE or name in _ERRORS, (
                    f"{node.name} derives from {name}, which is not abstract"
                )


def copied_to(text: str) -> list[Path]:
    """The folders that commands in `text` copy the skeleton to."""
    return [
        ROOT / line.split()[2].rpartition("/")[0]
        for line in text.splitlines()
        if line.startswith("cp docs/skeleton/")
    ]


def test_there_is_room_where_contributors_are_told_to_put_things():
    told = copied_to((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(told) == 3 and all(folder.is_dir() for folder in told)
    for folder in (*told, PACKAGE / "analysis"):
        names = [path.name for path in folder.glob("*.py")]
        assert not too_many([*names, "one_more.py"]), f"{folder} is full"


MOST_FILES = 15
LARGER: dict[str, str] = {}
"""Folders that hold more files for now, and why."""


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=str)
def test_a_folder_has_few_files(folder):
    name = folder.relative_to(PACKAGE).as_posix()
    crowded = too_many([path.name for path in FILES if path.parent == folder])
    assert crowded == (name in LARGER), (
        f"{name} has more than {MOST_FILES} files: put the new one into a folder within it, with "
        "an __init__.py of one sentence; what is found by its place is found there, too"
        if crowded
        else f"{name} needs no exception any more"
    )


def too_many(names: list[str]) -> bool:
    """Whether a folder with these files has too many, `__init__.py` apart."""
    return len([name for name in names if name != "__init__.py"]) > MOST_FILES


def test_every_file_of_equations_has_two_users():
    files = [path for path in FILES if path.name != "__init__.py"]
    texts = {_module(path): path.read_text(encoding="utf-8") for path in files}
    for module, users in users_of_equations(texts).items():
        assert len(users) > 1, (
            f"{module} serves {' and '.join(users) or 'nobody'} alone: it belongs there, or to "
            "parts if it holds a state"
        )


def users_of_equations(texts: dict[str, str]) -> dict[str, list[str]]:
    """The modules that import each module of `ops`, out of the texts of all modules by name."""
    users: dict[str, list[str]] = {
        module: [] for module in texts if module.startswith("headwater.ops.")
    }
    for module, text in texts.items():
        for imported in {name for name in imports(text) if name in users}:
            users[imported].append(module)
    return users


def _module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def test_crowds_and_lonely_equations_would_be_noticed():
    files = [f"file_{i}.py" for i in range(15)]
    assert not too_many([*files, "__init__.py"]) and too_many([*files, "one_more.py"])
    texts = {
        "headwater.ops.control.one": "x = 1",
        "headwater.ops.control.two": "from headwater.ops.control.one import x",
        "headwater.methods.first": "from headwater.ops.control.one import x",
        "headwater.methods.second": "def f():\n    from headwater.ops.control.two import y",
    }
    assert {name: len(users) for name, users in users_of_equations(texts).items()} == {
        "headwater.ops.control.one": 2,
        "headwater.ops.control.two": 1,
    }


CAPABILITIES = [
    node.name
    for node in ast.parse((PACKAGE / "core" / "method.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
    and node.name.startswith("Abstract")
    and node.name != "AbstractMethod"
]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_capability_has_an_implementer_and_a_caller(capability):
    methods = {path for path in FILES if _room(path) == "methods"}
    texts = {path: path.read_text(encoding="utf-8") for path in FILES}
    assert any(implements(capability, texts[path]) for path in methods), "no method has it"
    assert any(asks_for(capability, texts[path]) for path in set(texts) - methods), (
        "nobody outside the methods asks for it"
    )


def implements(capability: str, text: str) -> bool:
    """Whether a class in `text` derives from `capability`."""
    return capability in text and any(
        _base_name(base) == capability
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    )


def asks_for(capability: str, text: str) -> bool:
    """Whether `text` asks with `isinstance` for `capability`."""
    return capability in text and any(
        isinstance(node, ast.Call)
        and _base_name(node.func) == "isinstance"
        and capability in {_base_name(each) for each in ast.walk(node.args[1])}
        for node in ast.walk(ast.parse(text))
    )


def test_a_capability_without_use_would_be_noticed():
    assert len(CAPABILITIES) > 5
    assert implements("AbstractX", "class A(B, AbstractX[int]):\n    pass")
    assert not implements("AbstractX", "class A(B):\n    x: AbstractX")
    assert asks_for("AbstractX", "if isinstance(m, AbstractX): pass")
    assert asks_for("AbstractX", "isinstance(m, AbstractX | AbstractY)")
    assert not asks_for("AbstractX", "def f(m: AbstractX):\n    isinstance(m, int)")


_OUTSIDE = {
    "Module",
    "Generic",
    "NamedTuple",
    "ABC",
    "Exception",
    "Protocol",
    "TypedDict",
    "StrEnum",
    "IntEnum",
}
_ERRORS = {"HeadwaterError", "BaseHTTPRequestHandler", "HTMLParser", "Handler", "Enum", "Extension"}
"""Errors form a family on purpose; the rest are bases that libraries ask for."""


def _base_name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _base_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "?")


_LAZY = "import sys; sys.argv = ['headwater', '--help']\n{body}\nprint('jax' in sys.modules)"


def _loads_jax(body: str) -> bool:
    code = _LAZY.format(body=body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1] == "True"


def test_import_does_not_load_jax():
    assert not _loads_jax("import headwater; dir(headwater)")


def test_help_does_not_load_jax():
    body = "import runpy\ntry:\n    runpy.run_module('headwater', run_name='__main__')\n"
    body += "except SystemExit as end:\n    assert not end.code, end.code"
    assert not _loads_jax(body)


def test_the_probe_would_notice_jax():
    assert _loads_jax("import jax")


_MAPS = {"vmap", "filter_vmap", "jit", "filter_jit", "map", "scan", "partial", "fori_loop"}
"""What an update may be passed to instead of being called."""


def _is_update(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "update"


def own_loops(text: str) -> list[int]:
    """Lines where `text` updates a method itself, but for a method that holds another one."""
    tree = ast.parse(text)
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(_base_name(base) == "AbstractMethod" for base in node.bases)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in inside or not isinstance(node, ast.Call):
            continue
        # Dictionaries, optimisers and hashes have an `update` too, but none with a key.
        keyed = any(word.arg == "key" for word in node.keywords)
        passed = _base_name(node.func) in _MAPS and any(map(_is_update, node.args))
        if passed or (_is_update(node.func) and keyed and node.args):
            found.append(node.lineno)
    return sorted(found)


def test_only_the_loop_updates_methods():
    for path in FILES:
        # The contract compares the loop with updates one by one.
        if _room(path) not in ("runs", "methods", "testing"):
            lines = own_loops(path.read_text(encoding="utf-8"))
            assert not lines, f"{path}, line {lines[0]}: call `learn` or `run` instead of `update`"


def test_other_loops_would_be_noticed():
    for text in (
        "for key in keys:\n    state, _ = method.update(state, data, key=key)",
        "jax.lax.scan(lambda s, k: agent.method.update(s, data, key=k), state, keys)",
        "state = build_method('IQL').update(state, data, key=key)[0]",
        "jax.vmap(learner.update)(states, data)",
        "step = functools.partial(mine.update, key=key)",
    ):
        assert own_loops(text), text
    for text in (
        "known.update({1: 2})",
        "sizes.update(horizon=3, key=key)",
        "changes, state = optimiser.update(gradients, state, parameters)",
        "class Greedy(AbstractMethod[P, D, S]):\n"
        "    def update(self, state, data, *, key):\n"
        "        return self.planner.update(state, data, key=key)",
    ):
        assert not own_loops(text), text
