"""The control in which only the output layer learns."""

from __future__ import annotations

from alignkit.networks.forward_pass import Pass
from alignkit.numerics.tensors import Delta
from alignkit.rules.base import Rule


class Shallow(Rule):
    """t_l = 0: the hidden layers keep their initial weights."""

    linear_in_error = True
    makes_its_signals = True

    def enters(self, layer: int) -> bool:
        return True  # wherever feedback enters under other rules, there is none

    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None) -> None:
        return None
