"""Named chains of stages: how logged experience is learned from, and how the result goes online."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.catalogue import build_method, settings
from headwater.core.errors import SpecificationError
from headwater.core.method import (
    AbstractActorCritic,
    AbstractEncoding,
    AbstractMethod,
    AbstractSeveralBatches,
    AbstractWarmStart,
    Agent,
)
from headwater.core.records import Transitions
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.encoded_dqn import EncodedDQN
from headwater.methods.control.online.ppo import PPO
from headwater.methods.control.online.proto import PROTO
from headwater.methods.control.online.sac import SAC
from headwater.methods.control.online.staged_proto import StagedPROTO
from headwater.networks.control.critics import alike, raised
from headwater.parts.logged_values import level_of_values, scale_of_rewards
from headwater.parts.soft_actor_critic import NearPolicy, SoftActorCritic
from headwater.runs.options import Recipe
from headwater.runs.stage import Outcomes, Stage
from headwater.sources.acting.in_stages import in_stages
from headwater.sources.collect import collect
from headwater.sources.mixed import Mixed, mixed
from headwater.sources.replay import Replay
from headwater.sources.rollout import rollout

Task = AbstractEnvironment | AbstractHostTask

RECIPES: dict[Recipe, str] = {
    "wsrl": "start SAC from the offline actor and critics, warm up, drop the offline data",
    "keep-data": "start SAC from the offline actor and critics, part of every batch from the log",
    "proto": "keep-data, with PROTO, which stays near the offline policy, for narrow logs",
    "staged": "proto, held near the last policy whose episodes did not return less",
    "by-log": "staged where the log's actions keep close to the offline policy, else keep-data",
    "rlpd": "learn from nothing, part of every batch from the log (the offline run is not used)",
    "continue": "the offline method goes on, part of every batch from the log",
    "ppo": "start PPO from the offline actor, drawn back to it, without the log, as VPT does",
    "dagger": "a policy that clones goes on, part of every batch from the log and the rest what "
    "an expert, whom the task knows, would have done where it came to",
    "scratch": "the online method of wsrl, from nothing and without the log",
}
"""Ways of going online, and what each does."""
WITH_WARM_UP: tuple[Recipe, ...] = ("wsrl", "keep-data", "proto", "staged")
"""Those in which the offline policy acts before anything is learned from it."""
WARM_STARTS: tuple[Recipe, ...] = (*WITH_WARM_UP, "ppo")
"""Those that begin another method from what the offline one has learned."""
WITH_LOG: tuple[Recipe, ...] = (
    "keep-data",
    "proto",
    "staged",
    "by-log",
    "rlpd",
    "continue",
    "dagger",
)
"""Those whose batches hold rows of the log."""
CRITICS_FIT = "critics"
"""The stage in which fresh critics are fitted."""
_STAGES = 8
"""Stages of acting that a run is cut into, if its episodes are short enough."""
STAGE_EPISODES = 4
"""Episodes of a stage, at least: the mean return of fewer says too little."""
_NUM_CRITICS = 10
_TAKEN_OVER = ("hidden_sizes", "normalise_observations")
"""What a warm start takes over with the actor, and cannot choose."""
_FIRST_STATE = (
    "hidden_sizes",
    "initial_level",
    "initial_temperature",
    "layer_norm",
    "normalise_observations",
    "num_critics",
    "reward_scale",
    "stochastic",
)
"""Settings of methods for logs that are looked at before the first update, and never again."""
RECIPE_PAPERS = {
    "wsrl": "zhou2025efficient",
    "proto": "li2023proto",
    "staged": "li2023proto",
    "ppo": "baker2022video",
    "dagger": "ross2011reduction",
    "rlpd": "ball2023efficient",
}
"""Keys of the papers that recipes are from."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How a method acts while it learns.

    **Arguments:** `steps`: environment steps in all, those before the first update included;
    `rows`: rows of data per update; `random_steps`: uniformly random steps at first;
    `warm_up_steps`: steps of the starting policy after those, before the first update; `block`:
    environment steps between updates, of which there are then as many; `updates_per_step`: that
    many times as many; `capacity`: of the buffer (default: `steps`); `copies`: of the environment,
    which share the steps; `rollouts`: each block is learned from once, in one update, and dropped.
    """

    steps: int
    rows: int = 256
    random_steps: int = 0
    warm_up_steps: int = 0
    block: int = 1
    updates_per_step: int = 1
    capacity: int | None = None
    copies: int = 1
    rollouts: bool = False

    @property
    def updates(self) -> int:
        """Updates that fit into the steps."""
        learning = self.steps - self.random_steps - self.warm_up_steps
        blocks = max(0, learning // self.block)
        return blocks if self.rollouts else blocks * self.block * self.updates_per_step


def online_stage(
    method: AbstractMethod,
    task: Task,
    budget: Budget,
    *,
    name: str = "online",
    data: Transitions | None = None,
    logged_share: float = 0.5,
    begin: Any = None,
) -> Stage:
    """Learning while acting in `task`.

    **Arguments:** `data`: logged transitions of which a part of every batch is drawn, if given;
    `logged_share`: how large a part, rounded to whole rows of an update, at least one of each
    origin; `begin`: see `Stage`. Raises `SpecificationError` if no step is left to learn from.
    """
    if budget.updates < 1:
        raise SpecificationError(
            f"{budget.steps} environment steps leave none to learn from after "
            f"{budget.random_steps + budget.warm_up_steps} steps of warm-up: allow more steps"
        )
    _check_copies(budget)
    updates_per_draw = budget.block * budget.updates_per_step
    rows = updates_per_draw * budget.rows
    logged = 0
    if data is not None:
        # Half of an odd number of rows is rounded up, so that the log has the row more.
        target = math.floor(logged_share * rows + 0.5)
        logged = min(max(target, 1), max(rows - 1, 1))
    source: Any = collect(
        task,
        capacity=budget.capacity or budget.steps,
        batch_size=rows - logged,
        steps_per_draw=budget.block,
        random_steps=budget.random_steps,
        warm_up_steps=budget.warm_up_steps,
        copies=budget.copies,
    )
    if data is not None:
        source = mixed([Replay(data, logged), source])
    return Stage(name, method, source, budget.updates, updates_per_draw, begin)


def rollout_stage(
    method: AbstractMethod, task: Task, budget: Budget, *, begin: Any = None
) -> Stage:
    """Learning in `task` from what was just done there, a block at a time.

    **Arguments:** `begin`: see `Stage`. Raises `SpecificationError` if the budget holds no whole
    block, or something else that cannot take effect.
    """
    name = type(method).__name__
    idle = {
        "random_steps": budget.random_steps > 0,
        "warm_up_steps": budget.warm_up_steps > 0,
        "updates_per_step": budget.updates_per_step > 1,
        "batch_size": budget.rows > 1,
    }
    if unused := [option for option, given in idle.items() if given]:
        raise SpecificationError(
            f"{name} learns from each block of steps once, in num_minibatches parts, and from "
            f"nothing else: leave out {unused[0]}"
        )
    if budget.updates < 1:
        raise SpecificationError(
            f"{budget.steps} environment steps hold no block of {budget.block}: allow more steps, "
            "or a smaller block"
        )
    _check_copies(budget)
    parts = settings(method).get("num_minibatches", 1)
    if budget.block % parts:
        raise SpecificationError(
            f"{name} cannot take a block of {budget.block} steps in num_minibatches = {parts} "
            "equal parts: choose another block"
        )
    source = rollout(task, budget.block // budget.copies, budget.copies)
    return Stage("online", method, source, budget.updates, begin=begin)


def _check_copies(budget: Budget) -> None:
    if budget.block % budget.copies:
        raise SpecificationError(
            f"a block of {budget.block} environment steps cannot be shared by {budget.copies} "
            "copies: let block be a multiple of copies"
        )


def cut_into_stages(stage: Stage, budget: Budget) -> Stage:
    """`stage`, of acting, for a method that acts in stages.

    Each is an eighth of the steps or more, and of four episodes or more.
    """
    source: Any = stage.source
    cut = in_stages(source, max(1, budget.steps // _STAGES), STAGE_EPISODES)
    return dataclasses.replace(stage, source=cut)


def in_stages_from(near: AbstractMethod) -> AbstractMethod:
    """The PROTO `near` with an anchor that moves after stages that have passed."""
    return build_method(StagedPROTO.__name__, settings(near))


def online_method(
    offline: AbstractMethod, discrete: bool, *, near: bool = False
) -> SAC | PROTO | DQN:
    """What follows `offline` online: the shapes of its actor, and WSRL's settings otherwise.

    **Arguments:** `near`: hold it near the policy that it begins with. Raises `SpecificationError`
    for that if there is none.

    Ten layer-normalised critics, of which two drawn at random bound the target; four critic updates
    per environment step. Where the offline method has more than two critics, and they are
    layer-normalised, there are as many as it has, so that they can be taken over.
    """
    given = settings(offline)
    shared = {name: given[name] for name in ("discount", "normalise_observations") if name in given}
    shared["hidden_sizes"] = tuple(given["hidden_sizes"])
    if discrete and not isinstance(offline, AbstractActorCritic):
        if near:
            raise SpecificationError(
                f"{type(offline).__name__} has values and no actor that could be stayed near: use "
                "the recipe 'keep-data'"
            )
        return DQN(**shared)
    members = given.get("num_critics", 2)
    taken = members > 2 and given.get("layer_norm") in ("critics", "both")
    return (PROTO if near else SAC)(
        **shared,
        num_critics=members if taken else _NUM_CRITICS,
        num_target_critics=2,
        layer_norm="both" if given.get("layer_norm") == "both" else "critics",
        num_critic_updates=4,
        backup_entropy=0.0,
        actor_learning_rate=1e-4,
        temperature_learning_rate=1e-4,
    )


def on_policy_method(offline: AbstractMethod) -> PPO:
    """What follows `offline` on policy: the shapes of its actor, and VPT's divergence from it."""
    given = settings(offline)
    shared = {name: given[name] for name in ("discount", "normalise_observations") if name in given}
    return PPO(**shared, hidden_sizes=tuple(given["hidden_sizes"]), kl_weight=0.2)


def method_on_features(offline: AbstractMethod, *, learned: bool = True) -> EncodedDQN | DQN:
    """What follows online a method that has learned features of observations. Discrete only.

    **Arguments:** `learned`: begin with these features; else the same network learns from nothing.
    """
    given = settings(offline)
    shared = {"discount": given["discount"]} if "discount" in given else {}
    widths, size = tuple(given["hidden_sizes"]), given["embedding_size"]
    if not learned:
        return DQN(hidden_sizes=(*widths, size), **shared)
    names = ("embedding_size", "normalise_observations")
    shared |= {name: given[name] for name in names}
    return EncodedDQN(hidden_sizes=widths, **shared)


def online_ready(offline: AbstractMethod) -> AbstractMethod:
    """`offline` with critics that can go on online: ten, layer-normalised, two in each target.

    What was set to something else than it is by default stays so. Raises `SpecificationError` if
    the method has no such settings.
    """
    name, given = type(offline).__name__, settings(offline)
    ready = {"num_critics": _NUM_CRITICS, "num_target_critics": 2, "layer_norm": "both"}
    if not ready.keys() <= given.keys():
        raise SpecificationError(
            f"{name} has no critics whose number and layer norm can be chosen: leave out "
            "online_ready, or train with CQL or CalQL"
        )
    usual = settings(build_method(name))
    changed = {key: value for key, value in ready.items() if given[key] == usual[key]}
    return build_method(name, {**given, **changed})


def rows_per_update(method: AbstractMethod, batch_size: int) -> int:
    """Rows that one update of `method` eats if each of its gradient steps sees `batch_size`."""
    pieces = method.num_critic_updates if isinstance(method, AbstractSeveralBatches) else 1
    return batch_size * pieces


# Warm starts -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Start:
    """What a warm start takes over, and how it makes what it does not.

    **Arguments:** `fit_updates`: in which fresh critics are fitted to the offline actor on the log;
    0 takes over the offline critics; `fit_rows`, `fit_learning_rate`, `fit_polyak_rate`: rows of
    each of these, and the rates of the critics and of their targets; `keep_temperature`: go on with
    the offline temperature, where there is one.
    """

    fit_updates: int = 0
    fit_rows: int = 256
    fit_learning_rate: float = 1e-3
    fit_polyak_rate: float = 0.02
    keep_temperature: bool = True


def critics_serve(
    online: AbstractMethod, offline: AbstractMethod, state: Any, problem: Any
) -> bool:
    """Whether `online` can take over what `offline` knows of values.

    It can where the offline critics are as many, and of the same shape, as it has itself, evaluate
    the actor that is taken over, and discount as it does.

    **Arguments:** `state`: of the offline method, of one seed, or its shapes; `problem`.
    """
    if not isinstance(offline, AbstractActorCritic) or not isinstance(online, AbstractActorCritic):
        return True
    offline_critics = eqx.filter_eval_shape(offline.parts, state).critics
    if offline_critics is None or settings(offline).get("discount") != settings(online).get(
        "discount"
    ):
        return False

    def begin(key: PRNGKeyArray) -> Any:
        return online.parts(online.init(problem, key=key)).critics

    online_critics = eqx.filter_eval_shape(begin, jax.random.key(0))
    return alike(online_critics, offline_critics)


def check_warm_start(offline: AbstractMethod, online: AbstractMethod) -> None:
    """Raises `SpecificationError` if `online` cannot go on with what a warm start takes over.

    The actor and the scale of observations are those of the offline run, whatever is said of
    networks that begin anew.
    """
    before, now = settings(offline), settings(online)
    fixed = {name: now[name] == before[name] for name in _TAKEN_OVER if name in (*before, *now)}
    if isinstance(offline, AbstractEncoding) and "embedding_size" in now:
        fixed["embedding_size"] = now["embedding_size"] == before["embedding_size"]
    normed = before.get("layer_norm") == "both"
    if "layer_norm" in now:
        fixed["layer_norm"] = (now["layer_norm"] == "both") == normed
    taken = "encoder is" if isinstance(offline, AbstractEncoding) else "actor is"
    for name, fits in fixed.items():
        if not fits:
            has = before.get(name, "none")
            raise SpecificationError(
                f"{name} = {_shown(now[name])} cannot take effect: the {taken} that of the "
                f"offline run, whose {name} is {_shown(has)}; leave it out, or use the recipe "
                "'scratch' or 'rlpd'"
            )
    if isinstance(offline, AbstractEncoding):
        # Features know no policy: what acts on them explores as from nothing.
        return
    for name in ("initial_exploration_rate", "exploration_decay_updates"):
        usual = settings(build_method(type(online).__name__)).get(name)
        if name in now and now[name] != usual:
            raise SpecificationError(
                f"{name} = {_shown(now[name])} cannot take effect: what begins with a policy that "
                "has learned explores no more than final_exploration_rate says; leave it out"
            )


def check_same_start(offline: AbstractMethod, method: AbstractMethod) -> None:
    """Raises `SpecificationError` for a setting that only the beginning of training looks at.

    **Arguments:** `method`: `offline` with some settings changed, that goes on with its state.
    """
    before, now = settings(offline), settings(method)
    for name in _FIRST_STATE:
        if name in now and now[name] != before[name]:
            raise SpecificationError(
                f"{name} = {_shown(now[name])} cannot take effect: the offline method goes on with "
                f"what it has, which began with {_shown(before[name])}; leave it out, or use "
                "another recipe"
            )


def fit_method(online: SAC | PROTO | StagedPROTO, start: Start) -> SAC:
    """What fits critics to an actor that stays as it is: SAC whose critics alone learn."""
    names = {field.name for field in dataclasses.fields(SAC)}
    known = {name: getattr(online, name) for name in settings(online) if name in names}
    return dataclasses.replace(
        SAC(**known),
        actor_learning_rate=0.0,
        temperature_learning_rate=0.0,
        critic_learning_rate=start.fit_learning_rate,
        polyak_rate=start.fit_polyak_rate,
        num_critic_updates=1,
    )


def fit_stage(online: AbstractMethod, start: Start, upstream: str, *, source: Any = None) -> Stage:
    """The stage in which fresh critics of `online` are fitted to the actor of `upstream`.

    **Arguments:** `source`: of rows of the log, `start.fit_rows` in each draw; it may be left out
    where a run goes on after this stage.
    """
    assert isinstance(online, SAC | PROTO | StagedPROTO)
    # What is drawn from nothing has no rows.
    source = Mixed(()) if source is None else source
    method = fit_method(online, start)
    level = isinstance(online, PROTO | StagedPROTO)
    begin = warm_start(method, upstream, fresh_critics=True, logged_level=level)
    return Stage(CRITICS_FIT, method, source, start.fit_updates, begin=begin, evaluated=False)


def before_acting(shapes: Any, read: Callable[[Any], Any]) -> Any:
    """The state of a run that has fitted critics and nothing else.

    **Arguments:** `shapes`: of the state of what learns online; `read`: what that stage has learned
    from these shapes of it.
    """
    soft = read(_soft(shapes))
    return NearPolicy(soft, soft.actor) if isinstance(shapes, NearPolicy) else soft


def warm_start(
    online: AbstractMethod,
    upstream: str,
    *,
    keep_temperature: bool = True,
    fresh_critics: bool = False,
    logged_level: bool = False,
    fitted: str | None = None,
) -> Callable[[Outcomes, Any, PRNGKeyArray], Any]:
    """A `Stage.begin` that starts `online` from the outcome of the stage called `upstream`.

    **Arguments:** `keep_temperature`: see `Start`; `fresh_critics`: take over no critics;
    `logged_level`: let these begin at the level of the log, in deviations of its rewards; `fitted`:
    the stage that has fitted some, which are taken over with their targets and moments.

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
                f"{type(outcome.method).__name__} leaves no stochastic actor that another method "
                "could start from: use the recipe 'continue' or 'rlpd', or train with CalQL, CQL, "
                "IQL, AWAC, SACN, EDAC, BC with stochastic = True, or DiscreteCQL for discrete "
                "actions"
            )
        if not keep_temperature:
            begun = _soft(online.init(problem, key=key))
            state = _changed(
                state,
                log_temperature=begun.log_temperature,
                temperature_optimiser=begun.temperature_optimiser,
            )
        if fitted is not None:
            found = outcomes[fitted].state
            anew = ("critics", "target_critics", "critic_optimiser")
            state = _changed(state, **{name: getattr(found, name) for name in anew})
            state = _counting_rewards(state, found.normaliser.reward_scale)
        elif fresh_critics:
            begun = _soft(online.init(problem, key=key))
            state = _changed(
                state,
                critics=begun.critics,
                target_critics=begun.critics,
                critic_optimiser=begun.critic_optimiser,
            )
            if logged_level:
                state = _at_level_of_log(state, problem, settings(online)["discount"])
        return state

    return begin_online


def _soft(state: Any) -> SoftActorCritic:
    return state.soft if isinstance(state, NearPolicy) else state


def _changed(state: Any, **parts: Any) -> Any:
    soft = dataclasses.replace(_soft(state), **parts)
    return dataclasses.replace(state, soft=soft) if isinstance(state, NearPolicy) else soft


def _counting_rewards(state: Any, scale: Any) -> Any:
    """`state` with rewards multiplied by `scale`, and its temperature, which is paid in them."""
    normaliser, temperature = _soft(state).normaliser, _soft(state).log_temperature
    return _changed(
        state,
        normaliser=eqx.tree_at(lambda n: n.reward_scale, normaliser, scale),
        log_temperature=temperature + jnp.log(scale / normaliser.reward_scale),
    )


def _at_level_of_log(state: Any, problem: Any, discount: Any) -> Any:
    """`state` with values in deviations of a logged reward, that begin at the level of the log.

    See `parts/logged_values.py`. Values of several hundreds that begin at 0 take longer to learn
    than the few thousand updates of a fit, and what tells actions apart is lost in them.
    """
    if problem.statistics is None:
        return state
    scale = scale_of_rewards(problem.statistics, "deviation")
    level = scale * level_of_values(problem.statistics, discount)
    state = _counting_rewards(state, scale)
    critics = raised(_soft(state).critics, level)
    return _changed(state, critics=critics, target_critics=critics)


def unconverged(offline: AbstractMethod, updates: int) -> str | None:
    """Says, in a sentence, if critics learned for too few updates to know the returns ahead.

    What follows a step reaches its value through the targets, which go a share `polyak_rate` of the
    way in each update; it takes about 1/(1-γ) such ways.
    """
    known = settings(offline)
    rate, discount = known.get("polyak_rate"), known.get("discount")
    if rate is None or discount is None or updates * rate * (1.0 - discount) >= 1.0 - 1e-9:
        return None
    needed = math.ceil(1.0 / (rate * (1.0 - discount)) - 1e-6) if rate and discount < 1 else None
    remedy = "train longer" if needed is None else f"train for {needed:,} updates or more"
    return (
        f"the critics of {type(offline).__name__} learned for {updates:,} updates with a "
        f"polyak_rate of {rate:g}, too few to know the returns ahead at a discount of "
        f"{discount:g}, and what begins with them may fall at first: {remedy}"
    )


def continuing(method: AbstractMethod) -> AbstractMethod:
    """`method` for going on online: without a schedule that has run out."""
    if "actor_decay_updates" in settings(method):
        return dataclasses.replace(method, actor_decay_updates=math.inf)
    return method


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
