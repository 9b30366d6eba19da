"""What is checked before a study runs: memory, device, and whether networks fit their data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from alignkit.data import loading
from alignkit.data.source import DatasetShape
from alignkit.errors import StudyError
from alignkit.memory import in_words, machine_bytes
from alignkit.networks.shapes import layer_shapes
from alignkit.numerics.precision import check_precisions
from alignkit.rules import rule_class
from alignkit.settings.data import DataOptions, Images
from alignkit.settings.study_options import Settings
from alignkit.study.runs import Plan, Run
from alignkit.study.watch import counted
from alignkit.training.cohorts import Cohort, cohorts, data_key
from alignkit.training.memory import DataShape, kept_bytes, member_bytes
from alignkit.training.prealignment import check_prealignment

LEAST_SAMPLES = 20
MOST_LOG_STEPS = 1_000_000
ROW_BYTES = 480
"""What a row of `layers` takes, about, from when it is measured until it is written."""


def plan_cohorts(plan: Plan, *, device: str) -> list[Cohort]:
    """The plan's cohorts on a kind of device, checked against rules, data and memory before anything runs."""
    for rule in dict.fromkeys(run.rule for run in plan.runs):
        with _placed(plan.source):
            rule_class(rule)
    kind = device.partition(":")[0]
    described: dict[str, DatasetShape] = {}
    shapes: dict[str, DataShape] = {}
    there = machine_bytes()
    # an arm's seeds share their settings
    arms = list({(run.rule, id(run.settings)): run for run in plan.runs}.values())
    for run in counted("Checking arms", arms):
        key = data_key(run.settings)
        with _placed(f"{plan.source}: {run.cell}" if run.cell else plan.source):
            if key not in described:
                described[key] = loading.describe(run.settings.data)
                shapes[key] = DataShape(described[key].shape, described[key].outputs, described[key].train)
                _check_data_fit(run.settings.data, described[key], there)
            _check_against_data(run, described[key])
            layers = layer_shapes(run.settings, shapes[key].shape, shapes[key].outputs)
            check_prealignment(run.settings, layers, shapes[key].train_samples)
            needed = member_bytes(run.settings, shapes[key], kind) + kept_bytes(run.rule, run.settings, shapes[key])
            if needed > there:
                raise StudyError(
                    f"network: one run needs {needed / 2**30:,.0f} GiB of memory and this machine has "
                    f"{there / 2**30:,.0f}. Use smaller layers"
                )
            _check_checkpoints(run.settings, len(layers) - 1, there)
    return cohorts(plan, shapes, device=kind)


def check_device(plan: Plan, device: str) -> None:
    """Raise `StudyError` where the device itself, not just one of its kind, lacks what the plan needs."""
    with _placed(plan.source):
        check_precisions((run.settings.training.matmul_precision for run in plan.runs), device)


@contextlib.contextmanager
def _placed(place: str) -> Iterator[None]:
    """Name the study, and the cell at fault, in front of an error."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{place}: {error}") from None


def _check_data_fit(options: DataOptions, described: DatasetShape, there: int) -> None:
    needed = loading.working_bytes(options, described)
    if needed <= there:
        return
    fitting = int(0.9 * described.samples * there / needed)
    fewer = options.model_copy(update={"samples": fitting})
    if isinstance(options, Images):
        mend = f"About {fitting:,} images fit in all: set data.train_samples and data.test_samples"
    elif fitting >= LEAST_SAMPLES and loading.working_bytes(fewer, described) <= there:
        mend = f"data.samples = {fitting} would fit"
    else:
        mend = "Ask for fewer samples, inputs or outputs, or for a smaller teacher"
    raise StudyError(
        f"data: they take {in_words(needed)} of memory to make and this machine has {in_words(there)}. {mend}"
    )


def _check_checkpoints(settings: Settings, hidden_layers: int, there: int) -> None:
    """What a run measures is held until it is written."""
    probe, epochs = settings.probe, settings.training.epochs
    if probe.log_steps > MOST_LOG_STEPS:
        raise StudyError(
            f"probe.log_steps: expected at most {MOST_LOG_STEPS:,}; got {probe.log_steps:,}. Ask for fewer"
        )
    by_epoch = math.ceil(epochs / probe.every_epochs) if probe.every_epochs else 0
    checkpoints = 2 + len(probe.steps) + probe.log_steps + by_epoch
    rows = checkpoints if probe.modes_at == "end" else checkpoints * len(probe.every_mode)
    needed = (rows + len(probe.every_mode)) * hidden_layers * ROW_BYTES
    if needed > there:
        raise StudyError(
            f"probe: one run is measured about {checkpoints:,} times in {hidden_layers:,} layers, which takes "
            f"{in_words(needed)} of memory, and this machine has {in_words(there)}. "
            f"Set probe.every_epochs to {max(probe.every_epochs, 1) * math.ceil(10 * needed / there):,}, or 0 for none"
        )


def _check_against_data(run: Run, described: DatasetShape) -> None:
    training, probe = run.settings.training, run.settings.probe
    if described.train < training.batch_size:
        raise StudyError(
            f"training.batch_size: expected at most the {described.train} training samples; got {training.batch_size}"
        )
    if described.task == "regression" and training.loss == "cross_entropy":
        raise StudyError(
            'training.loss: regression has no classes for "cross_entropy". Set training.loss = "squared_error"'
        )
    if training.batch_size == 1 and any(
        layer.options is not None and layer.options.norm == "batch"
        for layer in layer_shapes(run.settings, described.shape, described.outputs)
    ):
        raise StudyError("training.batch_size: batch norm needs batches of at least 2 samples; got 1")
    available = getattr(described, probe.split)
    if not available:
        raise StudyError(f'probe.split: the data has no {probe.split} split. Use "test"')
    needed = probe.samples * (probe.draw + 1)
    if available < needed:
        wanted = f"{probe.samples}" + (f", and {needed} for draw {probe.draw}" if probe.draw else "")
        raise StudyError(
            f"probe.samples: expected at most the {available} samples of the {probe.split} split; got {wanted}"
        )
