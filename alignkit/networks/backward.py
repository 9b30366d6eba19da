"""One hidden layer on the way back, and what is checked of a rule there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from alignkit.errors import StudyError
from alignkit.networks.forward_pass import TeachingRule
from alignkit.numerics.tensors import Delta, Signal


class LayerBackward:
    """One hidden layer on the way back: its teaching signal (None for zero), then its delta.

    `delta_below` is t_l pulled back to z_l, what the layers below are taught from. It is made by `pull_back`, which
    lets go of the signal: where the delta may take its memory, `signal` is not to be used from there on.
    """

    def __init__(
        self, layer: int, signal: Signal | None, rule: TeachingRule, through_stages: Callable[[Signal], Delta]
    ) -> None:
        self.layer, self.signal = layer, signal
        self.delta_below: Delta | None = None
        self._rule, self._through_stages = rule, through_stages

    def pull_back(self) -> Delta | None:
        """The delta that updates the layer: `delta_below`, changed where the rule does so; None stands for zero."""
        signal, self.signal = self.signal, None
        if signal is None:
            return None
        delta = self._through_stages(signal)
        self.delta_below = delta
        applied = self._rule.applied_delta(self.layer, delta)
        check_delta(applied, delta, layer=self.layer, rule=self._rule)
        return applied


def check_signal(signal: Tensor, like: Tensor, *, layer: int, rule: TeachingRule) -> None:
    """Raise `StudyError` unless a teaching signal has the shape and the type of h_l."""
    if signal.shape != like.shape or signal.dtype != like.dtype or signal.device != like.device:
        raise StudyError(
            f"{type(rule).__name__}.teaching_signal: expected [E, N, d_l] = {list(like.shape)} at hidden layer "
            f"{layer}, {like.dtype} on {like.device}; got {list(signal.shape)}, {signal.dtype} on {signal.device}"
        )


def check_delta(applied: Tensor | None, delta: Tensor, *, layer: int, rule: TeachingRule) -> None:
    """Raise `StudyError` unless a rule's applied delta is one, of the shape and the type of the delta."""
    if applied is delta:
        return
    if applied is None or applied.shape != delta.shape or applied.dtype != delta.dtype:
        got = "None" if applied is None else f"{list(applied.shape)} of {applied.dtype}"
        raise StudyError(
            f"{type(rule).__name__}.applied_delta: expected a delta of shape {list(delta.shape)} and {delta.dtype} at "
            f"hidden layer {layer}; got {got}. Return the delta itself where it stays as it is"
        )
