"""What was learned at the best evaluation, for runs that keep it and stop when none is better."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.ops.rows import where_rows
from headwater.runs.evaluations import best_evaluations


class Best:
    """The state of every seed at its best evaluation so far.

    Which one that is follows from the rows of the evaluations alone, so that a run that goes on
    finds it again.

    **Arguments:** `seeds`: which; `patience`: evaluations of a seed without a better one after
    which it need not go on; `None`: it goes on; `state`: of all seeds, at their best evaluations.
    """

    def __init__(self, seeds: Sequence[int], patience: int | None, state: Any):
        self.seeds, self.patience = list(seeds), patience
        # A copy, since what goes on learning gives its memory away.
        self.state = jax.tree.map(jnp.copy, state)

    def evaluated(self, state: Any, rows: Sequence[dict[str, Any]]) -> bool:
        """Keeps the states that were just evaluated best; whether it is time to stop.

        **Arguments:** `rows`: all evaluations of the stage, those of `state` included.
        """
        found = best_evaluations(rows, self.seeds, "the run")
        self.state = _chosen(jnp.asarray(found.since == 0), state, self.state)
        return self.patience is not None and bool(np.all(found.since >= self.patience))


_chosen = eqx.filter_jit(where_rows)
