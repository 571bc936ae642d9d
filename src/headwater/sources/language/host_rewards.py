"""What the policy writes, judged by Python functions that read it as text."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.source import AbstractHostSource, Keys
from headwater.core.tokens import AbstractCompletionReward
from headwater.sources.language.completion_pairs import in_order
from headwater.sources.language.completions import AbstractWriting

RewardFunction = Callable[..., Sequence[float]]
"""`reward(prompts=[…], completions=[…])`: a number for each text."""
JudgeFunction = Callable[..., Sequence[float]]
"""`judge(prompts=[…], first=[…], second=[…])`: how probably the first is preferred, for each."""


class AbstractHostReward(eqx.Module):
    """Judges whole responses on the host."""

    @abc.abstractmethod
    def rewards(self, tokens: Any, whole: Any) -> np.ndarray:
        """The reward of each text, `[…]` for tokens and responses `[…, position]`."""


class WeightedHostRewards(AbstractHostReward):
    """The weighted sum of several rewards, of which some are Python functions.

    **Arguments:** `parts`: `AbstractHostReward`, or rewards that are compiled; `weights`: one for
    each.
    """

    parts: tuple[AbstractHostReward | AbstractCompletionReward, ...]
    weights: tuple[float, ...] = eqx.field(static=True)

    def rewards(self, tokens: Any, whole: Any) -> np.ndarray:
        found = []
        for part in self.parts:
            if isinstance(part, AbstractHostReward):
                found.append(part.rewards(tokens, whole))
            else:
                found.append(np.asarray(_compiled(part, jnp.asarray(tokens), jnp.asarray(whole))))
        return np.tensordot(np.asarray(self.weights, np.float32), np.stack(found), 1)


class TextJudge(AbstractHostReward):
    """Asks a Python function about texts.

    **Arguments:** `function`: a `RewardFunction` or `JudgeFunction`; `decode`: tokens to text;
    `name`: of the function, for messages.
    """

    function: Callable[..., Sequence[float]] = eqx.field(static=True)
    decode: Callable[[np.ndarray], str] = eqx.field(static=True)
    name: str = eqx.field(static=True, default="reward")

    def rewards(self, tokens: Any, whole: Any) -> np.ndarray:
        """The reward of each text, `[…]` for tokens and responses `[…, position]`.

        Raises `SpecificationError` if the function fails, or gives anything but finite numbers.
        """
        prompts, completions = self._texts(np.asarray(tokens), np.asarray(whole))
        found = self._ask(len(prompts), prompts=prompts, completions=completions)
        return found.reshape(np.shape(tokens)[:-1])

    def preferences(self, tokens: Any, whole: Any) -> np.ndarray:
        """How probably the first of each pair is preferred, `[…]` for tokens `[…, 2, position]`.

        Raises `SpecificationError` as `rewards` does, and for what is no probability.
        """
        tokens, whole = np.asarray(tokens), np.asarray(whole)
        prompts, first = self._texts(tokens[..., 0, :], whole[..., 0, :])
        _, second = self._texts(tokens[..., 1, :], whole[..., 1, :])
        found = self._ask(len(prompts), prompts=prompts, first=first, second=second)
        if (found < 0.0).any() or (found > 1.0).any():
            raise SpecificationError(
                f"the judge {self.name} must give probabilities that the first is preferred, from "
                "0 to 1"
            )
        return found.reshape(tokens.shape[:-2])

    def _texts(self, tokens: np.ndarray, whole: np.ndarray) -> tuple[list[str], list[str]]:
        prompts, completions = [], []
        for row, mask in zip(
            tokens.reshape(-1, tokens.shape[-1]), whole.reshape(-1, whole.shape[-1])
        ):
            start = int(np.argmax(mask)) if mask.any() else len(row)
            prompts.append(self.decode(row[:start]))
            completions.append(self.decode(row[mask]))
        return prompts, completions

    def _ask(self, count: int, **texts: list[str]) -> np.ndarray:
        try:
            answer = self.function(**texts)
        # Whatever is wrong with it is the user's to know, and it is not to end all without a word.
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split())[:200]
            raise SpecificationError(
                f"{self.name} failed: {type(error).__name__}: {reason}"
            ) from error
        try:
            found = np.asarray(answer, np.float32)
        except (TypeError, ValueError):
            found = np.zeros(0, np.float32)
        if found.shape != (count,) or not np.isfinite(found).all():
            raise SpecificationError(
                f"{self.name} must give one finite number for each of the {count} texts, not "
                f"{str(answer)[:80]}"
            )
        return found


class HostRewarded(AbstractHostSource[Int[Array, " seed"], Completions]):
    """What the policy writes, with the rewards of a Python function.

    The function sees one batch of one seed at a time. The same as `writing` with a reward that is
    compiled, number for number; and as exact when it is resumed, as long as the function answers
    the same about the same texts.

    **Arguments:** `writing`: how responses come about; its own reward is not looked at; `judge`.
    """

    writing: AbstractWriting
    judge: AbstractHostReward

    def init(self, *, keys: Keys) -> Int[Array, " seed"]:
        return jnp.zeros(keys.shape[0], jnp.int32)

    def draw(self, state: Int[Array, " seed"], agent: Agent, *, keys: Keys):
        state, data, whole = _write(self.writing, agent.method, agent.state, state, keys)
        reward = [self.judge.rewards(*each) for each in zip(data.tokens, whole)]
        found = jnp.asarray(np.stack(reward))
        return state, Completions(data.tokens, data.response, found, data.log_probability)

    def save(self, state: Int[Array, " seed"]) -> dict[str, np.ndarray]:
        return {"written": np.asarray(state)}

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> Int[Array, " seed"]:
        return jnp.asarray(saved["written"])

    def environment_steps(self, state: Int[Array, " seed"]) -> int:
        return int(state[0])


class HostJudgedPairs(AbstractHostSource[Int[Array, " seed"], CompletionComparisons]):
    """Two fresh responses to each prompt, and which of them a Python function prefers.

    The host twin of `JudgedPairs`, number for number.

    **Arguments:** `writing`: with two samples; `judge`; `rewards`: the function gives rewards, by
    which the first is preferred with probability σ of the difference, rather than probabilities.
    """

    writing: AbstractWriting
    judge: AbstractHostReward
    rewards: bool = eqx.field(static=True, default=True)

    def init(self, *, keys: Keys) -> Int[Array, " seed"]:
        return jnp.zeros(keys.shape[0], jnp.int32)

    def draw(self, state: Int[Array, " seed"], agent: Agent, *, keys: Keys):
        write_keys, judge_keys = _two_keys(keys)
        state, data, whole = _write(self.writing, agent.method, agent.state, state, write_keys)
        found = []
        for tokens, mask in zip(data.tokens, whole):
            if self.rewards:
                reward = self.judge.rewards(tokens, mask)
                found.append(jax.nn.sigmoid(reward[..., 0] - reward[..., 1]))
            else:
                assert isinstance(self.judge, TextJudge)
                found.append(self.judge.preferences(tokens, mask))
        return state, _drawn_order(data, jnp.stack([jnp.asarray(f) for f in found]), judge_keys)

    def save(self, state: Int[Array, " seed"]) -> dict[str, np.ndarray]:
        return {"written": np.asarray(state)}

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> Int[Array, " seed"]:
        return jnp.asarray(saved["written"])

    def environment_steps(self, state: Int[Array, " seed"]) -> int:
        return int(state[0])


@eqx.filter_jit
def _compiled(reward: AbstractCompletionReward, tokens, whole):
    return reward(Completions(tokens, whole))


@eqx.filter_jit
def _write(writing, method, states, counts, keys):
    def one(mine):
        state, count, key = mine
        return writing.write(count, Agent(method, state), key=key)

    return jax.lax.map(one, (states, counts, keys))


@jax.jit
def _two_keys(keys):
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


@eqx.filter_jit
def _drawn_order(data, probability, keys):
    def one(data, probability, key):
        first, second = (jax.tree.map(lambda x, i=i: x[:, i], data) for i in (0, 1))
        return in_order(first, second, jax.random.bernoulli(key, probability))

    return jax.vmap(one)(data, probability, keys)
