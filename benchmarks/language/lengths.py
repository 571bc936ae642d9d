"""What one long text among many short ones costs: seconds of an update, padded and packed.

The same Llama-style model and the same rows drawn with the same keys for both; once the texts are
all short, once one of them fills the context. One process, the sources take turns, compiling is
left out, and seconds are those that the process had the processor. Every padded update costs the
same, so few of them are timed.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.runs.directory import surroundings
from headwater.sources.language.completions import CompletionReplay
from headwater.sources.language.packed import PackedReplay, shapes_for


def main() -> None:
    """Measures, prints the table and writes the result."""
    options = _parser().parse_args()
    architecture = Architecture(
        options.vocabulary, options.long, options.width, options.layers, options.width // 64
    )
    method = SFT()
    state = method.init(
        TokenProblem(Decoder(architecture, key=jax.random.key(0))), key=jax.random.key(1)
    )
    update = eqx.filter_jit(lambda s, d: method.update(s, d, key=jax.random.key(0)))
    short = _texts(options, [options.short] * 200)
    uneven = _texts(options, [options.short] * 200 + [options.long])
    narrow = jax.tree.map(lambda x: x[:, : options.short], short)
    shapes, share = shapes_for(uneven, options.rows, options.width)
    sources: dict[str, Any] = {
        "short texts alone": CompletionReplay(narrow, options.rows),
        "padded": CompletionReplay(uneven, options.rows),
        "packed": PackedReplay(uneven, options.rows, shapes),
    }
    keys = jax.random.split(jax.random.key(2), options.updates)
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    losses: dict[str, list[float]] = {name: [] for name in sources}
    seen: set[Any] = set()
    for number, key in enumerate(keys):
        for name, source in sources.items():
            if name == "padded" and number >= options.padded_updates:
                continue
            shape = _shape(_drawn(source, key))
            if shape not in seen:
                _update(update, state, _drawn(source, key))
                seen.add(shape)
            before = time.process_time()
            losses[name].append(_update(update, state, _drawn(source, key)))
            seconds[name].append(time.process_time() - before)
    means = {name: statistics.mean(found) for name, found in seconds.items()}
    usual = means["short texts alone"]
    print(f"shapes {[tuple(s) for s in shapes]}, expected share of the work {share:.3f}")
    print("| texts | seconds an update | factor |\n|---|---|---|")
    for name, mean in means.items():
        print(f"| {name} | {mean:.3f} | {mean / usual:.1f} |")
    compared = losses["packed"][: options.padded_updates]
    apart = np.max(np.abs(np.subtract(compared, losses["padded"])))
    print(f"largest difference of the losses, packed and padded: {apart:.1e}")
    if options.out is not None:
        settings = {k: v for k, v in vars(options).items() if k != "out"}
        result = {
            "settings": settings,
            "made_with": surroundings(),
            "seconds": seconds,
            "largest_difference_of_losses": float(apart),
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _drawn(source: Any, key: Any) -> Completions:
    agent = Agent(SFT(), None)
    if isinstance(source, CompletionReplay):
        return source.draw((), agent, key=key)[1]
    return jax.tree.map(lambda x: x[0], source.draw((), agent, keys=key[None])[1])


def _shape(data: Completions) -> Any:
    rows = None if data.packing is None else data.packing.rows
    return data.tokens.shape, rows


def _update(update: Any, state: Any, data: Completions) -> float:
    return float(update(state, data)[1]["loss"])


def _texts(options: argparse.Namespace, lengths: list[int]) -> Completions:
    random = np.random.default_rng(0)
    shape = (len(lengths), options.long)
    tokens = random.integers(0, options.vocabulary, shape).astype(np.int32)
    place, length = np.arange(options.long), np.array(lengths)[:, None]
    return Completions(
        jnp.asarray(tokens), jnp.asarray((place >= options.short // 2) & (place < length))
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--updates", type=int, default=200)
    add("--padded-updates", type=int, default=3)
    add("--width", type=int, default=256)
    add("--layers", type=int, default=4)
    add("--vocabulary", type=int, default=1024)
    add("--short", type=int, default=16, help="tokens in a short text")
    add("--long", type=int, default=1024, help="tokens in the long one")
    add("--rows", type=int, default=16, help="texts in a batch")
    add("--out", type=Path, help="JSON file to write")
    return parser


if __name__ == "__main__":
    main()
