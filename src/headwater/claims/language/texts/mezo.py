"""What forward passes alone can do: as fast as the curvature has directions, and no log is lost."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import every_response
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of, ratio_of_means
from headwater.methods.language.texts.mezo import MeZO
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.zeroth_order import descended, random_seed, slope
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_PAPER = "malladi2023fine"


def _left(size: int, rank: int, steps: int, key):
    """The share of the loss that is left: half the squared length of the first `rank` numbers."""
    # The expected fall of a step is steepest at about this rate.
    rate = 0.5 / (rank + 2)

    def loss(x):
        return 0.5 * jnp.sum(x[:rank] ** 2)

    def step(x, key):
        seed = random_seed(key)
        along, _ = slope(loss, x, seed, 1e-3)
        return descended(x, seed, along, rate), None

    first = jnp.zeros(size).at[:rank].set(1.0)
    last, _ = jax.lax.scan(step, first, jax.random.split(key, steps))
    return loss(last) / loss(first)


def _rank(seed: int, rank: int, sizes: tuple[int, ...], steps: int, runs: int) -> Finding:
    root = jax.random.key(seed)

    def shares(size: int, rank: int) -> np.ndarray:
        # Without this the curved directions would see the same noise whatever the size.
        keys = jax.random.split(jax.random.fold_in(root, size + rank), runs)
        each = jax.jit(lambda: jax.lax.map(lambda key: _left(size, rank, steps, key), keys))
        return np.asarray(each(), np.float64)

    found = {size: shares(size, rank) for size in sizes}
    smallest, largest = sizes[0], sizes[-1]
    over = ratio_of_means(found[largest], found[smallest])
    full = shares(sizes[1], sizes[1])
    criteria = (
        Criterion(f"loss left in {largest} dimensions over {smallest}", over, at_least=0.8),
        Criterion("the same", over, at_most=1.25),
        Criterion(f"loss left at full rank in {sizes[1]}", mean_of(full), at_least=0.5),
    )
    means = {str(size): float(left.mean()) for size, left in found.items()}
    return Finding(criteria, {"mean share of the loss left, by dimensions": means})


def _replay(seed: int, updates: int, runs: int) -> Finding:
    responses = every_response(vocabulary=4, new_tokens=3)

    def run(key):
        table_key, row_key, key = jax.random.split(key, 3)
        task = TokenProblem(PrefixTable(4, 4, key=table_key))
        rows = jax.random.randint(row_key, (8,), 0, 64)
        data = jax.tree.map(lambda x: x[0, rows], responses.data)
        method = MeZO(learning_rate=0.1, decay_updates=2.0 * updates, weight_decay=0.01)

        found = learn(method, task, CompletionReplay(data, rows=None), updates, every=1, key=key)
        return task.network, found.state.network, found.sums

    keys = jax.random.split(jax.random.key(seed), runs)
    first, last, metrics = jax.jit(lambda: jax.lax.map(run, keys))()
    logged = [metrics[name] for name in ("seed", "slope", "rate")]
    # Another program, one run after the other, which is given the log alone.
    replay = jax.jit(MeZO(weight_decay=0.01).replay)
    differing = 0
    for i in range(runs):
        again = replay(*jax.tree.map(lambda x, i=i: x[i], (first, *logged)))
        differing += int(np.sum(np.asarray(again.table) != np.asarray(last.table[i])))
    losses = np.asarray(metrics["loss"], np.float64)
    fallen = losses[:, -10:].mean(1) / losses[:, :10].mean(1)
    return Finding(
        (
            Criterion("numbers that differ after replay", exactly(differing), at_most=0),
            Criterion("loss in the end over the loss before", mean_of(fallen), at_most=0.9),
        ),
        {"numbers compared": int(np.asarray(last.table).size)},
    )


CLAIMS = (
    Claim(
        name="mezo-rank-not-dimensions",
        statement=(
            "What zeroth-order descent leaves of a loss depends on how many directions are curved "
            "and not on how many there are: between 64 and 16,384 dimensions with 64 curved ones "
            "it differs by less than a quarter, and with all of 1,024 curved more than half is "
            "left after as many steps."
        ),
        methods=("MeZO",),
        paper=_PAPER,
        where="section 4, where the rate depends on the effective rank of the Hessian",
        scales={
            "smoke": {"rank": 16, "sizes": (16, 256), "steps": 100, "runs": 200},
            "small": {"rank": 64, "sizes": (64, 1024, 16384), "steps": 400, "runs": 40},
        },
        experiment=_rank,
    ),
    Claim(
        name="mezo-replays-exactly",
        statement=(
            "The seeds, slopes and rates of a run give its weights back from the first ones, to "
            "the bit, in another program."
        ),
        methods=("MeZO",),
        paper=_PAPER,
        where="section 2.1, on storing a run as one seed and two bytes a step",
        scales={
            "smoke": {"updates": 300, "runs": 3},
            "small": {"updates": 2000, "runs": 10},
        },
        experiment=_replay,
    ),
)
