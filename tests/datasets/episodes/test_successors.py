"""What does not fit between ends, stored successors and the rows that follow is told or refused."""

import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.datasets.read import load

LENGTHS, TERMINAL = (5, 7, 4, 6), (True, False, True, False)
ROWS = sum(LENGTHS)


def columns():
    """Four episodes end to end, with the successors that belong to them."""
    draw = np.random.default_rng(3)
    paths = [draw.normal(size=(n + 1, 2)).astype(np.float32) for n in LENGTHS]
    last = np.zeros(ROWS, bool)
    last[np.cumsum(LENGTHS) - 1] = True
    ended = np.repeat(TERMINAL, LENGTHS)
    return {
        "observations": np.concatenate([path[:-1] for path in paths]),
        "next_observations": np.concatenate([path[1:] for path in paths]),
        "actions": draw.uniform(-1, 1, (ROWS, 1)).astype(np.float32),
        "rewards": draw.uniform(1, 2, ROWS).astype(np.float32),
        "terminals": last & ended,
        "truncations": last & ~ended,
    }


def read(path, arrays, **options):
    np.savez(path, **arrays)
    return load(path, **options)


def notes(data):
    return data.metadata["reading"]["notes"]


def test_a_record_in_order_has_nothing_odd(tmp_path):
    assert notes(read(tmp_path / "log.npz", columns())) == []


def test_ends_that_stand_a_row_late_are_refused(tmp_path):
    arrays = columns()
    late = np.append(False, (arrays.pop("terminals") | arrays.pop("truncations"))[:-1])
    with pytest.raises(DataError, match="stand a row late: row 5 is marked as one") as raised:
        read(tmp_path / "log.npz", {**arrays, "dones": late}, dones="terminal")
    assert "move the column up by a row" in str(raised.value)


def test_rows_out_of_order_are_told(tmp_path):
    order = np.random.default_rng(0).permutation(ROWS)
    data = read(tmp_path / "log.npz", {name: values[order] for name, values in columns().items()})
    (note,) = notes(data)
    assert "rows within episodes" in note and "not in order" in note


def test_resets_recorded_as_steps_are_told(tmp_path):
    arrays = columns()
    firsts = np.cumsum((0, *LENGTHS))[:-1]
    after = np.cumsum(LENGTHS)
    following = arrays["observations"][np.append(firsts[1:], 0)]
    inserted = {
        "observations": arrays["next_observations"][after - 1],
        "next_observations": following,
        "actions": 0.0,
        "rewards": 0.0,
        "terminals": False,
        "truncations": False,
    }
    whole = {
        name: np.insert(values, after, inserted[name], axis=0) for name, values in arrays.items()
    }
    (note,) = notes(read(tmp_path / "log.npz", whole))
    assert note.startswith("after each of 4 ends") and "NEXT_STEP" in note


def test_successors_taken_from_the_next_episode_are_told(tmp_path):
    arrays = columns()
    arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
    arrays["truncations"] |= arrays["terminals"]
    arrays["terminals"] = np.zeros(ROWS, bool)
    (note,) = notes(read(tmp_path / "log.npz", arrays))
    assert note.startswith("the successor of each of 3 truncated rows")


def test_rows_that_all_end_show_nothing_of_a_record(tmp_path):
    arrays = columns()
    arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
    every = {**arrays, "terminals": np.ones(ROWS, bool), "truncations": np.zeros(ROWS, bool)}
    assert notes(read(tmp_path / "log.npz", every)) == []


def test_the_unused_part_of_a_buffer_is_told(tmp_path):
    arrays = {
        name: np.concatenate([values, np.zeros((9, *values.shape[1:]), values.dtype)])
        for name, values in columns().items()
    }
    (note,) = notes(read(tmp_path / "log.npz", arrays))
    assert "the last 9 of 31 rows hold nothing but zeros" in note
    assert "keep the first 22" in note


def test_truncated_rows_without_a_successor_are_dropped_and_told(tmp_path):
    arrays = columns()
    last = arrays["terminals"] | arrays["truncations"]
    arrays["next_observations"][last] = np.nan
    data = read(tmp_path / "log.npz", arrays)
    assert data.episode_lengths().tolist() == [5, 6, 4, 5]
    assert data.metadata["dropped_rows"] == 2
    assert np.flatnonzero(data.terminals).tolist() == [4, 14]
    kept = ~arrays["truncations"]
    within = ~last[kept]
    np.testing.assert_array_equal(
        data.next_observations[within], arrays["next_observations"][kept][within]
    )
    arrays["next_observations"][1] = np.nan
    with pytest.raises(DataError, match="next_observations holds nan at row 1"):
        read(tmp_path / "other.npz", arrays)


def test_successors_left_empty_in_a_text_table(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "obs,action,reward,terminated,truncated,next_obs\n"
        "0.5,1.0,1,0,0,0.6\n0.6,0.5,2,1,0,\n0.1,0.2,3,0,0,0.2\n0.2,0.3,4,0,1,\n"
    )
    data = load(path)
    assert data.rewards.tolist() == [1, 2, 3]
    assert data.terminals.tolist() == [False, True, False]
    assert data.truncations.tolist() == [False, False, True]


def environments(steps=12, number=3):
    """A buffer [step, environment, …] in which episodes end within, at other steps in each."""
    draw = np.random.default_rng(1)
    path = np.cumsum(draw.normal(size=(steps + 1, number, 2)), 0) + 100 * np.arange(number)[:, None]
    dones = np.zeros((steps, number), bool)
    dones[3::4, 0], dones[5::6, 1], dones[2::3, 2] = True, True, True
    return {
        "observations": path[:-1],
        "next_observations": path[1:],
        "actions": draw.uniform(-1, 1, (steps, number, 1)),
        "rewards": np.arange(steps * number).reshape(steps, number) / 100,
        "terminals": dones,
    }


def test_a_buffer_of_several_environments(tmp_path):
    arrays = environments()
    data = read(tmp_path / "buffer.npz", arrays)
    assert data.episode_lengths().tolist() == [4] * 3 + [6] * 2 + [3] * 4
    np.testing.assert_allclose(data.rewards, arrays["rewards"].T.reshape(-1), atol=1e-6)
    assert "[step, environment, …]" in notes(data)[0]
    del arrays["next_observations"]
    with pytest.raises(DataError, match=r"swap the first two axes of every array"):
        read(tmp_path / "rollout.npz", arrays)
    swapped = {name: np.swapaxes(values, 0, 1) for name, values in arrays.items()}
    again = read(tmp_path / "swapped.npz", swapped)
    assert again.episode_lengths().tolist() == data.episode_lengths().tolist()


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("unit", [1, 0.1])
def test_steps_that_a_counter_leaves_out_are_told(tmp_path, stored, unit):
    arrays = columns() | {"t": unit * np.concatenate([np.arange(n) for n in LENGTHS])}
    if not stored:
        del arrays["next_observations"]
    else:
        assert notes(read(tmp_path / "log.npz", arrays)) == []
    # The eighth row was the third step of seven.
    data = read(tmp_path / "log.npz", {name: np.delete(v, 7, 0) for name, v in arrays.items()})
    (note,) = [note for note in notes(data) if "'t' leaves out steps" in note]
    assert "after 1 row within episodes (the first is row 6, from" in note
    assert ("is taken for the successor" in note) == (not stored)


def test_a_counter_of_other_sense_leaves_nothing_out(tmp_path):
    # Times of visits, say.
    times = np.concatenate([np.cumsum(np.arange(n) ** 2) for n in LENGTHS])
    assert notes(read(tmp_path / "log.npz", columns() | {"t": times})) == []
