"""What a study says: the frozen, validated description that a TOML file is read into.

Every option has its default and its meaning here, in the class of its section. `designs.py` turns a
study into cells and runs.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from alignkit.errors import StudyError, nearest
from alignkit.rules import check_rule
from alignkit.validation import validated

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


class Training(Section):
    """How a network is trained. `lr` teaches the hidden layers and, unless `output_lr` says otherwise,
    the output layer. With `reduction = "sum"` gradients are summed over the batch and not averaged. The last
    `output_layers` layers learn by `output_lr` and `output_reduction`.
    `update = "norm_matched"` takes the rule's direction at the length of the BP gradient, parameter by
    parameter, so that angle and step size can be told apart. The last partial batch is dropped."""

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


class Design(Section):
    """A set of cells. `grid` crosses all factors; `fraction` takes a regular fraction (1/2, 1/4, …) of
    the two-level factors, crossed with the others in full; `one_at_a_time` varies each factor alone from
    the base; `cells` lists them. `base` overrides the study's options for this design."""

    kind: Literal["grid", "fraction", "one_at_a_time", "cells"] = "grid"
    fraction: str = "1/2"
    factors: dict[str, Any] = {}
    cells: tuple[dict[str, Any], ...] = ()
    base: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fraction_is_of_a_fraction(self) -> Design:
        if "fraction" in self.model_fields_set and self.kind != "fraction":
            raise ValueError(f'fraction belongs to kind = "fraction"; this design is a {self.kind}')
        return self

    @field_validator("fraction")
    @classmethod
    def _fraction_is_a_power_of_two(cls, fraction: str) -> str:
        numerator, _, denominator = fraction.partition("/")
        if numerator != "1" or not denominator.isdigit() or int(denominator) < 2 or int(denominator).bit_count() != 1:
            raise ValueError(f'expected "1/2", "1/4", "1/8" and so on; got "{fraction}"')
        return fraction


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"expected one or more different seeds; got {list(seeds)}")
    return seeds


class Claim(Section):
    """A hypothesis, declared before the runs: the effect of going from `levels[0]` to `levels[1]`.

    `response` is a measure, `<measure>_excess` (less that of the BP twin's bystander), an accuracy or
    `accuracy_gap` (to the BP twin), in points. One number stands for a run: of a measure, the value at the
    end of training (`summary` "final") or its average over training ("auc"), over all hidden layers
    (`layer` "mean") or in one. A confirmatory claim is tested in the family of all of them; an
    exploratory one suggests what to declare next.
    `smallest_effect` is in its unit. `practice` says in words what `levels[1]` asks a practitioner to do;
    with it, the report has a recommendation. Without `design`, the first that has both levels is taken."""

    name: Name
    statement: str
    practice: str = ""
    factor: str
    levels: tuple[Any, Any]
    response: str = "signal_angle_deg"
    summary: Literal["final", "auc"] = "final"
    layer: Count | Literal["mean"] = "mean"
    direction: Literal["increase", "decrease"]
    smallest_effect: Positive
    family: Literal["confirmatory", "exploratory"] = "confirmatory"
    rule: str = "dfa"
    design: str | None = None

    @field_validator("levels")
    @classmethod
    def _levels_differ(cls, levels: tuple[Any, Any]) -> tuple[Any, Any]:
        if levels[0] == levels[1]:
            raise ValueError(f"expected two different levels, from and to; got {list(levels)}")
        return levels


class Pilot(Section):
    """How each arm's learning rate is tuned: the grid, seeds of its own, and where the outcome is kept.
    The smallest rate within one standard error of the best validation accuracy (for regression, loss) wins."""

    lr: tuple[Positive, ...]
    output_lr: tuple[Positive, ...] = ()
    seeds: tuple[Seed, ...] = (1000, 1001)
    epochs: Count | None = None
    rates: str | None = None

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _different(seeds)

    @field_validator("lr")
    @classmethod
    def _grid_is_not_empty(cls, lr: tuple[float, ...]) -> tuple[float, ...]:
        if not lr:
            raise ValueError("expected at least one learning rate; got none")
        return lr


class Profile(Section):
    """A smaller version of the study, for `--profile NAME`: other rules or seeds, other `options` ("section.key"),
    and of the designs, of their factors' `levels` and of the claims those that are named. What is left out stays as
    it is. `description` says what the profile cannot show; records and report name the profile that ran."""

    description: str = ""
    rules: tuple[str, ...] | None = None
    seeds: Count | tuple[Seed, ...] | None = None
    held_out_seeds: tuple[Seed, ...] | None = None
    options: dict[str, Any] = {}
    designs: tuple[str, ...] | None = None
    levels: dict[str, tuple[Any, ...]] = {}
    claims: tuple[str, ...] | None = None


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


class Study(Settings):
    """A frozen description of an experiment. `Study.load(path)` reads it from a TOML file, with one of its
    `profiles` where asked; `profile` then names it.

    `seeds` is a count, or a list. `held_out_seeds` run as the others do and take no part in any verdict: they
    are where a finding is confirmed."""

    name: Name
    title: str = ""
    description: str = ""
    rules: tuple[str, ...] = ("bp", "dfa")
    seeds: Count | tuple[Seed, ...] = 5
    held_out_seeds: tuple[Seed, ...] = ()
    designs: dict[Name, Design] = {}
    claims: tuple[Claim, ...] = ()
    pilot: Pilot | None = None
    profiles: dict[Name, Profile] = {}
    profile: str = ""

    @field_validator("rules")
    @classmethod
    def _rules_exist(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            try:
                check_rule(rule)
            except StudyError as error:
                raise ValueError(str(error)) from None
        if not rules or len(set(rules)) != len(rules):
            raise ValueError(f"expected one or more different rules; got {list(rules)}")
        return rules

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: int | tuple[int, ...]) -> int | tuple[int, ...]:
        return _different(seeds) if isinstance(seeds, tuple) else seeds

    @field_validator("held_out_seeds")
    @classmethod
    def _held_out_seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _different(seeds) if seeds else seeds

    @field_validator("claims")
    @classmethod
    def _claims_differ(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        names = [claim.name for claim in claims]
        if len(set(names)) != len(names):
            raise ValueError(f"expected a different name for each claim; got {names}")
        return claims

    @model_validator(mode="after")
    def _pilot_has_seeds_of_its_own(self) -> Study:
        shared = sorted(set(self.pilot.seeds) & set(self.every_seed)) if self.pilot else []
        if shared:
            raise ValueError(
                f"pilot.seeds: expected seeds that the study itself does not use; got {shared} of both. "
                "Rates tuned on the seeds they are judged by are no longer tuned apart"
            )
        return self

    @model_validator(mode="after")
    def _held_out_seeds_are_held_out(self) -> Study:
        shared = sorted(set(self.held_out_seeds) & set(self.seed_list))
        if shared:
            raise ValueError(
                f"held_out_seeds: expected seeds that no verdict uses; got {shared} of seeds as well. Leave them out "
                "of one of the two"
            )
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self.seeds))

    @property
    def every_seed(self) -> tuple[int, ...]:
        return (*self.seed_list, *self.held_out_seeds)

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.model_dump(include=set(SECTIONS), exclude_unset=True))

    @classmethod
    def load(cls, path: str | Path, *, profile: str | None = None) -> Study:
        """Read a study file; every error names the file, the key, what was expected and what came."""
        path = Path(path)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise StudyError(
                f"{path}: no such study file. Expected a TOML file, or the name of a shipped study"
            ) from None
        except OSError as error:
            raise StudyError(f"{path}: expected a readable TOML file; got: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise StudyError(f"{path}: expected a readable TOML file in UTF-8; got: {error.reason}") from None
        except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
            raise StudyError(f"{path}: not valid TOML: {error}. Mend the line that it names") from None
        if profile is not None:
            from alignkit.profiles import with_profile

            raw = with_profile(raw, profile, source=str(path))
        elif "profile" in raw:
            raise StudyError(f"{path}: profile is not set in a file; got {raw['profile']!r}. Give --profile NAME")
        return cls.parse(raw, source=str(path))

    @classmethod
    def parse(cls, raw: dict[str, Any], *, source: str = "study") -> Study:
        """Validate a study given as nested dictionaries; `source` names it in errors."""
        return validated(cls, raw, source=source)

    def to_json(self) -> str:
        """The study as JSON, defaults left out, in its own order: what its records keep beside them."""
        dumped = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(dumped, indent=1, ensure_ascii=False)
