"""Timing of steps against one another: in turns, in one process, so that a machine's drift hits all alike."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

TURN_SECONDS = 0.05
"""A contestant's turn lasts about this long: long against the clock, short against the machine's drift."""
FEWEST_ROUNDS = 5
WARM_UP = 3
SPINNING_SECONDS = 0.25
"""How long the threads of a pool may go on spinning after their work, and so slow who comes next on another core."""


class Contestant(Protocol):
    """Something whose step is timed: `run` makes so many of them. A step serves `networks` networks at once."""

    networks: int

    def run(self, steps: int) -> None: ...


@dataclass(frozen=True)
class Timing:
    """Milliseconds per network and step, over the rounds: median, quartiles and minimum."""

    median: float
    low: float
    high: float
    least: float
    rounds: int

    @classmethod
    def of(cls, milliseconds: list[float]) -> Timing:
        low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
        return cls(median, low, high, min(milliseconds), len(milliseconds))


@dataclass
class Steps:
    """A contestant of this process: a step, the networks that it serves, and the threads that it may use."""

    step: Callable[[], Any]
    networks: int = 1
    threads: int = 1
    device: str = "cpu"

    def run(self, steps: int) -> None:
        with threads_of(self.threads):
            for _ in range(steps):
                self.step()
            synchronise(self.device)


def interleaved(contestants: Mapping[str, Contestant], *, seconds: float, pause: float = 0.0) -> dict[str, Timing]:
    """Times every contestant in turn, round after round, for about so many seconds each.

    Each turn begins after a `pause` and a step that is not timed: it brings back to the caches what others displaced.
    """
    turns: dict[str, tuple[Contestant, int]] = {}
    longest = 0.0
    for name, contestant in contestants.items():
        contestant.run(WARM_UP)
        one = _timed(contestant, 1)
        steps = max(1, math.ceil(TURN_SECONDS / one))
        turns[name] = contestant, steps
        longest = max(longest, one * steps)
    rounds = max(FEWEST_ROUNDS, round(seconds / longest))
    milliseconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (contestant, steps) in turns.items():
            time.sleep(pause)
            contestant.run(1)
            milliseconds[name].append(1e3 * _timed(contestant, steps) / (steps * contestant.networks))
    return {name: Timing.of(values) for name, values in milliseconds.items()}


def _timed(contestant: Contestant, steps: int) -> float:
    started = time.perf_counter()
    contestant.run(steps)
    return time.perf_counter() - started


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """So many threads for torch's operations, inside."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


class Crew:
    """The same contestant in several processes at once, one thread each: how alignkit uses a machine's cores.

    `build(*arguments)` makes a contestant in every process; both must be picklable. A context manager.
    """

    def __init__(self, processes: int, build: Callable[..., Contestant], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_crew_member, args=(theirs, build, arguments), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self.networks = sum(pipe.recv() for pipe in self._pipes)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.send(0)
        for process in self._processes:
            process.join()

    def run(self, steps: int) -> None:
        for pipe in self._pipes:
            pipe.send(steps)
        for pipe in self._pipes:
            pipe.recv()


def _crew_member(pipe: Any, build: Callable[..., Contestant], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    contestant = build(*arguments)
    pipe.send(contestant.networks)
    while steps := pipe.recv():
        contestant.run(steps)
        pipe.send(None)
