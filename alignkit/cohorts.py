"""Cohorts: runs of the same shape, to be trained in one batched computation.

A cohort is a function of the study and the device alone, never of what is already finished or of how
many workers there are.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

from alignkit.layers import LayerShape, layer_shapes
from alignkit.parameters import Layout
from alignkit.plan import Plan, Run
from alignkit.study import CNN, Settings

MOST_MEMBERS = {"cpu": 32, "cuda": 128}
MEMORY_BUDGET = {"cpu": 2 * 2**30, "cuda": 16 * 2**30}
"""Bytes that one cohort's weights, feedback and activations may take."""


@dataclass(frozen=True)
class DataShape:
    """What cohorts need to know of a dataset."""

    shape: tuple[int, ...]
    outputs: int
    train_samples: int


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

    @property
    def cost(self) -> float:
        """A rough price in arithmetic operations, launch overheads included: for shares, not for times."""
        layers = layer_shapes(self.settings, self.data.shape, self.data.outputs)
        positions = [
            math.prod(layer.output[1:]) * (math.prod(layer.pool or (1,)) if layer.pool else 1) for layer in layers
        ]
        work = sum(math.prod(layer.weight) * at for layer, at in zip(layers, positions, strict=True))
        per_step = 6.0 * work * self.settings.training.batch_size + 3e4 * len(layers)
        return self.steps * (len(self.runs) * per_step + 2e6 * len(layers))


def cohorts(plan: Plan, data: dict[str, DataShape], *, device: str) -> list[Cohort]:
    """The plan's cohorts, the most expensive first. `data` has a shape for every data section (as JSON)."""
    groups: dict[str, list[Run]] = {}
    for run in plan.runs:
        groups.setdefault(_shape_key(run), []).append(run)
    found = []
    for runs in groups.values():
        shape = data[data_key(runs[0].settings)]
        most = _most_members(runs[0], shape, device)
        pieces = math.ceil(len(runs) / most)
        for piece in range(pieces):
            members = tuple(runs[len(runs) * piece // pieces : len(runs) * (piece + 1) // pieces])
            found.append(Cohort(cohort_id(members), members[0].rule, members, shape))
    return sorted(found, key=lambda cohort: (-cohort.cost, cohort.cohort_id))


def data_key(settings: Settings) -> str:
    return settings.data.model_dump_json()


def member_bytes(settings: Settings, data: DataShape) -> int:
    """Memory that one member takes on the device, from a model of what the engine holds."""
    layers = layer_shapes(settings, data.shape, data.outputs)
    training = settings.training
    number = 8 if training.dtype == "float64" else 4
    weights = Layout.of({(i, "weight"): layer.weight for i, layer in enumerate(layers)}, output_layer=len(layers)).size
    # parameters, two gradients, those before the step, one temporary; the probe's two; the optimiser's memory
    copies = (
        5 + 2 * ("gradient" in settings.probe.groups) + (2 if training.optimiser == "adam" else bool(training.momentum))
    )
    # FA keeps a matrix for every weight, DFA only [C, d_l] a layer, an imposed angle one [d, d] a layer (d its
    # units or channels): the largest is reckoned with
    hidden = layers[:-1]
    feedback = max(
        weights, sum(data.outputs * layer.size for layer in hidden), sum(layer.weight[0] ** 2 for layer in hidden)
    )
    units = sum(math.prod(layer.input) + layer.weight[0] * _op_positions(layer) for layer in layers)
    probed = settings.probe.samples * units * (6 * number + 6 * 8)
    trained = training.batch_size * units * 6 * number
    evaluated = 1000 * units * 2 * number
    return int(number * (copies * weights + feedback) + max(probed, evaluated) + trained)


def _op_positions(layer: LayerShape) -> int:
    if not layer.convolution:
        return 1
    return math.prod(n + 2 * layer.padding - layer.weight[2] + 1 for n in layer.input[1:])


def _most_members(run: Run, data: DataShape, device: str) -> int:
    fitting = MEMORY_BUDGET[device] // max(member_bytes(run.settings, data), 1)
    return max(1, min(MOST_MEMBERS[device], fitting))


def _shape_key(run: Run) -> str:
    """What members of a cohort must share; rates, seeds and amounts may differ, zero and not zero do."""
    dumped = run.settings.model_dump(mode="json")
    network, training = dumped["network"], dumped["training"]
    for amount in ("dropout", "input_dropout", "conv_dropout"):
        if amount in network:
            network[amount] = network[amount] > 0
    for layer in network["layers"]:
        layer["dropout"] = None if layer["dropout"] is None else layer["dropout"] > 0
        layer["slope"] = None
    for own in ("slope", "initialisation"):
        network.pop(own)
    for own in ("lr", "output_lr"):
        training.pop(own)
    dumped["feedback"] = dumped["feedback"]["law"]
    dumped.pop("streams")
    return json.dumps({"rule": run.rule, **dumped}, sort_keys=True)


def cohort_id(runs: tuple[Run, ...]) -> str:
    """Identifies a cohort by its members, in their order."""
    return hashlib.blake2b("".join(run.run_id for run in runs).encode(), digest_size=8).hexdigest()
