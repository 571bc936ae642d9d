"""Insertions of pyribs, in an environment of its own: prints one line of JSON."""

import json

import ribs
from ribs.archives import GridArchive
from work import CELLS, SIZE, timed


def insert_all(data):
    archive = GridArchive(
        solution_dim=SIZE, dims=[CELLS, CELLS], ranges=[(-1, 1), (-1, 1)], dtype="float32"
    )
    for solution, objective, measures in data:
        archive.add(solution, objective, measures)
    return float(archive.stats.coverage), float(archive.stats.qd_score)


print(json.dumps([f"pyribs {ribs.__version__}", timed(insert_all)]))
