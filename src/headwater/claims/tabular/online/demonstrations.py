"""Claims of reinforcement learning near a policy that demonstrations taught."""

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProcess
from headwater.evaluation.exact import best_return
from headwater.evaluation.tuning import tune
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.methods.tabular.offline.tabular_cloning import TabularCloning
from headwater.methods.tabular.online.demonstration_regularised import DemonstrationRegularised
from headwater.ops.tabular.planning import expected_return, occupancy, soft_values
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes, WholeLog, log_episodes


def make_processes(
    *,
    seed: int,
    instances: int,
    states: int,
    actions: int,
    horizon: int,
    spread: float = 0.2,
    rewarding: float = 0.15,
) -> FiniteProcess:
    """Random processes with few rewards, stacked.

    **Arguments:** `spread`: concentration of next states; `rewarding`: share of the pairs that earn
    anything, uniformly between zero and one.
    """
    made = []
    for instance in range(instances):
        draw = np.random.default_rng((seed, instance))
        shape = (horizon, states, actions)
        earns = draw.uniform(size=shape) < rewarding
        rows = draw.dirichlet(np.full(states, spread), shape)
        made.append(FiniteProcess.from_arrays(rows, earns * draw.uniform(size=shape)))
    return jax.tree.map(lambda *x: np.stack(x), *made)


def cloning_error(
    *, seed: int, instances: int, demonstrations: Sequence[int], temperature: float, **sizes: int
) -> Finding:
    """Divergence of the expert from its clone, over whole episodes, by number of demonstrations."""
    processes = make_processes(seed=seed, instances=instances, **sizes)
    found = {}
    for count in demonstrations:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), count), instances)
        found[count] = np.asarray(_divergences(processes, keys, count, temperature), np.float64)
    scaled = {count: count * each for count, each in found.items()}
    few, many = (
        min(scaled, key=lambda c: scaled[c].mean()),
        max(scaled, key=lambda c: scaled[c].mean()),
    )
    budget = sizes["states"] * sizes["actions"] * sizes["horizon"]
    return Finding(
        (
            Criterion(
                "largest over smallest divergence times demonstrations",
                ratio_of_means(scaled[many], scaled[few]),
                at_most=1.5,
            ),
            *(
                Criterion(
                    f"{count} demonstrations: divergence times their number, over SAH",
                    mean_of(each / budget),
                    at_most=1.0,
                )
                for count, each in scaled.items()
            ),
        ),
        {"SAH": budget, "divergence times number": {n: float(x.mean()) for n, x in scaled.items()}},
        {
            "measured": (
                np.asarray(demonstrations),
                np.stack([found[n] for n in demonstrations], axis=1),
            )
        },
        "demonstrations",
        "KL(expert, clone)",
        "xy",
    )


def fewer_failures(
    *,
    seed: int,
    instances: int,
    demonstrations: Sequence[int],
    accuracy: float,
    bonus_scale: float,
    episodes: int,
    temperature: float,
    **sizes: int,
) -> Finding:
    """Shortfalls of the judged policy over online episodes, with λ = accuracy · N / SAH."""
    processes = make_processes(seed=seed, instances=instances, **sizes)
    budget = sizes["states"] * sizes["actions"] * sizes["horizon"]
    worst, last, curves, clones = {}, {}, {}, {}
    for count in demonstrations:
        strength = max(accuracy * count / budget, 0.01)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), count), instances)
        method = DemonstrationRegularised(strength, bonus_scale)
        clone, gaps = _learn(method, processes, keys, count, episodes, temperature)
        gaps = np.asarray(gaps, np.float64)
        worst[count], last[count] = gaps.max(1), gaps[:, -1]
        clones[count] = np.asarray(clone, np.float64)
        curves[f"{count} demonstrations"] = (np.arange(1, episodes + 1), gaps)
    pairs = itertools.pairwise(demonstrations)
    return Finding(
        tuple(
            Criterion(
                f"worst suboptimality gap with {few} demonstrations less that with {many}",
                mean_of(worst[few] - worst[many]),
                at_least=0.0,
            )
            for few, many in pairs
        ),
        {
            "worst": {n: float(x.mean()) for n, x in worst.items()},
            "last": {n: float(x.mean()) for n, x in last.items()},
            "clone": {n: float(x.mean()) for n, x in clones.items()},
        },
        curves,
        "online episodes",
        "suboptimality gap in expected return",
        "xy",
    )


def better_than_the_clone(
    *,
    seed: int,
    instances: int,
    demonstrations: int,
    strength: float,
    bonus_scales: Sequence[float],
    episodes: int,
    temperature: float,
    **sizes: int,
) -> Finding:
    """The final suboptimality gap near the clone, the clone's own, and the final one without any.

    Either has the bonus that is best for it in other processes.
    """

    def gaps_of(method: DemonstrationRegularised, count: int, seed: int):
        processes = make_processes(seed=seed, instances=instances, **sizes)
        keys = jax.random.split(jax.random.key(seed), instances)
        found = _learn(method, processes, keys, count, episodes, temperature)
        return [np.asarray(each, np.float64) for each in found]

    curves, last, clone, scales = {}, {}, np.zeros(instances), {}
    for label, count, near in (("near the clone", demonstrations, strength), ("alone", 0, 0.01)):

        def finals(tried, seed, count=count, near=near):
            methods = [DemonstrationRegularised(near, scale) for scale in tried]
            return [gaps_of(method, count, seed)[1][:, -1] for method in methods]

        scales[label] = tune(bonus_scales, finals, seed=seed).value
        own, gaps = gaps_of(DemonstrationRegularised(near, scales[label]), count, seed)
        clone = own if count else clone
        last[label] = gaps[:, -1]
        curves[label] = (np.arange(1, episodes + 1), gaps)
    return Finding(
        (
            Criterion(
                "final suboptimality gap near the clone over the clone's",
                ratio_of_means(last["near the clone"], clone),
                at_most=0.75,
            ),
        ),
        {
            "clone": float(clone.mean()),
            "last": {label: float(each.mean()) for label, each in last.items()},
            "bonus_scale": scales,
        },
        curves,
        "online episodes",
        "suboptimality gap in expected return",
        "xy",
    )


def _clone(process: FiniteProcess, key: Any, count: int, temperature: float):
    """The expert, and what its clone learns from `count` episodes; uniform from none."""
    expert = soft_values(process, temperature).policy
    method, problem = TabularCloning(), process.problem()
    if not count:
        return expert, method.policy(method.init(problem, key=key), explore=False)
    data = log_episodes(process, expert, episodes=count, key=key)
    state = learn(method, problem, WholeLog(data), 1, key=key).state
    return expert, method.policy(state, explore=False)


@eqx.filter_jit
def _divergences(processes: FiniteProcess, keys: Any, count: int, temperature: float):
    def one(process, key):
        expert, clone = _clone(process, key, count, temperature)
        visited = occupancy(process, expert)
        return jnp.sum(jnp.where(visited > 0.0, visited * jnp.log(expert / clone), 0.0))

    return jax.vmap(one)(processes, keys)


@eqx.filter_jit
def _learn(
    method: DemonstrationRegularised,
    processes: FiniteProcess,
    keys: Any,
    count: int,
    episodes: int,
    temperature: float,
) -> tuple[Float[Array, " instance"], Float[Array, "instance episode"]]:
    """Shortfalls of the clone, and of the judged policy after every online episode."""

    def one(process, key):
        clone_key, begin_key, key = jax.random.split(key, 3)
        anchor = _clone(process, clone_key, count, temperature)[1]
        best = best_return(process)

        def gap(agent):
            return best - expected_return(process, agent.policy(explore=False))

        problem = process.problem()
        found = learn(
            method,
            problem,
            FreshEpisodes(process),
            episodes,
            evaluate=gap,
            every=1,
            state=method.around(problem, anchor, key=begin_key),
            key=key,
        )
        return best - expected_return(process, anchor), found.evaluations[1:]

    return jax.vmap(one)(processes, keys)


_PAPER = "tiapkin2024demonstration"
_TINY = {"states": 4, "actions": 3, "horizon": 4}
_SIZES = {"states": 8, "actions": 4, "horizon": 10}

CLAIMS = (
    Claim(
        name="cloning-error-falls-like-one-over-demonstrations",
        statement=(
            "The divergence of a near-optimal expert from its smoothed clone, times the number N "
            "of demonstrations, is at most SAH and stays within a factor of 1.5 from N = 100 to "
            "6,400."
        ),
        methods=("TabularCloning",),
        paper=_PAPER,
        where="the theorem on behaviour cloning in finite processes",
        scales={
            "smoke": {
                "instances": 6,
                "demonstrations": (100, 400),
                "temperature": 0.02,
                **_TINY,
            },
            "small": {
                "instances": 20,
                "demonstrations": (100, 400, 1600, 6400),
                "temperature": 0.02,
                **_SIZES,
            },
        },
        experiment=cloning_error,
    ),
    Claim(
        name="demonstrations-prevent-early-failures",
        statement=(
            "With λ in proportion to the number of demonstrations, the worst suboptimality gap of "
            "the judged policy over all online episodes falls as demonstrations are added."
        ),
        methods=("DemonstrationRegularised", "TabularCloning"),
        paper=_PAPER,
        where="consequence of the theorem on demonstration-regularised learning",
        scales={
            "smoke": {
                "instances": 4,
                "demonstrations": (0, 200),
                "accuracy": 1.0,
                "bonus_scale": 0.0001,
                "episodes": 100,
                "temperature": 0.02,
                **_TINY,
            },
            "small": {
                "instances": 10,
                "demonstrations": (0, 100, 500, 2000),
                "accuracy": 1.0,
                "bonus_scale": 0.0001,
                "episodes": 2000,
                "temperature": 0.02,
                **_SIZES,
            },
        },
        experiment=fewer_failures,
    ),
    Claim(
        name="learning-near-the-clone-improves-on-it",
        statement=(
            "After 2000 online episodes near the clone of 500 demonstrations, at λ = 0.3, the "
            "suboptimality gap is at most 0.75 of the clone's."
        ),
        methods=("DemonstrationRegularised", "TabularCloning"),
        paper=_PAPER,
        where="consequence of the theorem on demonstration-regularised learning",
        scales={
            "smoke": {
                "instances": 4,
                "demonstrations": 50,
                "strength": 0.3,
                "bonus_scales": (0.0001,),
                "episodes": 200,
                "temperature": 0.02,
                **_TINY,
            },
            "small": {
                "instances": 10,
                "demonstrations": 500,
                "strength": 0.3,
                "bonus_scales": (0.00001, 0.00003, 0.0001),
                "episodes": 2000,
                "temperature": 0.02,
                **_SIZES,
            },
        },
        experiment=better_than_the_clone,
        learned=(
            "Learning without demonstrations, its bonus tuned on the same grid, ends lower still: "
            "demonstrations save the early episodes, and λ costs at the end."
        ),
    ),
)
