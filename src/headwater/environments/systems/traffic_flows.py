"""Tell by which protocol a flow of packets was made."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.flow import flow_spaces
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, AbstractExpert, Step

_FLAGS = 4
_LARGEST = 5.0
"""Of sizes and gaps, in deviations."""


class Protocols(eqx.Module):
    """What is sent after what, and what it looks like.

    **Arguments:** `following`: the kind of message that follows each, in each protocol; `length`:
    packets of a message of each kind; `size`, `flag`, `gap`: of its packets.
    """

    following: Int[Array, "protocol kind"]
    length: Int[Array, " kind"]
    size: Float[Array, "kind packet"]
    flag: Int[Array, "kind packet"]
    gap: Float[Array, "kind packet"]


class Traffic(eqx.Module):
    """By which protocol the flow was made, and what is seen of it."""

    protocol: Int[Array, ""]
    observation: Float[Array, " observation"]


class TrafficFlows(AbstractEnvironment, AbstractExpert):
    r"""Tell which of several protocols a flow was made by: one action, reward one if it is right.

    A protocol is an automaton: all begin with the same kind of message, and each kind is followed
    by one other, in a circle through all kinds, which is another one in each protocol. So all send
    the same kinds, and it is the order that tells them apart. A message is a burst of packets in
    one direction, which changes from burst to burst. A packet has a direction, a size, flags (one
    of four), a gap to the one before it, and a port. Sizes and gaps are in deviations, and noisy;
    in a share of the bursts something of any kind is sent instead; one flag in six is another one.
    The port stands in the first packet, counted from 1, and 0 in the others: any, or with
    probability `port_tells` that of the protocol, which is a shortcut: it says nothing where that
    is 0.

    Observation: a flow, as `core/problems/flow.py` lays it out. Terminal after the action.

    **Arguments:** `protocols`, `kinds`: how many; `bursts`: of the longest flow (the shortest has
    two less); `packets`: of the longest burst; `noise`: deviation of sizes and gaps of packets of
    the same kind and place; `stray`: share of the bursts in which any kind is sent instead;
    `port_tells`: how often the port is that of the protocol; `port_shift`: of the protocol that has
    so many numbers more instead; `seed`: of the protocols; `automata`: these instead.

    Raises `SpecificationError` unless there are at least two protocols, three kinds and bursts, and
    one packet.
    """

    name: ClassVar[str] = "traffic-flows"
    reference_returns: ClassVar[None] = None

    protocols: int = eqx.field(static=True, default=6)
    kinds: int = eqx.field(static=True, default=6)
    bursts: int = eqx.field(static=True, default=6)
    packets: int = eqx.field(static=True, default=3)
    noise: float | Float[Array, ""] = 0.7
    stray: float | Float[Array, ""] = 0.1
    port_tells: float | Float[Array, ""] = 0.0
    port_shift: int | Int[Array, ""] = 0
    seed: int = eqx.field(static=True, default=0)
    automata: Protocols | None = None

    def __check_init__(self):
        if self.protocols < 2 or min(self.kinds, self.bursts) < 3 or self.packets < 1:
            raise SpecificationError(
                f"{self.name}: protocols = {self.protocols}, kinds = {self.kinds}, bursts = "
                f"{self.bursts}, packets = {self.packets}: at least 2, 3, 3 and 1 are needed"
            )

    @property
    def spaces(self) -> Spaces:
        high = (1.0, _LARGEST, _FLAGS - 1.0, _LARGEST, float(self.protocols))
        low = (-1.0, -_LARGEST, 0.0, -_LARGEST, 0.0)
        packet = Spaces(Box(low, high), Discrete(self.protocols))
        return flow_spaces(packet, self.bursts, self.packets)

    @property
    def known(self) -> Protocols:
        """The protocols that there are: those given, or those drawn from the seed."""
        if self.automata is not None:
            return self.automata
        return draw_protocols(self.protocols, self.kinds, self.packets, seed=self.seed)

    def reset(self, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 10)
        known, shape = self.known, (self.bursts, self.packets)
        protocol = jax.random.randint(keys[0], (), 0, self.protocols)
        rule = known.following[protocol]
        follow = lambda kind, _: (rule[kind], kind)
        start = jnp.zeros((), jnp.int32)
        meant = jax.lax.scan(follow, start, None, length=self.bursts)[1]
        anything = jax.random.randint(keys[1], (self.bursts,), 0, self.kinds)
        kind = jnp.where(jax.random.uniform(keys[2], (self.bursts,)) < self.stray, anything, meant)
        count = jax.random.randint(keys[3], (), self.bursts - 2, self.bursts + 1)
        present = jnp.arange(self.packets)[None] < known.length[kind][:, None]
        present = present & jnp.broadcast_to((jnp.arange(self.bursts) < count)[:, None], shape)
        near = lambda key, x: jnp.clip(
            x + self.noise * jax.random.normal(key, shape), -_LARGEST, _LARGEST
        )
        other = jax.random.randint(keys[4], shape, 0, _FLAGS)
        odd = jax.random.uniform(keys[5], shape) < _FLAGS / (6.0 * (_FLAGS - 1))
        tells = jax.random.uniform(keys[6], ()) < self.port_tells
        any_port, its_port = (
            jax.random.randint(keys[7], (), 0, self.protocols),
            (protocol + self.port_shift) % self.protocols,
        )
        alike = lambda x: jnp.broadcast_to(x, shape).astype(jnp.float32)
        fields = [
            alike(1.0 - 2.0 * (jnp.arange(self.bursts)[:, None] % 2)),
            near(keys[8], known.size[kind]),
            jnp.where(odd, other, known.flag[kind]).astype(jnp.float32),
            near(keys[9], known.gap[kind]),
            jnp.zeros(shape).at[0, 0].set(1.0 + jnp.where(tells, its_port, any_port)),
            jnp.ones(shape),
        ]
        flow = jnp.where(present[..., None], jnp.stack(fields, axis=-1), 0.0)
        observation = flow.reshape(-1)
        return Traffic(protocol, observation), observation

    def step(self, state: Traffic, action: Array, *, key: PRNGKeyArray):
        reward = (action == state.protocol).astype(jnp.float32)
        over = jnp.ones((), bool)
        return state, Step(state.observation, reward, over, ~over)

    def expert_action(self, state: Traffic, *, key: PRNGKeyArray):
        return state.protocol


def draw_protocols(protocols: int, kinds: int, packets: int, *, seed: int) -> Protocols:
    """Protocols in each of which the kinds follow each other in another circle.

    **Arguments:** as of `TrafficFlows`. Raises `SpecificationError` for more protocols than there
    are circles.
    """
    rng = np.random.default_rng(seed)
    circles = int(np.prod(np.arange(1, kinds), dtype=np.int64))
    if protocols > circles:
        raise SpecificationError(
            f"{kinds} kinds of messages can follow each other in {circles} circles, which are too "
            f"few for {protocols} protocols: take more kinds"
        )
    following: list[tuple[int, ...]] = []
    while len(following) < protocols:
        order = rng.permutation(kinds)
        rule = np.zeros(kinds, np.int32)
        rule[order] = np.roll(order, -1)
        if tuple(rule.tolist()) not in following:
            following.append(tuple(rule.tolist()))
    shape = kinds, packets
    return Protocols(
        jnp.asarray(following, jnp.int32),
        jnp.asarray(rng.integers(1, packets + 1, kinds), jnp.int32),
        jnp.asarray(rng.standard_normal(shape), jnp.float32),
        jnp.asarray(rng.integers(0, _FLAGS, shape), jnp.int32),
        jnp.asarray(rng.standard_normal(shape), jnp.float32),
    )
