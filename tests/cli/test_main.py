"""The list of commands, the help of each, and names that are none."""

import re

import pytest

import headwater
from headwater.cli import COMMANDS

from .asking import ask, begin, done


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",), ("help",)])
def test_overview_lists_every_command(arguments):
    shown = done(*arguments)
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", shown, re.MULTILINE), name


@pytest.mark.parametrize("arguments", [("data",), ("data", "--help")])
def test_overview_of_the_data_commands(arguments):
    shown = done(*arguments)
    assert "data describe" in shown and "data collect" in shown and "data convert" in shown
    assert "train" not in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name):
    shown = done(*name.split(), "--help")
    assert shown.startswith(f"usage: headwater {name}")
    assert "None" not in shown, "the default should be told in words"
    # An option that has no text of its own would be followed by its default, or by nothing.
    plain = re.sub(r"[│╭╮╰╯─]", " ", shown).split("options", 1)[1]
    entries = re.split(r"\n +(?=--?\w[\w-]*(?: |,|\n))", plain)[1:]
    assert entries
    for entry in entries:
        words = re.sub(r"\(default: [^)]*\)", "", " ".join(entry.split()))
        words = re.sub(r"--?\w[\w-]*( [^ a-z]*[A-Z…=]+[^ a-z]*| \{[^}]*\})?,?", "", words)
        assert len(words.split()) >= 2, entry


def test_version():
    assert done("--version").split() == ["headwater", headwater.__version__]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("trian",), "unknown command 'trian': did you mean train?"),
        (("data", "colect"), "did you mean data collect"),
        (("xyzzy",), "unknown command 'xyzzy': known commands are adapt, advise, campaign add"),
        (("--seeds", "3"), "unknown command '--seeds'"),
    ],
)
def test_unknown_command(arguments, sentence):
    answer = ask(*arguments)
    assert answer.status == 2 and sentence in answer.err and answer.out == ""


def test_a_process_ends_with_the_status(tmp_path):
    process = begin("methods", "IQQL", folder=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert err == "error: unknown method 'IQQL': did you mean IQL, CQL?\n"
