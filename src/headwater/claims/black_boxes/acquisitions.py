"""What a further evaluation is taken to be worth, with and without noise."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.black_boxes.smooth import SmoothFunction
from headwater.evaluation.black_boxes.recommended import simple_regret
from headwater.evidence.claim import (
    Claim,
    Criterion,
    Finding,
    mean_of,
    ratio_of_means,
    with_numbers,
)
from headwater.methods.black_boxes.expected_improvement import ExpectedImprovement
from headwater.methods.black_boxes.knowledge_gradient import KnowledgeGradient
from headwater.methods.black_boxes.max_value_entropy_search import MaxValueEntropySearch
from headwater.methods.black_boxes.random_search import RandomSearch
from headwater.runs.learn import learn
from headwater.sources.queries import LiveQueries

_LENGTH, _FIRST = 0.15, 5


def _regret(method, noise, seed, key, evaluations: int):
    """Of the recommended point after each number of evaluations; noise and kernel are known."""
    box = SmoothFunction(length_scale=_LENGTH, noise=noise, seed=seed)  # pyright: ignore[reportCallIssue]
    space = dataclasses.replace(box.space, capacity=evaluations)
    learned = learn(
        with_numbers(method, noise_scale=noise),
        space,
        LiveQueries(box),
        evaluations,
        evaluate=lambda agent: simple_regret(box, agent, key=key),
        every=1,
        key=key,
    )
    return learned.evaluations


def _acquisitions(seed: int, *, instances: int, evaluations: int, after: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    seeds = seed * instances + jnp.arange(instances)
    run = eqx.filter_jit(jax.vmap(_regret, in_axes=(None, None, 0, 0, None)))
    given = {
        "hyperparameters": "given",
        "kernel": "squared_exponential",
        "length_scale": _LENGTH,
    }
    methods = {
        "noisy EI": ExpectedImprovement(
            incumbent="posterior_draws", initial_points=_FIRST, **given
        ),
        "EI of the best mean": ExpectedImprovement(
            incumbent="best_mean", initial_points=_FIRST, **given
        ),
        "EI of the best value": ExpectedImprovement(
            incumbent="best_observed", initial_points=_FIRST, **given
        ),
        "knowledge gradient": KnowledgeGradient(initial_points=_FIRST, **given),
        "knowledge gradient, 256 draws": KnowledgeGradient(
            expectation="sampled", num_draws=256, initial_points=_FIRST, **given
        ),
        "entropy search": MaxValueEntropySearch(initial_points=_FIRST, **given),
        "random": RandomSearch(**given),
    }

    def regrets(name: str, noise: float, count: int = evaluations) -> np.ndarray:
        found = run(methods[name], jnp.float32(noise), seeds, keys, count)
        return np.asarray(found, np.float64)

    exact = ("EI of the best value", "entropy search", "knowledge gradient", "random")
    noisy = ("noisy EI", "EI of the best mean", "EI of the best value", "random")
    noisiest = ("knowledge gradient", "knowledge gradient, 256 draws", "random")
    sure = {name: regrets(name, 0.01, _FIRST + after)[:, -1] for name in exact}
    half = {name: regrets(name, 0.5) for name in noisy}
    one = {name: regrets(name, 1.0)[:, -1] for name in noisiest}
    last = {name: found[:, -1] for name, found in half.items()}
    gradient, sampled = one["knowledge gradient"], one["knowledge gradient, 256 draws"]
    return Finding(
        (
            Criterion(
                "noise 0.5: regret of noisy EI over that of EI of the best mean",
                ratio_of_means(last["noisy EI"], last["EI of the best mean"]),
                at_most=0.5,
            ),
            *(
                Criterion(
                    f"noise 0.01, {after} evaluations after the first {_FIRST}: regret of {name} "
                    "over that of random points",
                    ratio_of_means(sure[name], sure["random"]),
                    at_most=0.2,
                )
                for name in exact[:-1]
            ),
            Criterion(
                "noise 1: regret of the knowledge gradient over that of random points",
                ratio_of_means(gradient, one["random"]),
                at_most=1.0,
            ),
            Criterion(
                "noise 1: regret of the knowledge gradient of 256 draws over that of the exact one",
                ratio_of_means(sampled, gradient),
                at_most=1.25,
            ),
        ),
        {
            "regret at noise 0.01": {n: float(mean_of(x).point) for n, x in sure.items()},
            "regret at noise 0.5": {n: float(mean_of(x).point) for n, x in last.items()},
            "regret at noise 1": {n: float(mean_of(x).point) for n, x in one.items()},
        },
        {name: (np.arange(evaluations + 1), found) for name, found in half.items()},
        across="evaluations with noise 0.5",
        up="regret of the recommended point",
        logarithmic="y",
    )


CLAIMS = (
    Claim(
        name="acquisitions-see-through-noise",
        statement="On smooth functions of one component with a known kernel, noisy EI has at most "
        "half the regret of EI of the best mean under noise of 0.5; with hardly any noise, EI, "
        "entropy search and the knowledge gradient have at most a fifth of that of random points "
        "after 8 evaluations; under noise of 1, the exact knowledge gradient is no worse than "
        "random points, and 256 draws are within a quarter of it.",
        methods=("ExpectedImprovement", "KnowledgeGradient", "MaxValueEntropySearch"),
        paper="frazier2018tutorial",
        where="section 4, in words; functions, sizes and thresholds are a reproduction's",
        scales={
            "smoke": {"instances": 3, "evaluations": 7, "after": 2},
            "small": {"instances": 160, "evaluations": 45, "after": 8},
        },
        experiment=_acquisitions,
        learned="Noisy EI has less regret than EI of the best mean, but 0.60, 0.75 and 0.49 of it "
        "with seeds 0 to 2, so that it is hardly twice as good: with seed 1 it surely is not. The "
        "256 draws, at 0.95 to 1.31 of the exact one, would need more functions to be told apart "
        "from it. EI of the best value, which noise should mislead, does better than noisy EI with "
        "each seed. The first record is of entropy search whose formula left the noise out, which "
        "failed: it asks again and again at the best point.",
    ),
)
