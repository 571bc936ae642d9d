"""Batches of texts: stored ones, and fresh ones that the current policy writes."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons, Completions, LabelledCompletions
from headwater.core.source import AbstractSource
from headwater.core.tokens import (
    AbstractCompletionReward,
    AbstractTokenNetwork,
    AbstractTokenReward,
    Prompts,
)
from headwater.ops.language.generation import Restrictions, generate
from headwater.sources.language.passes import (
    Pass,
    first_pass,
    next_rows,
    refuse_weighted_passes,
)

StoredTexts = Completions | LabelledCompletions | CompletionComparisons | Prompts
"""What batches are drawn from."""


class CompletionReplay(AbstractSource[tuple[()] | Pass, StoredTexts]):
    """Rows of stored texts or comparisons, drawn with replacement or in passes.

    **Arguments:** `data`: with a leading axis of rows; `rows`: in a batch; `None`: all of them, in
    their order; `weights`: rows are drawn in proportion to these, if not uniformly; `passes`: every
    row comes once before any comes again. Raises `SpecificationError` for weights with passes.
    """

    data: StoredTexts
    rows: int | None = eqx.field(static=True, default=16)
    weights: Float[Array, " row"] | None = None
    passes: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        refuse_weighted_passes(self.passes, self.weights)

    def init(self, *, key: PRNGKeyArray) -> tuple[()] | Pass:
        if not self.passes:
            return ()
        return first_pass(jax.tree.leaves(self.data)[0].shape[0], key)

    def draw(self, state: tuple[()] | Pass, agent: Agent, *, key: PRNGKeyArray):
        if self.rows is None:
            return (), self.data
        if isinstance(state, Pass):
            state, index = next_rows(state, self.rows)
            return state, jax.tree.map(lambda x: jnp.asarray(x)[index], self.data)
        return (), drawn(self.data, self.rows, key, self.weights)


def drawn(data, rows: int, key: PRNGKeyArray, weights: Float[Array, " row"] | None = None):
    """So many rows of `data` with replacement, uniformly or in proportion to `weights`."""
    index = drawn_rows(jax.tree.leaves(data)[0].shape[0], rows, key, weights)
    return jax.tree.map(lambda x: jnp.asarray(x)[index], data)


def drawn_rows(
    count: int, rows: int, key: PRNGKeyArray, weights: Float[Array, " row"] | None = None
) -> Int[Array, " drawn"]:
    """Which so many of `count` rows are drawn, with replacement, uniformly or by weight."""
    if weights is None:
        return jax.random.randint(key, (rows,), 0, count)
    total = jnp.cumsum(weights)
    place = total[-1] * (1.0 - jax.random.uniform(key, (rows,)))
    return jnp.searchsorted(total, place)


class AbstractWriting(AbstractSource[Int[Array, ""], Completions]):
    """A source of responses that the policy writes, judged by a reward or not yet."""

    @abc.abstractmethod
    def write(
        self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Completions, Bool[Array, "*batch position"]]:
        """As `draw`, but not judged; and where the whole response of each text is, which is what
        rewards are about, whoever chose its first tokens."""


class SampledCompletions(AbstractWriting):
    """Responses of the current policy to prompts, with rewards: `[prompt, sample, position]`.

    **Arguments:** `prompts`: a batch is drawn from them with replacement; `reward`: if given, of
    whole responses or of their parts, which then add up to that of the whole; `rows`: prompts in a
    batch; `samples`: responses to each; `new_tokens`: in a response at most;
    `end`: the token, or tokens, that end it; `temperature`: of the policy; `policy`: who writes, if
    not the policy that learns; `restrictions`: on what is drawn from, of which log-probabilities
    know nothing, as in TRL.
    """

    prompts: Prompts
    reward: AbstractCompletionReward | AbstractTokenReward | None = None
    policy: AbstractTokenNetwork | None = None
    temperature: float = 1.0
    rows: int = eqx.field(static=True, default=16)
    samples: int = eqx.field(static=True, default=4)
    new_tokens: int = eqx.field(static=True, default=16)
    end: int | tuple[int, ...] = eqx.field(static=True, default=-1)
    restrictions: Restrictions = eqx.field(static=True, default=Restrictions())

    def init(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    def draw(
        self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Completions]:
        state, data, _ = self.write(state, agent, key=key)
        return state, rewarded(data, self.reward)

    def write(self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray):
        prompt_key, key = jax.random.split(key)
        prompts = drawn(self.prompts, self.rows, prompt_key)
        data = generate(
            agent.network(explore=True) if self.policy is None else self.policy,
            prompts,
            self.new_tokens,
            key=key,
            end=self.end,
            samples=self.samples,
            temperature=self.temperature,
            restrictions=self.restrictions,
        )
        return state + self.rows * self.samples, data, data.response

    def environment_steps(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return state


class WeightedRewards(AbstractCompletionReward):
    """The weighted sum of several rewards of whole responses.

    **Arguments:** `parts`; `weights`: one for each. Raises `SpecificationError` if they are not as
    many, or none.
    """

    parts: tuple[AbstractCompletionReward, ...]
    weights: Float[Array, " part"]

    def __check_init__(self):
        if not self.parts or self.weights.shape != (len(self.parts),):
            raise SpecificationError(
                f"{len(self.parts)} rewards need a weight each, not weights of shape "
                f"{list(self.weights.shape)}"
            )

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        return jnp.tensordot(self.weights, jnp.stack([part(data) for part in self.parts]), 1)


def rewarded(
    data: Completions,
    reward: AbstractCompletionReward | AbstractTokenReward | None,
    whole: Bool[Array, "*batch position"] | None = None,
) -> Completions:
    """The same texts, judged; `whole`: where their responses are, if not all was chosen."""
    if reward is None:
        return data
    found = reward(data if whole is None else Completions(data.tokens, whole))
    if isinstance(reward, AbstractTokenReward):
        total = jnp.sum(found, axis=-1)
        return Completions(
            data.tokens, data.response, total, data.log_probability, token_reward=found
        )
    return Completions(data.tokens, data.response, found, data.log_probability)
