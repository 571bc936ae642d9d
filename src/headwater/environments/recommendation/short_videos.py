"""Sessions with short videos: watch time, and several other responses to each."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import (
    AbstractAuxiliaryRewards,
    AbstractEnvironment,
    Step,
)

_RESPONSES = ("like", "share")
_TIRED = 20.0
"""More than anybody can be after the longest session."""


class Videos(eqx.Module):
    """What there is to watch.

    **Arguments:** `topic`: what each is about, of length one; `minutes`: how long it is; `appeal`:
    to everybody, added to the log-odds of watching on; `response`: log-odds of each response of
    somebody whose interests it does not touch.
    """

    topic: Float[Array, "item topic"]
    minutes: Float[Array, " item"]
    appeal: Float[Array, " item"]
    response: Float[Array, "item response"]


class Session(eqx.Module):
    """What somebody is interested in and how tired they are, how they responded last, and when."""

    interest: Float[Array, " topic"]
    fatigue: Float[Array, ""]
    response: Float[Array, " response"]
    time: Int[Array, ""]


class ShortVideos(AbstractEnvironment, AbstractAuxiliaryRewards):
    r"""Show somebody one video after the other until they leave.

    With interests $u$ and a video about $v$ that lasts $\ell$ minutes and appeals by $b$,
    $\sigma(2\,u \cdot v + b - \text{fatigue})$ of it is watched, give or take, and this in minutes
    is the reward. Each response, a like and a share, comes with probability
    $\sigma(c + w\,u \cdot v)$, whose $c$ is the lower the longer the video is (`conflict`): what is
    watched longest is not what is liked and shared. Interests move towards what is watched,
    $u \leftarrow u + \text{drift} \cdot \text{share watched} \cdot (v - u)$; who stops early tires:
    $\text{fatigue} \leftarrow 0.8\,\text{fatigue} + (1 - \text{share watched})$ and the session
    ends with probability $\sigma(\text{leave level} + \text{fatigue} / 2)$.

    Observation: interests, fatigue. Terminal when somebody leaves; 20 steps.

    **Arguments:** `items`, `topics`: how many; `drift`: how much of the way interests go with a
    video that is watched to its end; `leave_level`: log-odds of leaving of who is not tired;
    `conflict`: how far each response falls with one deviation of a video's log-length, in log-odds;
    `watch_noise`: scale of the logistic noise of the log-odds of watching on; `seed`: of the
    videos; `videos`: these instead, such as those that `fit_short_videos` makes.
    """

    name: ClassVar[str] = "short-videos"
    reference_returns: ClassVar[None] = None

    items: int = eqx.field(static=True, default=50)
    topics: int = eqx.field(static=True, default=8)
    drift: float | Float[Array, ""] = 0.1
    leave_level: float | Float[Array, ""] = -3.0
    conflict: float | Float[Array, ""] = 0.7
    watch_noise: float | Float[Array, ""] = 0.3
    seed: int | Int[Array, ""] = 0
    videos: Videos | None = None

    def __check_init__(self):
        if self.items < 2 or self.topics < 1:
            raise SpecificationError(
                f"items = {self.items}, topics = {self.topics}: there must be at least 2 and 1"
            )
        for name in ("drift", "leave_level", "conflict", "watch_noise"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise SpecificationError(f"{name} = {value} must be finite")
        if isinstance(self.drift, int | float) and not 0.0 <= self.drift <= 1.0:
            raise SpecificationError(
                f"drift = {self.drift} is a share of the way: it must be in [0, 1]"
            )
        if isinstance(self.watch_noise, int | float) and self.watch_noise < 0.0:
            raise SpecificationError(f"watch_noise = {self.watch_noise} must be at least 0")
        if self.videos is not None and self.videos.topic.shape != (self.items, self.topics):
            raise SpecificationError(
                f"the videos given are {list(self.videos.topic.shape)} items and topics, but "
                f"items = {self.items} and topics = {self.topics}"
            )

    @property
    def spaces(self) -> Spaces:
        low, high = (-1.0,) * self.topics, (1.0,) * self.topics
        return Spaces(Box((*low, 0.0), (*high, _TIRED)), Discrete(self.items), horizon=20)

    @property
    def auxiliary_rewards(self) -> tuple[str, ...]:
        return _RESPONSES

    @property
    def shown(self) -> Videos:
        """The videos that there are: those given, or those drawn from the seed."""
        if self.videos is not None:
            return self.videos
        return draw_videos(self.items, self.topics, self.conflict, key=jax.random.key(self.seed))

    def reset(self, *, key: PRNGKeyArray):
        interest = _directions(key, (self.topics,))
        start = Session(
            interest, jnp.zeros(()), jnp.zeros(len(_RESPONSES)), jnp.zeros((), jnp.int32)
        )
        return start, _seen(start)

    def step(self, state: Session, action: Array, *, key: PRNGKeyArray):
        # One call for all chance, which is much of what there is to compile.
        smallest = jnp.finfo(jnp.float32).tiny
        luck = jax.random.uniform(key, (2 + len(_RESPONSES),), minval=smallest)
        videos = self.shown
        watched, response = self.expected(state)
        noise = self.watch_noise * (jnp.log(luck[0]) - jnp.log1p(-luck[0]))
        share = jax.nn.sigmoid(watched[action] + noise)
        responded = luck[2:] < jax.nn.sigmoid(response[action])
        toward = videos.topic[action] - state.interest
        reached = Session(
            state.interest + self.drift * share * toward,
            0.8 * state.fatigue + (1.0 - share),
            responded.astype(jnp.float32),
            state.time + 1,
        )
        leaves = jax.nn.sigmoid(self.leave_level + 0.5 * reached.fatigue)
        terminal = luck[1] < leaves
        truncated = (reached.time >= 20) & ~terminal
        reward = videos.minutes[action] * share
        return reached, Step(_seen(reached), reward, terminal, truncated)

    def auxiliary(self, state: Session) -> Float[Array, " auxiliary"]:
        return state.response

    def expected(
        self, state: Session
    ) -> tuple[Float[Array, " item"], Float[Array, "item response"]]:
        """Log-odds of watching on (before the noise) and of each response, for every video."""
        videos = self.shown
        match = videos.topic @ state.interest
        watched = 2.0 * match + videos.appeal - state.fatigue
        weight = jnp.asarray([1.0, 0.5])
        return watched, videos.response + match[:, None] * weight[None]


def draw_videos(items: int, topics: int, conflict: float | Array, *, key: PRNGKeyArray) -> Videos:
    """Random videos: of half a minute, give or take, liked in 8 and shared in 4 of a hundred.

    **Arguments:** `conflict`: as of `ShortVideos`.
    """
    topic_key, length_key, appeal_key, response_key = jax.random.split(key, 4)
    long = jax.random.normal(length_key, (items,))
    own = 0.5 * jax.random.normal(response_key, (items, len(_RESPONSES)))
    level = jnp.asarray([-2.4, -3.2])
    response = level[None] + own - conflict * long[:, None]
    return Videos(
        _directions(topic_key, (items, topics)),
        0.5 * jnp.exp(0.5 * long),
        0.5 * jax.random.normal(appeal_key, (items,)),
        response,
    )


def ranker_logits(
    environment: ShortVideos,
    observation: Float[Array, " observation"],
    sharpness: float | Float[Array, ""],
) -> Float[Array, " item"]:
    """Logits of a ranker that knows interests and appeal, and nothing of responses or lengths.

    **Arguments:** `sharpness`: 0 shows all videos alike, more those that are expected to be watched
    to the end.
    """
    videos = environment.shown
    match = videos.topic @ observation[: environment.topics]
    return sharpness * (2.0 * match + videos.appeal)


def _directions(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    drawn = jax.random.normal(key, shape)
    return drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)


def _seen(state: Session) -> Float[Array, " observation"]:
    return jnp.append(state.interest, state.fatigue)
