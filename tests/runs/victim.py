"""Runs three stages in a directory, slowly enough to be killed in the middle. Run by a test."""

import sys
import time
from pathlib import Path

import jax
import numpy as np


def main(path: Path) -> None:
    """Begins or continues the run at `path` and writes its final arrays."""
    import tiny

    from headwater.runs.directory import RunDirectory
    from headwater.runs.stage import Stage

    def evaluate(method, states, key):
        time.sleep(0.03)
        return tiny.evaluate(method, states, key)

    def continue_from(outcomes, problem, key):
        return list(outcomes.values())[-1].state

    kinds = ("replay", "collect", "host")
    stages = [
        Stage(kind, tiny.Tiny(), tiny.source(kind), 60, begin=continue_from if i else None)
        for i, kind in enumerate(kinds)
    ]
    begun = (path / "run.json").is_file()
    directory = RunDirectory.open(path) if begun else RunDirectory.create(path, {})
    result = tiny.finish(stages, directory=directory, evaluate=evaluate, evaluations=15, logs=30)
    arrays = {
        f"{name}{i}": np.asarray(leaf)
        for name, outcome in result.outcomes.items()
        for i, leaf in enumerate(jax.tree.leaves(outcome.state))
    }
    np.savez(path / "final.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
