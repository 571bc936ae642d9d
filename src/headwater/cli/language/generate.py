"""`headwater language generate`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json


def command(
    model: Annotated[Path, tyro.conf.Positional, option("DIR")],
    /,
    prompt: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, option("TEXT", "-p")] = (),
    chat: Flag = False,
    system: Annotated[str | None, option("TEXT")] = None,
    adapters: Annotated[Path | None, option("DIR")] = None,
    new_tokens: Annotated[int, option("N")] = 64,
    samples: Annotated[int, option("N")] = 1,
    temperature: Annotated[float, option("X")] = 1.0,
    top_k: Annotated[int | None, option("N")] = None,
    top_p: Annotated[float | None, option("X")] = None,
    min_p: Annotated[float | None, option("X")] = None,
    repetition_penalty: Annotated[float | None, option("X")] = None,
    greedy: Flag = False,
    seed: Annotated[int, option("N")] = 0,
    require: Annotated[tuple[str, ...], option("WORD")] = (),
    forbid: Annotated[tuple[str, ...], option("WORD")] = (),
    once: Annotated[tuple[str, ...], option("WORD")] = (),
    json: Flag = False,
) -> None:
    """Let a language model continue texts.

    Example: `headwater language generate runs/sft-letters/model --prompt "Dear" --samples 3`.

    Args:
        model: Directory with config.json, safetensors and tokenizer.json, or of adapters that name
            one.
        prompt: A text to continue; may be repeated. Without one, lines are read from the standard
            input.
        chat: The prompts are what a user says to the assistant: they are put into the model's chat
            template, and the answers alone are printed.
        system: What the system says first; with chat.
        adapters: Directory of adapters in PEFT's form, to be merged into the model.
        new_tokens: To write at most, for each prompt.
        samples: Answers to each prompt.
        temperature: Smaller is more certain.
        top_k: Choose only among so many likeliest tokens.
        top_p: Choose only among the likeliest tokens that hold this probability.
        min_p: Choose only among tokens with at least this share of the probability of the
            likeliest.
        repetition_penalty: Above 1, tokens that the text has already become less likely.
        greedy: Always take the likeliest token.
        seed: Of all randomness.
        require: Words that each text has to have, all of them; wing|feather: one of several.
        forbid: Words that no text has.
        once: Words that each text has once at most; the|a|an: one of several.
        json: Print prompts, answers and their log-probabilities as JSON.
    """
    import sys

    from headwater.api.language.write import generate_texts
    from headwater.core.errors import SpecificationError
    from headwater.texts.models import load_language_model

    prompts = list(prompt) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if system is not None and not chat:
        raise SpecificationError("--system is what is said before a conversation: give --chat too")
    first = [] if system is None else [{"role": "system", "content": system}]
    found = generate_texts(
        load_language_model(model, adapters=adapters),
        [[*first, {"role": "user", "content": p}] for p in prompts] if chat else prompts,
        new_tokens=new_tokens,
        samples=samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        greedy=greedy,
        seed=seed,
        required=require,
        forbidden=forbid,
        once=once,
    )
    if json:
        print_json([{"prompt": p, "samples": each} for p, each in zip(prompts, found)])
        return
    for text, answers in zip(prompts, found):
        for answer in answers:
            print(answer["text"] if chat else f"{text}{answer['text']}")
