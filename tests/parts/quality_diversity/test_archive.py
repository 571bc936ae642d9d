"""Archives against loops over single solutions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.parts.quality_diversity.archive import Archive

LOW, HIGH, CELLS = (-1.0, 0.0), (1.0, 4.0), (5, 3)


def batch(seed, rows=200):
    draw = np.random.default_rng(seed)
    measures = draw.uniform((-1.2, -0.2), (1.2, 4.2), (rows, 2)).astype(np.float32)
    # Few values, so that many solutions of a cell are equally good.
    value = draw.integers(-3, 4, rows).astype(np.float32)
    value[::17] = np.nan
    return draw.uniform(size=(rows, 3)).astype(np.float32), value, measures


def one_by_one(batches):
    """Place to solution, value and measures, of which a later one must be better."""
    found = {}
    for solution, value, measures in batches:
        for x, v, m in zip(solution, value, measures):
            if not np.isfinite(v):
                continue
            share = (m - np.float32(LOW)) / np.float32(np.subtract(HIGH, LOW))
            i, j = np.clip(np.floor(share * np.float32(CELLS)), 0, np.subtract(CELLS, 1))
            place = int(i) * CELLS[1] + int(j)
            if place not in found or v > found[place][1]:
                found[place] = (x, v, m)
    return found


def test_a_grid_keeps_what_insertion_one_by_one_keeps():
    batches = [batch(0, 9), batch(1), batch(2)]
    insert = jax.jit(lambda archive, *rows: archive.insert(*rows))
    archive = Archive.grid(3, LOW, HIGH, CELLS)
    for i, rows in enumerate(batches):
        archive = insert(archive, *rows)
        expected = one_by_one(batches[: i + 1])
        assert set(np.flatnonzero(np.asarray(archive.filled))) == set(expected)
        for place, (solution, value, measures) in expected.items():
            np.testing.assert_array_equal(archive.solution[place], solution)
            assert archive.objective[place] == value
            np.testing.assert_array_equal(archive.measures[place], measures)
        values = [value for _, value, _ in expected.values()]
        assert float(archive.coverage()) == pytest.approx(len(expected) / 15)
        assert float(archive.qd_score(-3.0)) == pytest.approx(sum(v + 3.0 for v in values))
        assert float(archive.max()) == max(values)


def test_an_empty_archive_has_nothing():
    archive = Archive.grid(3, LOW, HIGH, CELLS)
    nothing = (np.zeros((2, 3), np.float32), np.full(2, np.nan, np.float32), np.zeros((2, 2)))
    for one in (archive, archive.insert(*(jnp.asarray(x, jnp.float32) for x in nothing))):
        assert (float(one.coverage()), float(one.qd_score()), float(one.max())) == (0, 0, 0)


def test_without_cells_the_oldest_leave():
    archive, kept = Archive.unstructured(3, 2, 5), []
    for seed in range(4):
        solution, value, measures = batch(seed, 7)
        value = np.nan_to_num(value)
        chosen = np.random.default_rng(seed).uniform(size=7) < (0.3, 1.0, 0.5, 0.0)[seed]
        archive = archive.append(*(jnp.asarray(x) for x in (solution, value, measures, chosen)))
        kept += [tuple(x) for x in solution[chosen]]
        there = {tuple(x) for x in np.asarray(archive.solution)[np.asarray(archive.filled)]}
        assert there == set(kept[-5:]) and int(archive.count) == len(kept)


def test_too_many_cells_are_refused():
    with pytest.raises(SpecificationError, match="3000 × 3000 are 9,000,000 cells"):
        Archive.grid(3, LOW, HIGH, (3000, 3000))
