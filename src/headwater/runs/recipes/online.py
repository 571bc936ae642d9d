"""Named chains of stages: how logged experience is learned from, and how the result goes online."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

from jaxtyping import PRNGKeyArray

from headwater.core.catalogue import settings
from headwater.core.errors import SpecificationError
from headwater.core.method import (
    AbstractActorCritic,
    AbstractMethod,
    AbstractSeveralBatches,
    AbstractWarmStart,
    Agent,
)
from headwater.core.records import Transitions
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.sac import SAC
from headwater.runs.stage import Outcomes, Stage
from headwater.sources.collect import collect
from headwater.sources.mixed import mixed
from headwater.sources.replay import Replay

Task = AbstractEnvironment | AbstractHostTask

Recipe = Literal["wsrl", "rlpd", "continue", "scratch"]
RECIPES: dict[str, str] = {
    "wsrl": "start SAC from the offline actor and critics, warm up, drop the offline data",
    "rlpd": "learn from nothing, half of every batch from the log (the offline run is not used)",
    "continue": "the offline method goes on, half of every batch from the log",
    "scratch": "the online method of wsrl, from nothing and without the log",
}
"""Ways of going online, and what each does."""
RECIPE_PAPERS = {"wsrl": "zhou2025efficient", "rlpd": "ball2023efficient"}
"""Keys of the papers that recipes are from."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How a method acts while it learns.

    **Arguments:** `steps`: environment steps in all, those before the first update included;
    `rows`: rows of data per update; `random_steps`: uniformly random steps at first;
    `warm_up_steps`: steps of the starting policy after those, before the first update; `block`:
    environment steps between updates, of which there are then as many; `updates_per_step`: that
    many times as many; `capacity`: of the buffer (default: `steps`).
    """

    steps: int
    rows: int = 256
    random_steps: int = 0
    warm_up_steps: int = 0
    block: int = 1
    updates_per_step: int = 1
    capacity: int | None = None

    @property
    def updates(self) -> int:
        """Updates that fit into the steps."""
        learning = self.steps - self.random_steps - self.warm_up_steps
        return max(0, learning // self.block) * self.block * self.updates_per_step


def online_stage(
    method: AbstractMethod,
    task: Task,
    budget: Budget,
    *,
    name: str = "online",
    data: Transitions | None = None,
    begin: Any = None,
) -> Stage:
    """Learning while acting in `task`.

    **Arguments:** `data`: logged transitions that make up half of every batch, if given; `begin`:
    see `Stage`. Raises `SpecificationError` if no step is left to learn from.
    """
    if budget.updates < 1:
        raise SpecificationError(
            f"{budget.steps} environment steps leave none to learn from after "
            f"{budget.random_steps + budget.warm_up_steps} steps of warm-up: allow more steps"
        )
    updates_per_draw = budget.block * budget.updates_per_step
    rows = updates_per_draw * budget.rows
    share = rows if data is None else rows // 2
    source: Any = collect(
        task,
        capacity=budget.capacity or budget.steps,
        batch_size=share,
        steps_per_draw=budget.block,
        random_steps=budget.random_steps,
        warm_up_steps=budget.warm_up_steps,
    )
    if data is not None:
        source = mixed([Replay(data, rows - share), source])
    return Stage(name, method, source, budget.updates, updates_per_draw, begin)


def online_method(offline: AbstractMethod, discrete: bool) -> SAC | DQN:
    """What follows `offline` online in WSRL: the shapes of its networks, WSRL's settings otherwise.

    Four critic updates per environment step, and layer-normalised critics where the offline method
    has them.
    """
    given = settings(offline)
    shared = {name: given[name] for name in ("discount", "normalise_observations") if name in given}
    shared["hidden_sizes"] = tuple(given["hidden_sizes"])
    if discrete and not isinstance(offline, AbstractActorCritic):
        return DQN(**shared)
    members, layer_norm = given.get("num_critics", 2), given.get("layer_norm", "none")
    if isinstance(layer_norm, bool):  # ReBRAC's are its critics' alone.
        layer_norm = "critics" if layer_norm else "none"
    return SAC(
        **shared,
        num_critics=members,
        num_target_critics=min(2, members),
        layer_norm=layer_norm,
        num_critic_updates=4,
        backup_entropy=0.0,
        actor_learning_rate=1e-4,
        temperature_learning_rate=1e-4,
    )


def rows_per_update(method: AbstractMethod, batch_size: int) -> int:
    """Rows that one update of `method` eats if each of its gradient steps sees `batch_size`."""
    pieces = method.num_critic_updates if isinstance(method, AbstractSeveralBatches) else 1
    return batch_size * pieces


def warm_start(
    online: AbstractMethod, upstream: str
) -> Callable[[Outcomes, Any, PRNGKeyArray], Any]:
    """A `Stage.begin` that starts `online` from the outcome of the stage called `upstream`.

    It raises `SpecificationError` if `online` can start from no other method, or if the outcome has
    nothing that it could start from.
    """

    def begin_online(outcomes: Outcomes, problem: Any, key: PRNGKeyArray):
        outcome = outcomes[upstream]
        if not isinstance(online, AbstractWarmStart):
            raise SpecificationError(
                f"{type(online).__name__} cannot start from what another method has learned: "
                "use SAC, or DQN for discrete actions"
            )
        state = online.warm_start(Agent(outcome.method, outcome.state), problem, key=key)
        if state is None:
            raise SpecificationError(
                f"{type(outcome.method).__name__} leaves no stochastic actor that the wsrl recipe "
                "could start from: use the recipe 'continue' or 'rlpd', or train with CalQL, CQL, "
                "IQL, AWAC, SACN, EDAC, or DiscreteCQL for discrete actions"
            )
        return state

    return begin_online


def continuing(method: AbstractMethod) -> AbstractMethod:
    """`method` for going on online: without a schedule that has run out."""
    if "actor_decay_updates" in settings(method):
        return dataclasses.replace(method, actor_decay_updates=math.inf)
    return method
