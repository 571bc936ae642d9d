"""What held-out texts say of a language model while it learns."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractCompletionScorer, AbstractMethod, AbstractTokenPolicy
from headwater.core.records import CompletionComparisons, Completions, LabelledCompletions
from headwater.core.tokens import (
    AbstractAdapted,
    AbstractCompletionReward,
    AbstractTokenNetwork,
    Prompts,
    TokenProblem,
)
from headwater.ops.language.generation import generate
from headwater.ops.language.log_ratios import log_ratio, log_ratios
from headwater.ops.language.packing import lengths_to_read
from headwater.ops.language.tokens import lengths, token_log_probabilities
from headwater.runs.feeds.flow import HeldOut
from headwater.sources.language.host_rewards import AbstractHostReward

_ROWS = 64
"""Texts that are looked at together, so that logits of all of them need no room at once."""


class HeldOutScores:
    """Evaluates a language model on held-out rows: for `run(evaluate=…)`.

    Of texts the log-likelihood of each response, a token on average; of comparisons whether the
    chosen response gains more over the model as it was (or is rated higher); of labelled texts
    whether a desirable response became likelier than it was, or an undesirable one less likely (or
    whether its label is the more probable one); of prompts the rewards of the model's own
    responses. More is better.

    **Arguments:** `held_out`; `problem`: what the method began with; `new_tokens`, `temperature`:
    of responses.
    """

    def __init__(
        self, held_out: HeldOut, problem: TokenProblem, *, new_tokens: int, temperature: float
    ):
        self._held_out, self._problem = held_out, problem
        self._new_tokens, self._temperature = new_tokens, temperature

    def __call__(self, method: AbstractMethod, states: Any, key: PRNGKeyArray) -> np.ndarray:
        """A score for each seed and row, `[seed, row]`."""
        count = jax.tree.leaves(states)[0].shape[0]
        scores = []
        for seed in range(count):
            state = jax.tree.map(lambda leaf, i=seed: leaf[i], states)
            scores.append(self._of_seed(method, state, key))
        return np.stack(scores)

    def _of_seed(self, method: AbstractMethod, state: Any, key: PRNGKeyArray) -> np.ndarray:
        data, reward = self._held_out
        if reward is None and isinstance(method, AbstractCompletionScorer):
            if isinstance(data, LabelledCompletions):
                rated = by_rows(_rated, (method, state), data.completions, unpadded=True)
                return 0.5 * (1.0 + np.sign(rated) * np.where(data.desirable, 1.0, -1.0))
            assert isinstance(data, CompletionComparisons)
            chosen, rejected = (
                by_rows(_rated, (method, state), part, unpadded=True)
                for part in (data.chosen, data.rejected)
            )
            return 0.5 * (1.0 + np.sign(chosen - rejected))
        if not isinstance(method, AbstractTokenPolicy):
            raise SpecificationError(f"{type(method).__name__} writes no text to be evaluated")
        return self.of_network(method.network(state), key)

    def of_network(self, network: AbstractTokenNetwork, key: PRNGKeyArray) -> np.ndarray:
        """The score of each row, `[row]`, of a network that writes texts."""
        data, reward = self._held_out
        if isinstance(data, Prompts):
            fixed = (network, key, self._new_tokens, self._problem.end, self._temperature)
            written = by_rows(_written, fixed, data)
            if isinstance(reward, AbstractHostReward):
                return reward.rewards(written.tokens, written.response)
            return by_rows(rewarded, reward, written)
        if isinstance(data, CompletionComparisons | LabelledCompletions):
            before = self._problem.network
            if isinstance(before, AbstractAdapted):
                before = before.without_adapters()
            compared = isinstance(data, CompletionComparisons)
            function = _agrees if compared else _moved
            return by_rows(function, (network, before), data, unpadded=True)
        texts = Completions(data.tokens, data.response)
        return by_rows(_likelihood, network, texts, unpadded=True)


def by_rows(function: Any, fixed: Any, data: Any, *, unpadded: bool = False) -> Any:
    """`function(fixed, rows)` of some rows at a time, compiled once.

    **Arguments:** `function`: of the top level of a module; `fixed`: what it needs besides;
    `unpadded`: texts of about the same length are looked at together, without the padding behind
    all of them; what comes back must not depend on the width.

    **Returns:** what it gives for all rows, as NumPy arrays.
    """
    count = jax.tree.leaves(data)[0].shape[0]
    lengths = _lengths(data) if unpadded else None
    order = np.arange(count) if lengths is None else np.argsort(lengths, kind="stable")
    parts = []
    for start in range(0, count, _ROWS):
        index = order[np.minimum(np.arange(start, start + min(_ROWS, count)), count - 1)]
        part = jax.tree.map(lambda x, index=index: jnp.asarray(x)[index], data)
        if lengths is not None:
            # Powers of two, so that there are few programs.
            width = max(16, 1 << (int(lengths[index].max()) - 1).bit_length())
            part = jax.tree.map(lambda x, width=width: x[:, :width] if x.ndim > 1 else x, part)
        parts.append(_apply(function, fixed, part))
    back = np.argsort(order, kind="stable")
    return jax.tree.map(lambda *x: np.concatenate(x)[:count][back], *parts)


def _lengths(data: Any) -> np.ndarray:
    """Tokens of each text, or of the longer one of each pair, up to the last of its response."""
    if isinstance(data, CompletionComparisons):
        return np.maximum(_lengths(data.chosen), _lengths(data.rejected))
    texts = data.completions if isinstance(data, LabelledCompletions) else data
    return lengths_to_read(np.asarray(texts.response))


@eqx.filter_jit
def _apply(function, fixed, part):
    return function(fixed, part)


def _likelihood(network: AbstractTokenNetwork, data: Completions):
    total = jnp.sum(token_log_probabilities(network, data), axis=-1)
    return total / jnp.maximum(lengths(data), 1)


def _agrees(networks, data: CompletionComparisons):
    network, before = networks
    chosen, rejected = log_ratios(network, before, data)
    return 0.5 * (1.0 + jnp.sign(chosen.ratio - rejected.ratio))


def _moved(networks, data: LabelledCompletions):
    network, before = networks
    change = jnp.sign(log_ratio(network, before, data.completions).ratio)
    return 0.5 * (1.0 + jnp.where(data.desirable, change, -change))


def _rated(learned, data: Completions):
    method, state = learned
    return method.rate(state, data)


def rewarded(reward: AbstractCompletionReward, data: Completions):
    """What `reward` gives for each text: for `by_rows`."""
    return reward(data)


def _written(fixed, prompts: Prompts):
    network, key, new_tokens, end, temperature = fixed
    return generate(network, prompts, new_tokens, key=key, end=end, temperature=temperature)
