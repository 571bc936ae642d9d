"""The commit that runs and records name."""

import shutil
import subprocess
import sys
from pathlib import Path

import headwater

_PACKAGE = Path(headwater.__file__).parent
_QUESTION = "from headwater.runs.directory import source_state; print(source_state())"


def _git(folder, *arguments):
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _state(folder):
    found = subprocess.run(
        [sys.executable, "-c", _QUESTION],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
    )
    return found.stdout.strip()


def test_it_is_that_of_the_source_tree_with_packed_references_and_in_worktrees(tmp_path):
    shutil.copytree(_PACKAGE, tmp_path / "headwater", ignore=shutil.ignore_patterns("__pycache__"))
    _git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    assert _state(tmp_path) == "(None, None)", "nothing of it is in the repository yet"
    _git(tmp_path, "add", ".gitignore", "headwater")
    _git(tmp_path, "commit", "-q", "-m", "Begin")
    _git(tmp_path, "pack-refs", "--all")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert _state(tmp_path) == f"('{commit}', False)"
    with (tmp_path / "headwater" / "__init__.py").open("a") as file:
        file.write("\n# Changed.\n")
    assert _state(tmp_path) == f"('{commit}', True)"
    _git(tmp_path, "worktree", "add", "-q", str(tmp_path / "beside"))
    assert _state(tmp_path / "beside") == f"('{commit}', False)"
