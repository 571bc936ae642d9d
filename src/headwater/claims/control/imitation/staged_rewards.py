"""Perceptual rewards: stages of a few demonstrations, and what their rewards teach.

A hand fetches a key, carries it to a door and goes through it, seen in 16 × 16 pixels. Ten
demonstrations take 8 to 60 steps for each of these, as they like. Settings were looked for on other
instances, of seed 100 and beyond.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.records import Demonstrations
from headwater.environments.control.pick_and_carry import (
    SPEED,
    PickAndCarry,
    PickAndCarryState,
    draw_layout,
)
from headwater.evaluation.statistics import rank_correlation
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.methods.control.imitation.perceptual_reward import PerceptualReward
from headwater.runs.learn import learn, seed_key
from headwater.sources.segments.demonstrations import AllDemonstrations

_SHORTEST, _LONGEST = 8, 60
"""Steps of a stage of a demonstration."""
_FRAMES = 3 * (_LONGEST + 4)
"""Room for the longest: noise may make a stage a few steps longer."""
_STAGES = 3
_LEARNED, _LATER = 10, 10
"""Demonstrations that rewards are learned from, and others that they are looked at on."""


class _Walks(NamedTuple):
    """Demonstrations `[…, demonstration, frame]`: what was seen, the true stages, the lengths."""

    seen: Float[Array, "*batch frame pixel"]
    stage: Int[Array, "*batch frame"]
    length: Int[Array, "*batch"]


def _stage(state: PickAndCarryState) -> Array:
    return state.holding.astype(jnp.int32) + state.opened.astype(jnp.int32)


def _walk(task: PickAndCarry, key: Array) -> _Walks:
    """One demonstration, at a pace of its own in each stage; behind the door it stays a while."""
    start_key, pace_key, walk_key = jax.random.split(key, 3)
    steps = jax.random.randint(pace_key, (_STAGES,), _SHORTEST, _LONGEST + 1)

    def one(carry, key):
        state, used, before = carry
        now = _stage(state)
        used = jnp.where(now == before, used, 0)
        moving = jnp.where(now == _STAGES - 1, steps[now] // 2, steps[now])
        action = task.paced_action(state, jnp.maximum(moving - used, 1))
        reached, _ = task.step(state, action, key=key)
        over = (now == _STAGES - 1) & (used >= steps[now])
        return (reached, used + 1, now), (task.picture(state), now, over)

    state, _ = task.reset(key=start_key)
    zero = jnp.zeros((), jnp.int32)
    keys = jax.random.split(walk_key, _FRAMES)
    _, (seen, stage, over) = jax.lax.scan(one, (state, zero, zero), keys)
    return _Walks(seen, stage, jnp.where(jnp.any(over), jnp.argmax(over), _FRAMES))


def _task(key: Array, changes: bool) -> PickAndCarry:
    place, height = draw_layout(key=key)
    return PickAndCarry(place, height, changes_appearance=changes)


def _learned(method: PerceptualReward, task: PickAndCarry, walks: _Walks, key: Array) -> Any:
    data = Demonstrations(walks.seen[:_LEARNED], walks.length[:_LEARNED])
    return learn(method, task.spaces, AllDemonstrations(data), 1, key=key).state, data


@eqx.filter_jit
def _looked_at(method: PerceptualReward, keys: Array, changes: bool) -> tuple[_Walks, Array, Array]:
    """The demonstrations of each instance, the stages found in the first, rewards of the others."""

    def one(key):
        layout_key, walk_key, learn_key = jax.random.split(key, 3)
        task = _task(layout_key, changes)
        walk_keys = jax.random.split(walk_key, _LEARNED + _LATER)
        walks = jax.vmap(lambda key: _walk(task, key))(walk_keys)
        state, data = _learned(method, task, walks, learn_key)
        later = walks.seen[_LEARNED:]
        rewards, _ = method.rewards(state, later, jnp.zeros((*later.shape[:2], 2)))
        return walks, method.stages(state, data), rewards

    return jax.lax.map(one, keys)


class _Look(NamedTuple):
    """Means over the demonstrations of each instance, `[instance]`.

    **Arguments:** `error`: of boundaries, in lengths of the demonstration; `of_thirds`: the same if
    each demonstration is cut into three equal parts; `order`: Spearman's correlation of rewards
    with time, in other demonstrations.
    """

    error: np.ndarray
    of_thirds: np.ndarray
    order: np.ndarray


def _look(method: PerceptualReward, keys: Array, changes: bool) -> _Look:
    walks, found, rewards = jax.tree.map(np.asarray, _looked_at(method, keys, changes))
    each = []
    for i in range(len(keys)):
        errors, thirds, orders = [], [], []
        for j in range(_LEARNED):
            length = walks.length[i, j]
            true, own = (_boundaries(x[i, j, :length]) for x in (walks.stage, found))
            errors.append(np.mean(np.abs(own - true)) / length)
            equal = np.arange(1, _STAGES) * length / _STAGES
            thirds.append(np.mean(np.abs(equal - true)) / length)
        for j in range(_LATER):
            reward = rewards[i, j, : walks.length[i, _LEARNED + j]]
            orders.append(rank_correlation(reward, np.arange(len(reward))))
        each.append([np.mean(x) for x in (errors, thirds, orders)])
    return _Look(*np.asarray(each).T)


def _boundaries(stage: np.ndarray) -> np.ndarray:
    """The first frame of each stage but the first."""
    return np.sum(stage[None] < np.arange(1, _STAGES)[:, None], axis=1)


def _stages(seed: int, *, instances: int, compared: bool) -> Finding:
    keys = jnp.stack([seed_key(seed, index) for index in range(instances)])
    changing = _look(PerceptualReward(), keys, True)
    numbers = {
        "error of boundaries": mean_of(changing.error),
        "error of equal thirds": mean_of(changing.of_thirds),
    }
    return Finding(
        (
            Criterion(
                "error of boundaries over that of equal thirds",
                ratio_of_means(changing.error, changing.of_thirds),
                at_most=0.7,
            ),
            Criterion(
                "rank correlation of the reward with time in other demonstrations",
                mean_of(changing.order),
                at_least=0.8,
            ),
        ),
        numbers | (_other_settings(keys) if compared else {}),
    )


def _other_settings(keys: Array) -> dict[str, Any]:
    """What is found where only places change, and with other costs of stages."""
    plain = _look(PerceptualReward(), keys, False)
    costs = {
        cost: _look(PerceptualReward(stage_cost=cost), keys, True)
        for cost in ("variance", "deviation")
    }
    return {
        "where only places change": {
            "error of boundaries": mean_of(plain.error),
            "error over that of equal thirds": ratio_of_means(plain.error, plain.of_thirds),
            "rank correlation": mean_of(plain.order),
        },
        "error over that of equal thirds, with other costs of stages": {
            cost: ratio_of_means(look.error, look.of_thirds) for cost, look in costs.items()
        },
    }


# What the rewards teach ---------------------------------------------------------------------------

_CORNERS = 8
"""Places of a plan, which the hand is to pass one after another at equal times."""
_BEST = 6
"""Plans of a round that the next one is drawn around."""
_SPREAD, _LEAST_SPREAD = 0.05, 0.02
"""Of the places of plans, in the first round and at least."""
_LOOKS = 32
_PACE = 12
"""Steps for each stage of the demonstration that the search begins with."""

Plan = Float[Array, "corner 2"]


class _Tried(NamedTuple):
    """What an episode of a plan came to: the learned rewards, and whether it succeeded."""

    learned: Float[Array, "*batch"]
    success: Float[Array, "*batch"]


class _Trials(eqx.Module):
    """Episodes in which a slack controller follows a plan: it makes up for `gain` of what is left.

    **Arguments:** `state`: what was learned of the stages.
    """

    method: PerceptualReward
    state: Any
    task: PickAndCarry
    gain: float

    def demonstrated(self, key: Array) -> Plan:
        """The places that the hand passes in a demonstration."""
        start_key, walk_key = jax.random.split(key)

        def one(carry, key):
            state, used, before = carry
            now = _stage(state)
            used = jnp.where(now == before, used, 0)
            action = self.task.paced_action(state, jnp.maximum(_PACE - used, 1))
            reached, _ = self.task.step(state, action, key=key)
            return (reached, used + 1, now), reached.hand

        state, _ = self.task.reset(key=start_key)
        zero = jnp.zeros((), jnp.int32)
        keys = jax.random.split(walk_key, self.task.horizon)
        _, hand = jax.lax.scan(one, (state, zero, zero), keys)
        each = self.task.horizon // _CORNERS
        return hand[each - 1 :: each]

    def __call__(self, plan: Plan, key: Array) -> _Tried:
        start_key, walk_key = jax.random.split(key)
        state, _ = self.task.reset(key=start_key)
        corners = jnp.concatenate([state.hand[None], plan])
        at = _CORNERS * jnp.arange(1, self.task.horizon + 1) / self.task.horizon
        path = jax.vmap(jnp.interp, (None, None, 1), 1)(at, jnp.arange(_CORNERS + 1.0), corners)

        def one(state, given):
            place, key = given
            action = jnp.clip(self.gain * (place - state.hand) / SPEED, -1.0, 1.0)
            reached, step = self.task.step(state, action, key=key)
            return reached, (self.task.picture(state), step.reward)

        keys = jax.random.split(walk_key, self.task.horizon)
        _, (seen, reward) = jax.lax.scan(one, state, (path, keys))
        none = jnp.zeros((self.task.horizon, 2))
        return _Tried(jnp.sum(self.method.rewards(self.state, seen, none)[0]), jnp.sum(reward))

    def successes(self, plan: Plan, key: Array) -> Array:
        """The share of episodes that succeed."""
        keys = jax.random.split(key, _LOOKS)
        return jnp.mean(jax.vmap(lambda key: self(plan, key).success)(keys))

    def searched(self, begin: Plan, by_learned: Array, rounds: int, plans: int, key: Array) -> Plan:
        """The plan found by the cross-entropy method, by the learned reward or by success."""

        def improve(plan, key):
            mean, deviation = plan
            draw_key, try_key = jax.random.split(key)
            noise = jax.random.normal(draw_key, (plans, *mean.shape))
            drawn = mean[None] + deviation[None] * noise
            # All meet the same beginning.
            tried = jax.vmap(lambda each: self(each, try_key))(drawn)
            found = jnp.where(by_learned, tried.learned, tried.success)
            order = jnp.argsort(-found)[:_BEST]
            # Those as bad as the worst say nothing of where to look: a single success counts.
            weight = (found[order] > jnp.min(found)).astype(jnp.float32)[:, None, None]
            count = jnp.sum(weight)
            fitted = jnp.sum(weight * drawn[order], axis=0) / jnp.maximum(count, 1.0)
            squares = jnp.sum(weight * (drawn[order] - fitted[None]) ** 2, axis=0)
            away = jnp.maximum(jnp.sqrt(squares / jnp.maximum(count, 1.0)), _LEAST_SPREAD)
            better = jnp.where(count > 0, fitted, mean), jnp.where(count > 0, away, deviation)
            return better, None

        start = (begin, jnp.full(begin.shape, _SPREAD))
        return jax.lax.scan(improve, start, jax.random.split(key, rounds))[0][0]


@eqx.filter_jit
def _taught(
    method: PerceptualReward, keys: Array, gain: float, rounds: int, plans: int
) -> tuple[Array, Array]:
    """Success at first, `[instance]`, and after learning by stages and by success alone."""

    def one(key):
        layout_key, walk_key, learn_key, search_key, look_key = jax.random.split(key, 5)
        task = _task(layout_key, True)
        walks = jax.vmap(lambda key: _walk(task, key))(jax.random.split(walk_key, _LEARNED))
        trials = _Trials(method, _learned(method, task, walks, learn_key)[0], task, gain)
        begin = trials.demonstrated(jax.random.fold_in(walk_key, _LEARNED))

        def after(by_learned: Array):
            found = trials.searched(begin, by_learned, rounds, plans, search_key)
            return trials.successes(found, look_key)

        return trials.successes(begin, look_key), jax.lax.map(after, jnp.asarray([True, False]))

    return jax.lax.map(one, keys)


def _teaching(seed: int, *, instances: int, gain: float, rounds: int, plans: int) -> Finding:
    keys = jnp.stack([seed_key(seed, index) for index in range(instances)])
    method = PerceptualReward(shortest_stage=2)
    first, after = map(np.asarray, _taught(method, keys, gain, rounds, plans))
    return Finding(
        (
            Criterion("success with the learned reward", mean_of(after[:, 0]), at_least=0.8),
            Criterion("success of the demonstration at first", mean_of(first), at_most=0.2),
        ),
        {
            "success with a reward for success alone": mean_of(after[:, 1]),
            "successes with the learned reward": after[:, 0].tolist(),
            "successes at first": first.tolist(),
        },
    )


CLAIMS = (
    Claim(
        "stages-are-found-where-they-look-different",
        "In ten demonstrations of three stages of 8 to 60 steps, where a closed hand and an open "
        "door look different, stages are found in 64 random features of 16 × 16 pixels with at "
        "most 0.7 times the error of equal thirds, and in other demonstrations the reward learned "
        "rises with time: a rank correlation of at least 0.8.",
        ("PerceptualReward",),
        "sermanet2017unsupervised",
        "its Tables 1 and 2 (steps of videos of a door and of pouring, in features of Inception, "
        "beside random steps), with random features and a baseline that is harder",
        {
            "smoke": {"instances": 2, "compared": False},
            "small": {"instances": 20, "compared": True},
        },
        _stages,
        learned=(
            "Undecided with seeds 0 and 1, holds with seed 2. Cuts keep their bound with each: "
            "0.51, 0.44 and 0.36 times the error of equal thirds. The rank correlation is 0.82 "
            "(0.77 to 0.87), 0.83 (0.78 to 0.88) and 0.87 (0.83 to 0.91), which twenty "
            "instances do not tell from 0.8. Where only places change, cuts are worse than "
            "equal thirds (1.16 to 1.32), likely because movement within a stage changes the "
            "picture as much as the next stage does. The mean deviation, which the paper's "
            "Algorithm 1 goes by, counts short stages like long ones and is worse still (2.9 to "
            "3.1 where stages look different); the variance comes near (0.60 to 0.72). What the "
            "reward teaches is another claim."
        ),
    ),
    Claim(
        "a-poor-demonstration-is-improved-by-rewards-of-stages",
        "The cross-entropy method, begun with the places that the hand passes in a demonstration, "
        "which a slack controller follows into success in at most 20 % of the episodes, succeeds "
        "in at least 80 % of them after 640 episodes with the reward learned from ten other "
        "demonstrations without actions. What a reward for success alone teaches is reported.",
        ("PerceptualReward",),
        "sermanet2017unsupervised",
        "its door that a robot opens, there with PI2 from a demonstration that succeeds in one of "
        "ten trials",
        {
            "smoke": {"instances": 1, "gain": 0.5, "rounds": 2, "plans": 8},
            "small": {"instances": 20, "gain": 0.5, "rounds": 20, "plans": 32},
        },
        _teaching,
        learned=(
            "Fails with seeds 0 and 1 and is undecided with seed 2: success rises from below "
            "0.02 to 0.47, 0.53 and 0.65, and in some instances not at all, where a plan is "
            "found that looks better than going through. A reward for success alone teaches "
            "more, 0.94 to 0.95, where a few of the first plans succeed, as here. Begun with "
            "nothing instead of a demonstration, neither taught anything in trials without a "
            "record."
        ),
    ),
)
