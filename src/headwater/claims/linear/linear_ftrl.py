"""What loss estimates of small magnitude are worth to the regularised leader."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.exact import best_return, returns_of
from headwater.evidence.claim import (
    Claim,
    Criterion,
    Finding,
    exactly,
    mean_of,
    ratio_of_means,
    with_numbers,
)
from headwater.methods.linear.linear_ftrl import LinearFTRL, estimates
from headwater.ops.linear_algebra import solve
from headwater.ops.tabular.planning import uniform_policy
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes


def _bandit(key, size: int, actions: int) -> tuple[FiniteProcess, jax.Array]:
    """One state and one step: losses are linear in a constant and a direction, and drawn."""
    feature_key, weight_key = jax.random.split(key)
    drawn = jax.random.normal(feature_key, (actions, size - 1))
    weight = jax.random.normal(weight_key, (size - 1,))
    drawn, weight = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (drawn, weight))
    features = jnp.concatenate([jnp.ones((actions, 1)), drawn], axis=1) / jnp.sqrt(2.0)
    mean = 0.5 + 0.45 * drawn @ weight
    process = FiniteProcess(jnp.ones((1, 1, actions, 1)), mean[None, None], jnp.ones(1), noisy=True)
    return process, features[None, None]


def _run(method, process, features, updates: int, key):
    """Regret of each update's policy, and its lowest estimate."""
    best = best_return(process)

    def measure(agent, data):
        return {"regret": best - returns_of(process, agent.policy(explore=True)[0])}

    problem = dataclasses.replace(process.problem(), features=features, reward_range=None)
    learned = learn(
        method, problem, FreshEpisodes(process), updates, measure=measure, every=1, key=key
    )
    return learned.sums["regret"], learned.sums["lowest_estimate"]


def _bias(key, size: int, actions: int, draws: int):
    """By how many standard errors the mean estimate of an action is off at most."""
    process, features = _bandit(key, size, actions)
    policy_key, draw_key = jax.random.split(key)
    policy = jax.random.dirichlet(policy_key, jnp.ones(actions))
    phi, mean = features[0, 0], 1.0 - process.reward[0, 0]
    inverse = solve(jnp.einsum("a,af,ag->fg", policy, phi, phi), jnp.eye(size))[None]

    def one(key):
        own_key, loss_key, other_key = jax.random.split(key, 3)
        own = jax.random.choice(own_key, actions, p=policy)
        loss = (jax.random.uniform(loss_key) < mean[own]).astype(jnp.float32)
        others = jax.random.choice(other_key, actions, (8,), p=policy)
        return estimates(
            "magnitude_reduced", features, inverse, phi[own][None], loss[None], phi[others][:, None]
        )[0, 0]

    found = jax.vmap(one)(jax.random.split(draw_key, draws))
    error = jnp.std(found, axis=0) / jnp.sqrt(float(draws))
    return jnp.max(jnp.abs(jnp.mean(found, axis=0) - mean) / error)


def _magnitudes(
    seed: int,
    *,
    instances: int,
    actions: int,
    simulated: int,
    updates: int,
    lengths: list[int],
    draws: int,
) -> Finding:
    size = 6
    keys = jax.random.split(jax.random.key(seed), instances)
    process, features = jax.jit(jax.vmap(lambda key: _bandit(key, size, actions)))(keys)
    run = eqx.filter_jit(jax.vmap(_run, in_axes=(None, 0, 0, None, 0)))
    settings = {"bonus_scale": 0.0, "num_simulated": simulated}

    def played(length: int, rate: float, **others):
        # A number that is an array is no part of the program, which is compiled once for a length.
        method = with_numbers(LinearFTRL(**settings, **others), learning_rate=jnp.float32(rate))
        return tuple(
            np.asarray(x, np.float64) for x in run(method, process, features, length, keys)
        )

    plain, reduced = (
        played(updates, 0.1, loss_estimator=name) for name in ("plain", "magnitude_reduced")
    )
    regrets = {n: np.cumsum(x[0], axis=1) for n, x in (("plain", plain), ("reduced", reduced))}
    lowest = {n: -x[1].min(axis=1) for n, x in (("plain", plain), ("reduced", reduced))}
    totals = [played(k, 2.0 * k**-0.5)[0].sum(axis=1) for k in lengths]
    slopes = np.polyfit(np.log(lengths), np.log(np.maximum(np.stack(totals), 1.0)), 1)[0]
    bias = eqx.filter_jit(_bias)(keys[0], size, actions, draws)
    return Finding(
        (
            Criterion(
                "mean estimates off by so many standard errors, at most",
                exactly(bias),
                at_most=3.0,
            ),
            Criterion(
                "lowest plain estimate over the lowest reduced one",
                ratio_of_means(lowest["plain"], lowest["reduced"]),
                at_least=10.0,
            ),
            Criterion(
                "regret of reduced over that of plain estimates",
                ratio_of_means(regrets["reduced"][:, -1], regrets["plain"][:, -1]),
                at_most=0.9,
            ),
            Criterion("slope of the regret in the episodes", mean_of(slopes), at_most=0.6),
        ),
        {
            "regret": {n: float(x[:, -1].mean()) for n, x in regrets.items()},
            "lowest estimate times the rate": {
                n: -0.1 * float(x.mean()) for n, x in lowest.items()
            },
            "regret by length": np.stack(totals).tolist(),
        },
        {name: (np.arange(1, updates + 1), x) for name, x in regrets.items()},
        across="episodes",
        up="regret",
    )


def _three_steps(seed: int, *, instances: int, updates: int, simulated: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)

    drawn = [random_process(states=3, actions=3, horizon=3, key=key) for key in keys]
    # Losses of zero or one, as in the other claim.
    drawn = [dataclasses.replace(process, noisy=True) for process in drawn]
    processes = jax.tree.map(lambda *x: jnp.stack(x), *drawn)

    def one(method, process, key):
        features = jnp.broadcast_to(jnp.eye(9).reshape(3, 3, 9), (3, 3, 3, 9))
        regret, _ = _run(method, process, features, updates, key)
        uniform = best_return(process) - returns_of(process, uniform_policy(process))
        return jnp.mean(regret[-(updates // 4) :]), uniform

    run = eqx.filter_jit(jax.vmap(one, in_axes=(None, 0, 0)))
    found, criteria = {}, []
    leaders = {
        "entropy": LinearFTRL(num_simulated=simulated),
        "log_barrier": LinearFTRL(regulariser="log_barrier", num_simulated=simulated),
    }
    for name, rate in (("entropy", 0.1), ("log_barrier", 0.1), ("log_barrier", 1.0)):
        method = with_numbers(leaders[name], learning_rate=jnp.float32(rate))
        last, uniform = (np.asarray(x, np.float64) for x in run(method, processes, keys))
        label = f"{name} at a rate of {rate:g}"
        found[label] = float(last.mean())
        criteria.append(
            Criterion(
                f"{label}: regret of the last quarter over that of the uniform policy",
                ratio_of_means(last, uniform),
                at_most=0.5,
            )
        )
    return Finding(tuple(criteria), {"regret of an episode in the last quarter": found})


CLAIMS = (
    Claim(
        name="reduced-magnitudes-bear-high-rates",
        statement="On one-step processes of 40 actions with 6 features, magnitude-reduced loss "
        "estimates are unbiased, at least ten times less negative than plain ones, and at a "
        "learning rate of 0.1 have at least a tenth less regret over 4,000 episodes; with a rate "
        "of 2/√K the regret grows as K to the 0.6 at most.",
        methods=("LinearFTRL",),
        paper="dai2023refined",
        where="the lemma on the estimator and the theorem on the regret; losses that are drawn, "
        "sizes and thresholds are a reproduction's",
        scales={
            "smoke": {
                "instances": 2,
                "actions": 6,
                "simulated": 6,
                "updates": 40,
                "lengths": [20, 40],
                "draws": 200,
            },
            "small": {
                "instances": 8,
                "actions": 40,
                "simulated": 60,
                "updates": 4_000,
                "lengths": [1_000, 4_000, 16_000],
                "draws": 20_000,
            },
        },
        experiment=_magnitudes,
        learned="With seed 0 the reduced estimates are unbiased and have 0.29 [0.15, 0.66] of the "
        "regret, but are 5.9 [5.2, 6.7] times less negative, not ten times. A likely reason, not "
        "tested: of 60 simulated episodes 30 make the covariance and 30 the mean, so that one draw "
        "far from where the policy mostly goes counts a thirtieth of the whole; more would be "
        "needed.",
    ),
    Claim(
        name="a-log-barrier-bears-high-rates",
        statement="On processes of three states and three steps, with bonuses, the regularised "
        "leader has less than half the regret of the uniform policy in the last quarter of 2,000 "
        "updates, with the log-barrier at a rate ten times as high, too.",
        methods=("LinearFTRL",),
        paper="dai2023refined",
        where="section 4, in words; processes, sizes and thresholds are a reproduction's",
        scales={
            "smoke": {"instances": 2, "updates": 8, "simulated": 6},
            "small": {"instances": 8, "updates": 2_000, "simulated": 40},
        },
        experiment=_three_steps,
        learned="With seeds 0 to 2 no leader has half the regret of the uniform policy: entropy at "
        "0.1 comes to 0.68 to 0.70 of it, the log-barrier to 0.46 to 0.58 at 0.1 (undecided) and "
        "to 0.64 to 0.68 at 1. At the same rate the barrier does better than entropy; a rate ten "
        "times as high it does not bear.",
    ),
)
