"""What the equilibria of a game are worth where combinations are too many to list."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.black_boxes.pairwise import PairwiseLandscape
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of
from headwater.methods.black_boxes.game_opt import GameOpt, gain
from headwater.parts.black_boxes import surrogate
from headwater.runs.learn import learn
from headwater.sources.queries import LiveQueries

_STILL = 1e-5
"""Points are rounded to single precision, and bounds with them."""


def _search(method, seed, key, sites: int, batch: int, rounds: int):
    """Share of the gap closed after each batch, and the largest gain of a change of a proposal."""
    box = PairwiseLandscape(sites=sites, letters=sites, seed=seed)  # pyright: ignore[reportCallIssue]
    first = method.initial_points // batch
    space = dataclasses.replace(box.space, capacity=method.initial_points + rounds * batch)

    def unstable(agent, data):
        """The largest gain of a change of a proposal, each after those before it in the batch."""

        def one(state, point):
            found = gain(method, state, point)
            return method.expect(state, point, jnp.asarray(0, jnp.int32)), found

        return {"gain": jnp.max(jax.lax.scan(one, agent.state, data.point)[1])}

    learned = learn(
        method,
        space,
        LiveQueries(box, batch_size=batch),
        first + rounds,
        measure=unstable if method.maximiser == "equilibria" else None,
        evaluate=lambda agent: surrogate.best_value(agent.state),
        every=1,
        key=key,
    )
    best, highest = learned.evaluations[first:], box.reset().highest
    gains = learned.sums.get("gain", jnp.zeros(1 + first))[first:]
    return (best - best[0]) / (highest - best[0]), jnp.max(gains)


def _equilibria(
    seed: int,
    *,
    instances: int,
    sites: int,
    initial: int,
    batch: int,
    rounds: int,
    maximisers: tuple[str, ...] = ("equilibria", "neighbours", "pool"),
    hyperparameters: str = "likelihood",
) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    seeds = seed * instances + jnp.arange(instances)
    run = eqx.filter_jit(jax.vmap(_search, in_axes=(None, 0, 0, None, None, None)))
    curves, gains = {}, {}
    for maximiser in maximisers:
        settings: dict[str, Any] = {"maximiser": maximiser, "hyperparameters": hyperparameters}
        method = GameOpt(initial_points=initial, **settings)
        closed, gained = run(method, seeds, keys, sites, batch, rounds)
        curves[maximiser] = np.asarray(closed, np.float64)
        gains[maximiser] = np.asarray(gained, np.float64)
    last = {name: closed[:, -1] for name, closed in curves.items()}
    return Finding(
        (
            Criterion(
                "share of the gap closed by equilibria", mean_of(last["equilibria"]), at_least=0.7
            ),
            *(
                Criterion(
                    f"more than by {maximiser}",
                    mean_of(last["equilibria"] - last[maximiser]),
                    at_least=0.2,
                )
                for maximiser in maximisers[1:]
            ),
            Criterion(
                "largest gain of a single change of a proposal",
                exactly(np.max(gains["equilibria"])),
                at_most=_STILL,
            ),
        ),
        {"share of the gap closed": {n: float(np.mean(x)) for n, x in last.items()}},
        {name: (batch * np.arange(rounds + 1), closed) for name, closed in curves.items()},
        across="evaluations after the first",
        up="share of the gap closed",
    )


CLAIMS = (
    Claim(
        name="equilibria-close-the-gap",
        statement="On landscapes of 8 sites with 8 letters and pairs of sites that interact, 20 "
        "rounds of 5 evaluations at equilibria of the bound close at least 0.7 of the gap between "
        "the best of 50 random words and the best of all, and 0.2 more than the best single change "
        "of the best word so far or the best of 500 random words by the same bound; no single "
        "change of any proposal raises the bound.",
        methods=("GameOpt",),
        paper="bal2025optimistic",
        where="section 5, in words; landscapes, sizes and thresholds are a reproduction's",
        scales={
            "smoke": {
                "instances": 2,
                "sites": 3,
                "initial": 4,
                "batch": 2,
                "rounds": 2,
                "maximisers": ("equilibria",),
                "hyperparameters": "given",
            },
            "small": {"instances": 8, "sites": 8, "initial": 50, "batch": 5, "rounds": 20},
        },
        experiment=_equilibria,
        learned="With seed 0 equilibria close 0.90 [0.84, 0.95] of the gap, 0.31 [0.15, 0.49] more "
        "than a pool and 0.10 [0.00, 0.26] more than neighbours, which is not surely 0.2 for "
        "either: eight landscapes are few. Not every proposal was an equilibrium; it is none where "
        "all equilibria that the starts lead to were evaluated, since the best single change of "
        "one then comes next, as such changes do in batches of the authors' code, too. How often "
        "that was the case is not recorded.",
    ),
)
