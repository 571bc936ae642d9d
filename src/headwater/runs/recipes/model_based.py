"""A model of the process first, then a policy from rollouts in it and rows of the log."""

import math

import jax.numpy as jnp

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, AbstractModelBased
from headwater.runs.feeds.logged import Logged
from headwater.runs.stage import Begin, Outcomes, Stage
from headwater.sources.mixed import mixed
from headwater.sources.model_rollouts import ModelRollouts

MODEL = "model"
"""The stage in which the model is learned."""
_UPDATES_PER_DRAW = 1_000
"""At most, as in the papers: between two draws of rollouts the policy changes little."""
_KEPT_UPDATES = 5_000
"""Updates after which rollouts are forgotten, about."""
_DRAWN_ROWS = 2**19
"""A draw has no more rows, so that they fit beside a large log."""


def model_stages(
    method: AbstractMethod,
    logged: Logged,
    updates: int,
    batch_size: int,
    *,
    begin: Begin | None = None,
) -> tuple[Stage, Stage]:
    """The stage in which a model is learned from a log, and the one that learns from rollouts.

    **Arguments:** `method`: with the capability `AbstractModelBased`; `batch_size`: rows of an
    update, in both stages; `begin`: instead of what the method begins with, without a model.

    Raises `SpecificationError` for a log that stays on the disk.
    """
    assert isinstance(method, AbstractModelBased)
    name = type(method).__name__
    if logged.data is None:
        raise SpecificationError(
            f"{name} begins rollouts at states of the whole log, so that it has to be in memory: "
            "leave out from_disk"
        )
    first = Stage(
        MODEL,
        method.dynamics,
        logged.source(method.dynamics, batch_size),
        method.model_updates,
        evaluated=False,
    )
    draws = _updates_per_draw(updates, batch_size)
    rows = draws * batch_size
    real = min(max(1, round(rows / (1 + method.imagined_per_logged))), max(1, rows - 1))
    rollouts = ModelRollouts(
        None,
        logged.spaces,
        jnp.asarray(logged.data.observations),
        rollout_steps=method.rollout_steps,
        rollouts=method.rollouts * draws,
        kept=min(math.ceil(_KEPT_UPDATES / draws), updates // draws),
        batch_size=max(1, rows - real),
    )
    source = mixed([logged.source(method, real), rollouts])

    def with_model(outcomes: Outcomes, problem, key):
        state = method.init(problem, key=key) if begin is None else begin(outcomes, problem, key)
        return method.with_model(state, outcomes[MODEL].state)

    return first, Stage("offline", method, source, updates, draws, with_model)


def _updates_per_draw(updates: int, batch_size: int) -> int:
    """The largest number that shares `updates` evenly and stays within the bounds."""
    most = max(1, min(_UPDATES_PER_DRAW, updates, _DRAWN_ROWS // batch_size))
    return next(count for count in range(most, 0, -1) if updates % count == 0)
