"""Tokens per second of fine-tuning and of writing: Headwater, a plain PyTorch loop, and TRL.

The same Llama-style model, batch and length for all, random weights and tokens; AdamW and float32.
Every measurement is a process of its own on the same processors, and they take turns. PyTorch,
transformers and TRL are used from an environment of their own (`--torch-python`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

WORKS = {
    "SFT": ("headwater", "torch", "trl"),
    "DPO": ("headwater", "trl"),
    "writing": ("headwater", "transformers"),
}


def main() -> None:
    """Measures, prints the table and writes the result."""
    options = _parser().parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])
    rows: list[dict[str, Any]] = []
    for turn in range(options.rounds):
        for work, libraries in WORKS.items():
            for library in libraries[:: 1 if turn % 2 == 0 else -1]:
                if library != "headwater" and options.torch_python is None:
                    continue
                measured = _measure(library, work, options)
                rows.append({"work": work, "library": library, **measured})
                rate = measured["tokens_per_second"]
                print(f"{work}, {library}: {rate:,.0f} tokens/s", file=sys.stderr, flush=True)
    print("| work | library | tokens/s | headwater / this |\n|---|---|---|---|")
    for work, libraries in WORKS.items():
        medians = {
            library: statistics.median(found)
            for library in libraries
            if (
                found := [
                    row["tokens_per_second"]
                    for row in rows
                    if (row["work"], row["library"]) == (work, library)
                ]
            )
        }
        for library, rate in medians.items():
            print(f"| {work} | {library} | {rate:,.0f} | {medians['headwater'] / rate:.2f} |")
    if options.out is not None:
        from headwater.runs.directory import surroundings

        settings = {k: v for k, v in vars(options).items() if k not in ("out", "torch_python")}
        result = {"settings": settings, "made_with": surroundings(), "rows": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--torch-python", help="a Python with torch, transformers and trl")
    add("--threads", type=int, default=1)
    add("--seconds", type=float, default=10.0, help="timed in each measurement")
    add("--rounds", type=int, default=3)
    add("--width", type=int, default=256)
    add("--layers", type=int, default=4)
    add("--vocabulary", type=int, default=1024)
    add("--length", type=int, default=128, help="tokens in a text, half of them prompt")
    add("--rows", type=int, default=16, help="texts, or pairs, in a batch")
    add("--out", type=Path, help="JSON file to write")
    return parser


def _measure(library: str, work: str, options) -> dict[str, Any]:
    python = sys.executable if library == "headwater" else options.torch_python
    program = "headwater" if library == "headwater" else "torch"
    given = {
        name: getattr(options, name)
        for name in ("threads", "seconds", "width", "layers", "vocabulary", "length", "rows")
    }
    command = [python, str(Path(__file__).with_name(f"pace_{program}.py"))]
    done = subprocess.run(
        [*command, json.dumps({"library": library, "work": work, **given})],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0:
        sys.exit(f"{library} failed on {work}:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
