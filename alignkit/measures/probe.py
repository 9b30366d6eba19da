"""What is measured, and when: every column of the `layers` table from one forward pass.

The BP signal of the very pass that the rule's signal comes from is the reference of every angle.
Measuring changes no parameter, no running statistic and no random stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.measures.angles import Directions
from alignkit.measures.gradient import update_angle_deg
from alignkit.measures.measure import (
    BUILT_IN,
    LastStep,
    LayerDeltas,
    LayerSignals,
    Measure,
    OfLayer,
    Subject,
    measure_class,
)
from alignkit.measures.own import OwnMeasure, network_state
from alignkit.measures.reductions import Measures, columns
from alignkit.measures.self_test import output_cosine
from alignkit.networks.masks import Masks
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.parameters import Parameters
from alignkit.networks.stages import EVALUATION, Mode
from alignkit.rules.base import Rule
from alignkit.rules.bp import BP
from alignkit.settings.types import ProbeMode
from alignkit.text import listed


def probe_mode(name: str, *, step: int) -> Mode:
    """The forward mode of a measurement. In "train" the masks have counters that no update uses."""
    if name == "eval":
        return EVALUATION
    return Mode(batch_statistics=True, dropout_step=-1 - step if name == "train" else None)


class Measured(NamedTuple):
    """What a checkpoint finds of the networks: columns of `layers`, [E, hidden layers], and of `checkpoints`, [E]."""

    measures: Measures
    output_cosine: np.ndarray
    update_angle_deg: np.ndarray


class Probe:
    """Measures a cohort's networks on a fixed batch, `x` [N, *shape] and `targets` [N] or [N, C]."""

    def __init__(self, network: Network, rule: Rule, members: Sequence[Member], x: Tensor, targets: Tensor) -> None:
        self._network, self._rule, self._reference = network, rule.measured, BP(network, members)
        self._options = options = members[0].settings.probe
        self._x = x.expand(len(members), *x.shape)
        self._targets = targets.expand(len(members), *targets.shape)
        masks, like = options.reference_masks, network.parameters.storage
        self._reference_masks = network.masks if masks == "shared" else None
        if masks == "independent":
            self._reference_masks = Masks.of(members, network.layers, like, draw=1)
        measures = {}
        for mode in options.every_mode:
            of_mode = options.model_copy(update={"mode": mode})
            self._subject = Subject(
                network, self._rule, self._reference, members, of_mode, self._x, self._reference_masks
            )
            measures[mode] = _measures(self._subject)
        self._of_step = [measure for measure in measures[options.mode] if "step" in measure.needs]
        self._measures = {
            mode: [measure for measure in each if "step" not in measure.needs] for mode, each in measures.items()
        }

    @property
    def needs_step(self) -> bool:
        """Whether something of the last update is measured."""
        return bool(self._of_step)

    def measure_step(self, before: Parameters, bp_gradient: Parameters) -> Measures:
        """Measures of the last update, from the parameters before it and the BP gradient of its batch."""
        if not self.needs_step:
            return {}
        found = [measure.of_step(LastStep(before, bp_gradient)) for measure in self._of_step]
        return columns([_merged(layer) for layer in zip(*found, strict=True)], self._of_step)

    def measure(self, step: int, mode: ProbeMode | None = None) -> Measured:
        """The chosen measures of the networks as they are, in the first mode or another."""
        network, name = self._network, mode or self._options.mode
        measures = self._measures[name]
        kept = {name: tensor.clone() for name, tensor in self._watched().items()}
        forward_pass = network.forward(self._x, self._targets, probe_mode(name, step=step))
        reference = forward_pass
        if self._options.reference_mode is not None:
            reference_mode = probe_mode(self._options.reference_mode, step=step)
            reference = network.forward(self._x, self._targets, reference_mode)
        self_test = output_cosine(network, forward_pass, reference)
        reference = dataclasses.replace(reference, masks=self._reference_masks)
        of_network, of_signals, of_deltas = (
            [measure for measure in measures if need in measure.needs] for need in ("network", "signals", "deltas")
        )
        layers: list[dict[str, Tensor]] = [{} for _ in network.hidden_sizes]
        for measure in of_network:  # before the ways back take the pass's memory
            for found, more in zip(layers, measure.of_network(forward_pass), strict=True):
                found.update(more)
        above: Tensor | None = forward_pass.error
        errors = Directions(forward_pass.error)
        own = network.backward_signals(forward_pass, self._rule, may_overwrite=True)
        other = network.backward_signals(reference, self._reference, may_overwrite=True)
        # What has just been made is in the cache: it is measured at once, and deltas take their signals' memory.
        for ours, bp in zip(own, other, strict=True):
            layer, t, g = ours.layer, ours.signal, bp.signal
            assert g is not None, "BP always has a signal"
            signals = LayerSignals(layer, forward_pass, (_or_zero(t, g), g), above=above, errors=errors)
            found = layers[layer - 1]
            for measure in of_signals:
                found.update(measure.of_signals(signals))
            del signals, t, g
            above, delta = ours.pull_back(), bp.pull_back()
            assert delta is not None
            deltas = LayerDeltas(layer, (forward_pass, reference), (_or_zero(above, delta), delta))
            for measure in of_deltas:
                found.update(measure.of_deltas(deltas))
            del deltas, delta, ours, bp
        self._require_unchanged(kept)
        angle = update_angle_deg(layers) if "gradient" in self._options.groups else self._subject.undefined
        return Measured(columns(layers, measures), self_test.cpu().numpy(), angle.cpu().numpy().copy())

    def _watched(self) -> dict[str, Tensor]:
        """What a measurement must leave as it is: the rule's state, and under a user's own measures the networks'."""
        found = dict(self._rule.state())
        if self._options.own_measures:
            found.update(network_state(self._subject))
        return found

    def _require_unchanged(self, kept: dict[str, Tensor]) -> None:
        """A measurement leaves a rule as it was, or the run with more checkpoints is another run."""
        learned = self._rule.state()
        for name, tensor in self._watched().items() if kept else ():
            if torch.allclose(tensor, kept[name], rtol=0.0, atol=0.0, equal_nan=True):
                continue
            if name not in learned:
                raise StudyError(
                    f"{listed(self._options.own_measures)}: expected a measure to leave {name} as it is; it changed. "
                    "Work on a copy"
                )
            raise StudyError(
                f"{type(self._rule).__name__}: expected a measurement to leave {name} as it is; it was changed. "
                "Learn in after_step alone"
            )


def _or_zero(signal: Tensor | None, like: Tensor) -> Tensor:
    """A signal, or the zero that None stands for."""
    return torch.zeros_like(like) if signal is None else signal


def _measures(subject: Subject) -> list[Measure]:
    """The chosen measures, alignkit's first, in the order in which they are computed."""
    groups = subject.options.groups
    built_in: list[Measure] = [measure_class(name)(subject) for name in BUILT_IN if name in groups]
    return [*built_in, *(OwnMeasure(name, subject) for name in subject.options.own_measures)]


def _merged(found: Iterable[OfLayer]) -> dict[str, Tensor]:
    return {name: values for each in found for name, values in each.items()}
