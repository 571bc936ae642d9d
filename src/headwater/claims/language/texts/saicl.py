"""Whether demonstrations have to see each other for a decoder to learn from them in its context."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.in_context_tasks import LabelledPoints
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of, with_numbers
from headwater.methods.language.texts.saicl import SAICL
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.structured import StructuredDecoder
from headwater.runs.learn import learn
from headwater.sources.language.fresh_texts import FreshTexts

_ASKED, _COUNT, _MANY, _RATE = 8, 64, 256, 5e-3
_ARMS = ("SAICL", "full", "FiD")


def _decoder(width: int, layers: int, *, key) -> Decoder:
    task = LabelledPoints()
    architecture = Architecture(
        *(task.vocabulary, 4096, width, layers, 4), hidden=2 * width, feed_forward="gelu"
    )
    # With smaller weights it takes many more updates until what is in the context is used.
    return Decoder(architecture, key=key, deviation=0.2)


def _answers(network: StructuredDecoder, data: Completions) -> Float[Array, "row asked"]:
    """The probability of each label in the response, in parts, so that little is kept at a time."""

    def part(tokens):
        places = slice(-2 - _ASKED, -2)
        blocks = network.demonstration_tokens is not None
        hidden = network.hidden_in_blocks(tokens) if blocks else network.hidden(tokens)
        chances = jax.nn.softmax(network.unembed(hidden[:, places]))
        return jnp.take_along_axis(chances, tokens[:, -1 - _ASKED : -1, None], axis=-1)[..., 0]

    rows, width = data.tokens.shape
    return jax.lax.map(part, data.tokens.reshape(-1, min(rows, 32), width)).reshape(rows, _ASKED)


def _in_both_orders(data: Completions, tokens: int) -> Completions:
    """The texts, and then these with their demonstrations, of so many tokens, in opposite order."""
    rows, shown = data.tokens.shape[0], _COUNT * tokens
    turned = data.tokens[:, :shown].reshape(rows, _COUNT, tokens)[:, ::-1].reshape(rows, shown)
    turned = Completions(data.tokens.at[:, :shown].set(turned), data.response)
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), data, turned)


def _experiment(
    seed: int,
    width: int,
    shown: int,
    first: int,
    second: int,
    rows: int,
    tests: int,
    arms: tuple[str, ...] = _ARMS,
) -> Finding:
    def arm(name: str, key):
        decoder_key, key = jax.random.split(key)
        repeated = name == "FiD"
        tasks = [LabelledPoints(count, _ASKED, repeated) for count in (shown, _COUNT)]
        sizes = tasks[0].demonstration_tokens, 2 * _ASKED + 2
        tokens = tasks[0].separator, tasks[0].answer
        network = _decoder(width, 2, key=decoder_key)
        if name == "SAICL":
            method = SAICL(*tokens, *sizes)
        else:
            method = SFT()
            if name == "full":
                # All of the prompt sees all of it.
                network = StructuredDecoder(network, -1, tokens[1])  # pyright: ignore[reportCallIssue]
            else:
                network = StructuredDecoder(network, *tokens, False, *sizes)  # pyright: ignore[reportArgumentType]
        # First with few demonstrations, which is cheaper, and then with all.
        for task, updates in zip(tasks, (first, second)):
            method = with_numbers(
                method, learning_rate=_RATE, warmup_updates=20.0, decay_updates=2.0 * updates
            )
            problem, stage_key = TokenProblem(network, task.end), jax.random.fold_in(key, updates)
            if updates:
                learned = learn(method, problem, FreshTexts(task, rows), updates, key=stage_key)
                state = learned.state
            else:
                state = method.init(problem, key=stage_key)
            network = method.network(state)
        return network

    def everything(key):
        key, test_key = jax.random.split(key)
        found = {}
        for name in arms:
            task = LabelledPoints(_COUNT, _ASKED, name == "FiD")
            data = task.texts(tests, key=test_key)
            both = _in_both_orders(data, task.demonstration_tokens)
            chances = _answers(arm(name, key), both)  # pyright: ignore[reportArgumentType]
            right = jnp.mean(chances > 0.5, axis=1)
            found[name] = 0.5 * (right[:tests] + right[tests:])
            found[f"{name}, moved"] = jnp.max(jnp.abs(chances[:tests] - chances[tests:]))
            if name == "SAICL":
                found["most frequent label"] = _majority(data)
        return found

    measured = jax.device_get(jax.jit(everything)(jax.random.key(seed)))
    found = {name: np.asarray(values, np.float64) for name, values in measured.items()}
    share = _operations(64, blocks=True) / _operations(64, blocks=False)
    criteria = [
        Criterion(
            "largest change of the probability of an answer by the order of demonstrations",
            exactly(found["SAICL, moved"].max()),
            at_most=1e-5,
        ),
        Criterion(
            f"operations at {_MANY} demonstrations over those of full attention",
            exactly(share),
            at_most=0.5,
        ),
    ]
    for name, what, least in (
        ("full", "full attention", -0.02),
        ("FiD", "Fusion-in-Decoder", 0.02),
    ):
        if name in arms:
            # Over texts: each decoder is trained once, and another seed trains others.
            difference = mean_of(found["SAICL"] - found[name])
            criteria.append(Criterion(f"accuracy less that of {what}", difference, at_least=least))
    numbers = {name: float(values.mean()) for name, values in found.items()}
    return Finding(tuple(criteria), {"means": numbers})


def _majority(data: Completions) -> Float[Array, ""]:
    """The accuracy of saying the label that is more frequent among the demonstrations."""
    length = 4 * _COUNT
    labels = data.tokens[:, 2:length:4] == LabelledPoints.alphabet.index("+")
    right = data.tokens[:, -1 - _ASKED : -1] == LabelledPoints.alphabet.index("+")
    frequent = jnp.mean(labels, axis=1, keepdims=True) > 0.5
    return jnp.mean(right == jnp.broadcast_to(frequent, right.shape))


def _operations(width: int, *, blocks: bool) -> float:
    """Floating-point operations that the compiler counts for one layer that reads one text."""
    task = LabelledPoints(_MANY, 1)
    drawn = jax.eval_shape(lambda key: task.texts(1, key=key), jax.random.key(0))
    tokens = jnp.zeros(drawn.tokens.shape, jnp.int32)
    shapes = jax.eval_shape(lambda key: _decoder(width, 1, key=key), jax.random.key(0))

    def hidden(decoder: Decoder):
        if blocks:
            network = StructuredDecoder(  # pyright: ignore[reportArgumentType]
                decoder,  # pyright: ignore[reportArgumentType]
                task.separator,
                task.answer,
                True,  # pyright: ignore[reportArgumentType]
                4,
                4,
            )
            return network.hidden_in_blocks(tokens)
        return StructuredDecoder(decoder, -1, task.answer).hidden(tokens)  # pyright: ignore[reportCallIssue]

    counted = jax.jit(hidden).lower(shapes).cost_analysis()
    assert counted is not None
    return float(counted["flops"])


CLAIMS = (
    Claim(
        name="demonstrations-need-not-see-each-other",
        statement=(
            "With 64 labelled points in its context, a decoder in which these do not see each "
            "other labels others at most 0.02 less accurately than with full attention, and at "
            "least 0.02 more accurately than Fusion-in-Decoder; their order changes no "
            "probability by more than 1e-5; and with 256 of them one layer takes at most half "
            "the operations of full attention."
        ),
        methods=("SAICL", "SFT"),
        paper="cai2023scaling",
        where="the abstract, which says up to 3.4 times as fast; operations are counted here",
        scales={
            "smoke": {
                "width": 8,
                "shown": 2,
                "first": 0,
                "second": 0,
                "rows": 2,
                "tests": 2,
                "arms": ("SAICL",),
            },
            "small": {
                "width": 32,
                "shown": 16,
                "first": 1_300,
                "second": 60,
                "rows": 32,
                "tests": 256,
            },
        },
        experiment=_experiment,
        learned=(
            "Order and operations hold. Accuracy does not: after 1,360 updates SAICL and full "
            "attention alike still said the label that is most frequent among the demonstrations "
            "(0.70 right), so that their being equal says nothing, while Fusion-in-Decoder, where "
            "each demonstration holds a copy of the query, labelled 0.99 right. Shorter trials "
            "left that label sometimes, and late (0.92 right after 1,300 updates in one with "
            "learned positions): more updates would be needed to compare what is learned."
        ),
    ),
)
