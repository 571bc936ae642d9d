"""Writing towards a reward: each likely next token is judged by what could come after it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import (
    AbstractCompletionReward,
    AbstractTokenNetwork,
    Prompts,
    position_mask,
)
from headwater.ops.language.generation import generate, reader_of
from headwater.ops.language.tokens import next_log_probabilities

Number = float | Float[Array, ""]


class RolloutValues(eqx.Module):
    """What a next token is worth: the mean reward of texts that a policy writes after it.

    **Arguments:** `policy`: who goes on; `reward`: of the text in the end; `new_tokens`: how many
    tokens are written at most, 0 to judge the text as it stands after the token; `samples`: texts
    for each token; `greedy`: whether the policy writes its likeliest tokens; `baseline_reward`:
    what the policy was aligned with, if not with `reward`: texts are then weighted in proportion to
    exp((reward - baseline_reward) / `baseline_temperature`), as a policy aligned with `reward`
    would write them, for which several samples are needed; `baseline_temperature`: the weight of KL
    in that alignment.

    Raises `SpecificationError` if numbers of tokens and samples do not fit together.
    """

    policy: AbstractTokenNetwork
    reward: AbstractCompletionReward
    baseline_reward: AbstractCompletionReward | None = None
    baseline_temperature: Number = 1.0
    new_tokens: int = eqx.field(static=True, default=20)
    samples: int = eqx.field(static=True, default=1)
    greedy: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.new_tokens < 0 or self.samples < 1:
            raise SpecificationError(
                f"roll-outs have at least 0 new tokens and 1 sample, not {self.new_tokens} and "
                f"{self.samples}"
            )
        if self.baseline_reward is not None and self.samples < 2:
            raise SpecificationError(
                "weights compare several texts after the same token: take 2 samples or more where "
                "the policy was aligned with another reward"
            )

    def __call__(
        self,
        texts: Prompts,
        start: Array,
        end: int | tuple[int, ...],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, " row"]:
        """The value of each text, whose last token is the one in question.

        **Arguments:** `texts`: `[row, position]`, with room for all that may be written; `start`:
        where the response of each begins; `end`: the token that ends a response, or all that do.
        """
        rows, width = texts.tokens.shape
        last = texts.tokens[jnp.arange(rows), texts.length - 1]
        ended = jnp.isin(last, jnp.asarray(end, jnp.int32))
        written = generate(
            self.policy,
            texts,
            self.new_tokens,
            key=key,
            end=end,
            samples=self.samples,
            greedy=self.greedy,
            width=width,
        )
        # What is written after an ending token is not part of the text.
        stop = jnp.max(jnp.where(written.response, jnp.arange(width) + 1, 0), axis=-1)
        stop = jnp.where(ended[:, None], texts.length[:, None], stop)
        stop = jnp.maximum(stop, texts.length[:, None])
        whole = position_mask(jnp.broadcast_to(start[:, None], stop.shape), stop, width)
        data = Completions(written.tokens, whole)
        reward = self.reward(data)
        if self.baseline_reward is None:
            return jnp.mean(reward, axis=-1)
        excess = (reward - self.baseline_reward(data)) / self.baseline_temperature
        return jnp.sum(jax.nn.softmax(excess, axis=-1) * reward, axis=-1)


def transfer_q(
    aligned: AbstractTokenNetwork, reward: AbstractCompletionReward, **other
) -> RolloutValues:
    """Transfer Q*: values by texts of a policy that is already aligned with a reward.

    The values of the best policy are not known. Those of an aligned one are closer to them than
    those of the network that is guided (Chakraborty, Ghosal, Yin, Manocha, Wang, Bedi, Huang, 2024,
    arXiv:2405.20495).

    **Arguments:** `aligned`: with `reward`, or with `baseline_reward` among the `other` arguments
    of `RolloutValues`.
    """
    return RolloutValues(aligned, reward, **other)


def controlled_decoding(
    network: AbstractTokenNetwork, reward: AbstractCompletionReward, **other
) -> RolloutValues:
    """Values by texts of the network that is guided (Mudgal et al., 2024, arXiv:2310.17022).

    They are what the paper's prefix scorer is trained to predict.
    """
    return RolloutValues(network, reward, **other)


def reward_guided_search(
    network: AbstractTokenNetwork, reward: AbstractCompletionReward
) -> RolloutValues:
    """ARGS: the reward of the text so far, as if it ended (Khanov et al., arXiv:2402.01694)."""
    return RolloutValues(network, reward, new_tokens=0)


def guided(
    network: AbstractTokenNetwork,
    values: RolloutValues,
    prompts: Prompts,
    new_tokens: int,
    *,
    key: PRNGKeyArray,
    weight: Number = 1.0,
    top_k: int = 10,
    end: int | tuple[int, ...] = -1,
    greedy: bool = False,
) -> Completions:
    r"""Responses of a network whose likely tokens are chosen by what they lead to.

    $p(z|s) \propto \pi(z|s) \exp(w Q(s, z))$ over the `top_k` likeliest tokens $z$, where $Q$ is
    from `values`. Each token costs as many roll-outs as there are candidates and samples, and each
    of them reads the text anew.

    **Arguments:** `network`: π; `values`; `prompts`: a batch `[row]`; `new_tokens`: at most;
    `weight`: $w$, one over the weight of KL; `top_k`; `end`: the token that ends a response, or all
    that do; `greedy`: take the best token rather than draw one.

    **Returns:** `[row, position]`, with the log-probability of each token when it was chosen.

    Raises `SpecificationError` if the texts do not fit into a context, or if there are not so many
    tokens.
    """
    rows, prompt_width = prompts.tokens.shape
    width = prompt_width + new_tokens
    context = min(network.context, values.policy.context)
    if width > context:
        raise SpecificationError(
            f"prompts of {prompt_width} tokens and {new_tokens} new ones do not fit into a context "
            f"of {context}: take fewer new tokens, or shorter prompts"
        )
    if not 1 <= top_k <= network.vocabulary:
        raise SpecificationError(
            f"top_k = {top_k} must be between 1 and the {network.vocabulary} tokens that there are"
        )
    reader, row = reader_of(network), jnp.arange(rows)
    length = jnp.asarray(prompts.length)
    cache, logits = reader.read(jnp.asarray(prompts.tokens), length, width)
    tokens = jnp.pad(jnp.asarray(prompts.tokens), ((0, 0), (0, new_tokens)))
    tokens = jnp.where(position_mask(0 * length, length, width), tokens, 0)

    def one(carry):
        step, cache, logits, tokens, chosen, stop, done = carry
        draw_key, value_key = jax.random.split(jax.random.fold_in(key, step))
        place = length + step
        likely, candidates = jax.lax.top_k(next_log_probabilities(logits), top_k)
        texts = jnp.repeat(tokens[:, None], top_k, axis=1)
        texts = texts.at[row[:, None], jnp.arange(top_k)[None], place[:, None]].set(candidates)
        candidate_texts = Prompts(texts.reshape(-1, width), jnp.repeat(place + 1, top_k))
        found = values(candidate_texts, jnp.repeat(length, top_k), end, key=value_key)
        log_policy = jax.nn.log_softmax(likely + weight * found.reshape(rows, top_k), axis=-1)
        if greedy:
            index = jnp.argmax(log_policy, axis=-1)
        else:
            index = jax.random.categorical(draw_key, log_policy, axis=-1)
        token = candidates[row, index].astype(tokens.dtype)
        # Rows that have ended write beyond the end, where it is dropped.
        written = jnp.where(done, width, place)
        tokens = tokens.at[row, written].set(token, mode="drop")
        chosen = chosen.at[row, written].set(log_policy[row, index], mode="drop")
        stop = jnp.where(done, stop, place + 1)
        done = done | jnp.isin(token, jnp.asarray(end, jnp.int32))
        cache, logits = reader.read_one(cache, token, jnp.minimum(place, width - 1))
        return step + 1, cache, logits, tokens, chosen, stop, done

    def unfinished(carry):
        return (carry[0] < new_tokens) & ~jnp.all(carry[-1])

    first, nothing = jnp.zeros((), jnp.int32), jnp.zeros((rows, width), jnp.float32)
    carry = (first, cache, logits, tokens, nothing, length, jnp.zeros(rows, bool))
    _, _, _, tokens, chosen, stop, _ = jax.lax.while_loop(unfinished, one, carry)
    return Completions(tokens, position_mask(length, stop, width), None, chosen)
