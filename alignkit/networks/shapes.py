"""The layers of a network before it exists: their shapes and options, and whether they can be stacked."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from alignkit.errors import StudyError
from alignkit.settings.modules import import_class
from alignkit.settings.network import CNN, LayerOverrides
from alignkit.settings.study_options import Settings


@dataclass(frozen=True)
class LayerShape:
    """The static description of one layer."""

    name: str
    weight: tuple[int, ...]  # [out, in] or [out, in, k, k]; locally connected, [out H' W', in, k, k]
    input: tuple[int, ...]  # shape of h_{l-1} per sample
    output: tuple[int, ...]  # shape of h_l per sample
    options: LayerOverrides | None  # resolved options; None for the output layer
    pool: tuple[int, int] | None = None  # window, stride
    padding: int = 0
    op: str = "linear"
    """The kind of its weight op: linear, convolution, local, or a class of the user's own."""

    @property
    def positions(self) -> int:
        """At how many places of its input the weight op is applied, before pooling."""
        if not self.convolution:
            return 1
        return math.prod(n + 2 * self.padding - self.weight[2] + 1 for n in self.input[1:])

    @property
    def channels(self) -> int:
        """Units of a fully connected layer, channels of a convolution."""
        return self.output[0]

    @property
    def bias(self) -> tuple[int, ...]:
        """The shape of the biases: one for each unit, channel or, locally connected, kernel."""
        return self.weight[:1] if self.local else (self.channels,)

    @property
    def convolution(self) -> bool:
        """Whether it maps images to images, with weights shared over positions or not."""
        return self.op in ("convolution", "local")

    @property
    def local(self) -> bool:
        """Whether every position has a kernel of its own."""
        return self.op == "local"

    @property
    def dense(self) -> bool:
        """Whether it multiplies by its weights [out, in], so that their gradient is δᵀ h."""
        return self.op == "linear"

    @property
    def own(self) -> bool:
        """Whether its weight op is a class of the user's own."""
        return not self.dense and not self.convolution

    @property
    def size(self) -> int:
        return math.prod(self.output)

    @property
    def input_major(self) -> bool:
        """Whether the weights lie in memory as [in, out]: products h_{l-1} W' are then up to a third faster, and those
        that descend no slower. With few outputs, it is the other way round."""
        return self.dense and self.options is not None


def layer_shapes(settings: Settings, shape: tuple[int, ...], outputs: int) -> list[LayerShape]:
    """The layers of a network on data of `shape`. Raises `StudyError` where they cannot be stacked, or where the
    outputs are too few for the feedback's rank."""
    network, rank = settings.network, settings.feedback.rank
    if rank is not None and rank > outputs:
        raise StudyError(
            f"feedback.rank: expected at most the number of outputs, {outputs}; got {rank}. Leave it out for full rank"
        )
    layers: list[LayerShape] = []
    current = shape
    if isinstance(network, CNN):
        if len(shape) != 3:
            raise StudyError(
                f'network.kind: "cnn" needs images [channels, height, width]; the data has shape {list(shape)}. '
                'Use kind = "mlp"'
            )
        for index, channels in enumerate(network.channels, start=1):
            extents = [n + 2 * network.padding - network.kernel + 1 for n in current[1:]]
            pooled = [(n - network.pool) // network.pool_stride + 1 for n in extents]
            if min(extents) < network.pool:
                raise StudyError(
                    f"network: convolution {index} gets images of {current[1]}x{current[2]}, too small for kernel "
                    f"{network.kernel}, padding {network.padding} and pooling {network.pool}. Use fewer convolutions, "
                    "a smaller pool, or larger images"
                )
            local = not network.weight_sharing
            kernels = channels * math.prod(extents) if local else channels
            kernel = (kernels, current[0], network.kernel, network.kernel)
            output = (channels, pooled[0], pooled[1])
            options = resolve_options(settings, len(layers), convolution=True)
            pool = (network.pool, network.pool_stride)
            name = f"local{index}" if local else f"conv{index}"
            op = "local" if local else "convolution"
            layers.append(LayerShape(name, kernel, current, output, options, pool, network.padding, op))
            current = output
        widths = network.hidden
    else:
        widths = network.hidden_widths
    for index, width in enumerate(widths, start=1):
        options = resolve_options(settings, len(layers), convolution=False)
        weight: tuple[int, ...] = (width, math.prod(current))
        name = "linear"
        if network.op != "linear":
            own = import_class(network.op, what=f'op "{network.op}"')
            weight, name = tuple(own.weight_shape(weight[1], width)), getattr(own, "layer_name", own.__name__.lower())
        layers.append(LayerShape(f"{name}{index}", weight, current, (width,), options, op=network.op))
        current = (width,)
    layers.append(LayerShape("output", (outputs, math.prod(current)), current, (outputs,), None))
    return layers


def resolve_options(settings: Settings, index: int, *, convolution: bool) -> LayerOverrides:
    """The options of the hidden layer `index` (from 0): its own where it has any, else the network's."""
    network = settings.network
    own = network.layers[index] if network.layers else LayerOverrides()
    resolved: dict[str, Any] = {}
    for name in LayerOverrides.model_fields:
        value = getattr(own, name)
        resolved[name] = getattr(network, name) if value is None else value
    if convolution and isinstance(network, CNN) and own.dropout is None:
        resolved["dropout"] = network.conv_dropout
    return _options(tuple(resolved.items()))


@functools.lru_cache(maxsize=4096)
def _options(resolved: tuple[tuple[str, Any], ...]) -> LayerOverrides:
    return LayerOverrides(**dict(resolved))


def parameter_shapes(layers: list[LayerShape]) -> dict[tuple[int, str], tuple[int, ...]]:
    """The shape of every trained parameter of a member, by (layer, name)."""
    shapes: dict[tuple[int, str], tuple[int, ...]] = {}
    for index, layer in enumerate(layers, start=1):
        shapes[index, "weight"] = layer.weight
        shapes[index, "bias"] = layer.bias
        if layer.options is not None and layer.options.norm != "none":
            shapes[index, "gain"] = shapes[index, "shift"] = (layer.channels,)
    return shapes


def condenses(layer: LayerShape, samples: int) -> bool:
    """Whether so few samples of a layer's inputs span less than all its coordinates."""
    return layer.dense and samples < layer.weight[1]
