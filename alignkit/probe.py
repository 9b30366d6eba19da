"""What is measured, and when: every column of the `layers` table from one forward pass.

The BP signal of the very pass that the rule's signal comes from is the reference of every angle.
Measuring changes no parameter, no running statistic and no random stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alignkit import angles
from alignkit.batched import length, matmul
from alignkit.network import Member, Network, Pass
from alignkit.parameters import Parameters
from alignkit.rules.base import Rule
from alignkit.rules.bp import BP
from alignkit.study import Probe as ProbeOptions
from alignkit.tails import EVALUATION, Mode

Measures = dict[str, np.ndarray]
"""Columns of `layers` by name, each [E, hidden layers]; what was not asked for is absent."""


def schedule(options: ProbeOptions, *, steps_per_epoch: int, epochs: int) -> list[int]:
    """The steps at which a run is measured: always the first (0) and the last.

    >>> from alignkit.study import Probe
    >>> schedule(Probe(log_steps=3), steps_per_epoch=100, epochs=2)
    [0, 1, 10, 100, 200]
    """
    last = steps_per_epoch * epochs
    chosen = {0, last, *options.steps}
    if options.log_steps:
        chosen.update(np.rint(np.geomspace(1, steps_per_epoch, options.log_steps)).astype(int).tolist())
    if options.every_epochs:
        chosen.update(range(0, last, steps_per_epoch * options.every_epochs))
    return sorted(step for step in chosen if step <= last)


def probe_mode(name: str, *, step: int) -> Mode:
    """The forward mode of a measurement. In "train" the masks have counters that no update uses."""
    if name == "eval":
        return EVALUATION
    return Mode(batch_statistics=True, dropout_step=-1 - step if name == "train" else None)


@dataclasses.dataclass(frozen=True)
class LayerSignals:
    """What the measures of one hidden layer see: the rule's signal t and the BP signal g [E, N, d_l],
    the two pulled back to z_l [E, N, …], and the rule's delta above (None where it is zero)."""

    layer: int
    t: Tensor
    g: Tensor
    delta_t: Tensor
    delta_g: Tensor
    above: Tensor | None
    passed: Pass

    @cached_property
    def units(self) -> tuple[Tensor, Tensor]:
        """t and g at length 1, float64; NaN where they have no direction."""
        return angles.unit(self.t), angles.unit(self.g)

    @cached_property
    def undefined(self) -> Tensor:
        """Samples [E, N] with no direction in either place."""
        return self.units[0].isnan().any(-1) | self.units[1].isnan().any(-1)

    @cached_property
    def cosines(self) -> Tensor:
        """cos(t_n, g_n) [E, N], NaN where undefined."""
        return angles.unit_cosine(*self.units)


class Probe:
    """Measures a cohort's networks on a fixed batch, `x` [N, *shape] and `targets` [N] or [N, C]."""

    def __init__(self, network: Network, rule: Rule, members: Sequence[Member], x: Tensor, targets: Tensor) -> None:
        self._network, self._rule, self._reference = network, rule.measured, BP(network, members)
        self._members = members
        self._options = members[0].settings.probe
        self._x = x.expand(len(members), *x.shape)
        self._targets = targets.expand(len(members), *targets.shape)

    def measure(self, step: int) -> tuple[Measures, np.ndarray]:
        """The chosen measures of the networks as they are, and `output_cosine` [E]."""
        network, groups = self._network, self._options.groups
        passed = network.forward(self._x, self._targets, probe_mode(self._options.mode, step=step))
        gradients = (network.parameters.like(), network.parameters.like()) if "gradient" in groups else (None, None)
        t, delta_t = network.backward(passed, self._rule, gradients[0])
        g, delta_g = network.backward(passed, self._reference, gradients[1])
        chosen = [measure for group, measure in MEASURES_OF.items() if group in groups]
        jacobians = self._jacobians(passed) if "jacobian" in groups else None
        layers = []
        for index in range(len(network.hidden_sizes)):
            signals = LayerSignals(
                layer=index + 1,
                t=_or_zero(t[index], g[index]),
                g=_or_zero(g[index], None),
                delta_t=_or_zero(delta_t[index], delta_g[index]),
                delta_g=_or_zero(delta_g[index], None),
                above=passed.error if index + 1 == len(t) else delta_t[index + 1],
                passed=passed,
            )
            found: dict[str, Tensor] = {}
            for measure in chosen:
                found.update(measure(self, signals))
            if gradients[0] is not None and gradients[1] is not None:
                own, reference = (p.views[index + 1, "weight"] for p in gradients)
                found["gradient_cosine"] = angles.frobenius_cosine(own, reference)
            if jacobians is not None:
                found["jacobian_cosine"] = self._jacobian_cosine(index + 1, jacobians[index])
            layers.append(found)
        columns = {name: torch.stack([found[name] for found in layers], 1).cpu().numpy() for name in layers[0]}
        last = (len(network.layers), "weight")
        own = matmul(passed.error.mT, passed.inputs[-1]) if gradients[0] is None else gradients[0].views[last]
        return columns, output_cosine(network, passed, own).cpu().numpy()

    def _signal(self, s: LayerSignals) -> dict[str, Tensor]:
        cosines = s.cosines
        return {
            "signal_cosine": cosines.nanmean(1),
            "signal_cosine_sd": _nan_sd(cosines),
            "signal_angle_deg": angles.unit_angle_deg(*s.units).nanmean(1),
            "undefined": s.undefined.sum(1),
        }

    def _delta(self, s: LayerSignals) -> dict[str, Tensor]:
        return {"delta_cosine": angles.cosine(s.delta_t.flatten(2), s.delta_g.flatten(2)).nanmean(1)}

    def _size(self, s: LayerSignals) -> dict[str, Tensor]:
        length_t, length_g, length_delta = (_length(signal) for signal in (s.t, s.g, s.delta_t))
        gain = torch.where(s.undefined, torch.nan, length_t / length_g)
        gate = torch.where(length_t > 0, length_delta / length_t, torch.nan)
        return {
            "signal_gain": _nan_median(gain),
            "projection": (gain * s.cosines).nanmean(1),
            "gate": _nan_median(gate),
        }

    def _common_mode(self, s: LayerSignals) -> dict[str, Tensor]:
        return {"common_mode": angles.common_mode(s.t)}

    def _rank(self, s: LayerSignals) -> dict[str, Tensor]:
        return {"effective_rank": angles.effective_rank(s.passed.hidden[s.layer - 1])}

    def _weight(self, s: LayerSignals) -> dict[str, Tensor]:
        """DFA's B_l against W_L … W_{l+1}, another rule's B_{l+1} against W_{l+1}."""
        projection = self._rule.projection(s.layer)
        above = self._network.layers[s.layer :]
        if projection is None or (projection.from_error and any(layer.convolution for layer in above)):
            return {"weight_cosine": _undefined(s.t)}
        stands_for = self._network.weight(s.layer + 1)
        if projection.from_error:
            for layer in range(s.layer + 2, len(self._network.layers) + 1):
                stands_for = matmul(self._network.weight(layer), stands_for)
        return {"weight_cosine": angles.frobenius_cosine(projection.matrix, stands_for)}

    def _ceiling(self, s: LayerSignals) -> dict[str, Tensor]:
        projection = self._rule.projection(s.layer)
        if projection is None:
            return {"ceiling_cosine": _undefined(s.t)}
        sum_zero = projection.from_error and self._network.loss == "cross_entropy"
        return {"ceiling_cosine": angles.ceiling(projection.matrix, s.g, sum_zero=sum_zero).nanmean(1)}

    def _chance(self, s: LayerSignals) -> dict[str, Tensor]:
        observed = s.cosines.nanmean(1)
        closed_form = self._options.chance == "auto" and self._members[0].settings.feedback.law == "gaussian"
        projection = self._rule.projection(s.layer)
        source = s.passed.error if projection is not None and projection.from_error else s.above
        if closed_form and projection is not None and source is not None:
            z = observed / angles.chance_sd(source.flatten(2), s.g)
            return {"chance_z": z, "chance_p": angles.normal_p(z)}
        redrawn = []
        for draw in range(1, self._options.redraws + 1):
            signal = self._rule.redrawn_signal(s.layer, s.passed, s.above, draw=draw)
            if signal is None:
                return {"chance_z": _undefined(s.t), "chance_p": _undefined(s.t)}
            redrawn.append(angles.cosine(signal, s.g).nanmean(1))
        null = torch.stack(redrawn, 1)  # [E, K]
        beyond = (null.abs() >= observed[:, None].abs()).sum(1)
        p = torch.where(observed.isnan(), torch.nan, (beyond + 1.0) / (null.shape[1] + 1.0))
        return {"chance_z": (observed - null.mean(1)) / _nan_sd(null), "chance_p": p}

    def _jacobians(self, passed: Pass) -> list[Tensor]:
        """The mean Jacobian dy/dh_l of the batch, [E, C, d_l] for each hidden layer.

        Batch statistics are held constant: with them free, a shift of all samples together changes
        nothing above a batch norm, so that the mean Jacobian below one would be exactly zero.
        """
        passed = self._network.with_fixed_statistics(passed)
        rows = []
        for output in range(self._network.outputs):
            one = torch.zeros_like(passed.error)
            one[..., output] = 1.0
            signals, _ = self._network.backward(dataclasses.replace(passed, error=one), self._reference)
            rows.append([_or_zero(signal, None).mean(1) for signal in signals])
        return [torch.stack(layer, 1) for layer in zip(*rows, strict=True)]

    def _jacobian_cosine(self, layer: int, jacobian: Tensor) -> Tensor:
        projection = self._rule.projection(layer)
        if projection is None or not projection.from_error:
            return _undefined(jacobian)
        return angles.frobenius_cosine(projection.matrix, jacobian)


MEASURES_OF: dict[str, Callable[[Probe, LayerSignals], dict[str, Tensor]]] = {
    "signal": Probe._signal,
    "delta": Probe._delta,
    "size": Probe._size,
    "common_mode": Probe._common_mode,
    "rank": Probe._rank,
    "weight": Probe._weight,
    "ceiling": Probe._ceiling,
    "chance": Probe._chance,
}


def step_measures(network: Network, before: Parameters, bp_gradient: Parameters) -> Measures:
    """Measures of the last update, from the parameters before it and the BP gradient of its batch."""
    cosines, ratios = [], []
    for layer in range(1, len(network.hidden_sizes) + 1):
        old = before.views[layer, "weight"].double()
        moved = network.weight(layer).double() - old
        cosines.append(angles.frobenius_cosine(moved, -bp_gradient.views[layer, "weight"]))
        before_length = length(old.flatten(1))
        ratios.append(torch.where(before_length > 0, length(moved.flatten(1)) / before_length, torch.nan))
    return {"step_cosine": torch.stack(cosines, 1).cpu().numpy(), "update_ratio": torch.stack(ratios, 1).cpu().numpy()}


def output_cosine(network: Network, passed: Pass, own: Tensor) -> Tensor:
    """The rule's output-weight gradient `own` [E, C, d] against autograd's, [E]: 1, or the engine is wrong."""
    references = [_autograd_output_gradient(network, passed, member) for member in range(len(own))]
    return angles.frobenius_cosine(own, torch.stack(references))


def _autograd_output_gradient(network: Network, passed: Pass, member: int) -> Tensor:
    last = len(network.layers)
    h, targets = passed.inputs[-1][member].clone(), passed.targets[member]
    weight = network.weight(last)[member].clone().requires_grad_()
    with torch.enable_grad():
        output = F.linear(h, weight, network.parameters.views[last, "bias"][member].clone())
        if network.loss == "cross_entropy":
            loss = F.cross_entropy(output, targets, reduction="sum")
        else:
            classes = not targets.is_floating_point()
            wanted = F.one_hot(targets, network.outputs).to(output.dtype) if classes else targets
            loss = 0.5 * F.mse_loss(output, wanted, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, weight)
    return gradient


def _or_zero(signal: Tensor | None, like: Tensor | None) -> Tensor:
    """A signal, or the zero that None stands for."""
    if signal is not None:
        return signal
    assert like is not None, "BP always has a signal"
    return torch.zeros_like(like)


def _undefined(like: Tensor) -> Tensor:
    return torch.full((like.shape[0],), torch.nan, dtype=torch.float64, device=like.device)


def _length(signal: Tensor) -> Tensor:
    return length(signal.flatten(2).double())


def _nan_sd(values: Tensor) -> Tensor:
    """The sample standard deviation (ddof 1) along the last axis of what is not NaN."""
    count = (~values.isnan()).sum(-1)
    centred = values - values.nanmean(-1, keepdim=True)
    return torch.sqrt((centred * centred).nansum(-1) / (count - 1).clamp_min(0))


def _nan_median(values: Tensor) -> Tensor:
    return torch.nanquantile(values, 0.5, dim=-1)
