"""Going online with features of observations that were learned from a log."""

import jax
import numpy as np
import pytest

from headwater.api.adapt import adapt
from headwater.api.train import train
from headwater.core.errors import SpecificationError
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.encoded_dqn import EncodedDQN
from headwater.methods.control.representation.pvn import PVN

from .problems import cart_pole_log

FEATURES = PVN(
    discount=0.9, num_rewards=4, rewards_per_network=2, embedding_size=3, hidden_sizes=(8,)
)
ONLINE = {"steps": 40, "block": 8, "evaluations": 1, "progress": False, "env": "cart-pole"}


def test_q_learning_goes_on_with_the_features_and_explores():
    how = {"updates": 4, "seeds": 2, "batch_size": 16, "env": "none", "progress": False}
    before = train(FEATURES, cart_pole_log(), **how)
    run = adapt(before, recipe="wsrl", set={"exploration_decay_updates": 50.0}, **ONLINE)
    assert isinstance(run.method, EncodedDQN)
    assert (run.method.discount, run.method.embedding_size) == (0.9, 3)
    assert run.method.hidden_sizes == (8,) and run.method.exploration_decay_updates == 50.0
    learned = jax.vmap(FEATURES.encoding)(before.state)
    for ours, theirs in zip(
        jax.tree.leaves(run.state.encoding), jax.tree.leaves(learned), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    # A warm-up of a fifth of the steps, then an update for each.
    np.testing.assert_array_equal(run.state.values.step, [32, 32])

    twin = adapt(before, recipe="scratch", **ONLINE)
    assert isinstance(twin.method, DQN) and twin.method.hidden_sizes == (8, 3)
    assert twin.method.discount == 0.9
    for name, value, said in (("embedding_size", 5, "5"), ("hidden_sizes", (9,), "9")):
        sentence = f"{name} = {said} cannot take effect: the encoder is that of the offline run"
        with pytest.raises(SpecificationError, match=sentence):
            adapt(before, recipe="wsrl", set={name: value}, **ONLINE)
    # By the log it is keep-data, for features have no actor that could be held.
    for recipe in ("by-log", "keep-data"):
        with pytest.raises(SpecificationError, match="embedding_size = 5 cannot take effect"):
            adapt(before, recipe=recipe, data=cart_pole_log(), set={"embedding_size": 5}, **ONLINE)
    with pytest.raises(SpecificationError, match="PVN has values and no actor"):
        adapt(before, recipe="proto", **ONLINE)
