"""Displacement against probabilities that are added up over all responses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.analysis.displacement import ches, displacement
from headwater.core.errors import SpecificationError
from headwater.core.records import CompletionComparisons, Completions
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.networks.token_table import LogLinearResponses, PrefixTable
from headwater.testing import check_analysis


def test_displacement_is_what_probabilities_changed_by(key):
    responses = every_response(3, 2)
    chosen, rejected = (
        jax.tree.map(lambda x, i=i: x[0, jnp.asarray(i)], responses.data) for i in ([0, 4], [8, 5])
    )
    before = PrefixTable(3, 3, key=key)
    after = PrefixTable(3, 3, key=jax.random.fold_in(key, 1))
    moved = np.asarray(log_policy(after, responses) - log_policy(before, responses))[0]
    check_analysis(
        displacement,
        {
            "network": after,
            "reference": before,
            "data": CompletionComparisons(chosen, rejected),
        },
        (moved[[0, 4]], moved[[8, 5]]),
        rows={"data": 0},
    )


def test_ches_counts_the_texts_that_pairs_share():
    """Hidden states of a table are one-hot: products count beginnings that both have."""
    network = PrefixTable(3, 4)
    tokens = jnp.asarray([[0, 1, 2, 0], [0, 1, 0, 2], [1, 2, 2, 2]])
    response = jnp.asarray([[False, True, True, True]] * 2 + [[False, True, True, False]])
    chosen = Completions(tokens[jnp.asarray([0, 0, 0])], response[jnp.asarray([0, 0, 0])])
    data = CompletionComparisons(chosen, Completions(tokens, response))
    # The same text; a text with the prompt and one token in common; nothing in common.
    arguments = {"network": network, "data": data}
    check_analysis(ches, arguments, np.asarray([0.0, 2.0 - 3.0, -3.0]), rows={"data": 0})
    averaged = ches(network, data, normalise_lengths=True)
    np.testing.assert_allclose(averaged, [0.0, 2 / 9 - 3 / 9, -3 / 9], rtol=1e-6)
    with pytest.raises(SpecificationError, match="LogLinearResponses does not show"):
        ches(LogLinearResponses(jnp.eye(3), jnp.zeros(3)), data)
