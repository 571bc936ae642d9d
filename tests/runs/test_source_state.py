"""The commit that runs and records name."""

import subprocess
from pathlib import Path

import headwater
from headwater.runs import directory


def _git(folder, *arguments):
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_that_of_the_source_tree_with_packed_references_and_in_worktrees(
    tmp_path, monkeypatch
):
    assert Path(headwater.__file__).parent == directory._PACKAGE

    def state(folder):
        monkeypatch.setattr(directory, "_PACKAGE", folder)
        return directory.source_state.__wrapped__()

    package = tmp_path / "headwater"
    package.mkdir()
    (package / "__init__.py").touch()
    assert state(package) == (None, None), "there is no repository"
    _git(tmp_path, "init", "-q")
    assert state(package) == (None, None), "nothing of it is in the repository yet"
    _git(tmp_path, "add", "headwater")
    _git(tmp_path, "commit", "-q", "-m", "Begin")
    _git(tmp_path, "pack-refs", "--all")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "beside.txt").touch()
    assert state(package) == (commit, False), "what lies beside the package does not count"
    (package / "__init__.py").write_text("# Changed.\n")
    assert state(package) == (commit, True)
    _git(tmp_path, "worktree", "add", "-q", str(tmp_path / "beside"))
    assert state(tmp_path / "beside" / "headwater") == (commit, False)
