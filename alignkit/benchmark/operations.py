"""Where the time of a step goes, operation by operation."""

from __future__ import annotations

import torch

from alignkit.benchmark.contestants import Case, Engine
from alignkit.benchmark.timing import synchronise
from alignkit.errors import AlignkitError


def profile(case: Case, *, steps: int = 20) -> list[tuple[str, float]]:
    """Where the time of a step goes: each operation's share, the largest first; the rest as the last."""
    engine = Engine(case)
    for _ in range(3):
        engine.step()
    cuda = case.device.startswith("cuda")
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        for _ in range(steps):
            engine.step()
        synchronise(case.device)
    times = {
        event.key.removeprefix("aten::"): event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profiler.key_averages()
    }
    total = sum(times.values())
    if not total:
        raise AlignkitError("bench: the profiler recorded nothing. Run it again, or on another device")
    largest = sorted(times, key=lambda name: -times[name])[:8]
    shares = [(name, times[name] / total) for name in largest]
    return [*shares, ("everything else", 1.0 - sum(share for _, share in shares))]
