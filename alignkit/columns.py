"""The columns of the three tables of records: their order, their types and what they mean.

Besides these, `runs` has one column per factor of the study, between `held_out` and `train_accuracy`.
Losses are means per sample. Accuracies are fractions, NaN for regression. Whatever is undefined (a
diverged run, an absent split, a zero vector, a measure that was not asked for) is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from alignkit.errors import require_text

FORMAT_VERSION = 1

RUNS = {
    "run_id": ("string", "hash of everything that determines the run, defaults left out"),
    "study": ("string", "name of the study"),
    "rule": ("string", "what teaches the hidden layers"),
    "cell": ("string", "the combination of factor levels, as text; a BP run leaves feedback factors out"),
    "designs": ("string", "names of the study's designs that hold the run, joined by +"),
    "bp_run_id": ("string", "the BP run of the same cell and seed (for a BP run, itself; empty where there is none)"),
    "replicate": ("string", "the run; where each seed tunes itself, what its runs at all rates share"),
    "bp_replicate": ("string", "the replicate under BP of the same cell and seed; empty where there is none"),
    "seed": ("int64", "seed: the unit of replication"),
    "held_out": ("bool", "whether the study holds the seed out: such runs confirm, and take no part in verdicts"),
    "train_accuracy": ("float64", "accuracy on the training split at the end, in evaluation mode"),
    "validation_accuracy": ("float64", "accuracy on the validation split at the end"),
    "test_accuracy": ("float64", "accuracy on the test split at the end"),
    "train_loss": ("float64", "loss on the training split at the end"),
    "validation_loss": ("float64", "loss on the validation split at the end"),
    "test_loss": ("float64", "loss on the test split at the end"),
    "validation_loss_error": ("float64", "standard error of validation_loss over the split's samples"),
    "validation_samples": ("float64", "how many samples the validation split has"),
    "n_classes": ("float64", "how many classes the data have; missing for regression"),
    "lr": ("float64", "learning rate of the hidden layers"),
    "output_lr": ("float64", "learning rate of the output layer"),
    "diverged": ("bool", "whether the loss or a parameter ever was non-finite"),
    "diverged_step": ("Int64", "the first such step; missing where there is none"),
    "steps": ("int64", "number of updates"),
    "parameters": ("int64", "number of trained parameters"),
}

FROM_PLAN = frozenset(
    {"study", "rule", "cell", "designs", "bp_run_id", "replicate", "bp_replicate", "seed", "held_out"}
)
"""Columns of `runs` that its files leave out: the plan knows them."""

CHECKPOINTS = {
    "run_id": ("string", "the run"),
    "step": ("int64", "updates made so far"),
    "epoch": ("float64", "step divided by the updates of an epoch"),
    "mode": ("string", "mode of the measured forward pass: batch, eval or train; the first of several"),
    "output_cosine": (
        "float64",
        "self-test, always 1: the rule's output-weight gradient against autograd's (NaN where it is 0); less where "
        "probe.reference_mode takes the two from passes in different modes",
    ),
    "update_angle_deg": (
        "float64",
        "angle between the rule's update of all hidden weights and BP's gradient, each layer's update scaled to the "
        "length of BP's gradient there, in degrees",
    ),
    "train_loss": ("float64", "loss on the training split (its first evaluation_samples)"),
    "validation_loss": ("float64", "loss on the validation split"),
    "test_loss": ("float64", "loss on the test split"),
    "train_accuracy": ("float64", "accuracy on the training split"),
    "validation_accuracy": ("float64", "accuracy on the validation split"),
    "test_accuracy": ("float64", "accuracy on the test split"),
}


@dataclass(frozen=True)
class Column:
    """A column of a measure: what it is called, what it means, and how reports show it.

    Parameters
    ----------
    name : of the column in `layers`, and of a claim's `response`: letters, digits and underscores.
    meaning : its definition, as the report prints it.
    label : the name in words, for axes and sentences; the name itself, with spaces, where it is left out.
    unit : "°", or "" for a pure number.
    better : which side is better, "higher" or "lower"; "" where neither is.
    digits : decimals that it is printed with; 1 for degrees and 3 for pure numbers where it is left out.
    kind : the type in files; a measure of one's own is always "float64".
    """

    name: str
    meaning: str
    label: str = ""
    unit: str = ""
    better: Literal["", "higher", "lower"] = ""
    digits: int | None = None
    kind: str = "float64"


MEASURES: dict[str, tuple[Column, ...]] = {
    "signal": (
        Column("signal_cosine", "mean over samples of cos(t_l, g_l)", "cosine with the BP signal", better="higher"),
        Column("signal_cosine_sd", "its standard deviation over samples: a description, never an uncertainty"),
        Column(
            "signal_angle_deg",
            "mean over samples of the angle between t_l and g_l, in degrees",
            "angle to the BP signal",
            unit="°",
            better="lower",
        ),
        Column(
            "centred_angle_deg",
            "the same of t_l and g_l less their means over the probe, unit by unit; samples left without either are "
            "left out",
            "angle to the BP signal, both centred",
            unit="°",
            better="lower",
        ),
        Column("undefined", "samples with a zero vector in either place; excluded, never scored", kind="int64"),
    ),
    "delta": (
        Column(
            "delta_cosine",
            "mean over samples of the cosine at the weight op's output",
            "cosine with the BP delta",
            better="higher",
        ),
        Column(
            "delta_angle_deg",
            "mean over samples of the angle at the weight op's output, in degrees",
            "angle to the BP delta",
            unit="°",
            better="lower",
        ),
    ),
    "gradient": (
        Column(
            "gradient_cosine",
            "Frobenius cosine of the batch weight gradients",
            "cosine with the BP gradient",
            better="higher",
        ),
        Column(
            "gradient_angle_deg",
            "angle between the batch weight gradients, in degrees",
            "angle to the BP gradient",
            unit="°",
            better="lower",
        ),
    ),
    "step": (
        Column(
            "step_cosine",
            "Frobenius cosine of the last displacement of W_l and -BP gradient of its batch, over weights not frozen",
            "cosine of the step with the BP gradient",
            better="higher",
        ),
        Column(
            "step_angle_deg",
            "angle between the last displacement of W_l and -BP gradient of its batch, over weights not frozen, in "
            "degrees",
            "angle of the step to the BP gradient",
            unit="°",
            better="lower",
        ),
        Column("update_ratio", "|dW_l| / |W_l| of the last step"),
    ),
    "weight": (
        Column(
            "weight_cosine",
            "Frobenius cosine of the feedback and the forward weights it stands for; like all that is about feedback, "
            "undefined at layers where none enters",
            "cosine of feedback and weights",
            better="higher",
        ),
    ),
    "jacobian": (
        Column(
            "jacobian_cosine",
            "Frobenius cosine of B_l and the probe batch's mean Jacobian dy/dh_l, batch statistics held constant",
            "cosine of feedback and Jacobian",
            better="higher",
        ),
    ),
    "ceiling": (
        Column(
            "ceiling_cosine",
            "the best mean cosine that any use of the feedback could reach",
            "best cosine the feedback allows",
            better="higher",
        ),
    ),
    "chance": (
        Column("chance_z", "signal_cosine in standard deviations of feedback redrawn from its own law"),
        Column("chance_p", "two-sided p of the same"),
    ),
    "size": (
        Column("signal_gain", "median over samples of |t_l| / |g_l|"),
        Column("projection", "mean over samples of <t_l, g_l> / |g_l|^2"),
        Column("gate", "median over samples of |delta of the rule| / |t_l|: what the stages let through"),
    ),
    "common_mode": (Column("common_mode", "share of the teaching signal that is the same for every sample"),),
    "rank": (Column("effective_rank", "(tr G)^2 / tr G^2 of the centred Gram matrix of h_l"),),
    "norms": (
        Column("teaching_norm", "median over samples of |t_l|", "length of the teaching signal"),
        Column("gradient_norm", "median over samples of |g_l|", "length of the BP signal"),
        Column("activation_norm", "median over samples of |h_l|", "length of the activations"),
    ),
    "stability": (
        Column(
            "gradient_stability",
            "Frobenius cosine of BP's weight gradients of two passes, one for each half of the probe batch, each with "
            "its own batch statistics; it describes the reference",
            "agreement of the BP gradients of two half batches",
        ),
    ),
}
"""Groups of columns of `layers` that `probe.measures` chooses from. The class that `measures/measure.py` names for a
group computes its columns together."""
ANGLES = ("signal", "delta", "gradient")

_LAST = ("update_ratio", "effective_rank", "undefined")  # in the files, whatever their group
_DECLARED = {column.name: column for columns in MEASURES.values() for column in columns}
MEASURE_COLUMNS = (*(name for name in _DECLARED if name not in _LAST), *_LAST)

LAYERS = {
    "run_id": ("string", "the run"),
    "step": ("int64", "updates made so far"),
    "epoch": ("float64", "step divided by the updates of an epoch"),
    "mode": ("string", "mode of the measured forward pass; of several, measures of the last step stand with the first"),
    "layer": ("int64", "1-based index of the hidden layer, from the input"),
    "layer_name": ("string", "linear1, conv1, …"),
    "width": ("int64", "size of the layer's output h_l"),
    "signal": ("string", "teaching: the signal that taught the run; bystander: one that did not (BP runs)"),
    **{name: (_DECLARED[name].kind, _DECLARED[name].meaning) for name in MEASURE_COLUMNS},
}
"""Measures of a study's own come after these."""

_OWN: dict[str, Column] = {}
PLACES = {
    "signal": "at h",
    "centred": "at h less batch means",
    "delta": "at z",
    "gradient": "weight gradient",
    "step": "step",
}
"""Where a teaching signal is compared with back-propagation's, by the beginning of the measure's name."""
MODES = {"batch": "batch statistics", "eval": "evaluation mode", "train": "training mode"}
"""The modes of a measurement, in words."""


def show_columns(own: Iterable[Column]) -> None:
    """Take up the columns of a user's own measures, as a study or its records declare them."""
    _OWN.update({column.name: column for column in own})


def declared(name: str) -> Column | None:
    """The declaration of a column of measures; None where it is not known."""
    return _DECLARED.get(name) or _OWN.get(name)


def meaning_of(name: str) -> str:
    """The definition of a column of measures, as far as it is known."""
    column = declared(name)
    return column.meaning if column else "a measure of the study's own"


GAP = "accuracy_gap"
EXCESS = "_excess"
_ACCURACIES = frozenset({"train_accuracy", "validation_accuracy", "test_accuracy"})


def unit_of(response: str) -> str:
    """The unit of a response's summaries: "°", "points" (accuracy, of 100), or "" for a pure number.

    >>> unit_of("signal_angle_deg"), unit_of("test_accuracy"), unit_of("signal_cosine_excess")
    ('°', 'points', '')
    """
    require_text("response", response)
    name = response.removesuffix(EXCESS)
    column = declared(name)
    if column is not None:
        return column.unit
    if name.endswith("_deg"):
        return "°"
    return "points" if name == GAP or name in _ACCURACIES else ""


def digits_of(response: str) -> int:
    """Decimals that a response is printed with: degrees 1, points 2, pure numbers 3, or as its measure declares."""
    column = declared(response.removesuffix(EXCESS))
    if column is not None and column.digits is not None:
        return column.digits
    return {"°": 1, "points": 2}.get(unit_of(response), 3)


def better_side(response: str) -> Literal["", "higher", "lower"]:
    """Which side of a response is better; "" where neither is known to be.

    >>> better_side("signal_angle_deg"), better_side("test_accuracy"), better_side("effective_rank")
    ('lower', 'higher', '')
    """
    name = response.removesuffix(EXCESS)
    column = declared(name)
    if column is not None:
        return column.better
    if name == GAP or name.endswith("_accuracy"):
        return "higher"
    return "lower" if name.endswith("_loss") else ""


def label_of(response: str) -> str:
    """A response in words, for axes and sentences.

    >>> label_of("signal_angle_deg"), label_of("effective_rank_excess")
    ('angle to the BP signal', 'effective rank, less that of untaught feedback')
    """
    require_text("response", response)
    if response.endswith(EXCESS):
        return f"{label_of(response.removesuffix(EXCESS))}, less that of untaught feedback"
    if response == GAP:
        return "accuracy gap to BP"
    column = declared(response)
    return (column.label if column else "") or response.replace("_", " ")
