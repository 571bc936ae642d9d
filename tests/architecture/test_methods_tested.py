"""Every method is compared with something that is independent of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.core.listing import method_modules

TESTS = Path(__file__).parents[1]
MARKS = ("oracle", "parity", "equivalence")


def comparisons(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Test, mark and the other methods that the mark names, for each marked test in `text`."""
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for decorator in node.decorator_list:
            call = decorator.func if isinstance(decorator, ast.Call) else decorator
            mark = ast.unparse(call).removeprefix("pytest.mark.")
            if mark in MARKS:
                named = decorator.args if isinstance(decorator, ast.Call) else []
                yield node.name, mark, [ast.literal_eval(argument) for argument in named]


def file_for(module: str, tests: Path = TESTS) -> Path:
    """Where the tests of the method in `module` are."""
    *folders, name = module.split(".")[1:]
    return tests.joinpath(*folders, f"test_{name}.py")


def missing(module: str, tests: Path = TESTS) -> str | None:
    """What the method in `module` lacks."""
    path = file_for(module, tests)
    where = f"tests/{path.relative_to(tests).as_posix()}"
    if not path.exists():
        return f"write {where}"
    if not any(comparisons(path.read_text(encoding="utf-8"))):
        return f"{where} has no test that is marked {', '.join(MARKS)}"
    return None


@pytest.mark.parametrize("name", list(method_modules()))
def test_every_method_is_compared_with_something(name):
    lacks = missing(method_modules()[name])
    assert lacks is None, f"{name} is compared with nothing: {lacks}"


@pytest.mark.parametrize(
    "path", sorted((TESTS / "methods").rglob("test_*.py")), ids=lambda path: path.stem
)
def test_files_and_marks_name_methods_that_exist(path):
    assert path in {file_for(module) for module in method_modules().values()}, (
        f"{path.relative_to(TESTS.parent)} is not a method's: where is what it tests?"
    )
    for test, mark, named in comparisons(path.read_text(encoding="utf-8")):
        unknown = set(named) - set(method_modules())
        assert not unknown, (
            f"{test}: {mark} names {', '.join(sorted(unknown))}, which is not a method"
        )


def test_a_method_without_a_comparison_is_noticed(tmp_path):
    module = "headwater.methods.control.offline.lonely"
    assert missing(module, tmp_path) == "write tests/methods/control/offline/test_lonely.py"
    path = file_for(module, tmp_path)
    path.parent.mkdir(parents=True)
    refusal = "def test_it_refuses_lists():\n    assert f([]) is None\n"
    path.write_text(f"@pytest.mark.slow\n{refusal}", encoding="utf-8")
    assert missing(module, tmp_path) == (
        "tests/methods/control/offline/test_lonely.py has no test that is marked oracle, parity, "
        "equivalence"
    )
    path.write_text(f'@pytest.mark.equivalence("SAC")\n{refusal}', encoding="utf-8")
    assert missing(module, tmp_path) is None
    assert list(comparisons(path.read_text(encoding="utf-8"))) == [
        ("test_it_refuses_lists", "equivalence", ["SAC"])
    ]
