"""Learning while acting from what a model, learned beside it, says would have happened."""

from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from headwater.core.catalogue import build_method
from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.parts.model_based import dynamics_of


class DynaState(eqx.Module):
    """The state of the method that acts, and of the one that learns the model."""

    inner: Any
    model: Any


class Dyna(AbstractMethod[Spaces, Transitions, DynaState], AbstractPolicy[DynaState]):
    r"""Another method, which learns from short rollouts in a model instead of from what happened.

    In each update the model takes one step on the batch, `rollouts` begin at observations drawn
    from it, and the inner method takes one step on the `rollout_steps` transitions of each, acted
    by its own exploring policy. A rollout in which nothing follows begins again where it began, so
    that an update always has as many transitions. It learns from nothing else: beside the inner
    method alone, on batches of `rollouts` times `rollout_steps` rows, only what the model
    generalises differs.

    **Arguments:**

    - `rollouts`: in a model that begin for each update.
    - `rollout_steps`: after which a rollout is cut.
    - `inner`: the method that acts and learns.
    - `dynamics`: the method that learns the model.

    **Reference:** Young, Ramesh, Kirsch, Schmidhuber (2023), arXiv:2211.02222; the architecture is
    Sutton's (1991).

    **Differences from the paper:** the inner method is any that acts and replays, in the paper
    Q-learning with softmax exploration; the model learns from the whole batch, and rollouts begin
    at rows of it.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "young2023benefits",
        summary="learns while acting, from rollouts in a model that is learned beside",
        parents=("DQN", "FactoredDynamics"),
    )

    rollouts: int = integer(32)
    rollout_steps: int = integer(10)
    inner: AbstractMethod = eqx.field(default_factory=partial(build_method, "DQN"))
    dynamics: AbstractMethod = eqx.field(default_factory=partial(build_method, "FactoredDynamics"))

    def __check_init__(self):
        inner = self.inner
        if not (
            isinstance(inner, AbstractMethod)
            and isinstance(inner, AbstractPolicy)
            and inner.feed is Feed.ACTING
        ):
            raise SpecificationError(
                f"Dyna.inner = {inner!r}: it must be a method that acts and replays what it "
                "saw, such as DQN()"
            )
        dynamics_of(self)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DynaState:
        inner_key, model_key = jax.random.split(key)
        return DynaState(
            self.inner.init(problem, key=inner_key), self.dynamics.init(problem, key=model_key)
        )

    def update(self, state: DynaState, data: Transitions, *, key: PRNGKeyArray):
        model_key, rollout_key, inner_key = jax.random.split(key, 3)
        model, found = self.dynamics.update(state.model, data, key=model_key)
        imagined = self._imagine(DynaState(state.inner, model), data, rollout_key)
        inner, metrics = self.inner.update(state.inner, imagined, key=inner_key)
        named = {f"model_{name}": value for name, value in found.items()}
        return DynaState(inner, model), {**metrics, **named}

    def act(self, state: DynaState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        assert isinstance(self.inner, AbstractPolicy)
        return self.inner.act(state.inner, observation, key=key, explore=explore)[0], ()

    def _imagine(self, state: DynaState, data: Transitions, key: PRNGKeyArray) -> Transitions:
        """The transitions of all rollouts, one step of all after the other."""
        dynamics = dynamics_of(self)
        start_key, walk_key = jax.random.split(key)
        drawn = jax.random.randint(start_key, (self.rollouts,), 0, data.reward.shape[0])
        begun = data.observation[drawn]

        def one(observation: Array, key: PRNGKeyArray):
            act_key, model_key = jax.random.split(key)
            action, _ = self.act(state, observation, key=act_key, explore=True)
            return action, dynamics.step(state.model, observation, action, key=model_key)

        def step(observation: Array, key: PRNGKeyArray):
            action, found = jax.vmap(one)(observation, jax.random.split(key, self.rollouts))
            row = (observation, action, found.reward, found.next_observation, found.terminal)
            return jnp.where(found.terminal[:, None], begun, found.next_observation), row

        keys = jax.random.split(walk_key, self.rollout_steps)
        _, (observation, action, reward, following, terminal) = jax.lax.scan(step, begun, keys)
        truncated = jnp.zeros_like(terminal).at[-1].set(True) & ~terminal
        rows = Transitions(observation, action, reward, following, terminal, truncated)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
