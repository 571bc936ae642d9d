"""Several files as one log."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headwater.core.errors import DataError
from headwater.datasets.read import load, load_blocks

LENGTHS = (4, 5, 3)


def table(number=0, lengths=LENGTHS, first=0, **more):
    """Rows of episodes of these lengths that are numbered from `first` on."""
    draw = np.random.default_rng(number)
    rows = sum(lengths)
    return {
        "observation.state": draw.normal(size=(rows, 2)).astype(np.float32),
        "action": draw.uniform(-1, 1, (rows, 1)).astype(np.float32),
        "next.reward": draw.normal(size=rows).astype(np.float32),
        "terminal": np.zeros(rows, bool),
        "episode_index": np.repeat(np.arange(len(lengths)) + first, lengths),
    } | more


def write(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table({k: pa.array(list(v)) for k, v in columns.items()}), path)


def refused(what, *parts):
    with pytest.raises(DataError) as raised:
        load(what)
    for part in parts:
        assert part in str(raised.value), str(raised.value)


@pytest.fixture
def folder(tmp_path):
    """Eleven files, so that the tenth does not come after the first."""
    for number in range(11):
        name = tmp_path / "logs" / "data" / f"chunk-{number // 6:03d}" / f"part-{number}.parquet"
        write(name, table(number, first=3 * number))
    (tmp_path / "logs" / "_SUCCESS").write_text("")
    return tmp_path / "logs"


def test_a_directory_a_pattern_and_a_list_are_the_same(folder):
    data = load(folder)
    assert data.episode_lengths().tolist() == [3, 4, 2] * 11
    kept = np.delete(np.arange(12), [3, 8, 11])
    expected = [table(number)["next.reward"][kept] for number in range(11)]
    np.testing.assert_array_equal(data.rewards, np.concatenate(expected))
    files = [folder / f"data/chunk-{n // 6:03d}/part-{n}.parquet" for n in range(11)]
    for other in (str(folder / "data" / "*" / "*.parquet"), files):
        again = load(other)
        np.testing.assert_array_equal(again.rewards, data.rewards)
        np.testing.assert_array_equal(again.next_observations, data.next_observations)
    assert data.metadata["name"] == "logs"
    assert "11 files were read" in data.metadata["reading"]["notes"][0]
    blocks = list(load_blocks(folder, 20))
    assert len(blocks) > 3
    np.testing.assert_array_equal(np.concatenate([b.rewards for b in blocks]), data.rewards)


def test_blocks_hold_no_more_than_they_need(folder, monkeypatch):
    from headwater.datasets.formats import table_format

    opened = []
    original = table_format.open_table
    monkeypatch.setattr(
        table_format, "open_table", lambda path, *how: opened.append(path) or original(path, *how)
    )
    blocks = load_blocks(folder, 12)
    next(blocks)
    assert len(opened) < 5
    list(blocks)
    assert len(opened) == 11


def test_files_may_number_their_own_episodes(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.parquet", table(number))
    assert load(tmp_path).episode_lengths().tolist() == [3, 4, 2] * 3


def test_an_episode_goes_on_in_the_next_file_where_something_says_so(tmp_path):
    whole = table(0, lengths=(4, 6))
    for name, rows in (("0", slice(0, 6)), ("1", slice(6, 10))):
        write(tmp_path / f"{name}.parquet", {k: v[rows] for k, v in whole.items()})
    refused(tmp_path, "begins with episode 1, and nothing says whether it goes on", "'step'")
    steps = np.concatenate([np.arange(4), np.arange(6)])
    for name, rows in (("0", slice(0, 6)), ("1", slice(6, 10))):
        columns = {k: v[rows] for k, v in whole.items()} | {"frame_index": steps[rows]}
        write(tmp_path / f"{name}.parquet", columns)
    data = load(tmp_path)
    assert data.episode_lengths().tolist() == [3, 5]
    # The fifth row that is kept is the last of the first file.
    np.testing.assert_array_equal(data.next_observations[4], whole["observation.state"][6])
    # Two files of one episode each, both with the number 0.
    for name in ("0", "1"):
        columns = table(int(name), lengths=(5,)) | {"frame_index": np.arange(5)}
        write(tmp_path / f"{name}.parquet", columns)
    assert load(tmp_path).episode_lengths().tolist() == [4, 4]


def test_without_numbers_a_record_ends_with_its_file(tmp_path):
    for number in range(3):
        columns = table(number, lengths=(6,))
        del columns["episode_index"]
        columns["terminal"][2] = number == 1
        write(tmp_path / f"{number}.parquet", columns)
    data = load(tmp_path)
    assert data.episode_lengths().tolist() == [5, 3, 2, 5]
    assert np.flatnonzero(data.terminals).tolist() == [7]


def test_what_does_not_fit_together_is_refused(tmp_path):
    write(tmp_path / "0.parquet", table(0))
    write(
        tmp_path / "1.parquet", table(1, first=7) | {"episode_index": np.repeat([7, 1, 8], LENGTHS)}
    )
    refused(tmp_path, "1.parquet: episode 1 begins again, after it was in", "0.parquet")
    columns = table(1, first=3)
    columns["next.reward"] = columns["next.reward"].copy()
    columns["next.reward"][2] = np.nan
    write(tmp_path / "1.parquet", columns)
    refused(tmp_path, "nan at row 14", "rows are counted through all 2 files")
    write(tmp_path / "1.parquet", table(1, first=3) | {"truncated": np.zeros(12, bool)})
    refused(tmp_path, "differ in whether they have truncations")
    (tmp_path / "1.parquet").write_bytes(b"PAR1 nothing")
    refused(tmp_path, "1.parquet: this parquet file is truncated or corrupt")
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    refused(tmp_path, "1 .csv and 2 .parquet files, which are different kinds")
    with pytest.raises(DataError, match="the list of files is empty"):
        load([])


def test_a_link_out_of_the_directory_is_not_followed(tmp_path):
    write(tmp_path / "elsewhere.parquet", table(0))
    write(tmp_path / "logs" / "0.parquet", table(1))
    (tmp_path / "logs" / "1.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    refused(tmp_path / "logs", "is a link to another place, which is not followed")


def test_one_declaration_for_all_files(tmp_path):
    for number in range(2):
        columns = table(number)
        columns["gain"] = columns.pop("next.reward")
        write(tmp_path / "logs" / f"{number}.parquet", columns)
    (tmp_path / "logs.columns.toml").write_text('[columns]\nrewards = "gain"\n')
    assert load(tmp_path / "logs").episodes == 6


def episodes_as_json(folder, suffix, lengths=(3, 1, 4)):
    """A file for each episode, with one observation more than steps; and their rewards."""
    draw = np.random.default_rng(5)
    folder.mkdir()
    rewards = []
    for number, steps in enumerate(lengths):
        rewards += draw.normal(size=steps).tolist()
        text = json.dumps(
            {
                "observations": draw.normal(size=(steps + 1, 2)).tolist(),
                "actions": draw.uniform(-1, 1, (steps, 1)).tolist(),
                "rewards": rewards[-steps:],
                "terminated": number == 1,
            }
        ).encode()
        # The tenth does not come before the ninth.
        name = folder / f"episode_{number + 9}{suffix}"
        name.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    return rewards


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".jsonl", ".jsonl.gz", ".ndjson.gz"])
def test_a_directory_of_json_also_compressed(tmp_path, suffix):
    rewards = episodes_as_json(tmp_path / "logs", suffix)
    data = load(tmp_path / "logs")
    np.testing.assert_allclose(data.rewards, rewards, atol=1e-6)
    assert data.episode_lengths().tolist() == [3, 1, 4]
    assert np.flatnonzero(data.terminals).tolist() == [3]
    (tmp_path / "logs" / f"episode_12{suffix}").write_bytes(b"\x1f\x8b\x08 broken")
    refused(tmp_path / "logs", "corrupt" if suffix.endswith(".gz") else "episode_12")


def test_json_that_describes_other_data_is_none_of_it(folder):
    expected = load(folder)
    (folder / "data" / "state.json").write_text('{"_format_type": null}')
    np.testing.assert_array_equal(load(folder).rewards, expected.rewards)
