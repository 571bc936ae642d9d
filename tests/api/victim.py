"""Adapts an offline run on Gymnasium's pendulum, slowly enough to be killed. Run by a test."""

import sys
import time

import jax

from headwater.api import execute
from headwater.api.adapt import adapt

# As in the tests, so that what is compiled there is the same program.
jax.config.update("jax_numpy_rank_promotion", "raise")

HOW = {
    "recipe": "wsrl",
    "critic_fit_updates": 20,
    "steps": 200,
    "block": 10,
    "evaluations": 5,
    "progress": False,
}
"""How the run is adapted."""


def main(upstream: str, path: str) -> None:
    """Begins the run at `path`."""

    plain = execute.evaluate_returns

    def evaluate(*arguments, **options):
        time.sleep(0.1)
        return plain(*arguments, **options)

    execute.evaluate_returns = evaluate
    adapt(upstream, **HOW, out=path)


if __name__ == "__main__":
    main(*sys.argv[1:])
