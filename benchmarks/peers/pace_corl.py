"""Updates per second of CORL: its own sampling and its own update, without its tracker."""

import pace
import torch
from columns import commit, read
from corl import build, load

options = pace.arguments()
torch.set_num_threads(options.threads)
trainer = build(
    load(options.checkout, options.method),
    options.method,
    read(options.data),
    updates=1_000_000,
    widths=options.widths,
)


def advance(updates: int) -> None:
    """CORL's loop."""
    for _ in range(updates):
        trainer.update(trainer.sample(options.batch_size))


pace.hand_back(
    pace.measure(advance, options.seconds),
    {"corl": commit(options.checkout), "torch": torch.__version__},
)
