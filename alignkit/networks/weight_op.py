"""What a kind of layer answers: a weight op is one object in a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.networks.shapes import LayerShape
from alignkit.numerics.kinds import Float
from alignkit.numerics.tensors import Delta, Inputs, Signal, Weight
from alignkit.settings.modules import import_class

Biases = Float[Tensor, "E _"]


class WeightOp(ABC):
    """z_l = op(h_{l-1}, W_l, b_l) over the ensemble axis, and what goes back through it.

    A new one defines `forward`, `transport` and `weight_gradient`, and `weight_shape` where its weights are not
    [out, in]. Member e of a result may depend on member e of what is given alone. A study names it as
    `network.op = "module:Class"`: it then stands in the place of the hidden fully connected layers' op.
    """

    def __init__(self, shape: LayerShape) -> None:
        self.shape = shape

    @classmethod
    def weight_shape(cls, inputs: int, outputs: int) -> tuple[int, ...]:
        """The shape of one member's weights between `inputs` and `outputs` units."""
        return (outputs, inputs)

    @classmethod
    def from_dense(cls, values: np.ndarray) -> np.ndarray:
        """Initial weights of `weight_shape`, from values [out, in] of the study's law of initialisation."""
        return values

    @abstractmethod
    def forward(self, h: Inputs, weight: Weight, bias: Biases) -> Delta:
        """z_l, [E, N, d_l] (or [E, N, c, H, W]), of h_{l-1}; nothing else keeps it, so stages may work in it."""

    @abstractmethod
    def transport(self, delta: Delta, weight: Weight) -> Signal:
        """A delta at z_l carried back to h_{l-1}: [E, N, d_{l-1}]. `weight` may be feedback of the weights' shape."""

    @abstractmethod
    def weight_gradient(self, h: Inputs, delta: Delta) -> Weight:
        """The gradient of the weights, [E, …] of their shape, summed over samples, from a delta at z_l."""

    def bias_gradient(self, delta: Delta) -> Biases:
        """That of the biases: the delta's sum over samples, and over a channel's positions."""
        return delta.sum((1, *range(3, delta.dim())))  # [E, d_l]

    def write_gradient(self, out: Weight, h: Inputs, delta: Delta) -> None:
        """The weights' gradient into memory that lies as the weights do."""
        out.copy_(self.weight_gradient(h, delta))

    def subtract_gradient(self, weight: Weight, h: Inputs, delta: Delta) -> None:
        """weight -= gradient, in place."""
        weight.sub_(self.weight_gradient(h, delta))


WEIGHT_OPS = {
    "linear": "alignkit.networks.linear:Linear",
    "output": "alignkit.networks.linear:OutputLinear",
    "convolution": "alignkit.networks.convolution:Convolution",
    "local": "alignkit.networks.locally_connected:LocallyConnected",
}


def op_class(name: str) -> Any:
    """The class of a weight op, by its name or as "module:Class"."""
    op = import_class(WEIGHT_OPS.get(name, name), what=f'op "{name}"')
    if not (isinstance(op, type) and issubclass(op, WeightOp)) or op.__abstractmethods__:
        raise StudyError(
            f'op "{name}": expected a subclass of alignkit.networks.weight_op.WeightOp that defines forward, transport '
            f"and weight_gradient; got {op!r}"
        )
    return op


def ops_of(layers: Sequence[LayerShape]) -> list[WeightOp]:
    """The weight op of every layer."""
    return [op_class("output" if layer.options is None else layer.op)(layer) for layer in layers]


def check_op(op: WeightOp, result: Tensor, expected: Sequence[int], like: Tensor, *, what: str) -> None:
    """Raise `StudyError` unless what a weight op returned has the expected shape and the network's type."""
    if list(result.shape) != list(expected) or result.dtype != like.dtype:
        raise StudyError(
            f"{type(op).__name__}.{what}: expected {list(expected)} of {like.dtype} at layer {op.shape.name}; got "
            f"{list(result.shape)} of {result.dtype}"
        )
