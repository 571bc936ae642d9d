"""Episodes of finite processes that are compared, with features or a few hypotheses."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.finite import FiniteProblem
from headwater.core.hypotheses import FiniteHypotheses
from headwater.core.records import EpisodeComparisons
from headwater.ops.linear.preference import trajectory_features
from headwater.testing.kinds.finite import ACTIONS, HARD_EPISODES, STATES, STEPS, episodes, finite
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of


@kinds_of(FiniteProblem, EpisodeComparisons)
def _kinds() -> list[Kind]:
    plain = replace(finite(), reward=None)
    return [
        Kind("compared", _with_features(), _comparisons, True, _HARD),
        Kind("compared without features", plain, _comparisons, True, _HARD, True),
    ]


@kinds_of(FiniteHypotheses, EpisodeComparisons)
def _kinds_of_hypotheses() -> list[Kind]:
    return [Kind("compared, few hypotheses", _hypotheses(), _comparisons, True, _HARD)]


def _comparisons(key) -> EpisodeComparisons:
    first, second = (replace(episodes(each, (ROWS,)), cost=None) for each in jax.random.split(key))
    # A judge with a taste: where answers mean nothing, careful methods have nothing to decide by.
    features = _with_features().features
    assert features is not None
    scores = [trajectory_features(each, features)[:, 0] for each in (first, second)]
    return EpisodeComparisons(first, second, scores[0] > scores[1])


def _both(change):
    return lambda d: replace(d, first=change(d.first), second=change(d.second))


_HARD = {
    **{name: _both(change) for name, change in HARD_EPISODES.items()},
    "pairs of the same": lambda d: replace(d, second=d.first),
    "always the first": lambda d: replace(d, first_preferred=jnp.ones_like(d.first_preferred)),
}


def _with_features() -> FiniteProblem:
    features = jax.random.normal(jax.random.key(6), (STEPS, STATES, ACTIONS, 3))
    return replace(finite(), reward=None, features=features)


def _hypotheses() -> FiniteHypotheses:
    reward_key, model_key = jax.random.split(jax.random.key(7))
    sizes = (STEPS, STATES, ACTIONS)
    return FiniteHypotheses(
        replace(finite(), reward=None),
        jax.random.normal(reward_key, (6, *sizes)),
        jax.random.dirichlet(model_key, jnp.ones(STATES), (2, *sizes)),
    )
