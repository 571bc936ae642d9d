"""Why rewards of all prompts come to be spread alike, and the utility that prevents it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import TokenProblem
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of
from headwater.methods.language.comparisons.reward_model import RewardModel
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_PAPER = "song2023reward"
_SHAPES = {
    "log x": (jnp.log, 0.5),
    "-1/x": (lambda x: -1.0 / x, 1.0),
    "x^0.5": (jnp.sqrt, 0.25),
    "-x^-0.5": (lambda x: -(x**-0.5), 0.75),
}
"""Utilities, and both parameters of the Beta law that n rewards approach."""


def _best_rewards(utility, count: int) -> np.ndarray:
    """The rewards in [0, 1] of so many ranked responses with the highest total utility."""
    from scipy.optimize import minimize

    first, second = np.triu_indices(count, 1)

    def loss(gaps):
        # The lowest is at 0 and the highest at 1: utilities rise.
        rewards = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(gaps))])
        return -jnp.mean(utility(rewards[second] - rewards[first])), rewards

    with jax.enable_x64(True):
        slope = jax.jit(jax.value_and_grad(lambda g: loss(g)[0]))
        # Gaps of the Beta laws are wide in the middle; equal ones are a fair beginning for all.
        found = minimize(
            lambda g: tuple(np.asarray(x, np.float64) for x in slope(jnp.asarray(g))),
            np.zeros(count - 1),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 3000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-9},
        )
        return np.asarray(loss(jnp.asarray(found.x))[1])


def _laws(seed: int, count: int, shapes: tuple[str, ...]) -> Finding:
    from scipy.stats import beta

    criteria, curves = [], {}
    places = (np.arange(count) + 0.5) / count
    for name in shapes:
        utility, parameter = _SHAPES[name]
        rewards = _best_rewards(utility, count)
        missed = np.abs(rewards - beta.ppf(places, parameter, parameter)).max()
        law = f"Beta({parameter:g}, {parameter:g})"
        criteria.append(
            Criterion(
                f"{name}: largest distance of quantiles from {law}", exactly(missed), at_most=0.02
            )
        )
        curves[name] = (list(places), rewards[None])
    return Finding(tuple(criteria), {}, curves, "quantile", "reward")


# A network ----------------------------------------------------------------------------------------

_PROMPTS, _ANSWERS = 10, 8


def _pairs(key) -> tuple[Completions, CompletionComparisons]:
    """All ranked responses `[prompt, rank, position]`, best first, and all their comparisons.

    Half of the prompts, the odd ones, are open-ended.
    """
    ranked = jax.vmap(lambda k: jax.random.permutation(k, _ANSWERS))(
        jax.random.split(key, _PROMPTS)
    )
    prompts = jnp.broadcast_to(_ANSWERS + jnp.arange(_PROMPTS)[:, None], ranked.shape)
    tokens = jnp.stack([prompts, ranked], axis=-1).astype(jnp.int32)
    response = jnp.broadcast_to(jnp.asarray([False, True]), tokens.shape)
    better, worse = np.triu_indices(_ANSWERS, 1)
    open_ended = jnp.repeat(jnp.arange(_PROMPTS) % 2 == 1, len(better))

    def rows(at):
        return Completions(tokens[:, at].reshape(-1, 2), response[:, at].reshape(-1, 2))

    return Completions(tokens, response), CompletionComparisons(
        rows(better), rows(worse), open_ended
    )


def _rewards(method: RewardModel, width: int, updates: int, key) -> Array:
    """Learned rewards `[prompt, rank]`."""
    data_key, network_key, key = jax.random.split(key, 3)
    ranked, pairs = _pairs(data_key)
    shape = Architecture(_PROMPTS + _ANSWERS, 2, width=width, layers=1, heads=2)
    task = TokenProblem(Decoder(shape, key=network_key, deviation=0.3))
    state = learn(method, task, CompletionReplay(pairs, rows=None), updates, key=key).state
    return method.rate(state, ranked)


def _distance(rewards: np.ndarray) -> float:
    """Kolmogorov and Smirnov's, between rewards of open-ended prompts and of others.

    Rewards are rounded to 0.01: it would take those that differ by less for wholly different.
    """
    rewards = rewards.round(2)
    closed, other = np.sort(rewards[0::2].ravel()), np.sort(rewards[1::2].ravel())
    places = np.concatenate([closed, other])
    below = [np.searchsorted(x, places, side="right") / len(x) for x in (closed, other)]
    return float(np.abs(below[0] - below[1]).max())


def _network(seed: int, instances: int, width: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    shared = RewardModel(bounded=True, learning_rate=3e-3, decay_updates=float(updates))
    methods = {
        "one utility": shared,
        "by prompt": dataclasses.replace(shared, utility="linear", open_utility="inverse"),
    }
    found, numbers = {}, {}
    for name, method in methods.items():
        each = jax.jit(jax.vmap(partial(_rewards, method, width, updates)))
        rewards = np.asarray(each(keys), np.float64)
        found[name] = np.asarray([_distance(r) for r in rewards])
        ordered = (np.diff(rewards, axis=-1) < 0).mean()
        numbers[name] = {
            "share of neighbours in order": float(ordered),
            "mean reward by rank, closed": rewards[:, 0::2].mean((0, 1)).tolist(),
            "mean reward by rank, open-ended": rewards[:, 1::2].mean((0, 1)).tolist(),
        }
    criteria = (
        Criterion(
            "distance between kinds of prompts, one utility",
            mean_of(found["one utility"]),
            at_most=0.1,
        ),
        Criterion(
            "distance between kinds of prompts, utility by prompt",
            mean_of(found["by prompt"]),
            at_least=0.25,
        ),
    )
    return Finding(criteria, numbers)


CLAIMS = (
    Claim(
        name="rewards-collapse-to-beta-laws",
        statement=(
            "The best bounded rewards of n ranked responses depend on the utility alone: at "
            "n = 200 their quantiles are within 0.02 of the Beta laws that the theorem gives for "
            "log x, -1/x, √x and -1/√x."
        ),
        methods=("RewardModel",),
        paper=_PAPER,
        where="its theorems on the limits of the rewards' distribution",
        scales={
            "smoke": {"count": 120, "shapes": ("log x",)},
            "small": {"count": 200, "shapes": tuple(_SHAPES)},
        },
        experiment=_laws,
    ),
    Claim(
        name="prompt-aware-utilities-prevent-collapse",
        statement=(
            "A bounded reward model trained with one utility spreads the rewards of all prompts "
            "alike (Kolmogorov-Smirnov distance between two kinds of prompts at most 0.1); with x "
            "for closed prompts and -1/x for open-ended ones they differ by at least 0.25."
        ),
        methods=("RewardModel",),
        paper=_PAPER,
        where="its experiments; the network and the numbers are ours",
        scales={
            "smoke": {"instances": 3, "width": 16, "updates": 200},
            "small": {"instances": 10, "width": 32, "updates": 2000},
        },
        experiment=_network,
    ),
)
