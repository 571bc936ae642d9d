"""What the policy does, with what an expert would have done in its place."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractSource
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.experts import Advised, corrected
from headwater.environments.interaction import begin
from headwater.sources.collect import Collecting, check_collection
from headwater.sources.ring import empty, push, sample


class Corrections(AbstractSource[Collecting, Transitions]):
    """Acts with the current policy, keeps the expert's actions and draws from all of them (DAgger).

    The steps before a draw are one round: with few draws of many steps each, as in the paper, the
    policy acts for long before it learns from the corrections. Rewards and next observations are
    those of what the policy did, so that only methods which clone can learn from these rows.

    **Arguments:** `environment`: knows an expert; `capacity`: of the buffer; `batch_size`: rows per
    draw; `steps_per_draw`: environment steps before each draw, over all copies together; `copies`:
    of the environment.

    Raises `SpecificationError` if the environment knows no expert, or sizes do not fit each other.
    """

    environment: AbstractEnvironment
    capacity: int = eqx.field(static=True, default=100_000)
    batch_size: int = eqx.field(static=True, default=256)
    steps_per_draw: int = eqx.field(static=True, default=1)
    copies: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        Advised(self.environment)
        check_collection(self)

    @property
    def random_steps(self) -> int:
        """None: what is done at random is not what the policy will meet."""
        return 0

    @property
    def warm_up_steps(self) -> int:
        """None: the steps before the first draw are those of the starting policy."""
        return 0

    def init(self, *, key: PRNGKeyArray) -> Collecting:
        return Collecting(
            begin(Advised(self.environment), self.copies, key=key),
            empty(self.environment.spaces, self.capacity),
            jnp.zeros((), jnp.int32),
        )

    def draw(self, state: Collecting, agent: Agent, *, key: PRNGKeyArray):
        act_key, sample_key = jax.random.split(key)
        at, rows = corrected(
            Advised(self.environment),
            state.copies,
            lambda observation, key: agent.act(observation, key=key, explore=True)[0],
            steps=self.steps_per_draw // self.copies,
            key=act_key,
        )
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        ring = push(state.ring, rows)
        state = Collecting(at, ring, state.steps + self.steps_per_draw)
        return state, sample(ring, self.batch_size, key=sample_key)

    def environment_steps(self, state: Collecting) -> Int[Array, ""]:
        return state.steps
