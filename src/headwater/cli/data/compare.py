"""`headwater data compare`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading


def command(
    data: Annotated[str, tyro.conf.Positional, option("DATA")],
    answers: Annotated[Path, tyro.conf.Positional, option("ANSWERS")],
    /,
    pairs: Annotated[int, option("N", "-n")] = 100,
    length: Annotated[int, option("STEPS", "-l")] = 25,
    port: Annotated[int, option("PORT")] = 0,
    seed: Annotated[int, option("N")] = 0,
    simulate: Flag = False,
    errors: Annotated[float, option("SHARE")] = 0.0,
    beyond: Annotated[int, option("STEPS")] = 0,
    no_browser: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Compare pairs of segments of a log on a page in your browser, and keep the answers.

    Examples: `headwater data compare log.parquet answers.jsonl`, then
    `headwater train PreferenceReward -d log.parquet --comparisons answers.jsonl -o runs/reward` and
    `headwater data label log.parquet rewarded.parquet -r runs/reward`; or, without rewards,
    `headwater train OPPO -d log.parquet --comparisons answers.jsonl`.

    The arrow keys say which of two is better, `=` that they are as good as each other, and the
    space bar skips a pair. Every answer is kept at once, so that you can stop at any time and go on
    with the same command.

    Args:
        data: Logged transitions; rewards are not needed.
        answers: File of the answers: a new one, or one to go on with.
        pairs: How many pairs in all.
        length: Steps of a segment.
        port: To listen on, on this computer alone; 0 takes one that is free.
        seed: Of the pairs that are drawn.
        simulate: Let a judge who knows the logged rewards answer, instead of a person.
        errors: Share of the simulated judge's preferences that are mistaken.
        beyond: Steps after a segment whose rewards count for the simulated judge too.
        no_browser: Only say where the page is, and do not open it.
    """
    from headwater.datasets.read import load

    dataset = load(data, **(reading.given() or {}))
    if simulate:
        from headwater.datasets.segments.answers import write_answers
        from headwater.datasets.segments.judges import judge_segments

        judged = judge_segments(dataset, pairs, length, beyond=beyond, errors=errors, seed=seed)
        print(write_answers(answers, judged, dataset))
        return
    if errors or beyond:
        from headwater.core.errors import SpecificationError

        raise SpecificationError("errors and beyond are of a simulated judge: add --simulate")
    import webbrowser

    from headwater.api.data.compare_segments import ComparisonServer

    server = ComparisonServer(dataset, answers, pairs=pairs, length=length, seed=seed, port=port)
    with server:
        print(f"compare at {server.url} ({server.answered:,} of {pairs:,} answered)", flush=True)
        if not no_browser:
            webbrowser.open(server.url)
        server.finished.wait()
    print(f"{answers}: {server.answered:,} pairs are answered")
