import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.claims.low_rank.refuel import explore
from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.environments.linear.low_rank import latent_lock
from headwater.evaluation.exact import best_return, returns_of
from headwater.evaluation.model_error import worst_model_error
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.low_rank.raffle import RAFFLE
from headwater.methods.low_rank.refuel import REFUEL
from headwater.methods.low_rank.rep_ucb import RepUCB
from headwater.runs.loop import run
from headwater.runs.representation import downstream_stage, upstream_stage

_RANK = 2


def _locks(tasks: int):
    return latent_lock(
        tasks=tasks, states=6, actions=2, horizon=3, rank=_RANK, key=jax.random.key(3)
    )


def test_refuel_opens_all_locks_and_its_features_open_a_new_one():
    given = _locks(4)
    known, new = given.subset([0, 1, 2]), given.task(3)
    problem = new.problem(known_reward=True)
    upstream = REFUEL(rank=_RANK, batch=4, restarts=4)
    downstream = LSVIUCB(bonus_scale=0.01, highest_return=1.0 / 3.0)
    stages = [
        upstream_stage(upstream, known.process, updates=20, tasks=3),
        downstream_stage(downstream, new, problem, updates=40),
    ]
    outcomes = run(stages, known.process.problem(known_reward=True), progress=False).outcomes
    state = jax.tree.map(lambda x: x[0], outcomes["upstream"].state)
    share = returns_of(known.process, upstream.policy(state, explore=False))
    np.testing.assert_allclose(share / best_return(known.process), 1.0, atol=0.02)
    error = worst_model_error(known.process, upstream.model(state).transition)
    assert float(jnp.max(error)) < 0.2, error
    later = jax.tree.map(lambda x: x[0], outcomes["downstream"].state)
    assert np.array_equal(later.features, state.factors.feature)
    found = returns_of(new, downstream.policy(later, explore=False)) / best_return(new)
    assert float(found) > 0.95, found


@pytest.mark.parametrize("cls", [RAFFLE, RepUCB])
def test_methods_of_one_task_open_locks(cls):
    given = _locks(2)
    locks = [given.task(0), given.task(1)]
    curves = explore(cls(rank=_RANK, batch=4, restarts=4), locks, updates=40, seed=0)
    assert np.all(curves.value[:, -1] > 0.95), curves.value[:, -1]
    assert np.all(curves.error[:, -1] < 0.25) and np.all(curves.error[:, 0] > 0.4)


@pytest.mark.parametrize("cls", [REFUEL, RAFFLE, RepUCB])
def test_problems_that_do_not_fit_are_refused(cls, key):
    tasks = 2 if cls is REFUEL else None
    lead = () if tasks is None else (tasks,)
    known = {
        "initial": jnp.full((*lead, 3), 1.0 / 3.0),
        "reward": jnp.zeros((*lead, 4, 3, 2)),
    }
    problem = FiniteProblem(3, 2, 4, **known, tasks=tasks)
    with pytest.raises(SpecificationError, match="rank = 7 does not fit a problem of 6 pairs"):
        cls(rank=7).init(problem, key=key)
    with pytest.raises(SpecificationError, match=f"{cls.__name__} .*initial"):
        cls(rank=2).init(FiniteProblem(3, 2, 4, reward=known["reward"], tasks=tasks), key=key)
    wrong = FiniteProblem(3, 2, 4, **known, tasks=2 if tasks is None else None)
    with pytest.raises(SpecificationError, match=f"{cls.__name__} learns"):
        cls(rank=2).init(wrong, key=key)


def test_rep_ucb_needs_the_reward(key):
    problem = FiniteProblem(3, 2, 4, initial=jnp.full(3, 1.0 / 3.0))
    with pytest.raises(SpecificationError, match="RepUCB plans for known rewards"):
        RepUCB(rank=2).init(problem, key=key)
