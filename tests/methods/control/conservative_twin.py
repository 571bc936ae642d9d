"""CQL and Cal-QL in double-precision NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.methods.control.offline.cal_ql import CalQL

from .numpy_twin import (
    ACTION,
    ROWS,
    Adam,
    batch,
    expect_same,
    problem,
    standardised,
    update,
)
from .soft_twin import RATES, SoftTwin, columns

PROPOSALS, WEIGHT = 3, 0.8


FLAT = -ACTION * np.log(2.0)


CONSERVATIVE_SETTINGS = {
    "hidden_sizes": (8, 8),
    "num_action_samples": PROPOSALS,
    "conservative_weight": WEIGHT,
    **RATES,
}


def _proposals(twin, s, following, terminal, key):
    uniform_key, here_key, following_key = jax.random.split(key, 3)
    shape = (PROPOSALS, ROWS, ACTION)
    uniform = np.asarray(jax.random.uniform(uniform_key, shape, minval=-1.0, maxval=1.0))
    actions, densities = list(uniform.astype(np.float64)), [np.full(ROWS, FLAT)] * PROPOSALS
    following = np.where(terminal[:, None], s, following)
    for observation, origin in ((s, here_key), (following, following_key)):
        for k in jax.random.split(origin, PROPOSALS):
            action, density = twin.sample(observation, twin.noise(k, ROWS))
            actions.append(action)
            densities.append(density)
    return actions, np.stack(densities)


def _conservative_step(twin, s, a, y, actions, densities, weight, smallest=None, bound=None):
    """Returns the squared error, the gap and the share of raised values before the step."""
    gaps, error, raised = [], 0.0, []
    for critic, adam in zip(twin.critics, twin.critic_adams):
        proposed = np.stack([twin.q([critic], s, each)[0] for each in actions])
        free = np.ones_like(proposed)
        if bound is not None:
            low = proposed[PROPOSALS:] < bound
            free[PROPOSALS:] = ~low
            proposed[PROPOSALS:] = np.where(low, bound, proposed[PROPOSALS:])
            raised.append(np.mean(low))
        score = proposed - densities
        peak = score.max(0)
        share = np.exp(score - peak)
        total = peak + np.log(share.sum(0))
        share = share / share.sum(0)
        logged = twin.q([critic], s, a)[0]
        error += np.mean((logged - y) ** 2)
        gap = total - logged
        pushed = np.ones(ROWS) if smallest is None else (gap > smallest).astype(float)
        assert smallest is None or 0 < pushed.sum() < ROWS
        gaps.append(gap if smallest is None else np.maximum(gap, smallest))
        gradients = critic.backward((2 * (logged - y) - weight * pushed)[:, None] / ROWS)[0]
        for each, part, unbound in zip(actions, share, free):
            twin.q([critic], s, each)
            slope = weight * pushed * part * unbound / ROWS
            more = critic.backward(slope[:, None])[0]
            gradients = [g + h for g, h in zip(gradients, more)]
        adam.step(gradients)
    twin.move()
    return error, np.mean(gaps), np.mean(raised) if raised else None


def expect_parity(method, **options):
    """Fails unless two updates of `method` are those of its twin."""
    state = method.init(problem(False), key=jax.random.key(1))
    twin = SoftTwin(state.soft, log_std_offset=-1.0)
    multiplier = [np.asarray(1.0)]
    multiplier_adam = Adam(multiplier, RATES["critic_learning_rate"])
    calibrated = isinstance(method, CalQL)
    for i in range(2):
        data, key = batch(i, False), jax.random.key(i)
        bound = np.random.default_rng(i).normal(size=ROWS) * 0.05
        bound[0] = -np.inf
        data = dataclasses.replace(data, return_to_go=jnp.asarray(bound, jnp.float32))
        state, metrics = update(method, state, data, key=key)
        critic_key, actor_key, proposal_key = jax.random.split(key, 3)
        s, a, r, terminal, following = columns(data, standardised)
        noise = twin.noise(jax.random.split(critic_key)[0], ROWS)
        y = twin.target(r, terminal, following, noise, share=method.backup_entropy)
        actions, densities = _proposals(twin, s, following, terminal, proposal_key)
        learned = 1.0 if method.target_action_gap is None else np.exp(multiplier[0])
        weight = WEIGHT * learned
        error, gap, raised = _conservative_step(
            twin,
            s,
            a,
            y,
            actions,
            densities,
            weight,
            bound=bound if calibrated else None,
            **options,
        )
        np.testing.assert_allclose(metrics["critic_loss"], error, rtol=1e-4)
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-4)
        if calibrated:
            np.testing.assert_allclose(metrics["raised"], raised, rtol=1e-5)
        if method.target_action_gap is not None:
            multiplier_adam.step([-weight * (gap - method.target_action_gap)])
        _, entropy = twin.actor_step(s, twin.noise(actor_key, ROWS))
        twin.temperature_step(entropy, -ACTION)
    twin.expect(state.soft, tolerance=5e-5)
    expect_same(state.log_multiplier, multiplier)
