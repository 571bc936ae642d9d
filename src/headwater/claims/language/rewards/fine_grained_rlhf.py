"""What it is worth to know which part of a response was good, and what weights of judges do."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.tokens import Prompts, TokenProblem
from headwater.environments.language.segment_rewards import SegmentPattern, WeightedParts
from headwater.evaluation.tuning import choose
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.methods.language.rewards.fine_grained_rlhf import FineGrainedRLHF
from headwater.methods.language.rewards.token_ppo import TokenPPO
from headwater.networks.token_table import PositionTable
from headwater.ops.language.tokens import next_log_probabilities
from headwater.runs.learn import learn
from headwater.sources.language.completions import SampledCompletions

_VOCABULARY, _SIZE, _ROWS = 6, 3, 64
_PAPER = "wu2023fine"
_PROMPT = Prompts(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
_METHODS = {"parts": FineGrainedRLHF, "whole": TokenPPO}


def _good(network, pattern):
    """The share of stretches that have two or three tokens of the pattern, exactly."""
    texts = jnp.zeros((1, 1 + pattern.shape[0]), jnp.int32)
    policy = jnp.exp(next_log_probabilities(network.logits(texts)))[0, :-1]
    right = policy[jnp.arange(pattern.shape[0]), pattern].reshape(-1, _SIZE)
    all_right = jnp.prod(right, axis=-1)
    each_wrong = [
        (1.0 - right[:, i]) * right[:, (i + 1) % _SIZE] * right[:, (i + 2) % _SIZE]
        for i in range(_SIZE)
    ]
    return jnp.mean(all_right + sum(each_wrong))


def _learned(cls, reward, length: int, updates: int, rate, kl_weight: float, evaluate, key):
    """What `evaluate` finds of the network after each update, `[update …]`."""
    method = cls(
        kl_weight=kl_weight,
        temperature=1.0,
        value_weight=1.0,
        warmup_updates=0.0,
        whiten_rewards=True,
    )
    method = with_numbers(method, learning_rate=rate)
    source = SampledCompletions(_PROMPT, reward, rows=1, samples=_ROWS, new_tokens=length)
    task = TokenProblem(PositionTable(_VOCABULARY, 1 + length))
    found = learn(
        method,
        task,
        source,
        updates,
        evaluate=lambda agent: evaluate(agent.network()),
        every=1,
        key=key,
    )
    return found.evaluations[1:]


def _taught(
    seed: int, segments: tuple[int, ...], rates: tuple[float, ...], updates: int, runs: int
) -> tuple[dict[tuple[str, int], np.ndarray], dict, dict]:
    """The share of good parts after each update, `[run, update]`, by reward and number of parts.

    **Returns:** it, and the numbers and curves of a `Finding`.
    """
    tuning, testing = jax.random.split(jax.random.key(seed), (2, runs))
    found: dict[tuple[str, int], np.ndarray] = {}
    chosen = {}
    for name, cls in _METHODS.items():
        for count in dict.fromkeys(segments):
            length = _SIZE * count

            def one(rate, key, cls=cls, length=length):
                pattern_key, key = jax.random.split(key)
                pattern = jax.random.randint(pattern_key, (length,), 0, _VOCABULARY)
                judge = SegmentPattern(pattern)
                good = lambda network: _good(network, pattern)
                return _learned(cls, judge, length, updates, rate, 0.01, good, key)

            def each(rates, keys, one=one):
                return jax.lax.map(lambda rate: jax.vmap(lambda key: one(rate, key))(keys), rates)

            run = jax.jit(each)
            tried = np.asarray(run(jnp.asarray(rates), tuning), np.float64)
            # Each has the rate with which most parts are good over the whole time, on other
            # patterns.
            best = choose(tried.mean(axis=2), largest=True)
            chosen[f"{name}, {count} parts"] = rates[best]
            tested = run(jnp.asarray(rates[best : best + 1]), testing)
            found[name, count] = np.asarray(tested, np.float64)[0]
    ends = {f"{name}, {count} parts": float(x[:, -1].mean()) for (name, count), x in found.items()}
    numbers = {"rates": chosen, "share of good parts in the end": ends}
    curves = {
        f"{name}, {count} parts": (list(range(1, updates + 1)), x)
        for (name, count), x in found.items()
    }
    return found, numbers, curves


def _in_the_end(
    seed: int, segments: tuple[int, int], rates: tuple[float, ...], updates: int, runs: int
) -> Finding:
    found, numbers, curves = _taught(seed, segments, rates, updates, runs)
    few, many = segments
    last = {place: x[:, -1] for place, x in found.items()}
    criteria = (
        Criterion(f"{many} parts, each rewarded", mean_of(last["parts", many]), at_least=0.9),
        Criterion(f"{many} parts, one reward", mean_of(last["whole", many]), at_most=0.6),
        Criterion(f"{few} parts, each rewarded", mean_of(last["parts", few]), at_least=0.9),
        Criterion(f"{few} parts, one reward", mean_of(last["whole", few]), at_least=0.9),
    )
    return Finding(criteria, numbers, curves, "updates", "share of good parts")


def _sooner(seed: int, segments: int, rates: tuple[float, ...], updates: int, runs: int) -> Finding:
    found, numbers, curves = _taught(seed, (segments,), rates, updates, runs)
    needed = {name: _updates_to(0.9, found[name, segments]) for name in _METHODS}
    good = f"updates until 0.9 of {segments} parts are good"
    what = f"{good}, with one reward over with each rewarded"
    criteria = (Criterion(what, mean_of(needed["whole"] / needed["parts"]), at_least=2.0),)
    numbers["updates"] = {name: float(x.mean()) for name, x in needed.items()}
    return Finding(criteria, numbers, curves, "updates", "share of good parts")


def _updates_to(share: float, curves: np.ndarray) -> np.ndarray:
    """The first update after which so many parts are good, or one more than there were."""
    reached = curves >= share
    return np.where(reached.any(1), 1 + reached.argmax(1), 1 + curves.shape[1])


def _weights(
    seed: int, segments: int, weights: tuple[float, ...], rate: float, updates: int, runs: int
) -> Finding:
    length = _SIZE * segments

    def one(weight, key):
        pattern_key, key = jax.random.split(key)
        first = jax.random.randint(pattern_key, (length,), 0, _VOCABULARY)
        patterns = first, (first + 1) % _VOCABULARY
        judges = tuple(SegmentPattern(pattern) for pattern in patterns)
        reward = WeightedParts(judges, jnp.stack([weight, 1.0 - weight]))

        def both(network):
            return jnp.stack([_good(network, pattern) for pattern in patterns])

        return _learned(FineGrainedRLHF, reward, length, updates, rate, 0.3, both, key)

    keys = jax.random.split(jax.random.key(seed), runs)
    each = jax.jit(lambda w: jax.lax.map(lambda w: jax.vmap(lambda key: one(w, key))(keys), w))
    found = np.asarray(each(jnp.asarray(weights)), np.float64)[:, :, -1]
    share = found[..., 0] / found.sum(-1)
    criteria = tuple(
        Criterion(
            f"share of the first kind, at weight {after:g} less at {before:g}",
            mean_of(share[i + 1] - share[i]),
            at_least=0.0,
        )
        for i, (before, after) in enumerate(itertools.pairwise(weights))
    )
    means = {f"{w:g}": [float(x) for x in found[i].mean(0)] for i, w in enumerate(weights)}
    return Finding(criteria, {"parts of either kind, by weight of the first": means})


CLAIMS = (
    Claim(
        name="rewards-of-parts-teach-long-responses",
        statement=(
            "In responses of 16 parts that are good or bad, a reward where each part ends makes at "
            "least 0.9 of the parts good after 100 updates, where the same rewards added up at the "
            "end make at most 0.6 of them good; in responses of 2 parts both reach 0.9."
        ),
        methods=("FineGrainedRLHF", "TokenPPO"),
        paper=_PAPER,
        where="section 3: dense rewards need fewer samples than one of the whole response",
        scales={
            "smoke": {"segments": (2, 2), "rates": (0.1,), "updates": 5, "runs": 3},
            "small": {"segments": (2, 16), "rates": (0.03, 0.1, 0.3), "updates": 100, "runs": 5},
        },
        experiment=_in_the_end,
        learned=(
            "Fails: at the best of three rates the one reward makes all parts good too, in less "
            "than 100 updates of four epochs each. The bound is that of a prototype with one plain "
            "step for each batch. What parts save is claimed in updates below."
        ),
    ),
    Claim(
        name="rewards-of-parts-halve-the-updates",
        statement=(
            "Until 0.9 of 16 parts are good, one reward for the whole response takes at least "
            "twice as many updates as a reward where each part ends, at the best rate for either."
        ),
        methods=("FineGrainedRLHF", "TokenPPO"),
        paper=_PAPER,
        where="section 3: dense rewards need fewer samples than one of the whole response",
        scales={
            "smoke": {"segments": 2, "rates": (0.1,), "updates": 5, "runs": 3},
            "small": {"segments": 16, "rates": (0.03, 0.1, 0.3), "updates": 100, "runs": 5},
        },
        experiment=_sooner,
    ),
    Claim(
        name="weights-of-judges-steer-what-is-written",
        statement=(
            "Of two kinds of good parts that exclude each other, the share of the first rises with "
            "the weight of its judge, from 0.3 to 0.5 and from 0.5 to 0.7."
        ),
        methods=("FineGrainedRLHF",),
        paper=_PAPER,
        where="section 4.3: weights of reward models change what the policy does",
        scales={
            "smoke": {
                "segments": 2,
                "weights": (0.3, 0.5, 0.7),
                "rate": 0.1,
                "updates": 5,
                "runs": 3,
            },
            "small": {
                "segments": 4,
                "weights": (0.3, 0.5, 0.7),
                "rate": 0.1,
                "updates": 100,
                "runs": 5,
            },
        },
        experiment=_weights,
    ),
)
