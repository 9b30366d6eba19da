"""How a step's cost grows with members, seeds, width, depth and probes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alignkit.benchmark.contestants import Case, Engine
from alignkit.benchmark.timing import Contestant, Steps, interleaved

MEMBERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
DEPTHS = (1, 2, 4, 8, 16)
CHECKPOINTS = (0, 1, 2, 4, 8)
SMALL = Case((64, 64, 64, 64, 10), 32)


def growth(device: str, *, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds against each quantity, and the exponent of a power law through the upper half of its values.

    One cohort's step against its members, a study's against its seeds (in cohorts of the planned size), one
    member's against width and depth, and ten steps against the measurements among them.
    """
    small = replace(SMALL, device=device)
    return [
        _curve("members of a cohort", MEMBERS, lambda n: Engine(replace(small, members=n)), seconds, per="cohort"),
        _curve("seeds of a study", MEMBERS, lambda n: _Study(small, n), seconds, per="study"),
        _curve("width", WIDTHS, lambda n: Engine(replace(small, sizes=(64, n, n, n, 10), members=4)), seconds),
        _curve("hidden layers", DEPTHS, lambda n: Engine(replace(small, sizes=(64, *[64] * n, 10))), seconds),
        _curve("measurements in ten steps", CHECKPOINTS, lambda n: _Measured(small, n), seconds),
    ]


class _Study:
    """The cohorts of a study with so many seeds, one after the other."""

    def __init__(self, case: Case, seeds: int) -> None:
        pieces = -(-seeds // case.cohort_size)
        sizes = [seeds * (piece + 1) // pieces - seeds * piece // pieces for piece in range(pieces)]
        engines = {size: Engine(replace(case, members=size)) for size in set(sizes)}
        self._engines = [engines[size] for size in sizes]
        self.networks, self.case = seeds, case

    def step(self) -> None:
        for engine in self._engines:
            engine.step()


class _Measured:
    """Ten steps, some of them measured."""

    def __init__(self, case: Case, measured: int) -> None:
        self._engine, self._measured = Engine(case), measured
        self.networks, self.case = self._engine.networks, case

    def step(self) -> None:
        for index in range(10):
            (self._engine.measured_step if index < self._measured else self._engine.step)()


def _curve(
    what: str, values: Sequence[int], build: Callable[[int], Any], seconds: float, *, per: str = "network"
) -> dict[str, Any]:
    contestants: dict[str, Contestant] = {}
    for value in values:
        built = build(value)
        networks = 1 if per != "network" else built.networks
        contestants[str(value)] = Steps(built.step, networks, device=built.case.device)
    timings = interleaved(contestants, seconds=seconds / len(values))
    medians = [timings[str(value)].median for value in values]
    return {
        "what": what,
        "per": per,
        "values": list(values),
        "milliseconds": [round(median, 5) for median in medians],
        "exponent": exponent(values, medians),
    }


def exponent(values: Iterable[float], costs: Iterable[float]) -> float:
    """The slope of log cost on log value, by least squares, over the upper half of the positive values.

    >>> round(exponent([1, 2, 4, 8], [3.0, 5.0, 16.0, 64.0]), 6)
    2.0
    """
    pairs = [(value, cost) for value, cost in zip(values, costs, strict=True) if value > 0]
    upper = pairs[len(pairs) // 2 :]
    logs = np.log(np.array(upper, dtype=float))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
