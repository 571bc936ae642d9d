"""Responses that begin as stored ones do: resets to states that good experience went through."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.errors import DataError
from headwater.core.method import Agent
from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, Prompts, position_mask
from headwater.ops.language.generation import Restrictions, generate
from headwater.ops.language.tokens import lengths
from headwater.sources.language.completions import AbstractWriting, drawn, rewarded


class Resets(AbstractWriting):
    """Responses of the current policy that continue stored ones: `[prompt, sample, position]`.

    A stored response is drawn, and its first so many tokens are given to the policy, which goes on
    from there: uniformly from one to one less than it has. The mask `response` is true on the
    policy's own tokens alone; the reward is that of the whole text.

    With a `chance` of one, the released code's, first tokens are never the policy's own, and it
    does not learn them. Less than one by a part in the length makes all places alike.

    **Arguments:** `stored`: texts `[row, position]`, in which a response is one stretch of tokens,
    as wide as new texts may become; `reward`: if given; `chance`: that something is given at all,
    otherwise the policy begins at the prompt; `rows`: texts in a batch; `samples`: continuations of
    each, all from the same place; `new_tokens`: in a whole response at most; `end`: the token, or
    tokens, that end it; `temperature`, `restrictions`: as of `SampledCompletions`. Raises
    `DataError` if the stored texts do not come in rows.
    """

    stored: Completions
    reward: AbstractCompletionReward | None = None
    chance: float = 1.0
    temperature: float = 1.0
    rows: int = eqx.field(static=True, default=16)
    samples: int = eqx.field(static=True, default=4)
    new_tokens: int = eqx.field(static=True, default=16)
    end: int | tuple[int, ...] = eqx.field(static=True, default=-1)
    restrictions: Restrictions = eqx.field(static=True, default=Restrictions())

    def __check_init__(self):
        if self.stored.tokens.ndim != 2:
            raise DataError(
                "resets need stored texts as [row, position], not of shape "
                f"{list(self.stored.tokens.shape)}"
            )

    def init(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    def draw(
        self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Completions]:
        state, data, whole = self.write(state, agent, key=key)
        return state, rewarded(data, self.reward, whole)

    def write(self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray):
        row_key, length_key, chance_key, key = jax.random.split(key, 4)
        stored = drawn(self.stored, self.rows, row_key)
        count, start = lengths(stored), jnp.argmax(stored.response, axis=-1)
        # A response of one token leaves nothing to go on from.
        reset = jax.random.bernoulli(chance_key, self.chance, (self.rows,)) & (count > 1)
        given = jax.random.randint(length_key, (self.rows,), 1, jnp.maximum(count, 2))
        given = jnp.minimum(jnp.where(reset, given, 0), self.new_tokens - 1)
        prompts = Prompts(stored.tokens, (start + given).astype(jnp.int32))
        data = generate(
            agent.network(),
            prompts,
            self.new_tokens,
            key=key,
            end=self.end,
            samples=self.samples,
            temperature=self.temperature,
            restrictions=self.restrictions,
            limit=start + self.new_tokens,
            width=stored.tokens.shape[-1],
        )
        begun = jnp.broadcast_to(start[:, None], (self.rows, self.samples))
        stop = begun + given[:, None] + lengths(data)
        whole = position_mask(begun, stop, data.tokens.shape[-1])
        return state + self.rows * self.samples, data, whole

    def environment_steps(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return state
