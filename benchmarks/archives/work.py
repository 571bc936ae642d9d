"""The insertions that archives are timed with: the same for every library. NumPy alone."""

import time

import numpy as np

SIZE, CELLS = 10, 50
BATCHES = {100: 500, 10_000: 20}
"""Solutions of a batch, and how many batches."""


def batches(rows):
    """Solutions, objectives and measures in [-1, 1]², drawn with a fixed seed."""
    draw = np.random.default_rng(0)
    return [
        (
            draw.normal(size=(rows, SIZE)).astype(np.float32),
            draw.normal(size=rows).astype(np.float32),
            draw.uniform(-1.0, 1.0, (rows, 2)).astype(np.float32),
        )
        for _ in range(BATCHES[rows])
    ]


def timed(insert_all):
    """What came of it, and insertions in a second of processor time, the best of five runs, by
    the size of a batch.

    **Arguments:** `insert_all`: fills an empty archive; returns its coverage and score.
    """
    rows = []
    for size, count in BATCHES.items():
        data, best = batches(size), 0.0
        coverage, score = insert_all(data)
        for _ in range(5):
            begun = time.process_time()
            insert_all(data)
            best = max(best, size * count / (time.process_time() - begun))
        rows.append((size, best, coverage, score))
    return rows
