"""A tiny decoder learns to add from worked sums, and then from being told what was right.

Upstream are a few hundred sums with their answers; downstream come only rewards for answers of its
own. Both are stages of one run.
"""

import jax

from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_tasks import Addition, ExactMatch, correct, prompts_of
from headwater.methods.language.rewards.grpo import GRPO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.generation import generate
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.language.completions import SampledCompletions
from headwater.sources.language.fresh_texts import FreshTexts


def main(updates: int = 150) -> None:
    """Trains on answers, then half as long on rewards, and prints how many sums are right."""
    task = Addition(digits=1, form="reverse", count=80)
    architecture = Architecture(task.vocabulary, context=12, width=48, layers=2, heads=4)
    problem = TokenProblem(Decoder(architecture, key=jax.random.key(0)), task.end)

    every = task.every_text()
    prompts = prompts_of(every, width=4)

    upstream = Stage(
        "sums with answers",
        SFT(learning_rate=3e-3),
        FreshTexts(task, rows=32),
        updates=updates,
    )
    downstream = Stage(
        "rewards alone",
        GRPO(learning_rate=1e-3),
        SampledCompletions(
            prompts, reward=ExactMatch(every), rows=16, samples=8, new_tokens=3, end=task.end
        ),
        updates=updates // 2,
        # It goes on with the network that the first stage left.
        begin=lambda outcomes, problem, key: GRPO(learning_rate=1e-3).init(
            TokenProblem(outcomes["sums with answers"].state.network, problem.end), key=key
        ),
    )
    result = run([upstream, downstream], problem)

    for name, outcome in result.outcomes.items():
        network = jax.tree.map(lambda x: x[0], outcome.state.network)
        written = generate(network, prompts, 3, key=jax.random.key(1), end=task.end, greedy=True)
        share = correct(written, every).mean()
        print(f"after {name}: {share:.0%} of {len(prompts.length)} sums right")


if __name__ == "__main__":
    main()
