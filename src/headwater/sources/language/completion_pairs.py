"""Pairs and groups of texts: judged by an oracle, chosen among many, stored beside fresh ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import (
    ComparisonsAndCompletions,
    CompletionComparisons,
    Completions,
)
from headwater.core.source import AbstractSource
from headwater.core.tokens import AbstractCompletionReward, AbstractPreference
from headwater.ops.language.tokens import lengths
from headwater.sources.language.completions import CompletionReplay, SampledCompletions


class BradleyTerry(AbstractPreference):
    """Prefers by a reward: with probability σ of the difference."""

    reward: AbstractCompletionReward

    def __call__(self, first: Completions, second: Completions) -> Float[Array, "*batch"]:
        return jax.nn.sigmoid(self.reward(first) - self.reward(second))


class JudgedPairs(AbstractSource[Int[Array, ""], CompletionComparisons]):
    """Two fresh responses to each prompt, and which of them a judge prefers.

    **Arguments:** `written`: how they are written, with two samples; without a `policy` of its own
    the method's exploring network writes; `preference`: the judge, whose answers are drawn.
    """

    written: SampledCompletions
    preference: AbstractPreference

    def __check_init__(self):
        if self.written.samples != 2:
            raise ValueError(f"a pair takes two samples, not {self.written.samples}")

    def init(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return self.written.init(key=key)

    def draw(
        self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], CompletionComparisons]:
        write_key, judge_key = jax.random.split(key)
        state, data = self.written.draw(state, agent, key=write_key)
        return state, judged(data, self.preference, key=judge_key)

    def environment_steps(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return self.written.environment_steps(state)


def judged(
    pairs: Completions, preference: AbstractPreference, *, key: PRNGKeyArray
) -> CompletionComparisons:
    """Asks the judge once about each pair `[row, 2, position]`."""
    first, second = (jax.tree.map(lambda x, i=i: x[:, i], pairs) for i in (0, 1))
    return in_order(first, second, jax.random.bernoulli(key, preference(first, second)))


def in_order(
    first: Completions, second: Completions, first_preferred: Bool[Array, "*batch"]
) -> CompletionComparisons:
    """Each pair with the preferred response as the chosen one."""

    def where(one, other):
        def pick(x, y):
            mask = first_preferred
            return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)

        return jax.tree.map(pick, one, other)

    return CompletionComparisons(where(first, second), where(second, first))


class BestOfN(AbstractSource[Int[Array, ""], Completions]):
    """Of several fresh responses to each prompt the best one, `[prompt, position]`.

    Training on the best of a fixed policy's responses is SFT-sharpening if the policy itself judges
    by its own log-probability, and rejection sampling if a reward does.

    **Arguments:** `written`: how they are written, with as many samples as there are to choose
    from; the best has the highest reward, or, where `written` has none, the highest log-probability
    under the policy that wrote it; `normalise_lengths`: log-probability for each token.
    """

    written: SampledCompletions
    normalise_lengths: bool = eqx.field(static=True, default=False)

    def init(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return self.written.init(key=key)

    def draw(
        self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], Completions]:
        state, data = self.written.draw(state, agent, key=key)
        if data.reward is None:
            assert data.log_probability is not None
            worth = jnp.sum(data.log_probability, axis=-1)
            if self.normalise_lengths:
                worth = worth / jnp.maximum(lengths(data), 1)
        else:
            worth = data.reward
        best, row = jnp.argmax(worth, axis=-1), jnp.arange(worth.shape[0])
        return state, jax.tree.map(lambda x: x[row, best], data)

    def environment_steps(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return self.written.environment_steps(state)


class ReplayAndSampled(AbstractSource[Int[Array, ""], ComparisonsAndCompletions]):
    """Stored comparisons, and beside them fresh responses of the current policy.

    **Arguments:** `stored`: comparisons; `written`.
    """

    stored: CompletionReplay
    written: SampledCompletions

    def init(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return self.written.init(key=key)

    def draw(
        self, state: Int[Array, ""], agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, ""], ComparisonsAndCompletions]:
        stored_key, key = jax.random.split(key)
        _, comparisons = self.stored.draw((), agent, key=stored_key)
        assert isinstance(comparisons, CompletionComparisons)
        state, completions = self.written.draw(state, agent, key=key)
        return state, ComparisonsAndCompletions(comparisons, completions)

    def environment_steps(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return self.written.environment_steps(state)
