"""Nothing treats a method specially because of its name or its folder."""

import ast
from pathlib import Path

import pytest

from headwater.core.listing import method_modules

PACKAGE = Path(__file__).parents[2] / "src" / "headwater"
ROOMS = ("api", "cli", "runs", "sweeps", "sources", "exports", "evaluation")
NAMED = {
    "runs/recipes/online.py": "WSRL goes on with SAC or DQN: that is the recipe",
    "runs/recipes/growth.py": "growing trains by these two, whichever way it grows",
    "api/language/grow.py": "growing trains by these two, whichever way it grows",
}
"""Named chains of stages may name their methods; nothing else may."""
LISTS = {"cli/methods.py", "api/papers.py"}
"""Files that list methods by folder, for people to read."""

FILES = sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py"))


def special_cases(text: str) -> list[str]:
    """Where a file looks at which method it has, rather than at what the method declares."""
    names = set(method_modules())
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headwater.methods"):
            found.append(f"imports {node.module}")
        if isinstance(node, ast.Import):
            found += [
                f"imports {a.name}" for a in node.names if a.name.startswith("headwater.methods")
            ]
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [p for side in sides for p in (side, *getattr(side, "elts", ()))]
            found += [
                f"compares with {part.value!r}"
                for part in parts
                if isinstance(part, ast.Constant)
                and isinstance(part.value, str)
                and (part.value in names or part.value.startswith(("control/", "language/")))
            ]
        if isinstance(node, ast.Match):
            found += [
                f"matches {value.value!r}"
                for value in ast.walk(node)
                if isinstance(value, ast.Constant) and value.value in names
            ]
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "family"
        ):
            found.append("asks for the folder of a method")
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List | ast.Set):
            listed = [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
            if len(listed) > 1 and any(value in names for value in listed):
                found.append(f"lists methods: {listed}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_method_is_a_special_case(path):
    where = path.relative_to(PACKAGE).as_posix()
    found = special_cases(path.read_text(encoding="utf-8"))
    if where in LISTS:
        found = [what for what in found if "folder" not in what]
    if where in NAMED:
        assert found, f"{where} names no method any more: take it off the list"
        return
    assert not found, f"{where} {found[0]}: let the method declare what it needs (runs/feeds/)"


@pytest.mark.parametrize(
    "planted",
    [
        "from headwater.methods.control.online.rlpd import RLPD",
        "def f():\n    import headwater.methods.control.online.rlpd",
        "if name == 'INPO':\n    pass",
        "if cls.__name__ in ('SFT', 'MeZO'):\n    pass",
        "if kind == 'control/online':\n    pass",
        "online = family(name).startswith('x')",
        "TRAINABLE = ('SFT', 'DPO')",
        "match name:\n    case 'GRPO':\n        pass",
    ],
)
def test_a_special_case_would_be_noticed(planted):
    assert special_cases(planted)


def test_what_is_no_special_case_is_left_alone():
    assert not special_cases("if recipe == 'rlpd':\n    method = build_method('RLPD')")
