"""`headwater language evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table


def command(
    model: Annotated[Path, tyro.conf.Positional, option("DIR")],
    /,
    data: Annotated[Path, option("FILE", "-d")],
    adapters: Annotated[Path | None, option("DIR")] = None,
    against: Annotated[Path | None, option("DIR")] = None,
    reward: Annotated[tuple[str, ...], option("REWARD…")] = ("exact-match",),
    reward_weights: Annotated[tuple[float, ...], option("X…")] = (),
    new_tokens: Annotated[int, option("N")] = 64,
    temperature: Annotated[float, option("X")] = 1.0,
    greedy: Flag = False,
    too_long: Literal["refuse", "drop", "cut_prompt", "cut_response"] = "refuse",
    seed: Annotated[int, option("N")] = 0,
    json: Flag = False,
) -> None:
    """Judge a language model on texts or comparisons, with intervals over the rows.

    Of completions: nats per token, and how often its own answers match. Of comparisons: how often
    it agrees. With --against: how often its answers are better than another model's.

    Args:
        model: Directory with config.json, safetensors and tokenizer.json, or of adapters that name
            one.
        data: JSON Lines, Parquet or plain text, in the columns that TRL uses.
        adapters: Directory of adapters in PEFT's form, to be merged into the model.
        against: Another model, whose answers are compared with.
        reward: What answers are judged by: `exact-match` with the file's completions, the run of a
            reward model, the directory of one that transformers loads, or several, added up.
        reward_weights: How often each of several rewards counts; by default once.
        new_tokens: In an answer at most.
        temperature: Of writing.
        greedy: Always take the likeliest token.
        too_long: What happens to rows that do not fit into the model's context.
        seed: Of all randomness.
        json: Print as JSON.
    """
    from headwater.api.language.judge import evaluate_language
    from headwater.texts.models import load_language_model

    found = evaluate_language(
        load_language_model(model, adapters=adapters),
        data,
        against=None if against is None else load_language_model(against),
        reward=reward,
        weights=reward_weights or None,
        new_tokens=new_tokens,
        temperature=temperature,
        greedy=greedy,
        too_long=too_long,
        seed=seed,
    )
    if json:
        import dataclasses

        print_json({name: dataclasses.asdict(value) for name, value in found.items()})
        return
    rows = [[name, str(value)] for name, value in found.items()]
    print_table("", ["of the rows", "mean and 95% interval"], rows)
