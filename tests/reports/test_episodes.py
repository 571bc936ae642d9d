"""An episode of a policy: what is followed is what happened, and what is drawn can be looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractPolicy
from headwater.environments.catalogue import environment_class, environment_names
from headwater.environments.control.pendulum import Pendulum, PendulumState, swing_up_action
from headwater.environments.environment import AbstractDrawable
from headwater.methods.language.texts.sft import SFT
from headwater.reports.episodes import animate_episode, draw_episode, follow_episode

DRAWABLE = [n for n in environment_names() if issubclass(environment_class(n), AbstractDrawable)]


class SwingUp(AbstractPolicy):
    """The scripted expert, as a policy without state."""

    def act(self, state, observation, *, key, explore):
        return swing_up_action(observation), state


class Push(AbstractPolicy):
    """Always the same action of a Gymnasium task."""

    def act(self, state, observation, *, key, explore):
        return jnp.full(6, 0.5), state


def test_the_expert_swings_up_and_its_rewards_are_those_of_its_states():
    episode = follow_episode(SwingUp(), {}, Pendulum(), key=jax.random.key(0))
    assert episode.end == "truncated by the time limit"
    assert episode.reward.shape == (200,) and episode.action.shape == (200, 1)
    assert episode.total > -500.0 and episode.reward[-1] > -0.1
    assert np.abs(episode.action).max() == pytest.approx(2.0), "in newton metres, not in [-1, 1]"
    assert episode.shown[0] == 0 and episode.shown[-1] == 199 and len(episode.shown) == 48
    assert episode.frames is not None and episode.frames.shape == (48, 240, 240, 3)
    # Upright at the end: all of the ink is in the upper half and in the pivot's ring.
    rows = np.where((episode.frames[-1] < 200).any(axis=(1, 2)))[0]
    assert rows.min() < 50 and rows.max() < 130


@pytest.mark.parametrize("name", DRAWABLE)
def test_a_start_is_drawn_within_its_view(name):
    environment = environment_class(name)()
    state, _ = environment.reset(key=jax.random.key(3))
    sketch = environment.sketch(state)
    left, right, low, high = environment.view
    points = np.concatenate([np.asarray(sketch.lines).reshape(-1, 2), sketch.discs[:, :2]])
    assert len(sketch.discs) and np.isfinite(points).all()
    assert (points >= [left, low]).all() and (points <= [right, high]).all()


def test_a_pendulum_is_drawn_where_it_hangs():
    still = jnp.zeros((), jnp.int32)
    for angle, place in ((0.0, (0.0, 1.0)), (np.pi, (0.0, -1.0)), (np.pi / 2, (-1.0, 0.0))):
        state = PendulumState(jnp.asarray(angle), jnp.zeros(()), still)
        np.testing.assert_allclose(Pendulum().sketch(state).discs[0, :2], place, atol=1e-6)


def test_figure_and_moving_pictures(tmp_path):
    episode = follow_episode(SwingUp(), {}, Pendulum(), key=jax.random.key(0))
    draw_episode(episode, tmp_path / "episode.png", title="expert")
    with Image.open(tmp_path / "episode.png") as picture:
        assert picture.format == "PNG" and picture.width > 900
    assert animate_episode(episode, tmp_path / "episode.gif", seconds=4.8)
    with Image.open(tmp_path / "episode.gif") as moving:
        seen = 0
        for frame in ImageSequence.Iterator(moving):
            seen += frame.info["duration"]
        assert seen == 4800, "frames that are alike are written once, and stay as long"
    assert (tmp_path / "episode.gif").stat().st_size < 500_000


def test_a_task_of_gymnasium_is_followed_with_or_without_pictures(tmp_path):
    from headwater.environments.registry import make

    task = make("HalfCheetah-v5", max_episode_steps=12)
    episode = follow_episode(Push(), {}, task, key=jax.random.key(1))
    assert episode.reward.shape == (12,) and episode.action.shape == (12, 6)
    assert (episode.frames is None) == bool(episode.not_drawn)
    draw_episode(episode, tmp_path / "episode.png")
    assert animate_episode(episode, tmp_path / "episode.gif") == (episode.frames is not None)


def test_what_cannot_act_is_refused():
    with pytest.raises(SpecificationError, match="is not a policy: it cannot act"):
        follow_episode(SFT(), {}, Pendulum(), key=jax.random.key(0))
