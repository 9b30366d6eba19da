"""What a cohort's memory model says, against what the allocator counted."""

from __future__ import annotations

from typing import Any

import torch

from alignkit.benchmark.contestants import random_split
from alignkit.data import loading
from alignkit.study.plan import expand
from alignkit.study.study import Study
from alignkit.training.cohorts import Cohort
from alignkit.training.loop import train_cohort
from alignkit.training.memory import DataShape, member_bytes

CASES: tuple[tuple[str, tuple[int, ...], int, dict[str, Any]], ...] = (
    ("64-64-64-64-10, 32 members", (64,), 32, {"network": {"width": 64}, "training": {"batch_size": 32}}),
    (
        "the same with batch norm and dropout", (64,), 32,
        {"network": {"width": 64, "norm": "batch", "dropout": 0.1}, "training": {"batch_size": 32}},
    ),
    ("784-256-256-256-10, 4 members", (784,), 4, {"network": {"width": 256}, "training": {"batch_size": 128}}),
    ("3072-800-800-800-10, 2 members", (3072,), 2, {"network": {"width": 800}, "training": {"batch_size": 128}}),
    (
        "the protocol's convolutional network, 2 members", (3, 32, 32), 2,
        {"network": {"kind": "cnn"}, "training": {"batch_size": 128}},
    ),
)  # fmt: skip


def memory(device: str) -> list[dict[str, Any]]:
    """For each case: the modelled and the counted peak in bytes, and their ratio."""
    peaks = []
    for name, shape, members, sections in CASES:
        modelled, counted = cohort_memory(shape, members, sections, device=device)
        peaks.append({"what": name, "modelled": modelled, "counted": counted, "ratio": modelled / counted})
    return peaks


def cohort_memory(
    shape: tuple[int, ...], members: int, sections: dict[str, Any], *, device: str = "cpu"
) -> tuple[int, int]:
    """The peak that the model gives for a cohort's training, and the one that the allocator counts, in bytes.

    An epoch of two batches on random data, measured at both ends.
    """
    training = {"epochs": 1, **sections.get("training", {})}
    study = Study.parse({"name": "memory", "rules": ["dfa"], "seeds": members, **sections, "training": training})
    samples = 2 * study.training.batch_size
    described = DataShape(shape, 10, samples)
    cohort = Cohort("memory", "dfa", expand(study, fingerprint=lambda section: "random").runs, described)
    generator = torch.Generator().manual_seed(0)
    train, validation, test = (random_split(described, count, generator, device) for count in (samples, 1000, 1000))
    dataset = loading.Dataset("random", "classification", shape, 10, train, validation, test, "")
    modelled = members * member_bytes(cohort.settings, described, device.partition(":")[0])
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        train_cohort(cohort, dataset, device=device)
        return modelled, torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        train_cohort(cohort, dataset, device=device)
    held = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return modelled, peak
