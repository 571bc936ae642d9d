"""What is wrong with the arguments of a command is said in one sentence."""

import pytest

from headwater.cli.arguments import _unwrapped

from .asking import ask


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train", "METHOD is missing"),
        ("train IQL log", "'log' is one argument too many"),
        ("train IQL --updates ten", "--updates: 'ten' is not a whole number"),
        ("train IQL --updates 1.5", "--updates: '1.5' is not a whole number"),
        ("train IQL --top tenth", "--top: 'tenth' is not a number"),
        ("train IQL --updates", "--updates: its value is missing"),
        ("train IQL --from-dsk", "unknown option '--from-dsk': did you mean --from-disk"),
        (
            "train SFT --learning-rate 1e-3",
            "unknown option '--learning-rate': did you mean --reward-range, --reading, "
            "--weight-temperature?; hyper-parameters of methods are given as --set learning_rate=…",
        ),
        ("train IQL --weights gain", "--weights: unknown value 'gain': known values are advantage"),
        ("train IQL --set", "--set: its value is missing"),
        ("adapt run --recipe wrsl", "--recipe: unknown value 'wrsl': did you mean wsrl"),
        ("data convert a b -f parket", "--format: unknown value 'parket': did you mean parquet"),
        ("data convert a b --action-low x", "--action-low: 'x' is not a value that it takes"),
        ("data describe log --random-return x", "--random-return: 'x' is not a number"),
        ("data collect pendulum --kinds best", "--kinds: unknown value 'best'"),
        ("compare a --level much", "--level: 'much' is not a number"),
        ("export", "RUN is missing"),
    ],
)
def test_refusal(arguments, sentence):
    answer = ask(*arguments.split())
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {sentence}"), answer.err
    name = " ".join(arguments.split()[: 2 if arguments.startswith("data") else 1])
    assert answer.err.endswith(f"(see `headwater {name} --help`)\n"), answer.err
    assert answer.err.count("\n") == 1


def test_help_is_not_broken_where_the_code_is():
    text = (
        "Does this\nand that.\n\nArgs:\n    one: Long text\n        that goes on.\n    two: Short."
    )
    expected = "Does this and that.\n\nArgs:\n    one: Long text that goes on.\n    two: Short."
    assert _unwrapped(text) == expected
