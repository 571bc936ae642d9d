"""A new format costs one file: it is found, recognised, read, written and named in messages."""

import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.datasets import format as formats
from headwater.datasets.dataset import Dataset
from headwater.datasets.format import AbstractFormat, all_formats, format_of, variants
from headwater.datasets.read import load
from headwater.datasets.write import write

NEW = '''"""Rows of numbers after a line that says so: a format for the tests."""

import numpy as np

from headwater.datasets.columns.roles import resolve
from headwater.datasets.format import AbstractFormat

NAMES = ("observations", "actions", "rewards", "terminals", "truncations")


class _Rows(AbstractFormat):
    title = "rows of numbers"
    variants = ("rows",)
    suffixes = (".rows",)

    def recognises(self, place, head):
        return head.startswith(b"ROWS")

    def open(self, place, mapping, rows):
        table = np.loadtxt(place, skiprows=1, dtype=np.float32)
        roles = resolve(NAMES, mapping).columns
        where = {name: i for i, name in enumerate(NAMES)}
        columns = {role: table[:, where[found[0]]] for role, found in roles.items()}
        return {"discrete": False, "action_low": -2.0, "action_high": 2.0}, iter([columns])

    def write(self, dataset, place, *, variant, name):
        columns = [
            dataset.observations[:, 0],
            dataset.raw_actions()[:, 0],
            dataset.rewards,
            dataset.terminals,
            dataset.truncations,
        ]
        with place.open("w") as file:
            file.write("ROWS\\n")
            np.savetxt(file, np.column_stack(columns))


FORMATS = (_Rows(),)
'''


@pytest.fixture
def new_format(tmp_path, monkeypatch):
    """The catalogue of formats with one more file in its folder, and nothing else."""
    import headwater.datasets.formats as room

    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "rows_format.py").write_text(NEW)

    class _Folders:
        def glob(self, pattern):
            return [*_ROOM.glob(pattern), *folder.glob(pattern)]

    _ROOM = formats._ROOM
    monkeypatch.setattr(formats, "_ROOM", _Folders())
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(folder)])
    all_formats.cache_clear()
    yield
    all_formats.cache_clear()


def small_log() -> Dataset:
    rows = np.arange(6, dtype=np.float32)
    return Dataset.from_arrays(
        observations=rows[:, None],
        actions=0.1 * rows[:, None],
        rewards=rows,
        terminals=rows % 3 == 2,
        truncations=rows < 0,
        action_low=-2.0,
        action_high=2.0,
    )


def test_a_new_file_is_a_new_format(new_format, tmp_path):
    assert "rows" in variants()
    path = write(small_log(), tmp_path / "log.rows")
    assert path.read_text().startswith("ROWS\n")
    again = load(path)
    np.testing.assert_allclose(again.raw_actions(), small_log().raw_actions(), atol=1e-6)
    assert again.terminals.tolist() == small_log().terminals.tolist()
    path.write_text("WOR")
    with pytest.raises(DataError, match=r"the content is not that of a \.rows file"):
        load(path)
    (tmp_path / "log.txt").write_text("nothing that is known")
    with pytest.raises(DataError, match="rows of numbers"):
        load(tmp_path / "log.txt")


def test_without_the_file_there_is_no_such_format(tmp_path):
    assert "rows" not in variants()
    with pytest.raises(SpecificationError, match="unknown format 'rows'"):
        write(small_log(), tmp_path / "log", "rows")


def test_names_and_suffixes_are_given_once():
    names = [variant for format in all_formats() for variant in format.variants]
    suffixes = [suffix for format in all_formats() for suffix in format.suffixes]
    assert len(names) == len(set(names)) and len(suffixes) == len(set(suffixes))


def test_what_is_written_is_recognised_by_its_own_format_alone(tmp_path):
    for variant, format in variants().items():
        place = write(small_log(), tmp_path / f"{variant}-v0", variant)
        head = b"" if place.is_dir() else place.read_bytes()[:8]
        assert place.is_dir() == format.directory
        assert [f for f in all_formats() if f.recognises(place, head)] == [format]
        assert format_of(place, head) is format


def test_a_format_that_is_only_read_says_so(tmp_path):
    class Silent(AbstractFormat):
        title = "silence"

        def recognises(self, place, head):
            return False

        def open(self, place, mapping, rows):
            return {}, iter(())

    with pytest.raises(TypeError, match="silence is not written"):
        Silent().write(small_log(), tmp_path / "x", variant="", name=None)
