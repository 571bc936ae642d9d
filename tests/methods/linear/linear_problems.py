"""A linear process with its optimum, and a log of a tabular one."""

import jax

from headwater.core.finite import FiniteProcess
from headwater.environments.linear.linear import random_linear_process
from headwater.environments.tabular.finite import random_process
from headwater.ops.tabular.counts import count, no_counts
from headwater.ops.tabular.planning import (
    optimal_values,
    uniform_policy,
)
from headwater.sources.episodes import log_episodes

LINEAR = random_linear_process(
    states=3, actions=2, horizon=2, features=2, noisy=True, key=jax.random.key(3)
)


BEST = optimal_values(LINEAR.process)


def logged():
    """A tabular process and episodes of its uniform policy."""
    process = random_process(states=4, actions=3, horizon=5, key=jax.random.key(0))
    data = log_episodes(process, uniform_policy(process), episodes=40, key=jax.random.key(1))
    return process, data


def learned(method, problem, data):
    state = method.init(problem, key=jax.random.key(0))
    return jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])(state, data)


def shrunk(process, data, ridge):
    """The empirical model of counts with `ridge` added to every number of visits."""
    counts = count(no_counts(process.problem()), data, process.problem())
    times = counts.visits + ridge
    return FiniteProcess(
        counts.following / times[..., None], counts.reward.total[..., 0] / times, process.initial
    )
