"""What a measure answers: it is one object in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from alignkit.columns import MEASURES, Column
from alignkit.errors import StudyError
from alignkit.measures.angles import Directions
from alignkit.measures.reductions import Found, Measures, mean
from alignkit.networks.forward_pass import Pass
from alignkit.networks.masks import Masks
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.parameters import Parameters
from alignkit.numerics.channels_last import in_memory_order
from alignkit.rules.base import Rule
from alignkit.rules.bp import BP
from alignkit.rules.feedback import Projection
from alignkit.settings.modules import import_class
from alignkit.settings.probe import ProbeOptions

OfLayer = Mapping[str, Tensor]
"""What a measure finds at a layer, by name: numbers of samples, [E, N], and of whole networks, [E]."""


@dataclass(frozen=True)
class Subject:
    """What is measured: the networks of a cohort, the rule that teaches them, and the probe's batch `x` [E, N, …].

    `bp` gives the reference of every angle, under `reference_masks`.
    """

    network: Network
    rule: Rule
    bp: BP
    members: Sequence[Member]
    options: ProbeOptions
    x: Tensor
    reference_masks: Masks | None

    @cached_property
    def undefined(self) -> Tensor:
        """NaN for each network, [E]."""
        device = self.network.parameters.storage.device
        return torch.full((len(self.members),), torch.nan, dtype=torch.float64, device=device)

    def projection(self, layer: int) -> Projection | None:
        """The feedback that enters at a hidden layer; None where none does."""
        return self.rule.projection(layer) if self.rule.enters(layer) else None


class LayerSignals:
    """What the measures of one hidden layer's signals see: the rule's t and the BP signal g at h_l, [E, N, d], the pass
    that t comes from, the rule's delta above (None where it is zero), and the output errors."""

    def __init__(
        self,
        layer: int,
        forward_pass: Pass,
        signals: tuple[Tensor, Tensor],
        *,
        above: Tensor | None,
        errors: Directions,
    ) -> None:
        self.layer, self.forward_pass, self.above, self.errors = layer, forward_pass, above, errors
        self.t, self.g = (Directions(signal) for signal in signals)

    @cached_property
    def cosine(self) -> Tensor:
        """cos(t_n, g_n) [E, N], NaN where undefined."""
        return self.t.cosine(self.g)


class LayerDeltas:
    """What the measures of one hidden layer's deltas see: the rule's and back-propagation's at z_l, and the passes that
    they come from: one and the same, but for masks, unless the study takes the reference in another mode."""

    def __init__(self, layer: int, passes: tuple[Pass, Pass], deltas: tuple[Tensor, Tensor]) -> None:
        self.layer, self.passes, self.deltas = layer, passes, deltas
        self.own, self.reference = (Directions(in_memory_order(delta)) for delta in deltas)


@dataclass(frozen=True)
class LastStep:
    """What the measures of the last update see: the parameters before it, and the BP gradient of its batch."""

    before: Parameters
    bp_gradient: Parameters


class Measure:
    """A group of columns of `layers`, computed together from what the measure `needs`: one or both of "signals" and
    "deltas" (`of_signals`, `of_deltas`: a hidden layer at a time, from the last one down), "network" (`of_network`) or
    the last "step" (`of_step`).

    A new one declares `columns` and `needs`, and defines the method of each need; what the methods return may also be
    numbers of samples, which `reduce` makes numbers of networks. A study names it in `probe.measures`, "module:Class".
    A measure reads tensors, and changes none: training goes on with them. Element e of a result depends on network e
    alone. Gradients are off, and may be turned on: `with torch.enable_grad(): ...`.
    """

    columns: ClassVar[tuple[Column, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    # A measure defines those that it needs; the probe calls no other.

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        raise NotImplementedError

    def of_deltas(self, deltas: LayerDeltas) -> OfLayer:
        raise NotImplementedError

    def of_network(self, forward_pass: Pass) -> Sequence[OfLayer]:
        """What is found at every hidden layer, from the first one up, with `forward_pass` on the probe's batch."""
        raise NotImplementedError

    def of_step(self, step: LastStep) -> Sequence[OfLayer]:
        """What is found at every hidden layer, from the first one up."""
        raise NotImplementedError

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        """The columns, [layers, E], from what was found at all layers: [layers, E], or [layers, E, N], whose samples'
        mean is taken, those left out that are NaN."""
        values = {column.name: found[column.name] for column in cls.columns}
        return {name: mean(value) if value.ndim == 3 else value for name, value in values.items()}


BUILT_IN = {
    "signal": "alignkit.measures.signal:Signal",
    "delta": "alignkit.measures.delta:Delta",
    "size": "alignkit.measures.size:Size",
    "common_mode": "alignkit.measures.common_mode:CommonMode",
    "rank": "alignkit.measures.rank:Rank",
    "ceiling": "alignkit.measures.ceiling:Ceiling",
    "chance": "alignkit.measures.chance:Chance",
    "gradient": "alignkit.measures.gradient:Gradient",
    "weight": "alignkit.measures.weight:Weight",
    "jacobian": "alignkit.measures.jacobian:Jacobian",
    "step": "alignkit.measures.step:Step",
    "norms": "alignkit.measures.norms:Norms",
    "stability": "alignkit.measures.stability:Stability",
}
"""The classes of the groups of `columns.MEASURES`, in the order in which they are computed."""
assert set(BUILT_IN) == set(MEASURES)


def measure_class(name: str) -> Any:
    """The class of a measure, by the name of its group or as "module:Class"."""
    found = import_class(BUILT_IN.get(name, name), what=f'measure "{name}"')
    if not (isinstance(found, type) and issubclass(found, Measure)):
        raise StudyError(f'measure "{name}": expected a subclass of alignkit.measures.measure.Measure; got {found!r}')
    return found
