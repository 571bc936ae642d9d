"""Made up traffic: protocols differ in order alone, and ports tell as often as is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.flow import flow_layout
from headwater.environments.systems.traffic_flows import TrafficFlows, draw_protocols

_FLOWS = 2_000


def drawn(task: TrafficFlows, count: int = _FLOWS):
    """Protocols, and flows `[flow, burst, packet, number]`."""
    keys = jax.random.split(jax.random.key(0), count)
    state, observation = jax.jit(jax.vmap(lambda key: task.reset(key=key)))(keys)
    layout = flow_layout(task.spaces)
    assert layout is not None
    return np.asarray(state.protocol), np.asarray(observation).reshape(count, *layout)


def kinds_of(task: TrafficFlows, flows: np.ndarray) -> np.ndarray:
    """The kind of each burst, of sizes without noise; -1 where there is none."""
    sizes, first = np.asarray(task.known.size)[:, 0], flows[:, :, 0]
    kind = np.abs(first[..., 1:2] - sizes).argmin(-1)
    return np.where(first[..., -1] > 0, kind, -1)


@pytest.mark.parametrize("stray", [0.0, 0.3])
def test_protocols_send_the_same_kinds_in_another_order(stray):
    task = TrafficFlows(noise=0.0, stray=stray)
    protocol, flows = drawn(task)
    kind = kinds_of(task, flows)
    assert set((kind >= 0).sum(1)) == {4, 5, 6}
    following, kinds = np.asarray(task.known.following), task.kinds
    assert len({tuple(rule) for rule in following}) == task.protocols
    for number, rule in enumerate(following):
        # One circle through all kinds.
        at = [0]
        for _ in range(kinds):
            at.append(rule[at[-1]])
        assert sorted(at[:-1]) == list(range(kinds)) and at[-1] == 0
        own = kind[protocol == number]
        kept = (own == np.asarray(at[:-1]))[own >= 0]
        assert abs(kept.mean() - (1 - stray * (kinds - 1) / kinds)) < 0.04


def test_what_a_packet_shows():
    task = TrafficFlows(noise=0.0)
    _, flows = drawn(task)
    there = flows[..., -1] > 0
    assert not flows[~there].any()
    kind = kinds_of(task, flows)
    known = jax.tree.map(np.asarray, task.known)
    np.testing.assert_array_equal(there.sum(-1), np.where(kind >= 0, known.length[kind], 0))
    directions = flows[..., 0][there]
    expected = np.broadcast_to((1 - 2 * (np.arange(6) % 2))[:, None], there.shape[1:])
    np.testing.assert_array_equal(directions, np.broadcast_to(expected, there.shape)[there])
    np.testing.assert_allclose(flows[..., 3][there], known.gap[kind][there], rtol=1e-6)
    odd = flows[..., 2][there] != known.flag[kind][there]
    assert abs(odd.mean() - 1 / 6) < 0.01


@pytest.mark.parametrize("tells, shift", [(0.0, 0), (1.0, 0), (1.0, 2), (0.5, 0)])
def test_ports(tells, shift):
    task = TrafficFlows(port_tells=tells, port_shift=shift)
    protocol, flows = drawn(task)
    port = flows[:, 0, 0, 4] - 1
    assert not flows[:, 1:, :, 4].any() and not flows[:, 0, 1:, 4].any()
    told = port == (protocol + shift) % task.protocols
    assert abs(told.mean() - (tells + (1 - tells) / task.protocols)) < 0.03


def test_one_action_is_right():
    task = TrafficFlows()
    state, observation = task.reset(key=jax.random.key(1))
    expert = task.expert_action(state, key=jax.random.key(0))
    for action in range(task.protocols):
        _, step = task.step(state, jnp.asarray(action), key=jax.random.key(0))
        assert float(step.reward) == (action == int(state.protocol)) == (action == int(expert))
        assert bool(step.terminal) and not bool(step.truncated)
        np.testing.assert_array_equal(step.observation, observation)


def test_seeds_are_of_protocols_and_what_cannot_be_is_refused():
    one, two = (TrafficFlows(seed=seed).known for seed in (0, 1))
    assert not np.array_equal(one.following, two.following)
    with pytest.raises(SpecificationError, match="kinds = 2, bursts = 6, packets = 3: at least 2"):
        TrafficFlows(kinds=2)
    with pytest.raises(SpecificationError, match="other in 2 circles, which are too few for 3 pro"):
        draw_protocols(3, 3, 1, seed=0)
