"""Where global bonuses explore and episodic ones do not, where it is the other way, and products.

Two tasks with as much, and as little, in common between episodes as can be: the same corridors in
every episode, and a fresh grid in every episode of which a policy sees the next cells only. All
bonuses are exact: they come from counts, those of E3B too.
"""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.exploration.corridors import Corridors
from headwater.environments.exploration.fresh_grid import FreshGrid
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.methods.control.exploration.count_bonus import CountBonus
from headwater.methods.control.exploration.e3b import E3B
from headwater.methods.control.streaming.stream_q import StreamQ
from headwater.runs.learn import learn, seed_key
from headwater.sources.rollout import Stream

_BONUS_SCALE = 0.1


def _arms(
    table_columns: int, columns: tuple[int, ...], *, exploration_rate: float, scaled: bool
) -> dict[str, AbstractMethod]:
    # Q-learning on a table: one-hot observations, no trace, one step size.
    table = StreamQ(
        discount=0.95,
        trace_decay=0.0,
        learning_rate=0.2,
        initial_exploration_rate=exploration_rate,
        final_exploration_rate=exploration_rate,
        sparsity=1.0,
        bounded=False,
        normalise_observations=False,
        scale_rewards=False,
        hidden_sizes=(),
    )
    common = {
        "inner": table,
        "scale_bonus": scaled,
        "policy_columns": tuple(range(table_columns)),
        "novelty_columns": columns,
    }
    counts = {"bonus_scale": _BONUS_SCALE, **common}
    # A first visit is worth one over the ridge to E3B: unless all are scaled, it is made one here.
    worth = 1.0 if scaled else E3B().ridge
    elliptical = {"features": "cells", "bonus_scale": _BONUS_SCALE * worth, **common}
    return {
        "none": CountBonus(bonus="none", **counts),
        "global": CountBonus(bonus="global", **counts),
        "episodic": CountBonus(bonus="episodic", **counts),
        "product": CountBonus(bonus="product", **counts),
        "E3B": E3B(**elliptical),
        "E3B times counts": E3B(times_counts=True, **elliptical),
    }


def _success(task, method: AbstractMethod, seed: int, *, steps: int, seeds: int, rows: int):
    """Shares of the episodes that ended that reached the goal, `[seed, row]`."""

    def seen(agent, data):
        over = data.terminal | data.truncated
        return {"reward": data.reward, "ended": over.astype(jnp.float32)}

    def run(key):
        task_key, learn_key = jax.random.split(key)
        environment: AbstractEnvironment = task(task_key)
        source = Stream(environment)
        every = steps // rows
        sums = learn(
            method, environment.spaces, source, steps, measure=seen, every=every, key=learn_key
        ).sums
        return sums["reward"] / jnp.maximum(sums["ended"], 1.0)

    keys = jnp.stack([seed_key(seed, index) for index in range(seeds)])
    return np.asarray(jax.jit(jax.vmap(run))(keys))


def _late(success: np.ndarray) -> np.ndarray:
    """Over the last quarter of the steps."""
    return success[:, 3 * success.shape[1] // 4 :].mean(1)


def _finding(criteria, curves: dict[str, np.ndarray], steps: int) -> Finding:
    rows = next(iter(curves.values())).shape[1]
    at = steps * np.arange(1, rows + 1) / rows
    return Finding(
        criteria,
        {"last_quarter": {name: _late(y).tolist() for name, y in curves.items()}},
        {name: (at, y) for name, y in curves.items()},
        across="steps",
        up="share of episodes that reach the goal",
    )


def _same_corridors(seed: int, *, corridors: int, at_least: float, at_most: float, **scale):
    def task(key):
        return Corridors(corridors, goal=jax.random.randint(key, (), 0, corridors))

    places = Corridors(corridors).places
    arms = _arms(places, (places,), exploration_rate=0.1, scaled=False)
    found = {name: _success(task, method, seed, **scale) for name, method in arms.items()}
    criteria = [
        Criterion(
            f"success late in training, {name}", mean_of(_late(found[name])), at_least=at_least
        )
        for name in ("global", "product", "E3B times counts")
    ]
    criteria += [
        Criterion(f"success late in training, {name}", mean_of(_late(found[name])), at_most=at_most)
        for name in ("episodic", "E3B")
    ]
    return _finding(tuple(criteria), found, scale["steps"])


def _fresh_grids(
    seed: int,
    *,
    size: int,
    distance: int,
    times_global: float,
    share_of_episodic: float,
    **scale,
) -> Finding:
    grid = FreshGrid(size, distance)
    columns = (grid.situations, grid.situations + 1)
    arms = _arms(grid.situations, columns, exploration_rate=0.05, scaled=True)
    found = {
        name: _success(lambda key: grid, method, seed, **scale) for name, method in arms.items()
    }
    late = {name: _late(y) for name, y in found.items()}
    criteria = [
        Criterion(
            f"success late in training, {name} over global",
            ratio_of_means(late[name], late["global"]),
            at_least=times_global,
        )
        for name in ("episodic", "E3B")
    ]
    criteria += [
        Criterion(
            f"success late in training, {name} over {alone}",
            ratio_of_means(late[name], late[alone]),
            at_least=share_of_episodic,
        )
        for name, alone in (("product", "episodic"), ("E3B times counts", "E3B"))
    ]
    return _finding(tuple(criteria), found, scale["steps"])


_SMOKE = {"steps": 400, "seeds": 3, "rows": 4}

CLAIMS = (
    Claim(
        "global-bonuses-explore-what-stays-the-same",
        "Where every episode has the same 25 corridors, global counts and products with them bring "
        "Q-learning to the reward in at least half of the episodes; the episodic bonus and E3B "
        "alone in at most one of twenty.",
        ("CountBonus", "E3B"),
        "henaff2023study",
        "the section on episodes that share everything; the numbers are ours",
        {
            "smoke": {"corridors": 4, "at_least": 0.5, "at_most": 0.05, **_SMOKE},
            "small": {
                "corridors": 25,
                "at_least": 0.5,
                "at_most": 0.05,
                "steps": 32_000,
                "seeds": 16,
                "rows": 8,
            },
        },
        _same_corridors,
        learned="Pilots with other seeds chose the number of corridors and the weight of bonuses. "
        "With 20 corridors, the last of them, global counts came to 0.84, the product to 0.76, "
        "the episodic bonus to 0.03 and no bonus at all to 0.51, since random actions find the "
        "goal of some seeds. A first run, of seed 0, failed with random actions in 5 per cent of "
        "the steps instead of 10, ten seeds instead of 16, and an E3B whose first visits were "
        "worth ten times a count's, so that the clip made each of them as good as the reward: "
        "global 0.51, product 0.88, E3B times counts 0.00, episodic 0.09. These three settings "
        "were changed, and no criterion. Undecided since: global counts and the product hold, but "
        "the episodic bonus, which likes every corridor as much as another, finds the goal as "
        "often as by chance (one of 25) or slightly more, which the bound of 0.05 leaves hardly "
        "any room for. Some 60 seeds would decide it, or more corridors.",
    ),
    Claim(
        "episodic-bonuses-explore-what-is-new",
        "Where every episode has a fresh grid, the episodic bonus and E3B bring Q-learning to the "
        "goal at least 2.5 times as often as global counts; their products with counts lose at "
        "most 15 per cent of that.",
        ("CountBonus", "E3B"),
        "henaff2023study",
        "the section on episodes that share little; the numbers are ours",
        {
            # A goal near enough, and steps enough, that all reach it: a ratio to nothing is none.
            "smoke": {
                "size": 3,
                "distance": 1,
                "times_global": 2.5,
                "share_of_episodic": 0.85,
                **_SMOKE,
                "steps": 1_200,
            },
            "small": {
                "size": 10,
                "distance": 6,
                "times_global": 2.5,
                "share_of_episodic": 0.85,
                "steps": 24_000,
                "seeds": 10,
                "rows": 8,
            },
        },
        _fresh_grids,
        learned="Pilots with other seeds, five for each setting, chose random actions in 5 per "
        "cent of the steps, with which the ratio was clearest: the episodic bonus came to 2.5 "
        "times global counts; with 10 per cent, to 2.1 times where bonuses weighed 0.3, and to "
        "1.6 times where the discount was 0.9. The order is clear and the products hold; whether "
        "it is 2.5 times is undecided with ten seeds (2.7, 2.7 and 3.4 times for the episodic "
        "bonus, 2.7, 2.6 and 2.8 for E3B). Some 40 seeds would decide it.",
    ),
)
