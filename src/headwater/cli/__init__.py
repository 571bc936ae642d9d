"""The command line. Nothing heavy is imported until a command needs it."""

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "the whole idea in a few minutes: log, learn, adapt, count what was saved"),
    "data describe": ("data.describe", "what is in a dataset, and what can be expected of it"),
    "advise": ("advise", "which methods to try on a log and why, or that it is not worth it"),
    "data collect": ("data.collect", "make datasets of graded quality in a task of your choice"),
    "data convert": ("data.convert", "rewrite a dataset in another format"),
    "data label": ("data.label", "infer actions or rewards that a log lacks"),
    "data compare": ("data.compare", "say which of two segments of a log is better, on a page"),
    "campaign start": ("campaign.start", "begin a campaign of experiments that you make yourself"),
    "campaign ask": ("campaign.ask", "ask which experiment to make next"),
    "campaign tell": ("campaign.tell", "tell what came out of an experiment"),
    "campaign add": ("campaign.add", "add experiments that were made before, from a table"),
    "campaign show": ("campaign.show", "show a campaign: table, page or figure"),
    "methods": ("methods", "list the methods, or show one with its hyper-parameters"),
    "papers": ("papers", "list the papers with methods and claims, or cite a run"),
    "train": ("train", "train a method: on logs, by acting, in finite processes, on texts"),
    "adapt": ("adapt", "take an offline run online, with few new samples"),
    "resume": ("resume", "continue an interrupted run or sweep"),
    "sweep": ("sweep", "train a table of methods, datasets, hyper-parameters and seeds"),
    "query": ("query", "look through the numbers of many runs, with SQL if you like"),
    "evaluate": ("evaluate", "measure the policies of a run"),
    "compare": ("compare", "set runs side by side: table, intervals, learning curves"),
    "report": ("report", "one page about runs: curves, savings, the policy at work, provenance"),
    "export": ("export", "write a policy for use elsewhere: ONNX, StableHLO or safetensors"),
    "language generate": ("language.generate", "let a language model continue texts"),
    "language counterfactuals": (
        "language.counterfactuals",
        "add copies of texts that are about other groups of people",
    ),
    "language evaluate": ("language.evaluate", "judge a language model on texts or comparisons"),
    "language grow": ("language.grow", "train a decoder from scratch that grows while it learns"),
    "claim list": ("claim.list", "list the statements of papers that can be run, with verdicts"),
    "claim show": ("claim.show", "one claim: statement, source, criteria and what runs found"),
    "claim run": ("claim.run", "run claims, one, many or all, and record what they find"),
    "claim report": ("claim.report", "one page of all claims, with a figure for each"),
}
"""Every command: the file that holds it, and what it does."""

_HEAD = """headwater: learn decisions from experience that already exists

usage: headwater COMMAND [options]      headwater COMMAND --help for the options
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command named by `arguments` (default: of the process); returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if given[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"headwater {version('headwater')}")
        return 0
    grouped = given[0] in {name.split()[0] for name in COMMANDS if " " in name}
    name = " ".join(given[:2]) if grouped else given[0]
    if grouped and (len(given) == 1 or given[1] in ("-h", "--help")):
        print(_overview(f"{given[0]} "))
        return 0
    if name not in COMMANDS:
        from headwater.core.errors import nearest

        print(f"error: {nearest(name, COMMANDS, 'command')}", file=sys.stderr)
        return 2
    from headwater.cli.frame import INTERRUPTED, carry_out

    try:
        module = importlib.import_module(f"headwater.cli.{COMMANDS[name][0]}")
    except KeyboardInterrupt:
        # Before there was anything that could be interrupted.
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    status = carry_out(name, module.command, given[len(name.split()) :])
    if status == INTERRUPTED and arguments is None:
        # Whoever interrupts does not wait for the libraries to tidy up, which takes up to seconds.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _overview(prefix: str = "") -> str:
    lines = [_HEAD]
    lines += [
        f"  {name:<14} {summary}"
        for name, (_, summary) in COMMANDS.items()
        if name.startswith(prefix)
    ]
    return "\n".join(lines)
