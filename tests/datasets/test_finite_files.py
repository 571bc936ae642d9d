"""Files of finite processes and their logs that are malformed are refused in one sentence."""

import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.datasets.finite_files import (
    read_episode_comparisons,
    read_episodes,
    read_process,
    write_log,
    write_process,
)

from ..malformed.seeds import finite_comparisons, finite_episodes, finite_process, finite_table


def refused(read, path, sentence: str) -> None:
    """Fails unless `read` refuses `path` with exactly this sentence after its name."""
    with pytest.raises(DataError) as refusal:
        read(path)
    assert str(refusal.value) == f"{path}: {sentence}"


def changed(path, **arrays) -> None:
    """Other arrays in an archive; `None` leaves one out."""
    with np.load(path) as archive:
        found = {**archive, **arrays}
    np.savez(path, **{name: value for name, value in found.items() if value is not None})


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"action": None},
            "there is no 'action': unknown array 'action': known arrays are cost, reward, state.",
        ),
        ({"state": np.zeros((5, 4))}, "'state' has type float64, but whole numbers are needed"),
        (
            {"state": np.full((5, 4), 2**32)},
            "'state' holds 4.29497e+09: it must be at most 2,147,483,647",
        ),
        (
            {"reward": np.zeros((4, 3))},
            "there are 5, 5 and 4 episodes in state, action and rewards: they must be as many",
        ),
        (
            {"reward": np.zeros(5)},
            "state, action and rewards have shapes (5, 4), (5, 3) and (5,): each needs [episode, "
            "step]",
        ),
        (
            {"cost": np.zeros((5, 3))},
            "cost has shape (5, 3): it needs [episode, step, constraint]",
        ),
        ({n: np.zeros((0, 3), int) for n in ("state", "action", "reward")}, "there is no episode"),
    ],
)
def test_archives_of_episodes(arrays, sentence, tmp_path):
    path = finite_episodes(tmp_path)
    changed(path, **arrays)
    refused(read_episodes, path, sentence)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("0,2,0,1.0,1", "0,2,0.5,1.0,1", "column 'action', row 2: 0.5 is not a whole number"),
        ("0,2,0,1.0,1", "0,2,,1.0,1", "column 'action' has empty cells: fill or remove them"),
        (
            "0,2,0,1.0,1",
            "0,3,0,1.0,1",
            "row 1: next_state is 2, but the next row of the episode has state 3",
        ),
        (
            "0,2,0,1.0,1\n",
            "",
            "episode 1 has 2 rows, but the first has 1: all episodes of a finite process have "
            "equally many",
        ),
        (
            "1,0,1,0.25,3",
            "0,0,1,0.25,3",
            "rows of one episode must stand together: sort them by episode and step",
        ),
        (
            "1,0,1,0.25,3",
            "1,0,1,0.25,1e12",
            "'next_state' holds 1e+12: it must be at most 2,147,483,647",
        ),
    ],
)
def test_tables_of_episodes(old, new, sentence, tmp_path):
    path = finite_table(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    refused(read_episodes, path, sentence)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"first_preferred": np.full(5, 2)},
            "first_preferred has shape (5,): it needs a zero or a one for each of the 5 pairs",
        ),
        (
            {"second_action": np.zeros((5, 2), int)},
            "first_action and second_action differ in shape: each pair needs both",
        ),
    ],
)
def test_archives_of_comparisons(arrays, sentence, tmp_path):
    path = finite_comparisons(tmp_path)
    changed(path, **arrays)
    refused(read_episode_comparisons, path, sentence)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "none.npz"
    for read in (read_process, read_episodes, read_episode_comparisons):
        refused(read, path, "there is no such file")
    path.write_bytes(b"PK not really")
    for read in (read_process, read_episodes, read_episode_comparisons):
        with pytest.raises(DataError, match=r"none\.npz: this is not an \.npz archive of arrays"):
            read(path)
    np.savez(path, transition=np.array([object()]), reward=np.zeros(1))
    with pytest.raises(DataError, match=r"none\.npz: this is not an \.npz archive of arrays"):
        read_process(path)


def test_processes_that_do_not_fit_together(tmp_path):
    path = finite_process(tmp_path)
    changed(path, transitoin=np.ones(2))
    with pytest.raises(DataError, match=r"'transitoin': did you mean transition"):
        read_process(path)
    path = finite_process(tmp_path)
    changed(path, transition=np.ones((4, 2, 4)))
    with pytest.raises(DataError, match=r"finite\.npz: .*(sum|probabilit)"):
        read_process(path)


def test_what_is_written_is_read(tmp_path):
    # To the bit, since a run goes on from the process that its directory holds.
    task = read_process(finite_process(tmp_path))
    write_process(tmp_path / "again.npz", task)
    for name, array in read_process(tmp_path / "again.npz").to_arrays().items():
        np.testing.assert_array_equal(array, task.to_arrays()[name])
    for read, made in (
        (read_episodes, finite_episodes),
        (read_episodes, finite_table),
        (read_episode_comparisons, finite_comparisons),
    ):
        data = read(made(tmp_path))
        write_log(tmp_path / "again.npz", data)
        again = read(tmp_path / "again.npz")
        first, second = (x if read is read_episodes else x.first for x in (data, again))
        np.testing.assert_array_equal(first.state, second.state)
        np.testing.assert_array_equal(first.reward, second.reward)
