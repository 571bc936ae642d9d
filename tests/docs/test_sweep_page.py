"""The table in the page about sweeps is one, and makes what the page says."""

import re
import tomllib
from pathlib import Path

from headwater.sweeps.table import read_table, settings_of

PAGE = (Path(__file__).parents[2] / "docs" / "sweep.md").read_text(encoding="utf-8")


def test_the_example_makes_what_the_page_says(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for name in tomllib.loads(text)["datasets"]:
        (tmp_path / name).touch()
    (tmp_path / "table.toml").write_text(text)
    table = read_table(tmp_path / "table.toml")
    assert table.rest == {"environment": "HalfCheetah-v5", "updates": 100_000, "seeds": 5}
    settings = [len(settings_of(table, method)) for method in table.methods]
    assert settings == [8, 2]
    (said,) = re.findall(r"This makes (\d+) runs", PAGE)
    assert int(said) == sum(settings) * len(table.datasets)


def test_every_key_is_told():
    from headwater.sweeps import table as sweep_table

    for key in sweep_table._KEYS:
        assert re.search(rf"`{key}\b|^\[?{key}\b", PAGE, re.MULTILINE), key
    (others,) = re.findall(r"The other keys are those\nof `headwater train`: ([^.]*)\.", PAGE)
    for key in re.findall(r"`(\w+)`", others):
        assert key in sweep_table._KEYS, key
