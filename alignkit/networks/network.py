"""Networks with an ensemble axis: layers of a weight op and its stages, forward and backward.

All tensors lead with E, the members of a cohort. Layers are numbered 1…L; 1…L-1 are hidden. A hidden
layer's output h_l is handed on as [E, N, d_l] to fully connected layers and to teaching signals, as
[E, N, c, H, W] to convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.networks.backward import LayerBackward, check_signal
from alignkit.networks.forward_pass import Hidden, Pass, TeachingRule
from alignkit.networks.initialisation import initial_values
from alignkit.networks.losses import output_error
from alignkit.networks.masks import Masks
from alignkit.networks.members import Member
from alignkit.networks.parameters import Layout, Parameters
from alignkit.networks.shapes import layer_shapes, parameter_shapes, resolve_options
from alignkit.networks.stages import Activation, Dropout, MaxPool, Mode, Norm, Stages
from alignkit.networks.weight_op import check_op, op_class, ops_of
from alignkit.numerics.tensors import Delta, Inputs, Output, PerMember, Rate, Signal, Targets, Weight


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
        self.parameters = Parameters.zeros(layout, n_members=len(members), device=torch.device(device), dtype=dtype)
        self._ops = ops_of(self.layers)
        self._initialise(members)
        self.stages: list[Stages] = [self._stages_of(index, members) for index in range(1, len(self.layers))]
        self._input_dropout = self._dropout(members, [m.settings.network.input_dropout for m in members], layer=0)
        self.masks = Masks.of(members, self.layers, self.parameters.storage)
        self._flat_input = not self.layers[0].convolution
        hidden = [self.parameters.of_layer(index) for index in range(1, len(self.layers))]
        self._norm_gradients: list[dict[str, Tensor]] = [
            {name: torch.zeros_like(views[name]) for name in ("gain", "shift") if name in views} for views in hidden
        ]

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of all that is computed."""
        return self.parameters.storage

    def _initialise(self, members: Sequence[Member]) -> None:
        for index, layer in enumerate(self.layers, start=1):
            views, own = self.parameters.of_layer(index), op_class(layer.op) if layer.own else None
            for position, member in enumerate(members):
                weight, bias = initial_values(
                    member.settings.network.initialisation,
                    layer.weight if own is None else (layer.size, math.prod(layer.input)),
                    seed=member.seed_of("initialisation"),
                    # the output layer has a counter of its own: networks of different depth share it
                    layer=0 if layer.options is None else index,
                    positions=layer.positions if layer.local else 1,
                )
                views["weight"][position] = torch.from_numpy(weight if own is None else own.from_dense(weight))
                views["bias"][position] = torch.from_numpy(bias)
            if "gain" in views:
                views["gain"].fill_(1.0)

    def _stages_of(self, index: int, members: Sequence[Member]) -> Stages:
        layer = self.layers[index - 1]
        options = layer.options
        assert options is not None and options.order is not None and options.activation is not None
        views = self.parameters.of_layer(index)
        resolved = [resolve_options(m.settings, index - 1, convolution=layer.convolution) for m in members]
        slopes = torch.tensor([r.slope for r in resolved], dtype=self.like.dtype, device=self.like.device)
        by_name: dict[str, Activation | Norm | Dropout | MaxPool | None] = {
            "activation": Activation(options.activation, slopes),
            "dropout": self._dropout(members, [r.dropout or 0.0 for r in resolved], layer=index),
            "pool": MaxPool(*layer.pool) if layer.pool else None,
            "norm": None,
        }
        if "gain" in views:
            kind, gain, shift = str(options.norm), views["gain"], views["shift"]
            first = options.order[0] == "norm"
            by_name["norm"] = Norm(kind, gain, shift, positions=2 * layer.convolution, comes_first=first)
        return [stage for name in options.order if (stage := by_name[name]) is not None]

    def _dropout(self, members: Sequence[Member], rates: list[float], *, layer: int) -> Dropout | None:
        if not any(rates):
            return None
        storage = self.parameters.storage
        seeds = torch.tensor([m.seed_of("dropout") for m in members], dtype=torch.int64, device=storage.device)
        return Dropout(rates, seeds, layer=layer, dtype=storage.dtype)

    def weight(self, layer: int) -> Weight:
        """W_l, [E, out, in] or [E, out, in, k, k]."""
        return self.parameters.views[layer, "weight"]

    def forward(self, x: Inputs, targets: Targets, mode: Mode, *, watch: bool = False) -> Pass:
        """A pass over a batch: `x` [E, N, *shape]; `targets` int64 [E, N] or [E, N, C].

        With `watch`, `Pass.total` tells the members of which a parameter may not be finite.
        """
        if self._flat_input:
            x = x.flatten(2)  # [E, N, d_0]
        if self._input_dropout is not None:
            x, _ = self._input_dropout.forward(x, mode)
        inputs, caches, hidden, totals = [x], [], [], []
        for index, stages in enumerate(self.stages, start=1):
            h = self._weight_op(index, inputs[-1])  # z_l: [E, N, d_l] or [E, N, c, H, W]
            if watch and not isinstance(stages[0], Norm):  # a saturating activation would hide what is not finite
                totals.append(_first_sample(h))  # [E]
            layer_caches = []
            for stage in stages:
                h, cache = stage.forward(h, mode)  # as z_l; after pooling, fewer positions
                layer_caches.append(cache)
                if watch and isinstance(stage, Norm):
                    totals.append(_first_sample(h))
            caches.append(layer_caches)
            hidden.append(h.flatten(2))  # h_l: [E, N, d_l]
            inputs.append(h if self.layers[index].convolution else hidden[-1])
        output = self._weight_op(len(self.layers), inputs[-1])  # y: [E, N, C]
        error = output_error(self.loss, output, targets)  # e: [E, N, C]
        total = torch.stack([*totals, _first_sample(output)]).sum(0) if watch else None  # [E]
        return Pass(
            inputs, caches, hidden, output, error, targets, total, self.masks, mode.phase, mode.step, mode.dropout_step
        )

    def predict(self, x: Inputs) -> Output:
        """y [E, N, C] in evaluation mode, nothing kept."""
        h = x.flatten(2) if self._flat_input else x  # [E, N, d_0] or [E, N, c, H, W]
        for index, stages in enumerate(self.stages, start=1):
            h = self._weight_op(index, h)  # z_l
            for stage in stages:
                h, _ = stage.forward(h, Mode(batch_statistics=False))
            if not self.layers[index].convolution:
                h = h.flatten(2)  # h_l: [E, N, d_l]
        return self._weight_op(len(self.layers), h)

    def backward(self, forward_pass: Pass, rule: TeachingRule) -> tuple[list[Hidden | None], list[Tensor | None]]:
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
        self, layer: int, rule: TeachingRule, forward_pass: Pass, delta: Delta | None
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

    def descend(self, forward_pass: Pass, rule: TeachingRule, rates: tuple[Rate, Rate]) -> list[Tensor | None]:
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
        delta_above: Tensor | None = forward_pass.error  # [E, N, C]
        may_overwrite = may_overwrite and rule.makes_its_signals
        for layer in range(len(self.layers) - 1, 0, -1):
            signal = rule.signal(layer, forward_pass, delta_above)  # t_l: [E, N, d_l]
            if signal is not None:
                check_signal(signal, forward_pass.hidden[layer - 1], layer=layer, rule=rule)
                if forward_pass.masks is not None:
                    signal = forward_pass.masks.signal(layer, signal)
            own = None if norm_gradients is None else norm_gradients[layer - 1]
            through_stages = partial(
                self.pull_back, layer, forward_pass=forward_pass, norm_gradients=own, may_overwrite=may_overwrite
            )
            below = LayerBackward(layer, signal, rule, through_stages)
            del signal  # its memory, still in the cache, serves the next one
            yield below
            assert below.signal is None, "a layer's signal is pulled back before the layer below is asked for"
            delta_above = below.delta_below  # at z_l: [E, N, d_l] or [E, N, c, H, W]

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
        signal: Signal,
        forward_pass: Pass,
        norm_gradients: dict[str, Tensor] | None = None,
        *,
        may_overwrite: bool = False,
    ) -> Delta:
        """A signal at h_l, [E, N, d_l], carried back through the layer's stages to z_l."""
        if self.layers[layer - 1].convolution:
            signal = signal.view(*signal.shape[:2], *self.layers[layer - 1].output)  # [E, N, c, H, W]
        kept = None if may_overwrite else signal
        for stage, cache in zip(
            reversed(self.stages[layer - 1]), reversed(forward_pass.caches[layer - 1]), strict=True
        ):
            signal = stage.pull_back(signal, cache, norm_gradients, may_overwrite=signal is not kept)
        return signal

    def transport(self, layer: int, delta: Delta, *, weight: Weight | None = None) -> Signal:
        """A delta at z_l carried back through W_l (or `weight` in its place) to h_{l-1}: [E, N, d_{l-1}]."""
        op, weight = self._ops[layer - 1], self.weight(layer) if weight is None else weight
        signal = op.transport(delta, weight)
        if op.shape.own:
            check_op(op, signal, [*delta.shape[:2], math.prod(op.shape.input)], delta, what="transport")
        return signal

    def _weight_op(self, layer: int, h: Inputs) -> Delta:
        op = self._ops[layer - 1]
        z = op.forward(h, self.weight(layer), self.parameters.views[layer, "bias"])
        if op.shape.own:
            check_op(op, z, [*h.shape[:2], op.shape.size], h, what="forward")
        return z

    def gates(self, layer: int, forward_pass: Pass) -> Signal | None:
        """The derivative of h_l by z_l, unit by unit, [E, N, d]; None where a stage mixes units or samples."""
        if not all(
            isinstance(stage, Activation | Dropout) or (isinstance(stage, Norm) and stage.is_elementwise(cache))
            for stage, cache in zip(self.stages[layer - 1], forward_pass.caches[layer - 1], strict=True)
        ):
            return None
        return self.pull_back(
            layer, torch.ones_like(forward_pass.hidden[layer - 1]), forward_pass, may_overwrite=True
        ).flatten(2)

    def weight_gradient(self, layer: int, delta: Delta, forward_pass: Pass) -> Weight:
        """The gradient of W_l, of the weights' shape, summed over the batch, from a delta at z_l."""
        op = self._ops[layer - 1]
        gradient = op.weight_gradient(forward_pass.inputs[layer - 1], delta)
        if op.shape.own:
            check_op(op, gradient, [len(delta), *op.shape.weight], delta, what="weight_gradient")
        return gradient

    def _write_gradients(self, layer: int, delta: Delta, forward_pass: Pass, gradients: Parameters) -> None:
        op, views = self._ops[layer - 1], gradients.of_layer(layer)
        op.write_gradient(views["weight"], forward_pass.inputs[layer - 1], delta)
        views["bias"].copy_(op.bias_gradient(delta))

    def _move(self, layer: int, changes: dict[str, Tensor], forward_pass: Pass) -> None:
        """Subtract changes of a layer's parameters, those of frozen ones left out."""
        if forward_pass.masks is not None:
            forward_pass.masks.freeze(layer, changes)
        for name, change in changes.items():
            self.parameters.views[layer, name].sub_(change)

    def _descend_layer(self, layer: int, delta: Delta, forward_pass: Pass) -> None:
        op, views = self._ops[layer - 1], self.parameters.of_layer(layer)
        if forward_pass.masks is not None and layer in forward_pass.masks.trained:
            gradients = {"weight": self.weight_gradient(layer, delta, forward_pass), "bias": op.bias_gradient(delta)}
            self._move(layer, gradients, forward_pass)
            return
        views["bias"].sub_(op.bias_gradient(delta))
        op.subtract_gradient(views["weight"], forward_pass.inputs[layer - 1], delta)


def _times(values: Tensor, rate: Tensor | None) -> Tensor:
    """Values [E, …] times the members' rates [E, 1], where there is one left to take."""
    return values if rate is None else values * rate.view(-1, *(1 for _ in values.shape[1:]))


def _first_sample(values: Inputs) -> PerMember:
    """The sum over each member's first sample, [E]."""
    return values[:, 0].sum(tuple(range(1, values.dim() - 1)))
