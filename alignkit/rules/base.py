"""What every rule answers. A new rule defines `teaching_signal`; the rest has defaults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.networks.shapes import LayerShape
from alignkit.numerics.tensors import Delta, Signal, Weight
from alignkit.rules.feedback import Projection
from alignkit.settings.rules import RuleOptions
from alignkit.settings.types import Section


class TaughtNetwork(Protocol):
    """What a rule may ask of a network. Layers count from 1; the hidden ones are 1 to `len(hidden_sizes)`."""

    outputs: int
    hidden_sizes: list[int]
    layers: list[LayerShape]

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of all that is computed."""

    def weight(self, layer: int) -> Weight:
        """W_l, [E, out, in] or [E, out, in, k, k]."""

    def transport(self, layer: int, delta: Delta, *, weight: Weight | None = None) -> Signal:
        """A delta at z_l carried back through W_l (or `weight` in its place) to h_{l-1}: [E, N, d_{l-1}]."""

    def weight_gradient(self, layer: int, delta: Delta, forward_pass: Pass) -> Weight:
        """The gradient of W_l, of the weights' shape, summed over the batch, from a delta at z_l."""


@dataclass(frozen=True)
class StepTaken:
    """What a step of training did, for a rule that learns from it.

    `deltas[l - 1]` is what updated layer l, [E, N, d_l] (None for zero), the output's error last; `rates[l - 1]` the
    learning rate [E, 1] of its gradient, a sum over the batch.
    """

    deltas: Sequence[Tensor | None]
    rates: Sequence[Tensor]


class Rule(ABC):
    """What teaches the hidden layers of a cohort. Owns what it needs beyond the network's weights.

    Rules of one's own are called without gradients, and may turn them on: `with torch.enable_grad(): ...`.
    A rule may learn in `after_step` alone: every other method is called in measurements too, where
    `forward_pass.phase` is "probing".
    """

    display_name: ClassVar[str] = ""
    """How the rule is called in tables and figures; by default, by its class."""

    colour: ClassVar[str] = ""
    """Its colour in figures, "#rrggbb"."""

    linear_in_error = False
    """Whether signals and applied deltas are linear in the error, the rest of the pass given: a step may then multiply
    the error by the learning rate. Every class says it of itself, since a subclass may be another rule."""

    makes_its_signals = False
    """Whether every teaching signal is a tensor of its own, made for the call and kept by nobody: a step may then work
    in its memory. Likewise."""

    class Options(Section):
        """Options of the rule, read from the section `[rule]` of a study. A field may be a factor of a design, as
        `rule.field`; a cohort shares one value."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for claim in ("linear_in_error", "makes_its_signals"):
            setattr(cls, claim, cls.__dict__.get(claim, False))

    def __init__(self, network: TaughtNetwork, members: Sequence[Member]) -> None:
        self.network, self.members = network, members
        written: RuleOptions = members[0].settings.rule
        fields = type(self).Options.model_fields
        self.options: Any = type(self).Options(
            **{key: written.written[key] for key in fields if key in written.written}
        )
        self._points = members[0].settings.feedback.points

    @property
    def measured(self) -> Rule:
        """The rule whose angles are recorded: itself, unless it carries a bystander."""
        return self

    @property
    def learns(self) -> bool:
        """Whether a step changes the rule."""
        return type(self).after_step is not Rule.after_step

    @property
    def has_own_gradients(self) -> bool:
        """Whether the rule changes updates themselves, and not only what teaches a layer."""
        return type(self).own_gradients is not Rule.own_gradients

    def enters(self, layer: int) -> bool:
        """Whether feedback enters at h_l: everywhere, unless the study chooses (`feedback.points`)."""
        return self._points is None or layer in self._points

    def signal(self, layer: int, forward_pass: Pass, delta_above: Tensor | None) -> Tensor | None:
        """What teaches layer l: `teaching_signal` where feedback enters, elsewhere what the layer above hands down
        through its weights."""
        if self.enters(layer):
            return self.teaching_signal(layer, forward_pass, delta_above)
        return None if delta_above is None else self.network.transport(layer + 1, delta_above)

    @abstractmethod
    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None) -> Signal | None:
        """t_l [E, N, d_l] where feedback enters, in the place of dL/dh_l of each sample; None stands for zero.

        `layer` counts hidden layers from 1. `delta_above` is this rule's own delta at z_{l+1}, the
        output error for the last hidden layer. Nothing of the pass may be changed.
        """

    def applied_delta(self, layer: int, delta: Delta) -> Delta:
        """What updates layer l in the place of `delta`, t_l pulled back to z_l: the same unless the rule
        changes it there.

        [E, N, d] after a fully connected op, [E, N, c, H, W] after a convolution (channels last in memory on a CPU:
        `reshape` works, `view` may not), and the result alike.
        The layer's update and the recorded delta take the result; the layers below are taught from
        `delta` itself.
        """
        return delta

    def own_gradients(self, layer: int, forward_pass: Pass, delta: Delta | None) -> dict[str, Tensor] | None:
        """What moves layer l's "weight" and "bias" in the place of δ̃_lᵀ h_{l-1} and δ̃_l, summed over the batch, of
        the parameters' shapes [E, …]; None (the default) where the delta's products do. The weights go against it, and
        `gradient_cosine` is that of it."""
        return None

    def after_step(self, forward_pass: Pass, step: StepTaken) -> None:  # noqa: B027 (most rules learn nothing)
        """Learn, after the parameters have moved: called once for each step of training, never by a measurement."""

    def state(self) -> dict[str, Tensor]:
        """What the rule has learned, tensors [E, …] by name: kept in checkpoints, and watched for divergence."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        own = self.state()
        if own.keys() != state.keys():
            raise StudyError(
                f"{type(self).__name__}.load_state: expected {', '.join(own) or 'nothing'}; got {', '.join(state)}"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def finite(self) -> Tensor | None:
        """Whether all that a member's rule has learned is finite, bool [E]; None where it learns nothing."""
        largest = [tensor.flatten(1).abs().amax(1) for tensor in self.state().values()]
        return torch.isfinite(torch.stack(largest)).all(0) if largest else None

    @classmethod
    def kept_elements(cls, layers: Sequence[LayerShape], outputs: int) -> int:
        """How many numbers a member's rule keeps beside feedback matrices: counted in the memory of a cohort."""
        return 0

    def projection(self, layer: int) -> Projection | None:
        """The layer's feedback as one linear map, where it is one: for ceilings and weight cosines."""
        return None

    def redrawn_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None, *, draw: int) -> Signal | None:
        """t_l had the layer's feedback been another draw (1, 2, …) of its law: for chance levels."""
        return None
