"""Whether a model that errs less is better to plan with, and weights that make it so."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from headwater.analysis.models.objective_mismatch import nearness_weights
from headwater.core.method import AbstractDynamics
from headwater.core.records import Transitions
from headwater.environments.control.cart_pole_swing_up import CartPoleSwingUp, SwingUpState
from headwater.evaluation.returns import evaluate_returns
from headwater.evaluation.statistics import rank_correlation_interval
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of, ratio_of_means
from headwater.evidence.logs import dataset_of, record
from headwater.evidence.true_dynamics import TrueDynamics
from headwater.methods.control.model_based.dynamics_ensemble import DynamicsEnsemble
from headwater.methods.control.model_based.pets import PETS
from headwater.runs.learn import learn
from headwater.sources.weighted import WeightedReplay

_TASK = CartPoleSwingUp()
_REACH = jnp.asarray([2.0, 4.0, jnp.pi, 8.0])
"""Broad data begin anywhere within this position, velocity, angle and turning."""


def _state_of(observation: jax.Array) -> SwingUpState:
    place, velocity, cosine, sine, turning = observation
    motion = jnp.stack([place, velocity, jnp.arctan2(sine, cosine), turning])
    return SwingUpState(motion, jnp.zeros((), jnp.int32))


@eqx.filter_jit
def _broad(rows: int, key: jax.Array) -> Transitions:
    """Single steps by random actions from random states, `[row, 1, …]`."""

    @jax.vmap
    def one(key: jax.Array) -> Transitions:
        state_key, action_key = jax.random.split(key)
        motion = _REACH * jax.random.uniform(state_key, (4,), minval=-1.0, maxval=1.0)
        action = jax.random.uniform(action_key, (1,), minval=-1.0, maxval=1.0)
        at = SwingUpState(motion, jnp.zeros((), jnp.int32))
        place, velocity, angle, turning = motion
        shown = jnp.stack([place, velocity, jnp.cos(angle), jnp.sin(angle), turning])
        seen = _TASK.step(at, action, key=key)[1]
        return Transitions(
            shown, action, seen.reward, seen.observation, seen.terminal, seen.truncated
        )

    return jax.tree.map(lambda x: x[:, None], one(jax.random.split(key, rows)))


def _learned(planner: PETS, log: Any, weights: np.ndarray, updates: int, rates, seed: int):
    """A model for each row of weights, each with its learning rate; one program for all."""
    data = jax.tree.map(jnp.asarray, log.transitions())
    sources = [WeightedReplay(data, row, 64) for row in weights]
    ends = jnp.stack([source.upper for source in sources])

    def one(ends, rate, key):
        source = eqx.tree_at(lambda s: s.upper, sources[0], ends)
        method = eqx.tree_at(lambda m: m.dynamics.learning_rate, planner, rate)
        return learn(method, log.spaces, source, updates, key=key).state

    keys = jax.random.split(jax.random.key(seed), len(weights))
    return eqx.filter_jit(jax.vmap(one))(ends, jnp.asarray(rates, jnp.float32), keys)


@eqx.filter_jit
def _errors(planner: PETS, states: Any, rows: Transitions, spread: Array) -> Array:
    """Mean squared error of each model's next observations, in units of the log's deviations."""
    dynamics = planner.dynamics
    assert isinstance(dynamics, AbstractDynamics)

    @jax.vmap
    def one(state):
        def row(observation, action, following):
            found = dynamics.predict(state.model, observation, action).next_observation
            return jnp.mean(((found - following) / spread) ** 2)

        return jnp.mean(jax.vmap(row)(rows.observation, rows.action, rows.next_observation))

    return one(states)


def _mismatch(
    seed: int,
    *,
    models: int,
    rows: int,
    few: int,
    pairs: int,
    updates: int,
    width: int,
    plans: int,
    ahead: int,
    steps: int,
    episodes: int,
) -> Finding:
    draw = np.random.default_rng(seed)
    log_key, held_key, expert_key = jax.random.split(jax.random.key(seed), 3)
    log, held = (dataset_of(_TASK, _broad(rows, key)) for key in (log_key, held_key))
    planner = PETS(
        planning_steps=ahead,
        num_plans=plans,
        planning_rounds=3,
        num_particles=1,
        dynamics=DynamicsEnsemble(num_members=1, num_elites=1, hidden_sizes=(width, width)),
    )
    expert = dataclasses.replace(planner, dynamics=TrueDynamics(_TASK, _state_of))
    knows = expert.init(log.spaces, key=expert_key)

    def by_expert(skill, observation, key):
        return expert.act(knows, observation, key=key, explore=False)[0]

    path = record(_TASK, by_expert, np.zeros(2), steps=steps, key=expert_key)
    good, pairs_of_log = (
        np.concatenate([found.observations, found.actions], axis=1) for found in (path, log)
    )
    # First models that differ in how much they learn from and how fast; then pairs of models of
    # the same few rows, which count alike or by how near they are to what the expert does.
    weights = np.zeros((models + 2 * pairs, rows))
    rates = np.full(len(weights), 1e-3)
    for i in range(models):
        share = np.exp(draw.uniform(np.log(0.02), 0.0))
        weights[i] = np.argsort(draw.uniform(size=rows)) < max(16, int(share * rows))
        rates[i] = np.exp(draw.uniform(np.log(1e-4), np.log(3e-3)))
    for i in range(pairs):
        chosen = draw.permutation(rows)[:few]
        weights[models + 2 * i, chosen] = 1.0
        weights[models + 2 * i + 1, chosen] = nearness_weights(pairs_of_log[chosen], good)
    states = _learned(planner, log, weights, updates, rates, seed)
    returns = evaluate_returns(
        planner, states, _TASK, episodes=episodes, key=jax.random.key(seed + 1)
    ).mean(axis=1)
    spread = jnp.asarray(log.observations.std(axis=0))
    errors = [
        np.asarray(_errors(planner, states, found.transitions(), spread), np.float64)[:models]
        for found in (held, path)
    ]
    broad, near = (rank_correlation_interval(found, returns[:models]) for found in errors)
    uniform, weighted = returns[models::2], returns[models + 1 :: 2]
    ratio = ratio_of_means(weighted, uniform)
    return Finding(
        (
            Criterion("rank correlation of broad error and return", broad, at_least=-0.4),
            Criterion("rank correlation of error on the path and return", near, at_most=-0.6),
            Criterion("return by weights over that without", ratio, at_least=1.15),
        ),
        {
            "return": {
                "expert": exactly(path.rewards.sum() / 2.0),
                "best model": exactly(returns[:models].max()),
                "uniform": mean_of(uniform),
                "weighted": mean_of(weighted),
            }
        },
    )


CLAIMS = (
    Claim(
        "models-that-err-less-need-not-plan-better",
        "Of 60 models of swinging up a pole on a cart, which differ in how much broad data they "
        "learned from and how fast, the order of errors on such data says little of the order of "
        "returns when planning with them (rank correlation above -0.4), and that of errors along "
        "an expert's path says much (below -0.6). Learned from 300 broad rows, models are worth "
        "15 % more if rows count by their nearness to the path. Nothing is tuned.",
        ("PETS", "DynamicsEnsemble"),
        "lambert2020objective",
        "its figures on cart-pole, and its section on re-weighting; the temperature is not given",
        {
            "smoke": {
                "models": 4, "rows": 40, "few": 20, "pairs": 2, "updates": 2, "width": 4,
                "plans": 10, "ahead": 2, "steps": 20, "episodes": 1,
            },
            "small": {
                "models": 60, "rows": 2_000, "few": 300, "pairs": 5, "updates": 2_000,
                "width": 32, "plans": 64, "ahead": 20, "steps": 100, "episodes": 2,
            },
        },
        _mismatch,
    ),
)  # fmt: skip
