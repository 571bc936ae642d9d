"""What features that several tasks have taught are good for in a new task."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from headwater.core.finite import FiniteProcess
from headwater.core.records import Episodes
from headwater.environments.linear.low_rank import LowRankTasks
from headwater.evaluation.exact import best_return, returns_of
from headwater.evaluation.tuning import choose, held_out_seed
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.evidence.low_rank import explore, make_tasks
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.linear.pessimistic_lsvi import PEVI
from headwater.methods.low_rank.refuel import REFUEL
from headwater.methods.tabular.online.euler import EULER
from headwater.methods.tabular.online.ucbvi import UCBVI
from headwater.ops.linear.least_squares import one_hot_features
from headwater.ops.tabular.planning import optimal_values
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes, WholeLog, log_episodes

_FEATURES = ("learned", "true", "from scratch")


def _online(
    *,
    seed: int,
    tasks: int,
    updates: int,
    batch: int,
    instances: int,
    episodes: int,
    first: int,
    last: int,
    bonuses: Sequence[float],
    table_bonuses: Sequence[float],
    **sizes: Any,
) -> Finding:
    """LSVI-UCB in a new task, with learned features and true ones, and methods that have none.

    Each is judged over the `first` and the `last` episodes, with the bonus that does best over
    these in other tasks, as is the rival among those without features. `bonuses` are factors of the
    elliptical norm itself; `table_bonuses` multiply those of EULER and UCBVI.
    """
    linear = LSVIUCB(num_episodes=float(episodes), max_return=1.0 / sizes["horizon"])
    for_tables = {
        "EULER": EULER(num_episodes=float(episodes)),
        "UCBVI": UCBVI(num_episodes=float(episodes)),
    }
    without = ("from scratch", *for_tables)

    def measure(seed: int) -> dict[tuple[str, str], np.ndarray]:
        given = [
            make_tasks(tasks=tasks + 1, seed=seed * 10_000 + at, **sizes) for at in range(instances)
        ]
        features = _all_features(given, tasks=tasks, updates=updates, batch=batch, seed=seed)
        keys = jax.random.split(jax.random.key(seed), instances)
        shares = {}
        for kind in ("fresh", "mixture"):
            new = [
                _new_task(each, kind, tasks=tasks, seed=seed + at) for at, each in enumerate(given)
            ]
            processes = jax.tree.map(lambda *x: jnp.stack(x), *new)
            for name, feature in features.items():
                scales = _scales(bonuses, feature.shape[-1], sizes["horizon"], episodes)
                found = _act(linear, scales, feature, processes, episodes, keys)
                shares[kind, name] = np.asarray(found)
            for name, method in for_tables.items():
                found = _act(method, jnp.asarray(table_bonuses), None, processes, episodes, keys)
                shares[kind, name] = np.asarray(found)
        return shares

    shares, tuned = measure(seed), measure(held_out_seed(seed))
    criteria, curves, numbers = [], {}, {}
    windows = ((f"first {first}", slice(0, first), 0.1), (f"last {last}", slice(-last, None), 0.0))
    for kind in ("fresh", "mixture"):
        for window, place, asked in windows:
            end: dict[str, np.ndarray] = {}
            elsewhere: dict[str, float] = {}
            for name in (*_FEATURES, *for_tables):
                every = shares[kind, name]
                scores = tuned[kind, name][:, :, place].mean(2).T
                chosen = choose(scores, largest=True)
                end[name] = every[:, chosen, place].mean(1)
                elsewhere[name] = float(scores[chosen].mean())
                numbers[f"{name}, {kind} task, {window} episodes"] = {
                    "bonus": float((table_bonuses if name in for_tables else bonuses)[chosen]),
                    "shares": end[name].tolist(),
                }
                curves[f"{name}, {kind} task"] = (np.arange(episodes), every[:, chosen])
            rival = max(without, key=lambda name: elsewhere[name])
            gain = mean_of(end["learned"] - end[rival])
            text = f"{kind} task, {window} episodes: learned features less {rival}"
            criteria.append(Criterion(text, gain, at_least=asked))
            near = ratio_of_means(end["learned"], end["true"])
            text = f"{kind} task, {window} episodes: learned / true features"
            criteria.append(Criterion(text, near, at_least=0.95))
    return Finding(tuple(criteria), numbers, curves, "episodes", "share of the best return")


def _offline(
    *,
    seed: int,
    tasks: int,
    updates: int,
    batch: int,
    instances: int,
    logs: Sequence[int],
    optimal: float,
    penalties: Sequence[float],
    **sizes: Any,
) -> Finding:
    """PEVI on logs of a new task, with learned features, true ones, and one for each state and
    action; each with the best of the same `penalties` in other tasks. Actions of the log are
    optimal with probability `optimal`, else uniform."""

    def measure(seed: int) -> dict[tuple[str, int], np.ndarray]:
        given = [
            make_tasks(tasks=tasks + 1, seed=seed * 10_000 + at, **sizes) for at in range(instances)
        ]
        features = _all_features(given, tasks=tasks, updates=updates, batch=batch, seed=seed)
        new = [_new_task(each, "fresh", tasks=tasks, seed=seed) for each in given]
        processes = jax.tree.map(lambda *x: jnp.stack(x), *new)
        keys = jax.random.split(jax.random.key(seed), instances)
        log = _log(processes, optimal, max(logs), keys)
        shares = {}
        for name, feature in features.items():
            for count in logs:
                scales = _scales(penalties, feature.shape[-1], sizes["horizon"], count)
                first = jax.tree.map(lambda x, n=count: x[:, :n], log)
                shares[name, count] = np.asarray(_read(scales, feature, processes, first))
        return shares

    shares, tuned = measure(seed), measure(held_out_seed(seed))
    numbers: dict[str, Any] = {}
    end: dict[tuple[str, int], np.ndarray] = {}
    for (name, count), every in shares.items():
        chosen = choose(tuned[name, count].T, largest=True)
        end[name, count] = every[:, chosen]
        numbers[f"{name}, {count} episodes"] = {
            "penalty": float(penalties[chosen]),
            "shares": every[:, chosen].tolist(),
        }
    fewest = min(logs)
    gain = mean_of(end["learned", fewest] - end["from scratch", fewest])
    criteria = [Criterion(f"{fewest} episodes: learned features less none", gain, at_least=0.05)]
    for count in logs:
        near = ratio_of_means(end["learned", count], end["true", count])
        text = f"{count} episodes: learned / true features"
        criteria.append(Criterion(text, near, at_least=0.95))
    curves = {
        name: (np.asarray(logs), np.stack([end[name, count] for count in logs], axis=1))
        for name in _FEATURES
    }
    return Finding(
        tuple(criteria), numbers, curves, "episodes in the log", "share of the best return", "x"
    )


def _all_features(
    given: Sequence[LowRankTasks], *, tasks: int, updates: int, batch: int, seed: int
) -> dict[str, Float[Array, "instance horizon state action feature"]]:
    """Features by name; the learned ones are REFUEL's after exploring the first `tasks` tasks."""
    method = REFUEL(rank=given[0].feature.shape[-1], episodes_per_step=batch)
    groups = [each.subset(range(tasks)).process for each in given]
    learned = explore(method, groups, updates=updates, seed=seed).feature
    true = jnp.stack([each.feature for each in given])
    none = jnp.stack([one_hot_features(each.task(0).problem()) for each in given])
    return dict(zip(_FEATURES, (learned, true, none)))


def _new_task(given: LowRankTasks, kind: str, *, tasks: int, seed: int) -> FiniteProcess:
    """A task that was not explored: drawn like the others, or a mixture of them."""
    if kind == "fresh":
        return given.task(tasks)
    weight = np.random.default_rng(seed).dirichlet(np.ones(tasks))
    return given.subset(range(tasks)).mixture(weight.tolist())


def _scales(
    factors: Sequence[float], size: int, horizon: int, episodes: int
) -> Float[Array, " scale"]:
    """Scales of the methods with which the norms of features of this size have these factors."""
    log = np.log(2.0 * size * episodes * horizon / 0.1)
    return jnp.asarray(factors) / float(size * np.sqrt(log))


@eqx.filter_jit
def _act(
    method: LSVIUCB | EULER | UCBVI,
    scales: Float[Array, " scale"],
    features: Float[Array, "instance horizon state action feature"] | None,
    processes: FiniteProcess,
    episodes: int,
    keys: Key[Array, " instance"],
) -> Float[Array, "instance scale episode"]:
    """Shares of the best return that the policies of the episodes get, with `features` if any."""

    def one(given):
        process, feature, key = given
        problem, best = process.problem(known_reward=True), best_return(process)

        def with_scale(scale):
            scaled = eqx.tree_at(lambda m: m.bonus_scale, method, scale)
            linear = isinstance(scaled, LSVIUCB)

            def share(agent, data):
                return {"share": returns_of(process, agent.policy(explore=True)) / best}

            found = learn(
                scaled,
                problem,
                FreshEpisodes(process),
                episodes,
                measure=share,
                every=1,
                state=scaled.with_features(problem, feature) if linear else None,
                key=key,
            )
            return found.sums["share"]

        return jax.vmap(with_scale)(scales)

    return jax.lax.map(one, (processes, features, keys))


@eqx.filter_jit
def _log(
    processes: FiniteProcess, optimal: float, episodes: int, keys: Key[Array, " instance"]
) -> Episodes:
    """Logs of each process, of actions that are optimal with this probability and else uniform."""

    def one(given):
        process, key = given
        policy = optimal * optimal_values(process).policy + (1.0 - optimal) / process.actions
        return log_episodes(process, policy, episodes=episodes, key=key)

    return jax.lax.map(one, (processes, keys))


@eqx.filter_jit
def _read(
    scales: Float[Array, " scale"],
    features: Float[Array, "instance horizon state action feature"],
    processes: FiniteProcess,
    logs: Episodes,
) -> Float[Array, "instance scale"]:
    """Shares of the best return that PEVI gets from logs."""

    def one(given):
        process, feature, log = given
        problem, best = process.problem(known_reward=True), best_return(process)

        def with_scale(scale):
            method = PEVI(max_return=1.0 / process.horizon)
            method = eqx.tree_at(lambda m: m.penalty_scale, method, scale)
            state = method.with_features(problem, feature)
            found = learn(method, problem, WholeLog(log), 1, state=state, key=jax.random.key(0))
            state = found.state
            return returns_of(process, method.policy(state, explore=False)) / best

        return jax.vmap(with_scale)(scales)

    return jax.lax.map(one, (processes, features, logs))


_PAPER = "cheng2022provable"
_FACTORS = (0.05, 0.1, 0.3, 1.0)
_TINY = {"states": 10, "actions": 3, "horizon": 4, "rank": 2, "batch": 4, "instances": 4}
_SMALL = {"states": 20, "actions": 4, "horizon": 5, "rank": 4, "batch": 8, "instances": 8}


def _online_scales(family: str, rank: int, updates: int) -> dict[str, dict[str, Any]]:
    return {
        "smoke": {
            **_TINY,
            "family": family,
            # One block of three actions, and so the same programs for both families.
            "rank": 3,
            "tasks": 6,
            "updates": 25,
            "episodes": 60,
            "first": 20,
            "last": 20,
            "bonuses": (0.05, 0.3),
            "table_bonuses": (0.01, 0.1),
        },
        "small": {
            **_SMALL,
            "family": family,
            "rank": rank,
            "tasks": 16,
            "updates": updates,
            "episodes": 300,
            "first": 100,
            "last": 50,
            "bonuses": _FACTORS,
            "table_bonuses": (0.001, 0.01, 0.03, 0.1, 0.3),
            "instances": 6,
        },
    }


CLAIMS = (
    Claim(
        name="refuel-features-help-online",
        statement="In a new lock, LSVI-UCB on features that REFUEL learned from 16 locks comes "
        "within 5 % of what it gets on the true features. Over its first 100 episodes it gets at "
        "least 0.1 of the best return more than the best of EULER, UCBVI and LSVI-UCB without "
        "features, and no less over the last 50 of 300. Each has the bonus that does best in other "
        "locks.",
        methods=("REFUEL", "LSVIUCB", "EULER", "UCBVI"),
        paper=_PAPER,
        where="abstract and the downstream theorem for online data",
        scales=_online_scales("lock", rank=4, updates=30),
        experiment=_online,
        learned="Features pay in the first 100 episodes: 0.43 to 0.66 of the best return over the "
        "best method without (seeds 0 to 2). By the last 50 of 300 EULER without features has "
        "caught up in most instances, so that what is left is 0.14 at most and undecided in two of "
        "six comparisons. Features learned are as good as the true ones.",
    ),
    Claim(
        name="refuel-features-help-online-in-blocks",
        statement="What `refuel-features-help-online` says of locks, in processes whose states are "
        "in three blocks.",
        methods=("REFUEL", "LSVIUCB", "EULER", "UCBVI"),
        paper=_PAPER,
        where="abstract and the downstream theorem for online data",
        scales=_online_scales("blocks", rank=12, updates=60),
        experiment=_online,
        learned="Here features pay less: 0.16 to 0.25 over the first 100 episodes of a process "
        "drawn like the others, 0.01 to 0.09 of a mixture of these, and between -0.07 and 0.05 "
        "over the last 50, where nothing is decided. Those learned in 60 updates are not as good "
        "as the true ones: 0.84 to 0.98 of what these get.",
    ),
    Claim(
        name="refuel-features-help-offline",
        statement="From few episodes of a log of a new task, PEVI on features that REFUEL learned "
        "from 16 tasks comes within 5 % of what it gets on the true features, and from the fewest "
        "gets at least 0.05 of the best return more than without features.",
        methods=("REFUEL", "PEVI"),
        paper=_PAPER,
        where="abstract and the downstream theorem for offline data",
        scales={
            "smoke": {
                **_TINY,
                "family": "lock",
                "tasks": 6,
                "updates": 25,
                "logs": (10, 40),
                "optimal": 0.5,
                "penalties": (0.0, 0.1),
            },
            "small": {
                **_SMALL,
                "family": "lock",
                "tasks": 16,
                "updates": 30,
                "logs": (30, 100, 300),
                "optimal": 0.7,
                "penalties": (0.0, *_FACTORS),
            },
        },
        experiment=_offline,
    ),
)
