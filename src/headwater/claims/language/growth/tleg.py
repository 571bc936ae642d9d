"""How much sooner decoders of several depths learn that begin as linear expansions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.tokens import TokenProblem
from headwater.environments.language.recall_tasks import MarkovTexts
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.evidence.language.experts import each_run, loss_on, trained
from headwater.methods.language.growth.tleg import TLEG, LinearExpansion
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.changes import with_layers
from headwater.networks.decoders.decoder import Decoder
from headwater.runs.learn import learn
from headwater.sources.language.fresh_texts import FreshTexts

_LAYERS, _RATE = 6, 2e-3


def _explained(decoder: Decoder):
    """The share of the variance of weights over layers that a line through the layers explains."""
    place = jnp.arange(_LAYERS) - (_LAYERS - 1) / 2
    blocks = decoder.blocks
    linears = (blocks.query, blocks.key, blocks.value, blocks.output, blocks.up, blocks.down)
    numbers = jnp.concatenate([x.reshape(_LAYERS, -1) for x in jax.tree.leaves(linears)], axis=1)
    centred = numbers - jnp.mean(numbers, axis=0, keepdims=True)
    along = jnp.sum((place @ centred) ** 2) / jnp.sum(place**2)
    return along / jnp.sum(centred**2)


def _experiment(
    seed: int, runs: int, width: int, updates: int, tuning: int, rows: int, depths: tuple[int, ...]
) -> Finding:
    def one(key):
        task_key, test_key, key = jax.random.split(key, 3)
        task = MarkovTexts(key=task_key)
        data = task.texts(256, key=test_key)
        shape: Callable[[int], Architecture] = lambda layers: Architecture(
            task.vocabulary, 26, width, layers, 2, hidden=2 * width
        )
        # The teacher learns as long as those from scratch, and the expansion as long as that.
        teacher = trained(SFT(), shape(_LAYERS), task, 3 * updates, rows, rate=_RATE, key=key)
        distil = with_numbers(TLEG(), learning_rate=_RATE, warmup_updates=20.0)
        distil = with_numbers(distil, decay_updates=max(tuning, 1))
        problem = TokenProblem(teacher.network, task.end)
        expansion = learn(distil, problem, FreshTexts(task, rows), tuning, key=key).state.network
        assert isinstance(expansion, LinearExpansion)
        tune = with_numbers(SFT(), learning_rate=_RATE, decay_updates=updates)

        def tuned(network: Decoder):
            if not updates:
                return loss_on(network, data)
            problem = TokenProblem(network, task.end)
            after = learn(tune, problem, FreshTexts(task, rows), updates, key=key).state.network
            return loss_on(after, data)

        found = {
            "teacher": loss_on(teacher.network, data),
            "auxiliary": loss_on(expansion, data),
            "variance explained": _explained(teacher.network),
        }
        for layers in depths:
            # The teacher's own layers, at even distances.
            copied = [int(i * _LAYERS / layers) for i in range(layers)]
            scratch = trained(SFT(), shape(layers), task, 3 * updates, rows, rate=_RATE, key=key)
            found[f"descendant, {layers} layers"] = tuned(expansion.decoder(layers))
            found[f"copied, {layers} layers"] = tuned(with_layers(teacher.network, copied))
            found[f"scratch, {layers} layers"] = loss_on(scratch.network, data)
        return found

    found = {name: np.asarray(x, np.float64) for name, x in each_run(one, seed, runs).items()}
    at = lambda name: np.stack([found[f"{name}, {layers} layers"] for layers in depths])
    better = lambda name: np.mean(at("descendant") <= at(name), axis=0)
    criteria = (
        Criterion(
            "share of depths at which a descendant is not above training from scratch, three "
            "times as long",
            mean_of(better("scratch")),
            at_least=0.75,
        ),
        Criterion(
            "share of depths at which a descendant is not above layers copied from the teacher",
            mean_of(better("copied")),
            at_least=0.75,
        ),
    )
    return Finding(criteria, {name: float(values.mean()) for name, values in found.items()})


CLAIMS = (
    Claim(
        name="layers-on-a-line-begin-decoders-of-any-depth",
        statement=(
            "From a linear expansion that was distilled from a teacher of six layers, decoders "
            "of at least three of the depths 3, 4, 6 and 8 end after 150 updates at a loss not "
            "above that of decoders from scratch after 450, and not above that of decoders which "
            "begin with layers copied from the teacher at even distances."
        ),
        methods=("TLEG", "SFT"),
        paper="xia2024transformer",
        where="the abstract and figure 1; copies of layers are a baseline of our own",
        scales={
            "smoke": {
                "runs": 3,
                "width": 8,
                "updates": 0,
                "tuning": 2,
                "rows": 4,
                "depths": (3,),
            },
            "small": {
                "runs": 3,
                "width": 24,
                "updates": 150,
                "tuning": 450,
                "rows": 32,
                "depths": (3, 4, 6, 8),
            },
        },
        experiment=_experiment,
    ),
)
