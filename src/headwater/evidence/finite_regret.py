"""Methods for finite processes side by side, each tuned by the same rule.

The rule: of a grid of multipliers of the bonus, the one with the least regret, over as many
episodes, in processes of the same kind that are not among those compared. Posterior sampling, which
has no bonus, gets the concentration of its prior tuned over a grid of as many values.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProcess
from headwater.core.method import AbstractMethod
from headwater.evaluation.statistics import Interval
from headwater.evaluation.tuning import tune
from headwater.evidence.claim import ratio_of_means
from headwater.methods.tabular.online.posterior_sampling import PosteriorSampling
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes

GRID = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Multipliers of the bonus that methods are tuned over."""


@dataclasses.dataclass(frozen=True)
class Regrets:
    """What was measured in several runs.

    **Arguments:** `episodes`: where, `[row]`; `sums`: of every metric up to there, `[run, row]`;
    `final`: what the last policies fall short of the best, `[run]`.
    """

    episodes: np.ndarray
    sums: dict[str, np.ndarray]
    final: np.ndarray


def learn_each(
    method: Any,
    processes: Sequence[FiniteProcess],
    *,
    scales: Sequence[float] | np.ndarray | None = None,
    episodes: int,
    seed: int,
    rows: int = 20,
) -> Regrets:
    """One run in each process, all in one program; in exact regret, and how often it is optimistic.

    **Arguments:** `scales`: multipliers of the bonus, one for each process, if the method has one.
    """
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *processes)
    keys = jax.random.split(jax.random.key(seed), len(processes))
    each = None if scales is None else jnp.asarray(scales, jnp.float32)
    sums, final = _learn(method, stacked, each, keys, rows, episodes // rows)
    at = (1 + np.arange(rows)) * (episodes // rows)
    totals = {name: np.cumsum(np.asarray(x, np.float64), 1) for name, x in sums.items()}
    return Regrets(at, totals, np.asarray(final, np.float64))


@eqx.filter_jit
def _learn(method, stacked, scales, keys, rows, count):
    def one(process, scale, key):
        scaled = method if scale is None else with_scale(method, scale)
        best = optimal_values(process)
        most = jnp.dot(process.initial, best.value[0])

        def measure(agent, data):
            policy = agent.policy(explore=True)
            value = jnp.dot(process.initial, jnp.max(agent.state.action_value[0], axis=-1))
            return {
                "regret": most - expected_return(process, policy),
                "optimistic": (value >= most - 1e-4).astype(jnp.float32),
            }

        found = learn(
            scaled,
            process.problem(),
            FreshEpisodes(process),
            rows * count,
            measure=measure,
            every=count,
            key=key,
        )
        final = most - expected_return(process, scaled.policy(found.state, explore=False))
        return found.sums, final

    axes = (0, None if scales is None else 0, 0)
    return jax.vmap(one, in_axes=axes)(stacked, scales, keys)


def with_scale(method: Any, scale: Any) -> Any:
    """`method` with another value of what is tuned, as an array: one program serves them all."""
    name = "concentration" if isinstance(method, PosteriorSampling) else "bonus_scale"
    return eqx.tree_at(lambda m: getattr(m, name), method, jnp.asarray(scale, jnp.float32))


def sparse_process(seed: int, *, states: int, actions: int, horizon: int) -> FiniteProcess:
    """A random process with nearly deterministic rows and Bernoulli rewards, most of them zero."""
    random = np.random.default_rng(seed)
    shape = horizon, states, actions
    return FiniteProcess.from_arrays(
        random.dirichlet(np.full(states, 0.3), shape),
        random.random(shape) * (random.random(shape) < 0.3),
        random.dirichlet(np.ones(states)),
        noisy=True,
    )


def compare(
    methods: Mapping[str, AbstractMethod],
    make: Callable[[int], FiniteProcess],
    *,
    seed: int,
    episodes: int,
    runs: int,
    grid: Sequence[float],
) -> tuple[dict[str, Regrets], dict[str, float]]:
    """What methods tuned alike learn in `runs` processes, the same for all, and the multipliers.

    They are tuned in `runs` other processes, an equal number of them for each multiplier.
    """
    processes = [make(seed * runs + i) for i in range(runs)]
    found, chosen = {}, {}
    for name, method in methods.items():
        # Bonuses are far too large in theory; a prior of 1 is not.
        values = [30.0 * x for x in grid] if isinstance(method, PosteriorSampling) else grid

        def regrets(values, seed, method=method):
            practice = [make(seed * runs + i) for i in range(runs // len(grid))]
            tried = np.repeat(values, len(practice))
            each = practice * len(values)
            found = learn_each(method, each, scales=tried, episodes=episodes, seed=seed)
            return found.sums["regret"][:, -1].reshape(len(values), -1)

        chosen[name] = tune(list(values), regrets, seed=seed).value
        scales = [chosen[name]] * runs
        found[name] = learn_each(method, processes, scales=scales, episodes=episodes, seed=seed)
    return found, chosen


def ratio(found: dict[str, Regrets], name: str, other: str) -> Interval:
    """Regret of one over regret of the other."""
    return ratio_of_means(found[name].sums["regret"][:, -1], found[other].sums["regret"][:, -1])


def numbers(found: dict[str, Regrets], chosen: dict[str, float]) -> dict[str, Any]:
    """What a finding keeps of a comparison."""
    regret = {name: float(x.sums["regret"][:, -1].mean()) for name, x in found.items()}
    return {"tuned": chosen, "regret": regret}


def curves(found: dict[str, Regrets]) -> dict[str, tuple[Any, Any]]:
    """Regret over episodes."""
    return {name: (x.episodes, x.sums["regret"]) for name, x in found.items()}


SMALL = {
    "sizes": {"states": 5, "actions": 3, "horizon": 6},
    "episodes": 4_000,
    "runs": 24,
    "grid": GRID,
}


SMOKE = {
    "sizes": {"states": 3, "actions": 2, "horizon": 3},
    "episodes": 400,
    "runs": 6,
    "grid": (0.03, 0.01, 0.003),
}
