"""The options of a study: all that a run's training and measuring depend on, a class a section, with defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from alignkit.errors import nearest

Activation = Literal["tanh", "relu", "leaky_relu", "sigmoid", "gelu", "erf", "linear"]
Stage = Literal["norm", "activation", "dropout", "pool"]
# Strict: true is no number, "8" no count, 1 no flag.
Probability = Annotated[float, Field(strict=True, ge=0.0, lt=1.0, allow_inf_nan=False)]
Slope = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Index = Annotated[int, Field(strict=True, ge=0, le=10_000_000_000)]
Seed = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

MEASURES = {
    "signal": ("signal_cosine", "signal_cosine_sd", "signal_angle_deg", "undefined"),
    "delta": ("delta_cosine",),
    "gradient": ("gradient_cosine",),
    "step": ("step_cosine", "update_ratio"),
    "weight": ("weight_cosine",),
    "jacobian": ("jacobian_cosine",),
    "ceiling": ("ceiling_cosine",),
    "chance": ("chance_z", "chance_p"),
    "size": ("signal_gain", "projection", "gate"),
    "common_mode": ("common_mode",),
    "rank": ("effective_rank",),
}
"""Groups of columns of `layers` that `probe.measures` chooses from; a group is computed together."""

ANGLES = ("signal", "delta", "gradient")


class Section(BaseModel):
    """A section of a study: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Digits(Section):
    """scikit-learn's 8x8 digits (1,797 images, 10 classes), which come with alignkit."""

    name: Literal["digits"] = "digits"
    shuffle_labels: Flag = False


class Teacher(Section):
    """Inputs with a known correlation, labelled by a random network: the ground truth is known."""

    name: Literal["teacher"]
    task: Literal["classification", "regression"] = "classification"
    samples: Annotated[int, Field(strict=True, ge=20, le=10_000_000)] = 2000
    inputs: Count = 32
    outputs: Count = 5
    teacher_width: Count = 32
    teacher_depth: Index = 1
    correlation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    noise: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    seed: Seed = 0
    shuffle_labels: Flag = False


class Images(Section):
    """Images in a local folder of Parquet files, in the schema of the Hugging Face hub. `validation` counts
    the training images that are held out (0: none); by default, a tenth of them."""

    name: Literal["images"]
    path: str
    validation: Index | None = None
    train_samples: Count | None = None
    test_samples: Count | None = None
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None
    std: tuple[Positive, ...] | None = None
    shuffle_labels: Flag = False


DataSection = Annotated[Digits | Teacher | Images, Field(discriminator="name")]


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
    """Options that both kinds of network share. The tail's default order is norm, activation,
    dropout, pooling; `layers`, one entry per hidden layer, overrides them layer by layer.

    `frozen` is the fraction of a hidden layer's weights and biases that keep their initial values, and
    `signal_masked` that of the entries of the signal at its output, [batch, d_l], that are set to zero, whichever
    rule sends it. Both masks are drawn once per run, from the stream `masks`; a signal's has a row for each place in
    the batch. A lower fraction keeps all that a higher one keeps.

    `initialisation` "pre_aligned" starts from "pytorch" and sets every weight matrix above the first hidden layer
    so that what back-propagation sends down resembles the teaching signal (Launay, Poli and Krzakala 2019)."""

    activation: Activation = "tanh"
    slope: Slope = 0.01
    norm: Literal["none", "batch", "layer"] = "none"
    dropout: Probability = 0.0
    input_dropout: Probability = 0.0
    frozen: Probability = 0.0
    signal_masked: Probability = 0.0
    order: Order = ("norm", "activation", "dropout", "pool")
    initialisation: Literal["pytorch", "xavier", "kaiming", "orthogonal", "zero", "pre_aligned"] = "pytorch"
    layers: tuple[LayerOverrides, ...] = ()

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


class Feedback(Section):
    """The law of the feedback matrices. `sharing = "sliced"` draws one matrix for the widest layer and
    gives every layer its first columns. `normalised` scales a DFA matrix [C, d] to entries of variance
    1/(C d), an FA matrix to variance 1/fan-in; otherwise the variance is 1. `scale` multiplies either.
    `rank` is that of every matrix: its rows are projected on a random subspace of the outputs (FA: of the units
    above) and lengthened so that the expected size of a signal stays. `points` are the hidden layers, counted from
    1, where feedback enters: a layer that is not among them learns by what the layer above hands down through its
    weights, as in back-propagation.
    `angle_deg` is read by the rule imposed_angle alone: how far it turns the deltas of back-propagation,
    from 0 (back-propagation) to 180 (ascent)."""

    law: Literal["gaussian", "uniform", "orthogonal"] = "gaussian"
    sharing: Literal["per_layer", "sliced"] = "per_layer"
    normalised: Flag = True
    scale: Positive = 1.0
    rank: Count | None = None
    points: tuple[Count, ...] | None = None
    angle_deg: Annotated[float, Field(strict=True, ge=0.0, le=180.0, allow_inf_nan=False)] = 0.0


class Streams(Section):
    """A seed of its own for one stream of randomness; a stream left out follows the run's seed."""

    initialisation: Seed | None = None
    feedback: Seed | None = None
    order: Seed | None = None
    dropout: Seed | None = None
    masks: Seed | None = None


class Probe(Section):
    """What is measured, when and on what: the first `samples` of the split (`draw` 1 takes the next ones,
    and so on: the control for the draw of the probe). Checkpoints: step 0, `log_steps` log-spaced steps within the
    first epoch, every `every_epochs` epochs (0: none), the listed `steps`, and the end. `mode` "batch"
    uses the statistics of the probe batch with dropout off; "eval" and "train" are the network's own.

    Both signals come from one pass under the same masks. `reference_mode` takes the BP signal from a second pass in
    another mode, and `reference_masks` under other masks of frozen weights and signals ("independent") or none. Both
    are defects that published measurements have, kept to show what they do: angles then hold the difference of two
    networks as well, and `output_cosine` is no longer 1. The report says so.

    `evaluation_samples` caps each split's samples for the losses and accuracies of checkpoints (0: all);
    those of the end are over every sample. `chance` "auto" takes the closed form for Gaussian feedback
    and `redraws` draws from other laws."""

    split: Literal["test", "validation", "train"] = "test"
    samples: Annotated[int, Field(strict=True, ge=2, le=10_000_000)] = 128
    draw: Index = 0
    mode: Literal["batch", "eval", "train"] = "batch"
    reference_mode: Literal["batch", "eval", "train"] | None = None
    reference_masks: Literal["shared", "none", "independent"] = "shared"
    measures: Literal["all", "angles"] | tuple[str, ...] = "all"
    log_steps: Index = 6
    every_epochs: Index = 1
    steps: tuple[Index, ...] = ()
    evaluation_samples: Index = 1000
    chance: Literal["auto", "redraw"] = "auto"
    redraws: Annotated[int, Field(strict=True, ge=20, le=10_000_000)] = 200

    @field_validator("measures")
    @classmethod
    def _measures_exist(cls, measures: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(measures, tuple):
            for name in measures:
                if name not in MEASURES:
                    raise ValueError(f'no group of measures is called "{name}"; {nearest(name, MEASURES)}')
        return measures

    @property
    def groups(self) -> frozenset[str]:
        if self.measures == "all":
            return frozenset(MEASURES)
        return frozenset(ANGLES if self.measures == "angles" else self.measures)


class Settings(Section):
    """All that an arm's training and measuring depend on, the rule and the seed apart."""

    data: DataSection = Digits()
    network: NetworkSection = MLP()
    training: Training = Training()
    feedback: Feedback = Feedback()
    streams: Streams = Streams()
    probe: Probe = Probe()

    @model_validator(mode="after")
    def _layers_are_there(self) -> Settings:
        hidden = self.network.hidden_layers
        beyond = [point for point in self.feedback.points or () if point > hidden]
        if (
            beyond
            or self.feedback.points == ()
            or len(set(self.feedback.points or ())) < len(self.feedback.points or ())
        ):
            raise ValueError(
                f"feedback.points: expected different hidden layers of 1 to {hidden}, one or more; got "
                f"{list(self.feedback.points or ())}. Leave it out for feedback at every one"
            )
        if self.training.output_layers > hidden + 1:
            raise ValueError(
                f"training.output_layers: expected at most {hidden + 1}, all layers of the network; got "
                f"{self.training.output_layers}"
            )
        return self


SECTIONS = tuple(Settings.model_fields)
