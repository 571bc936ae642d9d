"""Logged rounds of bandits, as people write them into files."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from headwater.core.errors import DataError
from headwater.datasets.bandits.columns import holds_pulls
from headwater.datasets.bandits.pulls_files import read_pulls, read_pulls_file

ROWS = 40
draw = np.random.default_rng(0)
ARM = draw.integers(3, size=ROWS)
REWARD = draw.integers(2, size=ROWS)
CONTEXT = draw.normal(size=(ROWS, 2)).astype(np.float32).astype(float)
ALL = draw.dirichlet(np.ones(3), size=ROWS)
CHOSEN = ALL[np.arange(ROWS), ARM]
PLAIN = {"arm": ARM, "reward": REWARD, "propensity": CHOSEN,
         "context_0": CONTEXT[:, 0], "context_1": CONTEXT[:, 1]}  # fmt: skip


def text(columns, between):
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    lines = [between.join(map(str, row)) for row in [list(columns), *rows]]
    return "\n".join(lines) + "\n"


def lines(columns):
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    return "".join(json.dumps(dict(zip(columns, row))) + "\n" for row in rows)


def write(path, columns):
    """Writes a table in the format that its name says."""
    name, table = path.name, None
    if "json" in name:
        content = lines(columns)
    elif name.endswith((".parquet", ".arrow")):
        table = pa.table({key: np.asarray(x).tolist() for key, x in columns.items()})
        content = ""
    else:
        content = text(columns, "\t" if ".tsv" in name else ",")
    if table is not None and name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, path)
    elif table is not None:
        pyarrow.feather.write_feather(table, path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return path


def same(path, **options):
    data, problem = read_pulls(path, **options)
    assert (problem.arms, problem.context_size) == (3, 2)
    np.testing.assert_array_equal(data.arm, ARM)
    np.testing.assert_array_equal(data.reward, REWARD)
    np.testing.assert_allclose(data.propensity, CHOSEN, rtol=1e-6)
    np.testing.assert_allclose(data.context, CONTEXT, rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["log.csv", "log.csv.gz", "log.tsv", "log.parquet", "log.arrow", "log.jsonl", "log.jsonl.gz"],
)
def test_a_table_says_the_same_in_every_format(tmp_path, name):
    path = write(tmp_path / name, PLAIN)
    assert holds_pulls(path)
    same(path)


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_lists_hold_contexts_and_the_propensities_of_all_arms(tmp_path, name):
    columns = {"action": ARM, "reward": REWARD, "probabilities": ALL, "context": CONTEXT}
    same(write(tmp_path / name, columns))


def test_logarithms_are_propensities(tmp_path):
    np.savez(tmp_path / "log.npz", arm=ARM, reward=REWARD, logp=np.log(CHOSEN), context=CONTEXT)
    assert holds_pulls(tmp_path / "log.npz")
    same(tmp_path / "log.npz")
    np.savez(tmp_path / "log.npz", arm=ARM, reward=REWARD, logp=CHOSEN, context=CONTEXT)
    with pytest.raises(DataError, match=r"row 1: log_propensity .* must not be above 0"):
        read_pulls(tmp_path / "log.npz")


def test_columns_of_other_names_are_those_that_are_named(tmp_path):
    names = {"arm": "shown", "reward": "bought", "propensity": "p", "context_0": "x_0",
             "context_1": "x_1"}  # fmt: skip
    others = {"user": np.arange(ROWS), "x_10": np.zeros(ROWS)}
    columns = {names[key]: x for key, x in PLAIN.items()} | others
    path = write(tmp_path / "log.csv", columns)
    assert not holds_pulls(path)
    given = {"arm": "shown", "reward": "bought", "propensity": "p", "context": ["x_0", "x_1"]}
    assert holds_pulls(path, given)
    same(path, columns=given)
    found = read_pulls_file(path, columns=given)
    assert found.used["context"] == ["x_0", "x_1"] and found.unused == ["user", "x_10"]
    # A family is in the order of its numbers, not of its letters.
    whole = read_pulls_file(path, columns={**given, "context": "x_*"})
    assert whole.used["context"] == ["x_0", "x_1", "x_10"]
    left = read_pulls_file(write(tmp_path / "log.tsv", PLAIN), columns={"unused": "context_1"})
    assert left.used["context"] == ["context_0"] and left.unused == ["context_1"]


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"arm": ["hat"] * ROWS}, {}, r"column 'arm' \(arm\) holds 'hat', which is no number: "
         "number the arms from 0"),
        ({"context_0": ["ios"] * ROWS}, {}, r"column 'context_0' \(context\) holds 'ios'.* a "
         "column of 0 and 1 for each word"),
        ({"arm": None, "shown": ARM}, {}, "there is no 'arm': the columns are 'reward', .*say "
         "which one it is with .*--column arm=NAME"),
        ({"reward": None, "cost": REWARD}, {}, "a cost is no reward: write its negative"),
        ({}, {"reward": "rewads"}, "reward is to be 'rewads': unknown column 'rewads': did you "
         "mean reward"),
        ({}, {"actions": "arm"}, "unknown role of a column 'actions'"),
        ({}, {"reward": ["reward", "propensity"]}, "reward is one column, not 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_with_its_remedy(tmp_path, changes, options, sentence):
    columns = {key: x for key, x in {**PLAIN, **changes}.items() if x is not None}
    path = write(tmp_path / "log.csv", columns)
    with pytest.raises(DataError, match=sentence) as refused:
        read_pulls(path, columns=options or None)
    assert str(refused.value).startswith(str(path))


def test_propensities_of_all_arms_are_checked(tmp_path):
    columns = {"arm": ARM, "reward": REWARD, "context": CONTEXT}
    wrong = ALL.copy()
    wrong[3] *= 2.0
    np.savez(tmp_path / "log.npz", **columns, propensity=wrong)
    with pytest.raises(DataError, match="row 4: the propensities of all arms add up to 2"):
        read_pulls(tmp_path / "log.npz")
    np.savez(tmp_path / "log.npz", **columns, propensity=np.full((ROWS, 2), 0.5))
    with pytest.raises(DataError, match="is not one of the 2 that there are propensities of"):
        read_pulls(tmp_path / "log.npz")
    lists = write(tmp_path / "log.jsonl", {**columns, "propensity": CHOSEN})
    content = lists.read_text().splitlines()
    row = json.loads(content[5])
    content[5] = json.dumps({**row, "context": [1.0]})
    lists.write_text("\n".join(content))
    with pytest.raises(DataError, match="column 'context' has lists of 1 to 2 numbers"):
        read_pulls(lists)


def test_a_log_of_episodes_is_none_of_decisions(tmp_path):
    steps = {"observations": CONTEXT, "actions": ARM, "rewards": REWARD, "propensities": CHOSEN}
    np.savez(tmp_path / "steps.npz", **steps, terminals=np.ones(ROWS, bool))
    assert not holds_pulls(tmp_path / "steps.npz")
    numbered = {**PLAIN, "obs_0": CONTEXT[:, 0]}
    assert not holds_pulls(write(tmp_path / "steps.csv", numbered))
    assert not holds_pulls(tmp_path / "nothing.csv")
    (tmp_path / "empty.csv").write_text("arm,reward,propensity,context_0\n1,0,0.5,\n0,1,0.5,2\n")
    assert holds_pulls(tmp_path / "empty.csv")
    with pytest.raises(DataError, match="column 'context_0' has empty cells"):
        read_pulls(tmp_path / "empty.csv")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    assert not holds_pulls(tmp_path / "broken.npz")
