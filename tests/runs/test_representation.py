import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.low_rank import latent_lock
from headwater.methods.linear.pessimistic_lsvi import PEVI
from headwater.methods.lowrank.raffle import RAFFLE
from headwater.ops.planning import uniform_policy
from headwater.runs.loop import run
from headwater.runs.representation import downstream_stage, learned_features, upstream_stage
from headwater.sources.episodes import log_episodes


def test_a_log_is_learned_from_on_the_features_of_an_earlier_stage(key):
    given = latent_lock(tasks=2, states=4, actions=2, horizon=2, rank=2, key=key)
    known, new = given.task(0), given.task(1)
    data = log_episodes(new, uniform_policy(new), episodes=20, key=key)
    problem = new.problem(known_reward=True)
    stages = [
        upstream_stage(RAFFLE(rank=2, batch=2, restarts=1), known, updates=2),
        downstream_stage(PEVI(penalty_scale=0.01), data, problem),
    ]
    outcomes = run(stages, known.problem(), seeds=2, progress=False).outcomes
    learned = outcomes["upstream"].state.factors.feature
    assert learned.shape == (2, 2, 4, 2, 2)
    assert np.array_equal(outcomes["downstream"].state.features, learned)
    assert np.array_equal(outcomes["downstream"].state.problem.reward[1], new.reward)
    with pytest.raises(SpecificationError, match="unknown stage 'upstraem': did you mean upstream"):
        learned_features(outcomes, "upstraem")
    with pytest.raises(SpecificationError, match="'downstream' ran PEVI, which learns no features"):
        learned_features(outcomes, "downstream")
