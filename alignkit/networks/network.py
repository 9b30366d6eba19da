"""Networks with an ensemble axis: layers of a weight op and its stages, forward and backward.

All tensors lead with E, the members of a cohort. Layers are numbered 1…L; 1…L-1 are hidden. A hidden
layer's output h_l is handed on as [E, N, d_l] to fully connected layers and to teaching signals, as
[E, N, c, H, W] to convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.networks.convolution import convolve, convolve_back, kernel_gradient
from alignkit.networks.initialisation import initial_values
from alignkit.networks.locally_connected import connect_locally, connect_locally_back, local_gradient
from alignkit.networks.losses import output_error
from alignkit.networks.masks import Masks
from alignkit.networks.members import Member
from alignkit.networks.parameters import Layout, Parameters
from alignkit.networks.shapes import layer_shapes, parameter_shapes, resolve_options
from alignkit.networks.stages import Activation, Dropout, MaxPool, Mode, Norm, Stages
from alignkit.numerics.products import matmul, matmul_into, subtract_product


@dataclass
class Pass:
    """What one forward pass leaves for the backward ones."""

    inputs: list[Tensor]  # inputs[l - 1] is h_{l-1} as layer l saw it
    caches: list[list[Any]]  # caches[l - 1]: one entry a stage of layer l
    hidden: list[Tensor]  # hidden[l - 1] is h_l, [E, N, d_l]
    output: Tensor  # y [E, N, C]
    error: Tensor  # e = dL/dy per sample [E, N, C]
    targets: Tensor
    total: Tensor | None = None
    """Sum of the first sample's y, of its z_l that no norm takes first, and of what norms hand on, [E]. A parameter
    that is not finite makes one of them so, for every sample: a weight or bias its z_l, and what a norm makes of it."""
    masks: Masks | None = None
    """Under which signals go back."""
    phase: Literal["training", "probing"] = "probing"
    step: int | Tensor = 0
    """The number of the training step, from 1; 0 where the pass is no step."""


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


class LayerBackward:
    """One hidden layer on the way back: its teaching signal (None for zero), then its delta.

    `delta_below` is t_l pulled back to z_l, what the layers below are taught from. It is made by `pull_back`, which
    lets go of the signal: where the delta may take its memory, `signal` is not to be used from there on.
    """

    def __init__(
        self,
        network: Network,
        layer: int,
        signal: Tensor | None,
        forward_pass: Pass,
        rule: TeachingRule,
        norm_gradients: dict[str, Tensor] | None,
        may_overwrite: bool,
    ) -> None:
        self.layer, self.signal = layer, signal
        self.delta_below: Tensor | None = None
        self._network, self._forward_pass, self._rule = network, forward_pass, rule
        self._norm_gradients, self._may_overwrite = norm_gradients, may_overwrite

    def pull_back(self) -> Tensor | None:
        """The delta that updates the layer: `delta_below`, changed where the rule does so; None stands for zero."""
        signal, self.signal = self.signal, None
        if signal is None:
            return None
        delta = self._network.pull_back(
            self.layer, signal, self._forward_pass, self._norm_gradients, may_overwrite=self._may_overwrite
        )
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


class Network:
    """A cohort's networks: the same layers, each member with weights of its own seed.

    Members share every option that shapes the computation; `members[0]` speaks for all in those.
    """

    def __init__(
        self, members: Sequence[Member], *, shape: tuple[int, ...], outputs: int, device: torch.device | str = "cpu"
    ) -> None:
        first = members[0].settings
        self.outputs = outputs
        self.shape = shape
        self.loss = first.training.loss
        self.layers = layer_shapes(first, shape, outputs)
        self.hidden_sizes = [layer.size for layer in self.layers[:-1]]
        dtype = torch.float64 if first.training.dtype == "float64" else torch.float32
        first_of_output = len(self.layers) + 1 - first.training.output_layers
        transposed = frozenset((index, "weight") for index, layer in enumerate(self.layers, 1) if layer.input_major)
        layout = Layout.of(parameter_shapes(self.layers), output_layer=first_of_output, transposed=transposed)
        self.parameters = Parameters.zeros(layout, members=len(members), device=torch.device(device), dtype=dtype)
        self._transposed = [self.weight(layer).transpose(1, 2) for layer in range(1, len(self.layers) + 1)]
        self._initialise(members)
        self.stages: list[Stages] = [self._stages_of(index, members) for index in range(1, len(self.layers))]
        self._input_dropout = self._dropout(members, [m.settings.network.input_dropout for m in members], layer=0)
        self.masks = Masks.of(members, self.layers, self.parameters.storage)
        self._flat_input = not self.layers[0].convolution
        self._norm_gradients = [
            {
                name: torch.zeros_like(view)
                for name, view in self.parameters.of_layer(index).items()
                if name in ("gain", "shift")
            }
            for index in range(1, len(self.layers))
        ]

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of all that is computed."""
        return self.parameters.storage

    def _initialise(self, members: Sequence[Member]) -> None:
        for index, layer in enumerate(self.layers, start=1):
            views = self.parameters.of_layer(index)
            for position, member in enumerate(members):
                values = initial_values(
                    member.settings.network.initialisation,
                    layer.weight,
                    seed=member.seed_of("initialisation"),
                    # the output layer has a counter of its own: networks of different depth share it
                    layer=0 if layer.options is None else index,
                    positions=layer.positions if layer.local else 1,
                )
                for name, value in zip(("weight", "bias"), values, strict=True):
                    views[name][position] = torch.from_numpy(value)
            if "gain" in views:
                views["gain"].fill_(1.0)

    def _stages_of(self, index: int, members: Sequence[Member]) -> Stages:
        layer = self.layers[index - 1]
        options = layer.options
        assert options is not None and options.order is not None and options.activation is not None
        views = self.parameters.of_layer(index)
        resolved = [resolve_options(m.settings, index - 1, convolution=layer.convolution) for m in members]
        slopes = torch.tensor(
            [r.slope for r in resolved], dtype=self.parameters.storage.dtype, device=self.parameters.storage.device
        )
        by_name: dict[str, Activation | Norm | Dropout | MaxPool | None] = {
            "norm": Norm(
                str(options.norm),
                views["gain"],
                views["shift"],
                positions=2 * layer.convolution,
                comes_first=options.order[0] == "norm",
            )
            if "gain" in views
            else None,
            "activation": Activation(options.activation, slopes),
            "dropout": self._dropout(members, [r.dropout or 0.0 for r in resolved], layer=index),
            "pool": MaxPool(*layer.pool) if layer.pool else None,
        }
        return [stage for name in options.order if (stage := by_name[name]) is not None]

    def _dropout(self, members: Sequence[Member], rates: list[float], *, layer: int) -> Dropout | None:
        if not any(rates):
            return None
        storage = self.parameters.storage
        seeds = torch.tensor([m.seed_of("dropout") for m in members], dtype=torch.int64, device=storage.device)
        return Dropout(rates, seeds, layer=layer, dtype=storage.dtype)

    def weight(self, layer: int) -> Tensor:
        """W_l, [E, out, in] or [E, out, in, k, k]."""
        return self.parameters.views[layer, "weight"]

    def forward(self, x: Tensor, targets: Tensor, mode: Mode, *, watch: bool = False) -> Pass:
        """A pass over a batch: `x` [E, N, *shape]; `targets` int64 [E, N] or [E, N, C].

        With `watch`, `Pass.total` tells the members of which a parameter may not be finite.
        """
        if self._flat_input:
            x = x.flatten(2)
        if self._input_dropout is not None:
            x, _ = self._input_dropout.forward(x, mode)
        inputs, caches, hidden, totals = [x], [], [], []
        for index, stages in enumerate(self.stages, start=1):
            h = self._weight_op(index, inputs[-1])  # z_l
            if watch and not isinstance(stages[0], Norm):  # a saturating activation would hide what is not finite
                totals.append(_first_sample(h))
            layer_caches = []
            for stage in stages:
                h, cache = stage.forward(h, mode)
                layer_caches.append(cache)
                if watch and isinstance(stage, Norm):
                    totals.append(_first_sample(h))
            caches.append(layer_caches)
            hidden.append(h.flatten(2))
            inputs.append(h if self.layers[index].convolution else hidden[-1])
        output = self._weight_op(len(self.layers), inputs[-1])
        error = output_error(self.loss, output, targets)
        total = torch.stack([*totals, _first_sample(output)]).sum(0) if watch else None
        return Pass(inputs, caches, hidden, output, error, targets, total, self.masks, mode.phase, mode.step)

    def predict(self, x: Tensor) -> Tensor:
        """y [E, N, C] in evaluation mode, nothing kept."""
        h = x.flatten(2) if self._flat_input else x
        for index, stages in enumerate(self.stages, start=1):
            h = self._weight_op(index, h)
            for stage in stages:
                h, _ = stage.forward(h, Mode(batch_statistics=False))
            if not self.layers[index].convolution:
                h = h.flatten(2)
        return self._weight_op(len(self.layers), h)

    def backward(self, forward_pass: Pass, rule: TeachingRule) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """The teaching signals t_l [E, N, d_l] of a rule and the deltas, t_l pulled back to z_l and changed there where
        the rule does so, both in the order of the hidden layers; None stands for zero."""
        signals: list[Tensor | None] = []
        deltas: list[Tensor | None] = []
        for below in self.backward_signals(forward_pass, rule):
            signals.insert(0, below.signal)
            deltas.insert(0, below.pull_back())
        return signals, deltas

    def write_gradients(self, forward_pass: Pass, rule: TeachingRule, gradients: Parameters) -> list[Tensor | None]:
        """Go down from the error under a rule, and write its update directions, summed over the batch.

        Returns the deltas at every layer, the output's error last; None stands for zero.
        """
        norm_gradients = [gradients.of_layer(layer + 1) for layer in range(len(self.stages))]
        deltas = self._deltas(forward_pass, rule, norm_gradients)
        for layer in range(1, len(self.layers) + 1):
            delta = deltas[layer - 1]
            own = self.own_gradients(layer, rule, forward_pass, delta)
            if delta is None:
                for view in gradients.of_layer(layer).values():
                    view.zero_()
            elif own is None:
                self._write_gradients(layer, delta, forward_pass, gradients)
            for name, gradient in (own or {}).items():
                gradients.views[layer, name].copy_(gradient)
            if forward_pass.masks is not None:
                forward_pass.masks.freeze(layer, gradients.of_layer(layer))
        return deltas

    def own_gradients(
        self, layer: int, rule: TeachingRule, forward_pass: Pass, delta: Tensor | None
    ) -> dict[str, Tensor] | None:
        """What moves a layer's weights and biases in the place of its delta's products, where its rule says so."""
        if not rule.has_own_gradients or layer == len(self.layers):
            return None
        own = rule.own_gradients(layer, forward_pass, delta)
        for name, gradient in (own or {}).items():
            like = self.parameters.views.get((layer, name)) if name in ("weight", "bias") else None
            if like is None or gradient.shape != like.shape or gradient.dtype != like.dtype:
                expected = "weight and bias" if like is None else f"{name} of {list(like.shape)} and {like.dtype}"
                raise StudyError(
                    f"{type(rule).__name__}.own_gradients: expected {expected} at hidden layer {layer}; got {name} of "
                    f"{list(gradient.shape)} and {gradient.dtype}"
                )
        return own

    def descend(self, forward_pass: Pass, rule: TeachingRule, rates: tuple[Tensor, Tensor]) -> list[Tensor | None]:
        """One step of plain gradient descent under a rule, with the hidden layers' and the output layer's
        `rates` [E, 1] for gradients summed over the batch.

        The same as `write_gradients` and then W -= rate * gradient, but the update goes into the weights in one
        product a layer: no gradient is stored. Under a rule that is linear in the error, the error takes the
        hidden layers' rate, so that no delta has to. Returns the deltas as `write_gradients` does; under such a rule
        they hold the rate, unless the rule learns.
        """
        left: list[Tensor | None] = [
            rates[self.parameters.layout.of_output((layer, "weight"))] for layer in range(1, len(self.layers) + 1)
        ]
        scaled = forward_pass
        plain = not rule.learns and not rule.has_own_gradients
        if rule.linear_in_error and plain and all(rate is left[0] for rate in left[:-1]):
            scaled = replace(forward_pass, error=_times(forward_pass.error, left[0]))
            left[:-1] = [None] * (len(left) - 1)
        deltas = self._deltas(scaled, rule, self._norm_gradients)
        deltas[-1] = forward_pass.error
        for layer, rate in enumerate(left, start=1):
            delta = deltas[layer - 1]
            own = self.own_gradients(layer, rule, forward_pass, delta)
            if own is not None:
                self._move(layer, {name: _times(gradient, rate) for name, gradient in own.items()}, forward_pass)
            elif delta is not None:
                self._descend_layer(layer, _times(delta, rate), forward_pass)
            if delta is not None and layer <= len(self.stages):
                for name, gradient in self._norm_gradients[layer - 1].items():
                    self.parameters.views[layer, name].sub_(_times(gradient, rate))
        return deltas

    def backward_signals(
        self,
        forward_pass: Pass,
        rule: TeachingRule,
        norm_gradients: list[dict[str, Tensor]] | None = None,
        *,
        may_overwrite: bool = False,
    ) -> Iterator[LayerBackward]:
        """Each hidden layer's teaching signal, from the last layer down; `pull_back` makes its delta of it.

        Gradients of norms' gains and shifts go into `norm_gradients`. With `may_overwrite`, a delta may take its
        signal's memory.
        """
        delta_above: Tensor | None = forward_pass.error
        may_overwrite = may_overwrite and rule.makes_its_signals
        for layer in range(len(self.layers) - 1, 0, -1):
            signal = rule.signal(layer, forward_pass, delta_above)
            if signal is not None:
                check_signal(signal, forward_pass.hidden[layer - 1], layer=layer, rule=rule)
                if forward_pass.masks is not None:
                    signal = forward_pass.masks.signal(layer, signal)
            own = None if norm_gradients is None else norm_gradients[layer - 1]
            below = LayerBackward(self, layer, signal, forward_pass, rule, own, may_overwrite)
            del signal  # its memory, still in the cache, serves the next one
            yield below
            assert below.signal is None, "a layer's signal is pulled back before the layer below is asked for"
            delta_above = below.delta_below

    def _deltas(
        self, forward_pass: Pass, rule: TeachingRule, norm_gradients: list[dict[str, Tensor]]
    ) -> list[Tensor | None]:
        """What updates each layer, the output layer last."""
        hidden = self.backward_signals(forward_pass, rule, norm_gradients, may_overwrite=True)
        return [*[below.pull_back() for below in hidden][::-1], forward_pass.error]

    def with_fixed_statistics(self, forward_pass: Pass) -> Pass:
        """The same pass for derivatives that hold batch statistics constant, so that samples are uncoupled."""
        caches = [
            [
                stage.fixed(cache) if isinstance(stage, Norm) else cache
                for stage, cache in zip(stages, caches, strict=True)
            ]
            for stages, caches in zip(self.stages, forward_pass.caches, strict=True)
        ]
        return replace(forward_pass, caches=caches)

    def pull_back(
        self,
        layer: int,
        signal: Tensor,
        forward_pass: Pass,
        norm_gradients: dict[str, Tensor] | None = None,
        *,
        may_overwrite: bool = False,
    ) -> Tensor:
        """A signal at h_l, [E, N, d_l], carried back through the layer's stages to z_l."""
        if self.layers[layer - 1].convolution:
            signal = signal.view(*signal.shape[:2], *self.layers[layer - 1].output)
        kept = None if may_overwrite else signal
        for stage, cache in zip(
            reversed(self.stages[layer - 1]), reversed(forward_pass.caches[layer - 1]), strict=True
        ):
            signal = stage.pull_back(signal, cache, norm_gradients, may_overwrite=signal is not kept)
        return signal

    def transport(self, layer: int, delta: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """A delta at z_l carried back through W_l (or `weight` in its place) to h_{l-1}: [E, N, d_{l-1}]."""
        weight = self.weight(layer) if weight is None else weight
        shape = self.layers[layer - 1]
        if not shape.convolution:
            return matmul(delta, weight)
        if shape.local:
            return connect_locally_back(delta, weight, shape.input, padding=shape.padding).flatten(2)
        return convolve_back(delta, weight, padding=shape.padding).flatten(2)

    def _weight_op(self, layer: int, h: Tensor) -> Tensor:
        bias, shape = self.parameters.views[layer, "bias"], self.layers[layer - 1]
        if layer == len(self.layers):  # samples last: with few outputs, products and softmax are twice as fast
            return matmul(self.weight(layer), h.mT, bias=bias[..., None]).mT
        if not shape.convolution:
            return matmul(h, self._transposed[layer - 1], bias=bias[:, None])
        op = connect_locally if shape.local else convolve
        return op(h, self.weight(layer), bias, padding=shape.padding)

    def gates(self, layer: int, forward_pass: Pass) -> Tensor | None:
        """The derivative of h_l by z_l, unit by unit, [E, N, d]; None where a stage mixes units or samples."""
        if not all(
            isinstance(stage, Activation | Dropout) or (isinstance(stage, Norm) and stage.is_elementwise(cache))
            for stage, cache in zip(self.stages[layer - 1], forward_pass.caches[layer - 1], strict=True)
        ):
            return None
        return self.pull_back(
            layer, torch.ones_like(forward_pass.hidden[layer - 1]), forward_pass, may_overwrite=True
        ).flatten(2)

    def weight_gradient(self, layer: int, delta: Tensor, forward_pass: Pass) -> Tensor:
        """The gradient of W_l, of the weights' shape, summed over the batch, from a delta at z_l."""
        h = forward_pass.inputs[layer - 1]
        if self.layers[layer - 1].convolution:
            shape = self.layers[layer - 1]
            gradient = local_gradient if shape.local else kernel_gradient
            return gradient(h, delta, shape.weight, padding=shape.padding)
        return matmul(delta.transpose(1, 2), h)

    def _as_stored(
        self, layer: int, weight: Tensor, delta: Tensor, forward_pass: Pass
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What lies where `weight` does (a parameter of the layer, or its gradient), contiguous, and the two factors
        of the gradient as it lies there."""
        h = forward_pass.inputs[layer - 1]
        if self.layers[layer - 1].input_major:
            return weight.transpose(1, 2), h.transpose(1, 2), delta
        return weight, delta.transpose(1, 2), h

    def _write_gradients(self, layer: int, delta: Tensor, forward_pass: Pass, gradients: Parameters) -> None:
        weight = gradients.views[layer, "weight"]
        if self.layers[layer - 1].convolution:
            weight.copy_(self.weight_gradient(layer, delta, forward_pass))
        else:
            matmul_into(*self._as_stored(layer, weight, delta, forward_pass))
        gradients.views[layer, "bias"].copy_(self._bias_gradient(layer, delta))

    def _bias_gradient(self, layer: int, delta: Tensor) -> Tensor:
        if self.layers[layer - 1].local:
            return delta.sum(1).flatten(1)
        return delta.sum(_others(delta))

    def _move(self, layer: int, changes: dict[str, Tensor], forward_pass: Pass) -> None:
        """Subtract changes of a layer's parameters, those of frozen ones left out."""
        if forward_pass.masks is not None:
            forward_pass.masks.freeze(layer, changes)
        for name, change in changes.items():
            self.parameters.views[layer, name].sub_(change)

    def _descend_layer(self, layer: int, delta: Tensor, forward_pass: Pass) -> None:
        weight = self.weight(layer)
        if forward_pass.masks is not None and layer in forward_pass.masks.trained:
            weight_change, bias_change = (
                self.weight_gradient(layer, delta, forward_pass),
                self._bias_gradient(layer, delta),
            )
            self._move(layer, {"weight": weight_change, "bias": bias_change}, forward_pass)
            return
        self.parameters.views[layer, "bias"].sub_(self._bias_gradient(layer, delta))
        if self.layers[layer - 1].convolution:
            weight.sub_(self.weight_gradient(layer, delta, forward_pass))
        else:
            subtract_product(*self._as_stored(layer, weight, delta, forward_pass))


def _times(values: Tensor, rate: Tensor | None) -> Tensor:
    """Values [E, …] times the members' rates [E, 1], where there is one left to take."""
    return values if rate is None else values * rate.view(-1, *(1 for _ in values.shape[1:]))


def _others(delta: Tensor) -> tuple[int, ...]:
    """The axes of samples and positions."""
    return (1, *range(3, delta.dim()))


def _first_sample(values: Tensor) -> Tensor:
    """The sum over each member's first sample, [E]."""
    return values[:, 0].sum(tuple(range(1, values.dim() - 1)))
