"""Claims of optimistic least-squares value iteration."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.linear.linear import LinearProcess, linear_lock, random_linear_process
from headwater.evaluation.exact import regret_of
from headwater.evaluation.instances import learn_instances
from headwater.evaluation.tuning import tune
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means, with_numbers
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.tabular.online.ucbvi import UCBVI

_BONUSES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Scales of the bonus of which every method takes the one with least regret in other processes, at
each size."""


def growth_of_regret(
    *,
    seed: int,
    instances: int,
    states: int,
    actions: int,
    horizon: int,
    features: int,
    episodes: int,
) -> Finding:
    """Regret of LSVI-UCB after K / 4 and K episodes of locks and of random linear processes."""
    sizes: dict[str, Any] = {
        "states": states,
        "actions": actions,
        "horizon": horizon,
        "features": features,
    }
    families: dict[str, tuple[Callable[[Any], LinearProcess], float]] = {
        "locks": (lambda key: linear_lock(slip=0.1, **sizes, key=key), 1.0 / horizon),
        "random": (lambda key: random_linear_process(noisy=True, **sizes, key=key), 1.0),
    }
    # The theorem's bound grows like the root of K times a logarithm of K.
    logs = [math.log(2 * features * horizon * k / 0.1) for k in (episodes / 4, episodes)]
    allowed = 2.0 * logs[1] / logs[0]
    criteria, numbers, curves = [], {"allowed ratio": allowed}, {}
    for family, (make, highest) in families.items():
        method = LSVIUCB(num_episodes=float(episodes), max_return=highest)

        def regrets(scales, seed, make=make, method=method):
            keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(instances)]
            given = _stacked([make(key) for key in keys])
            return _regrets(method, given, scales, episodes, seed)

        chosen = tune(_BONUSES, lambda x, own, f=regrets: f(x, own).sum(-1), seed=seed).value
        best = 0
        regret = np.cumsum(regrets((chosen, 0.0), seed), axis=-1)
        for label, at in (("optimistic", best), ("greedy", 1)):
            curves[f"{family}, {label}"] = (np.arange(1, episodes + 1), regret[at])
            numbers[f"{family}, {label}: regret"] = float(regret[at, :, -1].mean())
        numbers[f"{family}: bonus_scale"] = chosen
        quarter, whole = regret[best, :, episodes // 4 - 1], regret[best, :, -1]
        criteria.append(
            Criterion(
                f"{family}: regret of {episodes} episodes over that of a quarter",
                ratio_of_means(whole, quarter),
                at_most=allowed,
            )
        )
        if family == "locks":
            greedy = regret[-1]
            criteria.append(
                Criterion(
                    "locks, without a bonus: the same ratio",
                    ratio_of_means(greedy[:, -1], greedy[:, episodes // 4 - 1]),
                    at_least=allowed,
                )
            )
    return Finding(tuple(criteria), numbers, curves, "episodes", "regret", "xy")


def number_of_states(
    *,
    seed: int,
    instances: int,
    states: Sequence[int],
    actions: int,
    horizon: int,
    features: int,
    episodes: int,
) -> Finding:
    """Regret in locks with few and with many states, of LSVI-UCB on features and of UCBVI."""
    lost: dict[str, list[np.ndarray]] = {"LSVI-UCB": [], "UCBVI": []}
    scales: dict[str, list[float]] = {"LSVI-UCB": [], "UCBVI": []}
    for size in states:

        def locks(seed, size=size):
            root = jax.random.key(seed)
            keys = [jax.random.fold_in(root, 1000 * size + i) for i in range(instances)]
            sizes = {"states": size, "actions": actions, "horizon": horizon, "features": features}
            return _stacked([linear_lock(**sizes, slip=0.1, key=key) for key in keys])

        methods = {
            "LSVI-UCB": (
                LSVIUCB(num_episodes=float(episodes), max_return=1.0 / horizon),
                _BONUSES,
            ),
            # Its logarithm and its horizon make the same bonus many times as large.
            "UCBVI": (
                UCBVI(bonus="hoeffding", num_episodes=float(episodes)),
                tuple(scale / 100.0 for scale in _BONUSES),
            ),
        }
        for name, (method, tried) in methods.items():

            def regrets(scales, seed, method=method, locks=locks):
                return _regrets(method, locks(seed), scales, episodes, seed).sum(-1)

            chosen = tune(tried, regrets, seed=seed).value
            lost[name].append(regrets((chosen,), seed)[0])
            scales[name].append(chosen)
    many = int(np.argmax(states))
    few = int(np.argmin(states))
    linear, tabular = lost["LSVI-UCB"], lost["UCBVI"]
    ratio = f"regret with {states[many]} states over that with {states[few]}"
    return Finding(
        (
            Criterion(
                f"LSVI-UCB: {ratio}", ratio_of_means(linear[many], linear[few]), at_most=1.25
            ),
            Criterion(f"UCBVI: {ratio}", ratio_of_means(tabular[many], tabular[few]), at_least=2.0),
            Criterion(
                f"{states[many]} states: regret of LSVI-UCB over that of UCBVI",
                ratio_of_means(linear[many], tabular[many]),
                at_most=0.5,
            ),
        ),
        {
            **{f"{name}: regret": [float(x.mean()) for x in each] for name, each in lost.items()},
            **{f"{name}: bonus_scale": each for name, each in scales.items()},
        },
        {name: (np.asarray(states), np.stack(each, axis=1)) for name, each in lost.items()},
        "states",
        f"regret of {episodes} episodes",
        "xy",
    )


def _stacked(given: Sequence[LinearProcess]) -> LinearProcess:
    return jax.tree.map(lambda *x: np.stack(x), *given)


def _regrets(
    method: Any, given: LinearProcess, scales: Sequence[float], episodes: int, seed: int
) -> np.ndarray:
    """Regret `[scale, instance, episode]` of every episode, on the same instances at each scale."""
    instances = given.weight.shape[0]
    repeated = jax.tree.map(lambda x: jnp.concatenate([x] * len(scales)), given)
    each = jnp.repeat(jnp.asarray(scales, jnp.float32), instances)
    method = jax.tree.map(lambda x: jnp.full(each.shape, x, jnp.float32), method)
    found = learn_instances(
        with_numbers(method, bonus_scale=each),
        repeated.process,
        _problems(repeated),
        regret_of(repeated.process),
        updates=episodes,
        key=jax.random.key(seed),
    )["regret"]
    return found[:, :-1].reshape(len(scales), instances, episodes)


def _problems(given: LinearProcess) -> Any:
    """What methods are told of each instance; sizes are shared."""
    process = given.process
    one = jax.tree.map(lambda x: x[0], process).problem()
    return dataclasses.replace(one, initial=process.initial, features=given.features)


_PAPER = "jin2020provably"

CLAIMS = (
    Claim(
        name="lsvi-ucb-regret-grows-like-a-root",
        statement=(
            "The regret of LSVI-UCB over K episodes is at most 2 ln(cK) / ln(cK/4) times that over "
            "K / 4, as a bound of √K ln K says, in locks and in random linear processes; in locks "
            "without the bonus it grows faster than that."
        ),
        methods=("LSVIUCB",),
        paper=_PAPER,
        where="consequence of Theorem 3.1, at a practical scale of the bonus",
        scales={
            "smoke": {
                "instances": 4,
                "states": 6,
                "actions": 3,
                "horizon": 3,
                "features": 3,
                "episodes": 400,
            },
            "small": {
                "instances": 10,
                "states": 20,
                "actions": 4,
                "horizon": 5,
                "features": 5,
                "episodes": 4000,
            },
        },
        experiment=growth_of_regret,
        learned=(
            "With the bonus nothing is lost in locks after the first quarter, and the ratio in "
            "random processes is 1.5 of the 2.2 that are allowed. Without it the ratio in locks is "
            "3.0, but its interval over ten locks begins at 2.1, since some are opened without it, "
            "too. In random processes regret without a bonus is half as much again as with one, "
            "and flattens as well."
        ),
    ),
    Claim(
        name="lsvi-ucb-does-not-see-the-number-of-states",
        statement=(
            "In locks with four features, the regret of LSVI-UCB with the largest number of states "
            "is at most 1.25 times that with the smallest, while UCBVI's is at least doubled and "
            "more than twice LSVI-UCB's."
        ),
        methods=("LSVIUCB", "UCBVI"),
        paper=_PAPER,
        where="consequence of Theorem 3.1: the bound knows the dimension, not the states",
        scales={
            "smoke": {
                "instances": 10,
                "states": (6, 24),
                "actions": 3,
                "horizon": 3,
                "features": 4,
                "episodes": 300,
            },
            "small": {
                "instances": 40,
                "states": (8, 16, 32, 64),
                "actions": 3,
                "horizon": 4,
                "features": 4,
                "episodes": 1000,
            },
        },
        experiment=number_of_states,
        learned=(
            "Regret with features is 13 to 15 from 8 to 64 states, while UCBVI's grows from 40 to "
            "321. But it is so small, and so different from lock to lock, that the ratio of 1.16 "
            "has an interval from 0.85 to 1.60."
        ),
    ),
)
