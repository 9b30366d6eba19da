"""A rule of the user's own is asked once, at its first step, whether it is what it says it is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.networks.forward_pass import Pass
from alignkit.networks.network import Network
from alignkit.rules.base import Rule

LINEARITY = 1e-3
"""How far, beside its length, a signal of half the error may be from half the signal."""


def check_rule(network: Network, rule: Rule, forward_pass: Pass) -> None:
    """Raise `StudyError` where a rule changes what it is given, learns while it is asked, or says of itself what is
    not so (`linear_in_error`, `makes_its_signals`): each would leave wrong numbers, and no message."""
    name = type(rule).__name__
    asked = replace(forward_pass, phase="probing")
    given = {"the error": asked.error, "the output": asked.output} | {
        f"h_{layer}": hidden for layer, hidden in enumerate(asked.hidden, start=1)
    }
    kept = {what: tensor.clone() for what, tensor in given.items()}
    learned = {what: tensor.clone() for what, tensor in rule.state().items()}
    signals, deltas = network.backward(asked, rule)
    again, _ = network.backward(asked, rule)
    for what, tensor in given.items():
        if not _same(tensor, kept[what]):
            raise StudyError(
                f"{name}.teaching_signal: expected the pass to stay as it is; {what} was changed in place. Work on a "
                "copy: tensor.clone()"
            )
    changed = [what for what, tensor in rule.state().items() if not _same(tensor, learned[what])]
    if changed or not all(map(_same, signals, again)):
        raise StudyError(
            f"{name}: expected the same signal whenever it is asked for at one step; "
            + (f"{', '.join(changed)} changed" if changed else "two calls gave two signals")
            + ". Learn in after_step alone, and draw random numbers from the step (forward_pass.step)"
        )
    if rule.makes_its_signals:
        others = {tensor.untyped_storage().data_ptr() for tensor in (*given.values(), *rule.state().values())}
        for layer, (one, other) in enumerate(zip(signals, again, strict=True), start=1):
            places = [signal.untyped_storage().data_ptr() for signal in (one, other) if signal is not None]
            if len(set(places)) < len(places) or others & set(places):
                raise StudyError(
                    f"{name}.makes_its_signals: expected a new tensor at every call; the signal at hidden layer "
                    f"{layer} lies in memory that somebody keeps. Return a copy, or leave makes_its_signals out"
                )
    if rule.linear_in_error:
        halves = network.backward(replace(asked, error=0.5 * asked.error), rule)
        for layer, (whole, half) in enumerate(zip(deltas, halves[1], strict=True), start=1):
            if not _is_half(half, whole):
                raise StudyError(
                    f"{name}.linear_in_error: expected half the delta for half the error; got another at hidden layer "
                    f"{layer}. Leave linear_in_error out"
                )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)


def _is_half(half: Tensor | None, whole: Tensor | None) -> bool:
    if half is None or whole is None:
        return half is whole
    finite = torch.isfinite(whole) & torch.isfinite(half)
    off = torch.where(finite, half - 0.5 * whole, 0.0)
    return bool(off.norm() <= LINEARITY * torch.where(finite, whole, 0.0).norm())
