"""Decoders that are grown while they learn: stages, each deeper than the one before.

A stage trains what the last one left, with more layers; the optimiser's moments grow with it, and
its schedule goes on. All of it is `Stage.begin`, so that any method whose state is `TuningState`
can be grown.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from headwater.core.errors import SpecificationError, nearest
from headwater.core.fields import check_choice
from headwater.core.method import AbstractMethod
from headwater.core.source import AbstractSource
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.methods.language.growth.raptr import RaPTr
from headwater.networks.decoders.blocks import fresh_blocks
from headwater.networks.decoders.changes import silent, with_inserted, with_layers
from headwater.networks.decoders.decoder import Decoder
from headwater.parts.fine_tuning import TuningState
from headwater.runs.loop import run
from headwater.runs.stage import Outcomes, Stage, continue_from

Moments = Literal["copied", "empty"]

Operator = Callable[[Decoder, int, PRNGKeyArray], Decoder]
"""`(decoder, layers to add, key)` to a deeper decoder."""


def stack_last(decoder: Decoder, more: int, key: PRNGKeyArray) -> Decoder:
    """Copies the last layers on top: gradual stacking (Reddi et al., 2023, PMLR 202:14553)."""
    count = decoder.layer_count
    return with_layers(decoder, [*range(count), *range(max(count - more, 0), count)])


def repeat_middle(decoder: Decoder, more: int, key: PRNGKeyArray) -> Decoder:
    """Writes the middle block twice: MIDAS (Saunshi et al., 2024, arXiv:2409.19044).

    Layers are taken in blocks of `more`; of n blocks it is number ⌈n/2⌉, so that the first and the
    last keep their roles.
    """
    blocks = decoder.layer_count // more
    if blocks < 1:
        raise SpecificationError(
            f"{decoder.layer_count} layers have no block of {more} to repeat: add fewer at a time"
        )
    stop = more * math.ceil(blocks / 2)
    layers = range(decoder.layer_count)
    return with_layers(decoder, [*layers[:stop], *layers[stop - more :]])


def insert_fresh(before: int | None = None, *, adds_nothing: bool = False) -> Operator:
    """New layers in front of layer `before` (default: at the end), as training begins with.

    **Arguments:** `adds_nothing`: what they write is zero at first, so that the function stays.
    """

    def operator(decoder: Decoder, more: int, key: PRNGKeyArray) -> Decoder:
        depth = decoder.layer_count + more
        architecture = dataclasses.replace(decoder.architecture, layers=depth)
        blocks = fresh_blocks(architecture, more, key=key)
        place = decoder.layer_count if before is None else before
        return with_inserted(decoder, silent(blocks) if adds_nothing else blocks, place)

    return operator


def repeat_before(before: int) -> Operator:
    """Copies the layers in front of layer `before` once more, at that place."""

    def operator(decoder: Decoder, more: int, key: PRNGKeyArray) -> Decoder:
        if not more <= before <= decoder.layer_count:
            raise SpecificationError(
                f"there are not {more} layers in front of layer {before} to be repeated"
            )
        layers = range(decoder.layer_count)
        return with_layers(decoder, [*layers[:before], *layers[before - more :]])

    return operator


def rearrange(order: Sequence[int]) -> Operator:
    """The layers with these numbers, from the first; some may come several times."""

    def operator(decoder: Decoder, more: int, key: PRNGKeyArray) -> Decoder:
        if len(order) != decoder.layer_count + more:
            raise SpecificationError(
                f"{decoder.layer_count} layers and {more} more are not the {len(order)} of {order}"
            )
        return with_layers(decoder, order)

    return operator


OPERATORS: dict[str, Operator] = {
    "gradual-stacking": stack_last,
    "midas": repeat_middle,
    "random": insert_fresh(),
    "silent": insert_fresh(adds_nothing=True),
}
"""Ways of growing by the names that commands know."""


def grown(
    state: TuningState,
    operator: Operator,
    more: int,
    *,
    key: PRNGKeyArray,
    moments: Moments = "copied",
) -> TuningState:
    """A state with a deeper network, and an optimiser that fits it.

    **Arguments:** `more`: layers; `moments`: whether new layers take over the moments of those that
    they are copies of (of fresh ones these are zero), or all moments begin at zero.
    """
    if not isinstance(state.network, Decoder):
        raise SpecificationError(
            f"only decoders can be grown by layers, and this is {type(state.network).__name__}"
        )

    def grow(leaf: Any) -> Any:
        return _grown_moments(leaf, operator, more, key) if isinstance(leaf, Decoder) else leaf

    optimiser = jax.tree.map(grow, state.optimiser, is_leaf=lambda x: isinstance(x, Decoder))
    if moments == "empty":
        optimiser = jax.tree.map(jnp.zeros_like, optimiser)
    frozen = state.frozen
    if isinstance(frozen, Decoder):
        frozen = operator(frozen, more, key)
    return TuningState(operator(state.network, more, key), frozen, optimiser, state.step)


def _first_array(decoder: Decoder) -> Any:
    """One of the arrays of the layers, whichever a kind of decoder has."""
    return jax.tree.leaves(decoder.blocks)[0]


def _grown_moments(moments: Decoder, operator: Operator, more: int, key: PRNGKeyArray) -> Decoder:
    """What the operator does to the weights; but nothing is known of layers that are new."""
    marked = jax.tree.map(jnp.zeros_like, moments)
    place = jnp.arange(1.0, moments.layer_count + 1)
    first = _first_array(moments)
    numbered = jnp.broadcast_to(place.reshape(-1, *(1,) * (first.ndim - 1)), first.shape)
    marked = eqx.tree_at(_first_array, marked, numbered)
    # Where the marks of the layers come to stand says which are copies of which.
    marks = _first_array(operator(marked, more, key))
    fresh = _first_array(operator(jax.tree.map(jnp.zeros_like, moments), more, key))
    origin = (marks - fresh).reshape(marks.shape[0], -1)[:, 0].astype(jnp.int32)
    deeper = operator(moments, more, key)

    def of_origin(old, new):
        known = origin.reshape(-1, *(1,) * (old.ndim - 1)) > 0
        return jnp.where(jnp.broadcast_to(known, new.shape), old[jnp.maximum(origin - 1, 0)], 0.0)

    blocks = jax.tree.map(of_origin, moments.blocks, deeper.blocks)
    return eqx.tree_at(lambda d: d.blocks, deeper, blocks)


# Stages -----------------------------------------------------------------------------------------


def proportional_updates(updates: int, stages: int, power: float) -> list[int]:
    """How many updates each stage gets: in proportion to its number to this power, at least one.

    With power 0 all are equally long; power 1 gives deep stages more.
    """
    if stages < 1 or updates < stages:
        raise SpecificationError(f"{updates} updates are too few for {stages} stages")
    weights = [(i + 1) ** power for i in range(stages)]
    found = [max(1, round(updates * weight / sum(weights))) for weight in weights]
    found[-1] += updates - sum(found)
    return found


class Plan(NamedTuple):
    """Stages for `run`, and what they cost: updates of single layers, added up."""

    stages: list[Stage]
    layer_updates: int


def growing_stages(
    method: AbstractMethod,
    source: AbstractSource,
    *,
    layers: int,
    stages: int,
    updates: int,
    power: float = 1.0,
    operator: Operator | str = "midas",
    moments: Moments = "copied",
) -> Plan:
    """Stages that train `layers / stages` layers, then twice as many, and so on up to all of them.

    **Arguments:** `method`: whose state is `TuningState`, such as `SFT`; its schedule runs through
    all stages; `source`; `layers`: of the decoder in the problem, a multiple of `stages`;
    `updates`: in all; `power`: see `proportional_updates`; `operator`: one, or its name in
    `OPERATORS`; `moments`: see `grown`.

    **Reference:** Reddi et al. (2023), PMLR 202:14553; Saunshi et al. (2024), arXiv:2409.19044.

    Raises `SpecificationError` if the sizes do not fit, or for an unknown operator.
    """
    if layers % stages:
        raise SpecificationError(
            f"{layers} layers cannot be grown in {stages} equal stages: take a divisor"
        )
    check_choice(moments, Moments, "moments")
    chosen = _operator(operator)
    more = layers // stages

    def first(outcomes: Outcomes, problem: TokenProblem, key: PRNGKeyArray) -> TuningState:
        network = problem.network
        if not isinstance(network, Decoder) or network.layer_count != layers:
            raise SpecificationError(f"the problem needs a decoder of {layers} layers")
        shallow = with_layers(network, range(more))
        return method.init(TokenProblem(shallow, problem.end), key=key)

    def later(before: str) -> Callable[[Outcomes, TokenProblem, PRNGKeyArray], TuningState]:
        def begin(outcomes: Outcomes, problem: TokenProblem, key: PRNGKeyArray) -> TuningState:
            state = outcomes[before].state
            return grown(state, chosen, more, key=key, moments=moments)

        return begin

    found: list[Stage] = []
    lengths = proportional_updates(updates, stages, power)
    for i, length in enumerate(lengths):
        begin = first if i == 0 else later(found[-1].name)
        name = f"depth {more * (i + 1)}"
        found.append(Stage(name, method, source, length, begin=begin))
    return Plan(found, sum(more * (i + 1) * length for i, length in enumerate(lengths)))


def progressive_stages(
    method: RaPTr, source: AbstractSource, *, depths: Sequence[int], updates: int
) -> Plan:
    """Stages of equal length with sub-networks of these depths, for `RaPTr`.

    **Arguments:** `depths`: growing, the last one all layers; `updates`: in all.
    """
    if not depths or list(depths) != sorted(depths):
        raise SpecificationError(f"depths {list(depths)} must grow")
    found: list[Stage] = []
    lengths = proportional_updates(updates, len(depths), 0.0)
    for i, length in enumerate(lengths):
        name = f"{i + 1}: depth {depths[i]}"
        each = dataclasses.replace(method, path_length=depths[i])
        begin = None if i == 0 else continue_from(found[-1].name)
        found.append(Stage(name, each, source, length, begin=begin))
    return Plan(found, sum(depth * length for depth, length in zip(depths, lengths)))


class Choice(NamedTuple):
    """What a trial of several ways of growing found.

    **Arguments:** `name`: of the best; `state`: grown by it and trained for the lag, with a leading
    axis of one seed; `at_once`, `after_lag`: the loss of each candidate before and after that.
    """

    name: str
    state: TuningState
    at_once: dict[str, float]
    after_lag: dict[str, float]


def choose_operator(
    state: TuningState,
    operators: Mapping[str, Operator],
    more: int,
    *,
    method: AbstractMethod,
    source: AbstractSource,
    loss: Callable[[AbstractTokenNetwork], Array],
    lag: int,
    seed: int = 0,
) -> Choice:
    """Grows in every way, trains each for a little while, and keeps the one with the lowest loss.

    The loss at once misleads: it prefers layers that add nothing yet. After a short lag it ranks
    candidates as they will end.

    **Arguments:** `state`: of one seed; `operators`: by name; `more`: layers to add; `method`,
    `source`: what goes on training; `loss`: of a network on held-out texts; `lag`: updates
    before the choice.

    **Reference:** Karp, Saunshi, Miryoosefi, Reddi, Kumar (2024), arXiv:2406.02469.

    Raises `SpecificationError` if there is nothing to choose from.
    """
    if not operators or lag < 1:
        raise SpecificationError("a choice needs at least one way of growing, and a lag above 0")
    key = jax.random.key(seed)
    judge = eqx.filter_jit(lambda network: loss(network))
    at_once, after_lag, states = {}, {}, {}
    for name, operator in operators.items():
        deeper = grown(state, operator, more, key=key)
        at_once[name] = float(judge(deeper.network))
        stage = Stage(name, method, source, lag, begin=_given(deeper))
        problem = TokenProblem(deeper.network)
        result = run([stage], problem, seed=seed, logs=1, progress=False)
        states[name] = result.outcomes[name].state
        after_lag[name] = float(judge(jax.tree.map(lambda x: x[0], states[name].network)))
    best = min(after_lag, key=lambda name: after_lag[name])
    return Choice(best, states[best], at_once, after_lag)


def _given(state: TuningState):
    def begin(outcomes: Outcomes, problem: TokenProblem, key: PRNGKeyArray) -> TuningState:
        return state

    return begin


def _operator(operator: Operator | str) -> Operator:
    if not isinstance(operator, str):
        return operator
    if operator not in OPERATORS:
        raise SpecificationError(nearest(operator, OPERATORS, "way of growing"))
    return OPERATORS[operator]
