"""Texts that a task makes anew for every batch."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Completions
from headwater.core.source import AbstractSource
from headwater.environments.language.token_tasks import AbstractTextTask, everywhere


class FreshTexts(AbstractSource[Int[Array, ""], Completions]):
    """A batch of fresh texts of a task; none comes twice but by chance.

    **Arguments:** `task`; `rows`: in a batch; `whole`: learn prompts too, not responses alone, as
    training from scratch does.
    """

    task: AbstractTextTask
    rows: int = eqx.field(static=True, default=64)
    whole: bool = eqx.field(static=True, default=False)

    def init(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    def draw(
        self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Completions]:
        data = self.task.texts(self.rows, key=key)
        return state + self.rows, everywhere(data) if self.whole else data

    def environment_steps(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return state
