"""Cohorts: runs of the same shape, to be trained in one batched computation.

A cohort is a function of the study and the device alone, never of what is already finished or of how
many workers there are.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property

from alignkit.networks.shapes import layer_shapes
from alignkit.settings.network import CNN
from alignkit.settings.study_options import Settings
from alignkit.study.runs import Plan, Run
from alignkit.study.watch import counted
from alignkit.training.memory import DataShape, most_members


@dataclass(frozen=True)
class Cohort:
    """Runs that train together: same rule, same shapes, seeds and scalars of their own."""

    cohort_id: str
    rule: str
    runs: tuple[Run, ...]
    data: DataShape

    @property
    def settings(self) -> Settings:
        """The options that all members share (and the first member's scalars)."""
        return self.runs[0].settings

    @property
    def label(self) -> str:
        """What is training, in a few words: dfa 64-64-64 tanh batch."""
        network = self.settings.network
        sizes = (*network.channels, *network.hidden) if isinstance(network, CNN) else network.hidden_widths
        norm = "" if network.norm == "none" else f" {network.norm} norm"
        return f"{self.rule} {'-'.join(map(str, sizes))} {network.activation}{norm}"

    @property
    def steps_per_epoch(self) -> int:
        return self.data.train_samples // self.settings.training.batch_size

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.settings.training.epochs

    @cached_property
    def cost(self) -> float:
        """A rough price in arithmetic operations, launch overheads included: for shares, not for times."""
        layers = layer_shapes(self.settings, self.data.shape, self.data.outputs)
        work = sum(math.prod(layer.weight) * (1 if layer.local else layer.positions) for layer in layers)
        per_step = 6.0 * work * self.settings.training.batch_size + 3e4 * len(layers)
        return self.steps * (len(self.runs) * per_step + 2e6 * len(layers))


def cohorts(plan: Plan, data: dict[str, DataShape], *, device: str) -> list[Cohort]:
    """The plan's cohorts, the most expensive first. `data` has a shape for every data section (as JSON)."""
    groups: dict[str, list[Run]] = {}
    keys: dict[tuple[str, int], str] = {}  # an arm's seeds share their settings
    for run in counted("Sorting runs into cohorts", plan.runs):
        arm = run.rule, id(run.settings)
        if arm not in keys:
            keys[arm] = _shape_key(run)
        groups.setdefault(keys[arm], []).append(run)
    made = []
    for runs in counted("Making cohorts", list(groups.values())):
        shape = data[data_key(runs[0].settings)]
        most = most_members(runs[0].settings, shape, device, rule=runs[0].rule)
        pieces = math.ceil(len(runs) / most)
        for piece in range(pieces):
            members = tuple(runs[len(runs) * piece // pieces : len(runs) * (piece + 1) // pieces])
            made.append(Cohort(cohort_id(members), members[0].rule, members, shape))
    return sorted(made, key=lambda cohort: (-cohort.cost, cohort.cohort_id))


def data_key(settings: Settings) -> str:
    return settings.data.model_dump_json()


def _shape_key(run: Run) -> str:
    """What members of a cohort must share; rates, seeds and amounts may differ, zero and not zero do."""
    dumped = run.settings.model_dump(mode="json")
    network, training = dumped["network"], dumped["training"]
    for amount in ("dropout", "input_dropout", "conv_dropout", "frozen", "signal_masked"):
        if amount in network:
            network[amount] = network[amount] > 0
    for layer in network["layers"]:
        for amount in ("dropout", "frozen", "signal_masked"):
            layer[amount] = None if layer[amount] is None else layer[amount] > 0
        layer["slope"] = None
    network.pop("slope")
    network["initialisation"] = network["initialisation"] == "pre_aligned"
    for own in ("lr", "output_lr"):
        training.pop(own)
    feedback = dumped["feedback"]
    dumped["feedback"] = [feedback["law"], feedback["points"], feedback["rank"] is None]
    dumped.pop("streams")
    return json.dumps([run.rule, dumped], sort_keys=True)


def cohort_id(runs: tuple[Run, ...]) -> str:
    """Identifies a cohort by its members, in their order."""
    return hashlib.blake2b("".join(run.run_id for run in runs).encode(), digest_size=8).hexdigest()
