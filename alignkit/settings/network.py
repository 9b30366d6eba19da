"""The section `[network]`: fully connected and convolutional networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from alignkit.settings.modules import is_own
from alignkit.settings.types import Activation, Count, Flag, Index, Probability, Section, Slope, Stage


def _permutation(order: tuple[str, ...]) -> tuple[str, ...]:
    if sorted(order) != ["activation", "dropout", "norm", "pool"]:
        raise ValueError("expected each of norm, activation, dropout, pool exactly once")
    return order


Order = Annotated[tuple[Stage, ...], AfterValidator(_permutation)]


class LayerOverrides(Section):
    """What one hidden layer does differently from the network's own options."""

    activation: Activation | None = None
    slope: Slope | None = None
    norm: Literal["none", "batch", "layer"] | None = None
    dropout: Probability | None = None
    frozen: Probability | None = None
    signal_masked: Probability | None = None
    order: Order | None = None


class Network(Section):
    """Options that both kinds of network share. The default order of a layer's stages is norm, activation,
    dropout, pooling; `layers`, one entry per hidden layer, overrides them layer by layer.

    `frozen` is the fraction of a hidden layer's weights and biases that keep their initial values, and
    `signal_masked` that of the entries of the signal at its output, [batch, d_l], that are set to zero, whichever
    rule sends it. Both masks are drawn once per run, from the stream `masks`; a signal's has a row for each place in
    the batch. A lower fraction keeps all that a higher one keeps.

    `initialisation` "pre_aligned" starts from "pytorch" and sets every weight matrix above the first hidden layer
    so that what back-propagation sends down resembles the teaching signal (Launay, Poli and Krzakala 2019).

    `op` is the weight op of the hidden fully connected layers: "linear", or "module:Class" of one's own
    (`networks/weight_op.py`)."""

    activation: Activation = "tanh"
    slope: Slope = 0.01
    norm: Literal["none", "batch", "layer"] = "none"
    dropout: Probability = 0.0
    input_dropout: Probability = 0.0
    frozen: Probability = 0.0
    signal_masked: Probability = 0.0
    order: Order = ("norm", "activation", "dropout", "pool")
    op: str = "linear"
    initialisation: Literal["pytorch", "xavier", "kaiming", "orthogonal", "zero", "pre_aligned"] = "pytorch"
    layers: tuple[LayerOverrides, ...] = ()

    @field_validator("op")
    @classmethod
    def _op_has_a_name(cls, op: str) -> str:
        if op != "linear" and not is_own(op):
            raise ValueError(f'expected "linear", or "module:Class" for a weight op of your own; got "{op}"')
        return op

    @model_validator(mode="after")
    def _slope_has_its_activation(self) -> Network:
        own = [layer.activation or self.activation for layer in self.layers]
        stray = "slope" in self.model_fields_set and "leaky_relu" not in {self.activation, *own}
        if stray or any(
            layer.slope is not None and a != "leaky_relu" for layer, a in zip(self.layers, own, strict=True)
        ):
            raise ValueError(
                f'slope belongs to activation = "leaky_relu"; this network has "{self.activation}". '
                "To vary both, declare one named factor whose levels set the two keys together"
            )
        return self


class MLP(Network):
    """A fully connected network: `depth` hidden layers of `width` units, or `widths` one by one."""

    kind: Literal["mlp"] = "mlp"
    width: Count = 64
    depth: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    widths: tuple[Count, ...] | None = None

    @model_validator(mode="after")
    def _layers_fit(self) -> MLP:
        if self.widths is not None and not self.widths:
            raise ValueError("widths: expected at least one hidden layer; got none")
        if self.widths is not None and {"width", "depth"} & self.model_fields_set:
            raise ValueError("widths says every hidden layer's size: leave width and depth out")
        if self.layers and len(self.layers) != self.hidden_layers:
            raise ValueError(
                f"layers: expected one entry per hidden layer, {self.hidden_layers}; got {len(self.layers)}"
            )
        return self

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        return self.widths if self.widths is not None else (self.width,) * self.depth

    @property
    def hidden_layers(self) -> int:
        return len(self.hidden_widths)


class CNN(Network):
    """Convolution blocks, each ended by max pooling, then fully connected hidden layers. The defaults
    are the network of Launay, Poli and Krzakala (2019). Without `weight_sharing` the blocks are locally connected:
    every position has a kernel of its own."""

    kind: Literal["cnn"]
    channels: tuple[Count, ...] = (32, 64, 64)
    kernel: Count = 5
    padding: Index = 2
    pool: Count = 3
    pool_stride: Count = 2
    hidden: tuple[Count, ...] = (128,)
    conv_dropout: Probability = 0.0
    weight_sharing: Flag = True

    @model_validator(mode="after")
    def _layers_fit(self) -> CNN:
        if not self.channels:
            raise ValueError('channels: expected at least one convolution; got none (kind = "mlp" has none)')
        if self.layers and len(self.layers) != self.hidden_layers:
            raise ValueError(
                f"layers: expected one entry per hidden layer, {self.hidden_layers}; got {len(self.layers)}"
            )
        return self

    @property
    def hidden_layers(self) -> int:
        return len(self.channels) + len(self.hidden)


NetworkSection = Annotated[MLP | CNN, Field(discriminator="kind")]
