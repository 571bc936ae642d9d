"""`headwater language train`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.frame import print_json, read_settings


def command(
    method: Annotated[str, tyro.conf.Positional, option("METHOD")],
    /,
    model: Annotated[Path, option("DIR", "-m")],
    data: Annotated[Path, option("FILE", "-d")],
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    updates: Annotated[int, option("N")] = 1_000,
    rows: Annotated[int, option("N")] = 16,
    set: Settings = (),
    rank: Annotated[int, option("N")] = 0,
    samples: Annotated[int, option("N")] = 8,
    new_tokens: Annotated[int, option("N")] = 64,
    temperature: Annotated[float, option("X")] = 1.0,
    reward: Annotated[str, option("REWARD")] = "exact-match",
    too_long: Literal["refuse", "drop", "cut_prompt", "cut_response"] = "refuse",
    dtype: Annotated[Literal["float32", "bfloat16"] | None, option("{float32,bfloat16}")] = None,
    seed: Annotated[int, option("N")] = 0,
    json: Flag = False,
) -> None:
    """Train a language model from texts, comparisons, or rewards of what it writes itself.

    What was learned is in OUT/model, a directory that transformers loads. The same command again
    continues a run that was interrupted.

    Examples: `headwater language train SFT -m llama -d demonstrations.jsonl`,
    `headwater language train DPO -m llama -d pairs.jsonl --rank 16`,
    `headwater language train GRPO -m llama -d questions.jsonl --new-tokens 32`.

    Args:
        method: SFT, RaPTr, MeZO (columns prompt and completion, or text, or a .txt file); DPO, IPO,
            HyPO, RewardModel (chosen and rejected); Reinforce, RLOO, GRPO, PPO, DRPO, INPO
            (prompts, and completions that are right); ALoL (completions and their reward);
            RLHFSharpening (prompts alone).
        model: Directory with config.json, safetensors, and tokenizer.json (bytes are tokens if it
            has none).
        data: JSON Lines, Parquet or plain text, in the columns that TRL uses.
        out: Directory of the run; by default `runs/METHOD-DATA`.
        updates: How many.
        rows: Texts, pairs or prompts per update.
        set: A hyper-parameter; may be repeated.
        rank: Of low-rank adapters, the only weights that learn then; 0 trains all weights.
        samples: Responses to each prompt, where the model writes; INPO compares two.
        new_tokens: In a response at most, where the model writes.
        temperature: Of writing.
        reward: `exact-match` with the file's completions, or the run of a RewardModel.
        too_long: What happens to rows that do not fit into the model's context.
        dtype: What to compute in; by default what the model says.
        seed: Root of all randomness.
        json: Print the result as JSON.
    """
    from headwater.api.language.train import LanguageSettings, train_language

    asked = LanguageSettings(
        method=method,
        hyper_parameters=read_settings(set),
        model=str(model),
        data=str(data),
        updates=updates,
        rows=rows,
        samples=samples,
        new_tokens=new_tokens,
        temperature=temperature,
        reward=reward,
        rank=rank,
        dtype=dtype,
        too_long=too_long,
        seed=seed,
    )
    where = out or Path("runs") / f"{method.lower()}-{data.stem}"
    done = train_language(asked, where, progress=None if json else True)
    report(method, done, json)


def report(name: str, done, json: bool) -> None:
    """Says how the training of a language model ended."""
    if json:
        print_json(
            {
                "run": done.path,
                "model": done.model,
                "metrics": done.metrics,
                "tokens_per_second": done.tokens_per_second,
            }
        )
        return
    shown = ", ".join(f"{metric} {value:.4g}" for metric, value in done.metrics.items())
    print(f"{name}: {done.path}\nlast: {shown}")
    print(f"about {done.tokens_per_second:,.0f} tokens a second")
    print(f"model: {done.model}" if done.model.is_dir() else "a reward model: use it as --reward")
