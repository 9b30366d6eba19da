"""The training loop of a cohort, and the records that it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from alignkit import streams
from alignkit.arithmetic import multiplying_in
from alignkit.cohorts import EVALUATION_CHUNK, Cohort
from alignkit.columns import CHECKPOINTS, LAYERS, MEASURE_COLUMNS
from alignkit.data import Dataset, Split, gather
from alignkit.losses import is_right, sample_losses
from alignkit.measures import Measures
from alignkit.members import Member
from alignkit.network import Network, Pass
from alignkit.prealignment import prealign
from alignkit.probe import Probe, schedule, step_measures
from alignkit.rules import RULES, rule_class
from alignkit.rules.bp import BP
from alignkit.settings import Probe as ProbeOptions
from alignkit.tails import training_mode
from alignkit.update import Update

SPLITS = ("train", "validation", "test")

Progress = Callable[[float], None]


@torch.no_grad()
def train_cohort(
    cohort: Cohort, dataset: Dataset, *, device: torch.device | str = "cpu", progress: Progress | None = None
) -> dict[str, pd.DataFrame]:
    """Train a cohort's runs together and return their tables: `runs`, `checkpoints`, `layers`.

    `dataset` lies on `device`, in the type of the study's training. `progress` is called with the
    fraction that is done, and may raise to stop.
    """
    settings = cohort.settings
    training = settings.training
    members = [Member(run.settings, run.seed) for run in cohort.runs]
    network = Network(members, shape=dataset.shape, outputs=dataset.outputs, device=device)
    rule = rule_class(cohort.rule)(network, members)
    bp = BP(network, members)
    if settings.network.initialisation == "pre_aligned":
        prealign(network, bp.measured, members, dataset.train)
    x, targets = probe_batch(dataset, settings.probe)
    probe = Probe(network, rule, members, x, targets)
    update = Update(network, rule, bp, members)
    checkpoints = schedule(settings.probe, steps_per_epoch=cohort.steps_per_epoch, epochs=training.epochs)
    watched = frozenset(checkpoints)
    wants_step = "step" in settings.probe.groups
    recorder = _Recorder(cohort, network, probe, dataset, signal="teaching" if rule.measured is rule else "bystander")
    # the quickest, but for a rule of the user's own, which may differentiate
    undifferentiated = torch.inference_mode if cohort.rule in RULES else torch.no_grad
    with undifferentiated():
        recorder.checkpoint(0, None)

        batches = _batches(members, len(dataset.train), training.batch_size, network.parameters.storage.device)
        for step in range(1, cohort.steps + 1):
            batch, labels = gather(dataset.train, next(batches))
            with multiplying_in(training.matmul_precision, str(device)):
                passed = network.forward(batch, labels, training_mode(step), watch=True)
            recorder.check(step - 1, passed)
            measured = wants_step and step in watched
            before = update.reference(passed) if measured else None
            with multiplying_in(training.matmul_precision, str(device)):
                update.step(passed)
            del batch, passed  # measuring needs the memory
            if step in watched:
                recorder.checkpoint(step, None if before is None else step_measures(network, *before))
                del before  # before the next one is made
            if progress is not None:
                progress(step / cohort.steps)
    return recorder.tables()


def probe_batch(dataset: Dataset, options: ProbeOptions) -> tuple[Tensor, Tensor]:
    """The probe's samples, the same for every run. Splits come shuffled: draw k is their k-th piece."""
    split: Split = getattr(dataset, options.split)
    chosen = slice(options.draw * options.samples, (options.draw + 1) * options.samples)
    return split.inputs[chosen], split.targets[chosen]


def evaluate(network: Network, split: Split, *, samples: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy [E] on a split (its first `samples`; 0: all), in evaluation mode.

    Accuracies are NaN for regression.
    """
    members = network.parameters.members
    count = min(samples, len(split)) or len(split)
    loss = torch.zeros(members, dtype=torch.float64, device=split.inputs.device)
    correct = torch.zeros_like(loss)
    classes = not split.targets.is_floating_point()
    for start in range(0, count, EVALUATION_CHUNK):
        x = split.inputs[start : min(start + EVALUATION_CHUNK, count)]
        wanted = split.targets[start : min(start + EVALUATION_CHUNK, count)]
        output = network.predict(x.expand(members, *x.shape))
        wanted = wanted.expand(members, *wanted.shape)
        loss += sample_losses(network.loss, output, wanted).double().sum(1)
        if classes:
            correct += is_right(output, wanted).sum(1)
    accuracy = correct / count if classes else torch.full_like(loss, torch.nan)
    return (loss / count).cpu().numpy(), accuracy.cpu().numpy()


def _batches(members: list[Member], samples: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Each member's batches of sample indices [E, N], epoch after epoch, the last partial one dropped."""
    seeds = [member.seed_of("order") for member in members]
    epoch = 0
    while True:
        orders = {seed: streams.permutation(seed, "order", count=samples, step=epoch) for seed in set(seeds)}
        order = torch.from_numpy(np.stack([orders[seed] for seed in seeds])).to(device)
        for start in range(0, samples - batch_size + 1, batch_size):
            yield order[:, start : start + batch_size]
        epoch += 1


class _Row(NamedTuple):
    """What one checkpoint found of all members."""

    step: int
    measures: Measures
    output_cosine: np.ndarray
    evaluated: dict[str, np.ndarray]


class _Recorder:
    """Collects a cohort's rows while it trains."""

    def __init__(self, cohort: Cohort, network: Network, probe: Probe, dataset: Dataset, *, signal: str) -> None:
        self._signal = signal
        self._cohort, self._network, self._probe, self._dataset = cohort, network, probe, dataset
        device = network.parameters.storage.device
        self._diverged_step = torch.zeros(len(cohort.runs), dtype=torch.int64, device=device)
        self._rows: list[_Row] = []

    def check(self, step: int, passed: Pass | None = None) -> None:
        """Note the members whose parameters stopped being finite at this step (a loss that is not finite makes
        the output layer's so in the same step).

        With the next step's pass, all parameters are looked at only where something in it is not finite. A GPU
        looks at them always, since to ask would make it wait.
        """
        so_far = self._diverged_step == 0
        if passed is not None and passed.total is not None and not so_far.is_cuda:
            finite = math.isfinite(passed.total.sum().item())  # of all members at once: the rule
            if finite or not (so_far & ~torch.isfinite(passed.total)).any():
                return
        self._diverged_step += (so_far & ~self._network.parameters.finite) * step

    def checkpoint(self, step: int, last_update: Measures | None) -> None:
        self.check(step)
        measures, output_cosine = self._probe.measure(step)
        if last_update is not None:
            measures = {**measures, **last_update}
        samples = self._cohort.settings.probe.evaluation_samples
        diverged = self._diverged
        for values in (*measures.values(), output_cosine):
            if values.dtype.kind == "f":
                values[diverged] = np.nan
        if "undefined" in measures:
            measures["undefined"][diverged] = self._cohort.settings.probe.samples
        self._rows.append(_Row(step, measures, output_cosine, self._evaluated(samples)))

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"runs": self._runs(), "checkpoints": self._checkpoints(), "layers": self._layers()}

    @property
    def _diverged(self) -> np.ndarray:
        return (self._diverged_step > 0).cpu().numpy()

    def _evaluated(self, samples: int) -> dict[str, np.ndarray]:
        found = {}
        for name in SPLITS:
            split = getattr(self._dataset, name)
            nothing = np.full(len(self._cohort.runs), np.nan)
            loss, accuracy = (
                (nothing, nothing.copy()) if split is None else evaluate(self._network, split, samples=samples)
            )
            for column, values in ((f"{name}_loss", loss), (f"{name}_accuracy", accuracy)):
                found[column] = np.where(self._diverged, np.nan, values)
        return found

    def _runs(self) -> pd.DataFrame:
        training = [run.settings.training for run in self._cohort.runs]
        diverged_step = self._diverged_step.cpu().numpy()
        return pd.DataFrame(
            {
                "run_id": [run.run_id for run in self._cohort.runs],
                **self._evaluated(0),
                "lr": [t.lr for t in training],
                "output_lr": [t.lr if t.output_lr is None else t.output_lr for t in training],
                "diverged": diverged_step > 0,
                "diverged_step": pd.array([int(s) if s else None for s in diverged_step], dtype="Int64"),
                "steps": self._cohort.steps,
                "parameters": self._network.parameters.layout.count,
            }
        )

    def _checkpoints(self) -> pd.DataFrame:
        members, steps = len(self._cohort.runs), self._steps
        evaluated = {
            name: np.concatenate([row.evaluated[name] for row in self._rows]) for name in self._rows[0].evaluated
        }
        columns = {
            "run_id": [run.run_id for run in self._cohort.runs] * len(steps),
            "step": np.repeat(steps, members),
            "epoch": np.repeat(steps / self._cohort.steps_per_epoch, members),
            "mode": self._cohort.settings.probe.mode,
            "output_cosine": np.concatenate([row.output_cosine for row in self._rows]),
            **evaluated,
        }
        return pd.DataFrame(columns)[list(CHECKPOINTS)]

    def _layers(self) -> pd.DataFrame:
        shapes = self._network.layers[:-1]
        members, layers, steps = len(self._cohort.runs), len(shapes), self._steps
        shape = (members, layers)
        columns: dict[str, Any] = {
            "run_id": np.tile(np.repeat([run.run_id for run in self._cohort.runs], layers), len(steps)),
            "step": np.repeat(steps, members * layers),
            "epoch": np.repeat(steps / self._cohort.steps_per_epoch, members * layers),
            "layer": np.tile(np.arange(1, layers + 1), members * len(steps)),
            "layer_name": np.tile([shape.name for shape in shapes], members * len(steps)),
            "width": np.tile([shape.size for shape in shapes], members * len(steps)),
            "signal": self._signal,
        }
        absent = {name: np.full(shape, np.nan) for name in MEASURE_COLUMNS}
        absent["undefined"] = np.zeros(shape, dtype=np.int64)
        for name, nothing in absent.items():
            columns[name] = np.stack([row.measures.get(name, nothing) for row in self._rows]).reshape(-1)
        return pd.DataFrame(columns)[list(LAYERS)]

    @property
    def _steps(self) -> np.ndarray:
        return np.array([row.step for row in self._rows])
