"""Rules that know how long there is to learn, and how they have to be found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod
from headwater.evaluation.meta.lifetimes import lifetimes
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.meta.lpg import LPG
from headwater.methods.meta.lpo import LPO
from headwater.methods.meta.ta_lpg import TALPG
from headwater.networks.meta.drift import Drift
from headwater.runs.learn import learn
from headwater.sources.meta.tasks import DrawnTasks

_ARMS = 20
_AGENT = {"episodes_per_update": 4, "agent_learning_rate": 5.0}
_RULE = {**_AGENT, "prediction_learning_rate": 1.0, "num_predictions": 4, "recurrent_size": 16}


def _bandit(key: jax.Array) -> FiniteProcess:
    """Arms whose means are uniform, as a process of one step."""
    means = jax.random.uniform(key, (1, 1, _ARMS))
    return FiniteProcess(jnp.ones((*means.shape, 1)), means, jnp.ones(1), noisy=True)


def _pair(
    method: AbstractMethod, seed: int, meta_seeds: int, tasks: int, updates: int, ages, tests: int
):
    """What is learned if the rule knows the lifetime, and if not.

    **Returns:** for both, the rules, and return and entropy at the end of agents that learn by them
    in new tasks, `[meta seed, age]`.
    """
    problem = FiniteProblem(1, _ARMS, 1, tasks=tasks)

    def one(scale: jax.Array, key: jax.Array):
        own = eqx.tree_at(lambda m: m.lifetime_scale, method, scale)
        learn_key, task_key, agent_key = jax.random.split(key, 3)
        source = DrawnTasks(_bandit, tasks)
        state = learn(own, problem, source, updates, key=learn_key).state
        new = jax.vmap(_bandit)(jax.random.split(task_key, tests))
        found = [lifetimes(own, state, new, age, key=agent_key) for age in ages]
        ends = [(jnp.mean(one.returns[:, -1]), jnp.mean(one.entropy[:, -1])) for one in found]
        returns, entropy = (jnp.stack(column) for column in zip(*ends))
        return state.rule, returns, entropy

    # The same random numbers for both kinds, one after the other in one program.
    keys = jax.random.split(jax.random.key(seed), meta_seeds)
    scales = jnp.repeat(jnp.asarray([1.0, 0.0]), meta_seeds)
    both = eqx.filter_jit(lambda scales, keys: jax.lax.map(lambda x: one(*x), (scales, keys)))
    found = both(scales, jnp.concatenate([keys, keys]))
    return tuple(
        jax.tree.map(lambda x, rows=rows: np.asarray(x[rows], np.float64), found)
        for rows in (slice(0, meta_seeds), slice(meta_seeds, None))
    )


def _schedules(
    seed: int,
    *,
    meta_seeds: int,
    tasks: int,
    updates: int,
    gradient_updates: int,
    ages: tuple[int, ...],
    tests: int,
) -> Finding:
    sizes = {"meta_seeds": meta_seeds, "tasks": tasks, "ages": ages, "tests": tests}
    evolved = _pair(TALPG(**_RULE), seed, updates=updates, **sizes)
    (_, known, known_entropy), (_, unknown, unknown_entropy) = evolved
    gain = known / unknown - 1.0
    criteria = [
        Criterion(
            f"final return in {age} updates, with the lifetime known over without, less 1",
            mean_of(gain[:, i]),
            at_least=0.05,
        )
        for i, age in enumerate(ages)
    ]
    less = known_entropy[:, 0] - unknown_entropy[:, 0]
    what = f"final entropy in {ages[0]} updates, with the lifetime known less without, nats"
    criteria.append(Criterion(what, mean_of(less), at_most=0.0))
    numbers = {
        "final return": {
            f"{age} updates, {name}": mean_of(found[:, i])
            for i, age in enumerate(ages)
            for name, found in (("known", known), ("unknown", unknown))
        }
    }
    # To compile the gradients as well would make the smallest scale slow.
    if gradient_updates:
        steep = LPG(**_RULE, learning_rate=0.01)
        by_gradient = _pair(steep, seed, updates=gradient_updates, **sizes)
        other = by_gradient[0][1] / by_gradient[1][1] - 1.0
        rest = np.mean(other, axis=1) - 0.5 * np.mean(gain, axis=1)
        what = "gain by knowing the lifetime: of gradients, less half of that of evolution"
        criteria.append(Criterion(what, mean_of(rest), at_most=0.0))
        numbers["final return by gradients"] = {
            f"{age} updates, {name}": mean_of(found[1][:, i])
            for i, age in enumerate(ages)
            for name, found in zip(("known", "unknown"), by_gradient)
        }
    return Finding(tuple(criteria), numbers)


def _later_over_earlier(rule: Drift) -> np.ndarray:
    """The share of a grid on which the drift is larger late than early, by meta seed."""
    ratio, advantage = jnp.meshgrid(jnp.linspace(1.25, 2.0, 16), jnp.linspace(0.1, 2.0, 20))

    def share(rule: Drift):
        rule = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rule)
        early, late = (rule(ratio, advantage, jnp.asarray(passed)) for passed in (0.1, 0.9))
        return jnp.mean((late > early).astype(jnp.float32))

    return np.asarray(jax.vmap(share)(rule), np.float64)


def _drifts(
    seed: int, *, meta_seeds: int, tasks: int, updates: int, ages: tuple[int, ...], tests: int
) -> Finding:
    sizes = {"meta_seeds": meta_seeds, "tasks": tasks, "ages": ages, "tests": tests}
    method = LPO(**_AGENT, drift_size=16, learning_rate=0.003)
    (rules, known, _), (_, unknown, _) = _pair(method, seed, updates=updates, **sizes)
    criteria = [
        Criterion(
            f"final return in {age} updates, with the lifetime known less without",
            mean_of(known[:, i] - unknown[:, i]),
            at_least=0.0,
        )
        for i, age in enumerate(ages)
    ]
    share = mean_of(_later_over_earlier(rules))
    what = "share of ratios above 1.2 and advantages above 0 where the drift rises in the lifetime"
    criteria.append(Criterion(what, share, at_least=0.8))
    numbers = {
        f"final return in {age} updates": {
            "known": mean_of(known[:, i]), "unknown": mean_of(unknown[:, i]),
        }
        for i, age in enumerate(ages)
    }  # fmt: skip
    return Finding(tuple(criteria), numbers)


_TINY = {"meta_seeds": 2, "tasks": 2, "updates": 2, "ages": (2,), "tests": 2}
_SMALL = {"meta_seeds": 3, "tasks": 32, "updates": 200, "ages": (20, 250), "tests": 128}

CLAIMS = (
    Claim(
        "rules-that-know-their-lifetime-end-better",
        "Of update rules evolved over bandits of 20 arms and lifetimes of 10 to 250 updates, those "
        "that are told the lifetime end with at least 5 % more return, after 20 updates and after "
        "250, and after 20 with less entropy; found by gradients through five updates instead, "
        "rules gain less than half as much by it. Nothing is tuned; three rules of each kind are "
        "few for gains below 5 %.",
        ("TALPG", "LPG"),
        "jackson2024discovering",
        "a consequence of its figures on schedules, on the smallest tasks that need one",
        {"smoke": {**_TINY, "gradient_updates": 0}, "small": {**_SMALL, "gradient_updates": 600}},
        _schedules,
        learned="With seeds 0 to 2 rules that know the lifetime end 3.5 [1.6, 6.2], 2.1 [0.9, 3.6] "
        "and 5.8 [1.4, 8.4] % higher after 250 updates, none surely 5 %, and no higher after 20, "
        "where entropy is lower with seed 1 alone. Rules found by gradients gain nothing by it, "
        "and what learns by them returns more after 250: 0.91 to 0.93 against 0.84 to 0.90.",
    ),
    Claim(
        "drifts-that-know-the-lifetime-rise-in-it",
        "On the same bandits, policies that are optimised with an evolved drift end no lower if "
        "the drift depends on the share of the lifetime that has passed, after 20 updates and "
        "after 250; and late in the lifetime, drifting towards what is better than expected costs "
        "more than early. Nothing is tuned.",
        ("LPO",),
        "jackson2024discovering",
        "its section on TA-LPO: optimistic updates early, conservative ones late",
        {"smoke": _TINY, "small": _SMALL},
        _drifts,
        learned="After 20 updates the return of drifts that know the share is 0.010 [0.002, 0.017] "
        "lower with seed 0, 0.008 [0.004, 0.012] higher with seed 1, and nothing can be told with "
        "seed 2, nor with any after 250. Their drift rises in the lifetime on 0.44, 0.00 and 0.58 "
        "of the grid, whose intervals with seeds 0 and 2 reach from 0.3 and less to 1.",
    ),
)
