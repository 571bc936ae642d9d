"""netFound against NumPy, cloning on its features, and what can and cannot be told of flows."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.problems.flow import FlowLayout, flow_spaces
from headwater.core.records import TaskLog, Transitions
from headwater.core.spaces import Box, Discrete, Spaces, Statistics
from headwater.methods.control.imitation.encoded_bc import EncodedBC
from headwater.methods.control.representation.net_found import NetFound
from headwater.networks.control.flows import corrupted, packet_normaliser
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

from ..numpy_twin import problem, update

BURSTS, PACKETS, FIELDS, BUCKETS, CHOICES = 3, 2, 2, 4, 3
SMALL = {
    "num_buckets": BUCKETS,
    "embedding_size": 5,
    "width": 8,
    "num_layers": 2,
    "num_heads": 2,
}


def spaces() -> Spaces:
    packet = Spaces(Box((-9.0,) * FIELDS, (9.0,) * FIELDS), Discrete(CHOICES))
    return flow_spaces(packet, BURSTS, PACKETS)


def flows(seed: int, rows: int = 6) -> np.ndarray:
    """Flows that lack packets and bursts, `[row, burst, packet, field and one]`."""
    rng = np.random.default_rng(seed)
    found = np.zeros((rows, BURSTS, PACKETS, FIELDS + 1), np.float32)
    for flow in found:
        for burst in range(rng.integers(1, BURSTS + 1)):
            count = rng.integers(1, PACKETS + 1)
            flow[burst, :count] = 1.0
            flow[burst, :count, :FIELDS] = rng.normal(scale=2.0, size=(count, FIELDS))
    return found


def log(seed: int, rows: int = 6) -> Transitions:
    observation = jnp.asarray(flows(seed, rows).reshape(rows, -1))
    action = jnp.asarray(np.random.default_rng(seed).integers(0, CHOICES, rows), jnp.int32)
    zeros = jnp.zeros(rows)
    return Transitions(observation, action, zeros, observation, zeros == 0, zeros > 0)


def start(**settings):
    method = NetFound(**{**SMALL, **settings})
    return method, eqx.filter_jit(method.init)(spaces(), key=jax.random.key(3))


def labelled(method, state):
    """The state with which labels are learned from."""
    task = TaskLog(log(0), jnp.zeros(1, jnp.int32))
    return method.next_task(state, task, spaces(), key=jax.random.key(0))


# In NumPy, one flow at a time, without what is not there ----------------------------------------


def still(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def looked(block, x):
    """A block on the positions `[position, width]` that there are."""
    query, key, value, out = np.asarray(block.mixing, np.float64)
    y, size = still(x), x.shape[1] // block.heads
    mixed = []
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        scores = (y @ query)[:, part] @ (y @ key)[:, part].T / np.sqrt(size)
        mixed.append(softmax(scores, axis=1) @ (y @ value)[:, part])
    x = x + np.concatenate(mixed, axis=1) @ out
    first, last = (np.asarray(w, np.float64) for w in block.network.weights)
    first_bias, last_bias = (np.asarray(b, np.float64) for b in block.network.biases)
    z = still(x) @ first + first_bias
    # JAX's GELU is that of the hyperbolic tangent.
    z = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    return x + z @ last + last_bias


def features(encoder, flow):
    values = np.asarray(encoder.values, np.float64).reshape(FIELDS, BUCKETS + 1, -1)
    edges = np.linspace(-3, 3, BUCKETS + 1)[1:-1]
    bursts = []
    for number, burst in enumerate(flow):
        there = burst[burst[:, -1] > 0, :-1]
        if not len(there):
            continue
        place = np.asarray(encoder.burst_places[number], np.float64)
        tokens = [np.asarray(encoder.summary) + place]
        for position, packet in enumerate(there):
            told = [values[f, np.searchsorted(edges, x, "right")] for f, x in enumerate(packet)]
            tokens.append(sum(told) + np.asarray(encoder.packet_places[position]) + place)
        bursts.append(np.stack(tokens))
    if encoder.hierarchy:
        for within, among in zip(encoder.blocks[::2], encoder.blocks[1::2]):
            bursts = [looked(within, burst) for burst in bursts]
            summaries = looked(among, np.stack([burst[0] for burst in bursts]))
            for burst, summary in zip(bursts, summaries):
                burst[0] = summary
    else:
        ends = np.cumsum([len(burst) for burst in bursts])[:-1]
        x = np.concatenate(bursts)
        for block in encoder.blocks:
            x = looked(block, x)
        bursts = np.split(x, ends)
    y = still(np.stack([burst[0] for burst in bursts]))
    mixed = softmax(y @ np.asarray(encoder.attention, np.float64)) @ y
    (weight,), (bias,) = encoder.network.weights, encoder.network.biases
    return np.tanh(still(mixed @ np.asarray(weight) + np.asarray(bias)))


@pytest.mark.parity
@pytest.mark.parametrize("hierarchy", [True, False])
def test_flows_are_read_as_in_numpy(hierarchy):
    method, state = start(hierarchy=hierarchy)
    given = flows(1)
    found = eqx.filter_jit(method.encoding(state))(jnp.asarray(given.reshape(len(given), -1)))
    expected = np.stack([features(state.encoder, flow) for flow in given])
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parity
def test_the_losses_of_pretraining():
    method, state = start(swap_weight=0.5, num_layers=1)
    data, key = log(2), jax.random.key(4)
    after, metrics = update(method, state, data, key=key)
    encoder, heads = state.encoder, state.heads

    @eqx.filter_jit
    def looked_at(encoder, observation):
        tokens, present = encoder.tokens(observation)
        shares = {"mask_share": 0.3, "swap_share": 0.5}
        shown = corrupted(tokens, present, BUCKETS, **shares, key=key)
        packets, bursts = encoder.read(shown.tokens, shown.present)
        return tokens, shown, packets, encoder.pool(bursts, shown.present)

    tokens, shown, packets, kept = looked_at(encoder, data.observation)
    (weight,), (bias,) = heads.values.weights, heads.values.biases
    told = np.asarray(packets) @ np.asarray(weight) + np.asarray(bias)
    likely = log_softmax(told.reshape(*tokens.shape, BUCKETS), axis=-1)
    likely = np.take_along_axis(likely, np.asarray(tokens)[..., None], -1)[..., 0]
    chosen = np.asarray(shown.chosen)
    assert 0 < chosen.sum() < chosen.size
    np.testing.assert_allclose(metrics["mask_loss"], -likely[chosen].mean(), rtol=1e-4)
    (weight,), (bias,) = heads.swapped.weights, heads.swapped.biases
    odds = (np.asarray(kept) @ np.asarray(weight) + np.asarray(bias))[:, 0]
    sign = np.where(np.asarray(shown.swapped), -1.0, 1.0)
    expected = np.mean(np.log1p(np.exp(sign * odds)))
    np.testing.assert_allclose(metrics["swap_loss"], expected, rtol=1e-4)
    total = metrics["mask_loss"] + 0.5 * metrics["swap_loss"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    # No action is read.
    other = dataclasses.replace(data, action=(data.action + 1) % CHOICES)
    again, _ = update(method, state, other, key=key)
    for here, there in zip(jax.tree.leaves(again), jax.tree.leaves(after)):
        np.testing.assert_array_equal(here, there)


# With labels -------------------------------------------------------------------------------------


@pytest.mark.equivalence("EncodedBC")
@pytest.mark.parametrize("train_encoder", [False, True])
def test_labels_are_learned_as_by_cloning_on_its_features(train_encoder):
    rate = {"learning_rate": 1e-2}
    method, state = start(train_encoder=train_encoder, num_layers=1, **rate)
    state, _ = update(method, state, log(0), key=jax.random.key(0))
    state = labelled(method, state)
    other = EncodedBC(train_encoder, weight_decay=0.0, hidden_sizes=(), **rate)
    twin = other.warm_start(Agent(method, state), spaces(), key=jax.random.key(5))
    assert twin is not None
    own = jax.tree.map(lambda leaf: leaf[1], state.heads.classes.stacked)
    twin = eqx.tree_at(lambda s: s.actor.network, twin, own)
    before = state
    for seed in range(3):
        data, key = log(10 + seed), jax.random.key(seed)
        state, metrics = update(method, state, data, key=key)
        twin, expected = update(other, twin, data, key=key)
        np.testing.assert_allclose(metrics["loss"], expected["actor_loss"], rtol=1e-4)
    learned = jax.tree.map(lambda leaf: leaf[1], state.heads.classes.stacked)
    for here, there in zip(jax.tree.leaves(learned), jax.tree.leaves(twin.actor.network)):
        np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-5)
    moved = [
        bool(jnp.any(here != there))
        for here, there in zip(jax.tree.leaves(state.encoder), jax.tree.leaves(before.encoder))
    ]
    assert all(moved) if train_encoder else not any(moved)
    # Of the first task there is a head of its own, which no label has reached.
    for here, there in zip(
        jax.tree.leaves(state.heads.classes.stacked),
        jax.tree.leaves(before.heads.classes.stacked),
    ):
        np.testing.assert_array_equal(here[0], there[0])
    act = eqx.filter_jit(lambda one, at, x: one.act(at, x, key=jax.random.key(0), explore=False)[0])
    for observation in data.observation:
        assert act(method, state, observation) == act(other, twin, observation)


# What is hidden ----------------------------------------------------------------------------------


@pytest.mark.oracle
def test_what_is_hidden_and_exchanged():
    rows = 400
    numbers = flows(5, rows)
    present = jnp.asarray(numbers[..., -1] > 0)
    # Every burst tells of which flow it is.
    tokens = jnp.broadcast_to(jnp.arange(rows)[:, None, None, None], (rows, BURSTS, PACKETS, 1))
    shares = {"mask_share": 0.5, "swap_share": 0.25}
    hide = jax.jit(lambda key: corrupted(tokens, present, rows, **shares, key=key))
    shown = hide(jax.random.key(0))
    swapped, chosen = np.asarray(shown.swapped), np.asarray(shown.chosen)
    assert abs(swapped.mean() - 0.25) < 0.07
    there = np.asarray(shown.present)
    assert not chosen[~there].any()
    own = np.asarray(tokens)
    told = np.asarray(shown.tokens)
    away = (told != own) & ~chosen & there[..., None]
    # One burst of each flow that is said to have one, all of it, of the same other flow.
    assert away.any((2, 3)).sum(1).tolist() == swapped.astype(int).tolist()
    for flow in np.flatnonzero(swapped):
        burst = int(np.flatnonzero(away[flow].any((1, 2)))[0])
        packets = told[flow, burst][there[flow, burst]]
        assert len(np.unique(packets)) == 1 and packets[0, 0] != flow
        lengths = np.asarray(present)[packets[0, 0]].sum(-1)
        assert there[flow, burst].sum() in lengths[lengths > 0]
    # Of what could be chosen a half is, and of this eight in ten are hidden and one is random.
    inside = np.zeros_like(there)
    inside[swapped] = away[swapped].any((2, 3), keepdims=True)[..., 0]
    free = there & ~inside
    assert abs(chosen[..., 0][free].mean() - 0.5) < 0.05
    hidden, other = told[chosen] == rows, (told[chosen] != rows) & (told[chosen] != own[chosen])
    assert abs(hidden.mean() - 0.8) < 0.05 and abs(other.mean() - 0.1) < 0.04


@pytest.mark.oracle
def test_fields_are_standardised_by_the_packets_that_there_are():
    numbers = 3.0 + flows(7, 50)
    numbers = np.where(flows(7, 50)[..., -1:] > 0, numbers, 0.0)
    numbers[..., -1] = numbers[..., -1] > 0
    flat = numbers.reshape(50, -1)
    zero = jnp.zeros(())
    known = Statistics(
        jnp.asarray(flat.mean(0), jnp.float32),
        jnp.asarray(flat.std(0), jnp.float32),
        *[zero] * 6,
    )
    packets = numbers[numbers[..., -1] > 0][:, :-1]
    given = dataclasses.replace(spaces(), statistics=known)
    found = packet_normaliser(given, True)(jnp.asarray(flat, jnp.float32))
    found = np.asarray(found).reshape(numbers.shape)
    np.testing.assert_array_equal(found[..., -1], numbers[..., -1])
    expected = (packets - packets.mean(0)) / (packets.std(0) + 1e-3)
    np.testing.assert_allclose(found[numbers[..., -1] > 0][:, :-1], expected, atol=1e-3)
    plain = packet_normaliser(given, False)(jnp.asarray(flat, jnp.float32))
    np.testing.assert_array_equal(plain, flat.astype(np.float32))


@pytest.mark.oracle
def test_what_is_hidden_is_told_as_well_as_it_can_be():
    # One field is the same in all packets of a flow; the other is anything in every packet.
    rng, rows = np.random.default_rng(0), 512
    middles = np.linspace(-2.25, 2.25, BUCKETS)
    numbers = np.ones((rows, BURSTS, PACKETS, FIELDS + 1), np.float32)
    numbers[..., 0] = middles[rng.integers(0, BUCKETS, (rows, 1, 1))]
    numbers[..., 1] = middles[rng.integers(0, BUCKETS, (rows, BURSTS, PACKETS))]
    observation = jnp.asarray(numbers.reshape(rows, -1))
    zeros = jnp.zeros(rows)
    data = Transitions(
        observation, zeros.astype(jnp.int32), zeros, observation, zeros == 0, zeros > 0
    )
    # All packets look at each other, twice.
    changed = {"width": 16, "num_layers": 1, "hierarchy": False}
    method = NetFound(**{**SMALL, **changed}, swap_share=0.0, learning_rate=1e-2)
    run = eqx.filter_jit(
        lambda key: learn(method, spaces(), Replay(data, 64), 400, every=50, key=key).means
    )
    loss = np.asarray(run(jax.random.key(0))["mask_loss"])
    # Eight in ten of the chosen are hidden; of the others half are as they are, and some by chance.
    right = 0.5 + 0.5 / BUCKETS
    wrong = (1 - right) / (BUCKETS - 1)
    seen = -right * np.log(right) - (1 - right) * np.log(wrong)
    best = (0.8 * np.log(BUCKETS) + 0.2 * seen) / 2
    assert loss[0] > 1.2 * best and 0.95 * best < loss[-1] < 1.1 * best


# What it is not for ------------------------------------------------------------------------------


def test_what_is_no_flow_is_one_packet_and_actions_are_classes():
    method = NetFound(**SMALL)
    state = eqx.filter_eval_shape(method.init, problem(True), key=jax.random.key(0))
    assert state.encoder.layout == FlowLayout(1, 1, 4)
    with pytest.raises(SpecificationError, match="NetFound"):
        method.init(problem(False), key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="width = 8 is no multiple of num_heads = 3"):
        NetFound(**{**SMALL, "num_heads": 3}).init(spaces(), key=jax.random.key(0))
