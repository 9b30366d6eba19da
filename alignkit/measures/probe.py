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
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.measures import angles
from alignkit.measures.angles import Directions
from alignkit.measures.gradient_cosines import GradientCosines
from alignkit.measures.jacobians import mean_jacobians, weight_products
from alignkit.measures.reductions import Measures, columns
from alignkit.measures.steps import output_cosine
from alignkit.networks.forward_pass import Pass
from alignkit.networks.masks import Masks
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.stages import EVALUATION, Mode
from alignkit.numerics.channels_last import in_memory_order
from alignkit.numerics.inner_products import length, sums_of_samples
from alignkit.rules.base import Rule
from alignkit.rules.bp import BP
from alignkit.rules.feedback import Projection


def probe_mode(name: str, *, step: int) -> Mode:
    """The forward mode of a measurement. In "train" the masks have counters that no update uses."""
    if name == "eval":
        return EVALUATION
    return Mode(batch_statistics=True, dropout_step=-1 - step if name == "train" else None)


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


class Probe:
    """Measures a cohort's networks on a fixed batch, `x` [N, *shape] and `targets` [N] or [N, C]."""

    def __init__(self, network: Network, rule: Rule, members: Sequence[Member], x: Tensor, targets: Tensor) -> None:
        self._network, self._rule, self._reference = network, rule.measured, BP(network, members)
        self._members = members
        self._options = members[0].settings.probe
        self._x = x.expand(len(members), *x.shape)
        self._targets = targets.expand(len(members), *targets.shape)
        modes = (self._options.mode, self._options.reference_mode)
        self._gradient_cosines = GradientCosines(network, members, self._x, modes)
        self._bases: dict[int, tuple[Tensor, int, Tensor]] = {}
        masks, like = self._options.reference_masks, network.parameters.storage
        self._reference_masks = network.masks if masks == "shared" else None
        if masks == "independent":
            self._reference_masks = Masks.of(members, network.layers, like, draw=1)
        self._undefined = torch.full((len(members),), torch.nan, dtype=torch.float64, device=like.device)

    def measure(self, step: int) -> tuple[Measures, np.ndarray]:
        """The chosen measures of the networks as they are, and `output_cosine` [E]."""
        network, groups = self._network, self._options.groups
        learned = {name: tensor.clone() for name, tensor in self._rule.state().items()}
        forward_pass = network.forward(self._x, self._targets, probe_mode(self._options.mode, step=step))
        reference = forward_pass
        if self._options.reference_mode is not None:
            mode = probe_mode(self._options.reference_mode, step=step)
            reference = network.forward(self._x, self._targets, mode)
        self_test = output_cosine(network, forward_pass, reference)
        reference = dataclasses.replace(reference, masks=self._reference_masks)
        jacobians = mean_jacobians(network, forward_pass, self._reference) if "jacobian" in groups else None
        products = weight_products(network) if "weight" in groups else None
        layers: list[dict[str, Tensor]] = []
        above: Tensor | None = forward_pass.error
        errors = Directions(forward_pass.error)
        own = network.backward_signals(forward_pass, self._rule, may_overwrite=True)
        other = network.backward_signals(reference, self._reference, may_overwrite=True)
        of_signals = [find for group, find in OF_SIGNALS.items() if group in groups]
        of_deltas = [find for group, find in OF_DELTAS.items() if group in groups]
        # What has just been made is in the cache: it is measured at once, and deltas take their signals' memory.
        for ours, bp in zip(own, other, strict=True):
            layer, t, g = ours.layer, ours.signal, bp.signal
            assert g is not None, "BP always has a signal"
            signals = LayerSignals(layer, forward_pass, (_or_zero(t, g), g), above=above, errors=errors)
            found: dict[str, Tensor] = {}
            for find in of_signals:
                found.update(find(self, signals))
            del signals, t, g
            above, delta = ours.pull_back(), bp.pull_back()
            assert delta is not None
            deltas = LayerDeltas(layer, (forward_pass, reference), (_or_zero(above, delta), delta))
            for find_of_deltas in of_deltas:
                found.update(find_of_deltas(self, deltas))
            if jacobians is not None:
                found["jacobian_cosine"] = self._jacobian_cosine(layer, jacobians[layer - 1])
            if products is not None:
                found["weight_cosine"] = self._weight_cosine(layer, products[layer - 1])
            layers.insert(0, found)
            del deltas, delta, ours, bp
        self._require_unchanged(learned)
        return columns(layers, groups), self_test.cpu().numpy()

    def _require_unchanged(self, learned: dict[str, Tensor]) -> None:
        """A measurement leaves a rule as it was, or the run with more checkpoints is another run."""
        for name, tensor in self._rule.state().items() if learned else ():
            if not torch.allclose(tensor, learned[name], rtol=0.0, atol=0.0, equal_nan=True):
                raise StudyError(
                    f"{type(self._rule).__name__}: expected a measurement to leave {name} as it is; it was changed. "
                    "Learn in after_step alone"
                )

    # What a layer's measures need: numbers of samples, [E, N], and of networks, [E]. `measures.columns` does the rest.

    def _signal(self, s: LayerSignals) -> dict[str, Tensor]:
        return {"cosine": s.cosine, "angle_deg": s.t.angle_deg(s.g, s.cosine)}

    def _delta(self, d: LayerDeltas) -> dict[str, Tensor]:
        return {"delta_cosine": d.own.cosine(d.reference)}

    def _delta_size(self, d: LayerDeltas) -> dict[str, Tensor]:
        return {"delta_length": d.own.length}

    def _gradient(self, d: LayerDeltas) -> dict[str, Tensor]:
        if self._rule.has_own_gradients and (
            own := self._network.own_gradients(d.layer, self._rule, d.passes[0], d.deltas[0])
        ):
            reference = self._network.weight_gradient(d.layer, d.deltas[1], d.passes[1])
            return {"gradient_cosine": angles.frobenius_cosine(own["weight"], reference)}
        return {"gradient_cosine": self._gradient_cosines.at(d.layer, d.deltas, d.passes, (d.own, d.reference))}

    def _signal_size(self, s: LayerSignals) -> dict[str, Tensor]:
        return {"cosine": s.cosine, "t_length": s.t.length, "g_length": s.g.length}

    def _common_mode(self, s: LayerSignals) -> dict[str, Tensor]:
        return {"cosine": s.cosine, "t_length": s.t.length, "t_sum_length": length(sums_of_samples(s.t.vectors))}

    def _rank(self, s: LayerSignals) -> dict[str, Tensor]:
        return {"effective_rank": angles.effective_rank(s.forward_pass.hidden[s.layer - 1])}

    def _ceiling(self, s: LayerSignals) -> dict[str, Tensor]:
        projection = self._projection(s.layer)
        if projection is None:
            return {"ceiling": torch.full_like(s.cosine, torch.nan)}
        basis, masks = self._basis(s.layer, projection), s.forward_pass.masks
        if masks is not None and s.layer in masks.signals:
            mask = masks.signal(s.layer, torch.ones_like(s.forward_pass.hidden[s.layer - 1]))
            return {"ceiling": angles.masked_ceiling(basis, s.g, mask)}
        return {"ceiling": angles.ceiling(basis, s.g)}

    def _projection(self, layer: int) -> Projection | None:
        return self._rule.projection(layer) if self._rule.enters(layer) else None

    def _basis(self, layer: int, projection: Projection) -> Tensor:
        """The row space of a layer's feedback, worked out anew only where the feedback has changed."""
        matrix = projection.matrix
        known = self._bases.get(layer)
        if known is None or known[0] is not matrix or known[1] != matrix._version:
            sum_zero = projection.from_error and self._network.loss == "cross_entropy"
            known = self._bases[layer] = (matrix, matrix._version, angles.row_space(matrix, sum_zero=sum_zero))
        return known[2]

    def _chance(self, s: LayerSignals) -> dict[str, Tensor]:
        mean, sd, p = self._null(s)
        return {"cosine": s.cosine, "null_mean": mean, "null_sd": sd, "null_p": p}

    def _null(self, s: LayerSignals) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and sd of the mean cosine under redrawn feedback, and where it was redrawn, the p of the one that is."""
        projection = self._projection(s.layer)
        source = None if s.above is None else Directions(in_memory_order(s.above))
        if projection is not None and projection.from_error:
            source = s.errors
        if self._closed_form and projection is not None and source is not None:
            sd = angles.chance_sd(source, s.g)
            return torch.zeros_like(sd), sd, self._undefined
        undefined, redrawn = (self._undefined,) * 3, []
        for draw in range(1, self._options.redraws + 1 if self._rule.enters(s.layer) else 1):
            signal = self._rule.redrawn_signal(s.layer, s.forward_pass, s.above, draw=draw)
            if signal is None:
                return undefined
            if s.forward_pass.masks is not None:
                signal = s.forward_pass.masks.signal(s.layer, signal)
            redrawn.append(Directions(signal).cosine(s.g).nanmean(1))
        if not redrawn:
            return undefined
        null, observed = torch.stack(redrawn, 1), s.cosine.nanmean(1)  # [E, K], [E]
        beyond = (null.abs() >= observed[:, None].abs()).sum(1)
        p = torch.where(observed.isnan(), torch.nan, (beyond + 1.0) / (null.shape[1] + 1.0))
        mean = null.mean(1)
        return mean, ((null - mean[:, None]).square().sum(1) / (null.shape[1] - 1)).sqrt(), p

    @cached_property
    def _closed_form(self) -> bool:
        """Whether the spread of the chance level is known: of unmasked Gaussian feedback of full rank."""
        plain = self._network.masks is None and self._reference_masks is None
        drawn = [member.settings.feedback for member in self._members]
        return self._options.chance == "auto" and plain and all(f.law == "gaussian" and f.rank is None for f in drawn)

    def _jacobian_cosine(self, layer: int, jacobian: Tensor) -> Tensor:
        projection = self._projection(layer)
        if projection is None or not projection.from_error:
            return self._undefined
        return angles.frobenius_cosine(projection.matrix, jacobian)

    def _weight_cosine(self, layer: int, product: Tensor | None) -> Tensor:
        """DFA's B_l against W_L … W_{l+1}, another rule's B_{l+1} against W_{l+1}."""
        projection = self._projection(layer)
        if projection is not None and not projection.from_error:
            product = self._network.weight(layer + 1)
        if projection is None or product is None:
            return self._undefined
        return angles.frobenius_cosine(projection.matrix, product)


OF_SIGNALS: dict[str, Callable[[Probe, LayerSignals], dict[str, Tensor]]] = {
    "signal": Probe._signal,
    "size": Probe._signal_size,
    "common_mode": Probe._common_mode,
    "rank": Probe._rank,
    "ceiling": Probe._ceiling,
    "chance": Probe._chance,
}
OF_DELTAS: dict[str, Callable[[Probe, LayerDeltas], dict[str, Tensor]]] = {
    "delta": Probe._delta,
    "size": Probe._delta_size,
    "gradient": Probe._gradient,
}


def _or_zero(signal: Tensor | None, like: Tensor) -> Tensor:
    """A signal, or the zero that None stands for."""
    return torch.zeros_like(like) if signal is None else signal
