"""What a forward pass leaves for the backward ones, and what these ask of a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from alignkit.networks.masks import Masks
from alignkit.numerics.kinds import Float
from alignkit.numerics.tensors import Output, PerMember, Targets

Hidden = Float[Tensor, "E N _"]
"""Layer by layer, each of a width of its own."""


@dataclass
class Pass:
    """What one forward pass leaves for the backward ones."""

    inputs: list[Tensor]  # inputs[l - 1] is h_{l-1} as layer l saw it
    caches: list[list[Any]]  # caches[l - 1]: one entry a stage of layer l
    hidden: list[Hidden]  # hidden[l - 1] is h_l, [E, N, d_l]
    output: Output  # y [E, N, C]
    error: Output  # e = dL/dy per sample [E, N, C]
    targets: Targets
    total: PerMember | None = None
    """Sum of the first sample's y, of its z_l that no norm takes first, and of what norms hand on, [E]. A parameter
    that is not finite makes one of them so, for every sample: a weight or bias its z_l, and what a norm makes of it."""
    masks: Masks | None = None
    """Under which signals go back."""
    phase: Literal["training", "probing"] = "probing"
    step: int | Tensor = 0
    """The number of the training step, from 1; 0 where the pass is no step."""
    dropout_step: int | Tensor | None = None
    """The counter of its dropout masks; None where dropout was off."""


class TeachingRule(Protocol):
    """What the way back asks of a rule."""

    makes_its_signals: bool
    linear_in_error: bool

    @property
    def learns(self) -> bool: ...

    @property
    def has_own_gradients(self) -> bool: ...

    def signal(self, layer: int, forward_pass: Pass, delta_above: Tensor | None) -> Tensor | None: ...

    def applied_delta(self, layer: int, delta: Tensor) -> Tensor: ...

    def own_gradients(self, layer: int, forward_pass: Pass, delta: Tensor | None) -> dict[str, Tensor] | None: ...
