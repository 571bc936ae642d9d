"""How far the reward that DPO implies carries to responses that it was not trained on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import AbstractHiddenStates, AbstractTokenNetwork, TokenProblem
from headwater.evaluation.preferences import explicit_accuracy, implicit_accuracy
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.comparisons.reward_model import RewardModel
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_WORDS, _WIDTH, _PAIRS = 60, 16, 400


class Reader(AbstractTokenNetwork, AbstractHiddenStates):
    """A frozen state for every token that was read, and a trained unembedding.

    **Arguments:** `states`: what is read off after each token; `output`: of each token.
    """

    states: Float[Array, "vocabulary width"]
    output: Float[Array, "vocabulary width"]
    vocabulary: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self, states: Float[Array, "vocabulary width"], output: Float[Array, "vocabulary width"]
    ):
        self.states, self.output = states, output
        self.vocabulary, self.width = states.shape
        self.context = 2

    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        return self.states[tokens]

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return hidden @ self.output.T

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.unembed(self.hidden(tokens))

    def trainable(self):
        everything = jax.tree.map(eqx.is_inexact_array, self)
        return eqx.tree_at(lambda x: x.states, everything, False)


def _answers(words) -> Completions:
    tokens = jnp.stack([jnp.full_like(words, _WORDS), words], axis=-1)
    return Completions(tokens, jnp.broadcast_to(jnp.asarray([False, True]), tokens.shape))


def _pairs(good, low: int, high: int, bad_low: int, bad_high: int, key) -> CompletionComparisons:
    """Good words out of one range preferred to bad ones out of another."""
    places = jnp.arange(_WORDS)

    def words(key, wanted, low, high):
        weight = jnp.where(wanted & (places >= low) & (places < high), 0.0, -jnp.inf)
        return jax.random.categorical(key, weight, shape=(_PAIRS,)).astype(jnp.int32)

    first, second = jax.random.split(key)
    return CompletionComparisons(
        _answers(words(first, good, low, high)), _answers(words(second, ~good, bad_low, bad_high))
    )


def _accuracies(noise: float, updates: int, key):
    """Implicit and explicit accuracy in training's range, with new winners, with all words new."""
    keys = jax.random.split(key, 8)
    half = _WORDS // 2
    # Every other word is good; a paraphrase means what the word half the list before means.
    good = jnp.arange(_WORDS) % 2 == 0
    meaning = jax.random.normal(keys[0], (_WIDTH,))
    meaning = meaning / jnp.linalg.norm(meaning)
    states = noise * jax.random.normal(keys[1], (_WORDS + 1, _WIDTH))
    sign = jnp.append(jnp.where(good, 1.0, -1.0), 0.0)
    states = states + sign[:, None] * meaning[None]
    output = 0.1 * jax.random.normal(keys[2], (_WORDS + 1, _WIDTH))
    task = TokenProblem(Reader(states, output))
    train = _pairs(good, 0, half, 0, half, keys[3])
    tests = [
        _pairs(good, 0, half, 0, half, keys[4]),
        _pairs(good, half, _WORDS, 0, half, keys[5]),
        _pairs(good, half, _WORDS, half, _WORDS, keys[6]),
    ]
    source = CompletionReplay(train, rows=64)
    policy = DPO(learning_rate=0.01)
    tuned = learn(policy, task, source, updates, key=keys[7]).state
    implicit = [implicit_accuracy(tuned.network, task.network, test) for test in tests]
    scorer = RewardModel(learning_rate=0.01)
    agent = Agent(scorer, learn(scorer, task, source, updates, key=keys[7]).state)
    explicit = [explicit_accuracy(agent, test) for test in tests]
    return jnp.stack([jnp.stack(implicit), jnp.stack(explicit)])


def _experiment(seed: int, instances: int, updates: int, noise: float) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    each = jax.jit(jax.vmap(lambda key: _accuracies(noise, updates, key)))
    implicit, explicit = np.moveaxis(np.asarray(each(keys), np.float64), 1, 0)
    gap = np.abs(implicit - explicit)[:, 0]
    criteria = (
        Criterion("difference on words of training", mean_of(gap), at_most=0.05),
        Criterion(
            "explicit less implicit accuracy, all words new",
            mean_of(explicit[:, 2] - implicit[:, 2]),
            at_least=0.1,
        ),
    )
    numbers = {
        "implicit accuracy, by shift": implicit.mean(0).tolist(),
        "explicit accuracy, by shift": explicit.mean(0).tolist(),
    }
    curves = {
        "implicit": ([0.0, 0.5, 1.0], implicit),
        "explicit": ([0.0, 0.5, 1.0], explicit),
    }
    return Finding(criteria, numbers, curves, "share of new words", "accuracy")


CLAIMS = (
    Claim(
        name="implicit-rewards-do-not-carry",
        statement=(
            "On words of training DPO's implicit reward and a reward model are right equally "
            "often, within 0.05; on paraphrases, whose meaning only the state after reading shows, "
            "the reward model is better by at least 0.1."
        ),
        methods=("DPO", "RewardModel"),
        paper="lin2024limited",
        where="its comparison under five shifts of distribution, where the gap is 3 % on average",
        scales={
            "smoke": {"instances": 4, "updates": 100, "noise": 0.7},
            "small": {"instances": 20, "updates": 600, "noise": 0.7},
        },
        experiment=_experiment,
        learned=(
            "The mechanism in its purest form: here the policy knows a response by its tokens "
            "alone, so that on new ones it can only guess; real networks share more and lose less."
        ),
    ),
)
