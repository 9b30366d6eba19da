"""The sections `[training]` and `[streams]`."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from alignkit.settings.types import Count, Index, Positive, Probability, Section, Seed

MatmulPrecision = Literal["float32", "tf32", "bf16"]
"""Of the factors of a product of float32 tensors: 23 bits after the point, 10 or 7. Sums are float32."""


class Training(Section):
    """How a network is trained. `lr` teaches the hidden layers and, unless `output_lr` says otherwise,
    the output layer. With `reduction = "sum"` gradients are summed over the batch and not averaged. The last
    `output_layers` layers learn by `output_lr` and `output_reduction`.
    `update = "norm_matched"` takes the rule's direction at the length of the BP gradient, parameter by
    parameter, so that angle and step size can be told apart. The last partial batch is dropped.
    `matmul_precision` is that of the factors of matrix products and convolutions in training steps: "tf32" (GPUs) and
    "bf16" (processors with AMX) are faster; what is measured is always worked out in `dtype`. torch takes products of
    fewer than 4,096 multiplications in float32 all the same."""

    epochs: Count = 20
    batch_size: Count = 32
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: Probability = 0.0
    lr: Positive = 0.1
    output_lr: Positive | None = None
    reduction: Literal["mean", "sum"] = "mean"
    output_reduction: Literal["mean", "sum"] | None = None
    output_layers: Count = 1
    update: Literal["own", "norm_matched"] = "own"
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    dtype: Literal["float32", "float64"] = "float32"
    matmul_precision: MatmulPrecision = "float32"

    @model_validator(mode="after")
    def _precision_is_of_float32(self) -> Training:
        if self.dtype == "float64" and self.matmul_precision != "float32":
            raise ValueError(f'matmul_precision = "{self.matmul_precision}" is for dtype = "float32"; got "float64"')
        return self

    @model_validator(mode="after")
    def _momentum_is_sgd(self) -> Training:
        if self.optimiser == "adam" and self.momentum:
            raise ValueError('momentum belongs to optimiser = "sgd"; Adam has its own')
        return self


class Streams(Section):
    """A seed of its own for one stream of randomness; a stream left out follows the run's seed, plus `shift`.

    A factor over shifts is a sham: its levels differ in their draws alone, under every seed in other ones. A factor
    over the seeds of one stream is none, since all runs at a level then share the draw, and what it does."""

    initialisation: Seed | None = None
    feedback: Seed | None = None
    order: Seed | None = None
    dropout: Seed | None = None
    masks: Seed | None = None
    shift: Index = 0
