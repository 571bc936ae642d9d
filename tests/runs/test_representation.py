import dataclasses

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.environments.linear.low_rank import latent_lock
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.linear.pessimistic_lsvi import PEVI
from headwater.methods.low_rank.raffle import RAFFLE
from headwater.ops.tabular.planning import uniform_policy
from headwater.runs.recipes.representation import downstream_stage, learned_features, upstream_stage
from headwater.runs.stage import Outcome
from headwater.sources.episodes import FreshEpisodes, WholeLog, log_episodes


def test_the_features_of_an_earlier_stage_are_passed_on(key):
    given = latent_lock(tasks=2, states=4, actions=2, horizon=2, rank=2, key=key)
    known, new = given.task(0), given.task(1)
    problem = new.problem(known_reward=True)
    upstream = upstream_stage(RAFFLE(rank=2), known, updates=2, name="first")
    assert isinstance(upstream.source, FreshEpisodes) and upstream.updates == 2
    state = upstream.method.init(known.problem(), key=key)
    outcomes = {"first": Outcome(upstream.method, state)}
    data = log_episodes(new, uniform_policy(new), episodes=3, key=key)
    for method, experience, source in ((PEVI(), data, WholeLog), (LSVIUCB(), new, FreshEpisodes)):
        stage = downstream_stage(method, experience, problem, upstream="first")
        assert isinstance(stage.source, source) and stage.begin is not None
        # The stages' common problem is the earlier one's: the new task's is the one that counts.
        begun = stage.begin(outcomes, known.problem(), key)
        assert np.array_equal(begun.features, state.factors.feature)
        assert np.array_equal(begun.problem.reward, new.reward)


def test_stages_without_features_are_refused(key):
    problem = FiniteProblem(2, 2, 2)
    outcomes = {"upstream": Outcome(PEVI(), PEVI().init(problem, key=key))}
    with pytest.raises(SpecificationError, match="unknown stage 'upstraem': did you mean upstream"):
        learned_features(outcomes, "upstraem")
    with pytest.raises(SpecificationError, match="'upstream' ran PEVI, which learns no features"):
        learned_features(outcomes, "upstream")
    given = latent_lock(tasks=1, states=4, actions=2, horizon=2, rank=2, key=key).task(0)
    state = RAFFLE(rank=2).init(given.problem(), key=key)
    with pytest.raises(SpecificationError, match="RAFFLE takes no features of another stage"):
        downstream_stage(RAFFLE(), given, given.problem())
    stage = downstream_stage(PEVI(), given, dataclasses.replace(given.problem(), states=5))
    assert stage.begin is not None
    with pytest.raises(SpecificationError, match="PEVI"):
        stage.begin({"upstream": Outcome(RAFFLE(rank=2), state)}, None, key)
