"""Claims of OLIVE: that it finds the best policy, what that costs, and what it does without."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProcess
from headwater.core.hypotheses import ValueClass
from headwater.core.method import Agent
from headwater.environments.tabular.finite import noisy_lock
from headwater.evaluation.exact import best_return
from headwater.evaluation.instances import ExactReturn, first_time, learn_instances, stacked
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, ratio_of_means
from headwater.methods.tabular.online.m_golf import MGOLF
from headwater.methods.tabular.online.olive import FINISHED, OLIVE
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.parts.value_class import value_class_of


class _Stopped(eqx.Module):
    """Measures the exact return, whether OLIVE has stopped, and whether the truth is alive."""

    process: FiniteProcess
    index: Any

    def __call__(self, agent: Agent) -> dict[str, Any]:
        return {
            "return": expected_return(self.process, agent.policy(explore=False)),
            "finished": (agent.state.phase == FINISHED).astype(jnp.float32),
            "alive": agent.state.alive[self.index].astype(jnp.float32),
        }


def locks_of_many_codes(
    *, seed: int, instances: int, horizon: int, actions: int, models: int, episodes: int, golf: int
) -> Finding:
    """OLIVE and GOLF among the values of many noisy locks, of which GOLF knows all backups."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, actions, (models, horizon))
    locks = [noisy_lock(code, actions) for code in codes]
    truth = generator.choice(models, instances, replace=False)
    process = stacked([locks[i] for i in truth])
    one = value_class_of(stacked(locks), locks[0].problem())
    best = np.asarray(jax.vmap(best_return)(process), np.float64)
    method = OLIVE()
    found = learn_instances(
        method,
        process,
        stacked([ValueClass(one.problem, one.candidates)] * instances),
        _Stopped(process, jnp.asarray(truth, jnp.int32)),
        updates=episodes // method.episodes_per_update,
        key=jax.random.key(seed),
    )
    stopped = found["finished"] > 0.5
    spent = np.where(stopped.any(1), stopped.argmax(1) * method.episodes_per_update, np.inf)
    share = found["return"][:, -1] / best

    rival = MGOLF(memory_length=0, num_episodes=float(golf))
    returns = learn_instances(
        MGOLF(
            memory_length=0,
            num_episodes=float(golf),
            radius_scale=3.0 / float(rival.radius(one)),
        ),
        process,
        stacked([one] * instances),
        ExactReturn(process),
        updates=golf,
        key=jax.random.key(seed),
    )["return"]
    needed = first_time(returns, 0.9 * best, 20)
    needed = np.where(np.isnan(needed), golf, needed)
    return Finding(
        (
            Criterion(
                "share of the best return where OLIVE stopped, least of all instances",
                exactly(np.where(np.isfinite(spent), share, 0.0).min()),
                at_least=0.9,
            ),
            Criterion(
                "episodes of OLIVE over those of GOLF with β = 3",
                ratio_of_means(np.where(np.isfinite(spent), spent, episodes), needed),
                at_least=5.0,
            ),
        ),
        {
            "episodes of OLIVE": [x if np.isfinite(x) else None for x in spent.tolist()],
            "episodes of GOLF": needed.tolist(),
            "share of instances that kept the truth": float(found["alive"][:, -1].mean()),
        },
        {
            "OLIVE": (
                np.arange(found["return"].shape[1]) * method.episodes_per_update,
                found["return"] / best[:, None],
            ),
            "GOLF": (np.arange(golf + 1), returns / best[:, None]),
        },
        "episodes",
        "share of the best return",
        "x",
    )


def _two_roads(generator: np.random.Generator, false: int) -> tuple[FiniteProcess, ValueClass]:
    """Two roads, one of which is worth little, and functions that promise much of both.

    Episodes start on either road (states 0 and 1) and go on to its end (2 and 3), where road 0 has
    nothing more and road 1 pays for action 1. The false functions know nothing of that payment and
    never try it; they promise the same on both roads. The truth fits their targets worse than they
    do themselves, since it knows what road 1 is worth, so that no function of the class
    contradicts them; their average error shows at once.
    """
    little, payment = generator.uniform(0.05, 0.1), generator.uniform(0.9, 1.0)
    transition = np.zeros((2, 4, 2, 4))
    transition[0, (0, 2), :, 2] = transition[0, (1, 3), :, 3] = 1.0
    transition[1] = transition[0]
    reward = np.zeros((2, 4, 2))
    reward[0, 0, 0], reward[1, 3, 1] = little, payment
    process = FiniteProcess.from_arrays(transition, reward, (0.5, 0.5, 0.0, 0.0), noisy=True)
    best = float(best_return(process))
    candidates = np.repeat(np.asarray(optimal_values(process).action_value)[None], false + 1, 0)
    for function in candidates[1:]:
        # Above what the truth promises, so that optimism prefers it.
        function[0, :2] = generator.uniform(best + 0.02, best + 0.08)
        function[0, 0, 0] -= 0.01
        function[1, 3, 1] = -0.01
    return process, ValueClass.from_arrays(process.problem(), candidates)


def without_the_backups(*, seed: int, instances: int, false: int, episodes: int) -> Finding:
    """Functions whose backups are not in the class: GOLF with the class alone, and OLIVE."""
    generator = np.random.default_rng(seed)
    made = [_two_roads(generator, false) for _ in range(instances)]
    process, classes = stacked([x for x, _ in made]), stacked([x for _, x in made])
    best = np.asarray(jax.vmap(best_return)(process), np.float64)
    alone = jax.vmap(lambda one: ValueClass(one.problem, one.candidates, one.candidates))(classes)
    golf = MGOLF(memory_length=0, num_episodes=float(episodes))
    radius = 3.0 / float(golf.radius(jax.tree.map(lambda x: x[0], alone)))
    golf = MGOLF(memory_length=0, num_episodes=float(episodes), radius_scale=radius)
    olive = OLIVE(elimination_threshold=0.15)
    curves, kept = {}, {}
    for name, method, given, each in (
        ("OLIVE", olive, classes, olive.episodes_per_update),
        ("GOLF, the class alone", golf, alone, 1),
        ("GOLF, all backups", golf, classes, 1),
    ):
        found = learn_instances(
            method,
            process,
            given,
            _Kept(process),
            updates=episodes // each,
            key=jax.random.key(seed),
        )
        share = found["return"] / best[:, None]
        curves[name] = (np.arange(share.shape[1]) * each, share)
        kept[name] = found["alive"][:, -1]
    last = {name: share[:, -1] for name, (_, share) in curves.items()}
    return Finding(
        (
            Criterion(
                "share of the best return, OLIVE, least of all instances",
                exactly(last["OLIVE"].min()),
                at_least=0.9,
            ),
            Criterion(
                "share of the best return, GOLF with all backups, least of all instances",
                exactly(last["GOLF, all backups"].min()),
                at_least=0.9,
            ),
            Criterion(
                "share of the best return, GOLF with the class alone, highest of all instances",
                exactly(last["GOLF, the class alone"].max()),
                at_most=0.5,
            ),
            Criterion(
                "share of instances in which each of them kept the truth",
                exactly(min(x.min() for x in kept.values())),
                at_least=1.0,
            ),
        ),
        {name: x.tolist() for name, x in last.items()},
        curves,
        "episodes",
        "share of the best return",
        "x",
    )


class _Kept(eqx.Module):
    """Measures the exact return, and whether the first candidate, the truth, is alive."""

    process: FiniteProcess

    def __call__(self, agent: Agent) -> dict[str, Any]:
        worth = expected_return(self.process, agent.policy(explore=False))
        return {"return": worth, "alive": agent.state.alive[0].astype(jnp.float32)}


CLAIMS = (
    Claim(
        name="olive-opens-a-noisy-lock",
        statement="With its defaults OLIVE stops at a policy of at least 0.9 of the best return in "
        "every one of sixteen noisy locks among 200 codes, after five times the episodes of GOLF "
        "(β = 3) or more.",
        methods=("OLIVE", "MGOLF"),
        paper="jiang2017contextual",
        where="a consequence of Theorem 1; the episodes are a reproduction's",
        scales={
            "smoke": {
                "instances": 3,
                "horizon": 4,
                "actions": 3,
                "models": 20,
                "episodes": 2000,
                "golf": 100,
            },
            "small": {
                "instances": 16,
                "horizon": 6,
                "actions": 4,
                "models": 200,
                "episodes": 4000,
                "golf": 400,
            },
        },
        experiment=locks_of_many_codes,
    ),
    Claim(
        name="olive-needs-no-backups",
        statement="Where the class holds the truth but not the backups of its false functions, "
        "OLIVE reaches 0.9 of the best return in every instance, and GOLF, given the class alone, "
        "half of it in none, though it keeps the truth: it cannot drop the false functions.",
        methods=("OLIVE", "MGOLF"),
        paper="jiang2017contextual",
        where="a consequence: OLIVE assumes that the truth is in the class, GOLF completeness too",
        scales={
            "smoke": {"instances": 4, "false": 5, "episodes": 800},
            "small": {"instances": 32, "false": 20, "episodes": 2000},
        },
        experiment=without_the_backups,
    ),
)
