"""A small model's fine-tuning and a large one's knowledge, put together while writing."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.decoding.emulated_fine_tuning import emulated
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.tokens import next_log_probabilities
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_ASK, _ANSWER, _RAMBLES, _ANSWERS = 0, 1, 4, 20
_FIRST_ANSWER = 2 + _RAMBLES
_FIRST_ENTITY = _FIRST_ANSWER + _ANSWERS
_TUNED_ON, _DIRECT = 20, 0.02


def _texts(entity, fact, ramble, direct) -> Completions:
    """`ask, entity, (ramble,) answer, fact`; the response begins after the entity."""
    ask, mark = jnp.full_like(entity, _ASK), jnp.full_like(entity, _ANSWER)
    entity, fact = _FIRST_ENTITY + entity, _FIRST_ANSWER + fact
    short = jnp.stack([ask, entity, mark, fact, jnp.zeros_like(entity)], axis=-1)
    long = jnp.stack([ask, entity, 2 + ramble, mark, fact], axis=-1)
    place = jnp.arange(5)
    response = (place >= 2)[None] & (place[None] < jnp.where(direct, 4, 5)[:, None])
    return Completions(jnp.where(direct[:, None], short, long).astype(jnp.int32), response)


def _measured(network: AbstractTokenNetwork, facts):
    """Probability of the direct form, and share of facts that are known, on entities held out."""
    held = jnp.arange(_TUNED_ON, facts.shape[0])
    ask = jnp.full_like(held, _ASK)
    tokens = jnp.stack([ask, _FIRST_ENTITY + held, jnp.full_like(held, _ANSWER)], axis=-1)
    log_probabilities = next_log_probabilities(network.logits(tokens))
    direct = jnp.mean(jnp.exp(log_probabilities[:, 1, _ANSWER]))
    known = jnp.mean(jnp.argmax(log_probabilities[:, 2], axis=-1) == _FIRST_ANSWER + facts[held])
    return jnp.stack([direct, known.astype(jnp.float32)])


def _instance(entities: int, widths: tuple[int, int], learning: int, tuning: int, key):
    keys = jax.random.split(key, 8)
    facts = jax.random.randint(keys[0], (entities,), 0, _ANSWERS)
    entity = jnp.tile(jnp.arange(entities), 20)
    ramble = jax.random.randint(keys[1], entity.shape, 0, _RAMBLES)
    direct = jax.random.bernoulli(keys[2], _DIRECT, entity.shape)
    corpus = CompletionReplay(_texts(entity, facts[entity], ramble, direct), rows=256)
    shown = jnp.arange(_TUNED_ON)
    lesson = _texts(shown, facts[shown], jnp.zeros_like(shown), jnp.ones(_TUNED_ON, bool))
    networks = {}
    for i, (size, width) in enumerate(zip(("small", "large"), widths)):
        shape = Architecture(_FIRST_ENTITY + entities, 5, width=width, layers=1, heads=2)
        begun = Decoder(shape, key=keys[3 + i], deviation=width**-0.5)
        read = SFT(learning_rate=1e-2, decay_updates=float(learning))
        base = learn(read, TokenProblem(begun), corpus, learning, key=keys[5]).state.network
        tune = SFT(learning_rate=3e-3)
        tuned = learn(
            tune, TokenProblem(base), CompletionReplay(lesson, rows=None), tuning, key=keys[6]
        ).state.network
        networks |= {size: base, f"tuned {size}": tuned}
    networks |= {
        "scaled up": emulated(networks["large"], networks["tuned small"], networks["small"]),
        "scaled down": emulated(networks["small"], networks["tuned large"], networks["large"]),
    }
    return {name: _measured(network, facts) for name, network in networks.items()}


def _experiment(
    seed: int, instances: int, entities: int, widths: tuple[int, int], learning: int, tuning: int
) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    each = jax.jit(
        lambda: jax.lax.map(lambda k: _instance(entities, widths, learning, tuning, k), keys)
    )
    found = {name: np.asarray(x, np.float64) for name, x in each().items()}
    form, knowledge = ({name: x[:, i] for name, x in found.items()} for i in (0, 1))
    criteria = (
        Criterion("direct form, large before tuning", mean_of(form["large"]), at_most=0.05),
        Criterion(
            "direct form, scaled up over tuned small",
            mean_of(form["scaled up"] / form["tuned small"]),
            at_least=0.7,
        ),
        Criterion(
            "facts known, scaled up less tuned small",
            mean_of(knowledge["scaled up"] - knowledge["tuned small"]),
            at_least=0.2,
        ),
    )
    numbers = {
        name: {"direct form": float(x[:, 0].mean()), "facts known": float(x[:, 1].mean())}
        for name, x in found.items()
    }
    return Finding(criteria, numbers)


CLAIMS = (
    Claim(
        name="emulated-fine-tuning-adds-form-to-knowledge",
        statement=(
            "A large model with a small one's fine-tuning added while it writes has at least 0.7 "
            "of the tuned small model's form and knows at least 0.2 more of the facts, without "
            "having been trained on that form."
        ),
        methods=("SFT",),
        paper="mitchell2024emulator",
        where="the abstract: helpfulness from fine-tuning, factuality from pre-training",
        scales={
            "smoke": {
                "instances": 1,
                "entities": 100,
                "widths": (4, 16),
                "learning": 150,
                "tuning": 20,
            },
            "small": {
                "instances": 3,
                "entities": 600,
                "widths": (4, 64),
                "learning": 1200,
                "tuning": 60,
            },
        },
        experiment=_experiment,
        learned=(
            "The share of the form that is carried over is close to its bound at three seeds (0.71 "
            "with an interval on both sides of 0.7); the gain in facts is two or three times its "
            "bound. Small models of other widths were not tried."
        ),
    ),
)
