"""What a cohort records while it trains, as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from alignkit.columns import CHECKPOINTS, LAYERS, MEASURE_COLUMNS, RUNS
from alignkit.data.dataset import Dataset
from alignkit.measures.probe import Probe
from alignkit.measures.reductions import Measures
from alignkit.networks.forward_pass import Pass
from alignkit.networks.network import Network
from alignkit.rules.base import Rule
from alignkit.settings.measures import own_columns
from alignkit.settings.types import ProbeMode
from alignkit.training.cohorts import Cohort
from alignkit.training.evaluation import SPLITS, evaluate


class _Row(NamedTuple):
    """What one checkpoint found of all members."""

    step: int
    measures: Mapping[ProbeMode, Measures]
    """By mode, the study's own first."""
    of_runs: dict[str, np.ndarray]
    evaluated: dict[str, np.ndarray]


class Recorder:
    """Collects a cohort's rows while it trains."""

    def __init__(
        self, cohort: Cohort, network: Network, rule: Rule, probe: Probe, dataset: Dataset, *, signal: str
    ) -> None:
        self._signal, self._rule = signal, rule
        self._cohort, self._network, self._probe, self._dataset = cohort, network, probe, dataset
        device = network.parameters.storage.device
        self._diverged_step = torch.zeros(len(cohort.runs), dtype=torch.int64, device=device)
        self._rows: list[_Row] = []

    def check(self, step: int, forward_pass: Pass | None = None) -> None:
        """Note the members whose parameters stopped being finite at this step (a loss that is not finite makes
        the output layer's so in the same step).

        With the next step's pass, all parameters are looked at only where something in it is not finite. A GPU
        looks at them always, since to ask would make it wait.
        """
        so_far = self._diverged_step == 0
        total = None if forward_pass is None or self._rule.learns else forward_pass.total
        if total is not None and not so_far.is_cuda:
            all_finite = math.isfinite(total.sum().item())  # of all members at once: the rule
            if all_finite or not (so_far & ~torch.isfinite(total)).any():
                return
        finite, learned = self._network.parameters.finite, self._rule.finite()
        self._diverged_step += (so_far & ~(finite if learned is None else finite & learned)) * step

    def checkpoint(self, step: int, last_update: Measures | None) -> None:
        self.check(step)
        options = self._cohort.settings.probe
        first, *others = options.modes_of(at_the_end=step == self._cohort.steps)
        measured = self._probe.measure(step, first)
        by_mode = {first: {**measured.measures, **(last_update or {})}}
        by_mode |= {mode: self._probe.measure(step, mode).measures for mode in others}
        of_runs = {"output_cosine": measured.output_cosine, "update_angle_deg": measured.update_angle_deg}
        for values in of_runs.values():
            values[self._diverged] = np.nan
        for found in by_mode.values():
            self._leave_out_diverged(found)
        self._rows.append(_Row(step, by_mode, of_runs, self._evaluated(options.evaluation_samples)))

    def _leave_out_diverged(self, measures: Measures) -> None:
        diverged = self._diverged
        for values in measures.values():
            if values.dtype.kind == "f":
                values[diverged] = np.nan
        if "undefined" in measures:
            measures["undefined"][diverged] = self._cohort.settings.probe.samples

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"runs": self._runs(), "checkpoints": self._checkpoints(), "layers": self._layers()}

    @property
    def _classes(self) -> float:
        return float("nan") if self._dataset.train.targets.is_floating_point() else float(self._dataset.outputs)

    @property
    def _diverged(self) -> np.ndarray:
        return (self._diverged_step > 0).cpu().numpy()

    def _evaluated(self, samples: int) -> dict[str, np.ndarray]:
        columns, diverged = {}, self._diverged
        for name in SPLITS:
            split = getattr(self._dataset, name)
            nothing = np.full(len(self._cohort.runs), np.nan)
            loss, error, accuracy = (nothing,) * 3 if split is None else evaluate(self._network, split, samples=samples)
            of_split = {f"{name}_loss": loss, f"{name}_accuracy": accuracy, f"{name}_loss_error": error}
            for column, values in of_split.items():
                columns[column] = np.where(diverged, np.nan, values)
        return columns

    def _runs(self) -> pd.DataFrame:
        training = [run.settings.training for run in self._cohort.runs]
        diverged_step, split = self._diverged_step.cpu().numpy(), self._dataset.validation
        evaluated = self._evaluated(0)
        return pd.DataFrame(
            {
                "run_id": [run.run_id for run in self._cohort.runs],
                **{name: values for name, values in evaluated.items() if name in RUNS},
                "validation_samples": float("nan") if split is None else float(len(split)),
                "n_classes": self._classes,
                "lr": [t.lr for t in training],
                "output_lr": [t.lr if t.output_lr is None else t.output_lr for t in training],
                "diverged": diverged_step > 0,
                "diverged_step": pd.array([int(s) if s else None for s in diverged_step], dtype="Int64"),
                "steps": self._cohort.steps,
                "parameters": self._network.parameters.layout.count,
            }
        )

    def _checkpoints(self) -> pd.DataFrame:
        n_members, steps = len(self._cohort.runs), self._steps
        rows = [{**row.of_runs, **row.evaluated} for row in self._rows]
        columns = {
            "run_id": [run.run_id for run in self._cohort.runs] * len(steps),
            "step": np.repeat(steps, n_members),
            "epoch": np.repeat(steps / self._cohort.steps_per_epoch, n_members),
            "mode": self._cohort.settings.probe.mode,
            **{name: np.concatenate([row[name] for row in rows]) for name in rows[0]},
        }
        return pd.DataFrame(columns)[list(CHECKPOINTS)]

    def _layers(self) -> pd.DataFrame:
        shapes = self._network.layers[:-1]
        n_members, layers = len(self._cohort.runs), len(shapes)
        shape = (n_members, layers)
        blocks = [(row.step, mode, measures) for row in self._rows for mode, measures in row.measures.items()]
        steps = np.array([step for step, _, _ in blocks])
        columns: dict[str, Any] = {
            "run_id": np.tile(np.repeat([run.run_id for run in self._cohort.runs], layers), len(steps)),
            "step": np.repeat(steps, n_members * layers),
            "epoch": np.repeat(steps / self._cohort.steps_per_epoch, n_members * layers),
            "mode": np.repeat([mode for _, mode, _ in blocks], n_members * layers),
            "layer": np.tile(np.arange(1, layers + 1), n_members * len(steps)),
            "layer_name": np.tile([shape.name for shape in shapes], n_members * len(steps)),
            "width": np.tile([shape.size for shape in shapes], n_members * len(steps)),
            "signal": self._signal,
        }
        declared = own_columns(self._cohort.settings.probe.own_measures)
        own = [column.name for columns in declared.values() for column in columns]
        absent = {name: np.full(shape, np.nan) for name in (*MEASURE_COLUMNS, *own)}
        absent["undefined"] = np.zeros(shape, dtype=np.int64)
        for name, nothing in absent.items():
            columns[name] = np.stack([measures.get(name, nothing) for _, _, measures in blocks]).reshape(-1)
        return pd.DataFrame(columns)[[*LAYERS, *own]]

    @property
    def _steps(self) -> np.ndarray:
        return np.array([row.step for row in self._rows])
