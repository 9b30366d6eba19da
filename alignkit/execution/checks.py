"""What is checked before a study runs: memory, device, and whether networks fit their data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from alignkit.data import loading
from alignkit.data.source import DatasetShape
from alignkit.errors import StudyError
from alignkit.networks.shapes import layer_shapes
from alignkit.numerics.precision import check_precisions
from alignkit.rules import rule_class
from alignkit.study.runs import Plan, Run
from alignkit.training.cohorts import Cohort, cohorts, data_key
from alignkit.training.memory import DataShape, kept_bytes, member_bytes
from alignkit.training.prealignment import check_prealignment


def plan_cohorts(plan: Plan, *, device: str) -> list[Cohort]:
    """The plan's cohorts on a kind of device, checked against rules, data and memory before anything runs."""
    for rule in dict.fromkeys(run.rule for run in plan.runs):
        with _placed(plan.source):
            rule_class(rule)
    kind = device.partition(":")[0]
    described: dict[str, DatasetShape] = {}
    shapes: dict[str, DataShape] = {}
    for run in plan.runs:
        key = data_key(run.settings)
        with _placed(f"{plan.source}: {run.cell}" if run.cell else plan.source):
            if key not in described:
                described[key] = loading.describe(run.settings.data)
                shapes[key] = DataShape(described[key].shape, described[key].outputs, described[key].train)
            _check_against_data(run, described[key])
            layers = layer_shapes(run.settings, shapes[key].shape, shapes[key].outputs)
            check_prealignment(run.settings, layers, shapes[key].train_samples)
            needed = member_bytes(run.settings, shapes[key], kind) + kept_bytes(run.rule, run.settings, shapes[key])
            there = _memory()
            if needed > there:
                raise StudyError(
                    f"network: one run needs {needed / 2**30:,.0f} GiB of memory and this machine has "
                    f"{there / 2**30:,.0f}. Use smaller layers"
                )
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


def _memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
