"""Back-propagation: the reference that every other rule is measured against."""

from __future__ import annotations

from functools import cached_property

from alignkit.networks.forward_pass import Pass
from alignkit.numerics.tensors import Delta, Signal
from alignkit.rules.base import Rule
from alignkit.rules.dfa import DFA


class BP(Rule):
    """t_l = g_l = delta_{l+1} W_{l+1}. What is recorded of a BP run is its bystander: the feedback that
    its DFA twin learns from, and that teaches nothing here."""

    linear_in_error = True
    makes_its_signals = True

    @cached_property
    def measured(self) -> Rule:
        return DFA(self.network, self.members)

    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None) -> Signal | None:
        return None if delta_above is None else self.network.transport(layer + 1, delta_above)
