"""A few policies and a bandit among them, where observations are attacked now so and now so."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.problems.arms import Arms
from headwater.environments.attacked import Attacked, Bias, ValueAttack
from headwater.environments.bandits.bandit import AbstractBandit, no_context
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.interaction import episode_returns
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.methods.bandits.exp3 import EXP3
from headwater.methods.control.robust.protected import PROTECTED
from headwater.runs.learn import learn
from headwater.sources.collect import Collect
from headwater.sources.pulls import LivePulls

_TASK = Pendulum()
_RANDOM, _EXPERT = _TASK.reference_returns
_ATTACKS = ("none", "bias", "slope of the value")
_SETS = {
    "discovered": (1.0, 1e-3),
    "worst case": (0.0, 1e-3),
    "random attacks": (0.0, 0.0),
}
"""By `gap_weight` and `attack_learning_rate`."""
_RATE_SCALE = 5.0
"""Of EXP3, as in the authors' code, and the share of a rate that makes estimates cautious."""
_CAUTION = 0.5


class _Episodes(AbstractBandit):
    """Which policy acts in an episode: the rewards are those of every policy in that very one."""

    rewards: Float[Array, "round arm"]
    seed: int
    name: str = eqx.field(static=True, default="episodes")
    reference_returns: tuple[float, float] | None = eqx.field(static=True, default=None)

    # Written out, since the annotations of the base class are no arguments.
    def __init__(self, rewards: Float[Array, "round arm"]):
        self.rewards, self.seed = rewards, 0

    @property
    def problem(self) -> Arms:
        return Arms(self.rewards.shape[1])

    def reset(self) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    def show(self, state, *, key):
        return no_context(self.rewards.shape[1])

    def mean_reward(self, state, context, features):
        return self.rewards[state]

    def reward(self, mean, *, key):
        return mean

    def step(self, state, arm, *, key):
        return state + 1


@eqx.filter_jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0, 0, None, None))
def _trained(method: PROTECTED, weight, rate, key, updates: int, rows: int):
    """The sets of policies `[run]`."""
    method = with_numbers(method, gap_weight=weight, attack_learning_rate=rate)
    source = Collect(_TASK, updates + 1_000, rows, random_steps=1_000)
    return learn(method, _TASK.spaces, source, updates, key=key).state


@eqx.filter_jit
@functools.partial(jax.vmap, in_axes=(None, 0, None, 0, None))
def _scores(method: PROTECTED, state: Any, radius, key: jax.Array, episodes: int):
    """Returns of each policy under each attack, the expert's being 1: `[attack, policy, episode]`.

    All policies begin in the same places; an attack on values knows which policy acts.
    """

    def one(policy):
        chosen = method.choosing(state, policy)

        def act(observation, key):
            return method.act(chosen, observation, key=key, explore=False)[0]

        attacks = (Bias(jnp.zeros(3)), Bias(jnp.ones(3)), ValueAttack(method, chosen))
        tasks = [Attacked(_TASK, attack, radius) for attack in attacks]
        keys = jax.random.split(key, len(tasks))
        found = [episode_returns(t, act, episodes=episodes, key=k) for t, k in zip(tasks, keys)]
        return (jnp.stack(found) - _RANDOM) / (_EXPERT - _RANDOM)

    return jnp.moveaxis(jax.vmap(one)(jnp.arange(method.num_phases)), 0, 1)


@eqx.filter_jit
@functools.partial(jax.vmap, in_axes=(0, 0, None))
def _adapted(scores: Array, key: jax.Array, repeats: int) -> Float[Array, " round"]:
    """The score of each episode `[round, policy]` where EXP3 chooses who acts, over its luck."""
    rounds, policies = scores.shape
    caution = _CAUTION * _RATE_SCALE * (np.log(policies) / (policies * rounds)) ** 0.5
    bandit = _Episodes(jnp.clip(scores, 0.0, 1.0))

    def once(key):
        learned = learn(
            EXP3(rate_scale=_RATE_SCALE, implicit_exploration=float(caution)),
            bandit.problem,
            LivePulls(bandit),
            rounds,
            measure=lambda agent, data: {"arm": data.arm[0]},
            every=1,
            key=key,
        )
        arms = learned.sums["arm"][:, None]
        return jnp.take_along_axis(scores, arms, axis=1)[:, 0]

    return jnp.mean(jax.vmap(once)(jax.random.split(key, repeats)), axis=0)


def _adaptation(
    seed: int,
    *,
    instances: int,
    policies: int,
    updates: int,
    rows: int,
    episodes: int,
    repeats: int,
    radius: float,
    hidden_sizes: tuple[int, ...],
) -> Finding:
    method = PROTECTED(
        num_phases=policies,
        updates_per_phase=updates,
        attack_radius=radius,
        discount=0.98,
        polyak_rate=0.02,
        hidden_sizes=hidden_sizes,
    )
    # The same keys for all sets: their first policy is the same one, and episodes begin alike.
    keys = jax.random.split(jax.random.key(seed), (4, instances))
    train, score, switch, calm_keys = (jnp.concatenate([k] * len(_SETS)) for k in keys)
    weights, rates = jnp.repeat(jnp.asarray(list(_SETS.values())), instances, axis=0).T
    sets = _trained(method, weights, rates, train, policies * updates, rows)
    found = _scores(method, sets, radius, score, episodes)
    rounds = jnp.swapaxes(found, 2, 3)
    stream = rounds.reshape(len(train), -1, policies)
    undisturbed = jnp.tile(rounds[:, 0], (1, len(_ATTACKS), 1))

    def by_set(scores: Array) -> dict[str, np.ndarray]:
        parts = np.split(np.asarray(scores, np.float64), len(_SETS))
        return dict(zip(_SETS, parts))

    scores = by_set(found)
    switched = by_set(_adapted(stream, switch, repeats))
    calm = by_set(_adapted(undisturbed, calm_keys, repeats))
    # The last policy of training for the worst case, after as many updates as the whole set.
    worst_case = scores["worst case"][:, :, -1]
    best = scores["discovered"].mean((1, 3)).max(1)
    earned = switched["discovered"].mean(1)
    late = -(-calm["discovered"].shape[1] // 3)
    natural = calm["discovered"][:, -late:].mean(1)
    return Finding(
        (
            Criterion(
                "regret of EXP3 to the best of the policies, of the range from random to expert",
                mean_of(best - earned),
                at_most=0.1,
            ),
            Criterion(
                "return of EXP3 less that of the policy for the worst case, where attacks switch",
                mean_of(earned - worst_case.mean((1, 2))),
                at_least=0.0,
            ),
            Criterion(
                "the same without attacks, in the last third of the episodes",
                mean_of(natural - worst_case[:, 0].mean(1)),
                at_least=0.1,
            ),
        ),
        {
            "return of each policy under each attack": {
                name: dict(zip(_ATTACKS, each.mean((0, 3)).round(3).tolist()))
                for name, each in scores.items()
            },
            "return of EXP3 less that of EXP3 among policies for random attacks": mean_of(
                earned - switched["random attacks"].mean(1)
            ),
            "return of EXP3 less that of a policy drawn for each episode": mean_of(
                earned - scores["discovered"].mean((1, 2, 3))
            ),
        },
        {
            "EXP3 among discovered policies": _smoothed(switched["discovered"]),
            "EXP3 among policies for random attacks": _smoothed(switched["random attacks"]),
            "policy for the worst case": _smoothed(worst_case.reshape(instances, -1)),
        },
        across="episode",
        up="return, the expert's being 1",
    )


def _smoothed(scores: np.ndarray, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Means of pieces of a curve `[seed, episode]`."""
    width = min(width, scores.shape[1])
    whole = scores.shape[1] // width * width
    pieces = scores[:, :whole].reshape(len(scores), -1, width).mean(2)
    return np.arange(1, pieces.shape[1] + 1) * width, pieces


CLAIMS = (
    Claim(
        name="policies-that-no-other-replaces-meet-attacks-that-switch",
        statement="On a pendulum whose observations are not attacked, biased, and moved down the "
        "slope of the acting policy's value for 100 episodes each, EXP3 among four policies that "
        "PROTECTED discovered has a regret to the best of them of at most a tenth of the range "
        "from random to expert, and earns at least what the policy trained for the worst case "
        "does; without attacks it earns at least a tenth of the range more than that policy.",
        methods=("PROTECTED", "EXP3"),
        paper="liu2024beyond",
        where="the abstract: better natural and robust performance, and adaptation to attacks that "
        "change; the numbers are a reproduction's",
        scales={
            "smoke": {
                "instances": 3,
                "policies": 2,
                "updates": 20,
                "rows": 8,
                "episodes": 4,
                "repeats": 2,
                "radius": 0.1,
                "hidden_sizes": (8,),
            },
            "small": {
                "instances": 3,
                "policies": 4,
                "updates": 4_000,
                "rows": 64,
                "episodes": 100,
                "repeats": 20,
                "radius": 0.1,
                "hidden_sizes": (64, 64),
            },
        },
        experiment=_adaptation,
        learned=(
            "With three seeds of three runs each the regret to the best of the set is 0.03 to 0.06 "
            "of the range. What EXP3 earns beyond the policy for the worst case is 0.31, 0.12 and "
            "0.44 with switches, and 0.41, 0.22 and 0.57 without attacks, but only with the last "
            "seed is the interval clear of the bound; more runs than three in one would decide. It "
            "is not that no other policy replaces those that are discovered: among four policies "
            "learned under random networks as attacks EXP3 earns as much (0.02 more, 0.07 and 0.04 "
            "less, no interval clear of 0), and these keep 0.86 and more without attacks, where "
            "the discovered ones after the first have 0.73 to 0.97 and the last one for the worst "
            "case 0.39 to 0.76. Under the slope of the value the first policy, which knows no "
            "attack, is the best of the discovered ones with two seeds of three."
        ),
    ),
)
