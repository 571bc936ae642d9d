"""How much of the machine's own rate of matrix products each method's update reaches.

Counts the products of one update in the compiled program, times each of their shapes alone, and
compares the sum with how long an update takes in the loop: a fraction of 1 would mean that nothing
but products takes time.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_SMALLEST = 1e6
"""Products with fewer operations than this are counted but not timed."""


def main() -> None:
    """Counts, measures, prints the table and writes the result."""
    options = _parser().parse_args()
    if sys.platform == "linux":
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-options.threads :])
    from headwater.runs.directory import surroundings

    by_hand(options.batch_size)
    rows = []
    for name in options.methods:
        row = _measure(name, options)
        rows.append(row)
        print(f"{name}: {row['fraction_of_product_rate']:.2f}", file=sys.stderr, flush=True)
    result = {
        "settings": {k: v for k, v in vars(options).items() if k != "out"},
        "made_with": surroundings(),
        "rows": rows,
    }
    print(_table(rows))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def by_hand(batch: int) -> None:
    """Checks the count on TD3+BC, whose products can be listed.

    Widths 256, 256; 17 observations, 6 actions. Hidden products cost 2·B·256². Critics, each: one
    forward for the target, one forward and two backward for the loss, with inputs of 23 (no
    gradient of the input is needed) and outputs of 1. Target actor: one forward. Actor, every
    second time: forward and two backward of its own, and one critic forward and back to the action.
    """
    from counting import compiled, products

    method, state, data, key = _example("TD3BC", batch, (256, 256))
    program = compiled(lambda s, d, k: method.update(s, d, key=k), state, data, key)
    counted = sum(p.operations * times for p, times in products(program.as_text()).items())
    hidden, inputs, outputs, small = 256 * 256, 23 * 256, 256, 17 * 256
    critic_target = inputs + hidden + outputs
    critic_loss = 2 * inputs + 3 * hidden + 3 * outputs
    actor_forward = small + hidden + 6 * 256
    actor_loss = 2 * small + 3 * hidden + 3 * 6 * 256
    through_critic = 2 * inputs + 2 * hidden + 2 * outputs
    least = (
        2
        * batch
        * (2 * (critic_target + critic_loss) + actor_forward + (actor_loss + through_critic) / 2)
    )
    print(f"TD3+BC by hand {least / 1e6:.1f} MFLOP, counted {counted / 1e6:.1f}", file=sys.stderr)
    if not 0.99 < counted / least < 1.02:
        sys.exit("the count is off: the compiler's text has changed")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--methods", nargs="+", default=["TD3BC", "IQL", "SACN", "CQL", "AWAC", "ReBRAC", "SAC"])
    add("--batch-size", type=int, default=256)
    add("--threads", type=int, default=1)
    add("--seconds", type=float, default=5.0, help="timed for each method")
    add("--out", type=Path, help="JSON file to write")
    return parser


def _example(name: str, batch: int, widths: tuple[int, ...]):
    """A method, its state and a batch of noise in the shape of a locomotion task."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import headwater as hw
    from headwater.core.records import Transitions
    from headwater.core.spaces import Box, Spaces

    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    ends = jnp.zeros(batch, bool)
    data = Transitions(
        draw(batch, 17), jnp.tanh(draw(batch, 6)), draw(batch), draw(batch, 17), ends, ends,
        jnp.tanh(draw(batch, 6)), draw(batch),
    )  # fmt: skip
    method = hw.build_method(name, {"hidden_sizes": widths})
    spaces = Spaces(Box((-np.inf,) * 17, (np.inf,) * 17), Box((-1.0,) * 6, (1.0,) * 6))
    state = method.init(spaces, key=jax.random.key(0))
    return method, state, data, jax.random.key(1)


def _measure(name: str, options) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    from counting import compiled, products

    widths = (256, 256, 256) if name in ("SACN", "CQL") else (256, 256)
    method, state, data, key = _example(name, options.batch_size, widths)

    def update(state, data, key):
        return method.update(state, data, key=key)

    before = time.perf_counter()
    program = compiled(update, state, data, key)
    compilation = time.perf_counter() - before
    found = products(program.as_text())
    operations = sum(p.operations * times for p, times in found.items())
    alone = sum(times * _seconds_of(p) for p, times in found.items() if p.operations >= _SMALLEST)

    @jax.jit
    def many(state, count):
        def body(i, state):
            return update(state, data, jax.random.fold_in(key, i))[0]

        return jax.lax.fori_loop(0, count, body, state)

    jax.block_until_ready(many(state, 2))
    each = _fastest(lambda n: many(state, jnp.asarray(n)), options.seconds)
    cost = program.cost_analysis() or {}
    return {
        "method": name,
        "widths": widths,
        "megaflop_of_products": operations / 1e6,
        "megabytes_touched": cost.get("bytes accessed", float("nan")) / 1e6,
        "compile_seconds": compilation,
        "updates_per_second": 1 / each,
        "gigaflop_per_second": operations / each / 1e9,
        "gigaflop_per_second_of_products_alone": operations / alone / 1e9,
        "fraction_of_product_rate": alone / each,
    }


def _seconds_of(product) -> float:
    """How long one product of this shape takes, alone, with its operands in the caches."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    random = np.random.default_rng(0)
    shape = (product.batch,) if product.batch > 1 else ()
    left = jnp.asarray(random.standard_normal((*shape, product.rows, product.inner)), jnp.float32)
    right = jnp.asarray(
        random.standard_normal((*shape, product.inner, product.columns)), jnp.float32
    )

    @jax.jit
    def many(left, right, count):
        def body(i, carry):
            left, total = carry
            # The next product needs the last one, so that none is left out or moved.
            result = left @ right
            return left.at[..., 0, 0].add(1e-9 * total), result.ravel()[0]

        return jax.lax.fori_loop(0, count, body, (left, jnp.zeros(())))

    jax.block_until_ready(many(left, right, 2))
    return _fastest(lambda n: many(left, right, jnp.asarray(n)), 0.2)


def _fastest(run, seconds: float) -> float:
    """Seconds of one repetition: the least of several pieces, which other work disturbs least."""
    import jax

    count = 4
    while True:
        before = time.perf_counter()
        jax.block_until_ready(run(count))
        taken = time.perf_counter() - before
        if taken > seconds / 20:
            break
        count *= 2
    best = taken / count
    for _ in range(8):
        before = time.perf_counter()
        jax.block_until_ready(run(count))
        best = min(best, (time.perf_counter() - before) / count)
    return best


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| method | widths | MFLOP of products | MB touched | updates/s | GFLOP/s | products alone "
        "| fraction | compilation, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['method']} | {'×'.join(map(str, row['widths']))} "
            f"| {row['megaflop_of_products']:,.0f} | {row['megabytes_touched']:,.0f} "
            f"| {row['updates_per_second']:,.1f} | {row['gigaflop_per_second']:,.0f} "
            f"| {row['gigaflop_per_second_of_products_alone']:,.0f} "
            f"| {row['fraction_of_product_rate']:.2f} | {row['compile_seconds']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
