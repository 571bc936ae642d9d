"""DAgger: whose actions are cloned, and when."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.environments.adapters.gymnasium_task import GymnasiumTask
from headwater.environments.control.cable_routing import CableRouting
from headwater.environments.control.pendulum import Pendulum
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.iql import IQL
from headwater.runs.recipes.dagger import dagger_stage
from headwater.runs.recipes.online import Budget
from headwater.sources.experts.corrections import Corrections
from headwater.sources.mixed import Mixed

from .tiny import logged

CLONE = BC(hidden_sizes=(8,), normalise_observations=False)


def test_corrections_are_added_up_over_rounds(key):
    # One clip, where every attempt succeeds: the expert routes, whatever the policy does.
    task = CableRouting(clips=1, route_success=1.0)
    source = Corrections(task, capacity=40, batch_size=32, steps_per_draw=12, copies=3)
    agent = Agent(CLONE, CLONE.init(task.spaces, key=key))
    state = source.init(key=key)
    draw = jax.jit(lambda state, key: source.draw(state, agent, key=key))
    for number in (1, 2):
        state, batch = draw(state, jax.random.fold_in(key, number))
        assert int(source.environment_steps(state)) == int(state.ring.written) == 12 * number
        np.testing.assert_array_equal(batch.action, 0)
    # It did something else, too: the attempt would have ended each episode.
    assert 0 < int(state.ring.data.terminal[:24].sum()) < 24
    assert batch.observation.shape == (32, 16)


def test_a_stage_draws_from_the_log_and_from_rounds():
    task = CableRouting()
    budget = Budget(steps=70, rows=5, block=20, updates_per_step=2)
    stage = dagger_stage(CLONE, task, budget, data=logged(8), logged_share=0.25, copies=4)
    assert (stage.updates, stage.updates_per_draw) == (120, 40)
    assert isinstance(stage.source, Mixed)
    log, corrections = stage.source.sources
    assert (log.batch_size, corrections.batch_size) == (50, 150)
    assert (corrections.steps_per_draw, corrections.copies, corrections.capacity) == (20, 4, 70)
    alone = dagger_stage(CLONE, task, budget).source
    assert isinstance(alone, Corrections) and alone.batch_size == 200


def test_refusals():
    budget = Budget(steps=8, block=4)
    with pytest.raises(SpecificationError, match="IQL learns from rewards, which are those of wha"):
        dagger_stage(IQL(), CableRouting(), budget)
    with pytest.raises(SpecificationError, match="pendulum does not say what an expert would do"):
        dagger_stage(CLONE, Pendulum(), budget)
    with pytest.raises(SpecificationError, match="CartPole-v1 does not say what an expert would"):
        dagger_stage(CLONE, GymnasiumTask("CartPole-v1", ()), budget)
    with pytest.raises(SpecificationError, match="3 environment steps hold no round of 4"):
        dagger_stage(CLONE, CableRouting(), Budget(steps=3, block=4))
    with pytest.raises(SpecificationError, match="policy acts, and is corrected, from the first"):
        dagger_stage(CLONE, CableRouting(), Budget(steps=8, block=4, warm_up_steps=2))
    with pytest.raises(SpecificationError, match="Corrections: steps_per_draw=5 is no multiple"):
        Corrections(CableRouting(), steps_per_draw=5, copies=2)
