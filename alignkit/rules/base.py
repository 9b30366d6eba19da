"""What every rule answers. A new rule defines `teaching_signal`; the rest has defaults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from alignkit.networks.members import Member
from alignkit.networks.network import Network, Pass
from alignkit.rules.feedback import Projection


class Rule(ABC):
    """What teaches the hidden layers of a cohort. Owns what it needs beyond the network's weights.

    Rules of one's own are called without gradients, and may turn them on: `with torch.enable_grad(): ...`.
    """

    linear_in_error = False
    """Whether signals and applied deltas are linear in the error, the rest of the pass given: a step may then multiply
    the error by the learning rate. Every class says it of itself, since a subclass may be another rule."""

    makes_its_signals = False
    """Whether every teaching signal is a tensor of its own, made for the call and kept by nobody: a step may then work
    in its memory. Likewise."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for claim in ("linear_in_error", "makes_its_signals"):
            setattr(cls, claim, cls.__dict__.get(claim, False))

    def __init__(self, network: Network, members: Sequence[Member]) -> None:
        self.network, self.members = network, members
        self._points = members[0].settings.feedback.points

    @property
    def measured(self) -> Rule:
        """The rule whose angles are recorded: itself, unless it carries a bystander."""
        return self

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
    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Tensor | None) -> Tensor | None:
        """t_l [E, N, d_l] where feedback enters, in the place of dL/dh_l of each sample; None stands for zero.

        `layer` counts hidden layers from 1. `delta_above` is this rule's own delta at z_{l+1}, the
        output error for the last hidden layer.
        """

    def applied_delta(self, layer: int, delta: Tensor) -> Tensor:
        """What updates layer l in the place of `delta`, t_l pulled back to z_l: the same unless the rule
        changes it there.

        [E, N, d] after a fully connected op, [E, N, c, H, W] after a convolution (channels last in memory on a CPU:
        `reshape` works, `view` may not), and the result alike.
        The layer's update and the recorded delta take the result; the layers below are taught from
        `delta` itself.
        """
        return delta

    def projection(self, layer: int) -> Projection | None:
        """The layer's feedback as one linear map, where it is one: for ceilings and weight cosines."""
        return None

    def redrawn_signal(self, layer: int, forward_pass: Pass, delta_above: Tensor | None, *, draw: int) -> Tensor | None:
        """t_l had the layer's feedback been another draw (1, 2, …) of its law: for chance levels."""
        return None
