"""Tokens per second of Headwater's loop and of its generation."""

import json
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import Prompts, TokenProblem
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.generation import generate
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.language.completions import CompletionReplay

arguments = SimpleNamespace(**json.loads(sys.argv[1]))
random = np.random.default_rng(0)
decoder = Decoder(
    Architecture(
        arguments.vocabulary,
        arguments.length,
        arguments.width,
        arguments.layers,
        arguments.width // 64,
    ),
    key=jax.random.key(0),
)
prompt = arguments.length // 2


def texts(count: int) -> Completions:
    shape = (count, arguments.length)
    tokens = jnp.asarray(random.integers(0, arguments.vocabulary, shape), jnp.int32)
    return Completions(tokens, jnp.broadcast_to(jnp.arange(arguments.length) >= prompt, shape))


def training(method, data) -> float:
    """Tokens, those of the prompts included, in a second of a long run less a short one."""

    def seconds(updates: int) -> float:
        stage = Stage("tuning", method, CompletionReplay(data, arguments.rows), updates)
        before = time.perf_counter()
        run([stage], TokenProblem(decoder), logs=1, progress=False)
        return time.perf_counter() - before

    seconds(2)
    few, short = 4, seconds(4)
    taken = max(seconds(8) - short, 1e-3)
    many = max(12, int(arguments.seconds / taken * 4))
    return (many - few) / (seconds(many) - seconds(few)) * arguments.rows * arguments.length


def writing() -> float:
    """New tokens in a second."""
    prompts = Prompts(texts(arguments.rows).tokens[:, :prompt], jnp.full(arguments.rows, prompt))
    write = jax.jit(lambda p, k: generate(decoder, p, arguments.length - prompt, key=k).tokens)
    jax.block_until_ready(write(prompts, jax.random.key(0)))
    count, before = 0, time.perf_counter()
    while time.perf_counter() - before < arguments.seconds:
        jax.block_until_ready(write(prompts, jax.random.key(count)))
        count += 1
    taken = time.perf_counter() - before
    return count * arguments.rows * (arguments.length - prompt) / taken


if arguments.work == "SFT":
    rate = training(SFT(), texts(256))
elif arguments.work == "DPO":
    # Both responses of a pair are learned from.
    rate = 2 * training(DPO(), CompletionComparisons(texts(256), texts(256)))
else:
    rate = writing()
versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
print(json.dumps({"tokens_per_second": round(rate, 1), "versions": versions}))
