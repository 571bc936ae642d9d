"""Whether what a learned model generalises is worth more than what was seen, replayed.

Q-learning on as many transitions in each update: replayed, imagined by a model that is learned
meanwhile, or by the process itself. Nothing else differs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.factored.button_grid import ButtonGrid
from headwater.environments.factored.pan_flute import PanFlute
from headwater.environments.factored.recoded import Recoded, random_code
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means
from headwater.evidence.true_dynamics import TrueDynamics
from headwater.methods.control.model_based.factored_dynamics import FactoredDynamics
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.dyna import Dyna
from headwater.runs.learn import learn, seed_key
from headwater.sources.collect import Collect

_ROLLOUTS, _ROLLOUT_STEPS = 16, 8
"""Together the transitions of an update, also of those that are replayed."""
_RANDOM_STEPS = 500
"""Before the first update."""
_EXPLORATION = 0.1
"""Share of random actions while acting and imagining."""


def _arms(task: PanFlute | ButtonGrid, width: int) -> dict[str, AbstractMethod]:
    learner = DQN(
        discount=0.9,
        learning_rate=1e-3,
        initial_exploration_rate=_EXPLORATION,
        final_exploration_rate=_EXPLORATION,
        hidden_sizes=(width, width),
    )
    model = FactoredDynamics(learning_rate=3e-3, hidden_sizes=(width, width))
    perfect = TrueDynamics(task, task.observed)
    return {
        "replay": learner,
        "learned model": Dyna(_ROLLOUTS, _ROLLOUT_STEPS, learner, model),
        "perfect model": Dyna(_ROLLOUTS, _ROLLOUT_STEPS, learner, perfect),
    }


def _curves(
    task: Any, method: AbstractMethod, seed: int, *, steps: int, seeds: int, rows: int
) -> np.ndarray:
    """Mean rewards while acting and learning, after the random steps, `[seed, row]`."""

    def run(key):
        task_key, learn_key = jax.random.split(key)
        environment: AbstractEnvironment = task(task_key)
        rows_of_update = _ROLLOUTS * _ROLLOUT_STEPS
        # The buffer holds every step, in its order.
        source = Collect(environment, steps, rows_of_update, random_steps=_RANDOM_STEPS)
        updates = steps - _RANDOM_STEPS
        learned = learn(method, environment.spaces, source, updates, key=learn_key)
        return learned.source_state.ring.data.reward[_RANDOM_STEPS:]

    keys = jnp.stack([seed_key(seed, index) for index in range(seeds)])
    rewards = np.asarray(jax.jit(jax.vmap(run))(keys), np.float64)
    return rewards.reshape(seeds, rows, -1).mean(axis=-1)


def _ratio(curves: dict[str, np.ndarray], above: str, below: str):
    return ratio_of_means(curves[above].mean(1), curves[below].mean(1))


def _finding(
    criteria: list[Criterion], curves: dict[str, np.ndarray], steps: int, rows: int
) -> Finding:
    at = _RANDOM_STEPS + (steps - _RANDOM_STEPS) * np.arange(1, rows + 1) / rows
    return Finding(
        tuple(criteria),
        {"area": {name: y.mean(1).tolist() for name, y in curves.items()}},
        {name: (at, y) for name, y in curves.items()},
        across="steps in the task",
        up="mean reward while learning",
    )


def _of_world(
    task: PanFlute | ButtonGrid,
    seed: int,
    *,
    width: int,
    times: float,
    arms: tuple[str, ...],
    **sizes,
) -> tuple[list[Criterion], dict[str, np.ndarray]]:
    methods = _arms(task, width)
    found = {name: _curves(lambda key: task, methods[name], seed, **sizes) for name in arms}
    pairs = (
        ("learned model", "replay", times),
        ("perfect model", "learned model", 1.0),
        ("perfect model", "replay", 1.0),
    )
    return [
        Criterion(f"area, {one} over {other}", _ratio(found, one, other), at_least=bound)
        for one, other, bound in pairs
        if one in found and other in found
    ], found


def _flute(
    seed: int,
    *,
    pipes: int,
    times: float,
    times_recoded: float,
    width: int = 64,
    arms: tuple[str, ...] = ("replay", "learned model", "perfect model"),
    recoded: tuple[str, ...] = ("replay", "learned model"),
    **sizes,
) -> Finding:
    task = PanFlute(pipes)
    criteria, curves = _of_world(task, seed, width=width, times=times, arms=arms, **sizes)
    methods = _arms(task, width)

    def renamed(key):
        return Recoded(task, random_code(task, key=key))

    control = {name: _curves(renamed, methods[name], seed, **sizes) for name in recoded}
    if control:
        criteria.append(
            Criterion(
                "area where states are renamed, learned model over replay",
                _ratio(control, "learned model", "replay"),
                at_most=times_recoded,
            )
        )
    curves |= {f"{name}, renamed": y for name, y in control.items()}
    return _finding(criteria, curves, sizes["steps"], sizes["rows"])


def _grid(
    seed: int,
    *,
    size: int,
    buttons: int,
    times: float,
    width: int = 64,
    arms: tuple[str, ...] = ("replay", "learned model", "perfect model"),
    **sizes,
) -> Finding:
    task = ButtonGrid(size, buttons)
    criteria, curves = _of_world(task, seed, width=width, times=times, arms=arms, **sizes)
    return _finding(criteria, curves, sizes["steps"], sizes["rows"])


_SMOKE = {"steps": 900, "seeds": 3, "rows": 2, "width": 4}

CLAIMS = (
    Claim(
        "a-model-generalises-where-bits-go-their-own-ways",
        "On a flute of five pipes, with as many transitions in each update, the area under the "
        "learning curve of Q-learning is at least 1.3 times as large with rollouts in a model that "
        "is learned meanwhile as with replay, and larger yet with the process itself for a model. "
        "Where states are renamed at random, so that no bit changes with a few others only, the "
        "learned model brings at most 1.1 times the area of replay. Nothing is tuned.",
        ("Dyna", "FactoredDynamics", "DQN"),
        "young2023benefits",
        "its experiments on PanFlute; the renamed states and the bounds are ours",
        {
            # To compile all five would take half a minute.
            "smoke": {
                "pipes": 2,
                "times": 1.3,
                "times_recoded": 1.1,
                "arms": ("replay", "learned model"),
                "recoded": (),
                **_SMOKE,
            },
            "small": {
                "pipes": 5,
                "times": 1.3,
                "times_recoded": 1.1,
                "steps": 4_500,
                "seeds": 5,
                "rows": 10,
            },
        },
        _flute,
        learned="Pilots with other seeds chose the steps: of 20,000, for one update each, replay "
        "needs some 4,000 too, and the areas come near each other. They also showed that the "
        "reward needs a network of its own, as in the paper: with layers that it shares with the "
        "bits, what is learned of it is too coarse for many thousand updates. One criterion is "
        "not met: with the process itself for a model the area is about that with the learned one "
        "(0.97, 1.01 and 0.99 times with seeds 0 to 2). Chance sounds all pipes at once in one "
        "step of 25, which a model of independent bits hardly ever imagines.",
    ),
    Claim(
        "a-model-generalises-where-buttons-are-toggled",
        "On a grid of three by three cells with two buttons, with as many transitions in each "
        "update, the area under the learning curve of Q-learning is at least 1.3 times as large "
        "with rollouts in a model that is learned meanwhile as with replay, and larger yet with "
        "the process itself for a model. Nothing is tuned.",
        ("Dyna", "FactoredDynamics", "DQN"),
        "young2023benefits",
        "its experiments on ButtonGrid, which has more cells and buttons; the bound is ours",
        {
            "smoke": {
                "size": 2,
                "buttons": 1,
                "times": 1.3,
                "arms": ("replay", "perfect model"),
                **_SMOKE,
            },
            "small": {
                "size": 3,
                "buttons": 2,
                "times": 1.3,
                "steps": 10_500,
                "seeds": 5,
                "rows": 10,
            },
        },
        _grid,
        learned="On the grid of five by five cells none of the three learns anything within 20,000 "
        "steps and as many updates. On this one, pilots with other seeds found the learned model "
        "no better than replay (0.138 to 0.151 in the mean reward of greedy policies, 0.215 for "
        "the process itself): after each reward all is drawn anew, and a model of independent bits "
        "imagines several agents or none there, from where its rollouts go on. The paper's latent "
        "models, which draw the bits together, are not here.",
    ),
)
