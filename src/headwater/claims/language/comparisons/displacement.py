"""Pairs that are alike lower what was chosen, and a score of hidden states that says which."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.analysis.displacement import ches, displacement
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.tokens import next_log_probabilities
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_TOPICS, _REST = 24, 3
_REFUSALS, _COMPLIANCES = (0.4, 0.3, 0.2, 0.1), (0.6, 0.4)
_REFUSED = 0.75
"""How often the first policy refuses."""
_OPENERS = len(_REFUSALS) + len(_COMPLIANCES)
_KINDS = _OPENERS
_WORDS = _KINDS + _TOPICS


def _texts(topic, opener) -> Completions:
    """Topic, opener, and words that depend on the topic and on whether it is a refusal."""
    refuses = (opener < len(_REFUSALS)).astype(jnp.int32)
    rest = [_WORDS + (5 * topic + 3 * i + 7 * refuses) % 16 for i in range(_REST)]
    tokens = jnp.stack([_KINDS + topic, opener, *rest], axis=-1).astype(jnp.int32)
    response = jnp.broadcast_to(jnp.arange(_REST + 2) > 0, tokens.shape)
    return Completions(tokens, response)


def _sampled_texts(rows: int, key) -> Completions:
    probabilities = np.concatenate(
        [_REFUSED * np.asarray(_REFUSALS), (1 - _REFUSED) * np.asarray(_COMPLIANCES)]
    )
    first, second = jax.random.split(key)
    topic = jax.random.randint(first, (rows,), 0, _TOPICS)
    opener = jax.random.categorical(second, jnp.log(jnp.asarray(probabilities)), shape=(rows,))
    return _texts(topic, opener)


def _refusals(network: AbstractTokenNetwork):
    """How often the policy refuses, over all topics."""
    prompts = (_KINDS + jnp.arange(_TOPICS))[:, None]
    probabilities = jnp.exp(next_log_probabilities(network.logits(prompts)[:, 0]))
    return jnp.mean(jnp.sum(probabilities[:, : len(_REFUSALS)], axis=-1))


def _pairs(key) -> tuple[CompletionComparisons, CompletionComparisons]:
    """For each topic a refusal preferred to another refusal, and one preferred to a compliance."""
    topic, count = jnp.arange(_TOPICS), len(_REFUSALS)
    keys = jax.random.split(key, 3)
    preferred = jax.random.randint(keys[0], topic.shape, 0, count)
    other = (preferred + jax.random.randint(keys[1], topic.shape, 1, count)) % count
    chosen, alike = _texts(topic, preferred), _texts(topic, other)
    comply = jax.random.randint(keys[2], topic.shape, 0, len(_COMPLIANCES))
    unlike = _texts(topic, count + comply)
    return CompletionComparisons(chosen, alike), CompletionComparisons(chosen, unlike)


def _instance(width: int, learning: int, updates: int, key):
    network_key, data_key, pair_key, key = jax.random.split(key, 4)
    shape = Architecture(_WORDS + 16, _REST + 2, width=width, layers=2, heads=2)
    network = Decoder(shape, key=network_key, deviation=0.1)
    texts = CompletionReplay(_sampled_texts(2048, data_key), rows=64)
    clone = SFT(learning_rate=3e-3, decay_updates=float(learning))
    base = learn(clone, TokenProblem(network), texts, learning, key=key).state.network
    alike, unlike = _pairs(pair_key)
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), alike, unlike)
    scores = ches(base, both, normalise_lengths=True)
    order = jnp.argsort(scores)
    share = 2 * _TOPICS // 5
    lowest, highest = (
        # As many rows as the others have, so that one program serves all.
        jax.tree.map(lambda x, at=at: x[at[jnp.arange(_TOPICS) % share]], both)
        for at in (order[:share], order[-share:])
    )
    method = DPO(learning_rate=3e-4)

    def refine(data, cloning):
        tuned = with_numbers(method, cloning_weight=cloning)
        task, source = TokenProblem(base), CompletionReplay(data, rows=None)
        after = learn(tuned, task, source, updates, key=key).state.network
        return displacement(after, base, data)[0].mean(), _refusals(after)

    sets = jax.tree.map(lambda *x: jnp.stack(x), alike, unlike, alike, lowest, highest)
    moved, refusals = jax.lax.map(
        lambda one: refine(*one), (sets, jnp.asarray([0.0, 0.0, 0.1, 0.0, 0.0]))
    )
    return {
        "score": jnp.stack([scores[:_TOPICS].mean(), scores[_TOPICS:].mean()]),
        "refusals before": _refusals(base),
        "moved": moved,
        "refusals": refusals,
    }


def _experiment(seed: int, instances: int, width: int, learning: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    each = jax.jit(lambda: jax.lax.map(lambda k: _instance(width, learning, updates, k), keys))
    found = {name: np.asarray(x, np.float64) for name, x in each().items()}
    alike, unlike, cloned, lowest, highest = found["refusals"].T
    before, moved = found["refusals before"], found["moved"].T
    criteria = (
        Criterion(
            "CHES of like pairs less of unlike ones",
            mean_of(found["score"][:, 0] - found["score"][:, 1]),
            at_least=0.0,
        ),
        Criterion("like pairs: change of log of chosen", mean_of(moved[0]), at_most=-1.0),
        Criterion("like pairs: change of refusals", mean_of(alike - before), at_most=0.0),
        Criterion("unlike pairs: change of log of chosen", mean_of(moved[1]), at_least=0.0),
        Criterion("unlike pairs: change of refusals", mean_of(unlike - before), at_least=0.0),
        Criterion(
            "like pairs with cloning: change of refusals", mean_of(cloned - before), at_least=0.0
        ),
        Criterion(
            "refusals with the lowest fifth of CHES less the highest",
            mean_of(lowest - highest),
            at_least=0.1,
        ),
    )
    numbers = {
        "refusals before": float(before.mean()),
        "refusals: like, unlike, like with cloning, lowest, highest": found["refusals"]
        .mean(0)
        .tolist(),
        "change of log of chosen": found["moved"].mean(0).tolist(),
        "CHES, like and unlike": found["score"].mean(0).tolist(),
    }
    return Finding(criteria, numbers)


CLAIMS = (
    Claim(
        name="like-pairs-displace-what-was-chosen",
        statement=(
            "DPO on pairs of two refusals lowers the log-probability of the chosen ones by more "
            "than 1, and with it how often the policy refuses, while pairs of a refusal and a "
            "compliance raise both; CHES is higher for the former, cloning with weight 0.1 mends "
            "it, and of mixed pairs the fifth with the lowest CHES ends with refusals at least "
            "0.1 above the fifth with the highest."
        ),
        methods=("DPO",),
        paper="razin2025unintentional",
        where="its experiments with refusals, on a decoder of two layers and 51 tokens",
        scales={
            "smoke": {"instances": 1, "width": 16, "learning": 150, "updates": 30},
            "small": {"instances": 4, "width": 48, "learning": 800, "updates": 60},
        },
        experiment=_experiment,
        learned=(
            "Refusals change as stated (0.75 before; 0.65 after like pairs, 0.96 after unlike "
            "ones, 0.93 and 0.66 with the lowest and the highest fifth of CHES), but after like "
            "pairs the chosen responses lose 0.4 nats on average, not 1, and with four networks "
            "the interval (-0.9 to 0.2) leaves even the sign open. Why they lose so little is not "
            "known."
        ),
    ),
)
