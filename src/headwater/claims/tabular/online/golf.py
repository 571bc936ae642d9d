"""Claims of GOLF."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import Agent
from headwater.environments.tabular.finite import noisy_lock
from headwater.evaluation.exact import best_return
from headwater.evaluation.instances import ExactReturn, first_time, learn_instances, stacked
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of
from headwater.methods.tabular.online.m_golf import MGOLF
from headwater.methods.tabular.online.q_learning import QLearning
from headwater.ops.tabular.planning import expected_return
from headwater.parts.value_class import value_class_of

_RATES = (0.05, 0.1, 0.3)
_EXPLORATIONS = (0.05, 0.1, 0.2, 0.4)


class _Truth(eqx.Module):
    """Measures the exact return of the latest policy, and whether the truth is still alive."""

    process: FiniteProcess
    index: Any

    def __call__(self, agent: Agent) -> dict[str, Any]:
        worth = expected_return(self.process, agent.policy(explore=False))
        return {"return": worth, "alive": agent.state.alive[self.index].astype(jnp.float32)}


def lock_of_many_codes(
    *, seed: int, instances: int, horizon: int, actions: int, models: int, episodes: int, long: int
) -> Finding:
    """GOLF among the values of many locks, and tuned Q-learning, on noisy locks with a decoy."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, actions, (models, horizon))
    locks = [noisy_lock(code, actions) for code in codes]
    truth = generator.choice(models, instances, replace=False)
    process = stacked([locks[i] for i in truth])
    # The class is the same for all instances: only which of its members is right differs.
    one = value_class_of(stacked(locks), locks[0].problem())
    classes = stacked([one] * instances)
    best = np.asarray(jax.vmap(best_return)(process), np.float64)
    theory = MGOLF(memory_length=0, num_episodes=float(episodes))
    small = 3.0 / float(theory.radius(one))
    found = {}
    for name, scale in (("3", small), ("theory", 1.0)):
        method = MGOLF(memory_length=0, num_episodes=float(episodes), radius_scale=scale)
        measure = _Truth(process, jnp.asarray(truth, jnp.int32))
        found[name] = learn_instances(
            method, process, classes, measure, updates=episodes, key=jax.random.key(seed)
        )
    times = {name: first_time(f["return"], 0.9 * best, 20) for name, f in found.items()}
    # It is cheap, and its few lucky seeds need many others beside them.
    repeated = [locks[i] for i in truth for _ in range(4)]
    tuned = (
        _tuned_q_learning(stacked(repeated), stacked([x.problem() for x in repeated]), long, seed)
        / np.repeat(best, 4)[:, None]
    )
    kept = found["3"]["alive"][:, -1]
    slowest = np.where(np.isnan(times["3"]), np.inf, times["3"]).max()
    return Finding(
        (
            Criterion("episodes of the slowest instance, β = 3", exactly(slowest), at_most=100),
            Criterion("share of instances that kept the truth", exactly(kept.min()), at_least=1),
            Criterion(
                f"share of the best return, best Q-learning after {long} episodes",
                mean_of(tuned[:, -1]),
                at_most=0.2,
            ),
        ),
        {
            "radius in theory": float(theory.radius(one)),
            "helpers": one.helpers.shape[0] if one.helpers is not None else 0,
            "episodes, radius 3": times["3"].tolist(),
            "episodes, radius of theory": [None if np.isnan(t) else t for t in times["theory"]],
        },
        {
            "GOLF, β = 3": (np.arange(episodes + 1), found["3"]["return"] / best[:, None]),
            "GOLF, β of the theory": (
                np.arange(episodes + 1),
                found["theory"]["return"] / best[:, None],
            ),
            "Q-learning": (np.arange(episodes + 1), tuned[:, : episodes + 1]),
        },
        "episodes",
        "share of the best return",
    )


def _tuned_q_learning(process: FiniteProcess, problems: FiniteProblem, long: int, seed: int):
    """Returns `[instance, episode]` with the rate and exploration that end up best."""
    best = np.zeros((1, 1))
    for rate in _RATES:
        for exploration in _EXPLORATIONS:
            method = QLearning(learning_rate=rate, exploration_rate=exploration)
            key = jax.random.key(seed + 1)
            found = learn_instances(
                method, process, problems, ExactReturn(process), updates=long, key=key
            )["return"]
            if best.size == 1 or found[:, -1].mean() > best[:, -1].mean():
                best = found
    return best


CLAIMS = (
    Claim(
        name="golf-opens-a-noisy-lock",
        statement=(
            "Optimism over a class of value functions opens a noisy lock with a decoy within 100 "
            "episodes (β = 3) and never gives up the true function, where ε-greedy Q-learning, "
            "tuned, stays at the decoy for forty times as long."
        ),
        methods=("MGOLF", "QLearning"),
        paper="jin2021bellman",
        where="a consequence of the regret bound of GOLF (Theorem 15)",
        scales={
            "smoke": {
                "instances": 4,
                "horizon": 5,
                "actions": 4,
                "models": 30,
                "episodes": 100,
                "long": 500,
            },
            "small": {
                "instances": 16,
                "horizon": 6,
                "actions": 4,
                "models": 200,
                "episodes": 400,
                "long": 4000,
            },
        },
        experiment=lock_of_many_codes,
    ),
)
