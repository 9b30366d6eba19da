"""When a run is measured."""

from __future__ import annotations

import numpy as np

from alignkit.settings.probe import ProbeOptions


def schedule(options: ProbeOptions, *, steps_per_epoch: int, epochs: int) -> list[int]:
    """The steps at which a run is measured: always the last, and the first (0) unless the study leaves it out.

    >>> from alignkit.settings.probe import ProbeOptions
    >>> schedule(ProbeOptions(log_steps=3), steps_per_epoch=100, epochs=2)
    [0, 1, 10, 100, 200]
    """
    last = steps_per_epoch * epochs
    chosen = {last, *options.steps, *([0] if options.start else [])}
    if options.log_steps:
        chosen.update(np.rint(np.geomspace(1, steps_per_epoch, options.log_steps)).astype(int).tolist())
    if options.every_epochs:
        every = steps_per_epoch * options.every_epochs
        chosen.update(range(every, last, every))
    return sorted(step for step in chosen if step <= last)
