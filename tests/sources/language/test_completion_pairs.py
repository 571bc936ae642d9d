"""The best of several completions is what is learned from."""

import jax
import numpy as np

from headwater.core.method import Agent
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import TableReward, every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable
from headwater.sources.language.completion_pairs import BestOfN
from headwater.sources.language.completions import SampledCompletions

RESPONSES = every_response(vocabulary=3, new_tokens=2)


def test_the_best_of_several_by_own_probability_or_by_reward(key):
    network = PrefixTable(3, 3, key=key)
    values = jax.random.normal(key, (1, 9))
    agent = Agent(SFT(), SFT().init(TokenProblem(network), key=key))
    for reward in (None, TableReward(values, 3)):
        written = SampledCompletions(
            RESPONSES.prompts, reward, network, rows=5, samples=6, new_tokens=2
        )
        _, every = written.draw(written.init(key=key), agent, key=key)
        _, best = BestOfN(written).draw(written.init(key=key), agent, key=key)
        worth = log_policy(network, RESPONSES)[0] if reward is None else values[0]
        numbers = np.asarray(every.tokens[..., 1] * 3 + every.tokens[..., 2])
        expected = np.asarray(worth)[numbers].max(axis=1)
        found = np.asarray(best.tokens[..., 1] * 3 + best.tokens[..., 2])
        np.testing.assert_allclose(np.asarray(worth)[found], expected, rtol=1e-5)
