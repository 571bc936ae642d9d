import numpy as np
import pytest

from headwater.analysis.describe import describe
from headwater.datasets.dataset import Dataset
from headwater.reports.dataset_figure import draw_description


@pytest.mark.parametrize("kind", ["continuous", "discrete", "tiny"])
def test_a_figure_of_any_dataset_is_a_png(tmp_path, kind):
    random = np.random.default_rng(0)
    rows = 1 if kind == "tiny" else 400
    ends = np.arange(rows) % 20 == 19
    ends[-1] = True
    actions = random.integers(0, 3, rows) if kind == "discrete" else np.zeros((rows, 2))
    data = Dataset.from_arrays(
        random.normal(size=(rows, 1 if kind == "tiny" else 3)),
        actions,
        random.normal(size=rows),
        ends,
        metadata={"name": kind, "environment": "Hopper-v5"} if kind != "discrete" else {},
    )
    path = tmp_path / "figure.png"
    draw_description(data, describe(data), path)
    image = path.read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 20_000
