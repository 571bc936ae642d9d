"""Infer the actions or the rewards that a log lacks, with what was learned from it."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.api.run import Run, open_run
from headwater.core.catalogue import learns_from
from headwater.core.errors import RunError, SpecificationError
from headwater.core.method import (
    AbstractHistory,
    AbstractLabeller,
    AbstractRewardModel,
    AbstractStages,
)
from headwater.core.records import ActionWindows
from headwater.datasets import transform
from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import require_actions
from headwater.datasets.read import load
from headwater.runs.feeds.logged import windows_of

_ROWS = 16_384
"""Rows that are labelled at once."""


def label(
    data: Dataset | str | Path,
    run: Run | str | Path,
    *,
    at_least: float = 0.0,
    data_options: dict[str, Any] | None = None,
) -> Dataset:
    """The log with what was not logged inferred: actions by a labeller, rewards by a reward model.

    A run of a labeller (InverseDynamics) changes nothing that was logged, and a log that lacks no
    action is returned as it is. What was inferred, and how surely, stays in the dataset's
    `action_confidence` and in every format that it is written in. Nothing that was observed tells
    the action of a terminal row, which nothing follows: its label has the least confidence.

    A run of a reward model (PreferenceReward, PerceptualReward) gives every row a reward, also
    where one was logged; `inferred_rewards` in the metadata of the dataset, and of every file that
    it is written in, says so. Rewards that were learned from demonstrations need no actions.

    **Arguments:** `data`: logged transitions (for those of which some lack actions see
    `missing_actions` of `headwater.load`); `run`: of what infers, or its directory, of which the
    first seed labels; `at_least`: leave out the rows whose action is inferred with less confidence,
    which cuts episodes there; `data_options`: of `headwater.load`, where `data` is a path.

    Raises `SpecificationError` if the run infers nothing or is of another task, `RunError` if it is
    not finished, `DataError` if the log cannot be used.
    """
    run = run if isinstance(run, Run) else open_run(run)
    method = run.method
    name = type(method).__name__
    rewards = isinstance(method, AbstractRewardModel)
    if not rewards and (
        learns_from(type(method))[1] is not ActionWindows
        or not isinstance(method, AbstractLabeller)
        or not isinstance(method, AbstractHistory)
    ):
        raise SpecificationError(
            f"{run.name} is a run of {name}, which infers no actions: train InverseDynamics (or, "
            "for rewards, PreferenceReward or PerceptualReward)"
        )
    if not run.finished:
        raise RunError(f"{run.path} is not finished: `headwater resume {run.path}` first")
    dataset = data if isinstance(data, Dataset) else load(data, **(data_options or {}))
    reason = run.spaces.mismatch(dataset.spaces, "in the run", "in the data")
    if reason is not None:
        raise SpecificationError(f"the run does not fit the data: {reason}")
    if rewards:
        if at_least:
            raise SpecificationError("at_least is of inferred actions: leave it out")
        return _with_rewards(dataset, run)
    assert isinstance(method, AbstractLabeller) and isinstance(method, AbstractHistory)
    missing = np.flatnonzero(~dataset.logged_actions)
    if not missing.size:
        return dataset
    actions = dataset.actions.copy()
    confidence = np.ones(dataset.size, np.float64)
    state = jax.tree.map(lambda leaf: leaf[0], run.state)
    log = windows_of(dataset, missing, method.history, method.future)
    for begin in range(0, missing.size, _ROWS):
        rows = missing[begin : begin + _ROWS]
        # As many as ever, so that it is compiled once.
        full = np.resize(rows, min(_ROWS, missing.size))
        found, sure = _label(method, state, log, jnp.asarray(full))
        actions[rows] = np.asarray(found)[: rows.size]
        confidence[rows] = np.asarray(sure)[: rows.size]
    confidence[dataset.terminals] = 0.0
    labelled = transform.label_actions(dataset, actions, confidence, by=name)
    return transform.confident_rows(labelled, at_least)


def _with_rewards(dataset: Dataset, run: Run) -> Dataset:
    """The log with the rewards that the first seed of a run of a reward model predicts."""
    method, name = run.method, type(run.method).__name__
    assert isinstance(method, AbstractRewardModel)
    if not isinstance(method, AbstractStages):
        require_actions(dataset.action_confidence, dataset.metadata, name)
    state = jax.tree.map(lambda leaf: leaf[0], run.state)
    found, apart = np.zeros(dataset.size, np.float32), np.zeros(dataset.size, np.float32)
    for begin in range(0, dataset.size, _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, dataset.size))
        full = np.resize(rows, min(_ROWS, dataset.size))
        seen, done = jnp.asarray(dataset.observations[full]), jnp.asarray(dataset.actions[full])
        predicted, deviation = _rewards(method, state, seen, done)
        found[rows] = np.asarray(predicted)[: rows.size]
        apart[rows] = np.asarray(deviation)[: rows.size]
    choice = run.specification.data
    comparisons = None if choice is None else choice.comparisons
    return transform.infer_rewards(
        dataset,
        found,
        by=name,
        comparisons=None if comparisons is None else Path(comparisons).name,
        deviation=float(apart.mean()),
    )


@eqx.filter_jit
def _rewards(method, state, observation, action):
    return method.rewards(state, observation, action)


@eqx.filter_jit
def _label(method, state, log, rows):
    return method.label(state, log.windows(rows))
