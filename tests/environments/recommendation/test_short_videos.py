"""Sessions with short videos against what can be computed by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.environments.control.cart_pole import CartPole
from headwater.environments.interaction import auxiliary_episodes
from headwater.environments.recommendation.fitting import fit_rates, fit_short_videos
from headwater.environments.recommendation.short_videos import (
    Session,
    ShortVideos,
    Videos,
    ranker_logits,
)

LEAVE = 0.2
MINUTES, RATES = np.asarray([0.5, 2.0]), np.asarray([[0.3, 0.05], [0.1, 0.02]])


def odds(rate):
    return np.log(rate / (1.0 - rate))


def two_videos(**changes) -> ShortVideos:
    """Two videos that all watch to their end, about nothing that anybody is interested in."""
    videos = Videos(
        jnp.zeros((2, 1)),
        jnp.asarray(MINUTES, jnp.float32),
        jnp.full(2, 40.0),
        jnp.asarray(odds(RATES), jnp.float32),
    )
    settings = {"drift": 0.0, "watch_noise": 0.0, "leave_level": odds(LEAVE), **changes}
    return ShortVideos(items=2, topics=1, videos=videos, **settings)


@pytest.mark.parametrize("video", [0, 1])
def test_a_session_lasts_until_somebody_leaves(video):
    task = two_videos()
    act = lambda observation, key: jnp.asarray(video, jnp.int32)
    run = jax.jit(lambda key: auxiliary_episodes(task, act, episodes=3_000, key=key))
    rows, lived = run(jax.random.key(0))
    steps = np.asarray(lived.sum(0), np.float64)
    # Of 20 chances to leave, each taken with the same probability.
    expected = (1.0 - (1.0 - LEAVE) ** 20) / LEAVE
    error = steps.std() / np.sqrt(len(steps))
    assert abs(steps.mean() - expected) < 4.0 * error
    np.testing.assert_allclose(np.asarray(rows.reward), MINUTES[video], rtol=1e-5)
    responses = np.asarray(rows.auxiliary)[np.asarray(lived)]
    spread = np.sqrt(RATES[video] * (1.0 - RATES[video]) / len(responses))
    assert np.all(np.abs(responses.mean(0) - RATES[video]) < 4.0 * spread)
    # Whoever left is not seen again, and the last step of whoever stayed is the twentieth.
    ended = np.asarray(rows.terminal | rows.truncated) & np.asarray(lived)
    assert np.all(ended.sum(0) == 1) and np.all(np.asarray(rows.truncated)[:-1] == 0)


def test_interests_go_with_what_is_watched_and_who_stops_tires():
    task = ShortVideos(items=3, topics=2, drift=0.4, watch_noise=0.0, seed=5)
    start = Session(
        jnp.asarray([0.6, -0.8]), jnp.asarray(0.7), jnp.zeros(2), jnp.zeros((), jnp.int32)
    )
    reached, step = jax.jit(task.step)(start, jnp.asarray(1), key=jax.random.key(3))
    videos = task.shown
    topic = np.asarray(videos.topic[1], np.float64)
    watched = 2.0 * topic @ [0.6, -0.8] + float(videos.appeal[1]) - 0.7
    share = 1.0 / (1.0 + np.exp(-watched))
    np.testing.assert_allclose(step.reward, float(videos.minutes[1]) * share, rtol=1e-5)
    interest = np.asarray([0.6, -0.8]) + 0.4 * share * (topic - [0.6, -0.8])
    np.testing.assert_allclose(step.observation[:2], interest, rtol=1e-4)
    np.testing.assert_allclose(step.observation[2], 0.8 * 0.7 + 1.0 - share, rtol=1e-5)
    np.testing.assert_array_equal(task.auxiliary(reached), reached.response)


def test_long_videos_are_liked_less_the_stronger_the_conflict():
    ranks = []
    for conflict in (0.0, 2.0):
        videos = ShortVideos(items=400, conflict=conflict).shown
        long, liked = np.log(np.asarray(videos.minutes)), np.asarray(videos.response)
        ranks.append([np.corrcoef(long, liked[:, i])[0, 1] for i in range(2)])
    assert np.all(np.abs(ranks[0]) < 0.2) and np.all(np.asarray(ranks[1]) < -0.9)


def test_a_ranker_shows_what_it_expects_to_be_watched():
    task = ShortVideos(items=4, topics=3)
    interest = task.shown.topic[2]
    observation = jnp.append(interest, 0.0)
    np.testing.assert_array_equal(ranker_logits(task, observation, 0.0), np.zeros(4))
    expected = 2.0 * np.asarray(task.shown.topic) @ np.asarray(interest)
    expected = 1.5 * (expected + np.asarray(task.shown.appeal))
    np.testing.assert_allclose(ranker_logits(task, observation, 1.5), expected, rtol=1e-4)


def test_what_cannot_be_is_refused():
    with pytest.raises(SpecificationError, match="items = 1, topics = 8: there must be at least"):
        ShortVideos(items=1)
    for numbers, message in (
        ({"drift": 1.5}, r"drift = 1.5 is a share of the way: it must be in \[0, 1\]"),
        ({"watch_noise": -0.1}, "watch_noise = -0.1 must be at least 0"),
        ({"leave_level": float("nan")}, "leave_level = nan must be finite"),
    ):
        with pytest.raises(SpecificationError, match=message):
            ShortVideos(**numbers)
    with pytest.raises(SpecificationError, match=r"the videos given are \[2, 1\] items and topics"):
        dataclasses.replace(two_videos(), items=5)
    with pytest.raises(SpecificationError, match="a step of cart-pole brings one reward"):
        auxiliary_episodes(
            CartPole(), lambda o, k: jnp.asarray(0), episodes=1, key=jax.random.key(0)
        )


def test_rates_that_differ_are_found_and_rates_that_do_not_are_not():
    draw = np.random.default_rng(0)
    truth = draw.normal(-3.0, 0.8, 60)
    shown = np.full(60, 4_000)
    fit = fit_rates(shown, draw.binomial(shown, 1.0 / (1.0 + np.exp(-truth))))
    # Standard errors of mean and deviation of 60 draws are 0.10 and 0.07.
    assert abs(fit.level + 3.0) < 0.3 and abs(fit.spread - 0.8) < 0.2 and fit.gain > 100.0
    assert np.max(np.abs(fit.log_odds - truth)) < 0.5
    # As many responses to each item as the mean says: no spread can be more likely than none.
    alike = fit_rates(np.full(10, 1_000), np.full(10, 20))
    np.testing.assert_allclose(alike.log_odds, odds(0.02), atol=2e-3)
    assert alike.spread == 0.0 and alike.gain == 0.0


def test_an_item_is_drawn_to_the_others_the_more_the_less_it_was_shown():
    shown, responded = np.asarray([10, 1_000, 500, 500]), np.asarray([5, 500, 10, 30])
    fit = fit_rates(shown, responded)
    assert fit.level < fit.log_odds[0] < fit.log_odds[1] < 0.02


def test_sessions_are_fitted_to_counts_and_else_stay_as_they_are():
    shown, responded = np.full(6, 20_000), np.asarray([100, 200, 300, 400, 500, 600])
    task = ShortVideos(items=9, seed=4)
    fitted, fit = fit_short_videos(task, shown, responded, response="share")
    drawn = ShortVideos(items=6, seed=4).shown
    assert fitted.spaces.action_size == 6 and fit.spread > 0.0
    np.testing.assert_allclose(fitted.shown.response[:, 1], odds(responded / shown), atol=0.05)
    np.testing.assert_array_equal(fitted.shown.response[:, 0], drawn.response[:, 0])
    np.testing.assert_array_equal(fitted.shown.minutes, drawn.minutes)
    # Videos that were given, as many as the log has, stay too: one response after the other.
    again, _ = fit_short_videos(fitted, shown, responded[::-1], response="like")
    np.testing.assert_array_equal(again.shown.response[:, 1], fitted.shown.response[:, 1])
    np.testing.assert_allclose(again.shown.response[:, 0], odds(responded[::-1] / shown), atol=0.05)


@pytest.mark.parametrize(
    ("shown", "responded", "message"),
    [
        ([[3, 4]], [[1, 2]], "both need one count for each item"),
        ([3, 4], [1, 5], "item 1 was responded to 5 times and shown 4 times"),
        ([3, 4], [0, 0], "the response came never"),
        ([3, 4], [3, 4], "the response came always"),
        ([3, 4], [1, 1.5], "something else than counts: give whole numbers"),
        ([np.inf, 4], [1, 1], "something else than counts: give whole numbers"),
        (["three", "four"], [1, 1], "something else than counts: give whole numbers"),
    ],
)
def test_counts_that_cannot_be_are_refused(shown, responded, message):
    with pytest.raises(DataError, match=message):
        fit_rates(np.asarray(shown), np.asarray(responded))


def test_a_response_that_there_is_not_is_refused():
    with pytest.raises(DataError, match="there is no response 'follow': there are like, share"):
        fit_short_videos(ShortVideos(), np.asarray([3, 4]), np.asarray([1, 2]), response="follow")
