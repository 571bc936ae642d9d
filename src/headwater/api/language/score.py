"""Judge every seed of a run of a language model on held-out texts."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from headwater.api.inputs import choose_rewards, open_rewards
from headwater.api.run import Run
from headwater.api.specifications.choices import JudgeChoice
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractCompletionScorer
from headwater.core.records import Completions
from headwater.core.tokens import AbstractAdapted
from headwater.evaluation.texts import HeldOutScores
from headwater.runs.feeds.flow import Inputs
from headwater.runs.feeds.language import FLOWS
from headwater.runs.options import Options


class TextScores(NamedTuple):
    """What held-out rows say of a run.

    **Arguments:** `measure`: what was measured, as `HeldOut.score` calls it; more is better;
    `data`: the file that the rows are in; `scores`: `[seed, row]`; `base`: the same of the model
    that the run began with, `[row]`, unless the measure compares with it.
    """

    measure: str
    data: Path
    scores: np.ndarray
    base: np.ndarray | None


def score_texts(
    run: Run, *, data: str | Path | None = None, reward: Any = None, seed: int = 0
) -> TextScores:
    """Scores every seed of a run, as it would be scored while it learns.

    **Arguments:** `data`: a file of the kind that the run learned from, all of whose rows are
    judged; by default the rows that the run held out; `reward`: of responses, if it was Python
    code, or others than the run's. Several are added up: the run's own, by name and in their
    order, with its weights, others each with 1; `seed`: of the responses that are written.

    Raises `SpecificationError` if nothing was held out or a reward does not fit, `DataError` for
    data that cannot be used or has changed, `RunError` if a reward is missing.
    """
    specification, method = run.specification, run.method
    flow, options = specification.flow, specification.options
    assert run.base is not None
    path = _file(run, data)
    if data is not None:
        options = dataclasses.replace(options, held_out=str(path))
    if reward is not None and "reward" not in flow.takes:
        raise SpecificationError(
            f"{type(method).__name__} does not learn from rewards, and is not judged by one: leave "
            "out the reward"
        )
    if type(method).feed is Feed.ADVANTAGES:
        # What is held out of it are texts, and their advantages are not needed.
        flow = FLOWS[Completions, Feed.STORED]
    chosen, opened = _reward(run, reward)
    if chosen != specification.rewards:
        options = dataclasses.replace(options, reward_weights=None)
    inputs = Inputs(path, model=run.base, reward=opened)
    found = flow.stage(method, inputs, options)
    assert found.held_out is not None
    judge = HeldOutScores(
        found.held_out,
        run.problem,
        new_tokens=options.new_tokens,
        temperature=_temperature(options),
    )
    key = jax.random.key(seed)
    base = None
    if found.held_out.score != "accuracy" and not isinstance(method, AbstractCompletionScorer):
        before = run.problem.network
        before = before.without_adapters() if isinstance(before, AbstractAdapted) else before
        base = judge.of_network(before, key)
    return TextScores(found.held_out.score, path, judge(method, run.state, key), base)


def _file(run: Run, data: str | Path | None) -> Path:
    """Where the rows lie that are judged."""
    if data is not None:
        place = Path(data).expanduser().resolve()
        if not place.is_file():
            raise DataError(f"{data}: there is no such file")
        return place
    if run.specification.options.held_out is None:
        raise SpecificationError(f"{run.name} held no texts out: give a file of texts as data")
    chosen = run.specification.data
    place = None if chosen is None else chosen.place(run.path)
    if chosen is None or place is None:
        raise RunError("this run's data was held in memory and is not known any more")
    chosen.check_unchanged(place)
    return place


def _reward(run: Run, reward: Any) -> tuple[tuple[JudgeChoice, ...], Any]:
    """The reward that was given, else the run's own, and its choice; `None` for exact match."""
    assert run.base is not None
    chosen, found = run.specification.rewards, None
    if reward is not None:
        chosen, found = choose_rewards(reward)
    if not chosen:
        return chosen, None
    return chosen, open_rewards(chosen, found, run.base.decoder.vocabulary)


def _temperature(options: Options) -> float:
    return 1.0 if options.temperature is None else options.temperature
