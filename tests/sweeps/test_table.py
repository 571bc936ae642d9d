"""The table of a sweep: what a file may say, and what is said of one that says something else."""

import json

import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.sweeps.table import named, read_table, settings_of


@pytest.fixture
def folder(tmp_path):
    """A folder with two files that stand for logs."""
    for name in ("log.npz", "other.npz"):
        np.savez(tmp_path / name, rewards=np.zeros(2))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "log.npz").write_bytes(b"")
    return tmp_path


def table_of(folder, text: str):
    """The table that `text` holds."""
    (folder / "table.toml").write_text(text)
    return read_table(folder / "table.toml")


def chosen(table, method):
    """What the grid chooses for each setting of `method`."""
    return [setting.chosen for setting in settings_of(table, method)]


def test_every_combination_is_made(folder):
    table = table_of(
        folder,
        """
        methods = ["iql", "TD3+BC"]
        datasets = ["log.npz"]
        updates = 3
        [grid]
        discount = [0.9, 0.99]
        hidden_sizes = [8, 8]
        [grid.IQL]
        expectile = [0.7, 0.9]
        discount = 1
        """,
    )
    assert table.methods == ["IQL", "TD3BC"]
    assert table.datasets == {"log": str(folder / "log.npz")}
    assert table.rest == {"updates": 3}
    # A method's own part goes before the common one; a list that is one value is one alternative.
    assert chosen(table, "IQL") == [
        {"discount": 1.0, "expectile": 0.7, "hidden_sizes": [8, 8]},
        {"discount": 1.0, "expectile": 0.9, "hidden_sizes": [8, 8]},
    ]
    assert chosen(table, "TD3BC") == [
        {"discount": 0.9, "hidden_sizes": [8, 8]},
        {"discount": 0.99, "hidden_sizes": [8, 8]},
    ]
    first = settings_of(table, "IQL")[0]
    assert (first.method.discount, first.method.expectile, first.method.hidden_sizes) == (
        1.0,
        0.7,
        (8, 8),
    )
    assert first.labels == ["discount=1.0", "expectile=0.7", "hidden_sizes=8x8"]


def test_a_list_of_lists_is_a_list_of_alternatives(folder):
    table = table_of(folder, 'methods = ["IQL"]\ngrid.hidden_sizes = [[8], [16, 16]]')
    assert chosen(table, "IQL") == [{"hidden_sizes": [8]}, {"hidden_sizes": [16, 16]}]


def test_a_table_without_a_grid_has_one_setting(folder):
    assert chosen(table_of(folder, 'methods = ["IQL"]'), "IQL") == [{}]


def test_json_says_the_same(folder):
    said = {"methods": ["IQL"], "datasets": {"mine": "log.npz"}, "grid": {"expectile": [0.7, 0.8]}}
    (folder / "table.json").write_text(json.dumps(said))
    table = read_table(folder / "table.json")
    assert table.datasets == {"mine": str(folder / "log.npz")}
    assert chosen(table, "IQL") == [{"expectile": 0.7}, {"expectile": 0.8}]
    assert read_table({**said, "datasets": []}).alternatives == table.alternatives


def test_names_are_directories_whatever_is_in_them():
    assert named("IQL", "", "my log/../x", "a=0.7") == "IQL-my-log-..-x-a=0.7"
    assert named("..", "ü") == ""
    long, other = named("a" * 300), named("a" * 301)
    assert len(long) < 150 and len(other) < 150 and long != other


REFUSED = {
    "methds = ['IQL']": "unknown key 'methds': did you mean methods, seeds, epochs?",
    "methods = 'IQL'": "methods = 'IQL' must be a list of names",
    "methods = []": 'there is nothing to do: give methods = ["IQL", …]',
    "": 'there is nothing to do: give methods = ["IQL", …]',
    "methods = ['IQLL']": "methods: unknown method 'IQLL': did you mean IQL",
    "methods = ['IQL', 'iql']": "methods: IQL is listed twice",
    "methods = ['IQL']\nupdates = 1.5": "updates = 1.5 must be a whole number",
    "methods = ['IQL']\nupdates = true": "updates = True must be a whole number",
    "methods = ['IQL']\ntop = nan": "top = nan must be a number",
    "methods = ['IQL']\nseeds = ['a']": "seeds = ['a'] must be a whole number, or a list of them",
    "methods = ['IQL']\nseeds = 2020-01-01": "must be a whole number, or a list of them",
    "methods = ['IQL']\ngrid = 3": "grid = 3 must be a table",
    "methods = ['IQL']\ndatasets = [3]": "datasets = [3] must be a list of paths, or a table",
    "methods = ['IQL']\ndatasets = ['log.npz', 'below/log.npz']": (
        "datasets: two are called 'log': give each a name of its own in a part [datasets]"
    ),
    "methods = ['IQL']\nenvironment = 'os:Pendulum-v1'": (
        "environment = 'os:Pendulum-v1' would import a module, which a table may not"
    ),
    "methods = ['GRPO']\nreward = ['exact-match', 'rewards.py:brevity']": (
        "reward = 'rewards.py:brevity' would import a module, which a table may not"
    ),
    "methods = ['IQL']\nenvironment_options = {mass = 2}": "environment_options need environment",
    "methods = ['IQL']\ngrid.expectil = 0.7": (
        "[grid] IQL: unknown hyper-parameter 'expectil': did you mean expectile"
    ),
    "methods = ['IQL', 'BC']\ngrid.expectile = 0.7": (
        "What only some methods have goes into [grid.METHOD]."
    ),
    "methods = ['IQL']\ngrid.IQL.expectil = 0.7": (
        "[grid.IQL] IQL: unknown hyper-parameter 'expectil': did you mean expectile"
    ),
    "methods = ['IQL']\ngrid.BC.discount = 0.7": "[grid.BC]: unknown method 'BC'",
    "methods = ['IQL']\ngrid.expectile = ['high']": (
        "[grid] IQL.expectile = 'high' is not of type float"
    ),
    "methods = ['IQL']\ngrid.IQL.discount = 0.9\ngrid.iql.expectile = 0.9": (
        "[grid.IQL] and [grid.iql] are about the same method: leave one"
    ),
    "methods = ['IQL']\ngrid.polyak-rate = 0.1\ngrid.polyak_rate = 0.2": (
        "[grid] polyak-rate is there twice: leave one"
    ),
    "methods = ['IQL']\ndatasets = {'ü' = 'log.npz'}": (
        "datasets: no directory can be named after 'ü'"
    ),
    "methods = ['IQL']\ngrid.expectile = []": "[grid] expectile lists no value",
    "methods = ['IQL']\ngrid.expectile = [0.7, 0.70]": "[grid] expectile lists 0.7 twice",
    "methods = ['IQL']\ngrid.IQL.expectile = {a = 1}": "IQL.expectile = {'a': 1} is not a plain",
    "methods = ['IQL']\ngrid.hidden_sizes = [8.5]": "[grid] IQL.hidden_sizes = 8.5 is not of type",
    "methods = ['IQL": "this is not TOML (",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_is_said_with_file_and_key(text, folder):
    with pytest.raises(SpecificationError) as refusal:
        table_of(folder, text)
    assert str(refusal.value).startswith(f"{folder / 'table.toml'}: ")
    assert REFUSED[text] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_dataset_is_named_with_the_nearest(folder):
    with pytest.raises(DataError) as refusal:
        table_of(folder, "methods = ['IQL']\ndatasets = ['lgo.npz']")
    assert str(refusal.value) == (
        f"{folder / 'table.toml'}: datasets: there is no file or directory "
        f"'{folder / 'lgo.npz'}', and no Minari dataset of that name on this machine; did you mean "
        "log.npz, other.npz?"
    )


@pytest.mark.parametrize("place", ["~nobody-of-this-name/log.npz", "a" * 300])
def test_a_path_that_cannot_be_followed_is_named(place, folder):
    with pytest.raises(DataError, match=r"table\.toml: datasets: '.*' is no path that can be"):
        table_of(folder, f"methods = ['IQL']\ndatasets = ['{place}']")


def test_too_many_settings_are_refused_before_any_is_made(folder):
    many = {"methods": ["IQL"], "grid": {"expectile": [(i + 1) / 200 for i in range(101)]}}
    many["grid"]["discount"] = many["grid"]["expectile"]
    with pytest.raises(SpecificationError, match="this makes 10,201 settings; at most 10,000"):
        read_table(many)
    many["grid"]["discount"] = [i / 20_000 for i in range(10_001)]
    with pytest.raises(SpecificationError, match="discount lists 10,001 values; at most 10,000"):
        read_table(many)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("table.yaml", b"a: !!python/object/apply:os.system [ls]", "YAML is not read"),
        ("table.json", b"[" * 100_000, "this is not JSON"),
        ("table.json", b'{"methods": ["\\ud800"]}', "this is not JSON"),
        ("table.json", b"[]", "this is not a table with keys such as methods"),
        ("table.toml", b"\xff\xfe", "this is no text"),
        ("table.toml", b"#" * (2**20 + 1), "this is too large for the table of a sweep"),
    ],
)
def test_files_that_are_no_table(name, content, sentence, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(SpecificationError) as refusal:
        read_table(folder / name)
    assert str(refusal.value).startswith(str(folder / name)) and sentence in str(refusal.value)


def test_a_missing_file_is_named(folder):
    with pytest.raises(SpecificationError, match=r"none\.toml: No such file or directory"):
        read_table(folder / "none.toml")
