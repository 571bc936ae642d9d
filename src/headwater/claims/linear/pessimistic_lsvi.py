"""Claims of pessimistic value iteration on logs of linear processes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.linear.linear import LinearProcess, random_linear_process
from headwater.evaluation.exact import best_return
from headwater.evaluation.statistics import frequency
from headwater.evaluation.tuning import choose, held_out_seed
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.linear.pessimistic_lsvi import PEVI
from headwater.ops.tabular.planning import expected_return, occupancy, optimal_values
from headwater.runs.learn import learn
from headwater.sources.episodes import WholeLog, log_episodes


def narrow_logs(
    *,
    seed: int,
    instances: int,
    logs: Sequence[int],
    penalties: Sequence[float],
    ridges: Sequence[float],
    followed: float,
    states: int,
    actions: int,
    horizon: int,
    features: int,
) -> Finding:
    """PEVI and greedy least squares on logs that follow an optimal policy some of the time.

    PEVI takes the best of `penalties`, greedy the best λ of `ridges`, at each size of the log: what
    is best in other processes.
    """
    pessimistic = [PEVI(penalty_scale=scale) for scale in (*penalties, 1.0)]
    greedy = [PEVI(penalty_scale=0.0, ridge=ridge) for ridge in ridges]
    settings = jax.tree.map(lambda *x: jnp.asarray(x, jnp.float32), *pessimistic, *greedy)

    def measure(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Shortfalls and bounds `[setting, instance]`, for each size of the log."""
        key = jax.random.key(seed)
        made = [
            random_linear_process(
                states=states,
                actions=actions,
                horizon=horizon,
                features=features,
                noisy=True,
                key=jax.random.fold_in(key, i),
            )
            for i in range(instances)
        ]
        given = jax.tree.map(lambda *x: np.stack(x), *made)
        keys = jax.random.split(key, instances)
        found = [_read(given, settings, followed, episodes, keys) for episodes in logs]
        lost, bounds = ([np.asarray(x[i], np.float64).T for x in found] for i in (0, 1))
        return lost, bounds

    lost, bounds = measure(seed)
    tuned = measure(held_out_seed(seed))[0]
    best = [choose(each[: len(penalties)]) for each in tuned]
    plain = [len(pessimistic) + choose(each[len(pessimistic) :]) for each in tuned]
    # Counted at the practical scales in use, where the theorem promises nothing yet.
    within = [lost[i][best[i]] <= bounds[i][best[i]] for i in range(len(logs))]
    theory = [lost[i][len(penalties)] <= bounds[i][len(penalties)] for i in range(len(logs))]
    criteria = [
        Criterion(
            f"{episodes} episodes: greedy's suboptimality gap less PEVI's",
            mean_of(lost[i][plain[i]] - lost[i][best[i]]),
            at_least=0.0,
        )
        for i, episodes in enumerate(logs)
    ]
    held, total = int(np.sum(within)), int(np.size(within))
    criteria.append(
        Criterion(
            "share of logs where PEVI's suboptimality gap is at most 2 E*[Γ]",
            frequency(held, total),
            at_least=0.9,
        )
    )
    curves = {
        "PEVI": np.stack([lost[i][best[i]] for i in range(len(logs))], axis=1),
        "greedy": np.stack([lost[i][plain[i]] for i in range(len(logs))], axis=1),
        "the bound, 2 E*[Γ]": np.stack([bounds[i][best[i]] for i in range(len(logs))], axis=1),
    }
    return Finding(
        tuple(criteria),
        {
            "penalty_scale": [penalties[i] for i in best],
            "greedy's ridge": [ridges[i - len(pessimistic)] for i in plain],
            "suboptimality gap of PEVI": [float(x) for x in curves["PEVI"].mean(0)],
            "suboptimality gap of greedy": [float(x) for x in curves["greedy"].mean(0)],
            "bound": [float(x) for x in curves["the bound, 2 E*[Γ]"].mean(0)],
            "suboptimality gap of PEVI at the theorem's scale": [
                float(each[len(penalties)].mean()) for each in lost
            ],
            "share within the bound at the theorem's scale": float(np.mean(theory)),
        },
        {label: (np.asarray(logs), each) for label, each in curves.items()},
        "episodes in the log",
        "suboptimality gap in expected return",
        "xy",
    )


@eqx.filter_jit
def _read(given: LinearProcess, settings: PEVI, followed: float, episodes: int, keys: Any):
    """Shortfalls and bounds `[instance, setting]` on one log of each instance."""

    def one(given, key):
        process = given.process
        plan = optimal_values(process)
        behaviour = followed * plan.policy + (1.0 - followed) / process.actions
        data = log_episodes(process, behaviour, episodes=episodes, key=key)
        problem = dataclasses.replace(process.problem(), features=given.features)
        visited, best = occupancy(process, plan.policy), best_return(process)

        def read(method):
            state = learn(method, problem, WholeLog(data), 1, key=key).state
            value = expected_return(process, method.policy(state, explore=False))
            return best - value, 2.0 * jnp.sum(visited * state.penalty)

        return jax.lax.map(read, settings)

    return jax.vmap(one)(given, keys)


_PAPER = "jin2021pessimism"
_SMOKE = {
    "instances": 40,
    "logs": (10, 40),
    "penalties": (0.001, 0.003, 0.01),
    "followed": 0.5,
    "states": 6,
    "actions": 6,
    "horizon": 3,
    "features": 5,
}
_SMALL = {
    "instances": 200,
    "logs": (10, 30, 100, 300),
    "penalties": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "followed": 0.5,
    "states": 20,
    "actions": 10,
    "horizon": 5,
    "features": 10,
}

CLAIMS = (
    Claim(
        name="pevi-beats-greedy-on-narrow-logs",
        statement=(
            "On logs that follow an optimal policy half of the time, PEVI falls short by at most "
            "2 E*[Γ] in nine logs of ten, and by less than the same regression without a penalty."
        ),
        methods=("PEVI",),
        paper=_PAPER,
        where="Theorem 4.4 and Section 3, at a practical scale of the penalty",
        scales={
            "smoke": {**_SMOKE, "ridges": (1.0,)},
            "small": {**_SMALL, "ridges": (1.0,)},
        },
        experiment=narrow_logs,
        learned=(
            "The penalty that earns most is 300 to 3,000 times below the theorem's, which promises "
            "nothing there. From 30 episodes on, 2 E*[Γ] is 3 to 11 times the suboptimality gap; "
            "with ten, where seeds 0 to 2 all choose the smallest penalty, it is 0.21 and the gap "
            "0.31, so that the bound holds in four logs of five over all sizes. At the theorem's "
            "own scale it held in every log and says nothing, and PEVI falls short by the same "
            "1.0 whatever the log. With ten episodes the penalty gains 0.002 of the gap, too "
            "little to tell from nothing; with 100 and more it gains 0.015 to 0.018."
        ),
    ),
    Claim(
        name="pevi-beats-tuned-ridge-regression",
        statement=(
            "The same, and by less than greedy ridge regression whose λ is tuned as PEVI's penalty "
            "is."
        ),
        methods=("PEVI",),
        paper=_PAPER,
        where="none: the same claim with a stronger baseline",
        scales={
            "smoke": {**_SMOKE, "ridges": (1.0, 10.0)},
            "small": {**_SMALL, "ridges": (0.1, 1.0, 10.0, 100.0)},
        },
        experiment=narrow_logs,
        learned=(
            "It fails at every size of the log: with λ = 10 greedy regression falls short by 0.007 "
            "less with ten episodes and by 0.02 to 0.03 less with more. Rewards are not negative, "
            "so a large λ shrinks what was seen seldom towards the lowest return there is, and is "
            "pessimism by itself."
        ),
    ),
)
