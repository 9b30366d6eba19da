"""What a study will cost on this machine: measured on a few steps of every kind of cohort."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence

import torch

from alignkit.data.dataset import Dataset, Split
from alignkit.data.source import Task
from alignkit.measures.schedule import schedule
from alignkit.numerics.precision import reproducible
from alignkit.training.cohorts import Cohort
from alignkit.training.loop import train_cohort
from alignkit.training.memory import member_bytes

TIMED_STEPS = 4


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Computing time in seconds, over all workers, `measuring` of it at checkpoints, and the memory of the largest
    cohort in bytes."""

    seconds: float
    measuring: float
    largest_cohort_bytes: int
    data_bytes: int


def estimate(planned: Sequence[Cohort], *, device: str) -> Estimate:
    """Times a few steps and one measurement of each kind of cohort on random data of the right shape."""
    seconds = measuring = 0.0
    kinds: dict[str, tuple[float, float]] = {}
    for cohort in planned:
        kind = _kind(cohort)
        if kind not in kinds:
            kinds[kind] = _time(cohort, device)
        per_step, per_checkpoint = kinds[kind]
        n_members, epochs = len(cohort.runs), cohort.settings.training.epochs
        checkpoints = schedule(cohort.settings.probe, steps_per_epoch=cohort.steps_per_epoch, epochs=epochs)
        measuring += n_members * len(checkpoints) * per_checkpoint
        seconds += n_members * cohort.steps * per_step
    device_kind = device.partition(":")[0]
    bytes_of = [len(cohort.runs) * member_bytes(cohort.settings, cohort.data, device_kind) for cohort in planned]
    data_bytes = max(4 * cohort.data.train_samples * math.prod(cohort.data.shape) for cohort in planned)
    return Estimate(seconds + measuring, measuring, max(bytes_of), data_bytes)


def _kind(cohort: Cohort) -> str:
    settings = cohort.settings
    network = settings.network.model_dump_json(exclude={"slope", "initialisation"})
    probe = settings.probe.model_dump_json(exclude={"draw"})
    training = settings.training.model_dump_json(exclude={"lr", "output_lr", "epochs"})
    return f"{cohort.rule} {network} {training} {settings.feedback.law} {probe} {cohort.data}"


def _time(cohort: Cohort, device: str) -> tuple[float, float]:
    """Seconds per member of one step, and of one checkpoint with its evaluation."""
    settings = cohort.settings
    batch = settings.training.batch_size
    evaluated = min(settings.probe.evaluation_samples or cohort.data.train_samples, cohort.data.train_samples)
    training = settings.training.model_copy(update={"epochs": 1})
    probe = settings.probe.model_copy(update={"log_steps": 0, "every_epochs": 0, "steps": ()})
    runs = tuple(
        dataclasses.replace(run, settings=run.settings.model_copy(update={"training": training, "probe": probe}))
        for run in cohort.runs[:8]
    )
    data = dataclasses.replace(cohort.data, train_samples=batch * TIMED_STEPS)
    small = dataclasses.replace(cohort, runs=runs, data=data)
    classes = settings.training.loss == "cross_entropy"
    dtype = torch.float64 if settings.training.dtype == "float64" else torch.float32

    def split(count: int) -> Split:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(count, *data.shape, generator=generator)
        labels = torch.randint(data.outputs, (count,), generator=generator)
        return Split(inputs, labels if classes else torch.randn(count, data.outputs, generator=generator))

    held_out = split(max(settings.probe.samples, evaluated // 2))
    task: Task = "classification" if classes else "regression"
    train = split(batch * TIMED_STEPS)
    dataset = Dataset("random", task, data.shape, data.outputs, train, held_out, held_out, "").to(device, dtype)
    at: list[float] = []
    with reproducible(device):
        started = time.perf_counter()
        train_cohort(small, dataset, device=device, progress=lambda share: at.append(time.perf_counter()))
        ended = time.perf_counter()
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(at[:-1]))
    per_step = gaps[len(gaps) // 2]
    overhead = ended - started - per_step * TIMED_STEPS
    return per_step / len(runs), overhead / 2 / len(runs)
