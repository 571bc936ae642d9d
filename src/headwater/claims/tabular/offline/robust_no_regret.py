"""Robust planning by no-regret play: how near it comes, and what it is worth from a log."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.instances import stacked
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of, ratio_of_means
from headwater.methods.tabular.offline.pessimistic_value_iteration import PessimisticValueIteration
from headwater.methods.tabular.offline.robust_no_regret import RobustNoRegret
from headwater.ops.tabular.planning import (
    expected_return,
    optimal_values,
    robust_values,
    uniform_policy,
)
from headwater.ops.tabular.robust import (
    AbstractUncertainty,
    Directions,
    RowBalls,
    no_regret_dynamics,
    worst_transition,
)
from headwater.runs.learn import learn
from headwater.sources.episodes import WholeLog, log_episodes

_RATES = {"policy_rate": 100.0, "environment_rate": 3.0}
"""Chosen on other instances."""


def _worst_return(process: FiniteProcess, policy: Any, radius: Any) -> Any:
    """What `policy` earns in the worst transitions within `radius` of those of the process."""
    worst = worst_transition(process.reward, policy, RowBalls(process.transition, radius))
    return expected_return(FiniteProcess(worst, process.reward, process.initial), policy)


def _random_processes(seed: int, instances: int, concentration: float, **sizes: int) -> Any:
    keys = jax.random.split(jax.random.key(seed), instances)
    return stacked(
        [
            random_process(concentration=concentration, stationary=True, key=key, **sizes)
            for key in keys
        ]
    )


def _finding(
    gaps: np.ndarray, nominal: np.ndarray, *, first: int, criteria: tuple[Criterion, ...]
) -> Finding:
    """From `gaps[instance, iteration]` of the mixture so far and those of the nominal policy."""
    iterations = gaps.shape[1]
    matters = nominal > 0.05
    better = np.where(matters, gaps[:, -1] < nominal, True)
    slope = np.log(gaps[:, -1].mean() / gaps[:, first - 1].mean()) / np.log(iterations / first)
    return Finding(
        (
            *criteria,
            Criterion(
                f"exponent of the mean gap between {first} and {iterations} iterations",
                exactly(slope),
                at_most=-0.5,
            ),
            Criterion(
                "share of instances where the nominal policy loses 0.05 and the mixture less",
                exactly(better.mean()),
                at_least=1.0,
            ),
        ),
        {
            "instances where the nominal policy loses 0.05": int(matters.sum()),
            "gap of the mixture": gaps[:, -1].tolist(),
            "gap of the nominal policy": nominal.tolist(),
        },
        {
            "mixture": (np.arange(1, iterations + 1), gaps),
            "nominal policy": (
                np.arange(1, iterations + 1),
                np.broadcast_to(nominal[:, None], gaps.shape),
            ),
        },
        "iterations",
        "worst-case return that is missing",
        "xy",
    )


def independent_rows(
    *,
    seed: int,
    instances: int,
    states: int,
    actions: int,
    horizon: int,
    radius: float,
    iterations: int,
    first: int,
) -> Finding:
    """Half of the rows of a random process may move, and each may on its own."""
    processes = _random_processes(
        seed, instances, 1.0, states=states, actions=actions, horizon=horizon
    )
    pairs = states * actions
    random = np.random.default_rng(seed)
    free = np.stack([random.permutation(pairs) < pairs // 2 for _ in range(instances)])
    radii = radius * free.reshape(instances, 1, states, actions).astype(np.float32)

    @jax.jit
    @jax.vmap
    def play(process, near):
        near = jnp.broadcast_to(near, process.reward.shape)
        played = no_regret_dynamics(
            process, RowBalls(process.transition, near), iterations=iterations, **_RATES
        )
        best = jnp.dot(process.initial, robust_values(process, near).value[0])
        nominal = _worst_return(process, optimal_values(process).policy, near)
        return best - played.value, best - nominal

    gaps, nominal = (np.asarray(x, np.float64) for x in play(processes, jnp.asarray(radii)))
    # A mixture is worth at least the mean of the worst cases of its policies.
    gaps = np.cumsum(gaps, axis=1) / np.arange(1, iterations + 1)
    largest = exactly(gaps[:, -1].max())
    criterion = Criterion(f"largest gap after {iterations} iterations", largest, at_most=0.02)
    return _finding(gaps, nominal, first=first, criteria=(criterion,))


class _LookedUp(AbstractUncertainty):
    """Rows that move together, by an environment that looks up the worst of some places."""

    around: Directions
    places: Float[Array, "place direction"]

    def begin(self) -> Any:
        return self.around.begin()

    def transition(self, place: Any) -> Any:
        return self.around.transition(place)

    def respond(self, place: Any, process: FiniteProcess, policy: Any, rate: Any) -> Any:
        return self.places[jnp.argmin(self.worth(process, policy))]

    def worth(self, process: FiniteProcess, policy: Any) -> Any:
        """What a policy earns at each of the places."""

        def one(place):
            met = FiniteProcess(self.transition(place), process.reward, process.initial)
            return expected_return(met, policy)

        return jax.lax.map(one, self.places)


def _moving_together(random: np.random.Generator, states: int, actions: int, horizon: int):
    """A process, and two directions: each moves the rows of a third of the pairs together."""
    group = random.integers(0, 3, (states, actions))
    ends = random.dirichlet(np.full(states, 0.2), (2, states, actions))
    half = (ends[0] - ends[1]) / 2.0
    moves = np.stack([np.where((group == j)[..., None], half, 0.0) for j in (1, 2)])
    moves = np.repeat(moves[:, None], horizon, axis=1).astype(np.float32)
    reward = np.repeat(random.uniform(size=(states, 1)), actions, axis=1)
    start = np.full(states, 1.0 / states)
    process = FiniteProcess.from_arrays(ends.mean(0), reward, start, horizon=horizon)
    return process, jnp.asarray(moves)


def rows_together(
    *,
    seed: int,
    instances: int,
    states: int,
    actions: int,
    horizon: int,
    iterations: int,
    first: int,
    angles: int,
    lengths: int,
) -> Finding:
    """Rows move together along two directions; worst cases are looked up on a grid of the disc."""
    random = np.random.default_rng(seed)
    made = [_moving_together(random, states, actions, horizon) for _ in range(instances)]
    processes, directions = stacked([x for x, _ in made]), stacked([x for _, x in made])
    angle = 2.0 * np.pi * np.arange(angles) / angles
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    disc = np.concatenate([length * ring for length in np.linspace(0.0, 1.0, lengths + 1)[1:]])
    grid = jnp.asarray(np.concatenate([np.zeros((1, 2)), disc]), jnp.float32)

    @jax.jit
    @jax.vmap
    def play(process, directions):
        around = Directions(process.transition, directions, jnp.asarray(1.0))
        known = _LookedUp(around, grid)

        def best(place):
            met = FiniteProcess(around.transition(place), process.reward, process.initial)
            return jnp.dot(process.initial, optimal_values(met).value[0])

        # No policy, and no mixture, is worth more in the worst case.
        most = jnp.min(jax.lax.map(best, grid))
        nominal = jnp.min(known.worth(process, optimal_values(process).policy))

        def mixture(uncertainty):
            played = no_regret_dynamics(process, uncertainty, iterations=iterations, **_RATES)
            worth = jax.lax.map(lambda policy: known.worth(process, policy), played.policies)
            each = jnp.cumsum(worth, axis=0) / jnp.arange(1.0, iterations + 1.0)[:, None]
            return jnp.min(each, axis=-1), jnp.mean(played.value)

        worst, met = mixture(around)
        return (
            most - worst,
            most - nominal,
            met - worst[-1],
            most - mixture(known)[0][-1],
        )

    gaps, nominal, regret, looked_up = (
        np.asarray(x, np.float64) for x in play(processes, directions)
    )
    criterion = Criterion(
        f"mean gap after {iterations} iterations", mean_of(gaps[:, -1]), at_most=0.05
    )
    finding = _finding(gaps, nominal, first=first, criteria=(criterion,))
    numbers = {
        "regret of the environment, per iteration": float(regret.mean()),
        "mean gap if the environment looks up the worst of the grid": float(looked_up.mean()),
    }
    return dataclasses.replace(finding, numbers={**finding.numbers, **numbers})


def from_a_log(
    *,
    seed: int,
    instances: int,
    states: int,
    actions: int,
    horizon: int,
    episodes: int,
    radius: float,
) -> Finding:
    """From uniform logs: what robust and nominal plans lose where the process has moved."""
    processes = _random_processes(
        seed, instances, 0.3, states=states, actions=actions, horizon=horizon
    )
    keys = jax.random.split(jax.random.key(seed + 1), instances)
    methods = {
        "robust": RobustNoRegret(radius=radius),
        "nominal": PessimisticValueIteration(penalty_scale=0.0),
    }
    worst, same = {}, {}
    for name, method in methods.items():

        def one(process, key, method=method):
            data = log_episodes(process, uniform_policy(process), episodes=episodes, key=key)
            state = learn(method, process.problem(), WholeLog(data), 1, key=key).state
            policy = method.policy(state, explore=False)
            near = jnp.full(process.reward.shape, radius)
            best = jnp.dot(process.initial, robust_values(process, near).value[0])
            unmoved = jnp.dot(process.initial, optimal_values(process).value[0])
            return (
                best - _worst_return(process, policy, near),
                unmoved - expected_return(process, policy),
            )

        found = eqx.filter_jit(eqx.filter_vmap(one))(processes, keys)
        worst[name], same[name] = (np.asarray(x, np.float64) for x in found)
    return Finding(
        (
            Criterion(
                "worst-case return that is missing, robust over nominal plan",
                ratio_of_means(worst["robust"], worst["nominal"]),
                at_most=0.9,
            ),
        ),
        {
            "missing in the worst case": {name: float(x.mean()) for name, x in worst.items()},
            "missing where nothing moved": {name: float(x.mean()) for name, x in same.items()},
        },
    )


_SIZES = {"states": 8, "actions": 4, "horizon": 10}
_TINY = {"states": 4, "actions": 3, "horizon": 5}

CLAIMS = (
    Claim(
        name="no-regret-play-finds-robust-policies",
        statement="Where half of the rows of a random process may move by three quarters of their "
        "mass, the mixture of 400 rounds of no-regret play falls short of the best robust policy "
        "by at most 0.02 of a return of at most ten, by less than the nominal policy where that "
        "one loses 0.05, and at a rate of at least one over the square root of the rounds.",
        methods=("RobustNoRegret",),
        paper="guha2024solving",
        where="the rate for the direct parametrisation; the numbers are a reproduction's",
        scales={
            "smoke": {**_TINY, "instances": 3, "radius": 0.75, "iterations": 100, "first": 5},
            "small": {**_SIZES, "instances": 16, "radius": 0.75, "iterations": 400, "first": 10},
        },
        experiment=independent_rows,
    ),
    Claim(
        name="no-regret-play-finds-robust-policies-where-rows-move-together",
        statement="Where rows move together, so that no backward induction finds the worst, the "
        "mixture of 400 rounds is within 0.05, in the mean, of a bound that no policy exceeds, "
        "and loses less than the nominal policy wherever that one loses 0.05.",
        methods=("RobustNoRegret",),
        paper="guha2024solving",
        where="convex uncertainty sets that are not rectangular; the numbers are ours",
        scales={
            "smoke": {
                **_TINY,
                "instances": 3,
                "iterations": 100,
                "first": 5,
                "angles": 12,
                "lengths": 2,
            },
            "small": {
                **_SIZES,
                "instances": 12,
                "iterations": 400,
                "first": 10,
                "angles": 48,
                "lengths": 5,
            },
        },
        experiment=rows_together,
        learned="It fails: the mixture misses 0.03 to 0.08 of the bound and nears it too slowly. "
        "Most of that, 0.02 to 0.07 an iteration, is the environment's own regret: its gradient "
        "steps end in local minima, which sets of rows that move together have. An environment "
        "that looks up the worst of a grid instead halves what is missing, to 0.02 to 0.03; what "
        "is left is the policy's local maxima, or a bound that no policy reaches.",
    ),
    Claim(
        name="robust-plans-from-logs-lose-less-when-the-process-moves",
        statement="Planned from 500 logged episodes of a process whose rows may all have moved by "
        "0.3 since, a robust policy misses at most 0.9 of the worst-case return that the plan for "
        "the logged process misses.",
        methods=("RobustNoRegret", "PessimisticValueIteration"),
        paper="guha2024solving",
        where="a consequence, and our experiment",
        scales={
            "smoke": {**_TINY, "instances": 8, "episodes": 200, "radius": 0.3},
            "small": {**_SIZES, "instances": 64, "episodes": 500, "radius": 0.3},
        },
        experiment=from_a_log,
    ),
)
