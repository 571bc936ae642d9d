"""What resets into stored responses are for: a reward that chance would never find."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.method import AbstractMethod, Agent
from headwater.core.records import Completions
from headwater.core.tokens import (
    AbstractCompletionReward,
    AbstractHiddenStates,
    AbstractTokenNetwork,
    Prompts,
    TokenProblem,
    position_mask,
)
from headwater.evaluation.tuning import choose
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.methods.language.rewards.dr_po import DRPO
from headwater.methods.language.rewards.token_ppo import TokenPPO
from headwater.ops.language.tokens import token_log_probabilities
from headwater.runs.learn import learn
from headwater.sources.language.completions import SampledCompletions
from headwater.sources.language.resets import Resets

_TOKENS, _EPISODES = 4, 64
_SETTINGS: dict[str, Any] = {"kl_weight": 0.0, "value_weight": 1.0, "value_clip_range": 1e9}


class LockTable(AbstractTokenNetwork, AbstractHiddenStates):
    """A row of logits for each position and for whether the lock is still on its way to open.

    **Arguments:** `secret`: the tokens that open it, after a prompt of one token.
    """

    secret: Int[Array, " length"]
    table: Float[Array, "width token"]
    vocabulary: int = eqx.field(static=True)
    context: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, secret: Int[Array, " length"]):
        self.secret, self.vocabulary, self.context = secret, _TOKENS, len(secret) + 1
        self.width = 2 * self.context
        self.table = jnp.zeros((self.width, _TOKENS))

    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        said = tokens[..., 1:]
        wrong = said != jnp.broadcast_to(self.secret[: said.shape[-1]], said.shape)
        lost = jnp.cumsum(wrong, axis=-1) > 0
        lost = jnp.concatenate([jnp.zeros_like(tokens[..., :1], bool), lost], axis=-1)
        place = jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)
        return jax.nn.one_hot(2 * place + lost, self.width)

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return hidden @ self.table

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.unembed(self.hidden(tokens))


class Opens(AbstractCompletionReward):
    """One if all tokens are those of the secret, else nothing."""

    secret: Int[Array, " length"]

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        said = data.tokens[..., 1:]
        right = said == jnp.broadcast_to(self.secret, said.shape)
        return jnp.all(right, axis=-1).astype(jnp.float32)


def _opens(length: int, resets: bool, rate, updates: int, key):
    """Exact probability of opening the lock from the prompt, after training."""
    secret_key, right_key, wrong_key, key = jax.random.split(key, 4)
    secret = jax.random.randint(secret_key, (length,), 0, _TOKENS)
    # Fifty demonstrations, of which every token is right with probability 0.85.
    shape = (50, length)
    right = jax.random.bernoulli(right_key, 0.85, shape)
    other = jax.random.randint(wrong_key, shape, 1, _TOKENS)
    said = (jnp.broadcast_to(secret, shape) + jnp.where(right, 0, other)) % _TOKENS
    tokens = jnp.concatenate([jnp.zeros((50, 1), said.dtype), said], axis=1)
    one = jnp.ones(50, jnp.int32)
    stored = Completions(tokens, position_mask(one, one + length, length + 1))
    network, reward = LockTable(secret), Opens(secret)
    method: AbstractMethod
    if resets:
        method = DRPO(whiten_rewards=False, **_SETTINGS)
        # As likely from the prompt as from any other place.
        chance = 1.0 - 1.0 / length
        source = Resets(stored, reward, chance, rows=_EPISODES, samples=1, new_tokens=length)
    else:
        method = TokenPPO(**_SETTINGS)
        prompts = Prompts(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
        source = SampledCompletions(prompts, reward, rows=_EPISODES, samples=1, new_tokens=length)
    method = with_numbers(method, learning_rate=rate)
    state = learn(method, TokenProblem(network), source, updates, key=key).state
    learned = Agent(method, state).network()
    text = jnp.concatenate([jnp.zeros(1, secret.dtype), secret])
    whole = Completions(text, jnp.arange(length + 1) > 0)
    return jnp.exp(jnp.sum(token_log_probabilities(learned, whole)))


def _experiment(
    seed: int, lengths: tuple[int, ...], rates: tuple[float, ...], updates: int, runs: int
) -> Finding:
    root = jax.random.key(seed)
    tuning, testing = jax.random.split(root, (2, runs))
    criteria, numbers = [], {}
    for length in lengths:
        for name, resets in (("with resets", True), ("without", False)):

            def opened(keys, rates, length=length, resets=resets):
                return jax.lax.map(
                    lambda r: jax.vmap(lambda k: _opens(length, resets, r, updates, k))(keys), rates
                )

            each = jax.jit(opened)
            # Either has the rate that is best for it on other locks.
            tuned = np.asarray(each(tuning, jnp.asarray(rates)), np.float64)
            best = choose(tuned, largest=True)
            chance = np.asarray(each(testing, jnp.asarray(rates)), np.float64)[best]
            numbers[f"{length} tokens, {name}"] = {
                "rate": rates[best],
                "opens": float(chance.mean()),
            }
            what = f"chance to open {length} tokens {name}"
            if resets or length <= 4:
                criteria.append(Criterion(what, mean_of(chance), at_least=0.9))
            elif _TOKENS**length > 20 * _EPISODES * updates:
                # Else luck alone opens some: so many random texts hold the secret too often.
                criteria.append(Criterion(what, mean_of(chance), at_most=0.05))
    return Finding(tuple(criteria), numbers)


CLAIMS = (
    Claim(
        name="dr-po-opens-locks",
        statement=(
            "A lock of four, eight or ten tokens out of four, that pays only when all are right, "
            "is opened with probability above 0.9 by PPO on resets into fifty imperfect "
            "demonstrations; PPO from the prompt opens ten with less than 0.05, and four with 0.9."
        ),
        methods=("DRPO", "TokenPPO"),
        paper="chang2024dataset",
        where="a consequence: it competes with any policy that the stored responses cover",
        scales={
            "smoke": {"lengths": (8,), "rates": (0.3,), "updates": 100, "runs": 3},
            "small": {"lengths": (4, 8, 10), "rates": (0.1, 0.3), "updates": 400, "runs": 10},
        },
        experiment=_experiment,
        learned=(
            "With resets the locks of four and of eight tokens all opened, those of ten with a "
            "mean probability of 0.90 (0.60 to 1): nine of ten, it seems, and why not the tenth is "
            "not known. Resets must sometimes begin at the prompt. With the released code's "
            "setting, in which at least one token is always given, the first token is never the "
            "policy's own and stays as it was: the lock opens with probability 0.25. PPO from the "
            "prompt opened two of ten locks of eight tokens: 25,600 random texts hold the secret "
            "with probability 0.32."
        ),
    ),
)
